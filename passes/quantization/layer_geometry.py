"""How rows of an activation and matrices of a weight lie in the tensors of a Conv, Gemm or MatMul; numbers in, numbers out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]


class Geometry(Protocol):
    """Where the rows and matrices of a layer are. Equal geometries take equal rows of the same value."""

    @property
    def groups(self) -> int:
        """G."""

    @property
    def inputs(self) -> int:
        """K."""

    @property
    def outputs(self) -> int:
        """N, of one group."""

    def __hash__(self) -> int: ...

    def channel_of_input(self) -> Array:
        """`[G, K]`: channels of the input."""

    def matrices(self, weight: Array) -> Array:
        """`[G, K, N]`."""

    def tensor(self, matrices: Array) -> Array:
        """The inverse of `matrices`."""

    def by_output(self, channels: Array) -> Array:
        """`[channels]` of the weight's output axis to `[G, N]`."""

    def of_channels(self, outputs: Array) -> Array:
        """`[G, N]` to `[channels]`."""

    def row_count(self, shape: tuple[int, ...]) -> int:
        """How many rows an input has."""

    def rows(self, x: Array, positions: Array) -> Array:
        """`[G, R, K]`."""


@dataclasses.dataclass(frozen=True)
class Product:
    """A MatMul or Gemm.

    Attributes:
        weight_shape: Of the constant.
        transposed_weight: Whether the constant is `[N, K]`.
        transposed_input: Whether the input is `[K, M]`.
    """

    weight_shape: tuple[int, ...]
    transposed_weight: bool = False
    transposed_input: bool = False

    @property
    def _batch(self) -> tuple[int, ...]:
        """Leading dimensions of a constant that is a stack of matrices."""
        return self.weight_shape[:-2] if math.prod(self.weight_shape[:-2]) > 1 else ()

    @property
    def _matrix(self) -> tuple[int, int]:
        """The constant's last two dimensions, a vector being a column."""
        return (*self.weight_shape, 1)[:2] if len(self.weight_shape) == 1 else self.weight_shape[-2:]  # type: ignore[return-value]

    @property
    def groups(self) -> int:
        """One per matrix of a stack."""
        return math.prod(self._batch)

    @property
    def inputs(self) -> int:
        """K."""
        return self._matrix[1] if self.transposed_weight else self._matrix[0]

    @property
    def outputs(self) -> int:
        """N."""
        return self._matrix[0] if self.transposed_weight else self._matrix[1]

    def channel_of_input(self) -> Array:
        """The last axis of the input, or the first where that is transposed."""
        return np.broadcast_to(np.arange(self.inputs), (self.groups, self.inputs))

    def matrices(self, weight: Array) -> Array:
        """`[G, K, N]`."""
        stack = weight.reshape(self.groups, *self._matrix)
        return stack.swapaxes(1, 2) if self.transposed_weight else stack

    def tensor(self, matrices: Array) -> Array:
        """The inverse of `matrices`."""
        stack = matrices.swapaxes(1, 2) if self.transposed_weight else matrices
        return np.ascontiguousarray(stack).reshape(self.weight_shape)

    def by_output(self, channels: Array) -> Array:
        """Every matrix of a stack has the same."""
        return np.broadcast_to(channels.reshape(1, -1), (self.groups, self.outputs))

    def of_channels(self, outputs: Array) -> Array:
        """The mean over a stack."""
        return np.asarray(outputs.mean(axis=0))

    def row_count(self, shape: tuple[int, ...]) -> int:
        """Rows of one group."""
        if not self._batch:
            return math.prod(shape) // self.inputs
        return math.prod(self._broadcast(shape)) // (self.groups * self.inputs)

    def rows(self, x: Array, positions: Array) -> Array:
        """`[G, R, K]`."""
        if not self._batch:
            flat = x.T if self.transposed_input else x.reshape(-1, self.inputs)
            return flat[positions][None]
        shape = self._broadcast(x.shape)
        axes = range(len(shape) - 2)
        lead = len(axes) - len(self._batch)
        # A stack of one matrix along an axis has that axis among its rows.
        stacked = [axis for axis in axes if axis >= lead and self._batch[axis - lead] > 1]
        wide = np.broadcast_to(x, shape)
        order = [*stacked, *(axis for axis in axes if axis not in stacked), len(shape) - 2, len(shape) - 1]
        return wide.transpose(order).reshape(self.groups, -1, self.inputs)[:, positions]

    def _broadcast(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The input's shape when it meets a stack."""
        rows = shape[-2] if len(shape) > 1 else 1
        return (*np.broadcast_shapes(shape[:-2], self._batch), rows, self.inputs)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A Conv of any number of spatial dimensions; a row is a patch.

    Attributes:
        weight_shape: `[C_out, C_in / G, *kernel]`.
        groups: G.
        strides: By spatial dimension.
        dilations: By spatial dimension.
        pads: Begin and end by spatial dimension; for "SAME_*" they follow from the input.
        same: "", "upper" or "lower".
    """

    weight_shape: tuple[int, ...]
    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    same: str = ""

    @property
    def _kernel(self) -> tuple[int, ...]:
        return self.weight_shape[2:]

    @property
    def inputs(self) -> int:
        """K."""
        return math.prod(self.weight_shape[1:])

    @property
    def outputs(self) -> int:
        """N."""
        return self.weight_shape[0] // self.groups

    def channel_of_input(self) -> Array:
        """The second axis of the input."""
        channels = np.arange(self.groups * self.weight_shape[1]).reshape(self.groups, -1)
        return np.repeat(channels, math.prod(self._kernel), axis=1)

    def matrices(self, weight: Array) -> Array:
        """`[G, K, N]`."""
        return weight.reshape(self.groups, self.outputs, self.inputs).swapaxes(1, 2)

    def tensor(self, matrices: Array) -> Array:
        """The inverse of `matrices`."""
        return np.ascontiguousarray(matrices.swapaxes(1, 2)).reshape(self.weight_shape)

    def by_output(self, channels: Array) -> Array:
        """Output channels go group by group."""
        return channels.reshape(self.groups, self.outputs)

    def of_channels(self, outputs: Array) -> Array:
        """Output channels go group by group."""
        return outputs.reshape(-1)

    def row_count(self, shape: tuple[int, ...]) -> int:
        """Output positions, of all samples of the batch."""
        return shape[0] * math.prod(size for size, _ in self._windows(shape[2:]))

    def rows(self, x: Array, positions: Array) -> Array:
        """`[G, R, K]`."""
        windows = self._windows(x.shape[2:])
        batch, *places = np.unravel_index(positions, (x.shape[0], *(size for size, _ in windows)))
        count, depth = len(positions), len(windows)
        linear = np.zeros((count, *[1] * depth), np.int64)
        inside = np.ones((count, *[1] * depth), bool)
        for axis, (place, (_, pad)) in enumerate(zip(places, windows, strict=True)):
            taps = np.arange(self._kernel[axis]) * self.dilations[axis]
            at = place[:, None] * self.strides[axis] - pad + taps
            size = x.shape[2 + axis]
            shape = [count, *[1] * depth]
            shape[1 + axis] = len(taps)
            linear = linear * size + np.clip(at, 0, max(size - 1, 0)).reshape(shape)
            inside = inside & ((at >= 0) & (at < size)).reshape(shape)
        taps_in_patch = math.prod(self._kernel)
        linear, inside = linear.reshape(count, taps_in_patch), inside.reshape(count, taps_in_patch)
        channels = np.arange(x.shape[1])[None, :, None]
        flat = x.reshape(x.shape[0], x.shape[1], -1)
        patches = flat[batch[:, None, None], channels, linear[:, None, :]]
        patches = np.where(inside[:, None, :], patches, patches.dtype.type(0))
        return patches.reshape(count, self.groups, self.inputs).swapaxes(0, 1)

    def _windows(self, spatial: Sequence[int]) -> list[tuple[int, int]]:
        """By spatial dimension, how many output positions there are and how far the first one reaches out."""
        found = []
        for axis, size in enumerate(spatial):
            reach = (self._kernel[axis] - 1) * self.dilations[axis] + 1
            stride = self.strides[axis]
            if self.same:
                positions = -(-size // stride)
                total = max(0, (positions - 1) * stride + reach - size)
                found.append((positions, total // 2 if self.same == "upper" else total - total // 2))
            else:
                begin, end = self.pads[axis]
                found.append((max(0, (size + begin + end - reach) // stride + 1), begin))
        return found


def geometry_of(node: ir.Node, weight_shape: tuple[int, ...], *, transposed: bool) -> Geometry | None:
    """The geometry of an operator; None for what is no Conv, Gemm or MatMul or does not fit its weight.

    Args:
        node: The operator.
        weight_shape: Of its constant.
        transposed: Whether a Transpose stands between the constant and the operator.
    """
    attributes = node.attributes
    if node.op_type == "MatMul":
        return Product(weight_shape, transposed_weight=transposed) if weight_shape else None
    if node.op_type == "Gemm":
        flipped = bool(attributes.get_int("transB", 0)) != transposed
        return Product(weight_shape, flipped, bool(attributes.get_int("transA", 0))) if len(weight_shape) == 2 else None
    depth = len(weight_shape) - 2
    groups = attributes.get_int("group", 1)
    if node.op_type != "Conv" or depth < 1 or weight_shape[0] % groups:
        return None
    pads = attributes.get_ints("pads", [0] * (2 * depth))
    automatic = attributes.get_string("auto_pad", "NOTSET")
    same = {"SAME_UPPER": "upper", "SAME_LOWER": "lower"}.get(automatic or "", "")
    none = automatic != "NOTSET"
    return Convolution(
        weight_shape,
        groups,
        tuple(attributes.get_ints("strides", [1] * depth)),
        tuple(attributes.get_ints("dilations", [1] * depth)),
        tuple((0, 0) if none else (pads[axis], pads[axis + depth]) for axis in range(depth)),
        same,
    )
