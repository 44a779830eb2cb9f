#!/usr/bin/env python3
"""Do the tests of a pass notice when one of its checks is wrong?

    python benchmarks/mutation.py [PASS[:MODULE] ...] [--workers 2] [--json FILE]      # merge-casts, fold-affine:affine, ...

One check of the module of a pass is changed at a time: a condition negated, a `not` dropped, an `and` made an `or` or the
other way round, one of several conditions left out. Then the tests of that pass run, in tests/passes: those in
test_PASS.py and test_soundness_PASS.py. PASS:MODULE changes a module beside that of the pass instead, with the tests of
the pass: `fold-constants:known_shapes`. A change that no test notices is a survivor: a missing test, a check that
nothing needs, or one that only saves time.

Nothing is written into the project: each change has a child process, in which functions get other code.
"""

from __future__ import annotations

import argparse
import ast
import collections
import concurrent.futures
import contextlib
import copy
import dataclasses
import io
import json
import os
import resource
import signal
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 300
CPU_SECONDS = 60
TRACED_SECONDS = 0.3
MOST_LINES = 10_000


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One changed check.

    Attributes:
        line: Line of the check.
        kind: What was done to it.
        check: Its source.
        index: Which change of the module.
        lines: Lines of the statement that it is in, as far as they run with it; none if it runs on import.
    """

    line: int
    kind: str
    check: str
    index: int
    lines: frozenset[int]

    def __str__(self) -> str:
        return f"{self.line}: {self.kind}: {self.check}"


def module_of(name: str) -> str:
    """The module of a pass, or the one beside it that PASS:MODULE names."""
    from irc import registry

    name, _, beside = name.partition(":")
    module = registry.installed_passes()[name].target.partition(":")[0]
    return f"{module.rpartition('.')[0]}.{beside}" if beside else module


def source_of(name: str) -> Path:
    """The file of the module that is changed."""
    module = module_of(name)
    return ROOT / Path(*module.removeprefix("irc.").split(".")).with_suffix(".py")


def tests_of(name: str) -> list[Path]:
    """The files of the tests of a pass."""
    word = name.partition(":")[0].replace("-", "_")
    found = sorted((ROOT / "tests" / "passes").rglob(f"test_{word}.py"))
    return found + sorted((ROOT / "tests" / "passes").rglob(f"test_soundness_{word}.py"))


def mutants(source: str) -> list[Mutant]:
    """All changes of a module, in order of line."""
    tree = ast.parse(source)
    spans = _spans(tree)
    return [
        Mutant(node.lineno, kind, " ".join(ast.unparse(check).split())[:120], index, _lines_of(node, spans))
        for index, (node, kind, check, _) in enumerate(_changes(tree))
    ]


def _spans(tree: ast.AST) -> list[range]:
    """The lines of the statements in functions, a compound one without its body, inner ones last."""
    spans = []
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.stmt) and node is not function:
                    body = getattr(node, "body", None)
                    spans.append(range(node.lineno, (body[0].lineno if body else node.end_lineno or 0) + 1))
    return spans


def _lines_of(node: ast.AST, spans: list[range]) -> frozenset[int]:
    line = node.lineno  # type: ignore[attr-defined]
    around = [span for span in spans if line in span]
    return frozenset(min(around, key=len)) if around else frozenset()


def mutated(source: str, index: int) -> str:
    """The module with one change."""
    tree = ast.parse(source)
    node, _, _, change = list(_changes(tree))[index]
    del node
    change()
    return ast.unparse(ast.fix_missing_locations(tree))


def _changes(tree: ast.AST) -> Iterator[tuple[Any, str, ast.AST, Any]]:
    """Each place to change: the node, what is done, the check as it was, and a function that does it."""
    for node in _walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While) and not _is_type_checking(node.test):
            yield node, "negated", copy.deepcopy(node.test), _setter(node, "test", ast.UnaryOp(ast.Not(), node.test))
        if isinstance(node, ast.comprehension):
            for place, test in enumerate(node.ifs):
                yield test, "negated", copy.deepcopy(test), _item_setter(node.ifs, place, ast.UnaryOp(ast.Not(), test))
        if isinstance(node, ast.BoolOp):
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield node, "and/or swapped", copy.deepcopy(node), _setter(node, "op", other)
            for place, value in enumerate(node.values):
                rest = [v for i, v in enumerate(node.values) if i != place]
                yield value, "left out", copy.deepcopy(value), _setter(node, "values", rest)
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not):
                yield value, "not dropped", copy.deepcopy(value), _setter(node, field, value.operand)
            if isinstance(value, list):
                for place, item in enumerate(value):
                    if isinstance(item, ast.UnaryOp) and isinstance(item.op, ast.Not):
                        yield item, "not dropped", copy.deepcopy(item), _item_setter(value, place, item.operand)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those of assertions, which tell the type checker what is known."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Assert):
            yield from _walk(child)


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _setter(node: Any, field: str, value: Any) -> Any:
    return lambda: setattr(node, field, value)


def _item_setter(items: list[Any], place: int, value: Any) -> Any:
    return lambda: items.__setitem__(place, value)


class _Session:
    """A pytest plugin: runs all tests, noting which lines each reaches, and then for each change those that reach it.

    Each change has a forked process, in which the functions get their new code, so that nothing is imported twice.
    """

    def __init__(self, name: str, only: str) -> None:
        self._name, self._only = name, only
        self.told: tuple[int, list[Mutant]] | None = None

    def pytest_runtestloop(self, session: Any) -> bool:
        """Runs the tests without a change, then with each."""
        path = source_of(self._name)
        source = path.read_text(encoding="utf-8")
        following = [*session.items[1:], None]
        lines = {item: _reached(item, other, str(path)) for item, other in zip(session.items, following, strict=True)}
        if session.testsfailed:
            return True
        kills = collections.Counter[Any]()
        tried = [mutant for mutant in mutants(source) if self._only in str(mutant)]
        left = []
        for mutant in tried:
            chosen = [item for item in session.items if not mutant.lines or not mutant.lines.isdisjoint(lines[item])]
            # Those that noticed most come first; those that do not get there cannot notice.
            chosen.sort(key=lambda item: (-kills[item], MOST_LINES - 1 in lines[item]))
            failed = self._first_to_fail(session, mutant, source, chosen)
            if failed is None:
                left.append(mutant)
            elif failed >= 0:
                kills[chosen[failed]] += 1
        self.told = len(tried), sorted(left, key=lambda mutant: mutant.line)
        return True

    def _first_to_fail(self, session: Any, mutant: Mutant, source: str, chosen: list[Any]) -> int | None:
        """Index of the first test that fails, -1 if no test can tell any more, None if all succeed."""
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            os.setpgid(0, 0)
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))  # a rewrite without end shows soon
                _install(module_of(self._name), mutated(source, mutant.index), str(source_of(self._name)))
                for index, item in enumerate(chosen):
                    _run(item, chosen[index + 1] if index + 1 < len(chosen) else None)
                    if session.testsfailed:
                        os.write(tell, str(index).encode())
                        os._exit(1)
                os._exit(0)
            finally:
                os._exit(2)
        os.close(tell)
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        end, status = time.monotonic() + SECONDS, None
        while status is None and time.monotonic() < end:
            done, code = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if done else None
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        if status is None:
            os.waitpid(child, 0)
        if status not in (0, 1):  # it may have ended in the middle of talking to the runtime process
            sys.modules["irc.testing.conformance"].shared_runner.cache_clear()
        with os.fdopen(told) as pipe:
            index = pipe.read()
        return None if status == 0 else int(index or -1)


def _reached(item: Any, following: Any, path: str) -> set[int]:
    """The lines of a file that run with a test; all, where finding them out would take long."""
    reached: set[int] = set()
    end = time.monotonic() + TRACED_SECONDS

    def local(frame: Any, event: str, argument: Any) -> Any:
        reached.add(frame.f_lineno)
        if time.monotonic() > end:
            reached.update(range(MOST_LINES))
            sys.settrace(None)
            return None
        return local

    sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename == path else None)
    try:
        _run(item, following)
    finally:
        sys.settrace(None)
    return reached


def _run(item: Any, following: Any) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def _install(module_name: str, text: str, path: str) -> None:
    """Gives the functions of a module, and those of its classes, the code they have in a text."""
    module = sys.modules[module_name]
    # dataclasses look their module up, and what runs on import is only seen by what is in this one.
    changed = types.ModuleType(module_name)
    changed.__dict__.update({key: value for key, value in module.__dict__.items() if key.startswith("__")})
    exec(compile(text, path, "exec"), changed.__dict__)
    _adopt(module, changed, module_name)


def _adopt(old: Any, new: Any, module_name: str) -> None:
    for key, value in list(vars(new).items()):
        function = getattr(value, "fget", None) or value
        if getattr(function, "__module__", None) != module_name or key not in vars(old):
            continue
        mine = vars(old)[key]
        if isinstance(value, type):
            _adopt(mine, value, module_name)
        value, mine = (getattr(f, "__func__", getattr(f, "fget", None) or f) for f in (value, mine))
        both = isinstance(value, types.FunctionType) and isinstance(mine, types.FunctionType)
        if both and value.__code__.co_filename == mine.__code__.co_filename:
            mine.__code__ = value.__code__


def survivors(name: str, *, only: str = "") -> tuple[int, list[Mutant]]:
    """How many changes of the module of a pass there are, and those that its tests do not notice.

    Args:
        name: The pass.
        only: Changes whose description contains this.

    Raises:
        ValueError: If the tests fail as it is.
    """
    import pytest

    if not tests_of(name):
        raise ValueError(f"{name} has no tests of its own")
    os.chdir(ROOT)
    session = _Session(name, only)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", *map(str, tests_of(name))]
        pytest.main(arguments, plugins=[session])
    if session.told is None:
        raise ValueError(f"the tests of {name} fail without any change")
    return session.told


def _examined(name: str) -> tuple[str, int, list[Mutant], str]:
    try:
        return name, *survivors(name), ""
    except ValueError as error:
        return name, 0, [], str(error)


def main() -> None:
    """Prints the survivors of each pass."""
    from irc import registry

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passes", nargs="*", metavar="PASS[:MODULE]", help="default: every simplification")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names = args.passes or [
        name
        for name, entry in registry.installed_passes().items()
        if entry.target.startswith("irc.passes.simplification")
    ]
    results: dict[str, dict[str, Any]] = collections.defaultdict(dict)
    with concurrent.futures.ProcessPoolExecutor(args.workers) as pool:
        for name, count, left, problem in pool.map(_examined, names):
            print(f"{name}: {problem or f'{len(left)} of {count} survive'}", flush=True)
            path = source_of(name).relative_to(ROOT)
            for mutant in left:
                print(f"  {path}:{mutant}", flush=True)
            results[name] = {"mutants": count, "problem": problem, "survivors": [str(mutant) for mutant in left]}
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
