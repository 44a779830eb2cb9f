"""Run the data through a model and gather statistics of its values: as few sweeps as the memory budget allows.

Numbers are reduced inside the runtime and read after every sample. Codes for histograms and grams stay in the runtime
process, which adds them up; what the codes of one sample may take there is the budget, and values that do not fit into
it together are observed in further sweeps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from irc.calibration.data import DataSource, Sample
from irc.calibration.memory_packing import packed
from irc.calibration.nan_origins import LARGEST_SAFE
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
from irc.runner.histogram import LARGEST_HALF, SMALLEST_MAXIMUM, Histogram, code_magnitude
from irc.runner.observation import Largest, Observation

Progress = Callable[[float, str], None]
Numbers = np.ndarray[Any, np.dtype[np.float64]]
Result = TypeVar("Result")

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

    The runtime's minimum and maximum step over a NaN, so values in which one may arise are summed as well: a NaN makes the
    sum NaN.

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
        observables = self._observed.observables
        self._plain = [o for o in observables if o.kind == "min-max" and o.axis is None]
        self._channels = [o for o in observables if o.kind == "min-max" and o.axis is not None]
        self._coded = [o for o in observables if o.kind == "distribution"]
        self._summed = [o for o in observables if o.kind in ("moments", "gram")]
        self._extremes = Extremes.nothing((len(self._plain),))
        self._code_ranges = dict.fromkeys(self._coded, MinMax())
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
                    outputs, largest = self._fetch(opened, sample)
                    ranges = self._coded_ranges(largest)
                    if not self._rescaled(ranges, sample):
                        break
                    _close(opened)
                    self._observed = ObservedModel(self._model, self._group, self._exponents)
                    opened = self._runner.open(self._observed.finish())
                self._take(outputs, ranges, sample)
                found.samples += 1
                if early_stop is not None and self._settled(found.samples, widths, early_stop):
                    break
            progress(1.0, f"{self._label}calibrating, {found.samples} samples done")
            kept = self._runner.observed(self._name) if self._observed.kept and found.samples else Observation()
        finally:
            _close(opened)
        found.found = self._results(kept)
        return found

    def _fetch(self, opened: Opened, sample: Sample) -> tuple[dict[str, Any], Largest]:
        kept = list(self._observed.kept.values())
        if not kept:
            return _run(opened.run, sample), {}
        return _run(lambda feed: opened.fetch(feed, self._name, kept), sample)

    # -- codes ------------------------------------------------------------------------------------------------------

    def _coded_ranges(self, largest: Largest) -> dict[Observable, MinMax]:
        """About the range of the codes of one sample, at their scale undone, zero included; empty without elements."""
        ranges = {}
        for observable in self._coded:
            codes = largest[self._observed.kept[observable]]
            exponent = self._exponents.get(observable.value_name, 0)
            low, high = (math.ldexp(code_magnitude(code), -exponent) for code in reversed(codes))
            ranges[observable] = MinMax() if codes == (-1, -1) else MinMax(-low, high, 1)
        return ranges

    def _rescaled(self, ranges: dict[Observable, MinMax], sample: Sample) -> bool:
        """Whether codes of this sample have to be taken again, at another scale."""
        changed = False
        for observable, seen in ranges.items():
            now, name = max(-seen.low, seen.high), observable.value_name
            if seen.empty or not now:
                continue
            if not math.isfinite(now):
                now = _largest_magnitude(self._runner, self._model, name, sample)
            exponent = self._exponents.get(name, 0)
            before = self._code_ranges[observable]
            running = max(now, -before.low, before.high)
            if math.ldexp(now, exponent) <= LARGEST_HALF and math.ldexp(running, exponent) >= SMALLEST_MAXIMUM:
                continue
            wanted = _CENTRE - (math.frexp(running)[1] - 1)
            wanted = min(max(wanted, -_LARGEST_EXPONENT), _LARGEST_EXPONENT)
            if wanted != exponent:
                self._exponents[name] = wanted
                changed = True
        return changed

    # -- numbers ----------------------------------------------------------------------------------------------------

    def _take(self, outputs: Mapping[str, Any], ranges: Mapping[Observable, MinMax], sample: Sample) -> None:
        numbers = self._observed.read(outputs)
        lows, highs = self._checked(numbers, outputs, sample)
        if self._observed.kept:
            self._runner.observe(self._name, self._observed.exponents)
        self._extremes = self._extremes.merge(Extremes.of(lows, highs))
        for observable, seen in ranges.items():
            self._code_ranges[observable] = self._code_ranges[observable].merge(seen)

        def number(observable: Observable, what: str) -> Numbers:
            return self._observed.number(observable, what, numbers, outputs)

        for observable in self._channels:
            extremes = Extremes.of(number(observable, "ReduceMin"), number(observable, "ReduceMax"))
            known = self._by_channel.get(observable)
            self._by_channel[observable] = extremes if known is None else known.merge(extremes)
        for observable in self._summed:
            count = float(number(observable, "Size"))
            self._counts[observable] = self._counts.get(observable, 0.0) + count
            if observable.kind == "moments":
                total, squares = number(observable, "ReduceSum"), number(observable, "ReduceSumSquare")
                moments = Moments(count / max(total.size, 1), total, squares)
                earlier = self._moments.get(observable)
                self._moments[observable] = moments if earlier is None else earlier.merge(moments)

    def _checked(self, numbers: Numbers, outputs: Mapping[str, Any], sample: Sample) -> tuple[Numbers, Numbers]:
        """The extremes of one sample by plain observable, finite, or infinite the wrong way round for no element."""

        def number(observable: Observable, what: str) -> Numbers:
            return self._observed.number(observable, what, numbers, outputs)

        def ends(observable: Observable) -> tuple[float, float]:
            low, high = number(observable, "ReduceMin"), number(observable, "ReduceMax")
            return float(low.min(initial=math.inf)), float(high.max(initial=-math.inf))

        plain = [ends(observable) for observable in self._plain]
        suspects = []
        largest = 0.0
        for observable, (low, high) in zip(
            (*self._plain, *self._channels), (*plain, *map(ends, self._channels)), strict=True
        ):
            total = float(number(observable, "ReduceSum")) if self._observed.is_summed(observable) else 0.0
            if math.isfinite(low) and math.isfinite(high):
                largest = max(largest, -low, high)
                if math.isnan(total):
                    suspects.append(observable.value_name)
            elif not (low == math.inf and high == -math.inf and total == 0):
                what = "NaN" if any(map(math.isnan, (low, high, total))) else "infinity"
                raise not_finite(observable.value_name, sample, what)
        if largest > LARGEST_SAFE:
            suspects = [observable.value_name for observable in (*self._plain, *self._channels)]
        if suspects:
            _refuse_nan(self._runner, self._model, suspects, sample)
        lows, highs = np.array(plain, np.float64).reshape(-1, 2).T
        return lows, highs

    def _settled(self, samples: int, widths: dict[int, Numbers], tolerance: float) -> bool:
        """Whether the second half of the samples so far changed no range by more than a share of its width."""
        if samples & (samples - 1):
            return False
        coded = [max(seen.high - seen.low, 0.0) for seen in self._code_ranges.values()]
        width = np.concatenate([np.maximum(self._extremes.high - self._extremes.low, 0.0), coded])
        widths[samples] = width
        return samples >= EARLIEST_STOP and bool(np.all(width - widths[samples // 2] <= tolerance * width))

    def _results(self, kept: Observation) -> dict[Observable, AnyStatistic]:
        results: dict[Observable, AnyStatistic] = {o: self._extremes.part(i) for i, o in enumerate(self._plain)}
        for observable, seen in self._code_ranges.items():
            histograms = kept.histograms.get(self._observed.kept[observable], [Histogram()])
            results[observable] = tuple(Distribution(MinMax(*h.ends(), seen.count), h) for h in histograms)
        results |= self._by_channel
        results |= self._moments
        for observable in self._summed:
            if observable.kind == "gram" and self._observed.kept[observable] in kept.sums:
                total = kept.sums[self._observed.kept[observable]]
                results[observable] = Gram(self._counts[observable] / max(len(total), 1), total)
        return results


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


def _run(call: Callable[[Feed], Result], sample: Sample) -> Result:
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


def _refuse_nan(runner: Runner, model: ir.Model, names: Sequence[str], sample: Sample) -> None:
    """Raises if a value holds a NaN; a sum alone may be NaN because huge numbers of both signs overflow."""
    reduced = ReducedModel(model, list(names))
    for name in names:
        value = reduced.value(name)
        assert value is not None
        reduced.count_nan(value)
    for name, count in zip(names, _numbers(runner, reduced, sample), strict=True):
        if count:
            raise not_finite(name, sample, f"NaN ({int(count)} elements)")


def _largest_magnitude(runner: Runner, model: ir.Model, name: str, sample: Sample) -> float:
    """The largest magnitude in a value that is too large for codes at their scale.

    Raises:
        DataError: If the value is not finite.
    """
    _refuse_nan(runner, model, [name], sample)
    reduced = ReducedModel(model, [name])
    value = reduced.value(name)
    assert value is not None
    reduced.reduce("ReduceMin", value)
    reduced.reduce("ReduceMax", value)
    low, high = _numbers(runner, reduced, sample).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise not_finite(name, sample, "infinity")
    return float(max(-low, high))


def _numbers(runner: Runner, reduced: ReducedModel, sample: Sample) -> Numbers:
    opened = runner.open(reduced.finish())
    try:
        return reduced.read(_run(opened.run, sample))
    finally:
        _close(opened)


def not_finite(name: str, sample: Sample, what: str) -> DataError:
    """The error for a value that is not finite on a sample."""
    return DataError(
        f"{sample.origin}: value {name!r} of the model contains {what}; irc expects finite numbers; remove the sample "
        "or exclude what uses the value"
    )
