"""What is measured of a whole model before anything is predicted: its latency, its profile, and what the runtime adds to both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from irc.ir import snapshot
from irc.latency_table.runtime_parts import name_in_profile
from irc.runner import Feed, NodeTime, Runner

QUIET_QUANTILE = 0.25
_LEAST_MICROSECONDS = 0.1
_CHAIN = 64


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What was measured of the model as it is, and of the runtime.

    Attributes:
        milliseconds: Of one inference.
        nodes: The profile.
        fixed: Microseconds of an empty model.
        overhead: Microseconds that the profiler adds to a node.
        idle: Microseconds of a node that has nothing to do.
        block: Channels that convolutions work on at once; 1 if they do not.
        into_blocks: Microseconds per element of a conversion into blocks.
        out_of_blocks: Likewise out of blocks.
    """

    milliseconds: float
    nodes: tuple[NodeTime, ...]
    fixed: float = 0.0
    overhead: float = 0.0
    idle: float = 0.0
    block: int = 1
    into_blocks: float = 0.0
    out_of_blocks: float = 0.0

    def own(self, time: NodeTime) -> float:
        """Microseconds of a node without the profiler's share."""
        return max(time.microseconds - self.overhead, _LEAST_MICROSECONDS)

    @property
    def factor(self) -> float:
        """What the sum of all nodes is multiplied by to give the latency."""
        return max(1e3 * self.milliseconds - self.fixed, 1.0) / (sum(map(self.own, self.nodes)) or 1.0)

    @classmethod
    def measured(
        cls,
        runner: Runner,
        model: ir.Model,
        feed: Feed,
        *,
        seconds: float,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Baseline:
        """Times and profiles a model; what holds for single operators is left out.

        Args:
            runner: Where it runs.
            model: Unchanged.
            feed: Its input.
            seconds: Time for timing it, and as much for its profile.
            progress: Told the share done.

        Raises:
            RunnerError: If the model cannot run the feed.
        """
        model = _named(model)
        fixed, overhead = _runtime_overheads(runner)
        with runner.open(model) as whole:
            bursts = [runner.latency([whole], [feed], seconds=seconds / 2)[0]]
            progress(0.4)
            profile = runner.profile(model, [feed], seconds=seconds)
            # Other work on the machine comes and goes: of two bursts, that which it left alone.
            bursts.append(runner.latency([whole], [feed], seconds=seconds / 2)[0])
        progress(1.0)
        milliseconds = min(float(np.quantile(burst, QUIET_QUANTILE)) for burst in bursts)
        return cls(milliseconds, tuple(profile), fixed, overhead)


def _named(model: ir.Model) -> ir.Model:
    """A copy whose nodes all have names, by which the profile tells them apart."""
    copy = snapshot(model)
    for node in copy.graph.all_nodes():
        node.name = name_in_profile(node)
    return copy


def _runtime_overheads(runner: Runner) -> tuple[float, float]:
    """Microseconds of a run that has nothing to do, and those that the profiler adds to a node: from chains of idle nodes."""
    feed = {"x": np.ones(1, dtype=np.float32)}
    short, long = _chain(1), _chain(_CHAIN)
    with runner.open(short) as first, runner.open(long) as second:
        times = runner.latency([first, second], [feed], seconds=0.2)
    one, all_ = (1e3 * float(np.quantile(each, QUIET_QUANTILE)) for each in times)
    profiled = sum(node.microseconds for node in runner.profile(long, [feed], seconds=0.1)) / _CHAIN
    each = (all_ - one) / (_CHAIN - 1)
    return max(one - each, 0.0), max(profiled - each, 0.0)


def _chain(nodes: int) -> ir.Model:
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    chain = []
    last = value
    for index in range(nodes):
        chain.append(ir.node("Sin", [last], name=f"idle.{index}"))
        last = chain[-1].outputs[0]
        last.name, last.type, last.shape = f"y{index}", value.type, value.shape
    return ir.Model(ir.Graph([value], [last], nodes=chain, opset_imports={"": 17}, name="idle"), ir_version=8)
