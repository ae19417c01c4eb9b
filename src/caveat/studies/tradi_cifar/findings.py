"""What TRADI on CIFAR-10 shows: one table beside the published figures, and its claim."""

from collections.abc import Mapping, Sequence

from caveat.records.findings import Claim, Findings, Scale, Table
from caveat.studies.kit import common
from caveat.studies.kit.published import published
from caveat.studies.tradi_cifar.training import Size

__all__ = ["PLAIN", "RENEWED", "conclude"]

PLAIN, RENEWED = "MCP (one network)", "MCP, batch norm renewed"


def conclude(
    scale: Scale,
    seeds: Sequence[int],
    size: Size,
    found: Sequence[Mapping[str, Mapping[str, float]]],
    seconds: Mapping[str, float],
) -> Findings:
    """Findings from figures, one entry a seed."""
    smoke = scale == "smoke"
    printed = published("tradi_cifar")
    return common.findings(
        study="tradi-cifar",
        title="TRADI on CIFAR-10",
        source=printed.source,
        scale=scale,
        seeds=seeds,
        settings={
            "network": "pre-activation ResNet-20", "epochs": size.epochs, "members": size.members,
            "posterior samples": size.draws, "training pictures": size.train or "all but 5,000",
            "rate": "SGD 0.1, Nesterov, cosine to 0.01 at three quarters, then constant", "weight decay": 5e-4,
        },
        reduced=_reduced(scale, size),
        claims=[] if smoke else _claims(found),
        tables=[
            Table(
                title="CIFAR-10: likelihood and accuracy", first="method",
                columns=["NLL", "accuracy in %", "ECE", "AUC against CIFAR-100 in %"],
                rows=common.rows(found, ["NLL", "accuracy", "ECE", "AUC"], None if smoke else printed.tables["id"]),
                digits=3,
                note="Batch norm renewed: the control for SWAG, TRADI and perturbation, whose samples have their own "
                "batch-norm statistics; this network's running ones (momentum 0.01) lag behind in a short run. JPEG "
                "pictures on all sides (cifar10 train and cifar10_jpeg test against cifar100 train).",
            )
        ],
        notes=["Smoke: other data, to see that everything works; the figures mean nothing."] if smoke else [],
        seconds=seconds,
    )  # fmt: skip


def _reduced(scale: Scale, size: Size) -> list[str]:
    smaller = [
        f"{size.train} training pictures, {size.epochs} epochs, {size.members} members, {size.test} test pictures: "
        "minutes on two cores."
    ]
    return [
        "ResNet-20 (0.27 million weights, 41 million multiplications) in place of the published network: compare the "
        "order of the methods, not their figures.",
        *([] if scale == "full" else smaller),
        "MC dropout: the network has none; a rate of 0.1 after each of its stages, switched on at test time only.",
    ]


def _claims(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Claim]:
    printed = published("tradi_cifar").tables["id"]
    nll = {name: common.mean(found, name, "NLL") for name in (*printed.rows, PLAIN, RENEWED)}
    theirs = sorted(printed.rows, key=lambda name: float(printed.at(name, "NLL")))
    order = sorted(printed.rows, key=lambda name: nll[name])
    share = (nll[PLAIN] - nll[RENEWED]) / (nll[PLAIN] - nll[order[0]])
    return [
        Claim(
            claim="By NLL: " + ", ".join(f"{name} {printed.at(name, 'NLL')}" for name in theirs),
            verdict="refuted" if not set(order[:2]) & set(theirs[:2])
            else "partly" if share > 0.5 or order[:2] != theirs[:2] else "confirmed",
            found="; ".join(f"{name} {nll[name]:.3f}" for name in order)
            + f"; one network {nll[PLAIN]:.3f}, with batch-norm statistics renewed as for all samples "
            f"{nll[RENEWED]:.3f}: {share:.0%} of the gain of the best one.",
        )
    ]  # fmt: skip
