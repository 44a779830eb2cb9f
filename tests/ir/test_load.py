"""Loading: what is accepted, and that everything else is refused in one line."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from ir_graphs import linear_proto, model_proto, run_reference, write_external
from onnx import helper

from irc.errors import ModelError
from irc.ir import constant, load, provenance, save


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def write(tmp_path: Path, proto: onnx.ModelProto) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_loaded_model_computes_what_the_file_computes(tmp_path: Path) -> None:
    path = write(tmp_path, linear_proto())
    before = path.read_bytes()
    save(load(path), tmp_path / "out.onnx")
    feed = {"x": np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)}
    np.testing.assert_array_equal(run_reference(path, feed)[0], run_reference(tmp_path / "out.onnx", feed)[0])
    assert path.read_bytes() == before


def test_missing_file(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "none.onnx")


def test_directory(tmp_path: Path) -> None:
    assert "is a directory; give the .onnx file in it" in refusal(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.touch()
    assert "is empty" in refusal(path)


def test_fifo_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    os.mkfifo(path)
    assert "not a regular file" in refusal(path)


def test_name_too_long_for_the_file_system(tmp_path: Path) -> None:
    refusal(tmp_path / ("x" * 300 + ".onnx"))


def test_file_beyond_the_limit_of_protobuf_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)
    assert "2 GiB" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + b"\0" * 64, "zip archive"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"hello world, this is no model", "not an ONNX model"),
        (b"\n", "not an ONNX model"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert said in refusal(path)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_refused_or_valid_never_a_crash(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    content = bytearray(linear_proto().SerializeToString())
    if seed % 2:
        del content[rng.randrange(1, len(content) - 1) :]
    else:
        for _ in range(30):
            content[rng.randrange(len(content))] = rng.randrange(256)
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    try:
        load(path)
    except ModelError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("seed", range(10))
def test_random_bytes(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(random.Random(seed).randbytes(500))
    refusal(path)


def test_truncated_anywhere_in_the_weights(tmp_path: Path) -> None:
    content = linear_proto().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(content[: len(content) // 2])
    assert "truncated" in refusal(path)


def test_cyclic_graph(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    assert "cycle" in refusal(write(tmp_path, model_proto(nodes, {"x": [2]}, {"b": [2]})))


def test_unsorted_graph_is_sorted(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Neg", ["x"], ["a"])]
    model = load(write(tmp_path, model_proto(nodes, {"x": [2]}, {"y": [2]})))
    assert [node.op_type for node in model.graph] == ["Neg", "Relu"]


@pytest.mark.parametrize("opset", [0, -1, 999])
def test_unknown_opset(tmp_path: Path, opset: int) -> None:
    proto = linear_proto()
    proto.opset_import[0].version = opset
    assert f"opset {opset} is not known" in refusal(write(tmp_path, proto))


def test_no_opset_and_two_opsets(tmp_path: Path) -> None:
    proto = linear_proto()
    proto.opset_import.add(domain="ai.onnx", version=18)
    assert "imported as 17 and 18" in refusal(write(tmp_path, proto))
    del proto.opset_import[:]
    assert "names no opset" in refusal(write(tmp_path, proto))


def test_operator_newer_than_the_opset(tmp_path: Path) -> None:
    nodes = [helper.make_node("LayerNormalization", ["x", "s"], ["y"])]
    proto = model_proto(nodes, {"x": [2, 4]}, {"y": [2, 4]}, {"s": np.ones(4, np.float32)}, opset=13)
    assert "LayerNormalization" in refusal(write(tmp_path, proto))


def test_ir_version_of_the_future(tmp_path: Path) -> None:
    proto = linear_proto()
    proto.ir_version = 99
    assert "IR version 99" in refusal(write(tmp_path, proto))


def test_use_of_a_value_that_nothing_defines(tmp_path: Path) -> None:
    proto = model_proto([helper.make_node("Add", ["x", "ghost"], ["y"])], {"x": [2]}, {"y": [2]})
    assert "'ghost'" in refusal(write(tmp_path, proto))


def test_output_that_nothing_computes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    proto = model_proto([helper.make_node("Relu", ["x"], ["t"])], {"x": [2]}, {"y": [2]})
    assert "'y'" in refusal(write(tmp_path, proto))


def test_no_outputs(tmp_path: Path) -> None:
    assert "no outputs" in refusal(
        write(tmp_path, model_proto([helper.make_node("Relu", ["x"], ["t"])], {"x": [2]}, {}))
    )


def test_weight_whose_bytes_do_not_fit_its_shape(tmp_path: Path) -> None:
    proto = linear_proto()
    proto.graph.initializer[0].dims[0] = 65
    assert "'w' has 8192 bytes" in refusal(write(tmp_path, proto))
    proto.graph.initializer[0].dims[0] = -64
    assert "impossible" in refusal(write(tmp_path, proto))


def test_weight_of_unknown_type(tmp_path: Path) -> None:
    proto = linear_proto()
    proto.graph.initializer[0].data_type = 120
    refusal(write(tmp_path, proto))


def test_typed_data_that_is_too_short(tmp_path: Path) -> None:
    proto = linear_proto()
    weight = proto.graph.initializer[1]
    weight.ClearField("raw_data")
    weight.float_data.extend([1.0] * 5)
    assert "'b'" in refusal(write(tmp_path, proto))


def test_sparse_initializer_and_training_info_are_not_dropped_in_silence(tmp_path: Path) -> None:
    proto = linear_proto()
    values = helper.make_tensor("sp", onnx.TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    assert "sparse initializer ('sp')" in refusal(write(tmp_path, proto))
    del proto.graph.sparse_initializer[:]
    proto.training_info.add()
    assert "training information" in refusal(write(tmp_path, proto))


def test_sparse_constant(tmp_path: Path) -> None:
    values = helper.make_tensor("v", onnx.TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0])
    node = helper.make_node("Constant", [], ["c"], sparse_value=helper.make_sparse_tensor(values, indices, [2]))
    proto = model_proto([node, helper.make_node("Relu", ["c"], ["y"])], {}, {"y": [2]})
    assert "sparse" in refusal(write(tmp_path, proto))


def test_custom_and_unknown_operators_pass_through(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mystery", ["x"], ["a"], domain="acme", power=3),
        helper.make_node("NotAnOnnxOperator", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    path = write(tmp_path, model_proto(nodes, {"x": [2]}, {"y": [2]}, domains={"acme": 1}))
    save(load(path), tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    assert [n.op_type for n in written.graph.node] == ["Mystery", "NotAnOnnxOperator", "Relu"]
    assert written.graph.node[0].attribute[0].i == 3
    assert {o.domain: o.version for o in written.opset_import} == {"": 17, "acme": 1}


@pytest.mark.parametrize("opset", [7, 11, 13, 21])
def test_the_opset_is_kept(tmp_path: Path, opset: int) -> None:
    proto = model_proto([helper.make_node("Relu", ["x"], ["y"])], {"x": [2]}, {"y": [2]}, opset=opset)
    save(load(write(tmp_path, proto)), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx").opset_import[0].version == opset


def test_initializers_of_ir_version_3_are_constants_not_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    proto = model_proto(nodes, {"x": [2], "w": [2]}, {"y": [2]}, {"w": np.ones(2, np.float32)}, opset=8, ir_version=3)
    model = load(write(tmp_path, proto))
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert constant(model.graph.initializers["w"]) is not None


def test_negative_dimension_means_unknown(tmp_path: Path) -> None:
    proto = model_proto([helper.make_node("Relu", ["x"], ["y"])], {"x": [-1, 2]}, {"y": [-1, 2]})
    shape = load(write(tmp_path, proto)).graph.inputs[0].shape
    assert shape is not None
    assert shape[1] == 2
    assert shape[0].value is None  # type: ignore[union-attr]


def test_zero_length_weights_and_dims(tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["x", "w"], ["y"], axis=0)]
    proto = model_proto(nodes, {"x": [0, 2]}, {"y": [0, 2]}, {"w": np.zeros((0, 2), np.float32)})
    save(load(write(tmp_path, proto)), tmp_path / "out.onnx")
    assert run_reference(tmp_path / "out.onnx", {"x": np.zeros((0, 2), np.float32)})[0].shape == (0, 2)


def test_relative_path_survives_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_external(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    model = load("m.onnx")
    monkeypatch.chdir(elsewhere)
    weight = constant(model.graph.initializers["w"])
    assert weight is not None
    assert weight.sum() == 64 * 16


def test_provenance_names_the_files(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    origin = provenance(load(path))
    assert origin.files == (path, tmp_path / "w.bin")
    assert origin.external
