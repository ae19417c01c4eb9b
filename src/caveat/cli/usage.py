"""Mistakes in how a command is called, told in one line: what is wrong, what was meant, where the help is."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperCommand

from caveat.errors import CaveatError, nearest

__all__ = ["Strict", "told"]


class Strict(TyperCommand):
    """A command that refuses what typer takes: an option given twice whose last value would count, NaN, infinity."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the arguments apart, and refuse."""
        try:
            values, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for parameter, times in Counter(given).items():
                if times > 1 and not getattr(parameter, "multiple", False) and getattr(parameter, "nargs", 1) == 1:
                    ctx.fail(f"{_written(parameter)} is given {times} times; expected it once")
        except typer.TyperException as error:
            raise _with(error, ctx, {}) from None
        try:
            rest = super().parse_args(ctx, args)
        except typer.TyperException as error:
            raise _with(error, ctx, values) from None
        for parameter in self.params:
            for value in _several(ctx.params.get(str(parameter.name))):
                if isinstance(value, float) and not math.isfinite(value):
                    ctx.fail(f"{_written(parameter)}: expected a number, got {value}")
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a mistake that the library names by its parameter is named by the option as it is typed."""
        try:
            return super().invoke(ctx)
        except CaveatError as error:
            error.args = (_in_options(str(error), _options(ctx)),)
            raise


def _in_options(message: str, options: Iterable[str]) -> str:
    """The message with the parameters at its start (`calibration_share: ...`) written as options of the command.

    >>> _in_options("keep, max_error, against: expected one", ["--keep", "--max-error"])
    '--keep, --max-error: expected one'
    """
    match = re.match(r"([a-z_]+(?:, [a-z_]+)*): ", message)
    options = set(options)
    typed = [f"--{name.replace('_', '-')}" for name in match[1].split(", ")] if match else []
    typed = [next((one for one in (name, name.removesuffix("s")) if one in options), "") for name in typed]
    return f"{', '.join(filter(None, typed))}: {message[match.end() :]}" if match and any(typed) else message


def _with(error: Any, context: Any, values: Mapping[str, Any]) -> typer.TyperException:
    """The error with the command it is about, and the text that was given for the option it is about."""
    error.ctx = error.ctx or context
    error.got = values.get(str(getattr(getattr(error, "param", None), "name", None)))
    return error


def told(error: typer.TyperException) -> str:
    """A mistake that typer found, as one line that says what to do."""
    found: Any = error
    context: Any = getattr(found, "ctx", None)
    parameter: Any = getattr(found, "param", None)
    command = "caveat" if context is None else str(context.command_path)
    options = _options(context)
    name, got = getattr(found, "option_name", None), getattr(found, "got", None)
    if name and name not in options:
        message = f"there is no option {name}{_hint(name, options, context)}"
    elif type(error).__name__ == "MissingParameter":
        message = f"{_written(parameter)} is missing"
    elif context and (unknown := re.match(r"No such command '([^']*)'", error.format_message())):
        commands = [one for one in context.command.commands if one != unknown[1]]
        message = f"there is no command {unknown[1]!r}; {nearest(unknown[1], commands)}"
    elif parameter is not None and got is not None:
        message = (
            f"{_written(parameter)}: {_expected(error.message)}, got {got if isinstance(got, list) else repr(got)}"
        )
    else:
        message = error.format_message().rstrip(".")
    see = f"See  {command} --help" if message.endswith("?") else f"see  {command} --help"
    return (
        f"{command.removeprefix('caveat').strip() or 'caveat'}: {message}{'' if message.endswith('?') else ';'} {see}"
    )


def _expected(message: str) -> str:
    """What an option expects, from the words of the libraries below."""
    if "integer" in message:
        return "expected a whole number"
    if "number" in message or "float" in message:
        return "expected a number"
    limits = re.search(r"not in the range (.*?)\.?$", message)
    if limits:
        return f"expected {limits[1].replace('x>=', 'at least ').replace('x<=', 'at most ')}"
    return message.rstrip(".")


def _hint(name: str, options: Iterable[str], context: Any) -> str:
    """Which command has an option of this name, or which option here has nearly this name."""
    if not name.startswith("--"):
        return ""
    others = [] if context is None else [path for path, found in _every(context.find_root()) if name in _options(found)]
    if others:
        *before, last = others
        return f"; {', '.join(before)} and {last} have it" if before else f"; {last} has it"
    near = nearest(name, options)
    return f"; {near}" if near.startswith("did you mean") else ""


def _every(context: Any) -> Iterator[tuple[str, Any]]:
    """Every command, as it is typed, with a context of its own."""
    for name, command in getattr(context.command, "commands", {}).items():
        inner = type(context)(command, info_name=name, parent=context)
        yield inner.command_path, inner
        yield from _every(inner)


def _options(context: Any) -> list[str]:
    """The long options of a command."""
    if context is None:
        return []
    return [name for parameter in context.command.get_params(context) for name in parameter.opts if name[:2] == "--"]


def _written(parameter: Any) -> str:
    names = [name for name in parameter.opts if name.startswith("--")] or [*parameter.opts]
    return names[0] if names else str(parameter.name)


def _several(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # of any option
