"""What the tests of sparsify share: small models, samples of correlated channels, and the pass on copies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pass_kit

from irc.application import apply_pass
from irc.calibration import open_data
from irc.decisions import Decisions
from irc.ir import check, interface, snapshot
from irc.pass_base import Context
from irc.pipeline import Step

TEXT = """t (float[N,S,32] x) => (float[N,S,24] y) {
  h = MatMul(x, w1)
  hb = Add(h, b1)
  a = Relu(hb)
  y = MatMul(a, w2)
}"""
TEXT_WEIGHTS = {"w1": (32, 48), "b1": (48,), "w2": (48, 24)}
IMAGE = """i (float[N,8,10,10] x) => (float[N,12] y) {
  c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1], strides=[2,2], group=2>(r1, w2, b2)
  r2 = Relu(c2)
  g = GlobalAveragePool(r2)
  f = Flatten(g)
  y = Gemm<transB=1, alpha=0.5>(f, w4, b4)
}"""
IMAGE_WEIGHTS = {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (16, 8, 3, 3), "b2": (16,), "w4": (12, 16), "b4": (12,)}
PRODUCT = "p (float[N,32] x) => (float[N,40] y) { y = MatMul(x, w) }"


def text() -> ir.Model:
    return pass_kit.parse(TEXT, TEXT_WEIGHTS)


def image() -> ir.Model:
    return pass_kit.parse(IMAGE, IMAGE_WEIGHTS)


def product(text: str = PRODUCT, **weights) -> ir.Model:
    return pass_kit.parse(text, weights or {"w": (32, 40)})


def correlated(model: ir.Model, count: int = 16) -> list[pass_kit.Feed]:
    """Samples whose channels are mixtures of a few, and have means."""
    value = model.graph.inputs[0]
    axis = 1 if len(value.shape) == 4 else len(value.shape) - 1
    channels = value.shape[axis]
    mixing = np.random.default_rng(5).normal(size=(6, channels))
    feeds = []
    for seed in range(count):
        generator = np.random.default_rng(seed)
        shape = [d if isinstance(d, int) else 40 // len(value.shape) for d in value.shape]
        few = generator.normal(size=[*shape[:axis], 6, *shape[axis + 1 :]])
        mixed = np.moveaxis(np.tensordot(few, mixing, (axis, 0)), -1, axis)
        feeds.append({value.name: (mixed + 0.1 * generator.normal(size=shape) + 0.5).astype(np.float32)})
    return feeds


def applied(pass_, model, runner=None, *, feeds=None, decisions=None, **context):
    copy = snapshot(model)
    data = open_data(correlated(model) if feeds is None else feeds, model) if runner is not None else None
    ctx = Context(runner=runner, data=data, decisions=decisions or Decisions(), **context)
    record = apply_pass(Step(pass_), copy, ctx).record
    check(copy)
    assert interface(model).difference(interface(copy)) is None
    return pass_kit.Outcome(copy, record)


def remarks(outcome) -> dict[str, str]:
    return {entry.site: entry.reason for entry in outcome.record.rewritten}


def zeros(model: ir.Model, name: str) -> int:
    array = pass_kit.weight(model, name)
    return array.size - np.count_nonzero(array)


def noise(before: ir.Model, after: ir.Model) -> float:
    """Relative error energy on samples that nobody saw."""
    feed = correlated(before, 40)[-1]
    exact, found = (pass_kit.run(m, feed)[0] for m in (before, after))
    return float(np.square(found - exact).sum() / np.square(exact - exact.mean(axis=0)).sum())
