"""Sessions without serialized weights: the same numbers as the file, nothing copied, nothing changed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ir_graphs import branch_proto, linear_proto, model_proto, run_reference, write_external
from onnx import helper

from irc.errors import ModelError, OutputError
from irc.ir import ExternalSlice, Skeleton, load, normalize, open_session, save, skeleton

X = {"x": np.random.default_rng(5).normal(size=(2, 64)).astype(np.float32)}


def run(split: Skeleton, feed: dict[str, np.ndarray], **options: object) -> list[np.ndarray]:
    return open_session(split, optimization="none", **options).run(None, feed)  # type: ignore[arg-type]


def test_the_numbers_of_the_saved_file(tmp_path: Path) -> None:
    model = normalize(linear_proto())
    split = skeleton(model)
    assert list(split.weights) == ["w"]
    assert len(split.proto) < 1000
    np.testing.assert_array_equal(run(split, X)[0], run_reference(linear_proto(), X)[0])


def test_inline_weights_are_shared_not_copied() -> None:
    model = normalize(linear_proto())
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    assert np.shares_memory(skeleton(model).weights["w"], tensor.numpy())


def test_external_weights_are_slices_of_their_file(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    model = load(path)
    split = skeleton(model)
    assert split.weights == {"w": ExternalSlice(str(tmp_path / "w.bin"), 0, 8192, "float32", (64, 32))}
    np.testing.assert_array_equal(run(split, X)[0], run_reference(path, X)[0])
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    assert tensor.raw is None, "the compiler did not map the file"  # type: ignore[attr-defined]


def test_a_slice_at_an_odd_offset(tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(b"odd" + values.tobytes())
    part = ExternalSlice(str(tmp_path / "w.bin"), 3, values.nbytes, "float32", (20, 30))
    np.testing.assert_array_equal(part.array(), values.reshape(20, 30))
    assert not part.array().flags.writeable


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint16", "int64", "bool"])
def test_every_numpy_type_and_empty_ones(tmp_path: Path, dtype: str) -> None:
    array = np.ones((3, 700), dtype)
    to = helper.np_dtype_to_tensor_dtype(np.dtype("float32"))
    nodes = [helper.make_node("Cast", ["w"], ["c"], to=to), helper.make_node("Mul", ["c", "x"], ["y"])]
    model = normalize(model_proto(nodes, {"x": [700]}, {"y": [3, 700]}, {"w": array, "e": np.zeros((0, 4), dtype)}))
    split = skeleton(model).spill(tmp_path)
    got = open_session(split, optimization="none").run(None, {"x": np.ones(700, np.float32)})[0]
    np.testing.assert_array_equal(got, np.ones((3, 700), np.float32))


def test_bodies_and_packed_types_stay_inside(tmp_path: Path) -> None:
    model = normalize(branch_proto())
    split = skeleton(model)
    assert split.weights == {}
    x = np.ones((4, 300), np.float32)
    np.testing.assert_array_equal(run(split, {"cond": np.array(True), "x": x})[0], x * 3)


def test_external_weights_of_bodies_are_brought_in(tmp_path: Path) -> None:
    save(normalize(branch_proto()), tmp_path / "m.onnx", external_threshold=0)
    x = np.ones((4, 300), np.float32)
    split = skeleton(load(tmp_path / "m.onnx"))
    np.testing.assert_array_equal(run(split, {"cond": np.array(True), "x": x})[0], x * 3)


def test_overridable_weights_stay_overridable() -> None:
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    weights = {"w": np.ones(400, np.float32)}
    model = normalize(model_proto(nodes, {"x": [400], "w": [400]}, {"y": [400]}, weights))
    x = np.full(400, 3, np.float32)
    np.testing.assert_array_equal(run(skeleton(model), {"x": x})[0], x)
    np.testing.assert_array_equal(run(skeleton(model), {"x": x, "w": x})[0], x * x)


def test_extra_outputs(tmp_path: Path) -> None:
    model = normalize(linear_proto())
    split = skeleton(model, extra_outputs=["p", "y", "s", "p"])
    session = open_session(split, optimization="none")
    y, _, s = session.run(None, X)
    assert [o.name for o in session.session.get_outputs()] == ["y", "p", "s"]
    np.testing.assert_array_equal(np.maximum(s, 0), y)
    assert [o.name for o in model.graph.outputs] == ["y"]


def test_extra_outputs_do_not_depend_on_stale_shapes() -> None:
    model = normalize(linear_proto())
    model.graph[0].outputs[0].shape = ir.Shape([1, 999])
    model.graph[0].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    assert skeleton(model, extra_outputs=["p"]).proto


@pytest.mark.parametrize("name", ["nowhere", "m"])
def test_extra_output_that_is_not_in_the_main_graph(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be observed"):
        skeleton(normalize(branch_proto()), extra_outputs=[name])


def test_the_model_is_unchanged() -> None:
    for proto in (linear_proto(), branch_proto()):
        model = normalize(proto)
        before = ir.to_proto(model).SerializeToString()
        skeleton(model, extra_outputs=["t"] if "If" in str(proto.graph.node) else ["p"])
        assert ir.to_proto(model).SerializeToString() == before


def lazy_model(count: int = 3) -> ir.Model:
    weights = {f"w{i}": np.full((512, 1024), i, np.float32) for i in range(count)}
    nodes = [helper.make_node("Mul", [f"h{i}", f"w{i}"], [f"h{i + 1}"]) for i in range(count)]
    model = normalize(model_proto(nodes, {"h0": [512, 1024]}, {f"h{count}": [512, 1024]}, weights))
    for name, value in model.graph.initializers.items():
        array = weights[name] + 1
        value.const_value = ir.LazyTensor(
            lambda array=array: ir.tensor(array), dtype=ir.DataType.FLOAT, shape=ir.Shape(array.shape), name=name
        )
    return model


def test_spilling_makes_it_small_and_picklable(tmp_path: Path) -> None:
    split = skeleton(lazy_model()).spill(tmp_path)
    assert all(isinstance(weight, ExternalSlice) for weight in split.weights.values())
    packed = pickle.dumps(split)
    assert len(packed) < 5000
    got = run(pickle.loads(packed), {"h0": np.ones((512, 1024), np.float32)})[0]
    np.testing.assert_array_equal(got, np.full((512, 1024), 6, np.float32))


def test_two_spills_in_one_folder_do_not_collide(tmp_path: Path) -> None:
    first = skeleton(lazy_model(2)).spill(tmp_path)
    second = skeleton(lazy_model(3)).spill(tmp_path)
    one = {"h0": np.ones((512, 1024), np.float32)}
    assert run(first, one)[0][0, 0] == 2
    assert run(second, one)[0][0, 0] == 6


def test_small_lazy_weights_become_arrays(tmp_path: Path) -> None:
    model = normalize(linear_proto())
    old = model.graph.initializers["w"].const_value
    assert old is not None
    model.graph.initializers["w"].const_value = ir.LazyTensor(
        lambda: old, dtype=old.dtype, shape=ir.Shape(old.shape), name="w"
    )
    split = skeleton(model).spill(tmp_path)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(run(pickle.loads(pickle.dumps(split)), X)[0], run_reference(linear_proto(), X)[0])


def test_no_room_for_spilling(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="set TMPDIR elsewhere"):
        skeleton(lazy_model()).spill(tmp_path / "none")


def test_session_options(tmp_path: Path) -> None:
    split = skeleton(normalize(linear_proto()))
    session = open_session(split, optimization="all", threads=1, optimized_model_path=tmp_path / "optimized.onnx")
    assert session.session.get_session_options().intra_op_num_threads == 1
    assert [n.op_type for n in onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node] != []
    np.testing.assert_allclose(session.run(["y"], X)[0], run_reference(linear_proto(), X)[0], rtol=1e-5)


def test_weights_live_as_long_as_the_session() -> None:
    import gc

    model = normalize(linear_proto())
    session = open_session(skeleton(model), optimization="none")
    del model
    gc.collect()
    junk = [np.full((64, 32), 7, np.float32) for _ in range(200)]
    np.testing.assert_array_equal(session.run(None, X)[0], run_reference(linear_proto(), X)[0])
    assert junk
