"""Verdicts follow the figures: each study's claims from figures made by hand, confirmed and refuted."""

import pytest

from caveat.studies.denoising_mnist import findings as denoising
from caveat.studies.denoising_mnist.training import ABLATIONS
from caveat.studies.relu_overconfidence.findings import Judged
from caveat.studies.relu_overconfidence.findings import conclude as relu
from caveat.studies.relu_overconfidence.training import SIZES as RELU_SIZES
from caveat.studies.tradi_camvid.findings import conclude as camvid
from caveat.studies.tradi_cifar.findings import conclude as cifar
from caveat.studies.tradi_cifar.training import SIZES as CIFAR_SIZES
from caveat.studies.tradi_mnist.findings import ALONE, LESS, PER_WEIGHT, STALE, TRADI, Found, held_row, scaled
from caveat.studies.tradi_mnist.findings import conclude as mnist
from caveat.studies.tradi_mnist.training import DECAYS, SCALES
from caveat.studies.tradi_mnist.training import SIZES as MNIST_SIZES
from caveat.studies.two_uncertainties.findings import conclude as two
from caveat.studies.two_uncertainties.training import SIZES as TWO_SIZES

METHODS = ("MCP (one network)", "Gaussian perturbation", "MC dropout", "Deep ensemble", "TRADI", "SWAG")


def verdicts(findings):
    return [claim.verdict for claim in findings.claims]


def posteriors(**tradi):
    """Every method alike, but for TRADI."""
    like = {
        "AUC": 90.0, "AUPR": 90.0, "FPR95": 30.0, "ECE, ID + OOD": 0.3, "NLL": 0.06, "accuracy": 98.0, "ECE": 0.01,
        "training time": 1.0, "ood": 20.0,
    }  # fmt: skip
    return {name: dict(like) | (tradi if name == "TRADI" else {}) for name in METHODS}


@pytest.mark.parametrize(
    ("tradi", "expected"),
    [
        ({"AUC": 93.0, "FPR95": 15.0, "ECE, ID + OOD": 0.4, "NLL": 0.05}, ["confirmed"] * 2 + ["refuted"]),
        ({"AUC": 87.0}, ["refuted", "refuted", "confirmed"]),
        ({"AUC": 90.5}, ["partly", "confirmed", "confirmed"]),
    ],
)
def test_tradi_on_mnist(tradi, expected):
    main, size = posteriors(**tradi), MNIST_SIZES["small"]
    main[TRADI + LESS] = {**main["MC dropout"], "NLL": 0.05}
    held = {
        held_row(decay, epochs, how): {"NLL": 10 * decay, "ECE": 0.01, "accuracy": 98.0, "AUC": 90.0}
        for decay in DECAYS for epochs in (size.step, size.epochs) for how in (ALONE, STALE, *map(scaled, SCALES))
    }  # fmt: skip
    found = Found([main], [{PER_WEIGHT: {**main["MC dropout"]}}], [posteriors(AUC=91.0)], [held])
    made = mnist("small", [0], size, found)
    better = "confirmed" if "NLL" in tradi else "refuted"
    assert verdicts(made) == [*expected, "partly", better, better, "confirmed" if "NLL" in tradi else "partly"]
    assert "one network 0.100 and 0.001" in made.claims[6].found
    assert "96.7 against 94.0 and 91.8" in made.claims[0].claim
    assert "0.407 against 0.305" in made.claims[4].claim
    assert made.tables[0].rows[4].cells[0].published == "96.7"
    assert made.tables[1].rows[4].cells[1].published == "98.63"


def test_tradi_on_street_scenes():
    found = {"CamVid": posteriors(**{"AUC": 92.0, "ECE, ID + OOD": 0.2})}
    made = camvid("small", 0, found, [], [], [], seconds={}, shape="(144, 192)")
    assert verdicts(made) == ["confirmed"] * 3
    assert "79.3 against 75.4 and 75.4" in made.claims[0].claim
    assert made.tables[0].rows[4].cells[4].published == "41 min"
    worse = {"CamVid": posteriors(**{"AUC": 88.0, "ECE, ID + OOD": 0.4})}
    assert verdicts(camvid("small", 0, worse, [], [], [], seconds={}, shape="")) == ["refuted"] * 3


@pytest.mark.parametrize(
    ("nll", "renewed", "expected"),
    [
        ({"SWAG": 0.4, "Deep ensemble": 0.5}, 0.95, "confirmed"),
        ({"SWAG": 0.4, "Deep ensemble": 0.5}, 0.5, "partly"),  # the control has most of the gain
        ({"SWAG": 0.5, "Deep ensemble": 0.4}, 0.95, "partly"),
        ({"TRADI": 0.4, "MC dropout": 0.5}, 0.95, "refuted"),
    ],
)
def test_tradi_on_cifar(nll, renewed, expected):
    found = {name: {"NLL": nll.get(name, 1.0), "accuracy": 90.0, "ECE": 0.1, "AUC": 80.0} for name in METHODS}
    found["MCP, batch norm renewed"] = found["SWAG"] | {"NLL": renewed}
    made = cifar("small", [0], CIFAR_SIZES["small"], [found], {})
    assert verdicts(made) == [expected]
    assert made.claims[0].claim == "By NLL: SWAG 0.110, Deep ensemble 0.173, MC dropout 0.205, TRADI 0.205"


def relu_net(method, *, overconfident, alpha, noise):
    outside = {"noise": {"MMC": noise, "AUROC": 0.9, "FPR95": 0.1}, "adversarial noise": {"MMC": 2 * noise}}
    return Judged(
        set="mnist", method=method, seconds=1.0, error=1.0, confidence=0.9, outside=outside, alpha=alpha, first=alpha,
        stays=alpha, ties=0, rays=10, overconfident=overconfident, resisted=50.0, curve=[(1.0, 0.5)],
    )  # fmt: skip


def test_confidence_far_away():
    nets = [
        relu_net("plain", overconfident=99.0, alpha=2.0, noise=0.5),
        relu_net("CEDA", overconfident=50.0, alpha=9.0, noise=0.15),
        relu_net("ACET", overconfident=0.0, alpha=float("inf"), noise=0.1),
    ]
    made = relu("small", 0, RELU_SIZES["small"], nets, [])
    assert verdicts(made) == ["confirmed"] * 4
    assert "(98.7 % on MNIST)" in made.claims[0].claim
    assert made.tables[0].rows[2].cells[1].text == "inf"
    assert made.tables[0].rows[2].cells[4].published == "0.0"
    swapped = [nets[2], nets[1], nets[0]]
    for net, method in zip(swapped, ("plain", "CEDA", "ACET"), strict=True):
        object.__setattr__(net, "method", method)
    assert verdicts(relu("small", 0, RELU_SIZES["small"], swapped, [])) == ["refuted"] * 2 + ["confirmed", "partly"]


@pytest.mark.parametrize("good", [True, False])
def test_ood_zeros(good):
    level = 97.0 if good else 80.0
    row = {
        "zeros detected": level,
        "others correct": level,
        "validation": 90.0,
        "softmax below": 0.7,
        "error above": 1.0,
    }
    before = row | {"zeros detected": level - 5}
    rules = {denoising.RECONSTRUCTED: before, denoising.PIPELINE: row}
    zero, others = (0.05, 0.01) if good else (0.01, 0.05)
    errors = {
        digit: {"10 %": 0.0, "median": others - (0.001 * (digit == 1)) if digit else zero, "90 %": 1.0,
                "largest": 0.0 if digit else (150.0 if good else 50.0)}
        for digit in range(10)
    }  # fmt: skip
    ranked = {"auroc": 90.0, "aupr_out": 90.0, "aupr_in": 90.0, "fpr_in": 9.0, "fpr_out": 9.0}
    scores = (denoising.SOFTMAX, denoising.ERROR, denoising.WORSE)
    one = denoising.Judged(
        rules=rules, chosen=denoising.PIPELINE, accuracy=level + 2, ranked=dict.fromkeys(scores, ranked),
        curves={name: [level] * len(denoising.GRID) for name in scores}, errors=errors,
    )  # fmt: skip
    changed = {}
    for place, name in enumerate(ABLATIONS):
        wrong = 0.9 - 0.1 * place if good else 0.9
        auroc = 99.0 - place if good else 90.0 + place
        figures = {"accuracy": 99.0 - place * good, "softmax, correct": 0.9, "softmax, wrong": wrong} | {"AUROC": auroc}
        changed[name] = denoising.Ablation(figures, {}, reconstructs=True)
    claims = denoising._claims([one], changed)
    expected = (
        ["confirmed"] * 9 if good else ["refuted"] * 2 + ["confirmed"] + ["refuted"] * 4 + ["confirmed", "refuted"]
    )
    assert [claim.verdict for claim in claims] == expected
    pairs = [(97.0, 91.0), (96.0, 90.0)] if good else [(97.0, 80.0), (96.0, 80.0)]
    better = [
        {"zeros detected": zeros, "others correct": right, "accuracy": 99.0, "AUROC": 98.0} for zeros, right in pairs
    ]
    assert denoising._of_better(better).verdict == ("confirmed" if good else "partly")
    assert denoising._better([one], better).rows[1].cells[0].value == 96.5
    assert claims[0].claim.startswith("96 % of the zeros are detected and 90 %")
    assert "about 99 %" in claims[1].claim
    assert denoising._rules([one]).rows[1].cells[3].published == "0.659"
    assert denoising._ranked([one]).rows[0].cells[4].published == "90"


@pytest.mark.parametrize("good", [True, False])
def test_two_uncertainties(good):
    names = ("one network", "MC dropout", "Deep ensemble", "TRADI", "TRADI, independent weights", "SWAG")
    sine = {"noise": 5.0 if good else 50.0, "ratio": 3.0 if good else 1.0, "identity": 0.0 if good else 1.0}
    found = {name: sine | dict.fromkeys(("inside", "outside", "error", "NLL", "coverage"), 0.1) for name in names}
    counts = {str(count): {"NLL": 1 / count if not good else 0.5, "error": 0.1} for count in (1, 2, 3, 5, 10)}
    high, low = (0.6, 0.1) if good else (0.1, 0.6)
    places = {"overlap": high, "beside": low, "far": high}
    apart = {
        name: {f"{kind} {at}": v for kind in ("aleatoric", "epistemic") for at, v in places.items()} for name in names
    }
    made = two("small", [0], TWO_SIZES["small"], [found], [counts], [apart], charts=[], shots=[])
    assert verdicts(made) == ["confirmed" if good else "refuted"] * 6
