"""The user's own metric: `f(run) -> float` from a Python file or from the Python API.

`run(feed)` returns the list of the model's outputs. The function brings its own data; an attribute `higher_is_better`
(default True) says which way is good.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from irc.errors import IrcError, RunnerError, UsageError

Outputs = Mapping[str, npt.NDArray[Any]]
Run = Callable[[Mapping[str, npt.NDArray[Any]]], list[npt.NDArray[Any]]]


class Runnable(Protocol):
    """What the judge needs of an opened model; see `irc.runner.Opened`."""

    def run(self, feed: Any, outputs: Sequence[str] | None = None) -> Outputs:
        """Outputs by name for one feed."""


class MetricError(UsageError):
    """The user's metric function cannot be found, raises, or does not return a number."""


class MetricFunction:
    """A metric function with its name, called on one model at a time.

    Args:
        function: `f(run) -> float`.
        name: How the report calls it.
    """

    def __init__(self, function: Callable[[Run], float], name: str) -> None:
        self.function, self.name = function, name
        self.higher_is_better = bool(getattr(function, "higher_is_better", True))

    def __call__(self, model: Runnable, outputs: Sequence[str]) -> tuple[float, int]:
        """The metric of a model, and how many feeds it ran.

        Raises:
            MetricError: If the function raises, naming the file and line, or returns something that is not a number.
        """
        calls = 0

        def run(feed: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
            nonlocal calls
            calls += 1
            results = model.run(feed)
            return [results[name] for name in outputs]

        try:
            value = self.function(run)
        except RunnerError as error:
            if error.crashed:
                raise
            raise MetricError(
                f"metric {self.name}: the model does not run on the feed given at {self._line(error)}: {_one_line(error)}"
            ) from error
        except IrcError:
            raise
        except Exception as error:
            raise MetricError(
                f"metric {self.name} raised {type(error).__name__} at {_place(error)}: {_one_line(error)}"
            ) from error
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float | np.number | np.ndarray)
            or np.size(value) != 1
        ):
            raise MetricError(f"metric {self.name} returned {_one_line(repr(value))}; it must return one number")
        return float(np.asarray(value).reshape(())), calls

    def _line(self, error: BaseException) -> str:
        """File name and line within the function's own file where an error passed through."""
        file = getattr(getattr(self.function, "__code__", None), "co_filename", "")
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        return f"{Path(file).name}:{lines[-1]}" if lines else _place(error)


def load_metric(spec: str) -> MetricFunction:
    """Loads `f.py:function`.

    Raises:
        MetricError: If the file or the function does not exist, or the file cannot be imported.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise MetricError(f"metric {spec!r}: there is no file {file}; write FILE.py:FUNCTION")
    function = getattr(_import(path, spec), name, None)
    if not callable(function):
        raise MetricError(f"metric {spec!r}: {path.name} has no function {name!r}")
    return MetricFunction(function, f"{path.name}:{name}")


def _import(path: Path, spec: str) -> Any:
    # A name of its own, so that a file called json.py does not replace the module of that name.
    module_name = f"irc_metric_{path.stem}"
    found = importlib.util.spec_from_file_location(module_name, path)
    if found is None or found.loader is None:
        raise MetricError(f"metric {spec!r}: {path.name} is not a Python file")
    module = importlib.util.module_from_spec(found)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[module_name] = module
    try:
        found.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise MetricError(
            f"metric {spec!r}: importing it raised {type(error).__name__} at {_place(error)}: {_one_line(error)}"
        ) from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _place(error: BaseException) -> str:
    """File name and line of the innermost user code that raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    own = [f for f in frames if f.filename != __file__]
    if not own:
        return "?"
    # Errors inside a library are the user's to trace from their own line, the outermost after ours.
    users = [f for f in own if "site-packages" not in f.filename and "lib/python" not in f.filename]
    frame = (users or own)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _one_line(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:197] + "..."
