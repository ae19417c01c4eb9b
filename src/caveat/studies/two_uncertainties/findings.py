"""What the study of two uncertainties shows: tables, and the claims one by one."""

from collections.abc import Mapping, Sequence

from caveat.records.findings import Claim, Figure, Findings, Scale, Shot, Table
from caveat.studies.kit import common
from caveat.studies.kit.common import mean
from caveat.studies.kit.published import published
from caveat.studies.kit.regression import ENSEMBLE, ONE, OURS
from caveat.studies.two_uncertainties.training import CLASS_SAMPLES, PI, SLOPE, Size

__all__ = ["Figures", "conclude"]

Figures = Mapping[str, Mapping[str, float]]
"""Of one seed: by posterior, or number of members, its figures."""


def conclude(
    scale: Scale,
    seeds: Sequence[int],
    size: Size,
    found: Sequence[Figures],
    counts: Sequence[Figures],
    apart: Sequence[Figures],
    *,
    charts: Sequence[Figure],
    shots: Sequence[Shot],
) -> Findings:
    """Findings from figures, one entry a seed: on the sine, by number of members, and on two classes."""
    smoke = scale == "smoke"
    return common.findings(
        study="two-uncertainties",
        title="Aleatoric uncertainty, which stays, and epistemic uncertainty, which more data would reduce",
        source=published("two_uncertainties").source,
        scale=scale,
        seeds=seeds,
        settings={
            "samples": size.samples, "hidden": str(size.recipe.hidden), "epochs": size.recipe.epochs,
            "members": size.recipe.members, "posterior samples": size.recipe.draws, "dropout": size.recipe.dropout,
            "rate": size.recipe.rate, "weight decay": size.recipe.decay, "class samples": CLASS_SAMPLES,
            "weight decay, classes": size.for_classes().decay,
        },
        reduced=[
            "The source gives no sizes of network or sample: two hidden layers of 64 and 400 samples are our choice.",
            "TRADI tracks in the last quarter, its filters with a memory of an eighth of the run.",
        ],
        claims=[] if smoke else [*_regression_claims(found, counts), *_class_claims(apart)],
        notes=["Smoke: trained for seconds; the figures mean nothing."] if smoke else [],
        tables=_tables(found, counts, apart),
        figures=charts,
        shots=shots,
    )  # fmt: skip


def _tables(found: Sequence[Figures], counts: Sequence[Figures], apart: Sequence[Figures]) -> list[Table]:
    places = [f"{kind} {at}" for kind in ("aleatoric", "epistemic") for at in ("overlap", "beside", "far")]
    return [
        Table(
            title="Regression: y = sin x + noise", first="posterior", digits=3,
            columns=["error of the aleatoric deviation, median in %", "epistemic deviation at π",
                     "epistemic deviation at 3π", "error of the mean", "NLL", "coverage of 95 % intervals, in %"],
            rows=common.rows(found, ["noise", "inside", "outside", "error", "NLL", "coverage"]),
            note="Aleatoric deviation: predicted standard deviation of the noise, compared with the true one. "
            "Epistemic deviation: standard deviation of the predicted means. Error of the mean: RMSE to sin x on "
            "(π/4, 2π). NLL and coverage on 2,000 fresh samples from (0, 2π).",
        ),
        Table(title="Number of ensemble members", first="members", columns=["NLL", "error of the mean"], digits=4,
              rows=common.rows(counts, ["NLL", "error"])),
        Table(
            title="Classification: two overlapping, sparse classes, in nats", first="posterior", digits=3,
            columns=[place.replace(" ", ", ") for place in places],
            rows=common.rows(apart, places),
            note="Aleatoric: expected entropy; epistemic: mutual information. Overlap: around the origin; beside: at "
            "(±2.2, 0), well inside one class; far: along y = ±5.",
        ),
    ]  # fmt: skip


def _regression_claims(found: Sequence[Figures], counts: Sequence[Figures]) -> list[Claim]:
    noise, ratio = mean(found, ENSEMBLE, "noise"), mean(found, ENSEMBLE, "ratio")
    others = [name for name in found[0] if name != ONE]
    wider = [name for name in others if mean(found, name, "ratio") > 2]
    most = str(max(map(int, counts[0])))
    nll = {count: mean(counts, count, "NLL") for count in counts[0]}
    gap = max(one[name]["identity"] for one in found for name in one)
    return [
        Claim(
            claim="The network learns the noise: its standard deviation is 0.0707 x",
            verdict="confirmed" if noise <= 15 else "refuted",
            found=f"Deep ensemble: median error {noise:.1f} % on (π/4, 2π).",
        ),
        Claim(
            claim="Epistemic uncertainty grows where there are no training data; aleatoric uncertainty does not",
            verdict="confirmed" if len(wider) == len(others) else "partly" if wider else "refuted",
            found=f"At 3π the epistemic deviation is {ratio:.0f} times that at π for the deep ensemble; more than "
            f"twice for {', '.join(wider) or 'none'} of {len(others)} posteriors. TRADI has epistemic uncertainty near "
            f"the data, too: {mean(found, OURS, 'inside'):.2f} at π, where the noise is {SLOPE * PI:.2f}.",
        ),
        Claim(
            claim="The total variance is the sum of both",
            verdict="confirmed" if gap < 1e-9 else "refuted",
            found=f"Largest difference {gap:.1e}.",
        ),
        Claim(
            claim="About five members are enough",
            verdict="confirmed" if nll["5"] - nll[most] < 0.02 else "refuted",
            found=f"NLL {nll['1']:.3f} with one, {nll['5']:.3f} with five, {nll[most]:.3f} with {most}.",
        ),
    ]


def _class_claims(apart: Sequence[Figures]) -> list[Claim]:
    names = list(apart[0])
    others = [name for name in names if name != ONE]
    overlap = all(mean(apart, n, "aleatoric overlap") > mean(apart, n, "aleatoric beside") for n in names)
    far = [n for n in others if mean(apart, n, "epistemic far") > mean(apart, n, "epistemic beside") + 0.005]
    return [
        Claim(
            claim="Aleatoric uncertainty is large where the classes overlap",
            verdict="confirmed" if overlap else "refuted",
            found=f"Deep ensemble: {mean(apart, ENSEMBLE, 'aleatoric overlap'):.2f} nats there, "
            f"{mean(apart, ENSEMBLE, 'aleatoric beside'):.2f} beside.",
        ),
        Claim(
            claim="Epistemic uncertainty is large far from the data",
            verdict="confirmed" if len(far) == len(others) else "partly" if far else "refuted",
            found=f"Deep ensemble: {mean(apart, ENSEMBLE, 'epistemic far'):.2f} nats far away, "
            f"{mean(apart, ENSEMBLE, 'epistemic beside'):.2f} beside the data; larger far away for "
            f"{', '.join(far) or 'none'} of {len(others)} posteriors. TRADI tracks weights that have converged: their "
            "variance is no epistemic uncertainty.",
        ),
    ]
