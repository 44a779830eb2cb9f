"""Run the data through a model and gather statistics of its values: as few sweeps as the memory budget allows.

Numbers are reduced inside the runtime and read after every sample. Codes for histograms and grams stay in the runtime
process, which adds them up; what the codes of one sample may take there is the budget, and values that do not fit into
it together are observed in further sweeps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.data import DataSource, Sample
from irc.calibration.memory_packing import packed
from irc.calibration.observed_model import ObservedModel
from irc.calibration.reductions import ReducedModel
from irc.calibration.statistics import (
    AnyStatistic,
    Distribution,
    Extremes,
    Gram,
    MinMax,
    Moments,
    Observable,
    Observations,
)
from irc.errors import DataError, RunnerError
from irc.runner import Feed, Opened, Runner
from irc.runner.histogram import LARGEST_HALF, SMALLEST_MAXIMUM, Histogram
from irc.runner.observation import Observation

Progress = Callable[[float, str], None]
Numbers = np.ndarray[Any, np.dtype[np.float64]]

BUDGET_BYTES = 256 << 20
"""Default of what the codes and grams of one sample may take in the runtime process, besides what the model takes."""
EARLIEST_STOP = 32
_CENTRE = 6
"""A scale brings the largest magnitude into [2^6, 2^7): room to grow a thousandfold."""
_LARGEST_EXPONENT = 120
_serial = itertools.count()


def observe(
    runner: Runner,
    model: ir.Model,
    source: DataSource,
    observables: Sequence[Observable],
    *,
    budget_bytes: int = BUDGET_BYTES,
    progress: Progress = lambda fraction, what: None,
    early_stop: float | None = None,
) -> Observations:
    """Runs the data and gathers statistics.

    The runtime's minimum and maximum may step over a NaN, so each value is summed as well: a NaN makes the sum NaN.

    Args:
        runner: Where the model runs.
        model: Unchanged.
        source: Every sample counts; samples may differ in shape.
        observables: What to observe; values that cannot be are in `Observations.missing`.
        budget_bytes: What the codes and grams of one sample may take.
        progress: Told the share done.
        early_stop: Stop at 32, 64, 128, ... samples if the second half of them widened no range by more than this share;
            None uses every sample. Grams and moments then come from as many samples.

    Raises:
        DataError: If a value is not finite on some sample, or the model does not run on it; the message names both.
        RunnerError: If the runtime refuses the model, or dies.
    """
    wanted = list(dict.fromkeys(observables))
    total = len(source)
    result = Observations({}, {}, 0, total)
    first = next(iter(source.samples()), None) if wanted else None
    groups = packed(model, wanted, first.feed if first is not None else {}, budget_bytes)
    limit: int | None = None
    for index, group in enumerate(groups):
        sweeping = _Sweep(runner, model, group, f"sweep {index + 1} of {len(groups)}, " if len(groups) > 1 else "")

        def share(fraction: float, what: str, done: int = index) -> None:
            progress((done + fraction) / len(groups), what)

        found = sweeping.run(source, share, limit, early_stop if limit is None else None)
        result.missing |= found.missing
        result.found |= found.found
        result.samples = max(result.samples, found.samples)
        limit = found.samples if early_stop is not None else None
    order = {observable: position for position, observable in enumerate(wanted)}
    result.found = dict(sorted(result.found.items(), key=lambda item: order[item[0]]))
    return result


class _Sweep:
    """One sweep over the samples for some observables."""

    def __init__(self, runner: Runner, model: ir.Model, group: Sequence[Observable], label: str) -> None:
        self._runner, self._model, self._group, self._label = runner, model, group, label
        self._exponents: dict[str, int] = {}
        self._observed = ObservedModel(model, group, self._exponents)
        self._name = f"observation {next(_serial)}"
        self._ranged = [o for o in self._observed.observables if _is_scalar_range(o)]
        self._channels = [o for o in self._observed.observables if o.kind == "min-max" and o.axis is not None]
        self._summed = [o for o in self._observed.observables if o.kind in ("moments", "gram")]
        self._extremes = Extremes.nothing((len(self._ranged),))
        self._by_channel: dict[Observable, Extremes] = {}
        self._moments: dict[Observable, Moments] = {}
        self._counts: dict[Observable, float] = {}

    def run(self, source: DataSource, progress: Progress, limit: int | None, early_stop: float | None) -> Observations:
        found = Observations({}, dict(self._observed.missing))
        if not self._observed.observables:
            return found
        opened = self._runner.open(self._observed.finish())
        total = len(source) if limit is None else limit
        widths: dict[int, Numbers] = {}
        try:
            for index, sample in enumerate(itertools.islice(source.samples(), limit)):
                progress(index / max(total, 1), f"{self._label}calibrating, sample {index + 1} of {total}")
                while True:
                    outputs = self._fetch(opened, sample)
                    numbers = self._observed.read(outputs)
                    lows, highs = self._checked(numbers, outputs, sample)
                    if not self._rescaled(lows, highs):
                        break
                    _close(opened)
                    self._observed = ObservedModel(self._model, self._group, self._exponents)
                    opened = self._runner.open(self._observed.finish())
                self._take(lows, highs, numbers, outputs)
                found.samples += 1
                if early_stop is not None and self._settled(found.samples, widths, early_stop):
                    break
            progress(1.0, f"{self._label}calibrating, {found.samples} samples done")
            kept = self._runner.observed(self._name) if self._observed.kept and found.samples else Observation()
        finally:
            _close(opened)
        found.found = self._results(kept)
        return found

    def _fetch(self, opened: Opened, sample: Sample) -> dict[str, Any]:
        kept = list(self._observed.kept.values())
        if not kept:
            return _run(opened.run, sample)
        return _run(lambda feed: opened.fetch(feed, self._name, kept), sample)

    def _checked(self, numbers: Numbers, outputs: Mapping[str, Any], sample: Sample) -> tuple[Numbers, Numbers]:
        """The extremes of one sample by ranged observable, finite, or infinite the wrong way round for no element."""

        def three(observable: Observable) -> tuple[float, float, float]:
            low, high, total = (
                self._observed.number(observable, what, numbers, outputs)
                for what in ("ReduceMin", "ReduceMax", "ReduceSum")
            )
            return float(low.min(initial=math.inf)), float(high.max(initial=-math.inf)), float(total)

        ranged = [three(observable) for observable in self._ranged]
        for observable, (low, high, total) in zip(
            (*self._ranged, *self._channels), (*ranged, *map(three, self._channels)), strict=True
        ):
            if math.isfinite(low) and math.isfinite(high):
                if math.isnan(total):
                    _refuse_nan(self._runner, self._model, observable.value_name, sample)
            elif not (low == math.inf and high == -math.inf and total == 0):
                what = "NaN" if any(map(math.isnan, (low, high, total))) else "infinity"
                raise not_finite(observable.value_name, sample, what)
        lows, highs = np.array(ranged, np.float64).reshape(-1, 3)[:, :2].T
        return lows, highs

    def _rescaled(self, lows: Numbers, highs: Numbers) -> bool:
        """Whether codes of this sample have to be taken again, at another scale."""
        changed = False
        largest = np.maximum(-np.minimum(lows, 0), np.maximum(highs, 0))
        before = np.maximum(-np.minimum(self._extremes.low, 0), np.maximum(self._extremes.high, 0))
        for index, observable in enumerate(self._ranged):
            now, name = float(largest[index]), observable.value_name
            if observable.kind != "distribution" or not now or not math.isfinite(now):
                continue
            exponent = self._exponents.get(name, 0)
            running = max(now, float(before[index]))
            if math.ldexp(now, exponent) <= LARGEST_HALF and math.ldexp(running, exponent) >= SMALLEST_MAXIMUM:
                continue
            wanted = _CENTRE - (math.frexp(running)[1] - 1)
            wanted = min(max(wanted, -_LARGEST_EXPONENT), _LARGEST_EXPONENT)
            if wanted != exponent:
                self._exponents[name] = wanted
                changed = True
        return changed

    def _take(self, lows: Numbers, highs: Numbers, numbers: Numbers, outputs: Mapping[str, Any]) -> None:
        if self._observed.kept:
            self._runner.observe(self._name, self._observed.exponents)
        self._extremes = self._extremes.merge(Extremes.of(lows, highs))

        def number(observable: Observable, what: str) -> Numbers:
            return self._observed.number(observable, what, numbers, outputs)

        for observable in self._channels:
            seen = Extremes.of(number(observable, "ReduceMin"), number(observable, "ReduceMax"))
            known = self._by_channel.get(observable)
            self._by_channel[observable] = seen if known is None else known.merge(seen)
        for observable in self._summed:
            count = float(number(observable, "Size"))
            self._counts[observable] = self._counts.get(observable, 0.0) + count
            if observable.kind == "moments":
                total, squares = number(observable, "ReduceSum"), number(observable, "ReduceSumSquare")
                seen_moments = Moments(count / max(total.size, 1), total, squares)
                known_moments = self._moments.get(observable)
                merged = seen_moments if known_moments is None else known_moments.merge(seen_moments)
                self._moments[observable] = merged

    def _settled(self, samples: int, widths: dict[int, Numbers], tolerance: float) -> bool:
        """Whether the second half of the samples so far changed no range by more than a share of its width."""
        if samples & (samples - 1):
            return False
        width = np.maximum(self._extremes.high - self._extremes.low, 0.0)
        widths[samples] = width
        return samples >= EARLIEST_STOP and bool(np.all(width - widths[samples // 2] <= tolerance * width))

    def _results(self, kept: Observation) -> dict[Observable, AnyStatistic]:
        results: dict[Observable, AnyStatistic] = {}
        for index, observable in enumerate(self._ranged):
            extremes = self._extremes.part(index)
            if observable.kind == "min-max":
                results[observable] = extremes
            else:
                histograms = kept.histograms.get(self._observed.kept[observable], [Histogram()])
                results[observable] = tuple(_distribution(h, extremes, len(histograms)) for h in histograms)
        results |= self._by_channel
        results |= self._moments
        for observable in self._summed:
            if observable.kind == "gram" and self._observed.kept[observable] in kept.sums:
                total = kept.sums[self._observed.kept[observable]]
                results[observable] = Gram(self._counts[observable] / max(len(total), 1), total)
        return results


def _is_scalar_range(observable: Observable) -> bool:
    return observable.kind == "distribution" or (observable.kind == "min-max" and observable.axis is None)


def _distribution(histogram: Histogram, extremes: Extremes, channels: int) -> Distribution:
    """A histogram with its ends: those of the tensor, or of its own outermost bins if it is of one channel of several."""
    seen = extremes.range
    if channels > 1:
        seen = MinMax(*histogram.ends(), seen.count)
    return Distribution(seen, histogram)


def sweep(
    runner: Runner, reduced: ReducedModel, source: DataSource, what: str, progress: Progress
) -> Iterator[tuple[Sample, Numbers]]:
    """Runs a reduced model over all samples; yields each with its numbers, in the order the reductions were added.

    Raises:
        DataError: If the model does not run on a sample.
        RunnerError: If the runtime refuses the model, or dies.
    """
    opened = runner.open(reduced.finish())
    try:
        total = len(source)
        for index, sample in enumerate(source.samples()):
            progress(index / total, f"{what}, sample {index + 1} of {total}")
            yield sample, reduced.read(_run(opened.run, sample))
        progress(1.0, f"{what}, {total} samples done")
    finally:
        _close(opened)


def _run(call: Callable[[Feed], dict[str, Any]], sample: Sample) -> dict[str, Any]:
    try:
        return call(sample.feed)
    except RunnerError as error:
        if error.crashed:
            raise RunnerError(f"{sample.origin}: {error}", crashed=True) from error
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in sample.feed.items())
        raise DataError(f"{sample.origin}: the model does not run on this sample ({shapes}): {error}") from error


def _close(opened: Opened) -> None:
    """Frees the session; a runtime that has died has freed it."""
    try:
        opened.close()
    except RunnerError as error:
        if not error.crashed:
            raise


def _refuse_nan(runner: Runner, model: ir.Model, name: str, sample: Sample) -> None:
    """Raises if a value holds a NaN; a sum alone may be NaN because huge numbers of both signs overflow."""
    reduced = ReducedModel(model, [name])
    value = reduced.value(name)
    assert value is not None
    reduced.count_nan(value)
    opened = runner.open(reduced.finish())
    try:
        count = int(reduced.read(_run(opened.run, sample))[0])
    finally:
        _close(opened)
    if count:
        raise not_finite(name, sample, f"NaN ({count} elements)")


def not_finite(name: str, sample: Sample, what: str) -> DataError:
    """The error for a value that is not finite on a sample."""
    return DataError(
        f"{sample.origin}: value {name!r} of the model contains {what}; irc expects finite numbers; remove the sample "
        "or exclude what uses the value"
    )
