"""The stored models can be relied on: they load, run at two sizes, and their outputs depend on what goes in."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from channel_models import stored
from channel_models.stored import EXTENSION, FOLDER, feeds, load, names

ALL = names()


def session(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_the_collection_is_there():
    assert len(ALL) >= 130
    assert sum(name.startswith("micro_") for name in ALL) == 28


def test_the_readme_lists_what_is_stored():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\w+) \|", text, re.MULTILINE)[1:] == ALL


@pytest.mark.parametrize("name", ALL)
def test_runs_at_two_sizes(name):
    model = load(name)
    runtime = session(model)
    samples = feeds(name)
    declared = [[d if isinstance(d, int) else None for d in value.shape] for value in model.graph.outputs]
    for feed in samples:
        outputs = runtime.run(None, feed)
        for output, shape in zip(outputs, declared, strict=True):
            assert output.size
            assert np.isfinite(output.astype(np.float64)).all()
            assert output.std() > 1e-3
            assert [s if known is not None else None for s, known in zip(output.shape, shape, strict=True)] == shape
    for value in model.graph.inputs:
        open_axes = [axis for axis, size in enumerate(value.shape) if not isinstance(size, int)]
        assert all(samples[0][value.name].shape[a] != samples[1][value.name].shape[a] for a in open_axes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_output_depends_on_the_inputs(name):
    runtime = session(load(name))
    feed = feeds(name)[0]
    before = runtime.run(None, feed)
    floats = [key for key, array in feed.items() if array.dtype == np.float32]
    other = {
        key: array[::-1].copy() + (0.1 if key in floats else 0) if "mask" not in key else array
        for key, array in feed.items()
    }
    for a, b in zip(before, runtime.run(None, other), strict=True):
        assert np.abs(a.astype(np.float64) - b).max() > 1e-3 * np.abs(a).max()


@pytest.mark.parametrize("name", ALL)
def test_is_stored_without_weights_paths_or_times(name):
    data = (FOLDER / (name + EXTENSION)).read_bytes()
    assert len(data) < 60_000
    assert data[4:8] == bytes(4)
    proto = stored._stored(name)
    assert not proto.metadata_props
    text = proto.SerializeToString()
    assert not re.search(rb"/(root|home|work|usr|tmp)/", text)


@pytest.mark.parametrize("name", ["bert", "resnet", "llama_blocks"])
def test_weights_are_the_same_each_time(name):
    once, again = (ir.to_proto(load(name)).SerializeToString(deterministic=True) for _ in range(2))
    assert once == again


@pytest.mark.parametrize("name", ALL)
def test_filled_weights_are_not_degenerate(name):
    empty = [t.name for t in stored._stored(name).graph.initializer if stored.is_empty(t)]
    proto = onnx.ModelProto()
    proto.ParseFromString(stored._filled(name))
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    for key in empty:
        weight = weights[key]
        assert weight.shape
        assert np.isfinite(weight).all()
        assert len(np.unique(weight)) > 0.99 * weight.size
