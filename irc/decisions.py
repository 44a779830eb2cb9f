"""What passes decide from data, remembered by key: a memo while a build goes on, and part of its plan afterwards.

A build rewrites the model many times, each time with other sites left out, and a plan replays it without data. So a pass
asks for a decision by a key that says what it is about, and gives the way to reach it:

    found = ctx.decisions.remember(f"{self.name}/{site.id}", lambda: {"strength": 0.5, "scales": scales})

A decision must not depend on which other sites are rewritten. Large arrays are kept compressed.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from irc.errors import UsageError

Scalar = str | int | float | bool
Decision = Mapping[str, Scalar | np.ndarray[Any, Any]]
"""What was decided, by name: plain values, and arrays."""

PACKED_BYTES = 4096
"""Larger arrays are kept compressed."""


@dataclasses.dataclass(frozen=True)
class PackedArray:
    """An array, compressed.

    Attributes:
        dtype: As numpy spells it.
        shape: Its dimensions.
        data: Its bytes in C order, by zlib.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: np.ndarray[Any, Any]) -> PackedArray:
        """Compresses an array, fast rather than tight."""
        return cls(array.dtype.str, array.shape, zlib.compress(np.ascontiguousarray(array).tobytes(), 1))

    def unpacked(self) -> np.ndarray[Any, Any]:
        """The array again, not to be written to."""
        return np.frombuffer(zlib.decompress(self.data), dtype=self.dtype).reshape(self.shape)


Kept = Mapping[str, Scalar | np.ndarray[Any, Any] | PackedArray]


class Decisions:
    """Decisions by key, in the order they were made.

    Args:
        planned: The decisions of a plan; nothing is then decided, only looked up.

    Attributes:
        replaying: Whether the decisions are a plan's: there is no data to decide from.
        asked: Keys that were asked for since it was cleared.
    """

    def __init__(self, planned: Mapping[str, Kept] | None = None) -> None:
        self.replaying = planned is not None
        self.asked: dict[str, None] = {}
        self._kept: dict[str, Kept] = dict(planned or {})

    def remember(self, key: str, decide: Callable[[], Decision]) -> Decision:
        """What was decided for a key; decided now if it was not yet.

        Args:
            key: Says who decides and what about: pass name and site id.
            decide: Reaches the decision; called at most once per key.

        Raises:
            UsageError: If a plan is replayed that does not have the key.
        """
        self.asked[key] = None
        if key not in self._kept:
            if self.replaying:
                raise UsageError(f"the plan has no decision {key!r}; build again without --plan")
            self._kept[key] = {name: _packed(value) for name, value in decide().items()}
        return {name: v.unpacked() if isinstance(v, PackedArray) else v for name, v in self._kept[key].items()}

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    @property
    def kept(self) -> Mapping[str, Kept]:
        """All decisions, large arrays compressed."""
        return self._kept


def _packed(value: Scalar | np.ndarray[Any, Any]) -> Scalar | np.ndarray[Any, Any] | PackedArray:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        return value
    if value.nbytes > PACKED_BYTES:
        return PackedArray.of(value)
    copy = value.copy()
    copy.flags.writeable = False
    return copy
