"""Models on their way to the runtime process compute what their files do, wherever their weights are."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from ir_graphs import branch_proto, linear_proto, model_proto, run_reference, write_external
from onnx import helper, numpy_helper

from irc.errors import RunnerError
from irc.ir import load, normalize, save
from irc.runner.portable import FileSlice, WeightStore
from irc.runner.session import open_session

X = {"x": np.random.default_rng(5).normal(size=(2, 64)).astype(np.float32)}


def run(model: ir.Model, feed: dict[str, np.ndarray], folder: Path) -> np.ndarray:
    """The first output of a model that crossed as a pickle, as it does to the runtime process."""
    portable, kept = WeightStore(folder).portable(model, ())
    result = open_session(pickle.loads(pickle.dumps(portable)), optimization="none").run(feed)
    assert kept is not None
    return next(iter(result.values()))


def lazily(model: ir.Model) -> ir.Model:
    """The same with every weight evaluated when it is needed."""
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None
        value.const_value = ir.LazyTensor(
            lambda tensor=tensor: tensor, dtype=tensor.dtype, shape=ir.Shape(tensor.shape), name=name
        )
    return model


def test_small_weights_cross_by_value_and_leave_no_file(tmp_path: Path) -> None:
    for model in (normalize(linear_proto()), lazily(normalize(linear_proto()))):
        np.testing.assert_array_equal(run(model, X, tmp_path), run_reference(linear_proto(), X)[0])
    assert list(tmp_path.iterdir()) == []


def test_external_weights_stay_in_their_file(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    portable, kept = WeightStore(tmp_path).portable(load(path), ())
    assert portable.weights == {"w": FileSlice(str(tmp_path / "w.bin"), 0, "float32", (64, 32))} and not kept
    np.testing.assert_array_equal(run(load(path), X, tmp_path), run_reference(path, X)[0])


def test_a_weight_at_an_odd_offset_of_a_file(tmp_path: Path) -> None:
    model = load(write_external(tmp_path))
    want = run(model, X, tmp_path)
    (tmp_path / "odd.bin").write_bytes(b"odd" + (tmp_path / "w.bin").read_bytes())
    model.graph.initializers["w"].const_value = ir.ExternalTensor(
        "odd.bin", 3, 8192, ir.DataType.FLOAT, shape=ir.Shape([64, 32]), name="w", base_dir=str(tmp_path)
    )
    np.testing.assert_array_equal(run(model, X, tmp_path), want)


@pytest.mark.parametrize("rows", [3, 3000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint16", "int64", "bool"])
def test_every_numpy_type_and_empty_ones(tmp_path: Path, dtype: str, rows: int) -> None:
    array = np.ones((rows, 700), dtype)
    to = helper.np_dtype_to_tensor_dtype(np.dtype("float32"))
    nodes = [helper.make_node("Cast", ["w"], ["c"], to=to), helper.make_node("Mul", ["c", "x"], ["y"])]
    model = normalize(model_proto(nodes, {"x": [700]}, {"y": [rows, 700]}, {"w": array, "e": np.zeros((0, 4), dtype)}))
    got = run(model, {"x": np.ones(700, np.float32)}, tmp_path)
    np.testing.assert_array_equal(got, np.ones((rows, 700), np.float32))


def test_weights_of_bodies_wherever_they_are(tmp_path: Path) -> None:
    save(normalize(branch_proto()), tmp_path / "m.onnx", external_threshold=0)
    x = np.ones((4, 300), np.float32)
    for model in (normalize(branch_proto()), load(tmp_path / "m.onnx")):
        np.testing.assert_array_equal(run(model, {"cond": np.array(True), "x": x}, tmp_path), x * 3)


def test_overridable_weights_stay_overridable(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    weights = {"w": np.ones(400, np.float32)}
    model = normalize(model_proto(nodes, {"x": [400], "w": [400]}, {"y": [400]}, weights))
    x = np.full(400, 3, np.float32)
    np.testing.assert_array_equal(run(model, {"x": x}, tmp_path), x)
    np.testing.assert_array_equal(run(model, {"x": x, "w": x}, tmp_path), x * x)


def test_no_room_for_large_weights(tmp_path: Path) -> None:
    weights = {"w": np.ones((512, 1024), np.float32)}
    model = normalize(model_proto([helper.make_node("Mul", ["x", "w"], ["y"])], {"x": [1]}, {"y": None}, weights))
    with pytest.raises(RunnerError, match=r"cannot write 2 MB of weights .*set TMPDIR"):
        WeightStore(tmp_path / "none").portable(model, ())


def test_weights_live_as_long_as_the_session(tmp_path: Path) -> None:
    portable, _ = WeightStore(tmp_path).portable(normalize(linear_proto()), ())
    session = open_session(portable, optimization="none")
    del portable
    gc.collect()
    junk = [np.full((64, 32), 7, np.float32) for _ in range(200)]
    np.testing.assert_array_equal(session.run(X)["y"], run_reference(linear_proto(), X)[0])
    assert junk


def test_weights_that_nothing_reads(tmp_path: Path) -> None:
    proto = linear_proto()
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(4096, np.float32), "dead"))
    np.testing.assert_array_equal(run(normalize(proto), X, tmp_path), run_reference(linear_proto(), X)[0])
