"""Where PyTorch modules come from: `package.module:factory`, `file.py:factory`, a saved `.pt2` program, an object in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.errors import ModelError, UsageError

if TYPE_CHECKING:
    import torch

_SPELLING = re.compile(r"(?P<home>.+\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)\Z")
INSTALL = "PyTorch is not installed; run: pip install irc-compiler[torch]"


@dataclasses.dataclass(frozen=True)
class ModuleSource:
    """A PyTorch network to be traced, or one that was.

    Attributes:
        name: What reports and files call it.
        module: The module; None for a saved program.
        program: The saved program; None for a module.
        folder: Where its artifact goes by default: beside a file, else the current folder.
        files: Files it was read from, which nothing may overwrite.
    """

    name: str
    module: torch.nn.Module | None = None
    program: torch.export.ExportedProgram | None = None
    folder: Path = Path()
    files: tuple[Path, ...] = ()


def is_module_spelling(text: str) -> bool:
    """Whether a command line names PyTorch code or a saved program rather than an ONNX file; nothing is imported."""
    if Path(text).suffix in (".pt2", ".py") or ".py:" in text:
        return True
    return _SPELLING.match(text) is not None and not Path(text).exists()


def is_module(model: Any) -> bool:
    """Whether an object is a PyTorch module or an exported program; torch is not imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    export = sys.modules.get("torch.export")
    return isinstance(model, torch.nn.Module) or (export is not None and isinstance(model, export.ExportedProgram))


def open_source(model: Any) -> ModuleSource:
    """The network that a spelling names, or an object is.

    Args:
        model: `package.module:factory` (a function that returns a module, a module class without arguments, or a module),
            `file.py:factory`, path of a `.pt2`, a `torch.nn.Module` or a `torch.export.ExportedProgram`.

    Raises:
        UsageError: If torch is missing, or the spelling names nothing that exists.
        ModelError: If the user's code raises, gives something else than a module, or the `.pt2` cannot be read.
    """
    try:
        import torch
    except ImportError as error:
        raise UsageError(INSTALL) from error
    if isinstance(model, torch.nn.Module):
        inner = _unwrapped(model)
        return ModuleSource(type(inner).__name__, module=inner)
    if isinstance(model, torch.export.ExportedProgram):
        return ModuleSource("program", program=model)
    text = str(model)
    if Path(text).suffix == ".pt2":
        path = Path(text)
        return ModuleSource(path.stem, program=_load_program(path), folder=path.parent, files=(path,))
    found = load_object(text, what="model")
    if not isinstance(found, torch.nn.Module):
        if not callable(found):
            raise ModelError(f"model {text!r} is {type(found).__name__}; irc expects a torch.nn.Module or a function")
        with user_code(f"model {text!r}", ModelError):
            found = found()
    if isinstance(found, torch.export.ExportedProgram):
        return ModuleSource(text.rpartition(":")[2], program=found, files=_files(text))
    if not isinstance(found, torch.nn.Module):
        raise ModelError(f"model {text!r} returned {type(found).__name__}; irc expects a torch.nn.Module")
    return ModuleSource(text.rpartition(":")[2], module=_unwrapped(found), files=_files(text))


def _unwrapped(module: Any) -> Any:
    """The network inside what compiles or distributes it, which tracing does itself or has no use for."""
    import torch

    while True:
        if hasattr(module, "_orig_mod"):
            module = module._orig_mod
        elif isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            module = module.module
        else:
            return module


def _files(text: str) -> tuple[Path, ...]:
    """The source file that a spelling names."""
    home = text.rpartition(":")[0]
    return (Path(home),) if home.endswith(".py") else ()


def source_files(source: ModuleSource, inputs: Any = None) -> tuple[Path, ...]:
    """Files of the user's that hold the network or its inputs, as far as they are known; nothing may overwrite them."""
    files = dict.fromkeys(source.files)
    if isinstance(inputs, str):
        files |= dict.fromkeys(_files(inputs))
    home = sys.modules.get(type(source.module).__module__) if source.module is not None else None
    if (name := getattr(home, "__file__", None)) is not None:
        files[Path(name)] = None
    return tuple(path for path in files if path.is_file())


def _load_program(path: Path) -> torch.export.ExportedProgram:
    import torch

    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")
    from irc.trace.silence import quiet

    try:
        with quiet():
            return torch.export.load(path)
    except Exception as error:
        raise ModelError(
            f"{path.name} is not a program that this PyTorch ({torch.__version__}) reads: {one_line(error)}; save it again "
            "with torch.export.save"
        ) from error


def load_object(text: str, *, what: str) -> Any:
    """What `package.module:name` or `file.py:name` names; the current folder, or that of the file, is importable.

    Args:
        text: The spelling.
        what: What it is for, in messages.

    Raises:
        UsageError: If the module or file, or the name in it, does not exist.
        ModelError: If importing it raises.
    """
    match = _SPELLING.match(text)
    if match is None:
        advice = (
            f"name a function in it: {text}:make"
            if text.endswith(".py")
            else "write package.module:name or file.py:name"
        )
        raise UsageError(f"{what} {text!r} is malformed; {advice}")
    home, name = match["home"], match["name"]
    module = _run_file(home, what) if home.endswith(".py") else _import(home, what)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
            own = [n for n in public if getattr(getattr(module, n), "__module__", "") == module.__name__]
            raise UsageError(f"{what} {text!r}: {home} has no {name!r}; it has {', '.join(own[:8]) or 'none'}")
        found = getattr(found, part)
    return found


def _import(home: str, what: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    top = home.partition(".")[0]
    with user_code(f"{what} {home!r}", ModelError):
        try:
            return importlib.import_module(home)
        except ModuleNotFoundError as error:
            if error.name is None or not (home == error.name or home.startswith(error.name + ".")):
                raise
            advice = "" if error.name != top else "; run irc where `python -c 'import " + top + "'` works"
            raise UsageError(f"{what} {home!r}: there is no Python module {error.name!r}{advice}") from error


def _run_file(home: str, what: str) -> Any:
    path = Path(home).resolve()
    if not path.is_file():
        raise UsageError(f"{what}: there is no file {home!r}")
    name = f"irc_{what.replace(' ', '_')}_{path.stem}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module  # dataclasses in the file look their module up
    try:
        with user_code(f"{what} {path.name}", ModelError):
            specification.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


@contextlib.contextmanager
def user_code(where: str, kind: Callable[[str], Exception]) -> Iterator[None]:
    """Turns what the user's code raises into one line that says where in it; what it prints goes to standard error."""
    from irc.errors import IrcError

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except IrcError:
        raise
    except (Exception, SystemExit) as error:
        raise kind(f"{where} raised {type(error).__name__}: {one_line(error)}{user_line(error)}") from error


def user_line(error: BaseException) -> str:
    """The innermost line of the traceback that is neither torch's nor ours, as ` (file.py:12)`; "" if there is none."""
    if isinstance(error, SyntaxError):
        return f" ({Path(error.filename or '').name}:{error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_foreign(f.filename)]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def is_foreign(filename: str) -> bool:
    """Whether a source file belongs to torch, to irc or to the interpreter rather than to the user."""
    parts = Path(filename).parts
    if filename.startswith("<") or "importlib" in parts:
        return True
    here, library = Path(__file__).parents[1], sysconfig.get_paths()["stdlib"]
    standard = filename.startswith(f"{library}/") and "site-packages" not in parts
    return "torch" in parts or "onnxscript" in parts or standard or filename.startswith(f"{here}/")


def one_line(error: BaseException) -> str:
    """The first paragraph of a message, without line breaks."""
    text = str(error).strip()
    return " ".join(text.split("\n\n")[0].split())[:400]
