"""Ranges of values, and energies of their differences, in one sweep over the data."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from irc.calibration.data import DataSource
from irc.calibration.observation_sweep import Progress, not_finite, observe, sweep
from irc.calibration.observers import MinMaxObserver, Observer
from irc.calibration.reductions import ReducedModel
from irc.calibration.statistics import Observable, Observations, Statistics
from irc.errors import DataError, UsageError
from irc.runner import Runner

Gather = Callable[[Sequence[Observable]], Observations]


@dataclasses.dataclass(frozen=True)
class StatisticRequest:
    """Asks for the range of one value.

    Attributes:
        value_name: The value, by its name in the model.
        observer: How the range is taken.
    """

    value_name: str
    observer: Observer = dataclasses.field(default_factory=MinMaxObserver)


def collect(
    runner: Runner,
    model: ir.Model,
    source: DataSource,
    requests: Sequence[StatisticRequest],
    *,
    progress: Progress = lambda fraction, what: None,
    early_stop: float | None = None,
) -> Statistics:
    """Runs the data once and returns the range of every requested value.

    Args:
        runner: Where the model runs.
        model: Unchanged.
        source: Every sample counts; samples may differ in shape.
        requests: Which values to observe, by which observer; values that cannot be are in `Statistics.missing`.
        progress: Told the share of samples done.
        early_stop: As `observe` takes it.

    Raises:
        UsageError: If a value is requested by two observers.
        DataError: If a value is not finite on some sample, or the model does not run on it; the message names both.
        RunnerError: If the runtime refuses the model, or dies.
    """
    return ranges_of(
        requests,
        lambda observables: observe(runner, model, source, observables, progress=progress, early_stop=early_stop),
    )


def ranges_of(requests: Sequence[StatisticRequest], gather: Gather) -> Statistics:
    """The range of every requested value, from observations gathered anywhere.

    Args:
        requests: Which values to observe, by which observer.
        gather: Gives the observations for the observables that takes.

    Raises:
        UsageError: If a value is requested by two observers.
    """
    by_name: dict[str, Observer] = {}
    for request in requests:
        if by_name.setdefault(request.value_name, request.observer) != request.observer:
            raise UsageError(f"{request.value_name!r} has one range, so it takes one observer, not two")
    observables = [Observable(name, observer.kind) for name, observer in by_name.items()]
    found = gather(observables)
    seen = [observable for observable in observables if observable in found]
    # The searches are arithmetic on large arrays, for which numpy lets other threads run.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        chosen = pool.map(lambda o: by_name[o.value_name].range(found[o]), seen)
        ranges = {observable.value_name: interval for observable, interval in zip(seen, chosen, strict=True)}
    return Statistics(ranges, dict(found.missing), found.samples, observers_text(requests), found.available)


def joined(parts: Sequence[Statistics]) -> Statistics:
    """The ranges of several sets of values of one model, taken over the same samples, as one."""
    ranges = {name: interval for part in parts for name, interval in part.ranges.items()}
    missing = {name: reason for part in parts for name, reason in part.missing.items()}
    observer = ", ".join(sorted({part.observer for part in parts}))
    return Statistics(ranges, missing, max(p.samples for p in parts), observer, max(p.available for p in parts))


def observers_text(requests: Sequence[StatisticRequest]) -> str:
    """The observers that requests ask for, as a plan records them."""
    return ", ".join(sorted({request.observer.text for request in requests}))


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
                raise not_finite(pair[0], sample, "NaN" if math.isnan(signal) else "infinity")
            before = sums[pair]
            sums[pair] = (before[0] + signal, before[1] + (error if math.isfinite(error) else math.inf))
    return sums


def _check_shapes(a: ir.Value, b: ir.Value) -> None:
    if a.shape is None or b.shape is None:
        return
    differs = a.shape.rank() != b.shape.rank() or any(
        isinstance(m, int) and isinstance(n, int) and m != n for m, n in zip(a.shape, b.shape, strict=False)
    )
    if differs:
        raise DataError(f"values {a.name!r} {a.shape} and {b.name!r} {b.shape} cannot be compared: their shapes differ")


__all__ = [
    "Progress",
    "StatisticRequest",
    "Statistics",
    "collect",
    "compare_values",
    "joined",
    "observers_text",
    "ranges_of",
]
