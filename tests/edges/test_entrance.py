"""What comes from the user's world is right, or refused in a sentence: sets, labels, networks and their heads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import caveat
from caveat import data, heads
from caveat.cli.main import app
from caveat.errors import DataError, ModelError, OptionError
from caveat.inputs import check_labels, fingerprints, opened, take
from caveat.observations import normalised, observe, squashed
from caveat.training.run_folder import claim
from tests.conftest import shapes_unchecked

X = torch.randn(120, 12, generator=torch.Generator().manual_seed(1))


class After(nn.Module):
    """A network whose logits are changed after its last layer."""

    def __init__(self, after, head: nn.Module | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body, self.after = nn.Sequential(nn.Linear(12, 16), nn.ReLU()), after
        self.fc = nn.Linear(16, 4) if head is None else head
        with torch.no_grad():
            for value in self.parameters():
                value.copy_(torch.randn(value.shape, generator=generator) / 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits, changed."""
        logits = self.fc(self.body(inputs))
        return self.after(logits)


def same(logits: torch.Tensor) -> torch.Tensor:
    return logits


LABELS = After(same).eval()(X).argmax(1)
SET = list(zip(X.split(40), LABELS.split(40), strict=True))


class Cosine(nn.Linear):
    """A subclass of Linear that computes something else."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Cosines."""
        return 20 * nn.functional.linear(nn.functional.normalize(inputs), nn.functional.normalize(self.weight))


@pytest.mark.parametrize(
    "after",
    [lambda z: z.mul_(3), lambda z: z.relu_(), lambda z: z.clamp_(-0.1, 0.1), lambda z: z.sub_(z.logsumexp(1, True))],
    ids=["temperature", "relu", "clamp", "log-softmax"],
)
def test_a_change_after_the_head_leaves_no_head(after):
    """It was taken for the head, since the tensor that the hook kept was changed too: features and logits disagreed."""
    model = After(after).eval()
    with pytest.raises(ModelError, match="found no linear or 1x1-convolution layer whose weight"):
        heads.find(model, X[:16])
    record = caveat.audit(model, SET, replicas=2)
    assert not {score.family for score in record.scores} & {"features", "head"}
    assert any("Left out: " in note and "mahalanobis" in note for note in record.notes)
    with pytest.raises(ModelError, match="found no linear"):
        caveat.audit(model, SET, scores=["vim"], replicas=2)


def test_the_head_is_what_computes_the_logits():
    for model in (After(same), After(same, nn.utils.parametrizations.weight_norm(nn.Linear(16, 4)))):
        found, seen = heads.find(model.eval(), X[:16]), observe(model.eval(), SET)
        torch.testing.assert_close(seen.features @ found.head[0].T + found.head[1], seen.logits)
    with pytest.raises(ModelError, match="found no linear"):
        heads.find(After(same, Cosine(16, 4)).eval(), X[:16])
    bare = nn.Linear(12, 4).eval()
    assert heads.find(bare, X[:16]).name == ""
    torch.testing.assert_close(observe(bare, SET).features, X)


def test_features_are_copies():
    model = After(same)
    model.fc.register_forward_hook(lambda _, args, __: (args[0].zero_(), None)[1])
    true = model.body(X).detach()
    torch.testing.assert_close(observe(model.eval(), SET).features, true)


def test_the_callers_inputs_are_never_written_to():
    class Normalises(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.sub_(0.5).mul_(4)[:, :4]

    mine = X.clone()
    seen = observe(Normalises().eval(), [(mine[:60], LABELS[:60]), (mine[60:], LABELS[60:])], features=False)
    assert torch.equal(mine, X)
    torch.testing.assert_close(seen.logits, (X - 0.5)[:, :4] * 4)


@pytest.mark.parametrize("kind", ["noise", "batch", "state"])
def test_a_network_that_is_no_function_of_its_input_is_refused(kind):
    class Odd(nn.Module):
        calls = 0

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            Odd.calls += 1
            logits = 5 * inputs[:, :4]
            if kind == "noise":
                return logits + torch.randn_like(logits)
            return logits - logits.mean(dim=0) if kind == "batch" else logits * Odd.calls

    with pytest.raises(ModelError, match="does not give the same outputs for the same inputs"):
        observe(Odd().eval(), SET, features=False)


def test_probabilities_are_not_logits():
    class Softmax(nn.Module):
        def __init__(self, log: bool) -> None:
            super().__init__()
            self.log, self.net = log, After(same)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            found = self.net(inputs).log_softmax(1)
            return found if self.log else found.exp()

    with pytest.raises(ModelError, match="outputs are probabilities"):
        caveat.audit(Softmax(False).eval(), SET, scores=["msp"], replicas=2)
    record = caveat.audit(Softmax(True).eval(), SET, replicas=2)
    assert not {"energy", "max_logit", "weighted_energy"} & {score.name for score in record.scores}
    assert any("log-probabilities" in note for note in record.notes)
    with pytest.raises(OptionError, match=r"energy can't be had\. The network gives log-probabilities"):
        caveat.audit(Softmax(True).eval(), SET, scores=["energy"], replicas=2)
    assert normalised(After(same)(X).detach()) == ""


@pytest.mark.parametrize(
    ("form", "change"),
    [("percentages", lambda z: 100 * z.softmax(1)), ("negated log-probabilities", lambda z: -z.log_softmax(1))],
)
def test_probabilities_of_another_form_are_refused(form, change):
    with pytest.raises(ModelError, match=f"outputs are {form}"):
        caveat.audit(After(change).eval(), SET, scores=["msp"], replicas=2)
    with pytest.raises(ModelError, match=f"outputs are {form}"):
        caveat.Guard.fit(After(change).eval(), SET, score="msp", keep=0.9)


def test_sigmoids_are_named_where_one_class_is_meant():
    model = After(torch.sigmoid).eval()
    record = caveat.audit(model, SET, scores=["msp"], replicas=2)
    assert any("lies between 0 and 1" in text and "cannot exceed 48%" in text for text in record.warnings)
    assert "lies between 0 and 1" in caveat.Guard.fit(model, SET, score="msp", keep=0.9).decision.why
    assert not squashed(After(same)(X).detach())


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ((pair for pair in SET), "used up after one pass: give list"),
        ([(X, torch.eye(4)[LABELS])], r"labels \(n,\) of whole numbers, got \(120, 4\): of one-hot labels take argmax"),
        ([(X, ["cat"] * 120)], "labels as a tensor of whole numbers, got list of str"),
        ([{"text": ["a"] * 120}], "expected inputs as tensors or arrays of numbers, got dict"),
        ([(X, LABELS + 0.5)], "expected integer labels, got torch.float32"),
        ([], "got an empty set"),
        (7, r"expected batches \(inputs, labels\), as a DataLoader gives them, arrays .* got int"),
    ],
)
def test_what_is_no_set_is_told(batches, message):
    with shapes_unchecked(), pytest.raises(DataError, match=f"test: .*{message}"):
        opened(batches, "test")


def test_half_precision_is_scored_in_single():
    model = After(same).eval()
    seen = observe(model.to(torch.bfloat16), SET)
    assert seen.logits.dtype == seen.features.dtype == torch.float32


def test_inputs_are_known_again_by_their_fingerprints():
    prints = fingerprints(X)
    assert len(set(prints.tolist())) == len(X)
    assert torch.equal(torch.cat([fingerprints(part) for part in X.split(7)]), prints)
    one = X.clone()
    one[3, 5] = torch.nextafter(one[3, 5], torch.tensor(2.0))
    assert (fingerprints(one) != prints).nonzero().flatten().tolist() == [3]
    for dtype in (torch.float64, torch.bfloat16, torch.uint8, torch.bool):
        assert fingerprints((10 * X).to(dtype)).shape == (120,)
    loader = DataLoader(TensorDataset(X, LABELS), batch_size=11, shuffle=True)
    assert torch.equal(take(loader, torch.tensor([5, 119, 0]), prints, "test"), X[[5, 119, 0]])


def pictures(root: Path, classes: str, *, hidden: bool = False) -> Path:
    for number, name in enumerate(classes):
        folder = root / name
        folder.mkdir(parents=True)
        for k in range(4):
            Image.new("L", (4, 4), 20 * number + k).save(folder / f"{k}.png")
        if hidden:
            (folder / ".thumbnails").mkdir()
            Image.new("L", (4, 4), 255).save(folder / ".thumbnails" / "0.png")
    return root


def test_class_folders_are_matched_by_name(tmp_path: Path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    train = data.load(f"folder:{pictures(tmp_path / 'train', 'abc')}")
    for classes in ("ac", "abd", "abcd"):
        test = data.load(f"folder:{pictures(tmp_path / classes, classes)}")
        with pytest.raises(DataError, match="its classes are not those of test"):
            caveat.audit(model, test, train=train, scores=["msp"], replicas=2)
    short = data.load(f"folder:{tmp_path / 'ac'}")
    with pytest.raises(DataError, match=r"it names 2 classes \(a, c, ...\), but the model has 3 outputs"):
        caveat.audit(model, short, scores=["msp"], replicas=2)
    with pytest.raises(DataError, match=r"it names 2 classes \(a, c, ...\), but the model has 3 outputs"):
        caveat.Guard.fit(model, short, score="msp", keep=0.5)
    with pytest.raises(DataError, match="train: its classes are not those of held_out"):
        caveat.Guard.fit(model, short, train=train, score="msp", keep=0.5)


def test_hidden_folders_are_passed_over(tmp_path: Path):
    assert len(data.load(f"folder:{pictures(tmp_path, 'ab', hidden=True)}")) == 8


def test_a_kept_pass_is_used_only_for_the_same_inputs(tmp_path: Path):
    """Only the first batch was compared: data changed behind it gave the old figures."""
    model = After(same).eval()
    first = caveat.audit(model, SET, scores=["msp"], replicas=2, folder=tmp_path)
    assert first.calibrations[0].summary.accuracy.value == 1
    changed = [SET[0], (X[40:80].flip(0), LABELS[40:80]), SET[2]]
    again = caveat.audit(model, changed, scores=["msp"], replicas=2, folder=tmp_path)
    fresh = caveat.audit(model, changed, scores=["msp"], replicas=2)
    assert again.calibrations[0].summary.accuracy == fresh.calibrations[0].summary.accuracy
    assert fresh.calibrations[0].summary.accuracy.value < 1


def test_arrays_of_probabilities_are_no_logits(tmp_path: Path):
    probs = After(same).eval()(X).softmax(1).detach()
    np.savez(tmp_path / "probs.npz", logits=probs.numpy(), labels=LABELS.numpy())
    with pytest.raises(DataError, match=r"holds probabilities \(every row sums to 1\)"):
        caveat.audits.audit_arrays(tmp_path / "probs.npz", replicas=2)


@pytest.mark.parametrize(
    "command",
    [["report", "record.json", "-o", "record.json"], ["guard", "run", "g", "digits", "-o", "net.safetensors"]],
)
def test_an_output_of_another_format_is_never_written_over(command, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(command[-1]).write_text("three years of work")
    found = CliRunner().invoke(app, command)
    assert isinstance(found.exception, OptionError)
    assert "expected a name that ends in" in str(found.exception)
    assert Path(command[-1]).read_text() == "three years of work"


def test_a_refused_training_binds_nobody(tmp_path: Path):
    assert not claim(tmp_path, {"rate": -1.0, "epochs": 1})
    assert not claim(tmp_path, {"rate": 0.1, "epochs": 1})
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(OptionError, match=r"trained with rate = 0\.1, this run has 0\.2"):
        claim(tmp_path, {"rate": 0.2, "epochs": 1})
    assert claim(tmp_path, {"rate": 0.1, "epochs": 2})
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_samples_without_labels_are_told() -> None:
    """A folder without class subfolders: the message spoke of a label -1 at sample 0."""
    with pytest.raises(DataError, match=r"test: its samples have no labels .*one subfolder a class"):
        check_labels(torch.full((3,), -1), torch.zeros(3, 2), "test")
