"""Defaults are part of a result: those that papers or users rely on, in one list."""

import inspect
from collections.abc import Callable

import pytest

from caveat.attacks import (
    apgd,
    apgd_targeted,
    ascent,
    carlini,
    cosine,
    deepfool,
    estimated,
    fmn,
    l1,
    masking,
    pgd,
    proximal,
    square,
    strongest,
)
from caveat.calibration import _regularised, conformal, cqr, histogram, isotonic
from caveat.guard import pseudo_ood
from caveat.metrics import calibration, interval, interval_of_tally, prediction_intervals, ranking, selective
from caveat.posteriors import dropout, laplace, perturbation, swag, tradi
from caveat.rays import along, grid
from caveat.scores import (
    ash,
    dice,
    gaussian_mixture,
    gradnorm,
    gram,
    knn,
    logits,
    lts,
    mahalanobis,
    nnguide,
    odin,
    openmax,
    rankfeat,
    react,
    regression,
    relative_mahalanobis,
    scale,
    shaped_maps,
    vra,
)
from caveat.scores.meta import network, trees
from caveat.scores.meta.linear import STRENGTHS

DEFAULTS: dict[Callable[..., object], dict[str, object]] = {
    ash.fit: {"share": 0.65},
    dice.fit: {"share": 0.7},
    gaussian_mixture.fit: {"dimension": 128, "ridge": 1e-4},
    gradnorm.fit: {"temperature": 1.0},
    gram.fit: {"held_out": 0.1},
    knn.fit: {"limit": 50_000},
    logits.energy: {"temperature": 1.0},
    logits.gen: {"gamma": 0.1, "top": 100},
    lts.fit: {"share": 0.95},
    mahalanobis.fit: {"ridge": 1e-6},
    network: {"units": 15, "decay": 1e-3},
    nnguide.fit: {"k": 10, "limit": 50_000},
    openmax.fit: {"tail": 25, "alpha": 10},
    rankfeat.without_strongest: {"steps": 20},
    react.fit: {"share": 0.9},
    react.quantile: {"limit": 2**24},
    regression.interval: {"error": 0.05},
    relative_mahalanobis.fit: {"ridge": 1e-6},
    scale.fit: {"share": 0.65},
    shaped_maps.to_binarise: {"share": 0.65},
    shaped_maps.to_prune: {"share": 0.65},
    shaped_maps.to_scale: {"share": 0.65},
    shaped_maps.to_stretch: {"share": 0.65},
    trees: {"count": 100, "depth": 3, "rate": 0.1},
    vra.fit: {"lower": 0.1, "upper": 0.95},
    conformal.lac: {"error": 0.1},
    conformal.aps: {"error": 0.1, "randomised": False},
    conformal.raps: {"error": 0.1, "penalty": 0.01, "rank": 5, "randomised": False},
    cqr.fit: {"error": 0.1},
    histogram.fit: {"prior": 1.0},
    isotonic.fit: {"prior": 1.0},
    calibration.confidence_bins: {"bins": 15, "midpoint": False},
    calibration.ece_classwise: {"bins": 15},
    calibration.ece_equal_mass: {"bins": 15},
    interval.interval_of_ece: {"replicas": 200, "level": 0.95},
    interval.interval_of_mean: {"level": 0.95},
    interval.interval_of_share: {"level": 0.95},
    interval_of_tally.interval_of_fpr: {"tpr": 0.95, "level": 0.95},
    interval_of_tally.interval_of_ranking: {"level": 0.95},
    interval_of_tally.interval_of_selective: {"level": 0.95},
    prediction_intervals.calibration_curve: {"points": 99},
    prediction_intervals.calibration_error: {"points": 99},
    prediction_intervals.interval_score: {"error": 0.05},
    ranking.fpr_at_tpr: {"tpr": 0.95},
    ranking.quantile_threshold: {"keep": 0.95},
    selective.coverage_at_risk: {"risk": 0.05},
    selective.risk_at_coverage: {"coverage": 0.8},
    dropout.of: {"rate": 0.1},
    laplace.fit: {"structure": "full"},
    perturbation.fit: {"scale": 0.1},
    swag.start: {"rank": 20, "burn_in": 0, "every": 100},
    tradi.Tracker.posterior: {"features": 10, "length": 1.0},
    tradi.start: {"burn_in": 0},
    ascent.ascend: {"steps": 40, "restarts": 1, "momentum": 0.0, "best": True},
    estimated: {"steps": 20, "directions": 16},
    l1.penalised: {"penalty": 0.1, "low": 0.0, "high": 1.0, "steps": 200},
    l1.sparse: {"low": 0.0, "high": 1.0, "steps": 100},
    masking.without_gradient: {"steps": 20},
    pgd: {
        "targeted": False,
        "steps": 40,
        "restarts": 1,
        "momentum": 0.0,
        "best": True,
        "skip_broken": False,
        "step": None,
        "schedule": cosine,
    },
    apgd: {"targeted": False, "steps": 100, "restarts": 1},
    apgd_targeted: {"steps": 100, "targets": 9},
    carlini: {"steps": 100, "searches": 6, "price": 1.0, "rate": 0.05, "classes": 9},
    deepfool: {"norm": 2, "steps": 50, "classes": 9, "overshoot": 0.02},
    fmn: {"norm": 2, "steps": 100, "step": None, "targeted": False, "classes": 9, "rate": (0.05, 0.001)},
    square: {"queries": 1000, "area": 0.8},
    strongest: {"members": ("apgd", "apgd_targeted", "fmn", "square"), "steps": 100, "queries": 5000},
    proximal.sparsest: {"low": 0.0, "high": 1.0, "steps": 200, "tolerance": 1e-6},
    along: {"threshold": 0.999, "start": 1.0, "pieces": 64, "factor": 1.1, "rows": True},
    grid.overconfident: {"threshold": 0.95, "factor": 1.1, "low": 0.0, "high": 1.0},
    grid.reached: {"threshold": 0.999, "factor": 1.1},
    pseudo_ood: {"sigma": 0.3},
}


@pytest.mark.parametrize("function", DEFAULTS, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_defaults_are_what_is_documented(function: Callable[..., object]) -> None:
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in DEFAULTS[function]} == DEFAULTS[function]


def test_numbers_that_results_rest_on() -> None:
    assert STRENGTHS == (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of the meta classifiers
    noise = tradi.Noise()
    assert (noise.mean, noise.variance, noise.observed) == (1e-4, 5e-5, 10.0)
    assert (odin.STEPS, odin.TEMPERATURES) == ((0.0014,), (1.0, 10.0, 100.0, 1000.0))
    assert proximal.ROLLING == 65  # moves before the first restart: "from the 66th step on"
    assert _regularised._GRID == (10_000.0, 1_000.0, 100.0, 10.0, 1.0)
    assert (interval._LOW, interval._HIGH) == (0.7, 0.15)  # "3.5 % and 0.75 %", found by simulation
