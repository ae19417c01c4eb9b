"""What the study of confidence far away shows: tables, the curves along rays, the claims one by one."""

import math
from dataclasses import dataclass

from caveat.records.findings import Cell, Claim, Figure, Findings, Row, Scale, Shot, Table
from caveat.studies.kit import common, plots
from caveat.studies.kit.published import published
from caveat.studies.relu_overconfidence.training import Size

__all__ = ["Judged", "conclude"]


@dataclass(frozen=True)
class Judged:
    """One network."""

    set: str
    method: str
    seconds: float
    error: float
    confidence: float
    outside: dict[str, dict[str, float]]
    alpha: float
    first: float
    stays: float
    ties: int
    rays: int
    overconfident: float
    resisted: float
    curve: list[tuple[float, float]]


def conclude(scale: Scale, seed: int, size: Size, judged: list[Judged], shots: list[Shot]) -> Findings:
    """Findings from what was judged."""
    return common.findings(
        study="relu-overconfidence",
        title="How confident is a ReLU network far away from its training data?",
        source=published("relu_overconfidence").source,
        scale=scale,
        seeds=[seed],
        settings={
            "training pictures": size.train or "all", "epochs": size.epochs, "batch": "128 + 128 of noise",
            "inner steps": size.steps, "ACET's radius": 0.3, "epochs at weight 0.001 first": size.warm,
            "LeNet": f"{size.width} and {2 * size.width} channels, {size.hidden} units", "rays": size.rays,
        },
        reduced=[] if scale == "full" else [
            f"LeNet with {size.width} and {2 * size.width} channels and {size.hidden} units (32, 64, 1,024), "
            f"{size.train} training pictures (60,000), {size.epochs} epochs (100), {size.steps} inner steps of "
            f"{0.3 / size.steps:.3g} (40 of 0.0075): the published recipe takes about 90 hours here.",
            f"{size.rays} noise inputs (10,000), {size.judged} test pictures; the exact alphas on "
            f"{judged[0].rays} of them.",
            "ACET's full weight from the start. After two epochs at a weight of 0.001, the warm-up of the authors' "
            "later code, this network was fully confident near all noise, where confidence has no slope, and stayed "
            "so.",
            "EMNIST is not available here: notMNIST and KMNIST stand in. The published per-set figures on MNIST could "
            "not be verified and are not printed.",
        ],
        claims=[] if scale == "smoke" else _claims(judged),
        tables=[_far(judged), *(_near(name, judged) for name in dict.fromkeys(item.set for item in judged))],
        figures=[
            Figure(
                title=f"Confidence along rays ({name})",
                spec=plots.lines(
                    [
                        {"alpha": alpha, "mean confidence": value, "training": item.method}
                        for item in judged if item.set == name for alpha, value in item.curve
                    ],
                    x="alpha", y="mean confidence", colour="training", log_x=True,
                    description="Mean confidence at alpha x over alpha",
                ),
                caption="Mean of the largest probability at alpha x, x uniform noise; inputs leave [0, 1].",
            )
            for name in dict.fromkeys(item.set for item in judged)
        ],
        shots=shots,
        seconds={f"train {item.set} {item.method}": item.seconds for item in judged},
    )  # fmt: skip


def _far(judged: list[Judged]) -> Table:
    printed = published("relu_overconfidence").tables["far"]
    rows: list[Row] = []
    for item in judged:
        label = f"{item.set}, {item.method}"
        rows.append(
            Row(label=label, cells=[
                Cell(value=item.error), _alpha(item.alpha, printed.at(label, "alpha")), _alpha(item.first),
                _alpha(item.stays),
                Cell(value=item.overconfident, published=printed.at(label, "overconfident")),
                Cell(text=f"{item.ties} of {item.rays}"),
            ])
        )  # fmt: skip
    return Table(
        title="Along rays to infinity",
        first="network",
        columns=["test error in %", "median alpha (powers of 1.1)", "exact: first at 99.9 %", "exact: from there on",
                 "% overconfident", "rays with a tie in the limit"],
        rows=rows,
        digits=2,
        note="Median alpha: smallest alpha of 1, 1.1, 1.1^2 ... with a confidence of 99.9 % at alpha x, x uniform "
        "noise. Exact: by following the network's linear pieces, in float64; inf = never. % overconfident: confidence "
        "above 95 % at some point of the path clip(alpha x). Where the largest slopes tie the confidence tends to less "
        "than 1.",
    )  # fmt: skip


def _alpha(value: float, published: str = "") -> Cell:
    if math.isinf(value):
        return Cell(text="inf", published=published)
    return Cell(value=value, text=f"{value:.2g}" if value > 1e4 else "", published=published)


def _near(name: str, judged: list[Judged]) -> Table:
    nets = [item for item in judged if item.set == name]
    rows = [Row(label=f"{name} itself (MMC)", cells=[Cell(text=f"{item.confidence:.3f}") for item in nets])]
    rows += [
        Row(label=other, cells=[_three(item.outside.get(other)) for item in nets])
        for other in dict.fromkeys(key for item in nets for key in item.outside)
    ]
    return Table(
        title=f"OOD detection, in-distribution: {name}",
        first="OOD set",
        columns=[item.method for item in nets],
        rows=rows,
        digits=3,
        note="Mean maximum confidence (MMC) / AUROC / FPR at 95 % TPR (in-distribution = positive). Adversarial noise: "
        "moved within 0.3 to where the network is most confident. Adversarial samples: successful ones of an attack of "
        "radius 0.3 ("
        + ", ".join(f"{item.method} resists {item.resisted:.0f} %" for item in nets) + ").",
    )  # fmt: skip


def _three(found: dict[str, float] | None) -> Cell:
    return Cell(text="-") if found is None else Cell(text=" / ".join(f"{found[k]:.3f}" for k in found))


def _claims(judged: list[Judged]) -> list[Claim]:
    printed = published("relu_overconfidence").tables["far"]
    there = [printed.at(f"mnist, {method}", "overconfident") for method in ("plain", "ACET")]
    made: list[Claim] = []
    for name in dict.fromkeys(item.set for item in judged):
        nets = {item.method: item for item in judged if item.set == name}
        plain, acet = nets["plain"], nets["ACET"]
        made += [
            Claim(
                claim=f"{name}: a plain network is overconfident on almost all noise ({there[0]} % on MNIST)",
                verdict="confirmed" if plain.overconfident > 95 else "refuted",
                found=f"{plain.overconfident:.1f} % of the clipped paths; median alpha {plain.alpha:.2g}.",
            ),
            Claim(
                claim=f"{name}: an ACET network is not ({there[1]} % on MNIST), and its median alpha is above 10^6",
                verdict="confirmed" if acet.overconfident <= 1 and acet.alpha > 1e6
                else "partly" if acet.overconfident <= 1 or acet.alpha > 1e6 else "refuted",
                found=f"{acet.overconfident:.1f} %; median alpha {acet.alpha:.2g} on the grid, "
                f"{acet.first:.2g} exactly.",
            ),
            Claim(
                claim=f"{name}: ACET costs hardly any accuracy",
                verdict="confirmed" if acet.error - plain.error <= 0.5 else "refuted",
                found=f"Test error {acet.error:.2f} % against {plain.error:.2f} %.",
            ),
            Claim(
                claim=f"{name}: CEDA lowers the confidence on noise but not on adversarial noise; ACET lowers both",
                verdict="confirmed" if nets["CEDA"].outside["noise"]["MMC"] < 0.2
                and acet.outside["adversarial noise"]["MMC"] < nets["CEDA"].outside["adversarial noise"]["MMC"]
                else "partly",
                found="Mean confidence on noise and adversarial noise: " + "; ".join(
                    f"{method} {item.outside['noise']['MMC']:.2f}, {item.outside['adversarial noise']['MMC']:.2f}"
                    for method, item in nets.items()
                ) + ".",
            ),
        ]  # fmt: skip
    return made
