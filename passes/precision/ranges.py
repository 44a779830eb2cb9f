"""The extremes of float values over the data, infinities allowed: a mask may hold them, and a narrow type holds them too."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from irc.calibration import DataSource
from irc.calibration.observation_sweep import sweep
from irc.calibration.reductions import ReducedModel
from irc.runner import Runner


@dataclasses.dataclass(frozen=True)
class Range:
    """The extremes of a value.

    Attributes:
        low: Smallest, possibly minus infinity.
        high: Largest, possibly infinity.
    """

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        """The larger of the finite ends, taken absolutely."""
        return max((abs(end) for end in (self.low, self.high) if math.isfinite(end)), default=0.0)


def observed_ranges(
    runner: Runner,
    model: ir.Model,
    source: DataSource,
    values: Sequence[str],
    *,
    progress: Callable[[float, str], None] = lambda fraction, what: None,
) -> Mapping[str, Range]:
    """The range of every value that was seen, by name, in one sweep; inside the runtime only numbers are kept.

    Args:
        runner: Where the model runs.
        model: Unchanged.
        source: Every sample counts.
        values: Names of float values, also of those in bodies.
        progress: Told the share done.

    Raises:
        DataError: If the model does not run on a sample.
        RunnerError: If the runtime refuses the model, or dies.
    """
    reduced = ReducedModel(model, list(values))
    names = []
    for name in dict.fromkeys(values):
        value = reduced.value(name)
        if value is not None:
            reduced.reduce("ReduceMin", value)
            reduced.reduce("ReduceMax", value)
            names.append(name)
    if not names:
        return {}
    low, high = np.full(len(names), math.inf), np.full(len(names), -math.inf)
    for _, numbers in sweep(runner, reduced, source, "observing ranges", progress):
        pairs = numbers.reshape(-1, 2)
        low, high = np.fmin(low, pairs[:, 0]), np.fmax(high, pairs[:, 1])
    return {name: Range(float(a), float(b)) for name, a, b in zip(names, low, high, strict=True) if a <= b}
