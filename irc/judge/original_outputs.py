"""The original's outputs per sample, run once and kept while they fit a memory limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from irc.errors import DataError
from irc.judge.metric_function import Outputs, Runnable

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

    def __call__(self, key: str, feed: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> Outputs:
        """The named outputs for one sample.

        Args:
            key: Content hash of the feed.
            feed: The feed.
            names: The outputs wanted, the same at every call.

        Raises:
            RunnerError: If the original does not run on it.
            DataError: If an output is not a tensor.
        """
        known = self._kept.get(key)
        if known is not None:
            return known
        outputs = self._original.run(feed, list(names))
        for name in names:
            if not isinstance(outputs.get(name), np.ndarray):
                raise DataError(f"output {name!r} of the original is not a tensor; it cannot be judged")
        found = {name: outputs[name] for name in names}
        size = sum(array.nbytes for array in found.values())
        if self._bytes + size <= self._limit:
            self._kept[key] = found
            self._bytes += size
        return found
