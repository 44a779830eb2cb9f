"""Models whose int8 form has something to gain, and the refinement of them: with data, and again without it from what was decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest

from irc.application import SiteKey, apply_pass
from irc.backends.ort import OrtTarget
from irc.calibration.data import FeedList, Sample
from irc.decisions import Decisions
from irc.ir import check, interface, snapshot
from irc.ledger import PassRecord
from irc.pass_base import Context, Pass
from irc.passes.quantization.quantize import Quantize
from irc.pipeline import Step
from irc.runner import Runner
from irc.target import Target

TEXT = """t (float[N,S,32] x) => (float[N,S,24] y, float[N,S,24] z) {
  h = MatMul(x, w1)
  hb = Add(h, b1)
  a = Gelu(hb)
  y = MatMul(a, w2)
  z = MatMul(a, w3)
}"""
TEXT_WEIGHTS = {"w1": (32, 48), "b1": (48,), "w2": (48, 24), "w3": (48, 24)}
IMAGE = """i (float[N,8,12,12] x) => (float[N,10] y) {
  c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r1 = Relu(c1)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r1)
  c2 = Conv<pads=[1,1,1,1], strides=[2,2]>(p, w2)
  r2 = Relu(c2)
  g = GlobalAveragePool(r2)
  f = Flatten(g)
  y = Gemm<transB=1>(f, w4, b4)
}"""
IMAGE_WEIGHTS = {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "w4": (10, 16), "b4": (10,)}


def text(seed: int = 0) -> ir.Model:
    """Two products that read one activation, whose largest channel has small weights."""
    generator = np.random.default_rng(seed)
    weights = {name: generator.normal(size=shape).astype(np.float32) * 0.2 for name, shape in TEXT_WEIGHTS.items()}
    weights["w1"][:, 3] *= 30
    for name in ("w2", "w3"):
        weights[name][3] *= 0.002
    return pass_kit.parse(TEXT, weights, opset=20)


def image(seed: int = 0) -> ir.Model:
    """Convolutions with a pooling that moves integers, and a head with a bias."""
    generator = np.random.default_rng(seed)
    weights = {name: generator.normal(size=shape).astype(np.float32) * 0.2 for name, shape in IMAGE_WEIGHTS.items()}
    weights["w1"][5] *= 30
    weights["w2"][:, 5] *= 0.002
    return pass_kit.parse(IMAGE, weights)


def samples(model: ir.Model, count: int = 8, symbol: int = 8) -> list[Sample]:
    """Seeded samples."""
    return [Sample(pass_kit.feeds(model, symbol=symbol, seed=seed)) for seed in range(count)]


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """One runtime process for all."""
    with Runner(threads=1) as started:
        yield started


class Refined:
    """A model, quantized and refined.

    Args:
        model: A float model; unchanged.
        passes: What comes behind `quantize`.
        runner: Where models run; None replays.
        target: Default ORT.
        decisions: What a plan says.
        deny: Sites of which pass to leave alone.
    """

    def __init__(
        self,
        model: ir.Model,
        passes: Sequence[Pass],
        runner: Runner | None,
        *,
        target: Target | None = None,
        decisions: Decisions | None = None,
        source: Sequence[Sample] | None = None,
        deny: Callable[[str, str], bool] = lambda name, site: False,
    ) -> None:
        given = list(source) if source is not None else samples(model)
        feeds = [sample.feed for sample in given]
        self.decisions = decisions or Decisions()
        ctx = Context(
            target=target or OrtTarget(),
            collect=lambda m, requests: int8_kit.observe(m, requests, feeds),
            data=FeedList(given) if runner is not None else None,
            runner=runner,
            decisions=self.decisions,
        )
        self.float = model
        self.model = snapshot(model)
        self.records: list[PassRecord] = []
        self.stages: list[ir.Model] = []
        for pass_ in (Quantize(calibrator="min-max"), *passes):

            def permit(key: SiteKey, name: str = pass_.name) -> str | None:
                return "denied" if deny(name, key.site) else None

            before = pass_kit.text(self.model)
            self.records.append(apply_pass(Step(pass_), self.model, ctx, permit=permit).record)
            assert bool(self.records[-1].rewritten) == (pass_kit.text(self.model) != before)
            check(self.model)
            assert interface(model).difference(interface(self.model)) is None
            assert ctx.target.lint(self.model) == []
            self.stages.append(snapshot(self.model))

    def rewritten(self, index: int = -1) -> dict[str, str]:
        """What a pass rewrote, and said of it."""
        return {entry.site: entry.reason for entry in self.records[index].rewritten}

    def skipped(self, index: int = -1) -> dict[str, str]:
        """What a pass left alone, and why."""
        return {entry.site: entry.reason for entry in self.records[index].skipped}

    def noise(self, index: int = -1) -> float:
        """Relative error of the outputs after a pass, on samples that nobody saw."""
        feeds = [pass_kit.feeds(self.float, symbol=8, seed=seed) for seed in range(100, 104)]
        return float(np.mean([int8_kit.noise(self.float, self.stages[index], feed) for feed in feeds]))


def initializer(model: ir.Model, name: str) -> np.ndarray:
    """The array of an initializer."""
    return pass_kit.weight(model, name)


def assert_replays(refined: Refined, passes: Sequence[Pass], **options: object) -> None:
    """The same bytes without data and without a runtime, from what was decided."""
    plan = Decisions(planned=refined.decisions.kept)
    again = Refined(refined.float, passes, None, decisions=plan, **options)
    assert pass_kit.text(again.model) == pass_kit.text(refined.model)
    assert [r.rewritten for r in again.records] == [r.rewritten for r in refined.records]
