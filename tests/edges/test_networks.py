"""What networks of other people do differently: units, half precision, dropout that is written otherwise."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import caveat
from caveat import attacks, posteriors, weights
from caveat.errors import DataError, ModelError
from caveat.tensors import write_tensors

LABELS = torch.arange(200) % 4
GENERATOR = torch.Generator().manual_seed(0)
PICTURES = torch.rand(4, 3, 8, 8, generator=GENERATOR)[LABELS] * 0.8 + 0.2 * torch.rand(
    200, 3, 8, 8, generator=GENERATOR
)


class Floats(nn.Module):
    """A network that takes whole numbers too, as floats."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 4)
        nn.init.normal_(self.fc.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.fc(inputs.float().flatten(1))


@pytest.mark.parametrize("train", [(PICTURES * 255).to(torch.uint8), PICTURES * 255], ids=["bytes", "floats"])
def test_in_distribution_sets_in_other_units_are_refused(train):
    """The scores were fitted to units, and nothing was said."""
    model, test = Floats().eval(), [(PICTURES, LABELS)]
    with pytest.raises(DataError, match=r"train: test holds float32 from 0.* to 0.99.* and train holds .* to 25\d"):
        caveat.audit(model, test, train=[(train, LABELS)], scores=["msp"], replicas=2)
    with pytest.raises(DataError, match="bring both to one unit"):
        caveat.Guard.fit(model, test, train=[(train, LABELS)], score="msp")


def test_ood_sets_in_other_units_are_said():
    sets = {"near": [(PICTURES.flip(3), LABELS)], "bytes": [(PICTURES * 255, LABELS)]}
    record = caveat.audit(Floats().eval(), [(PICTURES, LABELS)], ood=sets, scores=["msp"], replicas=2)
    assert [text for text in record.warnings if "units" in text] == [
        text for text in record.warnings if "The set bytes may be in other units" in text
    ]
    assert any("The set bytes" in text for text in record.warnings)


class Cached(nn.Module):
    """Masks, positions, rotary tables are made when a network first runs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.table = nn.Linear(12, 4), None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits."""
        self.table = torch.linspace(0.9, 1.1, 4) if self.table is None else self.table
        return self.fc(inputs) * self.table


ROWS = torch.rand(200, 12, generator=GENERATOR)
SET = [(ROWS, LABELS)]


@pytest.mark.parametrize("first", ["observe", "guard", "predict", "dropout"])
def test_a_network_can_be_trained_after_it_was_observed(first):
    """It kept a table made in inference mode."""
    model = Cached().eval()
    if first == "observe":
        caveat.observe(model, SET, features=False)
    elif first == "guard":
        caveat.Guard.fit(model, SET, score="msp")(ROWS)
    else:
        kind = posteriors.Dropout(("fc",), 0.5) if first == "dropout" else posteriors.ensemble.of([model, model])
        posteriors.predict(kind, model, ROWS, generator=GENERATOR)
    assert model.table is not None
    nn.functional.cross_entropy(model.train()(ROWS), LABELS).backward()
    assert model.fc.weight.grad is not None


def test_a_caller_in_inference_mode_gets_what_others_get():
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    guard, names = caveat.Guard.fit(model, SET, score="grad_l2"), ["odin", "grad_l2", "mahalanobis_layers"]
    right = guard(ROWS).score, caveat.audit(model, SET, scores=names, replicas=2).model_dump(include={"detections"})
    with torch.inference_mode():
        inside = [(ROWS.clone(), LABELS.clone())]
        found = guard(inside[0][0]).score, caveat.audit(model, inside, scores=names, replicas=2)
    torch.testing.assert_close(found[0], right[0])
    assert found[1].model_dump(include={"detections"}) == right[1]


@pytest.mark.parametrize("name", ["fgsm", "pgd", "estimated", "penalised"])
def test_attacks_in_inference_mode_do_what_they_do_outside(name):
    """Inputs were copied, labels not: torch keeps no inference tensor for a backward pass."""
    model, ball = Floats().eval(), attacks.Ball(math.inf, 0.1)

    def run(inputs, labels):
        if name == "penalised":
            return attacks.l1.penalised(model, inputs, labels, steps=5).inputs
        return getattr(attacks, name)(model, inputs, labels, ball, generator=torch.Generator().manual_seed(0))

    right = run(PICTURES[:8], LABELS[:8])
    with torch.inference_mode():
        found = run(PICTURES[:8], LABELS[:8])
    torch.testing.assert_close(found.clone(), right)


COMPILED = """
import torch, caveat
from torch import nn
rows, labels = torch.rand(200, 12), torch.arange(200) % 4
model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
guard = caveat.Guard.fit(model, [(rows, labels)], score="grad_l2")
found, right = torch.compile(guard, backend="eager")(rows), guard(rows)
torch.testing.assert_close(found.score, right.score)
assert torch.equal(found.accepted, right.accepted)
"""


def test_a_compiled_guard_is_the_guard():
    """Torch's compiler stopped at a keyword it does not follow: by itself, without the checks of shapes in tests."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight


@pytest.mark.parametrize("left_out", ["a.weight", "b.weight"])
def test_one_name_of_tied_weights_is_enough(left_out, tmp_path):
    """As `safetensors.torch.save_model` writes them: they were refused."""
    saved, model = Tied(), Tied()
    state = {name: value for name, value in saved.state_dict().items() if name != left_out}
    write_tensors(tmp_path / "w.safetensors", state)
    weights.load(model, tmp_path / "w.safetensors")
    assert torch.equal(model.a.weight, saved.a.weight)
    assert model.b.weight is model.a.weight
    write_tensors(tmp_path / "w.safetensors", {name: value for name, value in state.items() if name != "a.bias"})
    with pytest.raises(ModelError, match=r"the file lacks a\.bias"):
        weights.load(model, tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool], ids=str)
def test_weights_of_whole_numbers_are_refused(dtype, tmp_path):
    """They were cast: accuracy of chance, ECE 0.0000, not a word."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    state = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in model.state_dict().items()
    }
    write_tensors(tmp_path / "w.safetensors", state)
    before = model[0].weight.clone()
    with pytest.raises(ModelError, match=f"is {dtype}, the model has torch.float32: whole numbers need the scale"):
        weights.load(model, tmp_path / "w.safetensors")
    assert torch.equal(model[0].weight, before)
    write_tensors(
        tmp_path / "w.safetensors", {n: v.half() if v.is_floating_point() else v for n, v in model.state_dict().items()}
    )
    weights.load(model, tmp_path / "w.safetensors")
