"""Statistics kept on disk between builds, so that the second build of a model on the same data does not calibrate again.

One file per model, data and set of observables, named by the hash of everything the statistics depend on: the graph with
its weights, the samples, the versions of irc and of the runtime, and how samples are used. A file holds arrays and a
JSON header, nothing that can be executed. It is written beside and renamed; one that cannot be read counts as absent.

    location   $IRC_CACHE_DIR, else irc in $XDG_CACHE_HOME, ~/Library/Caches (macOS), %LOCALAPPDATA% or ~/.cache
    size       $IRC_CACHE_SIZE, for example 2GB; default 1GB; the entries used longest ago go first; 0 keeps nothing
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import irc
from irc.byte_size import parse_bytes
from irc.calibration.data import DataSource
from irc.calibration.statistics import (
    AnyStatistic,
    Distribution,
    Extremes,
    Gram,
    MinMax,
    Moments,
    Observable,
    Observations,
)
from irc.ir.splitting import skeleton
from irc.runner.histogram import Histogram, Magnitudes

DEFAULT_SIZE = 1 << 30
_SUFFIX = ".statistics.npz"
_CHUNK = 16 << 20
_FORMAT = 1


class StatisticsCache:
    """Statistics by key, in a folder that never grows beyond a limit.

    Args:
        folder: Where; made when the first entry is kept.
        limit_bytes: Of all entries together.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = DEFAULT_SIZE) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    @classmethod
    def default(cls) -> StatisticsCache:
        """The cache of this user, by the environment.

        Raises:
            UsageError: If `IRC_CACHE_SIZE` is not a size.
        """
        given = os.environ.get("IRC_CACHE_SIZE")
        if given is None:
            limit = DEFAULT_SIZE
        else:
            limit = 0 if given.strip() == "0" else parse_bytes(given, "IRC_CACHE_SIZE")
        return cls(_folder(), limit_bytes=limit)

    def get(self, key: str) -> Observations | None:
        """The statistics kept under a key; None if there are none."""
        path = self._path(key)
        try:
            with np.load(path, allow_pickle=False) as entry:
                found = _decoded(entry)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return found

    def put(self, key: str, observations: Observations) -> None:
        """Keeps statistics under a key; does nothing where the folder cannot be written."""
        if self.limit_bytes <= 0:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".partial")
            try:
                with os.fdopen(handle, "wb") as file:
                    np.savez_compressed(file, allow_pickle=False, **_encoded(observations))
                os.replace(name, self._path(key))
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
            self._shrink()
        except OSError:
            return

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _shrink(self) -> None:
        entries = sorted((p.stat().st_mtime_ns, p.stat().st_size, p) for p in self.folder.glob(f"*{_SUFFIX}"))
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def statistics_key(
    model_digest: str, data_digest: str, observables: Sequence[Observable], *, early_stop: float | None
) -> str:
    """The key of statistics: a hash of all they depend on.

    Args:
        model_digest: Of the graph and its weights, from `digest_of_model`.
        data_digest: Of the samples, from `digest_of_data`.
        observables: In any order.
        early_stop: As `observe` takes it.
    """
    asked = sorted((o.value_name, o.kind, -99 if o.axis is None else o.axis) for o in observables)
    runtime = importlib.metadata.version("onnxruntime")
    parts = (_FORMAT, irc.__version__, runtime, np.__version__, model_digest, data_digest, asked, early_stop)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def digest_of_model(model: ir.Model) -> str:
    """A hash of a model's graph and of every weight."""
    split = skeleton(model)
    digest = hashlib.sha256(split.proto)
    for name, tensor in split.weights.items():
        digest.update(f"{name}|{tensor.dtype}|{tensor.shape}|".encode())
        flat = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
        for start in range(0, flat.size, _CHUNK):
            digest.update(flat[start : start + _CHUNK].tobytes())
    return digest.hexdigest()


def digest_of_data(source: DataSource, *, ordered: bool = False) -> str:
    """A hash of all samples, whatever their order unless it matters."""
    keys = [sample.key for sample in source.samples()]
    return hashlib.sha256("|".join(keys if ordered else sorted(keys)).encode()).hexdigest()


def _folder() -> Path:
    if given := os.environ.get("IRC_CACHE_DIR"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "irc"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "irc"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "irc"


def _encoded(observations: Observations) -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    entries = []
    for index, (observable, statistic) in enumerate(observations.found.items()):
        fields: dict[str, Any] = {}
        if isinstance(statistic, tuple):
            fields = {"parts": [_encode_distribution(one, f"{index}.{i}", arrays) for i, one in enumerate(statistic)]}
        elif isinstance(statistic, Extremes):
            for name in ("low", "high", "low_sum", "high_sum", "count"):
                arrays[f"{index}.{name}"] = getattr(statistic, name)
        elif isinstance(statistic, Moments):
            fields = {"count": statistic.count}
            arrays |= {f"{index}.total": statistic.total, f"{index}.squares": statistic.squares}
        else:
            fields = {"count": statistic.count}
            arrays[f"{index}.total"] = statistic.total
        entries.append([observable.value_name, observable.kind, observable.axis, fields])
    header = {
        "entries": entries,
        "missing": observations.missing,
        "samples": observations.samples,
        "available": observations.available,
    }
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    return arrays


def _encode_distribution(one: Distribution, name: str, arrays: dict[str, np.ndarray[Any, Any]]) -> list[Any]:
    histogram = one.histogram
    arrays[f"{name}.positive"] = histogram.positive.counts
    arrays[f"{name}.negative"] = histogram.negative.counts
    ends = None if one.range.empty else [one.range.low, one.range.high, one.range.count]
    return [ends, histogram.positive.first, histogram.negative.first, histogram.small, histogram.not_a_number]


def _decoded(entry: Any) -> Observations:
    header = json.loads(bytes(entry["header"]))
    found: dict[Observable, AnyStatistic] = {}
    for index, (value_name, kind, axis, fields) in enumerate(header["entries"]):
        observable = Observable(value_name, kind, axis)
        if kind == "distribution":
            found[observable] = tuple(
                _decode_distribution(part, f"{index}.{i}", entry) for i, part in enumerate(fields["parts"])
            )
        elif kind == "min-max":
            names = ("low", "high", "low_sum", "high_sum", "count")
            found[observable] = Extremes(*(entry[f"{index}.{name}"] for name in names))
        elif kind == "moments":
            found[observable] = Moments(fields["count"], entry[f"{index}.total"], entry[f"{index}.squares"])
        else:
            found[observable] = Gram(fields["count"], entry[f"{index}.total"])
    return Observations(found, dict(header["missing"]), header["samples"], header["available"])


def _decode_distribution(part: list[Any], name: str, entry: Any) -> Distribution:
    ends, positive, negative, small, not_a_number = part
    histogram = Histogram(
        Magnitudes(positive, entry[f"{name}.positive"]),
        Magnitudes(negative, entry[f"{name}.negative"]),
        small,
        not_a_number,
    )
    return Distribution(MinMax() if ends is None else MinMax(*ends), histogram)
