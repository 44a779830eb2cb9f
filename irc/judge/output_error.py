"""Relative output error: the part of the original's output variance that the candidate does not explain.

    error = sum |y - y'|^2 / sum |y - mean(y)|^2          (1 - R^2; 1 % is a signal-to-noise ratio of 20 dB)

The mean is over the samples, element by element, so that what is the same for all inputs does not hide an error; axes
that differ in size between samples are averaged too. Of generated samples, whose outputs may hardly vary for no reason of the
model's, the energy `sum |y|^2` takes the place of the variance. Integer, bool and string outputs count the elements that differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irc.judge.assessment import Score
from irc.judge.bounds import continuous_bound, counted_bound
from irc.judge.units import Array, Floats, UnitTable, as_float


class RunningMean:
    """Mean of arrays over samples, element by element; axes that vary in size are averaged over as well."""

    def __init__(self) -> None:
        self._total: Floats | None = None
        self._collapsed: tuple[int, ...] = ()
        self._count = 0

    def add(self, array: Array) -> None:
        """Adds one unit's array; numbers that are not finite count as zero."""
        values = as_float(array)
        values = np.where(np.isfinite(values), values, 0.0)
        if self._total is None:
            self._total, self._count = values.copy(), 1
            return
        if values.ndim != self._total.ndim:
            self._collapse(tuple(range(self._total.ndim)))
            self._total = self._total.reshape(())
            values, size = np.asarray(values.sum()), values.size
        else:
            sizes = zip(values.shape, self._total.shape, strict=True)
            self._collapse(tuple(axis for axis, (a, b) in enumerate(sizes) if a != b and axis not in self._collapsed))
            size = int(np.prod([values.shape[axis] for axis in self._collapsed]))
            values = values.sum(axis=self._collapsed, keepdims=True)
        self._total = self._total + values
        self._count += size

    def _collapse(self, axes: tuple[int, ...]) -> None:
        assert self._total is not None
        for axis in axes:
            if axis not in self._collapsed:
                self._count *= self._total.shape[axis]
        self._total = self._total.sum(axis=axes, keepdims=True)
        self._collapsed = tuple(sorted({*self._collapsed, *axes}))

    def deviation(self, values: Floats) -> float:
        """Sum of squares about the mean, without bias; about the array's own mean where there is one sample."""
        if self._total is None or self._count < 2:
            return float(((values - values.mean()) ** 2).sum()) if values.size else 0.0
        around = self._total / self._count
        return float(((values - around) ** 2).sum()) * self._count / (self._count - 1)


class OutputError:
    """Sums up the relative error of a candidate on one floating-point output.

    Args:
        output: Its name.
        mean: Mean of the original's output.
        synthetic: Whether the samples are generated: the error is then relative to the output's energy.
    """

    def __init__(self, output: str, mean: RunningMean, *, synthetic: bool = False) -> None:
        self._output, self._mean, self._synthetic = output, mean, synthetic
        self._table = UnitTable(3)

    def add(self, key: str, reference: Sequence[Array], candidate: Sequence[Array] | None) -> None:
        """Adds one sample; None for a candidate whose output has another shape: nothing of it is then explained."""
        for row, original in enumerate(reference):
            wanted = as_float(original)
            finite = np.isfinite(wanted)
            wanted = np.where(finite, wanted, 0.0)
            variance = self._mean.deviation(wanted)
            energy = float((wanted**2).sum())
            if candidate is None:
                error = variance or energy
            else:
                error = float((np.where(finite, as_float(candidate[row]) - wanted, 0.0) ** 2).sum())
            self._table.set(key, row, error, variance, energy)

    def scores(self) -> list[Score]:
        """The relative output error; against the energy of an output that never varies."""
        error, variance, energy = self._table.columns()
        if not len(error):
            return []
        total = float(energy.sum())
        # An output that is constant but for rounding has no variance to explain.
        scale = variance if variance.sum() > 1e-12 * total and not self._synthetic else energy
        if scale.sum() <= 0.0:
            loss, bound = float(bool(error.sum())), 1.0
        else:
            loss, bound = float(error.sum() / scale.sum()), continuous_bound(error, scale)
        decibels = f"{-10 * np.log10(loss):.1f} dB" if loss > 0 else "exact"
        return [
            Score(
                "explained output energy" if self._synthetic else "explained output variance",
                self._output,
                1.0,
                1.0 - loss,
                loss,
                bound,
                len(error),
                remarks=(decibels,),
            )
        ]


class Disagreement:
    """Counts the elements of an integer, bool or string output that differ from the original's."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._table = UnitTable(2)

    def add(self, key: str, reference: Sequence[Array], candidate: Sequence[Array] | None) -> None:
        """Adds one sample; None for a candidate whose output has another shape: all of it then differs."""
        for row, original in enumerate(reference):
            size = max(1, original.size)
            differing = size if candidate is None else int((candidate[row] != original).sum())
            self._table.set(key, row, differing, size)

    def scores(self) -> list[Score]:
        """The share of equal elements."""
        differing, size = self._table.columns()
        if not len(size):
            return []
        trials, differ = int(size.sum()), int(differing.sum())
        bound = counted_bound(differing, size, losses=differ, gains=0, harm=float(differ), trials=trials)
        return [
            Score("equal outputs", self._output, 1.0, 1.0 - differ / trials, differ / trials, bound, len(size), trials)
        ]
