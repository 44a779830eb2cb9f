"""What is shipped is what is there, and the rooms keep to their doors."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"irc": "irc", "passes": "irc.passes", "backends": "irc.backends"}
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "rich", "torch", "yaml")
LINE_LIMIT = 500


def metadata() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources() -> list[Path]:
    """Every module that is shipped."""
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path: Path) -> str:
    """The name a module is imported by."""
    room, *rest = path.relative_to(ROOT).with_suffix("").parts
    parts = [ROOMS[room], *rest]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def project_files() -> list[Path]:
    """Every file of the project that git keeps or would keep; without git, every file of its folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    folders = (*ROOMS, "tests", "examples", "benchmarks", ".ci")
    found = [*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def python(code: str, *, cwd: Path | None = None) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestPackages:
    def test_every_folder_with_modules_is_listed(self) -> None:
        folders = {module_name(path.parent / "__init__.py") for path in sources()}
        assert folders == set(metadata()["tool"]["setuptools"]["packages"])

    def test_every_package_says_what_it_is(self) -> None:
        for folder in sorted({path.parent for path in sources()}):
            tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
            assert ast.get_docstring(tree), f"{folder}: __init__.py has no docstring"

    def test_types_are_shipped(self) -> None:
        assert (ROOT / "irc" / "py.typed").is_file()
        assert "py.typed" in metadata()["tool"]["setuptools"]["package-data"]["irc"]

    def test_versions_agree(self) -> None:
        assert python("import irc; print(irc.__version__)") == metadata()["project"]["version"]

    @pytest.mark.parametrize("group", ["irc.passes", "irc.targets"])
    def test_registered_names_are_those_of_the_classes(self, group: str) -> None:
        registered = metadata()["project"]["entry-points"][group]
        assert registered
        for name, target in registered.items():
            module, _, attribute = target.partition(":")
            assert getattr(importlib.import_module(module), attribute).name == name

    @pytest.mark.parametrize("group", ["irc.passes", "irc.targets"])
    def test_installed_names_are_the_registered_ones(self, group: str) -> None:
        points = importlib.metadata.entry_points(group=group)
        installed = {p.name: p.value for p in points if p.dist is not None and p.dist.name == "irc-compiler"}
        assert installed == metadata()["project"]["entry-points"][group], "install the project again: pip install -e ."

    def test_wheel_built_from_the_source_archive_is_complete(self, tmp_path: Path) -> None:
        checkout = tmp_path / "checkout"
        for path in project_files():
            target = checkout / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        build = "import sys, setuptools.build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"

        def run(hook: str, cwd: Path) -> None:
            command = [sys.executable, "-c", build, hook, str(tmp_path / "dist")]
            subprocess.run(command, cwd=cwd, check=True, capture_output=True)

        run("build_sdist", checkout)
        (archive,) = (tmp_path / "dist").glob("*.tar.gz")
        # The command line of tarfile: extractall() wants a filter from Python 3.12 on and has none before 3.11.4.
        subprocess.run([sys.executable, "-m", "tarfile", "-e", archive, tmp_path / "unpacked"], check=True)
        run("build_wheel", next((tmp_path / "unpacked").iterdir()))
        (wheel,) = (tmp_path / "dist").glob("*.whl")
        with zipfile.ZipFile(wheel) as content:
            names = {name for name in content.namelist() if ".dist-info/" not in name}
        installed = {path.relative_to(ROOT).as_posix() for path in sources()}
        installed = {name if name.startswith("irc/") else f"irc/{name}" for name in installed}
        assert names == installed | {"irc/py.typed"}


class TestImports:
    def test_the_compiler_does_not_import_its_passes_or_backends(self) -> None:
        for path in sources():
            if path.relative_to(ROOT).parts[0] != "irc":
                continue
            for line, name in imported(path):
                assert not re.match(r"irc\.(passes|backends)\b", name), f"{path}:{line} imports {name}"

    def test_imports_are_absolute(self) -> None:
        for path in sources():
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}:{node.lineno}: a relative import"

    @pytest.mark.parametrize(
        "code",
        [
            "import irc",
            "import irc.cli",
            "import irc.cli\ntry:\n    irc.cli.main(['--help'])\nexcept SystemExit:\n    pass",
            "import irc.cli\ntry:\n    irc.cli.main(['optimize', '--help'])\nexcept SystemExit:\n    pass",
        ],
        ids=["irc", "irc.cli", "irc --help", "irc optimize --help"],
    )
    def test_starting_imports_nothing_heavy(self, code: str) -> None:
        found = python(f"{code}\nimport sys\nprint('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)))")
        assert found.splitlines()[-1] == "loaded:"

    @pytest.mark.parametrize("package", ["torch", "onnxscript", "onnxsim"])
    def test_extras_are_imported_only_where_used(self, package: str) -> None:
        for path in sources():
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                assert package not in {name.partition(".")[0] for _, name in names_of(node)}, f"{path} at module level"

    @pytest.mark.parametrize("room", ["passes", "backends"])
    def test_a_room_refuses_its_short_name(self, room: str) -> None:
        code = f"try:\n    import {room}\nexcept ImportError as error:\n    print(error)"
        assert python(code, cwd=ROOT) == f"import this package as irc.{room}, not as {room}"


class TestHouseRules:
    def test_modules_are_named_for_what_they_do(self) -> None:
        vague = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}
        assert [str(path) for path in sources() if path.stem in vague or path.parent.name in vague] == []

    def test_modules_do_not_shadow_the_public_api(self) -> None:
        import irc

        functions = {name for name in irc.__all__ if name.islower()}
        assert [str(p) for p in sources() if p.parent == ROOT / "irc" and p.stem in functions] == []

    def test_modules_are_short(self) -> None:
        lengths = {str(p): len(p.read_text(encoding="utf-8").splitlines()) for p in sources()}
        assert {name: count for name, count in lengths.items() if count > LINE_LIMIT} == {}

    def test_no_file_knows_the_machine_it_was_made_on(self) -> None:
        paths = [path for path in (ROOT, Path(sys.prefix).resolve(), Path.home()) if len(path.parts) > 2]
        if ROOT.parent != Path(tempfile.gettempdir()).resolve():
            paths += (path for path in ROOT.parent.iterdir() if path.is_dir())
        spellings = [str(path) for path in paths] + [f"../{path.name}/" for path in paths if path.parent == ROOT.parent]
        pattern = re.compile(
            rb"(?<![\w./-])(?:" + b"|".join(re.escape(os.fsencode(s)) for s in spellings) + rb")(?![\w-])"
        )
        assert {str(p): found[0] for p in project_files() if (found := pattern.search(p.read_bytes()))} == {}


class TestEnvironment:
    def test_constraints_satisfy_the_ranges(self) -> None:
        pins = constraints()
        extras = [name for extra in metadata()["project"]["optional-dependencies"].values() for name in extra]
        for text in metadata()["project"]["dependencies"] + extras + metadata()["build-system"]["requires"]:
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            if name != "irc-compiler":
                assert name in pins, f"constraints.txt has no {name}"
                assert requirement.specifier.contains(pins[name]), f"{text}, but constraints.txt has {pins[name]}"

    def test_constraints_pin_everything_that_is_installed_with_the_tests(self) -> None:
        pins, seen = constraints(), {"irc-compiler"}
        wanted = [Requirement("irc-compiler[dev]")]
        while wanted:
            requirement = wanted.pop()
            try:
                needed = importlib.metadata.distribution(requirement.name).requires or []
            except importlib.metadata.PackageNotFoundError:
                continue
            for dependency in map(Requirement, needed):
                name = canonicalize_name(dependency.name)
                wants = (
                    [True]
                    if dependency.marker is None
                    else [dependency.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)]
                )
                if any(wants) and name not in seen:
                    seen.add(name)
                    wanted.append(dependency)
        assert sorted(seen - set(pins) - {"irc-compiler"}) == []

    def test_readme_commands_exist(self) -> None:
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        commands = re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
        assert {"demo", "test"} <= set(commands) <= set(targets)

    def test_links_in_the_documents_lead_somewhere(self) -> None:
        for document in (p for p in project_files() if p.suffix == ".md"):
            for link in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
                assert "://" in link or (document.parent / link).exists(), f"{document}: {link}"


def constraints() -> dict[str, str]:
    """Pinned versions by canonical name; every line must be an exact pin."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        name, equals, version = line.partition("==")
        assert equals and re.fullmatch(r"[0-9][0-9a-z.]*", version), f"constraints.txt: {line!r} is not name==version"
        pins[canonicalize_name(name)] = version
    return pins


def imported(path: Path) -> list[tuple[int, str]]:
    """Line and module of every import statement and `import_module("...")` in a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found += names_of(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found += [
                (node.lineno, a.value) for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
    return found


def names_of(node: ast.AST) -> list[tuple[int, str]]:
    if isinstance(node, ast.Import):
        return [(node.lineno, alias.name) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [(node.lineno, node.module), *((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)]
    return []
