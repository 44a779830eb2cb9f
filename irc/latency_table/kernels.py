"""Product nodes as kernels: which sizes their time depends on, and a single operator of the same kind at any sizes.

Sizes are the widths that a cut can change: groups and channels per group of a convolution; rows, columns and batch axes of
a matrix product; inputs and units of a recurrent layer. Whatever else shapes the work is fixed by the feed.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import onnx_ir as ir

from irc.latency_table.interpolation import ALIGNMENT, Point, linear, odd, stairs
from irc.latency_table.surviving_shapes import Alive, Shape, SurvivingShapes

Sizes = tuple[int, ...]
_PLAIN = (ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING, ir.AttributeType.INTS)
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator at some sizes: what is measured, and what times are remembered by.

    Attributes:
        op_type: A standard operator.
        inputs: Shape of every input.
        constants: Which of them are weights.
        attributes: Names and values, in order of the names.
    """

    op_type: str
    inputs: tuple[Shape, ...]
    constants: tuple[bool, ...]
    attributes: tuple[tuple[str, Any], ...] = ()

    def describe(self) -> str:
        """As text, the same for the same operator: "Conv 1x16x32x32 *16x16x3x3 pads=(1, 1, 1, 1)", weights with a star."""
        shapes = (
            "*" * constant + "x".join(map(str, shape))
            for shape, constant in zip(self.inputs, self.constants, strict=True)
        )
        return " ".join([self.op_type, *shapes, *(f"{name}={value}" for name, value in self.attributes)])

    @property
    def bytes(self) -> int:
        """About what it takes to run it, in float32, its result not counted."""
        return 4 * sum(math.prod(shape) for shape in self.inputs)


class Kernel(abc.ABC):
    """A product node whose time is measured.

    Attributes:
        node: The node.
        whole: Its sizes as it is.
    """

    def __init__(self, node: ir.Node, shapes: SurvivingShapes) -> None:
        self.node, self._shapes = node, shapes
        self.whole = self.sizes(None)

    @abc.abstractmethod
    def sizes(self, alive: Alive | None) -> Sizes:
        """Its sizes after a cut."""

    @abc.abstractmethod
    def at(self, sizes: Sizes) -> Operator:
        """An operator of its kind."""

    @abc.abstractmethod
    def grid(self, sizes: Sizes, block: int) -> list[list[Point]]:
        """Per size, where times are measured that give that of some sizes.

        Args:
            sizes: As `sizes` gives them.
            block: Channels that the runtime's convolutions work on at once; 1 where they do not.
        """

    def _made(self, index: int, alive: Alive | None) -> Shape:
        shape = self._shapes.made(self.node.outputs[index], alive)
        if shape is None:
            raise ValueError(self.node.outputs[index].name)
        return shape

    def _read(self, index: int, alive: Alive | None) -> Shape:
        shape = self._shapes.read(self.node, index, alive)
        if shape is None:
            raise ValueError(f"input {index} of {self.node.name}")
        return shape

    def _attributes(self, **changed: Any) -> tuple[tuple[str, Any], ...]:
        found = {name: _hashable(a.value) for name, a in self.node.attributes.items() if a.type in _PLAIN}
        return tuple(sorted({**found, **changed}.items()))


class Convolution(Kernel):
    """Conv; sizes are groups, input channels per group, output channels per group."""

    def sizes(self, alive: Alive | None) -> Sizes:
        """See above."""
        groups = self._shapes.groups(self.node, alive)
        return groups, self._read(0, alive)[1] // groups, self._made(0, alive)[1] // groups

    def at(self, sizes: Sizes) -> Operator:
        """The convolution of the same image, with a bias if it has one."""
        groups, inputs, outputs = sizes
        image, weight = self._read(0, None), self._shapes.whole.static(self.node.inputs[1])
        assert weight is not None
        shapes: list[Shape] = [(image[0], groups * inputs, *image[2:]), (groups * outputs, inputs, *weight[2:])]
        if len(self.node.inputs) > 2 and self.node.inputs[2] is not None:
            shapes.append((groups * outputs,))
        constants = (False, *[True] * (len(shapes) - 1))
        return Operator("Conv", tuple(shapes), constants, self._attributes(group=groups))

    def grid(self, sizes: Sizes, block: int) -> list[list[Point]]:
        """Steps of a block where the convolution runs on blocks; elsewhere widths that keep it from that."""
        groups, inputs, outputs = sizes
        if self.depthwise(sizes):
            if block == 1:
                return [linear(groups, self.whole[0]), [(1, 1.0)], [(1, 1.0)]]
            return [stairs(groups, block) if groups % ALIGNMENT == 0 else odd(groups), [(1, 1.0)], [(1, 1.0)]]
        if groups > 1:
            return [linear(groups, self.whole[0]), [(inputs, 1.0)], [(outputs, 1.0)]]
        if block == 1:
            return [[(1, 1.0)], linear(inputs, self.whole[1]), linear(outputs, self.whole[2])]
        if not self.blocked(sizes, block):
            return [[(1, 1.0)], odd(inputs), linear(outputs, self.whole[2])]
        read = [(inputs, 1.0)] if inputs < block else stairs(inputs, block, finest=4)
        return [[(1, 1.0)], read, stairs(outputs, block)]

    def depthwise(self, sizes: Sizes) -> bool:
        """Whether every group is a channel."""
        return sizes[0] > 1 and sizes[1] == sizes[2] == 1

    def blocked(self, sizes: Sizes, block: int) -> bool:
        """Whether the runtime runs it on blocks of channels."""
        groups, inputs, outputs = sizes
        if block == 1 or len(self._read(0, None)) != 4:
            return False
        if self.depthwise(sizes):
            return groups % ALIGNMENT == 0
        if groups > 1:
            return inputs % block == 0 and outputs % block == 0
        return inputs < block or inputs % ALIGNMENT == 0

    def reads_blocks(self, sizes: Sizes, block: int) -> bool:
        """Whether its input has to be in blocks, too: not that of few channels."""
        return self.blocked(sizes, block) and (sizes[0] > 1 or sizes[1] >= block)


class MatrixProduct(Kernel):
    """MatMul and Gemm, of a weight or of two activations; sizes are batch axes, rows, depth, columns."""

    def __init__(self, node: ir.Node, shapes: SurvivingShapes) -> None:
        self._flipped = [bool(node.attributes.get_int(name, 0)) for name in ("transA", "transB")]
        super().__init__(node, shapes)
        if len(self._read(0, None)) < 2 or len(self._read(1, None)) < 2:
            raise ValueError(f"{node.name} multiplies a vector")

    def sizes(self, alive: Alive | None) -> Sizes:
        """See above."""
        left, made = self._read(0, alive), self._made(0, alive)
        return *made[:-1], left[-2 if self._flipped[0] else -1], made[-1]

    def at(self, sizes: Sizes) -> Operator:
        """The product; what is computed from constants counts as constant."""
        *batch, rows, depth, columns = sizes
        shapes = []
        for index, (height, width) in enumerate(((rows, depth), (depth, columns))):
            own = self._read(index, None)[:-2]
            axes = batch[len(batch) - len(own) :]
            shape = tuple(1 if size == 1 else axis for size, axis in zip(own, axes, strict=True))
            shapes.append((*shape, width, height) if self._flipped[index] else (*shape, height, width))
        varies = [self._varies(index) for index in (0, 1)]
        if self.node.op_type == "Gemm" and len(self.node.inputs) > 2 and self.node.inputs[2] is not None:
            shapes.append((columns,))
            varies.append(False)
        return Operator(self.node.op_type, tuple(shapes), tuple(not one for one in varies), self._attributes())

    def grid(self, sizes: Sizes, block: int) -> list[list[Point]]:
        """Nothing steps."""
        return [linear(size, full) for size, full in zip(sizes, self.whole, strict=True)]

    def _varies(self, index: int) -> bool:
        value = self.node.inputs[index]
        return value is not None and self._shapes.propagation.varies(value)


class Recurrent(Kernel):
    """LSTM, GRU and RNN; sizes are inputs and units."""

    def sizes(self, alive: Alive | None) -> Sizes:
        """See above."""
        made = next(i for i, value in enumerate(self.node.outputs) if value.name)
        return self._read(0, alive)[-1], self._made(made, alive)[-1]

    def at(self, sizes: Sizes) -> Operator:
        """The layer without initial states, with a bias if it has one."""
        inputs, units = sizes
        sequence, directions = self._read(0, None), self._read(1, None)[0]
        rows = _GATES[self.node.op_type] * units
        shapes: list[Shape] = [(*sequence[:-1], inputs), (directions, rows, inputs), (directions, rows, units)]
        if len(self.node.inputs) > 3 and self.node.inputs[3] is not None:
            shapes.append((directions, 2 * rows))
        attributes = self._attributes(hidden_size=units)
        return Operator(self.node.op_type, tuple(shapes), (False, *[True] * (len(shapes) - 1)), attributes)

    def grid(self, sizes: Sizes, block: int) -> list[list[Point]]:
        """Nothing steps, but units count twice."""
        return [linear(size, full, finest=1) for size, full in zip(sizes, self.whole, strict=True)]


_KINDS: dict[str, type[Kernel]] = {
    "Conv": Convolution,
    "MatMul": MatrixProduct,
    "Gemm": MatrixProduct,
    **dict.fromkeys(_GATES, Recurrent),
}


def kernel_of(node: ir.Node, shapes: SurvivingShapes) -> Kernel | None:
    """The kernel of a product node; None if it is of a kind that is not measured, or its shapes are not known."""
    kind = _KINDS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if kind is None:
        return None
    try:
        kernel = kind(node, shapes)
        kernel.at(kernel.whole)
    except (ValueError, IndexError, StopIteration):
        return None
    return kernel


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
