"""The arrays among a plan's decisions, in a NumPy archive beside it: the same bytes for the same arrays.

In the plan an array is `{array: 3, crc32: 907060870}`: its number in the archive `model.irc.plan.npz`, with the archive's own
spelling of its type and shape, and a checksum that tells the archive of another plan.
"""

from __future__ import annotations

import io
import itertools
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from irc.decisions import Kept, PackedArray
from irc.errors import UsageError

ARRAY = "array"
CHECKSUM = "crc32"
_EPOCH = (1980, 1, 1, 0, 0, 0)
Stored = np.ndarray[Any, Any] | PackedArray


def arrays_of(decisions: Mapping[str, Kept]) -> list[Stored]:
    """The arrays of decisions, in order."""
    return [
        value for kept in decisions.values() for value in kept.values() if isinstance(value, np.ndarray | PackedArray)
    ]


def write_arrays(arrays: Sequence[Stored], file: IO[bytes]) -> None:
    """Writes an archive, one array in memory at a time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, stored in enumerate(arrays):
            array = stored.unpacked() if isinstance(stored, PackedArray) else stored
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{index}.npy", _EPOCH), buffer.getvalue(), compress_type=zipfile.ZIP_DEFLATED
            )


def replace_arrays(decisions: Mapping[str, Kept]) -> dict[str, Any]:
    """The decisions with the number and the checksum of each array in its place."""
    numbers = itertools.count()
    return {
        key: {
            name: {ARRAY: next(numbers), CHECKSUM: _checksum(value)}
            if isinstance(value, np.ndarray | PackedArray)
            else value
            for name, value in kept.items()
        }
        for key, kept in decisions.items()
    }


def read_arrays(document: Mapping[str, Any], plan: Path) -> dict[str, Kept]:
    """The decisions of a plan, their arrays read from the archive beside it.

    Raises:
        UsageError: If the archive is missing or is not that of the plan.
    """
    wanted = any(_is_array(value) for kept in document.values() for value in kept.values())
    if not wanted:
        return {key: dict(kept) for key, kept in document.items()}
    path = plan.with_name(plan.name.removesuffix(".yaml") + ".npz")
    advice = "keep it beside the plan, or build again without --plan"
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {
                key: {name: _restored(archive, value) for name, value in kept.items()} for key, kept in document.items()
            }
    except FileNotFoundError as error:
        raise UsageError(f"plan {plan}: the arrays of its decisions are not there ({path.name}); {advice}") from error
    except Exception as error:  # a dozen kinds, of zipfile, zlib and NumPy's reader of headers
        why = " ".join(str(error).split())
        raise UsageError(f"plan {plan}: {path.name} is damaged or of another plan: {why}; {advice}") from error


def _restored(archive: Any, value: Any) -> Any:
    if not _is_array(value):
        return value
    array = archive[str(value[ARRAY])]
    if _checksum(array) != value.get(CHECKSUM):
        raise ValueError(f"array {value[ARRAY]} is not the one that the plan was written with")
    return PackedArray.of(array)


def _checksum(stored: Stored) -> int:
    array = stored.unpacked() if isinstance(stored, PackedArray) else stored
    header = f"{array.dtype.str}{array.shape}".encode()
    return zlib.crc32(np.ascontiguousarray(array).tobytes(), zlib.crc32(header))


def _is_array(value: Any) -> bool:
    return isinstance(value, Mapping) and ARRAY in value
