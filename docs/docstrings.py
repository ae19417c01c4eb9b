"""Our docstrings as Markdown, for the API reference: mkdocstrings reads them through this extension of griffe."""

import re
import textwrap
from typing import Any

import griffe

__all__ = ["Plain", "markdown"]


class Plain(griffe.Extension):
    """Every docstring rewritten before it is shown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring and not obj.is_alias:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring as Markdown: examples in a fence, sections as lists, signs of formulas as they are.

    >>> print(markdown("A sum.\\n\\nRaises\\n------\\nDataError\\n    If n * m is 0.\\n\\nSource: a_b, `x_y`."))
    A sum.
    <BLANKLINE>
    **Raises**
    <BLANKLINE>
    - **DataError**: If n \\* m is 0.
    <BLANKLINE>
    **Source:** a\\_b, `x_y`.
    """
    blocks, section = [], False
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.split("\n")
        if lines[0].lstrip().startswith(">>>"):
            blocks.append("```pycon\n" + textwrap.dedent(block) + "\n```")
        elif any(line.lstrip().startswith(">>>") for line in lines):
            first = next(i for i, line in enumerate(lines) if line.lstrip().startswith(">>>"))
            blocks += [
                _literal("\n".join(lines[:first])),
                "```pycon\n" + textwrap.dedent("\n".join(lines[first:])) + "\n```",
            ]
        elif len(lines) > 1 and re.fullmatch(r"-{3,}", lines[1]):
            section = True
            blocks += [f"**{lines[0]}**", *_items(lines[2:])]
        elif section and len(lines) > 1 and lines[1].startswith("    ") and not lines[0].startswith(" "):
            blocks += _items(lines)
        elif block.startswith("    "):
            blocks.append("```text\n" + textwrap.dedent(block) + "\n```")
        else:
            blocks.append(re.sub(r"(^|(?<=[.] ))(Formula|Source|Sources):", r"**\2:**", _literal(block)))
    return "\n\n".join(blocks)


def _items(lines: list[str]) -> list[str]:
    """`name` on a line and its text indented below, or `name: text`, as items of a list."""
    found: list[list[str]] = []
    for line in lines:
        if line.startswith("    ") and found:
            found[-1].append(line.strip())
        else:
            found.append([line.strip()])
    pairs = [
        (name, " ".join(rest)) if rest else (name.partition(": ")[0], name.partition(": ")[2]) for name, *rest in found
    ]
    return ["\n".join(f"- **{_literal(name)}**: {_literal(text)}" for name, text in pairs)]


def _literal(text: str) -> str:
    """Signs that Markdown would take for its own, escaped outside of code."""
    parts = re.split(r"(``.+?``|`[^`]*`)", text, flags=re.DOTALL)
    return "".join(part if i % 2 else re.sub(r"([\\*_<\[\]#|])", r"\\\1", part) for i, part in enumerate(parts))
