"""The original's outputs per sample, run once and kept while they fit a memory limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from irc.errors import DataError
from irc.judge.metric_function import Outputs, Runnable

if TYPE_CHECKING:
    from irc.calibration.data import Sample

MEMORY_LIMIT = 256 * 2**20


class OriginalOutputs:
    """Outputs of the original for the samples asked for.

    Args:
        original: The opened original.
        limit: Bytes of outputs kept; what does not fit is run again when asked for again.
    """

    def __init__(self, original: Runnable, *, limit: int = MEMORY_LIMIT) -> None:
        self._original, self._limit = original, limit
        self._kept: dict[str, Outputs] = {}
        self._bytes = 0

    def __call__(self, sample: Sample, names: Sequence[str]) -> Outputs:
        """The named outputs for one sample.

        Raises:
            RunnerError: If the original does not run on it.
        """
        known = self._kept.get(sample.key)
        if known is not None and all(name in known for name in names):
            return known
        outputs: Mapping[str, object] = self._original.run(sample.feed, list(names))
        missing = [name for name in names if not hasattr(outputs.get(name), "dtype")]
        if missing:
            raise DataError(f"output {missing[0]!r} of the original is not a tensor; it cannot be judged")
        found: Outputs = {name: outputs[name] for name in names}  # type: ignore[misc]
        size = sum(array.nbytes for array in found.values())
        if known is None and self._bytes + size <= self._limit:
            self._kept[sample.key] = found
            self._bytes += size
        return found
