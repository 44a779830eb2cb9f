"""Times of single operators, measured many to a model and remembered.

A probe model holds some dozen operators that do not depend on each other, on activations that the model itself spreads
from one number, so that they are in the cache as behind their producer. Weights are not, where those of the whole model
do not fit there either: a filler as large as what lacks is written once per run. The runtime's profile tells the operators
apart and keeps the changes of layout around them out of their times.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from irc.latency_table.kernels import Operator
from irc.runner import Feed, NodeTime, original_name

INTO_BLOCKS, OUT_OF_BLOCKS = "ReorderInput", "ReorderOutput"
MODEL_OPERATORS = 48
MODEL_BYTES = 192 << 20
FILLER_BYTES = 64 << 20
"""More than this is beyond any cache worth speaking of."""
_SECONDS = 0.1
"""Per probe model; five runs are made however long they take, and more of models that take long."""
_RUNS = 12
_LEAST = 0.1
_CHANNELS, _SIDE = 20, 8
"""Of the convolution that tells the size of blocks: a number that every block size rounds up differently."""


class Profiler(Protocol):
    """What measures: `irc.runner.Runner`."""

    def profile(self, model: ir.Model, feeds: Sequence[Feed], *, seconds: float = ...) -> list[NodeTime]:
        """Times of the nodes of a model."""


@dataclasses.dataclass(frozen=True)
class Reordering:
    """Changes of layout that were seen.

    Attributes:
        elements: Elements of all of them.
        microseconds: Time of all of them.
    """

    elements: int = 0
    microseconds: float = 0.0

    def plus(self, elements: int, microseconds: float) -> Reordering:
        """One more."""
        return Reordering(self.elements + elements, self.microseconds + microseconds)

    def per_element(self) -> float:
        """Microseconds per element; 0 if none was seen."""
        return self.microseconds / self.elements if self.elements else 0.0


class Probes:
    """Remembered times.

    Args:
        profiler: What measures; None where nothing may be measured any more.
        opset: Of the model the operators are from.
        overhead: Microseconds that the profiler adds to a node.

    Attributes:
        working_set: Bytes that one run of the model goes through; set before anything is measured.
        times: Microseconds by operator, as described, the profiler's share taken off.
        reorderings: Changes of layout by operator.
        seconds: What measuring took.
        models: Probe models run.
    """

    def __init__(self, profiler: Profiler | None, *, opset: int, overhead: float = 0.0) -> None:
        self._profiler, self._opset, self._overhead = profiler, opset, overhead
        self.working_set = 0
        self.times: dict[str, float] = {}
        self.reorderings: dict[str, Reordering] = {kind: Reordering() for kind in (INTO_BLOCKS, OUT_OF_BLOCKS)}
        self.seconds = 0.0
        self.models = 0

    def __contains__(self, operator: Operator) -> bool:
        return operator.describe() in self.times

    def __getitem__(self, operator: Operator) -> float:
        return self.times[operator.describe()]

    def constants(self) -> tuple[int, float]:
        """What holds for all operators.

        Returns:
            Channels that convolutions work on at once, by what they round 20 channels up to, or 1 if they do not; and the
            microseconds of an operator that has nothing to do.
        """
        shapes = (1, _CHANNELS, _SIDE, _SIDE), (_CHANNELS, _CHANNELS, 1, 1)
        convolution = Operator("Conv", shapes, (False, True), (("group", 1),))
        idle = Operator("Transpose", ((1, 2, 2, 2),), (False,), (("perm", (0, 2, 1, 3)),))
        found = self._profile([convolution, idle], _SECONDS)
        block = 1
        for one in found:
            if one.op_type == INTO_BLOCKS and one.elements:
                # 24 are three blocks of 8, and 32 two of 16.
                block = math.gcd(one.elements // _SIDE**2, 16)
        times = [one.microseconds for one in found if one.op_type == idle.op_type]
        return block, max(min(times, default=0.0) - self._overhead, 0.0)

    def measure(self, operators: Sequence[Operator]) -> None:
        """Measures what is not known yet.

        Raises:
            RunnerError: If the runtime refuses an operator.
        """
        missing = list(dict.fromkeys(operator for operator in operators if operator not in self))
        # Those that read an activation of one shape follow each other, and share it.
        missing.sort(key=lambda operator: (operator.op_type, operator.inputs))
        for chunk in _chunks(missing):
            found = self._profile(chunk, _SECONDS)
            longer = _RUNS * sum(one.microseconds for one in found) / 1e6
            bursts = [found, self._profile(chunk, longer)] if longer > _SECONDS else [found]
            self._record(chunk, bursts)

    def _profile(self, operators: Sequence[Operator], seconds: float) -> list[NodeTime]:
        if self._profiler is None:
            raise LookupError(f"{operators[0].describe()} was not measured")
        begin = time.perf_counter()
        filler = max(min(self.working_set, FILLER_BYTES) - sum(operator.bytes for operator in operators), 0)
        model, feed = probe_model(operators, self._opset, filler)
        found = self._profiler.profile(model, [feed], seconds=seconds)
        self.seconds += time.perf_counter() - begin
        self.models += 1
        return found

    def _record(self, operators: Sequence[Operator], bursts: Sequence[Sequence[NodeTime]]) -> None:
        """Takes the shortest times: other work on the machine makes them longer, and nothing makes them shorter."""
        for profile in bursts:
            found = dict.fromkeys(range(len(operators)), 0.0)
            for one in profile:
                spent = max(one.microseconds - self._overhead, 0.0)
                index = _number(one)
                if one.op_type in self.reorderings:
                    self.reorderings[one.op_type] = self.reorderings[one.op_type].plus(one.elements, spent)
                elif index is not None and index < len(operators):
                    found[index] += spent
            for index, operator in enumerate(operators):
                name = operator.describe()
                self.times[name] = min(max(found[index], _LEAST), self.times.get(name, math.inf))


def _number(time: NodeTime) -> int | None:
    """Which probe a node of the runtime is, by its own name or that of its result."""
    for name in (time.name, *time.outputs):
        prefix, _, number = original_name(name).split("/")[0].partition(".")
        if prefix == "probe" and number.isdigit():
            return int(number)
    return None


def probe_model(operators: Sequence[Operator], opset: int, filler: int = 0) -> tuple[ir.Model, Feed]:
    """Operators side by side, and what to feed them.

    Args:
        operators: Any number; results of operator i are called "probe.i".
        opset: Of the standard operators.
        filler: Bytes to write besides, after all of them.
    """
    one = ir.Value(name="one", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    nodes: list[ir.Node] = []
    initializers: list[ir.Value] = []
    activations: dict[tuple[int, ...], ir.Value] = {}

    def constant(array: np.ndarray[Any, Any]) -> ir.Value:
        name = f"constant.{len(initializers)}"
        initializers.append(ir.Value(name=name, const_value=ir.tensor(array, name=name)))
        return initializers[-1]

    def activation(shape: tuple[int, ...]) -> ir.Value:
        if shape not in activations:
            node = ir.node("Expand", [one, constant(np.array(shape, dtype=np.int64))])
            node.outputs[0].name = f"activation.{len(activations)}"
            nodes.append(node)
            activations[shape] = node.outputs[0]
        return activations[shape]

    outputs = []
    if filler:
        node = ir.node("GlobalMaxPool", [activation((1, 1, -(-filler // 4)))], name="filler")
        node.outputs[0].name, node.outputs[0].type = "filler", ir.TensorType(ir.DataType.FLOAT)
        nodes.append(node)
        outputs.append(node.outputs[0])
    # The runtime begins with the last output: one of each kind runs before those that count, to find its code in the cache.
    smallest = {operator.op_type: operator for operator in sorted(operators, key=lambda each: -each.bytes)}
    for index, operator in enumerate([*operators, *smallest.values()]):
        inputs = [
            constant(_weight(shape)) if is_constant else activation(shape)
            for shape, is_constant in zip(operator.inputs, operator.constants, strict=True)
        ]
        name = f"probe.{index}" if index < len(operators) else f"before.{index}"
        node = ir.node(operator.op_type, inputs, attributes=dict(operator.attributes), name=name)
        (output,) = node.outputs
        output.name, output.type = name, ir.TensorType(ir.DataType.FLOAT)
        nodes.append(node)
        outputs.append(output)
    graph = ir.Graph([one], outputs, nodes=nodes, initializers=initializers, opset_imports={"": opset}, name="probes")
    return ir.Model(graph, ir_version=8), {"one": np.ones(1, dtype=np.float32)}


def _weight(shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """Numbers without pattern that matters, small enough that nothing overflows and none is denormal."""
    noise = np.random.default_rng(0).uniform(0.5, 1.0, 4099).astype(np.float32) * np.float32(1e-2)
    noise[::2] *= -1
    return np.resize(noise, tuple(shape))


def _chunks(operators: Sequence[Operator]) -> Iterator[list[Operator]]:
    chunk: list[Operator] = []
    size = 0
    for operator in operators:
        if chunk and (len(chunk) == MODEL_OPERATORS or size + operator.bytes > MODEL_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(operator)
        size += operator.bytes
    if chunk:
        yield chunk
