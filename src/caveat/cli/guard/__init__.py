"""`caveat guard`: fit a guard, set its operating point, run it over a set."""

import typer

from caveat.cli.guard import fit, run, tune

app = typer.Typer(
    help="Put a guard in front of a network: it answers, or abstains.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
for module in (fit, tune, run):
    app.command(name=module.NAME)(module.run)
