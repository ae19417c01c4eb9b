"""The published figures of TRADI on street scenes, and ours beside them."""

from collections.abc import Sequence

from caveat.records.findings import Claim, Scale, Table
from caveat.studies.kit import common

__all__ = ["MANY", "MASKS", "NOISE", "ONE", "OURS", "SWAG", "claims", "tables"]

ONE, NOISE, MASKS, MANY, OURS, SWAG = (
    "MCP (one network)", "Gaussian perturbation", "MC dropout", "Deep ensemble", "TRADI", "SWAG",
)  # fmt: skip
COLUMNS = ("AUC", "AUPR", "FPR95", "ECE known + OOD")
PUBLISHED: dict[str, dict[str, tuple[str, ...]]] = {  # AUC, AUPR, FPR95, ECE, training time
    "CamVid": {
        ONE: ("75.4", "10.0", "65.1", "0.146", "30 min"),
        NOISE: ("76.2", "10.9", "62.6", "0.133", "30 min"),
        MASKS: ("75.4", "10.7", "63.2", "0.168", "30 min"),
        MANY: ("79.7", "13.0", "55.3", "0.112", "5 h"),
        OURS: ("79.3", "12.8", "57.7", "0.110", "41 min"),
        SWAG: ("75.6", "12.1", "65.8", "0.133", ""),
    },
    "StreetHazards": {
        ONE: ("88.7", "6.9", "26.9", "0.055", "13 h 14"),
        NOISE: ("57.08", "2.4", "71.0", "0.185", "13 h 14"),
        MASKS: ("69.9", "6.0", "32.0", "0.092", "13 h 14"),
        MANY: ("90.0", "7.2", "25.4", "0.051", "132 h 19"),
        OURS: ("89.2", "7.2", "25.3", "0.049", "15 h 36"),
    },
    "BDD-Anomaly": {
        ONE: ("86.0", "5.4", "27.7", "0.159", "18 h 08"),
        NOISE: ("86.0", "4.8", "27.7", "0.158", "18 h 08"),
        MASKS: ("85.2", "5.0", "29.3", "0.181", "18 h 08"),
        MANY: ("87.0", "6.0", "25.0", "0.170", "189 h 40"),
        OURS: ("86.1", "5.6", "26.9", "0.157", "21 h 48"),
    },
}


def tables(name: str, methods: dict[str, dict[str, float]], scale: Scale) -> Sequence[Table]:
    """Our figures over the published ones."""
    published = {} if scale == "smoke" else PUBLISHED[name]
    share = next(iter(methods.values()))["ood"]
    return [
        Table(
            title=f"{name}: OOD pixels", first="method",
            columns=["AUC", "AUPR", "FPR95 (95 % of OOD inputs found)", "ECE, known + OOD", "training, x one"],
            rows=common.rows([methods], [*COLUMNS, "training, x plain"], published), digits=3,
            note=f"AUC, AUPR, FPR95 in %, OOD = positive: {share:.1f} % of the pixels, which is what AUPR is for a "
            "useless score. Score: one minus the largest mean probability.",
        ),
        Table(
            title=f"{name}: known pixels", first="method", columns=["accuracy in %", "NLL", "ECE"],
            rows=common.rows([methods], ["accuracy", "NLL", "ECE"]), digits=3,
        ),
    ]  # fmt: skip


def claims(found: dict[str, dict[str, float]]) -> list[Claim]:
    """What the source says, and what we saw."""

    def told(column: str, digits: int = 1) -> str:
        return ", ".join(f"{name} {found[name][column]:.{digits}f}" for name in (ONE, MASKS, OURS, MANY))

    ours, one, many = found[OURS], found[ONE], found[MANY]
    gain = ours["AUC"] - max(one["AUC"], found[MASKS]["AUC"])
    return [
        Claim(
            claim="TRADI finds OOD pixels better than one network and MC dropout (by 3.9 points of AUC)",
            verdict="confirmed" if gain >= 1.5 else "partly" if gain > 0 else "refuted",
            found=f"AUC: {told('AUC')}; FPR95: {told('FPR95')}.",
        ),
        Claim(
            claim="It stands beside a deep ensemble at a fraction of its training time",
            verdict="confirmed" if ours["AUC"] >= many["AUC"] - 1 else "refuted",
            found=f"AUC {ours['AUC']:.1f} against {many['AUC']:.1f}, training {ours['training, x plain']:.2f} against "
            f"{many['training, x plain']:.0f} times one network.",
        ),
        Claim(
            claim="Its calibration error over in-distribution and OOD pixels is the lowest",
            verdict="confirmed"
            if ours["ECE known + OOD"] <= min(f["ECE known + OOD"] for f in found.values())
            else "partly"
            if ours["ECE known + OOD"] < one["ECE known + OOD"]
            else "refuted",
            found=f"ECE: {told('ECE known + OOD', 3)}.",
        ),
    ]
