"""The one page of a service: drop a picture, see the answer, how uncertain it is, why, and what it is like."""

from caveat.guard.stored import Task
from caveat.report import assets

__all__ = ["render"]


def render(task: Task, *, picture: bool, token: bool, nearest: bool) -> tuple[str, str]:
    """The page, and the policy that lets it ask this service and nobody else."""
    style = assets.read("page.css") + assets.read("service.css")
    parts = assets.inline(style, [assets.own_script(["service.js"])])
    parts["policy"] += "; connect-src 'self'"
    found = assets.template("service.html.j2", {}).render(
        parts, task=task, picture=picture, token=token, nearest=nearest
    )
    return found, parts["policy"]
