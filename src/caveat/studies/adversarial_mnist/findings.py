"""What the study of adversarial examples shows: tables, and the claims one by one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from caveat.records.findings import Cell, Claim, Findings, Row, Scale, Shot, Table
from caveat.studies.adversarial_mnist.figures import curves
from caveat.studies.adversarial_mnist.training import CERTIFIED, NARROW, PLAIN, TWIN, Size
from caveat.studies.kit import common
from caveat.studies.kit.published import published

__all__ = ["PENALTY", "conclude"]

Figures = Mapping[str, Any]
"""Of one network, as `run` measures them; accuracies in %."""
PENALTY = 0.1
"""Of the L1 attack whose penalty is not searched for, in nats a unit of change."""


def conclude(
    scale: Scale,
    seed: int,
    size: Size,
    found: Mapping[str, Figures],
    crossed: Mapping[str, Sequence[Sequence[float]]],
    shots: Sequence[Shot],
    *,
    pixels: int,
) -> Findings:
    """Findings from what was measured."""
    return common.findings(
        study="adversarial-mnist",
        title="Adversarial examples on MNIST: how small a change suffices, and does adversarial training help?",
        source=published("adversarial_mnist").source,
        scale=scale,
        seeds=[seed],
        settings={
            "training pictures": size.train or "all", "batch": 100, "radius": size.radius,
            "epochs": f"{size.epochs}; FGSM-trained {2 * size.epochs}, PGD-trained and TRADES {size.attacked}, "
            f"{size.warm} of them with a smaller radius; IBP {size.certified} and CROWN-IBP {size.crown}, over the "
            f"first fifth of which the radius grows; {NARROW} ({2 * size.radius / 3:.2g}): {size.narrow}",
            "inner steps": size.inner,
            "network": f"convolutions of stride 2: {size.width}, {2 * size.width} channels; {size.hidden} units",
            "MLP": "256, 256 units",
            "attack": f"PGD, {size.steps} steps of {2.5 * size.radius / size.steps:.3g}, {size.restarts} restarts",
            "pictures attacked": size.judged,
            "strongest attack": f"APGD, targeted APGD, FMN and Square, {size.struck} pictures",
        },
        reduced=[
            f"{size.train or 60_000:,} training pictures (60,000), {size.attacked} epochs of PGD training with "
            f"{size.inner} inner steps (40), {size.hidden} hidden units, {size.width} and {2 * size.width} channels: "
            "what two cores train in two hours. The MNIST challenge's network is a LeNet with 32 and 64 channels and "
            "1,024 units, 100,000 steps of 50 pictures.",
            f"The first {size.judged:,} test pictures are attacked (10,000; intervals certify all); {size.curve} for "
            f"the curves, {size.struck} for the strongest attack and DeepPoly, {size.few} for the L1 attack.",
        ],
        claims=[] if scale == "smoke" else _claims(found, crossed, pixels),
        tables=[
            _accuracies(found, size), _sparse(found, pixels),
            *(_matrix(found, radius, matrix) for radius, matrix in crossed.items()),
        ],
        figures=[curves(found, "FGSM", 1, size.radius), curves(found, "PGD", 2, size.radius)],
        shots=shots,
        notes=[
            "The published figures are of larger networks, longer training and more attacked pictures (10,000).",
            "A failed attack proves nothing: accuracies under PGD are upper bounds of the robust accuracy.",
        ],
        seconds={f"train {name}": float(one["seconds"]) for name, one in found.items()},
    )  # fmt: skip


def _accuracies(found: Mapping[str, Figures], size: Size) -> Table:
    radius = size.radius
    printed = published("adversarial_mnist").tables["accuracy"] if radius == 0.3 else None
    keys = ("clean", "noise", "fgsm", "pgd", "strongest")
    places = {"verified third": 0, "verified whole": 1}

    def cells(name: str, one: Figures) -> list[Cell]:
        values = {key: one[key] for key in keys} | {key: one["interval"][step] for key, step in places.items()}
        made = [Cell(value=value, published=printed.at(name, key) if printed else "") for key, value in values.items()]
        return [*made, *(Cell(value=value) for value in one["deeppoly"])]

    doubts = [f"{name}: {note}" for name, one in found.items() for note in one["notes"]]
    return Table(
        title=f"Accuracy in % within {radius:g} (norm inf)", first="network",
        rows=[Row(label=name, cells=cells(name, one)) for name, one in found.items()],
        columns=[
            "clean", "random signs", "FGSM", "PGD with restarts", "strongest attack",
            *(f"verified at {at:g} {how}" for how in ("by intervals", "by DeepPoly") for at in (radius / 3, radius)),
        ],
        note=f"Random signs: every pixel {radius:g} up or down at random, the baseline of an attack. Strongest "
        f"attack and DeepPoly: of the first {size.struck} pictures; by intervals: of all test pictures. "
        "No attack broke a verified answer."
        + "".join(f" {doubt}" for doubt in doubts),
    )  # fmt: skip


def _sparse(found: Mapping[str, Figures], pixels: int) -> Table:
    rows = [
        Row(label=name, cells=[
            *(_cell(one[kind][key]) for kind in ("search", "fixed") for key in ("reached", "pixels", "l1")),
            _cell(one["pgd pixels"]),
        ])
        for name, one in found.items()
    ]  # fmt: skip
    return Table(
        title="Attacks that change few pixels, towards the next digit", first="network", rows=rows,
        columns=["reached in %", "pixels changed", "L1 size", f"at penalty {PENALTY:g}: reached in %", "pixels changed",
                 "L1 size", "pixels changed by PGD"],
        note=f"No radius, values in [0, 1], {pixels} pixels. First three columns: the least change in L1 that reaches "
        "the target (FMN). Pixels: median; L1 size: mean; both where the target was reached.",
    )  # fmt: skip


def _cell(value: float) -> Cell:
    return Cell(text="-") if math.isnan(value) else Cell(value=value)


def _matrix(found: Mapping[str, Figures], radius: str, matrix: Sequence[Sequence[float]]) -> Table:
    names = list(found)
    rows = [Row(label=f"from {name}", cells=[_cell(v) for v in row]) for name, row in zip(names, matrix, strict=True)]
    return Table(
        title=f"Transfer of PGD's examples within {radius}: success in %", first="attacked network", rows=rows,
        columns=[f"on {name}" for name in names],
        note="Of the pictures that both networks classify correctly, how many the second misclassifies after the "
        "attack on the first. One restart. A weak target is fooled by anything: compare within a column.",
    )  # fmt: skip


def _claims(found: Mapping[str, Figures], crossed: Mapping[str, Sequence[Sequence[float]]], pixels: int) -> list[Claim]:
    plain, fast, robust, trades = (found[name] for name in (PLAIN, "FGSM-trained", "PGD-trained", "TRADES"))
    stronger = [one["pgd"] <= one["fgsm"] for one in found.values()]
    few = plain["search"]
    printed = published("adversarial_mnist").tables["accuracy"]
    verified = {name: one["interval" if name in CERTIFIED else "deeppoly"] for name, one in found.items()}
    proved = [max(verified[name][step] for name in CERTIFIED) for step in (0, 1)]
    attacked = verified["PGD-trained"]
    return [
        Claim(
            claim="FGSM is weaker than PGD",
            verdict="confirmed" if all(stronger) and plain["pgd"] < plain["fgsm"] else "partly",
            found="Accuracy under FGSM and PGD: "
            + "; ".join(f"{name} {one['fgsm']:.1f}, {one['pgd']:.1f} %" for name, one in found.items()) + ".",
        ),
        *_transfer_claims(found, crossed),
        Claim(
            claim=f"Adversarial training helps (accuracy in % under PGD on MNIST: {printed.at('PGD-trained', 'pgd')})",
            verdict="confirmed" if robust["pgd"] > max(plain["pgd"] + 30, 80)
            else "partly" if robust["pgd"] > plain["pgd"] + 30 else "refuted",
            found=f"Under PGD {robust['pgd']:.1f} % against {plain['pgd']:.1f} % of the plain network; clean "
            f"{robust['clean']:.1f} against {plain['clean']:.1f} %.",
        ),
        Claim(
            claim="One step with a random start is enough to train with (fast adversarial training)",
            verdict="confirmed" if fast["pgd"] > robust["pgd"] - 5
            else "partly" if fast["pgd"] > robust["pgd"] / 2 else "refuted",
            found=f"Under PGD {fast['pgd']:.1f} % (FGSM {fast['fgsm']:.1f} %), PGD-trained {robust['pgd']:.1f} %.",
        ),
        Claim(
            claim="TRADES resists PGD at least as well as PGD training",
            verdict="confirmed" if trades["pgd"] >= robust["pgd"]
            else "partly" if trades["pgd"] > robust["pgd"] - 3 else "refuted",
            found=f"Under PGD {trades['pgd']:.1f} against {robust['pgd']:.1f} %; clean {trades['clean']:.1f} against "
            f"{robust['clean']:.1f} %.",
        ),
        Claim(
            claim="Certified training proves what adversarial training only suggests (verified in % on MNIST, small "
            f"networks, each trained for its radius: {printed.at(NARROW, 'verified third')} at 0.1, "
            f"{printed.at('IBP', 'verified whole')} at 0.3)",
            verdict="confirmed" if proved[0] >= 95 and proved[1] >= 88 and attacked[1] < proved[1] / 2
            else "partly" if proved[1] > attacked[1] else "refuted",
            found="Verified at a third of the radius and at the whole (after certified training by intervals, "
            "others by DeepPoly): "
            + "; ".join(f"{name} {low:.1f}, {high:.1f} %" for name, (low, high) in verified.items()) + ".",
        ),
        Claim(
            claim="The least change in L1 changes few pixels",
            verdict="confirmed" if few["reached"] > 95 and few["pixels"] < pixels / 10
            else "partly" if few["pixels"] < pixels / 4 else "refuted",
            found=f"The plain network predicts the targeted digit for {few['reached']:.0f} % of the pictures, with "
            f"{few['pixels']:.0f} of {pixels} pixels changed (median) and an L1 size of {few['l1']:.1f}; PGD changes "
            f"{plain['pgd pixels']:.0f}.",
        ),
    ]  # fmt: skip


def _transfer_claims(found: Mapping[str, Figures], crossed: Mapping[str, Sequence[Sequence[float]]]) -> list[Claim]:
    """Do examples transfer, and more between similar networks? By source and target, since some targets are weak."""
    names = list(found)
    at = {name: row for row, name in enumerate(names)}
    (less, weak), (most, strong) = crossed.items()
    own, twin, other = (at[name] for name in (PLAIN, TWIN, "MLP"))
    undone = [name for name in (TWIN, "MLP") if strong[own][at[name]] <= 100 - found[name]["noise"]]
    pairs = [(weak[own][twin], weak[own][other]), (weak[twin][own], weak[other][own])]
    wins = sum(like > unlike for like, unlike in pairs)
    return [
        Claim(
            claim="Adversarial examples of one network fool others",
            verdict="partly" if undone else "confirmed",
            found=f"Within {most}, examples of the plain network fool its twin of another seed on "
            f"{strong[own][twin]:.1f} % and the MLP on {strong[own][other]:.1f} %; random signs leave them "
            f"{100 - found[TWIN]['noise']:.1f} and {100 - found['MLP']['noise']:.1f} % wrong. The "
            f"PGD-trained network is fooled on {strong[own][at['PGD-trained']]:.1f} %.",
        ),
        Claim(
            claim="They transfer better between networks of the same architecture",
            verdict=("refuted", "partly", "confirmed")[wins],
            found=f"Within {less}: from the plain network to its twin {pairs[0][0]:.1f} %, to the MLP "
            f"{pairs[0][1]:.1f} %; to the plain network from its twin {pairs[1][0]:.1f} %, from the "
            f"MLP {pairs[1][1]:.1f} %.",
        ),
    ]
