"""The one way to the terminal: whatever a user, a file or a network named is shown as it is, and does nothing.

Rich would read `[bold]` in a path as markup, and a terminal would obey an escape sequence in a record: here no text is
markup (styles are given beside it), and characters that are not to be seen are written as escapes.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from caveat.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["Styled", "console", "echo", "table", "text"]

Styled = str | tuple[str, str]
"""A text, or a text and its style."""


def text(*parts: Styled) -> "Text":
    r"""A text for rich of parts that are no markup; a part that is "\n" begins a new line."""
    from rich.text import Text

    made = Text()
    for part in parts:
        words, style = (part, "") if isinstance(part, str) else part
        made.append(words if words == "\n" else printable(words), style=style or None)
    return made


def console(*, stderr: bool = False) -> "Console":
    """A console that takes no text for markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def echo(*parts: Styled) -> None:
    """Print one line, which is not broken: paths and commands can be copied from it."""
    console().print(text(*parts), soft_wrap=True)


def table(
    title: str,
    columns: Iterable[str],
    rows: Iterable[Sequence["str | Text"]],
    *,
    caption: str | None = None,
    numbers: bool = False,
) -> None:
    """Print a table; with `numbers`, all columns but the first are aligned to the right."""
    from rich.table import Table

    made = Table(title=text(title), caption=None if caption is None else text(caption))
    for number, name in enumerate(columns):
        made.add_column(text(name), justify="right" if numbers and number else "left", overflow="fold")
    for row in rows:
        made.add_row(*(text(cell) if isinstance(cell, str) else cell for cell in row))
    console().print(made)
