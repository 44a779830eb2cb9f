"""Data as users have it: a folder of `.npz`, one `.npz`, a function, feeds in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irc.calibration.data import DataSource, Feed, Sample
from irc.calibration.input_signature import ArrayHeader, InputSpec, check_headers, fit, signature
from irc.calibration.npz import read_arrays, read_headers, read_rows
from irc.calibration.user_function import call_function, load_function
from irc.errors import DataError, UsageError

if TYPE_CHECKING:
    from irc.runner import Runner

MOST_SAMPLES = 200_000
"""A function that yields more is taken for endless."""


def open_data(
    spec: Any,
    model: ir.Model,
    *,
    label: str | None = None,
    seed: int = 0,
    count: int = 32,
    runner: Runner | None = None,
) -> DataSource:
    """Opens the user's data and checks it against the model.

    Names, types and shapes of all files are checked at once, without reading the arrays; NaN and infinity when a sample
    is read.

    Args:
        spec: A folder of `.npz` (one feed each, sorted by name), an `.npz` (axis 0 indexes samples),
            `file.py:function`, "random", a `DataSource`, a list or other iterable of feeds, or a function that returns
            one. An iterable that can be iterated only once is kept in memory; anything else is streamed.
        model: What the feeds must fit.
        label: Which array is the label, if there are several candidates.
        seed: Seed of generated data.
        count: Number of generated samples.
        runner: Where generated samples are tried; None takes them untried.

    Raises:
        DataError: If there is no sample, or one does not fit; the message shows expected and found.
        UsageError: If `spec` is of a type that cannot hold data.
    """
    source = _open(spec, model, label, seed, count, runner)
    if len(source) == 0:
        raise DataError(f"{source.name}: there are no samples; the model expects at least one")
    next(iter(source.samples()))
    return source


def take(source: DataSource, count: int) -> list[Sample]:
    """The first samples of a source."""
    return list(itertools.islice(source.samples(), count))


def _open(spec: Any, model: ir.Model, label: str | None, seed: int, count: int, runner: Runner | None) -> DataSource:
    specs = signature(model)
    if isinstance(spec, DataSource):
        return _CheckedSource(spec, specs, label=label)
    if isinstance(spec, str) and spec == "random":
        from irc.calibration.generated import generate_feeds, runnable_feeds

        if runner is None:
            return generate_feeds(model, count=count, seed=seed)
        return runnable_feeds(runner, model, count=count, seed=seed)
    if isinstance(spec, str | Path):
        return _open_path(str(spec), specs, label)
    if isinstance(spec, Mapping):
        raise DataError("data is one dict; irc expects a list of feeds, each a dict of arrays with the batch axis")
    if isinstance(spec, np.ndarray):
        raise DataError("data is one array without a name; irc expects a list of feeds, each a dict of arrays")
    if isinstance(spec, Iterable):
        held = list(spec) if iter(spec) is spec else spec
        return FunctionSource(lambda: held, specs, name="samples in memory", item="sample ", label=label)
    if callable(spec):
        return FunctionSource(spec, specs, name=getattr(spec, "__name__", type(spec).__name__), label=label)
    raise UsageError(
        f"data of type {type(spec).__name__} is not understood; give a path, a list of feeds or a function"
    )


def _open_path(text: str, specs: Mapping[str, InputSpec], label: str | None) -> DataSource:
    path = Path(text)
    if path.is_dir():
        return FolderSource(path, specs, label=label)
    if path.suffix == ".npz" and path.is_file():
        return ArchiveSource(path, specs, label=label)
    script, colon, name = text.rpartition(":")
    if colon and script.endswith(".py"):
        return FunctionSource(load_function(text), specs, name=f"{Path(script).name}:{name}", label=label)
    if not path.exists():
        raise DataError(f"data {text!r}: there is no such file or folder")
    advice = {".py": f"; name the function: {text}:FUNCTION", ".npy": "; write it with np.savez(path, NAME=array)"}
    raise DataError(
        f"data {text!r} is a {path.suffix or 'plain'} file; irc expects a folder of .npz files, an .npz, "
        f"file.py:function or 'random'{advice.get(path.suffix, '')}"
    )


class FolderSource(DataSource):
    """A folder of `.npz` files, one feed each, in order of name."""

    def __init__(self, folder: Path, specs: Mapping[str, InputSpec], *, label: str | None) -> None:
        self.name = f"{folder.name or folder.resolve().name}/"
        self._specs, self._label = specs, label
        self._files = sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))
        if not self._files:
            others = sorted(path.name for path in folder.iterdir())
            found = f"it has {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}" if others else "it is empty"
            raise DataError(f"data folder {str(folder)!r} has no .npz files ({found}); irc expects one per feed")
        for path in self._files:
            origin = f"{self.name}{path.name}"
            check_headers(read_headers(path, origin), specs, origin, label=label)

    def __len__(self) -> int:
        return len(self._files)

    def samples(self) -> Iterator[Sample]:
        """Reads one file after another."""
        for path in self._files:
            origin = f"{self.name}{path.name}"
            yield fit(read_arrays(path, origin), self._specs, origin, label=self._label)


class ArchiveSource(DataSource):
    """One `.npz` whose axis 0 indexes samples; each sample gets a leading axis of 1."""

    def __init__(self, path: Path, specs: Mapping[str, InputSpec], *, label: str | None) -> None:
        self.name = path.name
        self._path, self._specs, self._label = path, specs, label
        headers = read_headers(path, self.name)
        lengths = {header.shape[0] if header.shape else None for header in headers.values()}
        if None in lengths or len(lengths) != 1:
            shown = ", ".join(f"{name} {list(header.shape)}" for name, header in headers.items())
            raise DataError(f"{self.name}: axis 0 must index samples and be equally long in all arrays; it has {shown}")
        self._count = next(iter(lengths)) or 0
        for name, spec in specs.items():
            fixed = spec.dims[0] if spec.dims else None
            if name in headers and isinstance(fixed, int) and fixed != 1:
                raise DataError(
                    f"{self.name}: input {name!r} is {headers[name]}, whose axis 0 indexes samples; the model expects "
                    f"a fixed batch, {spec}; give a folder with one .npz per feed"
                )
        rows = {name: ArrayHeader(header.dtype, (1, *header.shape[1:])) for name, header in headers.items()}
        check_headers(rows, specs, f"{self.name}[0]", label=label)

    def __len__(self) -> int:
        return self._count

    def samples(self) -> Iterator[Sample]:
        """Reads row after row."""
        for i, arrays in enumerate(read_rows(self._path, self.name)):
            yield fit(arrays, self._specs, f"{self.name}[{i}]", label=self._label)


class FunctionSource(DataSource):
    """A function that returns an iterable of feeds; it is called anew for every pass over the data."""

    def __init__(
        self,
        function: Callable[[], Any],
        specs: Mapping[str, InputSpec],
        *,
        name: str,
        label: str | None,
        item: str | None = None,
    ) -> None:
        self.name = name
        self._function, self._specs, self._label = function, specs, label
        self._item = item
        self._count: int | None = None
        self._count = sum(1 for _ in self.samples())

    def __len__(self) -> int:
        return self._count or 0

    def samples(self) -> Iterator[Sample]:
        """Calls the function and checks what it yields."""
        found = 0
        for found, item in enumerate(call_function(self._function, self.name), start=1):
            if found > MOST_SAMPLES:
                raise DataError(f"{self.name} yields more than {MOST_SAMPLES} samples; bound it with itertools.islice")
            origin = f"{self._item}{found - 1}" if self._item else f"{self.name}[{found - 1}]"
            yield fit(_arrays(item, origin), self._specs, origin, label=self._label)
        if self._count is not None and found != self._count:
            raise DataError(
                f"{self.name} yielded {found} samples, and {self._count} the first time; it is called for every pass "
                "over the data and must start anew"
            )


class _CheckedSource(DataSource):
    """Another source, its samples checked against the model."""

    def __init__(self, source: DataSource, specs: Mapping[str, InputSpec], *, label: str | None) -> None:
        self.name, self.synthetic = source.name, source.synthetic
        self._source, self._specs, self._label = source, specs, label

    def __len__(self) -> int:
        return len(self._source)

    def samples(self) -> Iterator[Sample]:
        """The samples of the other source."""
        for sample in self._source.samples():
            yield fit({**sample.labels, **sample.feed}, self._specs, sample.origin or self.name, label=self._label)


def _arrays(item: Any, origin: str) -> Feed:
    if not isinstance(item, Mapping):
        raise DataError(f"{origin} is {type(item).__name__}; irc expects a dict of arrays by input name")
    arrays: Feed = {}
    for name, value in item.items():
        try:
            arrays[str(name)] = np.asarray(value)
        except Exception as error:
            raise DataError(f"{origin}: {name!r} is {type(value).__name__}, not an array: {error}") from error
    return arrays
