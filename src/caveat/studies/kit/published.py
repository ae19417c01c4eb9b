"""The figures that a study's sources print: `published.toml` beside the study, read once."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from caveat.errors import DataError

__all__ = ["Printed", "Published", "published"]


@dataclass(frozen=True)
class Printed:
    """One table of a source, as printed there."""

    source: str
    """Paper and table, or where else it stands."""
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]

    def at(self, row: str, column: str) -> str:
        """The printed figure; empty where the source has none."""
        figures = self.rows.get(row)
        return figures[self.columns.index(column)] if figures and column in self.columns else ""


@dataclass(frozen=True)
class Published:
    """All that is quoted of a study's sources."""

    source: str
    """Author, title, year: for the head of the page."""
    tables: Mapping[str, Printed]


@cache
def published(package: str) -> Published:
    """What the sources of the study in that package (`tradi_mnist`, say) print.

    Raises
    ------
    DataError
        If a table lacks its source, or a row has not one text for each column.

    >>> published("tradi_mnist").tables["ood"].at("TRADI", "AUC")
    '96.7'
    """
    text = files("caveat.studies").joinpath(package, "published.toml").read_text(encoding="utf-8")
    whole = tomllib.loads(text)
    return Published(
        whole.pop("source"), {name: _printed(f"{package}: {name}", table) for name, table in whole.items()}
    )


def _printed(name: str, table: Mapping[str, object]) -> Printed:
    match table:
        case {"source": str(source), "columns": list(columns), "rows": dict(rows), **others} if source and not others:
            for label, figures in rows.items():
                if len(figures) != len(columns) or not all(isinstance(figure, str) for figure in figures):
                    raise DataError(f"published figures: {name}: {label}: expected {len(columns)} texts, got {figures}")
            return Printed(source, tuple(columns), {label: tuple(figures) for label, figures in rows.items()})
        case _:
            raise DataError(f"published figures: {name}: expected source, columns and rows, got {', '.join(table)}")
