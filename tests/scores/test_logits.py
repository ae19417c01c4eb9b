"""What is special about each: golden numbers worked out by hand, and precision where a softmax would round."""

import math

import pytest
import torch

from caveat.errors import OptionError
from caveat.scores.logits import doctor, energy, entropy, gen, margin, max_logit, msp

LOGITS = torch.tensor([[math.log(6), math.log(3), math.log(1)]], dtype=torch.float64)  # p = .6 .3 .1


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (msp, 0.4),
        (max_logit, -math.log(6)),
        (entropy, -(0.6 * math.log(0.6) + 0.3 * math.log(0.3) + 0.1 * math.log(0.1))),
        (margin, 0.7),
        (energy, -math.log(10)),
        (gen, 0.24**0.1 + 0.21**0.1 + 0.09**0.1),
    ],
)
def test_golden(score, expected):
    assert score(LOGITS).item() == pytest.approx(expected, rel=1e-12)


def test_saturated_answers_are_still_ordered():
    logits = torch.tensor([[20.0, 0.0], [25.0, 0.0], [40.0, 0.0]])
    assert (logits.softmax(1).amax(1) == 1).all()  # a float32 softmax ties them all
    for score in (msp, entropy, margin, gen):
        assert (score(logits).diff() < 0).all(), score
    assert msp(logits)[2].item() == pytest.approx(math.exp(-40), rel=1e-5)


def test_energy_temperature():
    assert energy(LOGITS, temperature=2.0).item() == pytest.approx(
        -2 * math.log(math.sqrt(6) + math.sqrt(3) + 1), rel=1e-12
    )


def test_gen_takes_the_largest_only():
    assert gen(LOGITS, top=2).item() == pytest.approx(0.24**0.1 + 0.21**0.1, rel=1e-12)
    assert gen(LOGITS, top=1).item() == pytest.approx(0.24**0.1, rel=1e-12)


def test_entropy_of_impossible_classes():
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert entropy(logits).item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: energy(LOGITS, temperature=0.0), "temperature: expected a positive"),
        (lambda: gen(LOGITS, gamma=1.0), "gamma: expected"),
        (lambda: gen(LOGITS, top=0), "top: expected"),
    ],
)
def test_options_are_checked(call, message):
    with pytest.raises(OptionError, match=message):
        call()


def test_doctor_is_the_odds_of_another_draw():
    # p = .6 .3 .1: two draws agree with probability .36 + .09 + .01 = .46
    assert doctor(LOGITS).item() == pytest.approx(0.54 / 0.46, rel=1e-12)
    tiny = torch.tensor([[30.0, 0.0]])
    assert doctor(tiny).item() == pytest.approx(2 * math.exp(-30), rel=1e-5)
