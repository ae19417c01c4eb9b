"""The command `caveat`. Its help must not wait for torch: commands import what they need when they run."""

import os
import sys
import warnings
from typing import NoReturn

import typer

from caveat.cli.usage import Strict, told
from caveat.errors import CaveatError, printable

__all__ = ["app", "main"]

STOPPED = 130
"""The exit code of a command that Ctrl-C stopped."""

app = typer.Typer(
    name="caveat",
    help="Predictions that come with their caveats: how far can this network's predictions be trusted?",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with  caveat demo  (a few minutes), then  caveat audit --help.",
)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    """Take the options that stand before a command."""
    if show:
        from caveat import __version__

        typer.echo(__version__)
        raise typer.Exit


def _add_commands() -> None:
    from caveat.cli import attack, audit, audit_pixels, certify, compare, demo, guard, list_tables, report, study, train

    for module in (demo, audit, audit_pixels, attack, certify, report, compare, train, study, list_tables):
        app.command(name=module.NAME, cls=Strict)(module.run)
    app.add_typer(guard.app, name="guard")


_add_commands()


def main() -> None:
    """Run the command; a mistake the caller can mend is one line and exit code 2."""
    warnings.filterwarnings("ignore", message=r"Image size .*decompression bomb")  # refused in our own words
    if strange := next((word for word in sys.argv[1:] if not _utf8(word)), None):
        _refuse(f"{strange!r} is not UTF-8, and could stand in no record: give it another name")
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
            sys.exit(2)
        _refuse(told(error))
    except typer.Abort:
        code = STOPPED
    except CaveatError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        code = STOPPED
    except Exception as error:  # a disk that is full, a network of a stranger that fails: exit 1 is a failed gate's
        if os.environ.get("CAVEAT_TRACEBACK"):
            raise
        words = " ".join(str(error).split()) or "no message"
        _refuse(f"{type(error).__name__}: {words[:500]} (set CAVEAT_TRACEBACK=1 to see where)")
    if code == STOPPED:
        print("caveat: stopped", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:  # of other bytes the system makes halves of characters
        return False
    return True


def _refuse(message: str) -> NoReturn:
    print(f"caveat: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)
