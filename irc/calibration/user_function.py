"""Functions in users' scripts that supply data: load them, call them, and turn what they raise into one line."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from irc.errors import DataError


def load_function(text: str) -> Callable[[], Any]:
    """The function that `file.py:function` names; the file is run, with its folder importable.

    Raises:
        DataError: If the file or the function is missing, or the file raises.
    """
    path_text, _, name = text.rpartition(":")
    path = Path(path_text).resolve()
    if not path.is_file():
        raise DataError(f"data {text!r}: there is no file {path_text!r}")
    module_name = f"irc_data_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    if module_spec is None or module_spec.loader is None:
        raise DataError(f"data {text!r}: {path.name} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module  # dataclasses in the script look their module up
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise DataError(f"data {text!r}: {_describe(error, path.name)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module_name]
        found = f"it has {', '.join(functions)}" if functions else "it has none"
        raise DataError(f"data {text!r}: {path.name} has no function {name!r}; {found}")
    return function  # type: ignore[no-any-return]


def call_function(function: Callable[[], Any], name: str) -> Iterator[Any]:
    """What the function returns, item by item.

    Raises:
        DataError: If it raises, at once or further on, or returns something else than an iterable of feeds.
    """
    try:
        result = function()
        if not isinstance(result, Iterable) or isinstance(result, str | bytes | Mapping):
            raise DataError(f"{name} returned {type(result).__name__}; irc expects an iterable of dicts of arrays")
        yield from result
    except DataError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError(_describe(error, name)) from error


def _describe(error: BaseException, name: str) -> str:
    """What was raised and where, in one line."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        where = f" (line {error.lineno})"
    message = " ".join(str(error).split())
    return f"{name} raised {type(error).__name__}: {message}{where}"
