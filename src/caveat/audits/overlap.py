"""Samples that stand in two sets: what was fitted on them can't be judged on them."""

from collections.abc import Mapping
from typing import TypeVar

from caveat.observations import Observations, Outputs

__all__ = ["overlaps"]

FEW = 0.01
"""A share of copies up to this is what real sets have of themselves: worth a note, no warning."""


Seen = TypeVar("Seen", Observations, Outputs)


def overlaps(
    test: Seen, train: Seen | None, others: Mapping[str, Seen], outliers: Seen | None
) -> tuple[list[str], list[str]]:
    """Warnings (of many copies) and notes (of a few) of test samples that the training set holds, and of OOD inputs
    that are among the test samples or the auxiliary outliers.
    """
    found: list[tuple[float, str]] = []

    def look(seen: Seen, other: Seen | None, named: str, means: str) -> None:
        shared = 0 if other is None else int(seen.among(other).sum())
        if shared:
            found.append((shared / len(seen), f"{shared} of {len(seen)} {named}: {means}."))

    look(
        test, train, "test samples are also in the training set",
        "no score was fitted on these, but if the network was trained on them, its figures are too good",
    )  # fmt: skip
    for name, seen in others.items():
        look(seen, test, f"samples of {name} are also in the test set", "they can't be told from it")
        look(
            seen, outliers, f"samples of {name} are also among the outliers that scores learn from",
            "the figures of these scores on it are too good",
        )  # fmt: skip
    return [text for share, text in found if share > FEW], [text for share, text in found if share <= FEW]
