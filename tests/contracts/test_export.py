"""Every score and calibration as an ONNX graph: the numbers of PyTorch in onnxruntime, and the same verdicts."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

import caveat
from caveat import calibration
from caveat.errors import OptionError
from caveat.guard import decision, onnx_file
from caveat.guard.plain_operations import Plain
from caveat.guard.threshold import keeping
from caveat.observations import glance_unread
from caveat.posteriors.at_once import AtOnce
from caveat.scoring import catalog
from caveat.scoring.kinds import kind_of
from tests.conftest import shapes_unchecked
from tests.contracts.world import World, pictures, world

onnxruntime = pytest.importorskip("onnxruntime")

NAMES = list(catalog.families())
BACKWARD = [
    name
    for name in NAMES
    if name in ("odin", "mahalanobis_odin", "nac") or kind_of(name).family in ("gradients", "meta")
]
"""Scores that take gradients of the network: no graph holds a backward pass."""
AGAIN = [name for name in NAMES if kind_of(name).family == "model" and name not in BACKWARD]
"""Scores that ask the network again: a graph holds one pass."""
EXPORTED = [name for name in NAMES if name not in {*BACKWARD, *AGAIN}]
CALIBRATIONS = list(calibration.FROM_LOGITS)
NEAR = pictures(192, seed=1)[0].float()
INPUTS = torch.cat([NEAR, pictures(64, seed=2, far=True)[0].float()])


class All(nn.Module):
    """Every score and calibration that one pass over a network serves, so that one export does for all of them."""

    def __init__(self, one: World, names: list[str], *, many: bool):
        super().__init__()
        self.model = AtOnce(one.model) if many else one.model
        self.head = one.plan.head
        self.scores = [one.fit(name) for name in names]
        signals = {catalog.signal(name) for name in names}
        self.probes = {key: probe for key, probe in one.plan.probes.items() if key in signals}
        train = one.material.held_out
        calibrations = [] if many else CALIBRATIONS  # functions of logits, whoever gives them
        self.calibrated = [calibration.FROM_LOGITS[name](train.logits, train.labels) for name in calibrations]

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        with Plain():
            logits, features, probed = glance_unread(self.model, inputs, self.head, self.probes, "inputs")
            scores = [one.apply(logits, features, probed.get(catalog.signal(one.name))) for one in self.scores]
            return (*scores, *(one(logits).double().softmax(dim=1) for one in self.calibrated))


@cache
def answers(many: bool) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """By name: PyTorch's numbers, onnxruntime's, and those in batches of another size."""
    one = world(many=many, dtype=torch.float32)
    names = [name for name in EXPORTED if kind_of(name).from_draws == many]
    module = All(one, names, many=many)
    outputs = names if many else [*names, *CALIBRATIONS]
    with shapes_unchecked():
        proto = onnx_file.translated(module, {"inputs": INPUTS[:3]}, outputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    seen = one.look(INPUTS)
    expected = [score(seen) for score in module.scores]
    expected += [calibrated(seen.logits).double().softmax(dim=1) for calibrated in module.calibrated]
    whole, parts = (
        [
            torch.cat([torch.from_numpy(part) for part in column])
            for column in zip(
                *(session.run(None, {"inputs": rows.numpy()}) for rows in INPUTS.split(size)), strict=True
            )
        ]
        for size in (256, 5)
    )
    return {name: found for name, *found in zip(outputs, expected, whole, parts, strict=True)}


def scale_of(values: Tensor) -> float:
    return max(1.0, float(values[: len(NEAR)].abs().max()))


@pytest.mark.parametrize("name", EXPORTED)
def test_a_score_is_the_same_in_any_batch(name):
    expected, whole, parts = answers(kind_of(name).from_draws)[name]
    assert expected.std() > 0
    for found in (whole, parts):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * scale_of(expected))


@pytest.mark.parametrize("name", EXPORTED)
def test_verdicts_are_identical(name):
    expected, whole, parts = (found.double() for found in answers(kind_of(name).from_draws)[name])
    held = keeping(expected[: len(NEAR)].sort().values, 0.9)
    accepted = expected <= held.threshold
    assert 0.9 * len(NEAR) <= int(accepted[: len(NEAR)].sum())
    assert torch.equal(whole <= held.threshold, accepted)
    assert torch.equal(parts <= held.threshold, accepted)


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_calibrated_probabilities_are_the_same(name):
    expected, whole, parts = answers(False)[name]
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts, expected, rtol=1e-5, atol=1e-5)


def test_most_scores_are_exported():
    assert len(EXPORTED) >= 25
    assert set(BACKWARD) == {
        name for name in NAMES if not kind_of(name).from_draws and name in _probes() and _probes()[name].graph
    }


def _probes():
    probes = world(dtype=torch.float32).plan.probes
    return {name: probes[catalog.signal(name)] for name in NAMES if catalog.signal(name) in probes}


@pytest.mark.parametrize("name", [*BACKWARD, *AGAIN])
def test_a_score_that_no_graph_holds_is_refused_before_anything_is_written(name, tmp_path):
    one = world(dtype=torch.float32)
    probe = one.plan.probes[catalog.signal(name)]
    made = decision.of(one.fit(name), one.material.held_out, head=one.plan.head, probe=probe, shape=(1, 8, 8))
    guard = caveat.Guard(one.model, made)
    with pytest.raises(OptionError, match=f"{name} {'takes gradients of' if name in BACKWARD else 'asks'} the network"):
        guard.export(tmp_path / "guard.onnx")
    assert not list(tmp_path.iterdir())
