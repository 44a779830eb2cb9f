"""Collect statistics in one sweep over the data, through one session, reduced inside the runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.data import DataSource, Sample
from irc.calibration.reductions import ReducedModel
from irc.calibration.statistics import MinMax, StatisticRequest, Statistics
from irc.errors import DataError, RunnerError
from irc.runner import Opened, Runner

Progress = Callable[[float, str], None]
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def collect(
    runner: Runner,
    model: ir.Model,
    source: DataSource,
    requests: Sequence[StatisticRequest],
    *,
    progress: Progress = lambda fraction, what: None,
) -> Statistics:
    """Runs the data once and returns the requested statistics.

    The runtime's minimum and maximum may step over a NaN, so each value is summed as well: a NaN makes the sum NaN.

    Args:
        runner: Where the model runs.
        model: Unchanged.
        source: Every sample counts; samples may differ in shape.
        requests: Which values to observe; values that cannot be are in `Statistics.missing`.
        progress: Told the share of samples done.

    Raises:
        DataError: If a value is not finite on some sample, or the model does not run on it; the message names both.
        RunnerError: If the runtime refuses the model, or dies.
    """
    wanted = list(dict.fromkeys(request.value_name for request in requests))
    reduced = ReducedModel(model, wanted)
    names = sorted((n for n in wanted if reduced.value(n) is not None), key=reduced.order.__getitem__)
    for name in names:
        value = reduced.value(name)
        assert value is not None
        reduced.reduce("ReduceMin", value)
        reduced.reduce("ReduceMax", value)
        reduced.reduce("ReduceSum", value)
    ranges = {name: MinMax() for name in wanted if name not in reduced.missing}
    statistics = Statistics(ranges, dict(reduced.missing), 0)
    if not names:
        return statistics
    for sample, numbers in sweep(runner, reduced, source, "calibrating", progress):
        for name, (low, high, total) in zip(names, numbers.reshape(-1, 3).tolist(), strict=True):
            if math.isfinite(low) and math.isfinite(high):
                if math.isnan(total):
                    _refuse_nan(runner, model, name, sample)
            elif low == math.inf and high == -math.inf and total == 0.0:
                continue  # an empty tensor
            else:
                raise _not_finite(name, sample, "infinity" if not any(map(math.isnan, (low, high, total))) else "NaN")
            ranges[name] = ranges[name].merge(MinMax(low, high, 1))
        statistics.samples += 1
    return statistics


def compare_values(
    runner: Runner,
    model: ir.Model,
    source: DataSource,
    pairs: Sequence[tuple[str, str]],
    *,
    progress: Progress = lambda fraction, what: None,
) -> dict[tuple[str, str], tuple[float, float]]:
    """Energies of values and of their differences, summed over all samples, in one sweep.

    Args:
        runner: Where the model runs.
        model: Holds both values of each pair; unchanged.
        source: Samples.
        pairs: (a, b) names of values of equal shape.
        progress: Told the share of samples done.

    Returns:
        Per pair the sums of `a * a` and `(a - b) * (a - b)`, in units of a squared; the second is infinite if b is not
        finite somewhere. Pairs with a value that is inside the body of an If, Loop or Scan, or not floating point, are
        left out.

    Raises:
        DataError: If the values of a pair have different shapes, `a` is not finite on some sample, or the model does
            not run on it.
        RunnerError: If the runtime refuses the model, or dies.
    """
    wanted = list(dict.fromkeys(pairs))
    reduced = ReducedModel(model, [name for pair in wanted for name in pair])
    observed = []
    for pair in wanted:
        a, b = reduced.value(pair[0]), reduced.value(pair[1])
        if a is None or b is None:
            continue
        _check_shapes(a, b)
        reduced.reduce("ReduceSumSquare", a)
        reduced.reduce("ReduceSumSquare", reduced.difference(a, b))
        observed.append(pair)
    sums = {pair: (0.0, 0.0) for pair in observed}
    if not observed:
        return sums
    for sample, numbers in sweep(runner, reduced, source, "comparing", progress):
        for pair, (signal, error) in zip(observed, numbers.reshape(-1, 2).tolist(), strict=True):
            if not math.isfinite(signal):
                raise _not_finite(pair[0], sample, "NaN" if math.isnan(signal) else "infinity")
            before = sums[pair]
            sums[pair] = (before[0] + signal, before[1] + (error if math.isfinite(error) else math.inf))
    return sums


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
            yield sample, reduced.read(_run(opened, sample))
        progress(1.0, f"{what}, {total} samples done")
    finally:
        _close(opened)


def _run(opened: Opened, sample: Sample) -> dict[str, Any]:
    try:
        return opened.run(sample.feed)
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
        count = int(reduced.read(_run(opened, sample))[0])
    finally:
        _close(opened)
    if count:
        raise _not_finite(name, sample, f"NaN ({count} elements)")


def _not_finite(name: str, sample: Sample, what: str) -> DataError:
    return DataError(
        f"{sample.origin}: value {name!r} of the model contains {what}; irc expects finite numbers; remove the sample "
        "or exclude what uses the value"
    )


def _check_shapes(a: ir.Value, b: ir.Value) -> None:
    if a.shape is None or b.shape is None:
        return
    differs = a.shape.rank() != b.shape.rank() or any(
        isinstance(m, int) and isinstance(n, int) and m != n for m, n in zip(a.shape, b.shape, strict=False)
    )
    if differs:
        raise DataError(f"values {a.name!r} {a.shape} and {b.name!r} {b.shape} cannot be compared: their shapes differ")


__all__ = ["Progress", "StatisticRequest", "Statistics", "collect", "compare_values", "sweep"]
