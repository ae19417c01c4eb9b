"""A guard as a model of MLflow: what its folder says, what its loader refuses, and that this loader needs no Caveat."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caveat.errors import DataError, OptionError
from caveat.guard import mlflow, portable

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
guard (float[n, SHAPE] inputs, double threshold) => (
    int64[n] label, int64[n] predicted, double[n, 3] probabilities, double[n] confidence, double[n] score,
    double[n] p_value, bool[n] accepted, double[n] aleatoric
) {
    logits = Flatten <axis = 1> (inputs)
    exact = Cast <to = 11> (logits)
    probabilities = Softmax <axis = 1> (exact)
    confidence = ReduceMax <axes = [1], keepdims = 0> (probabilities)
    predicted = ArgMax <axis = 1, keepdims = 0> (probabilities)
    one = Constant <value = double {1.0}> ()
    none = Constant <value = int64 {-1}> ()
    score = Sub (one, confidence)
    p_value = Identity (confidence)
    aleatoric = Identity (score)
    accepted = LessOrEqual (score, threshold)
    label = Where (accepted, predicted, none)
}
"""
"""Three numbers are the logits; one minus the largest probability is the score."""
INPUTS = np.array([[0, 9, 0], [1, 1, 1], [np.nan, 0, 0]], dtype=np.float32)


def graph(path: Path, *, shape: str = "1, 3", **metadata: object) -> Path:
    """A guard that is written in a second."""
    proto = onnx.parser.parse_model(GRAPH.replace("SHAPE", shape))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.5), "threshold"))
    told = {"classes": ["cat", "dog", "owl"], "columns": None, "largest": 1.0, **metadata}
    texts = {name: json.dumps(value) for name, value in told.items()}
    onnx.helper.set_model_props(proto, {"caveat_version": "0", **texts, portable.SEAL: portable.BLANK})
    data = proto.SerializeToString()
    path.write_bytes(data.replace(portable.BLANK.encode(), portable.sealed(data).encode()))
    return path


def signature(folder: Path, kind: str) -> list[dict[str, object]]:
    line = next(line for line in (folder / "MLmodel").read_text().splitlines() if line.startswith(f"  {kind}: "))
    return json.loads(json.loads(line.partition(": ")[2]))


def test_the_folder_says_what_the_guard_takes_and_gives(tmp_path: Path) -> None:
    folder = mlflow.write(graph(tmp_path / "g.onnx"), tmp_path / "model")
    mlflow.write(tmp_path / "g.onnx", folder)  # it replaces its own
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "MLmodel", "code/caveat_guard.py", "conda.yaml", "guard.onnx", "input_example.json", "python_env.yaml",
        "requirements.txt", "serving_input_example.json",
    ]  # fmt: skip
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 1, 3]}}
    assert signature(folder, "inputs") == [tensor]
    assert np.shape(json.loads((folder / "serving_input_example.json").read_text())["inputs"]) == (1, 1, 3)
    guard = portable._load_pyfunc(str(folder / "guard.onnx"))
    given = {one["name"]: one["type"] for one in signature(folder, "outputs")}
    found = guard.answer(INPUTS[:, None])
    assert list(given) == list(found)
    kinds = {"long": "i", "boolean": "b", "string": "O", "double": "f"}
    assert [kinds[kind] for kind in given.values()] == [array.dtype.kind for array in found.values()]
    assert "torch" not in (folder / "requirements.txt").read_text()


def test_a_table_is_taken_by_the_names_of_its_columns(tmp_path: Path) -> None:
    source = graph(tmp_path / "g.onnx", shape="3", columns=["a", "b", "c"], largest=None)
    folder = mlflow.write(source, tmp_path / "model")
    assert [one["name"] for one in signature(folder, "inputs")] == ["a", "b", "c"]
    assert not (folder / "input_example.json").exists()  # how large its numbers are is not known
    guard, rows = portable._load_pyfunc(str(folder / "guard.onnx")), Table(c=[0, 9], a=[9, 0], b=[0, 0], other=[7, 7])
    assert guard.answer(rows)["predicted_name"].tolist() == ["cat", "owl"]
    with pytest.raises(ValueError, match=r"inputs: the table lacks the column 'b', one of a, b, c"):
        guard.answer(Table(a=[1], c=[1]))
    with pytest.raises(ValueError, match=r"inputs: expected numbers \(float32\), got something else"):
        guard.answer(Table(a=["x"], b=[1], c=[1]))


class Table(dict[str, list[object]]):
    """As much of a DataFrame as the loader asks for: pandas is not one of our packages."""

    columns = property(list)

    def __getitem__(self, names: list[str]) -> np.ndarray:
        return np.array([dict.__getitem__(self, name) for name in names]).T


def test_the_loader_needs_neither_caveat_nor_torch(tmp_path: Path) -> None:
    folder = mlflow.write(graph(tmp_path / "g.onnx"), tmp_path / "model")
    np.save(tmp_path / "inputs.npy", INPUTS[:, None])
    code = (
        "import sys; sys.modules['caveat'] = sys.modules['torch'] = sys.modules['onnx'] = None; import numpy\n"
        f"sys.path.insert(0, {str(folder / 'code')!r}); import caveat_guard\n"
        f"guard = caveat_guard._load_pyfunc({str(folder / 'guard.onnx')!r})\n"
        f"found = guard.answer(numpy.load({str(tmp_path / 'inputs.npy')!r}))\n"
        "print(*found['label'], *found['predicted_name'], *found['reason'], sep=',')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "1,-1,-1,dog,cat,None,accepted,untrusted,invalid input"
    tree = ast.parse((folder / "code" / "caveat_guard.py").read_text())
    imported = {getattr(node, "module", None) or node.names[0].name for node in ast.walk(tree) if is_import(node)}
    assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names == {"numpy", "onnxruntime", "pandas"}


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("altered", "was altered after it was written"),
        ("swapped", "is another guard .* than the one that belongs here"),
        ("removed", "cannot read .*guard.onnx"),
        ("newer", "was exported by Caveat 0 in a form that this code does not read"),
        ("a pickle", "is no guard that  caveat guard export  wrote"),
    ],
)
def test_another_graph_is_refused(way: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = mlflow.write(graph(tmp_path / "g.onnx"), tmp_path / "model")
    place = folder / "guard.onnx"
    config = {"sha256": portable.PortableGuard(place.read_bytes(), place).seal}
    if way == "altered":
        place.write_bytes(place.read_bytes().replace(b"dog", b"dig"))
    if way == "swapped":
        graph(place, classes=["a", "b", "c"])
    if way == "removed":
        place.unlink()
    if way == "a pickle":
        place.write_bytes(b"\x80\x04K\x01.")
    if way == "newer":
        monkeypatch.setitem(portable.OUTPUTS, "classification", portable.OUTPUTS["classification"][1:])
    with pytest.raises(ValueError, match=message) as caught:
        portable._load_pyfunc(str(place), config)
    assert "\n" not in str(caught.value)


def test_inputs_of_another_shape_are_refused(tmp_path: Path) -> None:
    guard = portable._load_pyfunc(str(graph(tmp_path / "g.onnx")))
    for wrong in (INPUTS, INPUTS[:, None, :2]):
        with pytest.raises(ValueError, match=r"inputs: expected shape \(n, 1, 3\), got \(3, "):
            guard.answer(wrong)
    free = portable._load_pyfunc(str(graph(tmp_path / "f.onnx", shape='1, "w"')))
    assert free.shape == (1, -1)
    assert free.answer(INPUTS[:, None])["label"].tolist() == [1, -1, -1]


def test_another_folder_is_not_changed(tmp_path: Path) -> None:
    source, other = graph(tmp_path / "g.onnx"), tmp_path / "model"
    (other / "code").mkdir(parents=True)
    with pytest.raises(OptionError, match=r"--mlflow: .*model is not of Caveat and would be changed"):
        mlflow.write(source, other)
    with pytest.raises(OptionError, match="is a file; expected a folder"):
        mlflow.write(source, source)
    source.write_bytes(b"text")
    with pytest.raises(DataError, match=r"guard: .*g.onnx is no guard"):
        mlflow.write(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert [path.name for path in other.rglob("*")] == ["code"]
