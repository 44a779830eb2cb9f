"""Decide how the weight of one layer is rounded to blocks: to the nearest, or compensated through the gram of its inputs.

Both are fitted on one half of the samples and measured on the other; what wins there is fitted again on all of them.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from irc.calibration.compensation import Projection, compensate, relative_error
from irc.passes.quantization.block_format import Array, BlockFormat, BlockWeight, best, rounded

DAMPINGS = (0.01, 0.05, 0.25)
"""Tried in turn: the more samples there are to a channel, the less damping serves best."""
SWEEPS = 2
"""Four would lower the error by another percent, in twice the time."""
DECIDING_ROWS = 1024
"""Output channels that are looked at, evenly spread; each is rounded for itself."""
LEAST_GAIN = 0.01
"""Share by which the held-out error has to fall for compensation to be worth it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rounding:
    """A rounded weight and why it is rounded so.

    Attributes:
        weight: The weight in blocks.
        method: "nearest" or "compensated".
        nearest_error: Relative error energy of the layer's output on held-out samples, rounded to the nearest; None if unknown.
        compensated_error: Likewise, compensated.
    """

    weight: BlockWeight
    method: Literal["nearest", "compensated"]
    nearest_error: float | None = None
    compensated_error: float | None = None


class FixedGrid(Projection):
    """Projection to the levels of given scales.

    Args:
        format: The grid.
        scales: `[C_out, blocks]`.
        zeros: Likewise.
    """

    def __init__(self, format: BlockFormat, scales: Array, zeros: Array) -> None:
        self.format, self.scales, self.zeros = format, scales, zeros

    def project(self, values: Array, column: int) -> Array:
        """The nearest levels, as numbers."""
        block = column // self.format.block_size
        return self.format.nearest(values, self.scales[:, block], self.zeros[:, block])


class ChosenGrid(FixedGrid):
    """Projection that chooses the scales of a block on entry, by what its rounding will cost with compensation inside of it.

    The cost of a candidate is exact for the block: its columns are rounded one after another, each error compensated in the rest of
    the block, later blocks free. Candidates are first ranked without that.
    """

    def __init__(self, format: BlockFormat, shape: tuple[int, ...]) -> None:
        blocks = (shape[0], format.blocks(shape[1]))
        super().__init__(format, np.ones(blocks, np.float32), np.zeros(blocks, np.float32))
        self.group_width = format.block_size

    def enter(self, weights: Array, columns: Array, stiffness: Array) -> None:
        """Chooses the scales."""
        # With S = (U^T U)^-1 and U upper triangular, R = U^-1 is the factor of S = R R^T.
        factor = np.linalg.inv(np.linalg.cholesky(stiffness[::-1, ::-1])[::-1, ::-1])
        factor = (factor / factor[-1, -1]).astype(np.float32)
        diagonal = np.diagonal(factor)
        single = 1.0 / (diagonal * diagonal)

        def cost(rows: Array, scale: Array, zero: Array) -> Array:
            difference = rows - self.format.nearest(rows, scale, zero)
            return np.asarray(np.einsum("ij,ij,i->j", difference, difference, single))

        def finer(rows: Array, scale: Array, zero: Array) -> Array:
            work, total = rows.copy(), np.zeros(rows.shape[1], np.float32)
            for j in range(len(work)):
                error = (work[j] - self.format.nearest(work[j], scale, zero)) / diagonal[j]
                total += error * error
                work[j + 1 :] -= factor[j, j + 1 :, None] * error
            return total

        block = int(columns[0]) // self.format.block_size
        self.scales[:, block], self.zeros[:, block] = best(np.ascontiguousarray(weights.T), self.format, cost, finer)


def compensated(weight: Array, gram: Array, format: BlockFormat, *, damping: float) -> BlockWeight:
    """A weight in blocks, rounded so that the layer's output changes little.

    Args:
        weight: `[C_out, K]` float32.
        gram: `[K, K]`.
        format: The grid.
        damping: As `compensate` takes it.
    """
    grid = ChosenGrid(format, weight.shape)
    values = compensate(weight, gram, grid, damping=damping, sweeps=SWEEPS)
    # The values are exactly on the grid, so that rounding them to the nearest finds the levels again.
    return BlockWeight.of(values, format, grid.scales, grid.zeros)


def decide(
    weight: Array,
    fit: Array,
    held: Array | None,
    format: BlockFormat,
    *,
    always: bool = False,
) -> Rounding:
    """The better rounding of a weight.

    Args:
        weight: `[C_out, K]` float32.
        fit: Gram of one half of the samples, `[K, K]`.
        held: Gram of the other half; None where there is only one sample, and then nothing shows that compensation helps.
        format: The grid.
        always: Compensate, whatever the measurement says.
    """
    both = fit if held is None else fit + held
    if held is None:
        if always:
            return Rounding(compensated(weight, both, format, damping=DAMPINGS[1]), "compensated")
        return Rounding(rounded(weight, format, np.diagonal(both)), "nearest")
    some = weight[np.linspace(0, len(weight) - 1, min(len(weight), DECIDING_ROWS)).astype(np.intp)]
    weighted, nearest = rounded(some, format, np.diagonal(fit)), rounded(some, format)
    before, alike = (relative_error(some, found.values, held) for found in (weighted, nearest))
    # Few samples say little of what an input counts; then all inputs count the same.
    if trusted := before < alike:
        nearest = weighted
    before = min(before, alike)
    grid = FixedGrid(format, nearest.scales, nearest.zero_points.astype(np.float32))
    errors = [relative_error(some, compensate(some, fit, grid, damping=share), held) for share in DAMPINGS]
    damping = DAMPINGS[int(np.argmin(errors))]
    after = relative_error(some, compensated(some, fit, format, damping=damping).values, held)
    if not always and not after <= (1 - LEAST_GAIN) * before:
        plain = rounded(weight, format, np.diagonal(both) if trusted else None)
        return Rounding(plain, "nearest", before, after)
    return Rounding(compensated(weight, both, format, damping=damping), "compensated", before, after)
