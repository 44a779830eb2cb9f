"""Builders for the judge's tests: models as functions, samples in memory, graphs from text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from irc.calibration.data import FeedList, Sample
from irc.errors import RunnerError
from irc.judge import Judge

Array = np.ndarray[Any, Any]

CLASSIFIER = "g (float[N,6] x) => (float[N,4] logits) <float[6,4] w> { logits = MatMul(x, w) }"
LANGUAGE_MODEL = "g (float[N,T,6] x) => (float[N,T,9] logits) <float[6,9] w> { logits = MatMul(x, w) }"
REGRESSION = "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"


def graph(text: str, **constants: Array) -> ir.Model:
    """A model from the text of its graph; values declared in <> become initializers, given ones or seeded noise."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {text}')
    generator = np.random.default_rng(0)
    known = {value.name for value in proto.graph.input} | {name for node in proto.graph.node for name in node.output}
    for value in [v for v in proto.graph.value_info if v.name not in known]:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = constants.get(value.name, np.asarray(generator.normal(size=shape)).astype(kind))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    return ir.from_proto(proto)


class FakeModel:
    """An opened model computed by a function from the feed to one output or a dict of them; counts its runs."""

    def __init__(self, function: Callable[[dict[str, Array]], Any], output: str = "logits") -> None:
        self._function, self._output = function, output
        self.runs = 0

    def run(self, feed: dict[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        self.runs += 1
        result = self._function(feed)
        named = result if isinstance(result, dict) else {self._output: result}
        return {name: named[name] for name in (outputs or named) if name in named}


class DyingModel:
    """An opened model whose process dies."""

    def run(self, feed: dict[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        raise RunnerError("the runtime died with SIGSEGV", crashed=True)


def feeds(n: int, *shape: int, seed: int = 0, label: Callable[[Array], Array] | None = None) -> list[Sample]:
    """Samples of normal noise x [1, *shape], with labels y where a function makes them."""
    generator = np.random.default_rng(seed)
    arrays = [generator.normal(size=(1, *shape)).astype(np.float32) for _ in range(n)]
    return [
        Sample({"x": x}, {} if label is None else {"y": np.asarray(label(x))}, f"{i}") for i, x in enumerate(arrays)
    ]


def source(samples: list[Sample], *, synthetic: bool = False) -> FeedList:
    return FeedList(samples, name="test data", synthetic=synthetic)


def identity_judge(samples: list[Sample], *, model: str = CLASSIFIER, output: str = "logits", **options: Any) -> Judge:
    """A judge whose original hands its input through as its output."""
    return Judge(graph(model), FakeModel(lambda feed: feed["x"], output), source(samples), **options)


def softmax(values: Array) -> Array:
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
