"""What the blocks of a random network are built with: values with shapes, weights that tell channels apart, nodes.

A block (`irc.testing.channel_steps_*`) takes a running value and gives another in one of three layouts: an image
[N, C, H, W], a sequence [N, T, C] or a vector [N, C]. Shapes are tracked by hand, symbols included, so every graph is
valid by construction. No weight repeats an entry: what mixes two channels up then shows in the outputs.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from irc.testing.choices import Choices

Size = int | str
Shape = tuple[Size, ...]
LAYOUTS = {4: "image", 3: "sequence", 2: "vector"}
ONNX_TYPES = {
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
    "float16": onnx.TensorProto.FLOAT16,
    "int64": onnx.TensorProto.INT64,
    "int8": onnx.TensorProto.INT8,
    "uint8": onnx.TensorProto.UINT8,
    "bool": onnx.TensorProto.BOOL,
}
WIDTHS = (4, 6, 8, 12, 16, 5, 9, 10, 18, 24)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelLimits:
    """What random networks may hold.

    Attributes:
        blocks: Smallest and largest number of blocks in a row.
        opsets: First and last version of the default domain.
        width: Most channels that blocks go on with; what is wider is projected.
        inputs: Most graph inputs that are not tokens of an embedding.
        outputs: Most graph outputs.
        symbolic: Whether batch, length and image sizes may be symbols.
    """

    blocks: tuple[int, int] = (4, 12)
    opsets: tuple[int, int] = (13, 23)
    width: int = 24
    inputs: int = 2
    outputs: int = 3
    symbolic: bool = True


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of the network.

    Attributes:
        name: Its name.
        shape: Sizes; symbols are strings.
        dtype: numpy's name of its type.
    """

    name: str
    shape: Shape
    dtype: str = "float32"

    @property
    def layout(self) -> str:
        """Which of the layouts it has, by its rank."""
        return LAYOUTS[len(self.shape)]

    @property
    def axis(self) -> int:
        """The axis of its channels."""
        return 2 if len(self.shape) == 3 else 1

    @property
    def width(self) -> int:
        """How many channels it has."""
        return self.known(self.axis)

    def known(self, axis: int) -> int:
        """The size of an axis that is no symbol."""
        size = self.shape[axis]
        assert isinstance(size, int), f"{self.name} has no known size on axis {axis}: {self.shape}"
        return size

    def sizes(self, *axes: int) -> tuple[int, ...] | None:
        """The sizes of some axes, or None if one of them is a symbol."""
        found = [self.shape[axis] for axis in axes]
        return (
            tuple(size for size in found if isinstance(size, int)) if all(isinstance(s, int) for s in found) else None
        )


class ChannelBuilder:
    """A network being built.

    Attributes:
        choices: Where decisions come from.
        limits: What the network may hold.
        opset: Version of the default domain.
        nodes: The nodes so far.
        weights: The initializers so far.
        scope: The values blocks ended with, which later blocks may use again.
        steps: How often each block or spelling was used.
    """

    def __init__(self, choices: Choices, limits: ChannelLimits, opset: int) -> None:
        self.choices, self.limits, self.opset = choices, limits, opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray[Any, Any]] = {}
        self.scope: list[Value] = []
        self.steps: Counter[str] = Counter()
        self._kinds: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        self._seed = choices.integer(0, 2**31 - 1)
        self._count = 0

    def chance(self, one_in: int) -> bool:
        """True once in so many times."""
        return self.choices.integer(1, one_in) == one_in

    def note(self, step: str) -> None:
        """Counts a spelling."""
        self.steps[step] += 1

    def fresh(self, hint: str) -> str:
        """A name that nothing in the model has."""
        self._count += 1
        return f"{hint}_{self._count}"

    def node(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        outputs: Sequence[Shape | None],
        *,
        dtype: str | Sequence[str] = "",
        **attributes: Any,
    ) -> list[Value]:
        """Adds a node.

        Args:
            op_type: Operator, with `domain` among the attributes if it is foreign.
            inputs: Values; None for a missing one.
            outputs: Shape of each; None for one that is left out.
            dtype: Types of the outputs; by default that of the first input.
            attributes: Those of the node.

        Returns:
            The outputs that are not left out.
        """
        inputs = list(inputs)
        while inputs and inputs[-1] is None:
            inputs.pop()
        default = inputs[0].dtype if inputs and inputs[0] is not None else "float32"
        dtypes = [dtype or default] * len(outputs) if isinstance(dtype, str) else list(dtype)
        made = [
            Value(self.fresh(op_type.lower()), tuple(shape), kind) if shape is not None else None
            for shape, kind in zip(outputs, dtypes, strict=True)
        ]
        self.nodes.append(
            helper.make_node(
                op_type,
                [value.name if value is not None else "" for value in inputs],
                [value.name if value is not None else "" for value in made],
                name=self.fresh(f"/{op_type}"),
                **attributes,
            )
        )
        return [value for value in made if value is not None]

    def op(
        self, op_type: str, inputs: Sequence[Value | None], shape: Shape, *, dtype: str = "", **attributes: Any
    ) -> Value:
        """Adds a node of one output; see `node`."""
        return self.node(op_type, inputs, [shape], dtype=dtype, **attributes)[0]

    def unary(self, op_type: str, value: Value, **attributes: Any) -> Value:
        """An elementwise operator of one operand."""
        return self.op(op_type, [value], value.shape, **attributes)

    def binary(self, op_type: str, *operands: Value, dtype: str = "") -> Value:
        """An elementwise operator of several operands, which are broadcast."""
        shape = operands[0].shape
        for operand in operands[1:]:
            shape = broadcast(shape, operand.shape)
        return self.op(op_type, operands, shape, dtype=dtype)

    def weight(self, shape: Sequence[int], kind: str = "bias", *, share: int = 4) -> Value:
        """An initializer of random numbers, perhaps one that exists: an exporter stores equal ones once.

        Args:
            shape: Its sizes.
            kind: "bias" (about 0), "scale" (about 1), "positive" (0.5 to 2), or "fan:K" for products of K terms.
            share: Once in so many times an existing one of this kind and shape is taken.
        """
        key = (kind, tuple(shape))
        same = self._kinds.setdefault(key, [])
        if same and self.chance(share):
            self.note("shared matrix" if kind.startswith("fan") else "shared vector")
            return Value(self.choices.pick(same), key[1])
        name = self.fresh("weight" if kind.startswith("fan") else kind)
        generator = np.random.default_rng((self._seed, zlib.crc32(name.encode())))
        array = generator.standard_normal(key[1])
        if kind == "bias":
            array = 0.3 * array
        elif kind == "scale":
            array = 1 + 0.3 * array
        elif kind == "positive":
            array = generator.uniform(0.5, 2.0, key[1])
        else:
            array = array / np.sqrt(float(kind.removeprefix("fan:")))
        self.weights[name] = np.asarray(array, "float32")
        same.append(name)
        return Value(name, key[1])

    def matrix(self, shape: Sequence[int], fan: int, *, share: int = 12) -> Value:
        """The weight of a product or a convolution; each output is a sum of `fan` terms."""
        return self.weight(shape, f"fan:{fan}", share=share)

    def constant(self, values: Any, dtype: str = "int64") -> Value:
        """An initializer of given numbers: an argument, a scalar, a table."""
        array = np.asarray(values, dtype)
        name = self.fresh("constant")
        self.weights[name] = array
        return Value(name, array.shape, dtype)

    def scalar(self, number: float) -> Value:
        """A float as an initializer without axes, or with one of size 1."""
        return self.constant(number if self.chance(2) else [number], "float32")

    def number(self, number: float) -> Value:
        """A float as an initializer without axes, as the bounds of Clip must be."""
        return self.constant(number, "float32")

    def optional_bias(self, width: int) -> Value | None:
        """A bias per channel, two times in three."""
        return None if self.chance(3) else self.weight((width,), "bias")

    def other_width(self) -> int:
        """A width for what comes out of a layer."""
        return self.choices.pick([width for width in WIDTHS if width <= self.limits.width] or [4])

    def divisor(self, number: int, options: Sequence[int]) -> int | None:
        """One of the options that divides a number."""
        fitting = [option for option in options if number % option == 0]
        return self.choices.pick(fitting) if fitting else None

    def channel_vector(self, value: Value, kind: str) -> Value:
        """A weight with one entry per channel that broadcasts against a value: [C], [C,1,1] or [1,C,1,1]."""
        width = value.width
        if value.layout != "image":
            shapes: list[tuple[int, ...]] = [(width,), (1, width), (*(1 for _ in value.shape[1:]), width)]
        else:
            shapes = [(1, width, 1, 1), (width, 1, 1)]
        return self.weight(self.choices.pick(shapes), kind)

    def earlier(self, fits: Callable[[Value], bool]) -> Value | None:
        """A value that an earlier block ended with; recent ones are likelier."""
        found = [value for value in self.scope if fits(value)]
        if not found:
            return None
        return self.choices.pick(found[-3:] if self.chance(2) else found)


def broadcast(first: Shape, second: Shape) -> Shape:
    """The shape of an elementwise operation on two shapes."""
    rank = max(len(first), len(second))
    one, other = (1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second
    sizes: list[Size] = []
    for left, right in zip(one, other, strict=True):
        assert left == right or 1 in (left, right), f"{first} and {second} do not broadcast"
        sizes.append(right if left == 1 else left)
    return tuple(sizes)


Block = Callable[[ChannelBuilder, Value], "Value | None"]
"""Adds its nodes after a value and gives the value it ends with; None, before adding anything, if it does not fit."""
