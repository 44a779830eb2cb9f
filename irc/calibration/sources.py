"""Data as users have it: a folder of `.npz`, one `.npz`, a function, feeds in memory."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import traceback
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.data import DataSource, Feed, FeedList, Sample
from irc.calibration.signature import InputSpec, fit, signature
from irc.errors import DataError, UsageError


def open_data(spec: Any, model: ir.Model, *, label: str | None = None, seed: int = 0, count: int = 32) -> DataSource:
    """Opens the user's data and checks its first sample against the model; the others are checked as they are read.

    Args:
        spec: A folder of `.npz` (one feed each, sorted by name), an `.npz` (axis 0 indexes samples), `file.py:function`,
            "random", a `DataSource`, a list of feeds, or a function that returns an iterable of feeds.
        model: What the feeds must fit.
        label: Which array is the label, if there are several candidates.
        seed: Seed of generated data.
        count: Number of generated samples.

    Raises:
        DataError: If there is no sample, or one does not fit.
        UsageError: If the text names nothing readable.
    """
    source = _open(spec, signature(model), model, label, seed, count)
    if len(source) == 0:
        raise DataError(f"{source.name}: there are no samples")
    next(iter(source.samples()))
    return source


def _open(
    spec: Any, specs: dict[str, InputSpec], model: ir.Model, label: str | None, seed: int, count: int
) -> DataSource:
    if isinstance(spec, DataSource):
        return spec
    if isinstance(spec, str) and spec == "random":
        from irc.calibration.generated import generate_feeds

        return generate_feeds(model, count=count, seed=seed)
    if isinstance(spec, str | Path):
        text = str(spec)
        if ".py:" in text:
            return FunctionSource(_load_function(text), specs, name=text, label=label)
        path = Path(text)
        if path.is_dir():
            return FolderSource(path, specs, label=label)
        if path.suffix == ".npz" and path.is_file():
            return ArchiveSource(path, specs, label=label)
        if not path.exists():
            raise DataError(f"data {text!r}: there is no such file or folder")
        raise DataError(f"data {text!r} is neither a folder of .npz files, an .npz, file.py:function nor 'random'")
    if callable(spec):
        return FunctionSource(spec, specs, name=getattr(spec, "__name__", "a function"), label=label)
    if isinstance(spec, Mapping):
        raise DataError("data is one dict; give a list of feeds, each a dict of arrays with the batch axis")
    if isinstance(spec, Iterable):
        samples = [fit(_arrays(item, f"sample {i}"), specs, f"sample {i}", label=label) for i, item in enumerate(spec)]
        return FeedList(samples)
    raise UsageError(f"data of type {type(spec).__name__} is not understood; give a path, a list of feeds or a function")


class FolderSource(DataSource):
    """A folder of `.npz` files, one feed each."""

    def __init__(self, folder: Path, specs: dict[str, InputSpec], *, label: str | None) -> None:
        self.name = f"{folder.name or folder}/"
        self._specs, self._label = specs, label
        self._files = sorted(folder.glob("*.npz"))
        if not self._files:
            others = sorted(p.name for p in folder.iterdir())[:3]
            found = f"it has {', '.join(others)}, ..." if others else "it is empty"
            raise DataError(f"data folder {folder} has no .npz files; {found}")

    def __len__(self) -> int:
        return len(self._files)

    def samples(self) -> Iterator[Sample]:
        """Reads the files in order of name."""
        for path in self._files:
            origin = f"{self.name}{path.name}"
            yield fit(_read(path, origin), self._specs, origin, label=self._label)


class ArchiveSource(DataSource):
    """One `.npz` whose axis 0 indexes samples; each sample gets a leading axis of 1."""

    def __init__(self, path: Path, specs: dict[str, InputSpec], *, label: str | None) -> None:
        self.name = path.name
        self._path, self._specs, self._label = path, specs, label
        arrays = _read(path, path.name)
        lengths = {name: array.shape[0] if array.ndim else None for name, array in arrays.items()}
        if None in lengths.values() or len(set(lengths.values())) != 1:
            shown = ", ".join(f"{name} {list(arrays[name].shape)}" for name in arrays) or "no arrays"
            raise DataError(f"{path.name}: axis 0 must index samples and be equally long in all arrays; it has {shown}")
        self._count = int(next(iter(lengths.values())) or 0)
        self._check_batch(arrays)
        self._arrays = arrays

    def _check_batch(self, arrays: Feed) -> None:
        for name, spec in self._specs.items():
            fixed = spec.dims[0] if spec.dims else None
            if name in arrays and isinstance(fixed, int) and fixed != 1:
                raise DataError(
                    f"{self.name}: input {name!r} has a fixed batch of {fixed}, and axis 0 of an .npz indexes samples; "
                    "give a folder with one .npz per feed"
                )

    def __len__(self) -> int:
        return self._count

    def samples(self) -> Iterator[Sample]:
        """Slices axis 0."""
        for i in range(self._count):
            arrays = {name: array[i : i + 1] for name, array in self._arrays.items()}
            yield fit(arrays, self._specs, f"{self.name}[{i}]", label=self._label)


class FunctionSource(DataSource):
    """A function that returns an iterable of feeds; it is called anew for every pass over the data."""

    def __init__(
        self, function: Callable[[], Any], specs: dict[str, InputSpec], *, name: str, label: str | None
    ) -> None:
        self.name = Path(name.rpartition(":")[0]).name + ":" + name.rpartition(":")[2] if ":" in name else name
        self._function, self._specs, self._label = function, specs, label
        self._count = sum(1 for _ in self._items())

    def __len__(self) -> int:
        return self._count

    def samples(self) -> Iterator[Sample]:
        """Calls the function and checks what it yields."""
        for i, item in enumerate(self._items()):
            origin = f"{self.name}[{i}]"
            yield fit(_arrays(item, origin), self._specs, origin, label=self._label)

    def _items(self) -> Iterator[Any]:
        try:
            result = self._function()
            if not isinstance(result, Iterable) or isinstance(result, str | bytes | Mapping):
                raise DataError(
                    f"{self.name} returned {type(result).__name__}; it must return an iterable of dicts of arrays"
                )
            yield from result
        except DataError:
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            raise DataError(f"{self.name} raised {type(error).__name__}: {error} ({where})") from error


def _load_function(text: str) -> Callable[[], Any]:
    path_text, _, name = text.rpartition(":")
    path = Path(path_text)
    if not path.is_file():
        raise DataError(f"data {text!r}: there is no file {path_text!r}")
    module_spec = importlib.util.spec_from_file_location(f"irc_data_{path.stem}", path.resolve())
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"data {text!r}: {path.name} raised {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, f in vars(module).items() if inspect.isfunction(f)]
        raise DataError(f"data {text!r}: {path.name} has no function {name!r}; it has {', '.join(functions) or 'none'}")
    return function  # type: ignore[no-any-return]


def _arrays(item: Any, origin: str) -> Feed:
    if not isinstance(item, Mapping):
        raise DataError(f"{origin} is {type(item).__name__}; it must be a dict of arrays")
    return {str(name): np.asarray(array) for name, array in item.items()}


def _read(path: Path, origin: str) -> Feed:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise DataError(f"{origin} holds one array without a name; write it with np.savez(path, NAME=array)")
            return {name: archive[name] for name in archive.files}
    except DataError:
        raise
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise DataError(f"{origin} holds Python objects, which irc does not unpickle; save plain arrays") from error
        raise DataError(f"{origin} cannot be read: {error}") from error
    except (OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{origin} is not a readable .npz (truncated or damaged): {error}") from error


def take(source: DataSource, count: int) -> list[Sample]:
    """The first samples of a source."""
    return list(itertools.islice(source.samples(), count))
