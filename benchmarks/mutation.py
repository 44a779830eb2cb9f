#!/usr/bin/env python3
"""Do the tests of a pass notice when one of its checks is wrong?

    python benchmarks/mutation.py [PASS[:MODULE] ...] [--workers 2] [--json FILE]      # merge-casts, fold-affine:affine, ...

One check of the module of a pass is changed at a time: a condition negated, a `not` dropped, an `and` made an `or` or the
other way round, one of several conditions left out. Then the tests of that pass run, in tests/passes: those in
test_PASS.py and test_soundness_PASS.py. PASS:MODULE changes a module beside that of the pass instead, with the tests of
the pass: `fold-constants:known_shapes`. A change that no test notices is a survivor: a missing test, a check that
nothing needs, or one that only saves time.

Nothing is written into the project: the changed module is imported in its place in a child process.
"""

from __future__ import annotations

import argparse
import ast
import collections
import concurrent.futures
import contextlib
import copy
import dataclasses
import importlib.abc
import importlib.util
import io
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 300
CPU_SECONDS = 25


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


class _Replacement(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a text."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self._name, self._path, self._text = name, path, text

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """The spec of the one module."""
        return importlib.util.spec_from_loader(name, self, origin=str(self._path)) if name == self._name else None

    def exec_module(self, module: Any) -> None:
        """Runs the text as the module."""
        exec(compile(self._text, str(self._path), "exec"), module.__dict__)


class _Tests:
    """A pytest plugin: runs some of the tests, and tells which lines each reaches and which one fails."""

    def __init__(self, pipe: int, source: Path, chosen: Sequence[str] | None) -> None:
        self._pipe, self._source, self._chosen = pipe, str(source), chosen
        self._lines: dict[str, list[int]] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Only what is chosen, in that order."""
        if self._chosen is not None:
            found = {item.nodeid: item for item in items}
            items[:] = [found[name] for name in self._chosen if name in found]

    def pytest_runtest_call(self, item: Any) -> Any:
        """Notes the lines, where all tests run."""
        if self._chosen is not None:
            yield
            return
        reached: set[int] = set()

        def local(frame: Any, event: str, argument: Any) -> Any:
            reached.add(frame.f_lineno)
            return local

        sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename == self._source else None)
        yield
        sys.settrace(None)
        self._lines[item.nodeid] = sorted(reached)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Tells which test fails."""
        if report.failed:
            os.write(self._pipe, json.dumps(report.nodeid).encode())

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Tells the lines."""
        if self._chosen is None and exitstatus == 0:
            data = json.dumps(self._lines).encode()
            while data:
                data = data[os.write(self._pipe, data) :]


def _outcome(name: str, text: str, chosen: Sequence[str] | None) -> tuple[bool, Any]:
    """Whether tests succeed with a text as the module, and what they tell; in a forked process, so that nothing stays."""
    _preload()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(told)
        os._exit(_run_tests(name, text, tell, chosen))
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    os.close(tell)
    end = time.monotonic() + SECONDS
    message, status = b"", None
    while time.monotonic() < end:
        if select.select([told], [], [], 0.02)[0]:
            message += os.read(told, 1 << 16)
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
            break
    _kill_group(child)
    if status is None:
        os.waitpid(child, 0)
    while select.select([told], [], [], 0)[0] and (more := os.read(told, 1 << 16)):
        message += more
    os.close(told)
    with contextlib.suppress(ValueError):
        return status == 0, json.loads(message)
    return status == 0, None


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _preload() -> None:
    """Imports what takes long and is not under test, once."""
    import onnx
    import onnx.reference
    import onnx_ir
    import onnxruntime
    import pytest

    import irc.testing.graphs

    assert onnx and onnx_ir and onnxruntime and pytest and irc
    assert not any(module.startswith("irc.passes.") for module in sys.modules), "passes are loaded already"


def _run_tests(name: str, text: str, pipe: int, chosen: Sequence[str] | None) -> int:
    import pytest

    sys.meta_path.insert(0, _Replacement(module_of(name), source_of(name), text))
    os.chdir(ROOT)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))  # a rewrite without end is noticed soon
    out = io.StringIO()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *map(str, tests_of(name))]
        tests = _Tests(pipe, source_of(name), chosen)
        type(tests).pytest_runtest_call = pytest.hookimpl(hookwrapper=True)(type(tests).pytest_runtest_call)
        return int(pytest.main(arguments, plugins=[tests]))


def survivors(name: str, *, only: str = "") -> tuple[int, list[Mutant]]:
    """How many changes of the module of a pass there are, and those that its tests do not notice.

    Args:
        name: The pass.
        only: Changes whose description contains this.

    Raises:
        ValueError: If the tests fail as it is.
    """
    source = source_of(name).read_text(encoding="utf-8")
    if not tests_of(name):
        raise ValueError(f"{name} has no tests of its own")
    passed, lines = _outcome(name, source, None)
    if not passed:
        raise ValueError(f"the tests of {name} fail without any change")
    kills = collections.Counter[str]()
    tried = [mutant for mutant in mutants(source) if only in str(mutant)]
    left = []
    for mutant in tried:
        # Those that noticed most come first; those that do not get there cannot notice.
        chosen = [test for test, reached in lines.items() if not mutant.lines.isdisjoint(reached)]
        chosen = sorted(chosen, key=lambda test: -kills[test]) if mutant.lines else list(lines)
        passed, failed = _outcome(name, mutated(source, mutant.index), chosen) if chosen else (True, None)
        if passed:
            left.append(mutant)
        elif isinstance(failed, str):
            kills[failed] += 1
    return len(tried), sorted(left, key=lambda mutant: mutant.line)


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
