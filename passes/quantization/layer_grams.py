"""Grams of the inputs of layers over two halves of the samples, a few layers at a time.

The halves are by the content of the samples, as everywhere. Layers that read the same value share its gram; grams are gathered for as many
of the coming layers as fit into the memory budget, and given up with the last layer that wants them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from irc.calibration import DataSource, Observable, Sample, observe
from irc.calibration.statistics import Gram
from irc.judge.halves import split
from irc.pass_base import Context
from irc.passes.quantization.weights import Array

BUDGET_BYTES = 256 << 20
"""For the grams of both halves; one layer is taken whatever it needs."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A gram that will be asked for.

    Attributes:
        source: Name of the value.
        channels: Size of its last axis.
    """

    source: str
    channels: int

    @property
    def nbytes(self) -> int:
        """Memory of both halves."""
        return 2 * 8 * self.channels * self.channels


class LayerGrams:
    """Grams by layer, in the order in which they will be asked for.

    Args:
        model: The float model; unchanged.
        wanted: What will be asked for; the same value may come again.
        ctx: Data and runner.
        budget_bytes: For the grams in memory.
    """

    def __init__(
        self, model: ir.Model, wanted: Sequence[Wanted], ctx: Context, budget_bytes: int = BUDGET_BYTES
    ) -> None:
        self._model, self._ctx, self._budget = model, ctx, budget_bytes
        self._wanted = list(wanted)
        self._found: dict[str, tuple[Array, Array | None] | None] = {}
        keys = [sample.key for sample in ctx.data.samples()]
        fit, held = split(keys)
        self._halves = [_Part(ctx.data, fit)] + ([_Part(ctx.data, held)] if held != fit else [])

    def take(self, wanted: Wanted) -> tuple[Array, Array | None] | None:
        """The grams over both halves; the second None if there is only one sample, None if the value cannot be observed.

        Raises:
            DataError: If the value is not finite on some sample, or the model does not run on it.
        """
        if wanted in self._wanted:
            del self._wanted[: self._wanted.index(wanted)]
        if wanted.source not in self._found:
            self._gather(wanted)
        return self._found[wanted.source]

    def _gather(self, first: Wanted) -> None:
        group, size = {first.source: first}, first.nbytes
        for coming in self._wanted:
            if coming.source not in group:
                size += coming.nbytes
                if size > self._budget:
                    break
                group[coming.source] = coming
        observables = [Observable(source, "gram", -1) for source in group]
        runner = self._ctx.runner
        assert runner is not None
        self._found.clear()
        sums: list[dict[str, Array]] = []
        for half in self._halves:
            found = observe(runner, self._model, half, observables, progress=self._ctx.progress)
            sums.append({o.value_name: s.total for o, s in found.items() if isinstance(s, Gram) and not s.empty})
        for source, wanted in group.items():
            grams = [part[source] for part in sums if source in part]
            usable = len(grams) == len(sums) and all(
                len(gram) == wanted.channels and np.isfinite(gram).all() for gram in grams
            )
            self._found[source] = (grams[0], grams[1] if len(grams) > 1 else None) if usable else None


class _Part(DataSource):
    """Some of the samples of a source."""

    def __init__(self, source: DataSource, keys: frozenset[str]) -> None:
        self._source, self._keys = source, keys
        self.name, self.synthetic = source.name, source.synthetic

    def __len__(self) -> int:
        return len(self._keys)

    def samples(self) -> Iterator[Sample]:
        """Those samples, in the order of the source, repeats once."""
        seen: set[str] = set()
        for sample in self._source.samples():
            if sample.key in self._keys and sample.key not in seen:
                seen.add(sample.key)
                yield sample
