"""Collect statistics in one sweep, reduced inside the runtime: no activation ever leaves it.

Reductions are appended to a copy of the model, whose only outputs they become; each sample costs one run and a few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from irc.calibration.data import DataSource
from irc.calibration.statistics import MinMax, StatisticRequest, Statistics
from irc.errors import DataError
from irc.ir import snapshot, unique_name
from irc.runner import Opened, Runner

Progress = Callable[[float, str], None]
_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


class Augmented:
    """A copy of a model whose outputs are reductions of its values.

    Attributes:
        model: The copy.
        missing: Values that cannot be reduced, with the reason.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = snapshot(model)
        self._values = ir.convenience.create_value_mapping(self.model.graph)
        self._inner = {
            value.name: node
            for graph in self.model.graph.subgraphs()
            if graph is not self.model.graph
            for node in graph
            for value in node.outputs
        }
        self.model.graph.outputs.clear()
        self.missing: dict[str, str] = {}

    def value(self, name: str) -> ir.Value | None:
        """The float value called `name`; None, with the reason in `missing`, if it cannot be observed."""
        value = self._values.get(name)
        if name in self._inner:
            self.missing[name] = "it is inside the body of an If, Loop or Scan"
        elif value is None:
            self.missing[name] = "the model has no such value"
        elif value.dtype is not None and value.dtype not in _FLOATS:
            self.missing[name] = f"it is {value.dtype.name}, not floating point"
        else:
            return value
        return None

    def add(self, op_type: str, inputs: Sequence[ir.Value], **attributes: object) -> ir.Value:
        """Appends a node and returns its output."""
        node = ir.node(op_type, list(inputs), attributes or None)
        self.model.graph.append(node)
        node.outputs[0].name = unique_name(self.model, f"irc.{op_type}")
        return node.outputs[0]

    def scalar_output(self, op_type: str, value: ir.Value) -> str:
        """Reduces a value to one float32 number, makes it an output and returns its name."""
        if value.dtype not in (None, ir.DataType.FLOAT):
            value = self.add("Cast", [value], to=ir.DataType.FLOAT.value)
        reduced = self.add(op_type, [value], keepdims=0)
        self.model.graph.outputs.append(reduced)
        assert reduced.name is not None
        return reduced.name


def collect(
    runner: Runner,
    model: ir.Model,
    source: DataSource,
    requests: Sequence[StatisticRequest],
    *,
    progress: Progress = lambda fraction, what: None,
) -> Statistics:
    """Runs the data once and returns the requested statistics.

    Args:
        runner: Where the model runs.
        model: Unchanged.
        source: Every sample counts; samples may differ in shape.
        requests: Which values to observe; values that cannot be are in `Statistics.missing`.
        progress: Told the share of samples done.

    Raises:
        DataError: If a value is not finite on some sample; the message names both.
        RunnerError: If the model cannot run on a sample.
    """
    augmented = Augmented(model)
    outputs: dict[str, tuple[str, str]] = {}
    for name in dict.fromkeys(request.value_name for request in requests):
        value = augmented.value(name)
        if value is not None:
            outputs[name] = (augmented.scalar_output("ReduceMin", value), augmented.scalar_output("ReduceMax", value))
    statistics = Statistics(dict.fromkeys(outputs, MinMax()), augmented.missing, 0)
    if not outputs:
        return statistics
    opened = runner.open(augmented.model)
    try:
        _sweep(opened, source, outputs, statistics, progress)
    finally:
        opened.close()
    return statistics


def _sweep(
    opened: Opened,
    source: DataSource,
    outputs: dict[str, tuple[str, str]],
    statistics: Statistics,
    progress: Progress,
) -> None:
    total = len(source)
    for index, sample in enumerate(source.samples()):
        progress(index / total, f"calibrating, sample {index + 1} of {total}")
        found = opened.run(sample.feed)
        for name, (low_name, high_name) in outputs.items():
            low, high = float(found[low_name]), float(found[high_name])
            if not (math.isfinite(low) and math.isfinite(high)):
                what = "NaN" if math.isnan(low) or math.isnan(high) else "infinity"
                if low == math.inf and high == -math.inf:
                    continue
                raise DataError(f"{sample.origin}: value {name!r} of the model contains {what}; remove the sample or exclude the site")
            statistics.ranges[name] = statistics.ranges[name].merge(MinMax(low, high, 1))
        statistics.samples += 1


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
        Per pair the sums of `a * a` and `(a - b) * (a - b)`; pairs that cannot be observed are left out.
    """
    augmented = Augmented(model)
    outputs: dict[tuple[str, str], tuple[str, str]] = {}
    for pair in dict.fromkeys(pairs):
        a, b = augmented.value(pair[0]), augmented.value(pair[1])
        if a is not None and b is not None:
            difference = augmented.add("Sub", [a, b])
            difference.dtype = a.dtype
            outputs[pair] = (
                augmented.scalar_output("ReduceSumSquare", a),
                augmented.scalar_output("ReduceSumSquare", difference),
            )
    if not outputs:
        return {}
    opened = runner.open(augmented.model)
    sums = {pair: (0.0, 0.0) for pair in outputs}
    total = len(source)
    try:
        for index, sample in enumerate(source.samples()):
            progress(index / total, f"comparing, sample {index + 1} of {total}")
            found = opened.run(sample.feed)
            for pair, (signal, error) in outputs.items():
                sums[pair] = (sums[pair][0] + float(found[signal]), sums[pair][1] + float(found[error]))
    finally:
        opened.close()
    return sums
