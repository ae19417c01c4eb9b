"""What networks of other people do differently: units, half precision, dropout that is written otherwise."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import caveat
from caveat import attacks, evaluation, models, posteriors, weights
from caveat.errors import DataError, ModelError, OptionError
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


def deep() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


@pytest.mark.parametrize("name", ["msp", "knn", "grad_l2", "odin", "mahalanobis_odin"])
def test_a_guard_takes_inputs_of_another_precision(name):
    guard = caveat.Guard.fit(deep(), SET, score=name)
    assert torch.equal(guard(ROWS.double()).score, guard(ROWS).score)
    torch.testing.assert_close(guard(ROWS.half()).score, guard(ROWS.half().float()).score)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tracing itself
@pytest.mark.parametrize("way", [lambda g: torch.export.export(g, (ROWS,), strict=False),
                                 lambda g: torch.jit.trace(g, (ROWS,))], ids=["export", "trace"])  # fmt: skip
def test_a_guard_that_is_exported_says_what_to_export(way):
    """Torch's own errors came, out of the middle."""
    with pytest.raises(ModelError, match=r"guard\.export\('guard\.onnx'\) writes"):
        way(caveat.Guard.fit(deep(), SET, score="msp"))


@pytest.mark.parametrize("around", ["adapted", "predictive", "straight", "guard"])
def test_what_stands_around_a_network_leaves_its_layers_modes(around):
    """A dropout left in training mode was switched off without a word: its answers were random, and then were not."""
    model = nn.Sequential(nn.Linear(12, 4), nn.Dropout(0.5)).eval()
    fitted = caveat.Guard.fit(model, SET, score="msp").decision
    model[1].train()
    made = {
        "adapted": lambda: models.Adapted(model),
        "predictive": lambda: posteriors.Predictive(model, posteriors.ensemble.of([model, model])),
        "straight": lambda: attacks.StraightThrough(model),
        "guard": lambda: caveat.Guard(model, fitted),
    }[around]()
    assert model[1].training
    with pytest.raises(ModelError, match=r"'model\.1' is in training mode"):
        evaluation.check(made)


def test_a_network_without_weights_of_its_own_is_no_member():
    with pytest.raises(OptionError, match="these have none"):
        posteriors.ensemble.of([nn.Flatten(), nn.Flatten()])


def test_a_posterior_of_a_network_that_does_not_repeat_itself_is_refused():
    """The networks of an ensemble are asked as others are: the noise of each went into its figures."""

    class Noisy(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input + torch.randn_like(input))

    members = [Noisy(12, 4).eval(), Noisy(12, 4).eval()]
    with pytest.raises(ModelError, match="does not give the same"):
        caveat.audit(posteriors.Predictive(members[0], posteriors.ensemble.of(members)), SET, replicas=2)


def test_a_look_at_the_inputs_form_gives_a_lazy_layer_no_weights():
    model = nn.Sequential(nn.LazyLinear(4)).eval()
    with pytest.raises(ModelError, match="has no shape yet"):
        caveat.Guard.fit(model, SET, score="msp")
    assert isinstance(model[0].weight, nn.UninitializedParameter)


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize(
    "compiled", [lambda m: torch.compile(m, backend="eager"), in_place], ids=["wrapped", "in place"]
)
def test_the_layers_of_a_compiled_network_are_seen(compiled):
    """Its head was not found, and gradient scores ended in the compiler's own error."""
    plain = deep()
    names = ["knn", "grad_l2", "nac", "odin"]
    right = caveat.audit(plain, SET, scores=names, replicas=2).model_dump(include={"detections", "selective"})
    model = compiled(plain)
    model(ROWS)
    model(ROWS[:3])  # what was compiled before is no way round
    assert caveat.audit(model, SET, scores=names, replicas=2).model_dump(include={"detections", "selective"}) == right
