"""What the study of certified OOD detection shows: tables, the guarantees along the radius, the claims one by one."""

from collections.abc import Mapping
from typing import Any

from caveat.records.findings import Cell, Claim, Figure, Findings, Row, Scale, Table
from caveat.studies.certified_ood_mnist.training import GOOD, OUTLIERS, Size
from caveat.studies.kit import common, plots
from caveat.studies.kit.published import published

__all__ = ["conclude"]

Figures = Mapping[str, Any]
"""Of one network, as `run` measures them; all in %."""
COLUMNS = {"plain": "AUROC", "attacked": "attacked", "IBP": "guaranteed (IBP)", "CROWN": "guaranteed (CROWN)"}
HELD = 99.95
"""What rounds to 100.0, as the source prints it."""


def conclude(scale: Scale, seed: int, size: Size, found: Mapping[str, Figures]) -> Findings:
    """Findings from what was measured."""
    return common.findings(
        study="certified-ood-mnist",
        title="Can a network guarantee that it is not confident anywhere near OOD inputs?",
        source=published("certified_ood_mnist").source,
        scale=scale,
        seeds=[seed],
        settings={
            "training pictures": size.train or "all", "epochs of GOOD": size.epochs,
            "epochs of the others": size.others, "batch": f"{size.batch} + {size.shown} outliers",
            "GOOD's weight": size.weight,
            "outliers in training": OUTLIERS[size.set], "how many": size.outliers or "all", "radius": size.radius,
            "ACET's inner steps": size.inner,
            "network": f"convolutions of {size.width} and {2 * size.width} channels, {size.hidden} units",
            "attack": f"PGD on the confidence, {size.steps} steps, {size.restarts} restarts, half of "
            "them from as near to a digit as the ball allows",
            "in-distribution pictures": size.tested, "pictures of an OOD set": size.judged,
        },
        reduced=[
            *([] if scale == "full" else _smaller(size)),
            "Outliers to train on are grey CIFAR-100; 80 Million Tiny Images, which the source took, is withdrawn.",
            "EMNIST is not available here: the letters are notMNIST's, of printed fonts.",
        ],
        claims=[] if scale == "smoke" else _claims(found),
        tables=[_accuracy(found, size), *(_detected(name, found, size) for name in _sets(found))],
        figures=[_curves(found)],
        notes=[
            "A failed attack proves nothing: the attacked AUROC is an upper bound of the worst one, the guaranteed "
            "AUROC a lower bound.",
            "All AUROC are of the maximum softmax probability, ties counted against the detector.",
        ],
        seconds={f"train {name}": float(one["seconds"]) for name, one in found.items()},
    )  # fmt: skip


def _smaller(size: Size) -> list[str]:
    return [
        f"A network of two convolutions ({size.width} and {2 * size.width} channels) and {size.hidden} units; the "
        "source's has five convolutions of 64 to 128 channels and 512 units.",
        f"{size.epochs} epochs for GOOD, {size.others} for the others (420 for all); {size.shown} outliers for "
        f"{size.batch} digits in a batch (as many); GOOD's weight is {size.weight} (0.3); ACET has {size.inner} inner "
        "steps (40).",
        f"The first {size.tested} test digits and {size.judged} pictures of each OOD set (10,000). Linear bounds "
        f"of {', '.join(size.lines)} alone.",
    ]


def _sets(found: Mapping[str, Figures]) -> list[str]:
    return list(found[GOOD]["ood"])


def _accuracy(found: Mapping[str, Figures], size: Size) -> Table:
    printed = published("certified_ood_mnist").tables["accuracy"]
    rows = [
        Row(label=name, cells=[
            Cell(value=one["accuracy"], published=printed.at(name, "accuracy") if size.set == "mnist" else "")
        ])
        for name, one in found.items()
    ]  # fmt: skip
    return Table(title="Accuracy in %", first="training", rows=rows, columns=["accuracy"], digits=2)


def _detected(name: str, found: Mapping[str, Figures], size: Size) -> Table:
    printed = published("certified_ood_mnist").tables.get(name) if size.set == "mnist" else None
    rows = [
        Row(label=method, cells=[
            _cell(one["ood"][name].get(key), printed.at(method, key) if printed else "") for key in COLUMNS
        ])
        for method, one in found.items()
    ]  # fmt: skip
    return Table(
        title=f"OOD detection: {name}", first="training", rows=rows, columns=list(COLUMNS.values()),
        note=f"AUROC in %: of the pictures themselves; with each moved by PGD within {size.radius:g} (norm inf) to "
        "where the network is most confident; and what no attack can push it below, by intervals and linear bounds.",
    )  # fmt: skip


def _cell(value: float | None, printed: str) -> Cell:
    return Cell(text="-") if value is None else Cell(value=value, published=printed)


def _curves(found: Mapping[str, Figures]) -> Figure:
    return Figure(
        title="Guaranteed AUROC of GOOD against the radius",
        spec=plots.lines(
            [
                {"radius": radius, "guaranteed AUROC in %": value, "OOD set": name}
                for name, one in found[GOOD]["ood"].items() for radius, value in one["curve"]
            ],
            x="radius", y="guaranteed AUROC in %", colour="OOD set",
            description="Guaranteed AUROC by intervals over the radius, for each OOD set",
        ),
        caption="By intervals; at radius 0 it is the AUROC itself.",
    )  # fmt: skip


def _claims(found: Mapping[str, Figures]) -> list[Claim]:
    good, printed = found[GOOD], published("certified_ood_mnist").tables
    cost = found["plain"]["accuracy"] - good["accuracy"]
    claims = [
        Claim(
            claim=f"GOOD costs little accuracy ({printed['accuracy'].at(GOOD, 'accuracy')} against "
            f"{printed['accuracy'].at('plain', 'accuracy')} %)",
            verdict="confirmed" if good["accuracy"] >= 98.5 else "partly" if cost <= 2 else "refuted",
            found=f"{good['accuracy']:.2f} against {found['plain']['accuracy']:.2f} %.",
        )
    ]
    for name, least in (("noise", HELD), ("grey CIFAR-10", 99.0), ("Fashion-MNIST", 75.0)):
        if name in good["ood"]:
            one = good["ood"][name]
            best = max(one["IBP"], one["CROWN"])
            claims.append(
                Claim(
                    claim=f"GOOD guarantees an AUROC of {printed[name].at(GOOD, 'IBP')} % on {name}",
                    verdict="confirmed" if best >= least else "partly" if best >= 50 else "refuted",
                    found=f"{one['IBP']:.1f} % by IBP, {one['CROWN']:.1f} % by CROWN.",
                )
            )
    return [*claims, _unproved(found), _crown(good), _unbroken(found)]


def _unproved(found: Mapping[str, Figures]) -> Claim:
    others = {name: one for name, one in found.items() if name != GOOD}
    best = {name: max(max(s["IBP"], s.get("CROWN", 0.0)) for s in one["ood"].values()) for name, one in others.items()}
    return Claim(
        claim="Outlier exposure and ACET guarantee nothing (0.0 % by IBP on every set)",
        verdict="confirmed" if max(best.values()) < 0.05 else "partly" if max(best.values()) < 5 else "refuted",
        found=f"The largest: {'; '.join(f'{name} {value:.1f} %' for name, value in best.items())}.",
    )


def _crown(good: Figures) -> Claim:
    one = good["ood"]["letters"]
    gain = one["CROWN"] - one["IBP"]
    return Claim(
        claim="Linear bounds (CROWN) guarantee more on letters than the intervals that GOOD is trained by",
        verdict="confirmed" if gain >= 5 else "partly" if gain > 0 else "refuted",
        found=f"{one['CROWN']:.1f} against {one['IBP']:.1f} %.",
    )


def _unbroken(found: Mapping[str, Figures]) -> Claim:
    judged = [one for net in found.values() for one in net["ood"].values()]
    broken, pictures = sum(one["broken"] for one in judged), sum(one["attacked pictures"] for one in judged)
    return Claim(
        claim="No attack breaks a guarantee",
        verdict="refuted" if broken else "confirmed",
        found=f"PGD reached a confidence above the bound on {broken} of {pictures:,} pictures.",
    )
