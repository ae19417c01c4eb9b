"""An exported guard answers in onnxruntime as in Python; what cannot be exported is refused, and nothing stays."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import shapes_unchecked
from tests.contracts.world import pictures
from torch import Tensor, nn

from caveat import Guard, posteriors
from caveat.cli.guard.export import example
from caveat.cli.main import main
from caveat.errors import CaveatError, DataError, OptionError
from caveat.guard import onnx_file, plain_operations, portable
from caveat.guard.verdict import REASONS

onnxruntime = pytest.importorskip("onnxruntime")
onnxruntime.set_default_logger_severity(3)

NAMES = {"probabilities": "probs"}
NET = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(),
        nn.Dropout(0.3), nn.Linear(12, 4),
    )
"""


def network() -> nn.Sequential:
    space: dict[str, object] = {}
    exec(NET, space)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net: nn.Sequential = space["build"]()
        images, labels = pictures(200, seed=100)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
        for _ in range(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images.float()), labels).backward()
            optimizer.step()
    return net.eval()


def known(count: int, *, seed: int = 5) -> tuple[Tensor, Tensor]:
    images, labels = pictures(count, seed=seed, noise=0.4)
    return images.float(), labels


def answers(session, inputs: Tensor, **more: np.ndarray) -> dict[str, Tensor]:
    names = [output.name for output in session.get_outputs()]
    found = session.run(None, {"inputs": inputs.numpy(), **more})
    return {name: torch.from_numpy(part) for name, part in zip(names, found, strict=True)}


def session_of(path: Path):
    return onnxruntime.InferenceSession(path)


def check_equal(found: dict[str, Tensor], verdict) -> None:
    for name, part in found.items():
        wanted = getattr(verdict, NAMES.get(name, name))
        torch.testing.assert_close(
            part, wanted, rtol=1e-5, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
    for name in ("label", "accepted", "predicted"):
        assert torch.equal(found[name], getattr(verdict, name))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module of networks, a guard, its export by the command, and what that printed."""
    place = tmp_path_factory.mktemp("export")
    (place / "exported_nets.py").write_text(NET)
    Guard.fit(network(), known(200), score="energy", calibration="isotonic", keep=0.8).save(place / "guard")
    line = ["guard", "export", "guard", "--model", "exported_nets:build", "-o", "guard.onnx", "--triton", "models"]
    line += ["--mlflow", "model"]
    with pytest.MonkeyPatch.context() as patch, shapes_unchecked(), (place / "said").open("w") as said:
        patch.chdir(place)
        patch.syspath_prepend(place)
        patch.setattr(sys, "argv", ["caveat", *line])
        patch.setattr(sys, "stdout", said)
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
    return place


@pytest.fixture(scope="module")
def guard(place: Path) -> Guard:
    return Guard.load(place / "guard", network())


@pytest.fixture(scope="module")
def session(place: Path):
    return session_of(place / "guard.onnx")


@pytest.mark.parametrize("count", [1, 7, 300])
def test_a_batch_of_any_size_is_answered_as_in_python(session, guard, count):
    inputs = torch.cat([known(count, seed=8)[0], pictures(count, seed=9, far=True)[0].float()])
    verdict = guard(inputs)
    assert count == 1 or 0 < int(verdict.accepted.sum()) < 2 * count
    check_equal(answers(session, inputs), verdict)


def test_the_threshold_is_an_input_with_a_default(session, guard):
    inputs = known(100, seed=8)[0]
    own = guard.decision.promise.threshold
    assert [one.name for one in session.get_overridable_initializers()] == ["threshold"]
    assert torch.equal(answers(session, inputs)["label"], answers(session, inputs, threshold=np.array(own))["label"])
    other = float(guard(inputs).score.median())
    found = answers(session, inputs, threshold=np.array(other))
    assert torch.equal(found["accepted"], guard(inputs).score <= other)
    assert 0 < int(found["accepted"].sum()) < 100


def test_what_cannot_be_read_abstains_and_does_not_harm_the_others(session, guard):
    inputs = known(6, seed=8)[0]
    inputs[1, 0, 0, 0], inputs[2, 0, 3, 3] = torch.nan, torch.inf
    inputs[3] *= 255
    found = answers(session, inputs)
    assert found["score"].isnan().tolist() == [False, True, True, True, False, False]
    assert not bool(found["accepted"][1:4].any())
    check_equal(found, guard(inputs))


def test_the_metadata_say_what_it_is(session, guard):
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == list(guard.decision.classes)
    assert json.loads(said["promise"]) == json.loads(json.dumps(vars(guard.decision.promise)))
    assert json.loads(said["shape"]) == [1, 8, 8]
    assert (said["score"], said["calibration"], said["columns"]) == ("energy", "isotonic", "null")
    assert said["caveat_version"]


def test_the_ten_lines_run(place, monkeypatch, capsys, guard):
    """Those of the page and those that the command prints."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0]
    printed = example("guard.onnx", (1, 8, 8), "classification")
    assert code.replace('"guard.onnx"', "'guard.onnx'").strip() == printed.strip()
    assert all(line in (place / "said").read_text() for line in printed.splitlines())
    inputs = known(20, seed=8)[0]
    monkeypatch.chdir(place)
    np.save("inputs.npy", inputs.numpy())
    exec(code, {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    verdict = guard(inputs)
    assert [line[0] for line in lines] == ["abstained" if one < 0 else str(one) for one in verdict.label.tolist()]
    assert [float(line[1]) for line in lines] == pytest.approx(verdict.p_value.tolist())


def test_triton_is_told_what_the_graph_takes_and_gives(place, session):
    text = (place / "models" / "guard" / "config.pbtxt").read_text()
    assert [part.split('"')[1] for part in text.split("{ name: ")[1:]] == [
        "inputs",
        *(o.name for o in session.get_outputs()),
    ]
    assert '{ name: "inputs" data_type: TYPE_FP32 dims: [ 1, 8, 8 ] }' in text
    assert '{ name: "accepted" data_type: TYPE_BOOL dims: [ 1 ] reshape { shape: [ ] } }' in text
    assert (place / "models" / "guard" / "1" / "model.onnx").read_bytes() == (place / "guard.onnx").read_bytes()


def test_the_model_of_mlflow_answers_as_in_python(place, guard):
    found = portable._load_pyfunc(str(place / "model" / "guard.onnx"), {"sha256": json.loads(seal_in(place / "model"))})
    inputs = torch.cat([known(30, seed=8)[0], pictures(30, seed=9, far=True)[0].float()])
    inputs[1, 0, 0, 0] = torch.nan
    verdict, table = guard(inputs), found.answer(inputs.numpy())
    assert table["label"].tolist() == verdict.label.tolist()
    np.testing.assert_allclose(table["score"], verdict.score.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(table["p_value"], verdict.p_value.numpy())
    assert table["reason"].tolist() == [REASONS[one] for one in verdict.reason.tolist()]
    names = [verdict.classes[one] for one in verdict.predicted.tolist()]
    assert table["predicted_name"].tolist() == [names[0], None, *names[2:]]
    assert table["predicted"][1] == -1
    assert {REASONS[0], REASONS[1], REASONS[2]} == set(table["reason"])
    assert "is the same for MLflow" in (place / "said").read_text()


def seal_in(folder: Path) -> str:
    return re.findall(r"config: \{sha256: (.*)\}", (folder / "MLmodel").read_text())[0]


def test_only_an_export_is_replaced(place, tmp_path):
    onnx_file.check_output("-o", place / "guard.onnx")
    (tmp_path / "other.onnx").write_bytes(b"not ours")
    (tmp_path / "folder.onnx").mkdir()
    for name, words in (("other.onnx", "was not written by Caveat"), ("folder.onnx", "is a folder"), ("g.txt", "ends")):
        with pytest.raises(OptionError, match=words):
            onnx_file.check_output("-o", tmp_path / name)
    assert (tmp_path / "other.onnx").read_bytes() == b"not ours"


def members(*, last: bool) -> posteriors.Predictive:
    first, generator = network(), torch.Generator().manual_seed(1)
    nets = [network() for _ in range(4)]
    with torch.no_grad():
        for net in nets:
            for weight in net[-1].parameters() if last else net.parameters():
                weight += 0.5 * torch.randn(weight.shape, generator=generator)
    return posteriors.Predictive(first, posteriors.ensemble.of(nets, only=("7",) if last else ())).eval()


@pytest.mark.parametrize(("kind", "convolutions"), [("last layers", 1), ("whole", 4), ("dropout", 1)])
def test_a_posterior_is_one_graph_in_which_the_common_part_stands_once(kind, convolutions, tmp_path):
    onnx = pytest.importorskip("onnx")
    net = network()
    model = members(last=kind == "last layers")
    if kind == "dropout":
        model = posteriors.Predictive(net, posteriors.dropout.of(net), draws=4, seed=3).eval()
    guard = Guard.fit(model, known(200), score="mutual_information", keep=0.8)
    with shapes_unchecked():
        said = guard.export(tmp_path / "guard.onnx")
    assert said["draws"] == "4"
    assert said["masks"] == ("fixed, of seed 3" if kind == "dropout" else "none")
    nodes = [node.op_type for node in onnx.load(tmp_path / "guard.onnx").graph.node]
    assert nodes.count("Conv") == convolutions
    session = session_of(tmp_path / "guard.onnx")
    for count in (1, 130):
        inputs = known(count, seed=8)[0]
        found = answers(session, inputs)
        assert count == 1 or float(found["epistemic"].max()) > 1e-3
        check_equal(found, guard(inputs))


class Other(nn.Module):
    """Something that no graph, or another one, is made of."""

    def __init__(self, way: str):
        super().__init__()
        self.net, self.way = network(), way

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.net(inputs)
        if self.way == "values" and bool((inputs.sum() > 1e9).any()):
            return -logits
        if self.way == "exporting" and torch.compiler.is_exporting():
            return 1.5 * logits
        return logits


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("values", "model: it cannot be written as an ONNX graph"),
        ("exporting", "model: as a graph it gives another label"),
        ("double", "model: onnxruntime cannot run the graph"),
        ("tokens", "example: the guard's inputs are whole numbers"),
        ("narrow", "dtype: the guard runs its network in bfloat16"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_stays(way, message, tmp_path):
    model, (images, labels) = Other(way).eval(), known(200)
    if way == "double":
        model, images = model.double(), images.double()
    if way == "tokens":
        model = nn.Sequential(nn.Embedding(16, 4), nn.Flatten(), nn.Linear(32, 4)).eval()
        images = (images[:, 0, :, 0] * 15).long()
    guard = Guard.fit(model, (images, labels), score="msp", keep=0.8, dtype="bfloat16" if way == "narrow" else None)
    with shapes_unchecked(), pytest.raises(CaveatError, match=message) as caught:
        guard.export(tmp_path / "guard.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_tokens_are_exported_with_an_example(tmp_path):
    images, labels = known(200)
    tokens = (images[:, 0, :, 0] * 15).long()
    model = nn.Sequential(nn.Embedding(16, 4), nn.Flatten(), nn.Linear(32, 4)).eval()
    guard = Guard.fit(model, (tokens, labels), score="entropy", keep=0.8)
    with shapes_unchecked(), pytest.raises(DataError, match="example: expected"):
        guard.export(tmp_path / "guard.onnx", example=(tokens, tokens))
    with shapes_unchecked():
        guard.export(tmp_path / "guard.onnx", example=tokens[:1])
    fresh = (known(100, seed=8)[0][:, 0, :, 0] * 15).long()
    check_equal(answers(session_of(tmp_path / "guard.onnx"), fresh), guard(fresh))


def test_it_says_which_package_is_missing(place, monkeypatch):
    monkeypatch.setattr(onnx_file, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(CaveatError, match=r"needs the package 'no_such_package': .*caveat\[export\]"):
        onnx_file.check_output("-o", place / "guard.onnx")


NUMBERS = st.lists(st.integers(-4, 4).map(float), min_size=0, max_size=9)


@given(NUMBERS, NUMBERS, st.booleans())
def test_the_unrolled_search_finds_the_place(sequence, values, right):
    ordered = torch.tensor(sequence, dtype=torch.float64).sort().values
    asked = torch.tensor([*values, 0.5, -torch.inf, torch.inf], dtype=torch.float64)
    found = plain_operations.searchsorted(ordered, asked, right=right)
    assert torch.equal(found, torch.searchsorted(ordered, asked, right=right))
    rows = torch.stack([ordered, ordered - 1])
    both = plain_operations.searchsorted(rows, torch.stack([asked, asked]), right=right)
    assert torch.equal(both, torch.searchsorted(rows, torch.stack([asked, asked]), right=right))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["log1p", "expm1"])
def test_small_numbers_keep_their_digits(name, dtype):
    exponents = torch.linspace(-300 if dtype == torch.float64 else -37, 1.8, 400, dtype=torch.float64)
    values = torch.cat([10**exponents, -(10 ** exponents.clamp_max(-0.01)), torch.tensor([0.0, torch.inf])]).to(dtype)
    found, wanted = (getattr(home, name)(values) for home in (plain_operations, torch))
    torch.testing.assert_close(found, wanted, rtol=4 * torch.finfo(dtype).eps, atol=0)
