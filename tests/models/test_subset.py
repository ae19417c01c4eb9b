"""A network of many classes on a few of them: by name or number, in the set's order, in every figure."""

import types

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from caveat import Guard, audit
from caveat.cli.main import app
from caveat.data import from_tensors
from caveat.errors import OptionError
from caveat.models import Adapted, chosen, class_names_of

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


class Named(nn.Module):
    def __init__(self, classes=NAMES):
        super().__init__()
        self.classes = classes
        self.flat, self.body, self.head = nn.Flatten(), nn.Linear(16, 12), nn.Linear(12, len(NAMES))

    def forward(self, inputs):
        return self.head(torch.tanh(self.body(self.flat(inputs))))


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Named().eval()


def pictures(n=80, classes=("fox", "bee", "dog")):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(n, 1, 4, 4, generator=generator)
    return from_tensors(images, torch.randint(3, (n,), generator=generator), classes=classes)


def test_the_logits_are_those_of_the_sets_classes_in_its_order(net):
    small, numbers = chosen(net, ["bee", "dog", "fox"], ("fox", "bee", "dog"))
    inputs = torch.rand(5, 1, 4, 4)
    assert numbers == (5, 1, 3)
    assert torch.equal(small(inputs), net(inputs)[:, [5, 1, 3]])
    assert torch.equal(chosen(net, ["5", 1], None)[0](inputs), net(inputs)[:, [5, 1]])


def test_every_figure_is_that_of_a_network_with_these_outputs_alone(net):
    data = pictures()
    record = audit(net, data, classes=["bee", "dog", "fox"])
    small = Named()
    small.head = nn.Linear(12, 3)
    small.load_state_dict({k: v[[5, 1, 3]] if k.startswith("head") else v for k, v in net.state_dict().items()})
    small.classes = ("fox", "bee", "dog")
    other = audit(small.eval(), data)
    assert record.head == "model.head"  # features too
    assert record.classes == ["fox", "bee", "dog"]
    assert [item.name for item in record.scores] == [item.name for item in other.scores]
    assert record.calibrations == other.calibrations
    for one, two in zip(record.selective, other.selective, strict=True):
        assert one.auroc.value == pytest.approx(two.auroc.value, abs=1e-6)
    assert any("only 5, 1, 3 are used, which are taken for fox, bee, dog" in note for note in record.notes)


def test_a_guard_keeps_its_classes(net, tmp_path):
    guard = Guard.fit(net, pictures(), classes=[5, 1, 3], score="energy", keep=0.8)
    guard.save(tmp_path / "g")
    again = Guard.load(tmp_path / "g", Named())
    inputs = torch.rand(9, 1, 4, 4)
    assert torch.equal(guard(inputs).probs, again(inputs).probs)
    assert again(inputs).classes == ("fox", "bee", "dog")


def test_names_are_found_where_networks_have_them(net):
    assert class_names_of(nn.Sequential(net)) == NAMES
    holder = nn.Module()
    holder.config = types.SimpleNamespace(id2label={"1": "b", 0: "a"})
    assert class_names_of(holder) == ("a", "b")
    assert class_names_of(nn.Linear(2, 2)) is None


@pytest.mark.parametrize(
    ("classes", "of_set", "word"),
    [
        (["bee"], None, "at least two"),
        (["bee", "bee"], None, "at least two"),
        (["bee", "cow"], None, "no 'cow'"),
        (["bee", "9"], None, "from 0 to 5, got 9"),
        (["bee", "cat"], ("bee", "dog"), "those of the set are bee, dog"),
    ],
)
def test_other_classes_are_refused(net, classes, of_set, word):
    with pytest.raises(OptionError, match=word):
        chosen(net, classes, of_set)


def test_a_network_without_names_needs_numbers(net):
    net.classes = None
    with pytest.raises(OptionError, match="does not name its outputs"):
        chosen(net, ["bee", "cat"], None)
    with pytest.raises(OptionError, match="as many as the set has"):
        chosen(net, [0, 1], ("a", "b", "c"))
    with pytest.raises(OptionError, match="from 0 to 5, got 7"):
        Adapted(net, columns=(0, 7))(torch.rand(2, 1, 4, 4))


def test_from_the_command_line(tmp_path):
    words = [
        "audit",
        "--model",
        "caveat.models:small_cnn(size=8)",
        "--test",
        "digits:test+only=3,5",
        "-o",
        tmp_path / "a",
    ]
    result = CliRunner().invoke(app, [*map(str, words), "--classes", "3,5"])
    assert isinstance(result.exception, OptionError)  # its labels are 3 and 5 of ten classes
    assert "classes" in str(result.exception)
