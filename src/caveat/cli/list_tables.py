"""`caveat list`: the tables of methods."""

import typer

from caveat.cli.terminal import console, echo, table

NAME = "list"
WIDE = 110
"""Columns below which a table leaves out the sources: three words a line cannot be read."""


def run(
    name: str | None = typer.Argument(
        None, metavar="[TABLE]", help="scores, metrics, calibrations, data, models, objectives, posteriors or studies."
    ),
) -> None:
    """List the methods and data sets: scores, metrics, calibrations, data, models, objectives, posteriors, studies."""
    from caveat.errors import known_name

    if name is None:
        echo(f"Tables: {', '.join(LISTS)}. For instance  caveat list scores")
        return
    known_name("table", name, LISTS)
    columns, rows = LISTS[name]()
    narrow = columns[-1] == "source" and console().width < WIDE
    table(name, columns[:-1] if narrow else columns, [row[:-1] for row in rows] if narrow else rows)
    if narrow:
        echo(f"A terminal of {WIDE} columns or more shows the sources, too.")
    if name == "scores":
        echo("Higher = less trustworthy, without exception. Use one with  caveat audit --score NAME.")


def _first_line(thing: object) -> str:
    """The first paragraph: a sentence may go on in a second line."""
    return " ".join((thing.__doc__ or "").strip().partition("\n\n")[0].replace("`", "").split())


def _scores() -> tuple[list[str], list[tuple[str, ...]]]:
    from caveat import scores
    from caveat.scoring.catalog import describe, described, families

    rows = [(name, family, *describe(name)) for name, family in families().items()]
    others = {"regression": scores.FROM_GAUSSIANS, "several labels": scores.FROM_SIGMOIDS}
    rows += [(name, task, *described(f)) for task, table in others.items() for name, f in table.items()]
    return ["name", "needs", "what it is", "source"], rows


def _metrics() -> tuple[list[str], list[tuple[str, ...]]]:
    from caveat import metrics
    from caveat.records import gate

    tables = [
        metrics.OF_LOGITS, metrics.OF_PROBABILITIES, metrics.OF_BINS, metrics.OF_RANKING, metrics.OF_SELECTIVE,
        metrics.OF_REGRESSION,
    ]  # fmt: skip
    rows = [(name, "caveat.metrics", _first_line(f)) for table in tables for name, f in table.items()]
    return ["name", "where", "what it is"], [
        *((f"{name}[{metric.inside}]", "--fail-if", metric.summary) for name, metric in gate.METRICS.items()), *rows
    ]  # fmt: skip


def _calibrations() -> tuple[list[str], list[tuple[str, ...]]]:
    from importlib import import_module

    from caveat import calibration

    return ["name", "what it is"], [
        (name, _first_line(import_module(f.__module__) if f.__name__ == "fit" else f))
        for table in (calibration.FROM_LOGITS, calibration.CONFORMAL_INTERVALS) for name, f in table.items()
    ]  # fmt: skip


def _data() -> tuple[list[str], list[tuple[str, ...]]]:
    from caveat import data
    from caveat.data import segmentation

    changes = {
        "+28x28": data.modifiers.resize,
        **{f"+{name}": change for name, change in data.PIXELS.items()},
        **{f"+{name}=3,5": change for name, change in data.LABELS.items()},
        **{f"+{name}=100": change for name, change in (data.COUNTS | data.SEEDED).items()},
    }
    rows = [(name, "set", named.what) for name, named in data.NAMES.items()]
    rows += [(f"{name}:WHERE", "yours", _first_line(opened)) for name, opened in data.KINDS.items()]
    rows += [(name, "generated", _first_line(make)) for name, make in data.GENERATED.items()]
    rows += [(name, "pixels", _first_line(opened)) for name, opened in segmentation.SETS.items()]
    rows += [(name, "modifier", _first_line(change)) for name, change in changes.items()]
    return ["name", "kind", "what it is"], rows


def _models() -> tuple[list[str], list[tuple[str, ...]]]:
    from caveat import models

    found = models.MODELS | models.OF_TEXTS | models.JOINT | models.DENSE
    return ["name", "what it is"], [(name, _first_line(f)) for name, f in found.items()]


def _objectives() -> tuple[list[str], list[tuple[str, ...]]]:
    from caveat import objectives

    tables = {
        "classes": objectives.OBJECTIVES,
        "classes, with an autoencoder": objectives.FOR_RECONSTRUCTION,
        "regression": objectives.FOR_REGRESSION,
        "pixels": objectives.FOR_PIXELS,
    }
    return ["name", "for", "what it is"], [
        (name, kind, _first_line(f)) for kind, table in tables.items() for name, f in table.items()
    ]


def _posteriors() -> tuple[list[str], list[tuple[str, ...]]]:
    from importlib import import_module

    from caveat import posteriors

    return ["name", "from", "what it is"], [
        (name, source, _first_line(import_module(f.__module__))) for source, table in posteriors.SOURCES.items()
        for name, f in table.items()
    ]  # fmt: skip


def _studies() -> tuple[list[str], list[tuple[str, ...]]]:
    from caveat.studies import STUDIES

    return ["name", "what it reproduces"], [(name, line) for name, (_, line) in STUDIES.items()]


LISTS = {
    "scores": _scores,
    "metrics": _metrics,
    "calibrations": _calibrations,
    "data": _data,
    "models": _models,
    "objectives": _objectives,
    "posteriors": _posteriors,
    "studies": _studies,
}
