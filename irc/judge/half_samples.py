"""The samples of a half beside the original's outputs: one sweep at a time, equal samples once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from irc.errors import DataError, UsageError
from irc.judge.halves import split
from irc.judge.metric_function import Outputs
from irc.judge.original_outputs import OriginalOutputs

if TYPE_CHECKING:
    from irc.calibration.data import DataSource, Sample


class HalfSamples:
    """Sweeps over the halves of a data source.

    Args:
        source: The samples.
        reference: The original's outputs.
        outputs: Names of the outputs wanted.
        label: Key of the labels, if the data has several.
    """

    def __init__(
        self, source: DataSource, reference: OriginalOutputs, outputs: Sequence[str], label: str | None
    ) -> None:
        self.source, self.outputs = source, tuple(outputs)
        self._reference, self._label = reference, label
        self._halves: tuple[frozenset[str], frozenset[str]] | None = None

    @property
    def halves(self) -> tuple[frozenset[str], frozenset[str]]:
        """Keys of the choice half and of the acceptance half.

        Raises:
            DataError: If there are no samples.
        """
        if self._halves is None:
            self._halves = split(sample.key for sample in self.source.samples())
            if not self._halves[0]:
                raise DataError(f"{self.source.name}: there are no samples to judge on")
        return self._halves

    def sweep(self, half: str) -> Iterator[tuple[str, Sample, Outputs]]:
        """Samples of a half ("choice", "acceptance" or "all"): their keys, themselves, the original's outputs.

        Raises:
            UsageError: If there is no such half.
            DataError: If the source yields other samples than before.
        """
        choice, acceptance = self.halves
        wanted = {"choice": choice, "acceptance": acceptance, "all": choice | acceptance}.get(half)
        if wanted is None:
            raise UsageError(f"half is {half!r}; it must be choice, acceptance or all")
        seen: set[str] = set()
        found: set[str] = set()
        for sample in self.source.samples():
            key = sample.key
            found.add(key)
            if key in wanted and (unit := f"{key}:{_label_hash(sample)}") not in seen:
                seen.add(unit)
                yield unit, sample, self._reference(key, sample.feed, self.outputs)
        if found != choice | acceptance:
            raise DataError(
                f"{self.source.name}: the samples differ from one sweep to the next; seed whatever is random in it"
            )

    def label_key(self, sample: Sample) -> str | None:
        """The key of the labels to use; None where there are none.

        Raises:
            DataError: If the named label does not exist, or several exist and none is named.
        """
        names = ", ".join(sorted(sample.labels))
        if self._label is not None:
            if self._label not in sample.labels:
                raise DataError(
                    f"{self.source.name}: there is no label {self._label!r}; labels found: {names or 'none'}"
                )
            return self._label
        if len(sample.labels) > 1:
            raise DataError(f"{self.source.name}: there are several labels ({names}); choose one with --label")
        return next(iter(sample.labels), None)


def _label_hash(sample: Sample) -> str:
    """Equal feeds with different labels are different evidence."""
    digest = hashlib.sha256()
    for name in sorted(sample.labels):
        digest.update(np.ascontiguousarray(sample.labels[name]).tobytes())
    return digest.hexdigest()[:16]
