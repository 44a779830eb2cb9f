"""Quantize a model in a test: calibration by the oracle of `pass_kit`, no child process; and what ONNX Runtime makes of it."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pass_kit

from irc.application import SiteKey, apply_pass
from irc.backends.ort import OrtTarget
from irc.calibration import MinMax, StatisticRequest, Statistics
from irc.calibration.reductions import ReducedModel
from irc.ir import check, interface, snapshot
from irc.pass_base import Context, Pass
from irc.passes.quantization.quantize import Quantize
from irc.pipeline import Step
from irc.target import Target

BLOCK = """b (float[N,16,8,8] x) => (float[N,10] y) {
  c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1]>(r1, w2, b2)
  s = Add(c2, r1)
  r2 = Relu(s)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r2)
  c3 = Conv<group=16>(p, w3)
  c4 = Clip(c3, lo, hi)
  g = GlobalAveragePool(c4)
  f = Flatten(g)
  y = Gemm<transB=1>(f, w4, b4)
}"""
BLOCK_WEIGHTS = {
    "w1": (16, 16, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,), "w3": (16, 1, 3, 3),
    "lo": np.float32(0), "hi": np.float32(6), "w4": (10, 16), "b4": (10,),
}  # fmt: skip
TEXT = """t (int64[N,S] ids) => (float[N,S,50] logits) {
  e = Gather(table, ids)
  n = LayerNormalization(e, gain, shift)
  h = MatMul(n, w1)
  hb = Add(h, b1)
  a = Relu(hb)
  o = MatMul(a, w2)
  k = Add(o, e)
  head = Transpose<perm=[1,0]>(table)
  logits = MatMul(k, head)
}"""
TEXT_WEIGHTS = {"table": (50, 32), "gain": (32,), "shift": (32,), "w1": (32, 64), "b1": (64,), "w2": (64, 32)}


def block() -> ir.Model:
    """A residual block with pooling, a depthwise Conv, a Clip and a head: everything ORT joins."""
    return pass_kit.parse(BLOCK, BLOCK_WEIGHTS)


def text() -> ir.Model:
    """A lookup, two products and a head tied to the table."""
    return pass_kit.parse(TEXT, TEXT_WEIGHTS)


def observe(model: ir.Model, requests: Sequence[StatisticRequest], feeds: Sequence[pass_kit.Feed]) -> Statistics:
    """Ranges by running the model with every requested value as an output; those in bodies as calibration takes them."""
    copy = snapshot(model)
    values = ir.convenience.create_value_mapping(copy.graph, include_subgraphs=False)
    wanted = list(dict.fromkeys(r.value_name for r in requests))
    names = [name for name in wanted if name in values]
    copy.graph.outputs[:] = [values[name] for name in names]
    found = Statistics({}, {}, len(feeds))

    def add(name: str, low: float, high: float) -> None:
        found.ranges[name] = found.ranges.get(name, MinMax()).merge(MinMax(low, high, 1))

    inner = [name for name in wanted if name not in values]
    for feed in feeds:
        if names:
            for name, array in zip(names, pass_kit.run(copy, feed), strict=True):
                add(name, float(array.min()), float(array.max()))
        for name, (low, high) in zip(inner, _inner_extremes(model, inner, feed), strict=True):
            add(name, low, high)
    return found


def _inner_extremes(model: ir.Model, names: Sequence[str], feed: pass_kit.Feed) -> list[list[float]]:
    if not names:
        return []
    reduced = ReducedModel(model, list(names))
    for name in names:
        value = reduced.value(name)
        assert value is not None, reduced.missing[name]
        reduced.reduce("ReduceMin", value)
        reduced.reduce("ReduceMax", value)
    finished = reduced.finish()
    outputs = dict(zip([o.name or "" for o in finished.graph.outputs], pass_kit.run(finished, feed), strict=True))
    numbers: list[list[float]] = reduced.read(outputs).reshape(-1, 2).tolist()
    return numbers


def quantize(
    model: ir.Model,
    *,
    target: Target | None = None,
    pass_: Pass | None = None,
    deny: Callable[[str], bool] = lambda site: False,
    feeds: Sequence[pass_kit.Feed] | None = None,
) -> pass_kit.Outcome:
    """The quantized copy, checked, with its interface compared."""
    given = feeds if feeds is not None else [pass_kit.feeds(model, seed=s) for s in range(4)]
    context = Context(target=target or OrtTarget(), collect=lambda m, requests: observe(m, requests, given))

    def permit(key: SiteKey) -> str | None:
        return "denied" if deny(key.site) else None

    copy = snapshot(model)
    record = apply_pass(Step(pass_ or Quantize()), copy, context, permit=permit).record
    check(copy)
    assert interface(model).difference(interface(copy)) is None
    return pass_kit.Outcome(copy, record)


def noise(model: ir.Model, other: ir.Model, feed: pass_kit.Feed | None = None) -> float:
    """Energy of the difference of the outputs, relative to the outputs of the first."""
    given = feed if feed is not None else pass_kit.feeds(model, seed=0)
    energy = error = 0.0
    for a, b in zip(pass_kit.run(model, given), pass_kit.run(other, given), strict=True):
        energy += float(np.sum(np.square(a, dtype=np.float64)))
        error += float(np.sum(np.square(a.astype(np.float64) - b)))
    return error / energy


def optimization_error(model: ir.Model) -> float:
    """Energy of what ONNX Runtime's optimizations change, relative to the outputs without them."""
    feed = pass_kit.feeds(model, seed=0)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    plain, optimized = pass_kit.run(model, feed), session.run(None, feed)
    error = sum(float(np.sum(np.square(a.astype(np.float64) - b))) for a, b in zip(plain, optimized, strict=True))
    return error / sum(float(np.sum(np.square(a, dtype=np.float64))) for a in plain)


def operators(model: ir.Model) -> collections.Counter[str]:
    """Operator types of a model with their counts."""
    return collections.Counter(node.op_type for node in model.graph)


def runtime_operators(model: ir.Model | onnx.ModelProto, folder: Path) -> collections.Counter[str]:
    """Operator types of ONNX Runtime's optimized graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    proto: Any = ir.to_proto(model) if isinstance(model, ir.Model) else model
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(str(folder / "optimized.onnx")).graph
    return collections.Counter(node.op_type for node in _with_bodies(graph))


def _with_bodies(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _with_bodies(attribute.g)
