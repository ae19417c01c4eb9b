"""`caveat guard`: fit a guard, set its threshold, run it over a set, watch it, export it, serve it, write its card."""

import typer

from caveat.cli.guard import card, export, fit, monitor, run, serve, tune
from caveat.cli.usage import Strict

app = typer.Typer(
    help="Put a guard in front of a network: it predicts, or abstains (selective prediction).",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
for module in (fit, tune, run, monitor, export, card, serve):
    app.command(name=module.NAME, cls=Strict)(module.run)
