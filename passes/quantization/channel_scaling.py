"""Constants that take factors up when the channels of a value are divided by them, so that the model stays the same function.

They are divided where a value is made (the weight and bias of a Conv, the scale and bias of a normalization), and multiplied
where it is read (the weight of the next product).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, constant_tensor
from irc.passes.quantization.channel_layout import Layout, factors
from irc.passes.simplification.unused import remove_unused

Array = np.ndarray[Any, Any]
DOMAINS = ("", "ai.onnx")


@dataclasses.dataclass(frozen=True, eq=False)
class End:
    """A constant that takes factors up.

    Attributes:
        node: The operator that reads it.
        index: Which of its inputs.
        channels: Numbers of the channels, broadcasting against the constant.
        divide: Whether it is divided, or multiplied.
    """

    node: ir.Node
    index: int
    channels: Array
    divide: bool

    @property
    def value(self) -> ir.Value:
        """The constant as it is by now."""
        value = self.node.inputs[self.index]
        assert value is not None
        return value

    def same(self, other: End) -> bool:
        """Whether both do the same to a constant."""
        return self.divide == other.divide and np.array_equal(self.channels, other.channels)

    def applied(self, array: Array, scales: Array) -> Array:
        """The constant afterwards."""
        found = factors(scales, self.channels)
        return np.asarray(array / found if self.divide else array * found, np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelScaling:
    """What dividing the channels of a value comes to.

    Attributes:
        count: Number of channels.
        layouts: The values that are divided, with where their channels are.
        ends: The constants that take the factors up.
        readers: The Conv, Gemm and MatMul that read a divided value against a constant weight.
    """

    count: int
    layouts: dict[ir.Value, Layout]
    ends: list[End]
    readers: list[ir.Node]

    @property
    def constants(self) -> int:
        """How many constants are rewritten."""
        return len({(end.node, end.index) for end in self.ends})

    def apply(self, scales: Array) -> None:
        """Divides the value by the scales, `[count]` float32, positive, by rewriting the constants."""
        by_input: dict[tuple[ir.Node, int], list[End]] = {}
        for end in self.ends:
            by_input.setdefault((end.node, end.index), []).append(end)
        made: list[tuple[ir.Value, list[End], ir.Value]] = []
        for (node, index), ends in by_input.items():
            old = ends[0].value
            new = next((n for o, e, n in made if o is old and all_same(e, ends)), None)
            if new is None:
                array = constant(old)
                assert array is not None and isinstance(node.graph, ir.Graph)
                for end in ends:
                    array = end.applied(array, scales)
                new = add_initializer(node.graph, f"{old.name}_scaled", np.ascontiguousarray(array))
                made.append((old, ends, new))
            node.replace_input_with(index, new)
        remove_unused([old for old, _, _ in made])


def all_same(some: list[End], others: list[End]) -> bool:
    """Whether two constants are treated alike."""
    return len(some) == len(others) and all(a.same(b) for a, b in zip(some, others, strict=True))


def input_axis(node: ir.Node) -> int | None:
    """The axis of the channels of what a Conv, Gemm or MatMul reads, where its weight can take factors up; else None."""
    source, weight = node.inputs[0], constant_tensor(node.inputs[1]) if len(node.inputs) > 1 else None
    if source is None or source.shape is None or weight is None or weight.dtype != ir.DataType.FLOAT:
        return None
    rank = len(source.shape)
    if node.op_type == "MatMul":
        return rank - 1 if len(weight.shape) == 2 and rank >= 2 else None
    if node.op_type == "Gemm":
        return None if node.attributes.get_int("transA", 0) or rank != 2 or len(weight.shape) != 2 else 1
    return 1 if node.op_type == "Conv" and rank >= 3 and len(weight.shape) == rank else None


def reader_end(node: ir.Node, layout: Layout) -> End | None:
    """How the weight of a Conv, Gemm or MatMul takes up the factors of what it reads; None where it cannot."""
    axis = input_axis(node)
    weight = constant_tensor(node.inputs[1]) if axis is not None else None
    if weight is None or layout.axes != (axis,):
        return None
    channels = layout.channels
    if node.op_type == "MatMul":
        return End(node, 1, channels[:, None], False)
    if node.op_type == "Gemm":
        return End(node, 1, channels if node.attributes.get_int("transB", 0) else channels[:, None], False)
    outputs, inputs, *kernel = weight.shape.numpy()
    groups = node.attributes.get_int("group", 1)
    if inputs * groups != len(channels) or outputs % groups:
        return None
    by_output = np.repeat(channels.reshape(groups, inputs), outputs // groups, axis=0)
    return End(node, 1, by_output.reshape(outputs, inputs, *[1] * len(kernel)), False)


def weighted_readers(value: ir.Value) -> Iterator[ir.Node]:
    """The Conv, Gemm and MatMul that read a value as their activation."""
    for use in value.uses():
        if use.idx == 0 and use.node.op_type in ("Conv", "Gemm", "MatMul") and use.node.domain in DOMAINS:
            yield use.node
