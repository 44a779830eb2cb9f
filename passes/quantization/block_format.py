"""Integer weights in blocks: which numbers a block of a row may hold, and the scale that suits it best.

    w ~ scale * (level - zero_point),   one scale (and zero point) per output channel and block of consecutive inputs

Symmetric scales may be negative where the runtime takes that: the integer range has one level more on one side, and the sign of
the scale says which side of the block needs it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]
SMALLEST_SCALE = np.float32(np.finfo(np.float32).tiny * 256)
STEPS = 24
LARGEST_SHARE = 1.1
_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class BlockFormat:
    """A grid of integers per block.

    Attributes:
        bits: 2 to 8.
        block_size: Inputs that share a scale.
        symmetric: Zero point 0; otherwise one zero point per block.
        signed_scales: Whether scales of a symmetric format may be negative.
    """

    bits: int = 4
    block_size: int = 32
    symmetric: bool = True
    signed_scales: bool = True

    @property
    def low(self) -> int:
        """The smallest level."""
        return -(1 << (self.bits - 1)) if self.symmetric else 0

    @property
    def high(self) -> int:
        """The largest level."""
        return self.low + (1 << self.bits) - 1

    @property
    def dtype(self) -> ir.DataType:
        """The smallest standard type of opset 21 that holds the levels."""
        if self.bits <= 4:
            return ir.DataType.INT4 if self.symmetric else ir.DataType.UINT4
        return ir.DataType.INT8 if self.symmetric else ir.DataType.UINT8

    @property
    def is_simulated(self) -> bool:
        """Whether the storage has more levels than are used."""
        return self.bits not in (4, 8)

    @property
    def bits_per_weight(self) -> float:
        """What an element takes in a file, scales included."""
        return self.dtype.itemsize * 8 + (32 + (0 if self.symmetric else self.dtype.itemsize * 8)) / self.block_size

    def blocks(self, columns: int) -> int:
        """How many blocks cover a number of columns; the last may be narrower."""
        return -(-columns // self.block_size)

    def spread(self, by_block: Array, columns: int) -> Array:
        """`[C_out, blocks]` as `[C_out, columns]`."""
        return np.repeat(by_block, self.block_size, axis=1)[:, :columns]

    def candidates(self, block: Array) -> Iterator[tuple[Array, Array]]:
        """Scales and zero points worth trying for one block of every row, each `[C_out]` float32.

        Args:
            block: `[g, C_out]`.
        """
        yield self.widest(block)
        highest, lowest = block.max(0, initial=0.0), block.min(0, initial=0.0)
        least = 0.5 if self.bits >= 4 else 0.25
        shares = np.linspace(least, LARGEST_SHARE, STEPS, dtype=np.float32)
        if self.symmetric:
            step = np.maximum(np.maximum(highest, -lowest) / np.float32((1 << self.bits) - 1) * 2, SMALLEST_SCALE)
            zero = np.zeros_like(step)
            for sign in (1, -1) if self.signed_scales else (1,):
                for share in shares:
                    yield np.maximum(step * share, SMALLEST_SCALE) * np.float32(sign), zero
            return
        step = np.maximum((highest - lowest) / np.float32(self.high), SMALLEST_SCALE)
        middle = np.rint(-lowest / step)
        for shift in (0, 1, -1):
            zero = np.clip(middle + np.float32(shift), 0, self.high).astype(np.float32)
            for share in shares:
                yield np.maximum(step * share, SMALLEST_SCALE), zero

    def widest(self, block: Array) -> tuple[Array, Array]:
        """The scale and zero point by the largest magnitude of a block, without search."""
        highest, lowest = block.max(0, initial=0.0), block.min(0, initial=0.0)
        if self.symmetric:
            step = np.maximum(highest, -lowest) / np.float32(self.high)
            return np.maximum(step, SMALLEST_SCALE).astype(np.float32), np.zeros_like(step)
        step = np.maximum((highest - lowest) / np.float32(self.high), SMALLEST_SCALE).astype(np.float32)
        return step, np.clip(np.rint(-lowest / step), 0, self.high).astype(np.float32)

    def levels(self, values: Array, scale: Array, zero: Array) -> Array:
        """The nearest levels, float32; scale and zero point broadcast against the values."""
        work = np.divide(values, scale, dtype=np.float32)
        np.rint(work, out=work)
        work += zero
        return np.clip(work, np.float32(self.low), np.float32(self.high), out=work)

    def nearest(self, values: Array, scale: Array, zero: Array) -> Array:
        """The nearest numbers of the grid, float32."""
        work = self.levels(values, scale, zero)
        work -= zero
        work *= scale
        return work


@dataclasses.dataclass(frozen=True, eq=False)
class BlockWeight:
    """A weight in blocks.

    Attributes:
        format: Its grid.
        levels: `[C_out, K]`, int8 or uint8, whatever the storage.
        scales: `[C_out, blocks]` float32.
        zero_points: `[C_out, blocks]`, of the type of the levels.
    """

    format: BlockFormat
    levels: Array
    scales: Array
    zero_points: Array

    @classmethod
    def of(cls, weight: Array, format: BlockFormat, scales: Array, zeros: Array) -> BlockWeight:
        """A weight, each element rounded to the nearest."""
        columns = weight.shape[1]
        levels = format.levels(weight, format.spread(scales, columns), format.spread(zeros, columns))
        integer = np.int8 if format.symmetric else np.uint8
        return cls(format, levels.astype(integer), scales, zeros.astype(integer))

    @property
    def values(self) -> Array:
        """`[C_out, K]` float32: the weight that the operator sees."""
        columns = self.levels.shape[1]
        zeros = self.format.spread(self.zero_points.astype(np.float32), columns)
        return np.asarray((self.levels.astype(np.float32) - zeros) * self.format.spread(self.scales, columns))


def rounded(weight: Array, format: BlockFormat, importance: Array | None = None, *, search: bool = True) -> BlockWeight:
    """Rounds a weight to the nearest levels, with the scales of least weighted squared error.

    Args:
        weight: `[C_out, K]` float32.
        format: The grid.
        importance: `[K]`, non-negative: what an error at an input counts, its mean square; None for all the same.
        search: False takes the scales that just hold the largest magnitude.
    """
    columns = weight.shape[1]
    counts = np.ones(columns, np.float32) if importance is None else balanced(importance)
    scales = np.empty((len(weight), format.blocks(columns)), np.float32)
    zeros = np.empty_like(scales)
    for index in range(scales.shape[1]):
        part = slice(index * format.block_size, (index + 1) * format.block_size)
        block = np.ascontiguousarray(weight[:, part].T)
        if not search:
            scales[:, index], zeros[:, index] = format.widest(block)
            continue

        def cost(rows: Array, scale: Array, zero: Array, part: slice = part) -> Array:
            difference = rows - format.nearest(rows, scale, zero)
            return np.asarray(np.einsum("ij,ij,i->j", difference, difference, counts[part]))

        scales[:, index], zeros[:, index] = best(block, format, cost)
    return BlockWeight.of(weight, format, scales, zeros)


def best(
    block: Array,
    format: BlockFormat,
    cost: Callable[[Array, Array, Array], Array],
    finer: Callable[[Array, Array, Array], Array] | None = None,
    *,
    finalists: int = 6,
) -> tuple[Array, Array]:
    """The scale and zero point of least cost for one block of every row, `[C_out]` each.

    Args:
        block: `[g, C_out]` float32.
        format: The grid.
        cost: `cost(block [g, R], scales [R], zeros [R]) -> [R]`.
        finer: A dearer cost by which the finalists of the first are compared.
        finalists: How many.
    """

    def chosen(rows: Array) -> tuple[Array, Array]:
        # In units of the row: squares of very large or small weights leave float32.
        unit = np.abs(rows).max(0, initial=0.0)
        unit[unit < SMALLEST_SCALE] = 1.0
        rows = rows / unit
        pairs = list(format.candidates(rows))
        scales, zeros = (np.stack(each) for each in zip(*pairs, strict=True))
        costs = np.stack([cost(rows, *pair) for pair in pairs])
        at = np.arange(rows.shape[1])
        if finer is None:
            found = costs.argmin(0)
        else:
            short = np.argsort(costs, axis=0, kind="stable")[:finalists]
            fine = np.stack([finer(rows, scales[index, at], zeros[index, at]) for index in short])
            found = short[fine.argmin(0), at]
        return np.maximum(np.abs(scales[found, at]) * unit, SMALLEST_SCALE) * np.sign(scales[found, at]), zeros[
            found, at
        ]

    starts = range(0, block.shape[1], _CHUNK)
    if len(starts) == 1:
        return chosen(block)
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        parts = list(pool.map(lambda start: chosen(np.ascontiguousarray(block[:, start : start + _CHUNK])), starts))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def balanced(importance: Array) -> Array:
    """Importances as float32 with mean 1 and none without any weight."""
    wide = np.maximum(importance.astype(np.float64), 0.0)
    mean = float(wide.mean()) if wide.size else 0.0
    return np.ones(len(wide), np.float32) if mean <= 0 else (wide / mean + 1e-3).astype(np.float32)
