"""From a statistic to the range that a quantizer covers.

An observer says which statistic it needs and turns it into an interval [low, high] within the extremes. Its text is what
the plan and the cache record.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, Literal

from irc.calibration.clipping_search import least_divergence, least_squares
from irc.calibration.densities import Density
from irc.calibration.statistics import AnyStatistic, Distribution, Extremes, Kind, MinMax
from irc.options import format_call

Calibrator = Literal["min-max", "mean", "percentile", "entropy", "mse"]


@dataclasses.dataclass(frozen=True)
class Observer(abc.ABC):
    """Turns a statistic into a range; its fields are what the result depends on.

    Attributes:
        name: The spelling in `quantize{calibrator=...}`.
        kind: The statistic it needs.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]

    @property
    def text(self) -> str:
        """Name and options, as in `percentile{percentile=99.9}`."""
        return format_call(self.name, self)

    @abc.abstractmethod
    def range(self, statistic: AnyStatistic) -> MinMax:
        """The range of a whole tensor; empty if nothing was seen."""

    def channel_ranges(self, statistic: AnyStatistic) -> tuple[MinMax, ...]:
        """A range per channel, of a statistic that has channels."""
        if isinstance(statistic, tuple):
            return tuple(self.range((one,)) for one in statistic)
        assert isinstance(statistic, Extremes)
        return tuple(self.range(statistic.part(i)) for i in range(statistic.low.shape[0]))


@dataclasses.dataclass(frozen=True)
class MinMaxObserver(Observer):
    """Covers everything that was seen."""

    name: ClassVar[str] = "min-max"
    kind: ClassVar[Kind] = "min-max"

    def range(self, statistic: AnyStatistic) -> MinMax:
        """The extremes."""
        assert isinstance(statistic, Extremes)
        return statistic.range


@dataclasses.dataclass(frozen=True)
class MeanObserver(Observer):
    """Covers what an average sample covers: the means of the extremes of the samples, each sample weighing the same."""

    name: ClassVar[str] = "mean"
    kind: ClassVar[Kind] = "min-max"

    def range(self, statistic: AnyStatistic) -> MinMax:
        """The means of the extremes."""
        assert isinstance(statistic, Extremes)
        return statistic.mean


@dataclasses.dataclass(frozen=True)
class _DistributionObserver(Observer):
    """Chooses the range by the distribution of the elements."""

    kind: ClassVar[Kind] = "distribution"

    def range(self, statistic: AnyStatistic) -> MinMax:
        """The chosen range, within the extremes."""
        assert isinstance(statistic, tuple)
        (distribution,) = statistic
        seen = distribution.range
        if seen.empty or seen.low == seen.high:
            return seen
        low, high = self._chosen(distribution)
        return MinMax(max(low, seen.low), min(high, seen.high), seen.count)

    @abc.abstractmethod
    def _chosen(self, distribution: Distribution) -> tuple[float, float]:
        """The interval; what exceeds the extremes is cut."""


@dataclasses.dataclass(frozen=True)
class PercentileObserver(_DistributionObserver):
    """Leaves out the elements of largest magnitude.

    Attributes:
        percentile: Share of the elements within the range, in percent, above 50.
    """

    name: ClassVar[str] = "percentile"

    percentile: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile is {self.percentile}; it must be above 50 and at most 100")

    def _chosen(self, distribution: Distribution) -> tuple[float, float]:
        threshold = Density.of_magnitudes(distribution).quantile(self.percentile / 100)
        return -threshold, threshold


@dataclasses.dataclass(frozen=True)
class EntropyObserver(_DistributionObserver):
    """Takes the threshold that keeps most information: the least Kullback-Leibler divergence of the quantized distribution.

    Source: S. Migacz, 8-bit Inference with TensorRT, GTC 2017. A range that is all of one sign has all levels on that
    side; another is clipped at equal distance on both sides. Zeros are left out: every quantizer represents them.

    Attributes:
        levels: Quantization levels, 256 for uint8, 255 for symmetric int8.
    """

    name: ClassVar[str] = "entropy"

    levels: int = 256

    def _chosen(self, distribution: Distribution) -> tuple[float, float]:
        one_sided = distribution.range.low >= 0 or distribution.range.high <= 0
        levels = self.levels if one_sided and self.levels % 2 == 0 else (self.levels + 1) // 2
        threshold = least_divergence(Density.of_magnitudes(distribution), levels)
        return -threshold, threshold


@dataclasses.dataclass(frozen=True)
class MseObserver(_DistributionObserver):
    """Takes the range whose quantizer has the least mean squared error, rounding and clipping together.

    Attributes:
        levels: Quantization levels, 256 for uint8, 255 for symmetric int8.
        symmetric: Whether the range is to be symmetric about zero.
    """

    name: ClassVar[str] = "mse"

    levels: int = 256
    symmetric: bool = False

    def _chosen(self, distribution: Distribution) -> tuple[float, float]:
        density, rough = Density.of(distribution), Density.of(distribution, rough=True)
        low, high = min(distribution.range.low, 0.0), max(distribution.range.high, 0.0)
        return least_squares(density, rough, low, high, levels=self.levels, symmetric=self.symmetric)


def observer_for(calibrator: Calibrator, *, percentile: float, levels: int, symmetric: bool) -> Observer:
    """The observer of a calibrator's name.

    Args:
        calibrator: The name.
        percentile: For "percentile".
        levels: Of the quantizer.
        symmetric: Whether the quantizer has its zero in the middle.
    """
    if calibrator == "percentile":
        return PercentileObserver(percentile)
    if calibrator == "entropy":
        return EntropyObserver(levels)
    if calibrator == "mse":
        return MseObserver(levels, symmetric)
    return MeanObserver() if calibrator == "mean" else MinMaxObserver()
