"""A file does not say what irc made up: invented names and inferred types; what it said when it came, it still says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from irc.ir import load, normalize, refresh_shapes, save, size_on_disk, snapshot

HEAD = '<ir_version: 8, opset_import: ["" : 17, "my" : 1]>'


def proto(nodes: str, declared: str = "") -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEAD} g (float[n,4] x) => (float[n,4] y) <{declared}> {{ {nodes} }}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w"))
    return model


def written(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Loaded, shapes inferred, saved."""
    (folder / "in.onnx").write_bytes(model.SerializeToString())
    read = load(folder / "in.onnx")
    refresh_shapes(read)
    assert all(node.name for node in read.graph)
    save(snapshot(read), folder / "out.onnx")
    assert abs(size_on_disk(read) - (folder / "out.onnx").stat().st_size) <= 16
    return onnx.load(folder / "out.onnx")


BODY = """y = If (c) <then_branch = t () => (float[n,4] p) { q = Neg(b)  p = Abs(q) },
    else_branch = e () => (float[n,4] r) { r = Neg(b) }>"""


@pytest.mark.parametrize(
    "nodes", ["a = MatMul(x, w)  b = Relu(a)  y = Neg(b)", f"b = MatMul(x, w)  {BODY.replace('(c)', '(k)')}"]
)
def test_saving_does_not_make_a_model_larger(nodes: str, tmp_path: Path) -> None:
    model = proto(nodes)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "k"))
    saved = written(model, tmp_path)
    assert saved.ByteSize() <= model.ByteSize()
    assert not saved.graph.value_info and not any(node.name for node in saved.graph.node)
    onnx.checker.check_model(saved, full_check=True)


def test_declared_types_and_given_names_stay(tmp_path: Path) -> None:
    model = proto("a = MatMul(x, w)  b = Relu(a)  y = Neg(b)", declared="float[n,4] b")
    model.graph.node[1].name = "b"
    saved = written(model, tmp_path)
    assert [info.name for info in saved.graph.value_info] == ["b"]
    assert [node.name for node in saved.graph.node] == ["", "b", ""]


def test_what_an_unknown_operator_makes_keeps_its_type(tmp_path: Path) -> None:
    model = proto("a = my.Mystery(x)  b = Relu(a)  y = Neg(b)", declared="float[n,4] a")
    assert [info.name for info in written(model, tmp_path).graph.value_info] == ["a"]


def test_a_normalized_copy_remembers_what_was_declared(tmp_path: Path) -> None:
    model = normalize(proto("a = MatMul(x, w)  b = Relu(a)  y = Neg(b)", declared="float[n,4] b"))
    refresh_shapes(model)
    save(normalize(model), tmp_path / "m.onnx")
    saved = onnx.load(tmp_path / "m.onnx")
    assert [info.name for info in saved.graph.value_info] == ["b"] and not any(node.name for node in saved.graph.node)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16, np.uint16])
@pytest.mark.parametrize("values", [[0, 1, 300], [-1, 2], [-1, -1], []])
def test_small_integers_are_written_in_as_few_bytes_as_they_need(
    dtype: type, values: list[int], tmp_path: Path
) -> None:
    array = np.array(values).astype(dtype)
    code = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    kind = onnx.TensorProto.DataType.Name(code).lower()
    model = onnx.parser.parse_model(f"{HEAD} g ({kind}[n] x) => ({kind}[m] y) {{ y = Concat<axis=0>(x, w, w) }}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, "w"))
    saved = written(model, tmp_path)
    (tensor,) = saved.graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), array)
    assert tensor.ByteSize() <= model.graph.initializer[0].ByteSize()
    if dtype is np.int64 and values == [0, 1, 300]:
        assert tensor.ByteSize() == model.graph.initializer[0].ByteSize() - 20


def test_large_integer_tensors_stay_raw(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(f"{HEAD} g (int64[n] x) => (int64[m] y) {{ y = Concat<axis=0>(x, w) }}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1025, np.int64), "w"))
    assert written(model, tmp_path).graph.initializer[0].raw_data


def test_shapes_that_a_body_did_not_declare_are_not_written(tmp_path: Path) -> None:
    model = proto(f"b = MatMul(x, w)  {BODY.replace('(c)', '(k)')}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "k"))
    (branch, other) = (attribute.g for attribute in model.graph.node[1].attribute)
    branch.output[0].type.tensor_type.ClearField("shape")
    saved = written(model, tmp_path)
    (first, second) = (attribute.g for attribute in saved.graph.node[1].attribute)
    assert not first.output[0].type.tensor_type.HasField("shape") and second.output[0] == other.output[0]
    assert saved.ByteSize() <= model.ByteSize()
    onnx.checker.check_model(saved, full_check=True)
