"""Samples: where they come from, streamed one at a time, each exactly as a session takes it.

A source can be iterated again and again (calibration, judging, verification and timing each do) and never holds more
than one sample. Arrays that are not inputs of the model are labels.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

Feed = dict[str, "np.ndarray[Any, Any]"]


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """One sample.

    Attributes:
        feed: Input arrays by name, batch axis included.
        labels: The other arrays by name.
        origin: Where it comes from, for messages: "calib/00003.npz".
    """

    feed: Feed
    labels: Feed = dataclasses.field(default_factory=dict)
    origin: str = ""

    @functools.cached_property
    def key(self) -> str:
        """Hash of the feed's names, dtypes, shapes and bytes: the same sample has the same key wherever it lies."""
        digest = hashlib.sha256()
        for name in sorted(self.feed):
            array = np.ascontiguousarray(self.feed[name])
            digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
            digest.update("\0".join(map(str, array.flat)).encode() if array.dtype.hasobject else array.tobytes())
        return digest.hexdigest()


class DataSource(abc.ABC):
    """A finite, re-iterable stream of samples.

    Attributes:
        name: What the report calls it.
        synthetic: Whether the samples are generated rather than the user's.
    """

    name: str
    synthetic: bool = False

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abc.abstractmethod
    def samples(self) -> Iterator[Sample]:
        """A new pass over all samples, in a fixed order."""

    def describe(self) -> str:
        """Name and number of samples in words."""
        count = len(self)
        return f"{self.name} ({count} sample{'' if count == 1 else 's'}{', generated' if self.synthetic else ''})"


class FeedList(DataSource):
    """Samples held in memory."""

    def __init__(self, samples: list[Sample], *, name: str = "samples in memory", synthetic: bool = False) -> None:
        self._samples = samples
        self.name = name
        self.synthetic = synthetic

    def __len__(self) -> int:
        return len(self._samples)

    def samples(self) -> Iterator[Sample]:
        """All samples."""
        yield from self._samples


class SamplesWithout(DataSource):
    """The samples of a source but for some.

    Args:
        source: Any.
        keys: Of those left out.
    """

    def __init__(self, source: DataSource, keys: Collection[str]) -> None:
        self._source, self._keys = source, frozenset(keys)
        self.name, self.synthetic = source.name, source.synthetic

    @functools.cached_property
    def _count(self) -> int:
        return sum(1 for _sample in self.samples())

    def __len__(self) -> int:
        return self._count

    def samples(self) -> Iterator[Sample]:
        """Those that are left, in the order of the source."""
        return (sample for sample in self._source.samples() if sample.key not in self._keys)
