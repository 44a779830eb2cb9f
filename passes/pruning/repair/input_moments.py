"""Means and covariances of what layers read, rows of an input being what one output position sees.

    mean = E[x],    gram = E[(x - mean)(x - mean)^T]            x: [K], a patch of a Conv, a row of a product

Gathered in sweeps over batches of samples, as many values at a time as memory allows; layers that read the same value the same way share
them. Rows are a random part of all where there are many: positions depend on the seed and the content of the samples alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irc.memory_groups import groups_within
from irc.passes.pruning.repair.batches import Batch
from irc.passes.pruning.repair.weighted_layers import WeightedLayer
from irc.passes.quantization.layer_sample import Layer
from irc.runner import Runner

if TYPE_CHECKING:
    from irc.passes.pruning.repair.recurrent_moments import RecurrentMoments

Array = np.ndarray[Any, Any]
ROWS = 16384
ROWS_PER_INPUT = 4
BUDGET_BYTES = 1 << 30
"""For the sums of one sweep."""
_WIDE = 1024
Key = tuple[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Of the rows of an input.

    Attributes:
        count: Rows.
        mean: `[G, K]` float64.
        gram: `[G, K, K]` float32, about the mean.
    """

    count: int
    mean: Array
    gram: Array

    def second(self, group: int) -> Array:
        """`[K, K]`: E[x x^T] of a group, about zero."""
        found: Array = self.gram[group] + np.outer(self.mean[group], self.mean[group])
        return found


def pooled(parts: Sequence[Moments]) -> Moments:
    """Of the rows of several inputs together."""
    if len(parts) == 1:
        return parts[0]
    counts = [part.count for part in parts]
    mean = np.average([part.mean for part in parts], axis=0, weights=counts)
    between = [np.einsum("gi,gj->gij", part.mean - mean, part.mean - mean) for part in parts]
    gram = np.average([part.gram + apart for part, apart in zip(parts, between, strict=True)], axis=0, weights=counts)
    return Moments(sum(counts), mean, gram.astype(np.float32))


def rows_wanted(layer: Layer, rows: int = ROWS) -> int:
    """How many rows of its input to look at: more than there are inputs."""
    return max(rows, ROWS_PER_INPUT * layer.inputs)


def positions(count: int, batch: Batch, wanted: int, samples: int, seed: int) -> Array:
    """Which rows of a batch to take, ascending: its share of those wanted of all samples."""
    quota = max(1, math.ceil(wanted * batch.samples / max(samples, 1)))
    if count <= quota:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, batch.seed]).choice(count, quota, replace=False))


class GatheredMoments:
    """Moments by layer, gathered when they are asked for the first time and kept.

    Args:
        model: The teacher; unchanged.
        runner: Where it runs.
        batches: For fitting.
        seed: Of positions.
        progress: Told what is being gathered.
    """

    def __init__(
        self,
        model: ir.Model,
        runner: Runner,
        batches: Sequence[Batch],
        *,
        seed: int = 0,
        progress: Callable[[float, str], None] = lambda fraction, what: None,
    ) -> None:
        self._model, self._runner, self._batches, self._seed = model, runner, batches, seed
        self._progress = progress
        self._samples = sum(batch.samples for batch in batches)
        self._found: dict[Any, Moments | None] = {}


class InputMoments(GatheredMoments):
    """Of what layers read."""

    @functools.cached_property
    def recurrent(self) -> RecurrentMoments:
        """Of what recurrent operators read."""
        from irc.passes.pruning.repair.recurrent_moments import RecurrentMoments

        return RecurrentMoments(self._model, self._runner, self._batches, seed=self._seed, progress=self._progress)

    def __getitem__(self, layer: WeightedLayer) -> Moments | None:
        """Moments of what a layer reads; None where it reads nothing, or anything that is not finite."""
        self.gather([layer])
        return self._found[_key(layer)]

    def gather(self, layers: Sequence[WeightedLayer]) -> None:
        """Gathers what is not known yet of several layers, in as few sweeps as memory allows."""
        wanted: dict[Key, WeightedLayer] = {}
        for layer in layers:
            if _key(layer) not in self._found:
                wanted.setdefault(_key(layer), layer)
        if not wanted:
            return
        sized = [(x, _sum_type(x.layer.inputs).itemsize * x.layer.groups * x.layer.inputs**2) for x in wanted.values()]
        groups = groups_within(sized, BUDGET_BYTES)
        for number, group in enumerate(groups):
            self._sweep(group, functools.partial(self._report, number, len(groups), len(group)))

    def _report(self, number: int, sweeps: int, layers: int, share: float) -> None:
        self._progress((number + share) / sweeps, f"statistics of the inputs of {layers} layers")

    def _sweep(self, layers: Sequence[WeightedLayer], progress: Callable[[float], None]) -> None:
        inputs = {value.name for value in self._model.graph.inputs}
        names = list(dict.fromkeys(layer.layer.source for layer in layers if layer.layer.source not in inputs))
        sums: dict[Key, RowSums] = {}
        with self._runner.open(self._model, extra_outputs=names) as opened:
            for number, batch in enumerate(self._batches):
                progress(number / len(self._batches))
                values = opened.run(batch.feed, names) if names else {}
                for layer in layers:
                    source = layer.layer.source
                    x = np.asarray(values[source] if source in values else batch.feed[source])
                    chosen = positions(
                        layer.layer.row_count(x.shape), batch, rows_wanted(layer.layer), self._samples, self._seed
                    )
                    sums.setdefault(_key(layer), RowSums(layer.layer.groups, layer.layer.inputs)).add(
                        layer.layer.rows(x, chosen)
                    )
        self._found |= {key: found.moments() for key, found in sums.items()}


def _key(layer: WeightedLayer) -> Key:
    return layer.layer.source, layer.layer.geometry


def _sum_type(inputs: int) -> np.dtype[Any]:
    """Of sums of products: wide ones are what memory goes to, and need no more than is left of them."""
    return np.dtype(np.float32 if inputs >= _WIDE else np.float64)


class RowSums:
    """Of rows, about the mean of the first of them: squares of large means would leave nothing of small variances.

    Args:
        groups: How many kinds of rows there are.
        inputs: How long they are.
    """

    def __init__(self, groups: int, inputs: int) -> None:
        self._count, self._origin = 0, np.zeros((groups, 1, inputs), np.float32)
        self._total = np.zeros((groups, inputs))
        self._squares = np.zeros((groups, inputs, inputs), _sum_type(inputs))

    def add(self, rows: Array) -> None:
        """Rows `[G, R, K]`."""
        if not self._count and rows.shape[1]:
            self._origin = rows.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            rows = rows - self._origin
            self._count += rows.shape[1]
            self._total += rows.sum(axis=1, dtype=np.float64)
            self._squares += rows.transpose(0, 2, 1) @ rows

    def moments(self) -> Moments | None:
        """None where there is nothing, or anything that is not finite."""
        if not self._count or not (np.isfinite(self._squares).all() and np.isfinite(self._total).all()):
            return None
        mean = self._total / self._count
        gram = self._squares / self._count
        gram -= mean[:, :, None] * mean[:, None, :]
        return Moments(self._count, mean + self._origin[:, 0], gram.astype(np.float32))
