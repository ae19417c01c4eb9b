"""What TRADI on street scenes shows: our figures over the published ones, and the claims one by one."""

from collections.abc import Mapping, Sequence

from caveat.records.findings import Claim, Figure, Findings, Scale, Shot, Table
from caveat.studies.kit import common
from caveat.studies.kit.published import published
from caveat.studies.tradi_camvid.training import SIZES, Size

__all__ = ["ENSEMBLE", "MC_DROPOUT", "NOISE", "ONE", "OURS", "SWAG", "conclude"]

ONE, NOISE, MC_DROPOUT, ENSEMBLE, OURS, SWAG = (
    "MCP (one network)", "Gaussian perturbation", "MC dropout", "Deep ensemble", "TRADI", "SWAG",
)  # fmt: skip
ECE = "ECE, ID + OOD"
Figures = Mapping[str, Mapping[str, float]]
"""Of one set: per method, its figures."""


def conclude(
    scale: Scale,
    seed: int,
    found: Mapping[str, Figures],
    left_out: Sequence[str],
    figures: Sequence[Figure],
    shots: Sequence[Shot],
    *,
    seconds: Mapping[str, float],
    shape: str,
) -> Findings:
    """Findings from figures by set; `shape` is the height and width of CamVid's pictures."""
    smoke, size = scale == "smoke", SIZES[scale]
    return common.findings(
        study="tradi-camvid",
        title="TRADI on street scenes: detecting pixels of classes that training never showed",
        source=published("tradi_camvid").source,
        scale=scale,
        seeds=[seed],
        settings={
            "epochs": size.epochs, "members": size.members, "posterior samples": size.draws, "rate": size.rate,
            "batch": size.batch, "size": shape,
        },
        reduced=_reduced(size, scale, shape),
        claims=[] if smoke else _claims(found["CamVid"]),
        notes=[
            "Training times are wall-clock times: their ratios mean something on an idle machine only.", *left_out,
            *(["Smoke: synthetic scenes, to see that everything works; the figures mean nothing."] if smoke else []),
        ],
        tables=[table for name, methods in found.items() for table in _tables(name, methods, smoke=smoke)],
        figures=figures,
        shots=shots,
        seconds=seconds,
    )  # fmt: skip


def _tables(name: str, methods: Figures, *, smoke: bool) -> Sequence[Table]:
    share = next(iter(methods.values()))["ood"]
    printed = None if smoke else published("tradi_camvid").tables[name]
    return [
        Table(
            title=f"{name}: OOD pixels", first="method",
            columns=["AUC", "AUPR", "FPR95 (95 % of the OOD pixels detected)", ECE, "training time, x one network"],
            rows=common.rows([methods], ["AUC", "AUPR", "FPR95", ECE, "training time"], printed), digits=3,
            note=f"AUC, AUPR, FPR95 in %, OOD = positive: {share:.1f} % of the pixels, which is the AUPR of a "
            "useless score. Score: one minus the largest mean probability.",
        ),
        Table(
            title=f"{name}: in-distribution pixels", first="method", columns=["accuracy in %", "NLL", "ECE"],
            rows=common.rows([methods], ["accuracy", "NLL", "ECE"]), digits=3,
        ),
    ]  # fmt: skip


def _claims(found: Figures) -> list[Claim]:
    printed = published("tradi_camvid").tables["CamVid"]

    def listed(column: str, digits: int = 1) -> str:
        return ", ".join(f"{name} {found[name][column]:.{digits}f}" for name in (ONE, MC_DROPOUT, OURS, ENSEMBLE))

    ours, one, many = found[OURS], found[ONE], found[ENSEMBLE]
    gain = ours["AUC"] - max(one["AUC"], found[MC_DROPOUT]["AUC"])
    lowest = min(figures[ECE] for figures in found.values())
    return [
        Claim(
            claim=f"TRADI detects OOD pixels better than a single network and MC dropout (AUC {printed.at(OURS, 'AUC')}"
            f" against {printed.at(ONE, 'AUC')} and {printed.at(MC_DROPOUT, 'AUC')})",
            verdict="confirmed" if gain >= 1.5 else "partly" if gain > 0 else "refuted",
            found=f"AUC: {listed('AUC')}; FPR95: {listed('FPR95')}.",
        ),
        Claim(
            claim="It comes close to a deep ensemble at a fraction of the training time",
            verdict="confirmed" if ours["AUC"] >= many["AUC"] - 1 else "refuted",
            found=f"AUC {ours['AUC']:.1f} against {many['AUC']:.1f}, training {ours['training time']:.2f} against "
            f"{many['training time']:.0f} times one network.",
        ),
        Claim(
            claim="Its calibration error over in-distribution and OOD pixels is the lowest",
            verdict="confirmed" if ours[ECE] <= lowest else "partly" if ours[ECE] < one[ECE] else "refuted",
            found=f"ECE: {listed(ECE, 3)}.",
        ),
    ]


def _reduced(size: Size, scale: Scale, shape: str) -> list[str]:
    smaller = (
        f"Pictures of {shape} instead of (360, 480), {size.epochs} epochs instead of 300, {size.members} members "
        f"instead of 10, {size.draws} posterior samples instead of 20: minutes on one core."
    )
    return [
        *([] if scale == "full" else [smaller]),
        "Pixels without a label (void) are left out; the source scores all pixels.",
        "Tracking starts at half of the epochs; SWAG takes four snapshots an epoch in the last quarter; the noise of "
        "the Gaussian perturbation is a tenth of each tensor's root mean square: the source leaves them open.",
        "The last epoch is judged; nothing is chosen on test data.",
    ]
