"""Names to classes: passes and targets, ours and anybody's, found through entry points and imported when used.

A distribution registers a pass in its own metadata:

    [project.entry-points."irc.passes"]
    my-pass = "my_package.my_pass:MyPass"

Ours are registered the same way. Within a program, `register` does it without an installation, and pipeline text accepts
`path/to/file.py:ClassName`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from irc.errors import UsageError

PASS_GROUP = "irc.passes"
TARGET_GROUP = "irc.targets"

_REGISTERED: dict[tuple[str, str], type] = {}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered name.

    Attributes:
        name: What the command line calls it.
        target: "module:Class".
        distribution: Name and version of the package that registered it.
    """

    name: str
    target: str
    distribution: str

    def load(self) -> type:
        """Imports the class.

        Raises:
            UsageError: If its module cannot be imported or has no such class.
        """
        module, _, attribute = self.target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{self.name!r} of {self.distribution} cannot be loaded from {self.target}: {error}"
            ) from error
        return as_class(found, self.name, f"{self.name!r} of {self.distribution}: {self.target}")


def as_class(found: Any, name: str, where: str) -> type:
    """A registered object as a class with options: a class as it is, a pass written for `torch.fx` wrapped.

    Raises:
        UsageError: If it is neither.
    """
    from irc.trace.fx_pass import fx_pass_class, is_foreign_fx_pass

    if is_foreign_fx_pass(found):
        return fx_pass_class(found, name)
    if not isinstance(found, type):
        raise UsageError(f"{where} is not a class, nor a function from GraphModule to GraphModule")
    return found


def _as_pass(found: Any, name: str, where: str) -> type:
    """A class with the methods of a pass."""
    cls = as_class(found, name, where)
    if missing := [part for part in ("name", "contract", "sites", "rewrite") if not hasattr(cls, part)]:
        raise UsageError(
            f"{where} is not a pass: it has no {', '.join(repr(part) for part in missing)}; derive it from irc.Pass"
        )
    return cls


@functools.cache
def _installed(group: str) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for point in importlib.metadata.entry_points(group=group):
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unnamed package"
        entry = Entry(point.name, point.value, distribution)
        other = entries.setdefault(point.name, entry)
        if other.target != entry.target:
            raise UsageError(
                f"two packages register {point.name!r} in {group}: {other.target} ({other.distribution}) and "
                f"{entry.target} ({entry.distribution}); uninstall one of them"
            )
    return dict(sorted(entries.items()))


def installed_passes() -> dict[str, Entry]:
    """Every registered pass by name, sorted, not imported."""
    return _installed(PASS_GROUP)


def installed_targets() -> dict[str, Entry]:
    """Every registered target by name, sorted, not imported."""
    return _installed(TARGET_GROUP)


def register(cls: Any, *, name: str | None = None) -> Any:
    """Registers a pass class for this process, so that pipeline text knows it; usable as a decorator.

    Args:
        cls: A pass class, a `torch.fx` pass class, or a function from GraphModule to GraphModule.
        name: What pipeline text calls it; by default its own name, with dashes.

    Raises:
        UsageError: If another class already has the name.
    """
    from irc.trace.fx_pass import dashed, is_foreign_fx_pass

    key: str = name or getattr(cls, "name", "") or dashed(cls.__name__)
    if is_foreign_fx_pass(cls):
        _REGISTERED[PASS_GROUP, _free_key(key, cls)] = as_class(cls, key, key)
        return cls
    existing = _REGISTERED.get((PASS_GROUP, key))
    installed = installed_passes().get(key)
    if existing not in (None, cls) or (installed and installed.target != f"{cls.__module__}:{cls.__qualname__}"):
        other = installed.target if installed else f"{existing.__module__}:{existing.__qualname__}"  # type: ignore[union-attr]
        raise UsageError(f"a pass called {key!r} is already registered: {other}; give {cls.__qualname__} another name")
    _REGISTERED[PASS_GROUP, key] = cls
    return cls


def _free_key(key: str, item: Any) -> str:
    """The name, unless another pass has it."""
    existing = _REGISTERED.get((PASS_GROUP, key))
    own = existing is not None and getattr(existing, "make", None) is item
    if key in installed_passes() or (existing is not None and not own):
        raise UsageError(f"a pass called {key!r} is already registered; give {item.__name__} another name")
    return key


def pass_class(name: str) -> type[Any]:
    """The pass class called `name`, or the one in `file.py:ClassName`.

    Raises:
        UsageError: If there is none; the message has the closest name.
    """
    if ".py:" in name:
        return _from_file(name)
    if (PASS_GROUP, name) in _REGISTERED:
        return _REGISTERED[PASS_GROUP, name]
    here = {key: Entry(key, "", "this process") for group, key in _REGISTERED if group == PASS_GROUP}
    return _lookup(name, {**here, **installed_passes()}, "pass", "`irc passes` lists them").load()


def target_class(name: str) -> type[Any]:
    """The target class called `name`.

    Raises:
        UsageError: If there is none.
    """
    known = installed_targets()
    return _lookup(name, known, "target", f"known targets: {', '.join(known)}").load()


@functools.cache
def passes_establishing(fact: str) -> tuple[str, ...]:
    """Names of the registered passes that establish a fact, in name order."""
    names = dict.fromkeys([*installed_passes(), *(key for group, key in _REGISTERED if group == PASS_GROUP)])
    return tuple(name for name in names if fact in pass_class(name).establishes)


def _lookup(name: str, known: dict[str, Entry], what: str, advice: str) -> Entry:
    if name in known:
        return known[name]
    dashed = name.replace("_", "-")
    close = [dashed] if dashed in known else difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise UsageError(f"unknown {what} {name!r}; " + (f"did you mean {close[0]!r}?" if close else advice))


def _from_file(spelling: str) -> type:
    from irc.trace.fx_pass import dashed

    path_text, _, class_name = spelling.rpartition(":")
    path = Path(path_text)
    if not path.is_file():
        raise UsageError(f"pass {spelling!r}: there is no file {path_text!r}")
    module_spec = importlib.util.spec_from_file_location(f"irc_user_{path.stem}", path.resolve())
    if module_spec is None or module_spec.loader is None:
        raise UsageError(f"pass {spelling!r}: {path_text!r} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"pass {spelling!r}: {path_text} raised {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if found is None or not callable(found):
        own = [n for n, c in vars(module).items() if callable(c) and getattr(c, "__module__", "") == module.__name__]
        raise UsageError(
            f"pass {spelling!r}: {path_text} has no class {class_name!r}; it has {', '.join(own) or 'none'}"
        )
    return _as_pass(found, dashed(class_name), f"pass {spelling!r}")
