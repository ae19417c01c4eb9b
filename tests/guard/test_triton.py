"""The folder of a model repository of Triton: what its config says is what the graph takes and gives."""

from pathlib import Path

import pytest

from caveat.errors import OptionError
from caveat.guard import triton

onnx = pytest.importorskip("onnx")

CONFIG = """# written by Caveat
name: "my guard"
backend: "onnxruntime"
max_batch_size: 256
input [
  { name: "inputs" data_type: TYPE_FP32 dims: [ 1, 28, -1 ] }
]
output [
  { name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }
]
output [
  { name: "probabilities" data_type: TYPE_FP64 dims: [ 3 ] }
]
dynamic_batching { }
"""


def graph(path: Path) -> Path:
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["n", 1, 28, "w"]),
        helper.make_tensor_value_info("threshold", TensorProto.DOUBLE, []),
    ]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, ["n", 3]),
    ]
    default = helper.make_tensor("threshold", TensorProto.DOUBLE, [], [0.5])
    made = helper.make_model(helper.make_graph([], "guard", inputs, outputs, [default]))
    path.write_bytes(made.SerializeToString())
    return path


def test_the_config_tells_what_the_graph_takes_and_gives(tmp_path: Path) -> None:
    source = graph(tmp_path / "my guard.onnx")
    triton.write(source, tmp_path / "models")
    place = triton.write(source, tmp_path / "models")  # it replaces its own
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == ["1", "1/model.onnx", "config.pbtxt"]
    assert (place / "config.pbtxt").read_text() == CONFIG
    assert (place / "1" / "model.onnx").read_bytes() == source.read_bytes()


def test_another_model_is_not_replaced(tmp_path: Path) -> None:
    source, other = graph(tmp_path / "g.onnx"), tmp_path / "models" / "g" / "config.pbtxt"
    other.parent.mkdir(parents=True)
    other.write_text('name: "g"')
    with pytest.raises(OptionError, match=r"--triton: .*g is not of Caveat and would be replaced"):
        triton.write(source, tmp_path / "models")
    assert [path.name for path in other.parent.iterdir()] == ["config.pbtxt"]
    with pytest.raises(OptionError, match="is a file; expected the folder"):
        triton.write(source, source)
