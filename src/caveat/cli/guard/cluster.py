"""The same verdicts by processes of Ray, on this machine or a cluster with a shared folder: each writes whole files."""

import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from caveat.cli.guard.verdicts import Answering, Tally, answer
from caveat.errors import MissingExtraError, OptionError

__all__ = ["answer_all", "check"]

NONE = "its processes did not start, or died: look at the logs of Ray, and run the same command again"


class Scorer:
    """A process with a guard of its own."""

    def __init__(self, make: Callable[[], Answering], folder: str) -> None:
        import torch

        os.chdir(folder)  # for data that are named from there
        torch.set_num_threads(1)  # one processor is lent to it
        self.one = make()

    def answered(self, place: Path, span: range, settings: dict[str, Any]) -> Tally:
        """Write one file, as a process alone does."""
        tally = Tally()
        answer(self.one, {place: span}, settings, tally, lambda _: None)
        return tally


def check() -> None:
    """Refuse to begin without Ray.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    if find_spec("ray") is None:
        raise MissingExtraError("ray", "ray", "--engine ray")


def answer_all(
    make: Callable[[], Answering],
    new: dict[Path, range],
    settings: dict[str, Any],
    tally: Tally,
    progress: Callable[[int], None],
    *,
    address: str | None,
) -> None:
    """Have every file written by one of as many processes as there are processors.

    A process that dies is started again, and writes its file anew: it is there whole or not at all.

    Raises
    ------
    OptionError
        If there is no cluster at the address.
    CaveatError
        What a process met.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    import ray  # pyright: ignore[reportMissingImports]  # the extra ray, which tests do without

    try:
        ray.init(
            address=address, include_dashboard=None if address else False, log_to_driver=False,
            logging_level=logging.ERROR,
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OptionError(f"--address: no cluster of Ray at {address} ({str(error).splitlines()[0]})") from None
    try:
        kind = ray.remote(num_cpus=1, max_restarts=3, max_task_retries=3)(Scorer)
        many = min(len(new), max(1, int(ray.cluster_resources().get("CPU", 1))))
        idle = [kind.remote(make, str(Path.cwd())) for _ in range(many)]
        left, busy = list(new.items()), dict[Any, tuple[Any, range]]()
        while left or busy:
            while left and idle:
                place, span = left.pop(0)
                process = idle.pop()
                busy[process.answered.remote(place.absolute(), span, settings)] = (process, span)
            done, _ = ray.wait(list(busy), num_returns=1)
            process, span = busy.pop(done[0])
            part: Tally = ray.get(done[0])
            tally.reasons.update(part.reasons)
            tally.example = tally.example or part.example
            progress(len(span))
            idle.append(process)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise OptionError(f"--engine ray: {NONE} ({str(error).splitlines()[0]})") from None
    finally:
        ray.shutdown()
