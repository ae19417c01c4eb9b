"""A model card of a guard: what it guarantees, what that rests on, its limits and its files, in Markdown."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from caveat import __version__
from caveat.calibration.cqr import CQR
from caveat.errors import OptionError, printable
from caveat.files import write_atomically
from caveat.guard.decision import Decision
from caveat.guard.guarantee import guarantee, of_intervals, of_label_sets
from caveat.guard.multilabel import MultilabelDecision
from caveat.guard.regression import RegressionDecision
from caveat.guard.stored import Sealed
from caveat.guard.threshold import refused_at_most
from caveat.metrics.interval import interval_of_share

__all__ = ["check_output", "of", "of_multilabel", "of_regression", "write"]

STARTS = "---\nlibrary_name: caveat\n"
"""What every card begins with: the header that the Hugging Face hub reads."""
MOST = 200
"""Classes in the table at most."""
OF_CLASSES = "Figures of one class rest on few samples: look at their number."
LIMITS = (
    "Guarantees are for inputs drawn as the held-out ones were. They say nothing of OOD inputs unless the guarantee "
    "names them, and nothing of an attacker who chooses inputs.",
    "Hashes detect damage and mix-ups; who may write the files can write others with the right hashes.",
)


def of(made: Decision, manifest: Sealed | None = None) -> str:
    """The card of a decision; with the manifest of the folder that holds it, its files too.

    All figures are of the held-out samples that the threshold was set on, which nothing else was fitted on.
    """
    accepted, known = made.reference <= made.promise.threshold, len(made.reference)
    right = ~made.reference_wrong
    figures = [
        ("accuracy", *_share(int(right.sum()), known)),
        ("accepted", *_share(int(accepted.sum()), known)),
        ("accuracy of the accepted", *_share(int((right & accepted).sum()), int(accepted.sum()))),
    ]
    facts = [f"calibration `{made.calibration}`"]
    return _card(
        made, made.score.name, f"{len(made.classes)} classes", guarantee(made.promise, made.classes), figures, facts,
        manifest, [*_of_examples(made), *_of_classes(made)],
    )  # fmt: skip


def of_regression(made: RegressionDecision, manifest: Sealed | None = None) -> str:
    """The same of a regression guard, whose intervals are fitted on other held-out samples."""
    kept = made.scores <= made.promise.threshold
    quantile = float(made.interval.quantile)
    moved = (
        f"the network's own ends moved {'outwards' if quantile >= 0 else 'inwards'} by {abs(quantile):.4g} (`cqr`)"
        if isinstance(made.interval, CQR)
        else f"{quantile:.4g} standard deviations to each side (`normalised_conformal`)"
    )
    facts = [
        f"outputs `{made.form}`",
        f"intervals: {moved}, fitted on the {int(kept.sum())} that are accepted of {len(kept)} other held-out samples",
    ]
    promised = of_intervals(made.promise, made.error)
    return _card(made, made.score, "A number for each input", promised, [_accepted(made)], facts, manifest)


def of_multilabel(made: MultilabelDecision, manifest: Sealed | None = None) -> str:
    """The same of a multi-label guard, whose label sets are fitted on other held-out samples."""
    kept = (made.scores <= made.promise.threshold)[made.true_samples]
    found = made.true_probs[kept] >= made.label_threshold
    facts = [
        "calibration: a temperature for each label",
        f"label sets: a probability of at least {made.label_threshold:.4g}, fitted on the "
        f"{len(made.true_samples[kept].unique())} that have a label and are accepted of {len(made.scores)} other "
        f"held-out samples, of whose labels they hold {float(found.double().mean()):.1%}",
        f"labels: {', '.join(map(_plain, made.names[:MOST]))}"
        + (f" and {len(made.names) - MOST} more" if len(made.names) > MOST else ""),
    ]
    promised = of_label_sets(made.promise, made.error)
    return _card(made, made.score, f"{len(made.names)} labels", promised, [_accepted(made)], facts, manifest)


Figure = tuple[str, str, str]
"""What it is, its value, its interval."""


def _accepted(made: RegressionDecision | MultilabelDecision) -> Figure:
    return ("accepted", *_share(int((made.reference <= made.promise.threshold).sum()), len(made.reference)))


def _card(
    made: Decision | RegressionDecision | MultilabelDecision,
    score: str,
    answers: str,
    promised: str,
    figures: Sequence[Figure],
    facts: Sequence[str],
    manifest: Sealed | None,
    more: Sequence[str] = (),
) -> str:
    """What cards of every task say."""
    held = made.promise
    refused = float(refused_at_most(made.reference, torch.tensor([held.threshold], dtype=torch.float64)))
    shape = " x ".join(map(str, made.shape)) or "not fixed"
    rests = [
        f"{len(made.reference)} held-out in-distribution samples",
        f"score `{score}` ({_plain(made.why)}), higher is less trustworthy; threshold {held.threshold:.6g}",
        *facts,
    ]
    lines = [
        STARTS + "tags: [selective-prediction, out-of-distribution-detection, uncertainty]\n---",
        "# A guard: it predicts, or abstains",
        f"Network: {_plain(manifest.model) if manifest and manifest.model else 'not named'}. {answers}; inputs "
        f"{shape}, {made.dtype}.",
        "## Guarantee",
        f"Guaranteed: {_plain(promised)}.",
        _table(
            ("of the held-out samples that the threshold was set on", "value", "95 % interval"),
            [
                *figures,
                ("refused, for any threshold that is chosen", f"{1 - held.kept:.2%}", f"at most {refused:.2%}"),
            ],
        ),
        "## What it rests on",
        "\n".join(f"- {fact}" for fact in rests),
        *more,
        "## Limits",
        "\n".join(f"- {limit}" for limit in (*LIMITS, *([OF_CLASSES] if isinstance(made, Decision) else []))),
        "## Versions and files",
        f"Caveat {manifest.caveat_version if manifest else __version__}"
        + (f", made {_plain(manifest.created)}." if manifest else ", not saved yet: no files."),
    ]
    if manifest is not None:
        rows = [(role, f"`{file.name}`", f"`{file.sha256}`") for role, file in sorted(manifest.files.items())]
        rows.append(("manifest", "`manifest.json`", f"`{manifest.digest}`"))
        lines.append(_table(("file", "name", "SHA-256"), rows))
    return "\n\n".join(lines) + "\n"


def check_output(path: Path) -> None:
    """Refuse to replace a file that is no card of ours.

    Raises
    ------
    OptionError
        If there is one.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        if file.read(len(STARTS)) != STARTS.encode():
            raise OptionError(f"-o: {path} was not written by Caveat and would be replaced; choose another name")


def write(text: str, path: Path) -> None:
    """Write a card, whole or not at all.

    Raises
    ------
    OptionError
        As `check_output`.
    """
    check_output(path)
    write_atomically(path, text)


def _of_classes(made: Decision) -> Iterable[str]:
    labels = made.reference_labels
    if labels is None:
        return []
    accepted, rows = made.reference <= made.promise.threshold, list[tuple[str, ...]]()
    for k, name in enumerate(made.classes[:MOST]):
        own = labels == k
        count, right = int(own.sum()), int((own & ~made.reference_wrong).sum())
        kept = int((own & accepted).sum())
        rows.append((_plain(name), str(count), _share(right, count)[0], _share(kept, count)[0]))
    more = len(made.classes) - MOST
    told = [f"{more} more classes are left out."] if more > 0 else []
    return ["## Classes", _table(("class", "samples", "accuracy", "accepted"), rows), *told]


def _of_examples(made: Decision) -> Iterable[str]:
    if made.examples is None:
        return []
    kept = made.examples
    size = " x ".join(map(str, kept.pictures.shape[2:]))
    return [
        f"It holds {len(kept)} of the held-out pictures ({size} pixels, with label and features), which "
        "whoever has the guard can see."
    ]


def _share(hits: int, count: int) -> tuple[str, str]:
    if not count:
        return "no samples", ""
    found = interval_of_share(hits, count)
    return f"{found.value:.2%}", f"{found.low:.2%} to {found.high:.2%}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """A text of somebody's as it is: no markup, on one line, and what is not to be seen as an escape."""
    return re.sub(r"([\\`*_\[\]<>|#!&~])", r"\\\1", printable(" ".join(text.split())))
