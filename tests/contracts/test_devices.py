"""Every row of every table on any device: what a method makes is where its inputs are, and scoring waits for nothing.

There need be no GPU. The inputs are on the CPU and everything that is made without a word about where is on `meta`:
torch refuses to compute with both. A fake tensor has no numbers: whoever looks at them (`item`, `tolist`, `bool`, a
mask as an index), and would wait for a GPU there, fails.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (  # where torch keeps it
    DataDependentOutputException,
    FakeTensorMode,
)

from caveat import calibration, fitted, posteriors, rays
from caveat.attacks import IN_BALL, MINIMAL, PENALISED, QUERY
from caveat.guard import decision
from caveat.guard.answer import answer
from caveat.metrics import OF_LOGITS, OF_PROBABILITIES, OF_RANKING, OF_SELECTIVE
from caveat.metrics.tally import tally
from caveat.objectives import OBJECTIVES
from caveat.observations import observe
from caveat.posteriors import FROM_TRAINING
from caveat.scoring import catalog
from caveat.scoring.kinds import kind_of
from tests.conftest import shapes_unchecked
from tests.contracts.test_attacks import case, run, seeded
from tests.contracts.test_calibration import overconfident
from tests.contracts.test_metrics import answers, scores
from tests.contracts.test_posteriors import INPUTS, WITH_SPREAD, network, tracker_of
from tests.contracts.test_scores_by_kind import NEAR, fit, look, world_of
from tests.contracts.world import world

NAMES = list(catalog.families())
ATTACKS = IN_BALL | QUERY


def far(tensor: Tensor) -> Tensor:
    """A tensor of the same kind without numbers."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


def elsewhere() -> torch.device:
    return torch.device("meta")


def without_numbers(function: Callable[[], Tensor]) -> Tensor:
    with FakeTensorMode(allow_non_fake_inputs=True), elsewhere():
        return function()


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_computed_where_its_inputs_are_and_looks_at_no_number(name: str) -> None:
    score, seen = fit(name), look(kind_of(name).from_draws).part(torch.arange(9))
    made = fitted.mapped(score.fitted, far) if catalog.fitted_class(name) else score.fitted
    probed = seen.probed.get(catalog.signal(name))
    with shapes_unchecked():
        found = without_numbers(
            lambda: score.kind.apply(
                made, far(seen.logits), None if seen.features is None else far(seen.features),
                None if probed is None else far(probed),
            )
        )  # fmt: skip
    assert found.device.type == "cpu"
    assert found.shape == (9,)


@pytest.mark.parametrize("name", calibration.FROM_LOGITS)
def test_a_calibration_is_applied_where_its_logits_are_and_looks_at_no_number(name: str) -> None:
    logits, labels = overconfident(400)
    calibrated = calibration.FROM_LOGITS[name](logits, labels)
    with shapes_unchecked():
        found = without_numbers(lambda: fitted.mapped(calibrated, far)(far(logits[:9].clone())))
    assert found.device.type == "cpu"


def test_a_guard_answers_without_a_look_at_a_number() -> None:
    world, seen = world_of("mahalanobis"), look(many=False)
    made = decision.fit(seen, world.material.train, world.plan.head, score="mahalanobis")
    moved = dataclasses.replace(decision.mapped(made, far), reference=far(made.reference))
    logits, features = far(seen.logits[:9].clone()), far(seen.features[:9].clone())
    with shapes_unchecked(), FakeTensorMode(allow_non_fake_inputs=True), elsewhere():
        verdict = answer(moved, logits, features, {}, torch.zeros(9, dtype=torch.bool, device="cpu"))
    assert {part.device.type for part in vars(verdict).values() if isinstance(part, Tensor)} == {"cpu"}


@pytest.mark.parametrize("many", [False, True], ids=["one network", "draws"])
def test_every_probe_and_posterior_is_computed_where_the_inputs_are(many: bool) -> None:
    inputs = NEAR[:5].clone()
    there = world(many=many)
    batches = [(inputs, torch.zeros(len(inputs), dtype=torch.long))]
    ask = partial(observe, there.model, batches, features=not many, head=there.plan.head, probes=there.plan.probes)
    expected = ask()
    with elsewhere():
        found = ask()
    for name, signal in expected.probed.items():
        assert torch.equal(found.probed[name], signal), name


@pytest.mark.parametrize("name", ATTACKS | PENALISED | MINIMAL)
def test_an_attack_is_computed_where_the_inputs_are(name: str) -> None:
    model, inputs, labels = case((1, 4, 4))
    with elsewhere():
        found = run(name, model, inputs, labels)
    assert torch.equal(found, run(name, model, inputs, labels))


@pytest.mark.parametrize("name", WITH_SPREAD)
def test_a_posterior_predicts_where_the_inputs_are(name: str) -> None:
    model, posterior = WITH_SPREAD[name]()
    ask = partial(posteriors.predict, posterior, model, INPUTS, draws=3)
    with elsewhere():
        found = ask(generator=seeded(0))
    assert torch.equal(found, ask(generator=seeded(0)))


@pytest.mark.parametrize("name", FROM_TRAINING)
def test_a_tracker_keeps_what_it_tracks_where_the_weights_are(name: str) -> None:
    model = network()
    tracker = tracker_of(name, model, torch.optim.SGD(model.parameters(), lr=0.1))
    with elsewhere():
        for _ in range(12):
            tracker.update(model)
        drawn = tracker.posterior().draw(seeded(0))
    assert {weight.device.type for weight in drawn.values()} == {"cpu"}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_computed_where_the_inputs_are(name: str) -> None:
    model, inputs, labels = case((1, 4, 4))
    goal = OBJECTIVES[name]
    with elsewhere():
        found = goal(model, inputs, labels, seeded())
    assert torch.equal(found, goal(model, inputs, labels, seeded()))


@pytest.mark.parametrize("name", [*OF_RANKING, *OF_SELECTIVE, *OF_PROBABILITIES, *OF_LOGITS])
def test_a_metric_is_computed_where_the_scores_are(name: str) -> None:
    (outputs, labels), rows, of_scores = answers(), scores(), OF_RANKING | OF_SELECTIVE

    def value() -> Tensor:
        if name in of_scores:
            return of_scores[name](tally(*rows))
        return (OF_PROBABILITIES | OF_LOGITS)[name](outputs if name in OF_LOGITS else outputs.softmax(1), labels)

    with elsewhere():
        found = value()
    assert torch.equal(found, value())


def test_rays_are_followed_where_the_inputs_are() -> None:
    model = relu_network()
    inputs = torch.rand(4, 6, generator=seeded(), dtype=torch.float64)
    expected = rays.along(model, inputs)
    with elsewhere():
        found = rays.along(model, inputs)
    for one, other in zip(vars(found).values(), vars(expected).values(), strict=True):
        assert not isinstance(one, Tensor) or torch.equal(one, other)


def relu_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return (
            nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).double().eval()
        )


def test_both_mistakes_are_noticed() -> None:
    """Neither test above passes whatever is done."""
    values = torch.rand(3)
    with pytest.raises(RuntimeError), elsewhere():
        values + torch.zeros(3)
    with pytest.raises(DataDependentOutputException):
        without_numbers(lambda: far(values) / far(values).sum().item())
