"""What a caller sees of the runtime process in good times: models, weights, outputs, the runtime's own graph."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from runner_models import affine, dense, from_text, save

from irc.errors import RunnerError
from irc.runner import Runner


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(threads=1) as runner:
        yield runner


def files(runner: Runner) -> list[str]:
    return sorted(path.name for path in runner.process.folder.iterdir())


def test_a_model_in_memory_and_its_file_give_what_onnxruntime_gives(runner: Runner, tmp_path: Path) -> None:
    model = dense()
    path = save(model, tmp_path / "dense.onnx")
    feed = {"x": np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)}
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    expected = ort.InferenceSession(path, options).run(None, feed)[0]
    for source in (model, path, str(path)):
        with runner.open(source) as opened:
            assert np.array_equal(opened.run(feed)["y"], expected)


def test_metadata(runner: Runner) -> None:
    opened = runner.open(dense())
    assert [(v.name, v.type, v.shape) for v in opened.inputs] == [("x", "tensor(float)", ("batch", 64))]
    assert [v.name for v in opened.outputs] == ["y"]


def test_chosen_and_extra_outputs(runner: Runner) -> None:
    model = affine()
    opened = runner.open(model, optimization="none", extra_outputs=["h"])
    feed = {"x": np.float32([1, 2])}
    assert sorted(opened.run(feed)) == ["h", "y"]
    assert list(opened.run(feed, ["h"])) == ["h"]
    assert opened.run(feed)["h"].tolist() == [2, 4]
    assert [value.name for value in model.graph.outputs] == ["y"], "the model was changed"


def test_extra_outputs_of_a_file_are_refused(runner: Runner, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="in-memory"):
        runner.open(save(affine(), tmp_path / "a.onnx"), extra_outputs=["h"])


@pytest.mark.parametrize("level", ["none", "basic", "extended", "all"])
def test_optimization_levels(runner: Runner, level: str) -> None:
    assert runner.open(affine(), optimization=level).run({"x": np.float32([1])})["y"].tolist() == [3]


def test_feeds_larger_than_any_pipe_buffer_in_both_directions(runner: Runner) -> None:
    x = np.arange(20_000_000, dtype=np.float32)
    assert np.array_equal(runner.open(affine()).run({"x": x})["y"], x * 2 + 1)


def test_strings_sequences_maps_and_missing_optionals(runner: Runner) -> None:
    sequence = from_text(
        """<ir_version: 10, opset_import: ["" : 20]> s (float[n] x, string[k] t) => (seq(float[n]) l, string[k] u) {
            y = Neg(x)
            l = SequenceConstruct(x, y)
            u = Identity(t)
        }"""
    )
    found = runner.open(sequence).run({"x": np.float32([1]), "t": np.array(["a", "b"], dtype=object)})
    assert [array.tolist() for array in found["l"]] == [[1], [-1]]
    assert found["u"].tolist() == ["a", "b"]


def test_refusals_are_one_line_without_the_runtimes_source_paths(runner: Runner, tmp_path: Path) -> None:
    opened = runner.open(affine())
    with pytest.raises(RunnerError, match=r"expected: \(tensor\(float\)\)") as wrong_type:
        opened.run({"x": np.float64([1])})
    with pytest.raises(RunnerError, match=r"\bx\b") as missing:
        opened.run({})
    unknown = from_text(
        '<ir_version: 10, opset_import: ["" : 20, "my.ops": 1]> g (float[n] x) => (float[n] y) { y = my.ops.Foo(x) }'
    )
    with pytest.raises(RunnerError, match="Foo") as custom:
        runner.open(unknown)
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"not a model")
    with pytest.raises(RunnerError) as broken:
        runner.open(garbage)
    for error in (wrong_type.value, missing.value, custom.value, broken.value):
        assert not error.crashed
        assert "\n" not in str(error) and "onnxruntime_src" not in str(error) and "[ONNXRuntimeError]" not in str(error)
    assert opened.run({"x": np.float32([1])})["y"].tolist() == [3], "a refusal must not cost the process"


def test_a_missing_file_is_refused_without_asking(runner: Runner, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="there is no model file"):
        runner.open(tmp_path / "none.onnx")


def test_a_closed_model_is_refused(runner: Runner) -> None:
    opened = runner.open(affine())
    opened.close()
    opened.close()
    with pytest.raises(RunnerError, match="closed"):
        opened.run({"x": np.float32([1])})
    with pytest.raises(RunnerError, match="closed"):
        opened.runtime_graph()


def test_external_weights_are_mapped_not_sent(runner: Runner, tmp_path: Path) -> None:
    ir.save(dense(256), tmp_path / "m.onnx", external_data="m.data")
    model = ir.load(tmp_path / "m.onnx")
    portable, spilled = runner.portable(model)
    assert not spilled
    assert len(portable.proto) < 10_000
    assert {weight.path for weight in portable.weights.values()} == {str(tmp_path / "m.data")}
    feed = {"x": np.ones((1, 256), np.float32)}
    assert np.array_equal(runner.open(model).run(feed)["y"], runner.open(dense(256)).run(feed)["y"])


def test_large_weights_are_spilled_once_for_all_copies_and_removed_with_the_last(runner: Runner) -> None:
    gc.collect()
    before = files(runner)
    model = from_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[1,1000] x) => (float[1,1000] y) { y = MatMul(x, w) }'
    )
    array = np.ones((1000, 1000), np.float32)
    calls = []

    def make() -> ir.Tensor:
        calls.append(1)
        return ir.Tensor(array)

    lazy = ir.LazyTensor(make, dtype=ir.DataType.FLOAT, shape=ir.Shape(array.shape), name="w")
    value = ir.Value(name="w", const_value=lazy, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT))
    model.graph.register_initializer(value)
    model.graph[0].replace_input_with(1, value)
    first, second = runner.open(model), runner.open(model.clone())
    assert len(files(runner)) == len(before) + 1
    assert len(calls) == 1
    assert second.run({"x": np.ones((1, 1000), np.float32)})["y"][0, 0] == 1000
    first.close()
    assert len(files(runner)) == len(before) + 1
    second.close()
    del model, value, lazy, first, second
    gc.collect()
    assert files(runner) == before


def test_the_runtimes_own_graph_shows_fusion_and_subgraphs(runner: Runner, tmp_path: Path) -> None:
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 20]> g (float[2,8] x, bool c) => (float[2,8] y) {
            t = If (c) <then_branch = a () => (float[2,8] u) { n = Neg(x)
                u = Abs(n) }, else_branch = b () => (float[2,8] v) { v = Cos(x) }>
            m = MatMul(t, w)
            s = Add(m, b)
            y = Relu(s)
        }""",
        w=np.ones((8, 8), np.float32),
        b=np.ones(8, np.float32),
    )
    path = save(model, tmp_path / "m.onnx")
    for nodes in (runner.runtime_graph(path), runner.runtime_graph(model), runner.open(model).runtime_graph()):
        kinds = [node.op_type for node in nodes]
        assert {"If", "Abs", "Cos"} <= set(kinds)
        assert "Gemm" in kinds or "FusedGemm" in kinds
        assert any("y" in node.outputs for node in nodes)
    assert not any(path.is_dir() for path in runner.process.folder.iterdir()), "files of the runtime were left"


def test_compare_reports_figures_per_output(runner: Runner) -> None:
    feeds = [{"x": np.float32([1, 2])}, {"x": np.float32([3, np.nan, -3])}]
    (same,) = runner.compare(runner.open(affine()), runner.open(affine()), feeds)
    assert (same.name, same.error, same.differing, same.elements, same.message) == ("y", 0.0, 0, 5, "")
    assert same.sqnr_db == float("inf")
    (other,) = runner.compare(runner.open(affine()), runner.open(affine(2.5)), feeds)
    assert other.max_error == pytest.approx(1.5)
    assert other.differing == 4
    assert other.error == pytest.approx(0.25 + 1 + 2.25 + 2.25)
    assert other.signal == pytest.approx(9 + 25 + 49 + 25)


def test_compare_says_what_is_not_comparable(runner: Runner) -> None:
    cut = from_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[n] x) => (float[m] y) <int64[1] z = {0}, int64[1] o = {1}> { y = Slice(x, z, o) }'
    )
    (found,) = runner.compare(runner.open(affine()), runner.open(cut), [{"x": np.float32([1, 2])}])
    assert found.message == "shape [2] against [1]"
