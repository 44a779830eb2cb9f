"""What names a PyTorch network on the command line, and what is said when it names none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from irc.errors import IrcError, ModelError, UsageError
from irc.trace.module_source import is_module, is_module_spelling, open_source

SOURCE = """
import torch
net = torch.nn.Linear(4, 3)
count = 3
def make(): return torch.nn.Linear(4, 3)
def needs(size): return torch.nn.Linear(size, 3)
def nothing(): return 7
def stops(): raise RuntimeError("weights are missing")
def leaves():
    import sys
    sys.exit(3)
class Net(torch.nn.Linear):
    def __init__(self): super().__init__(4, 3)
    class Inner:
        @staticmethod
        def make(): return torch.nn.Linear(4, 3)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "nets.py"
    path.write_text(SOURCE)
    return path


class TestSpelling:
    @pytest.mark.parametrize("text", ["package.module:factory", "net:Net.make", "dir/file.py:make", "x.pt2", "a/b.pt2"])
    def test_of_modules(self, text: str) -> None:
        assert is_module_spelling(text)

    @pytest.mark.parametrize(
        "text", ["model.onnx", "dir/model.onnx", "model", "C:\\model.onnx", "a b:c", "x:", ":x", "net:1x"]
    )
    def test_of_files(self, text: str) -> None:
        assert not is_module_spelling(text)

    def test_a_file_that_exists_is_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("model:v2").touch()
        assert not is_module_spelling("model:v2")

    def test_objects(self) -> None:
        assert is_module(torch.nn.Linear(2, 2)) and not is_module("net:make") and not is_module(torch.ones(2))
        assert is_module(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)))

    def test_asking_does_not_import_torch(self) -> None:
        code = (
            "import sys, irc.trace as t; print(t.is_module(3), t.is_module_spelling('a:b'), 'torch' in sys.modules, "
            "'onnxscript' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["False", "True", "False", "False"]


class TestOpening:
    @pytest.mark.parametrize("name", ["make", "net", "Net", "Net.Inner.make"])
    def test_functions_modules_and_classes(self, nets: Path, name: str) -> None:
        for home in ("nets.py", "nets"):
            found = open_source(f"{home}:{name}")
            assert isinstance(found.module, torch.nn.Linear) and found.name == name and found.program is None

    def test_a_program_knows_its_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt2"
        torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), path)
        found = open_source(path)
        assert (found.name, found.folder) == ("net", tmp_path) and found.program is not None

    @pytest.mark.parametrize(
        ("text", "kind", "said"),
        [
            ("nets.py:mkae", UsageError, r"model 'nets\.py:mkae': nets\.py has no 'mkae'; it has make, needs"),
            ("nets:Net.nothing", UsageError, r"has no 'Net\.nothing'"),
            ("netz:make", UsageError, "there is no Python module 'netz'; run irc where"),
            ("nets.inner:make", UsageError, r"there is no Python module 'nets\.inner'"),
            ("other.py:make", UsageError, r"there is no file 'other\.py'"),
            ("nets.py:count", ModelError, "is int; irc expects a torch.nn.Module or a function"),
            ("nets.py:nothing", ModelError, "returned int; irc expects"),
            ("nets.py:needs", ModelError, "raised TypeError: needs.. missing 1 required positional argument: 'size'"),
            ("nets.py:stops", ModelError, r"raised RuntimeError: weights are missing \(nets\.py:8\)"),
            ("nets.py:leaves", ModelError, r"raised SystemExit: 3 \(nets\.py:11\)"),
            ("none.pt2", ModelError, r"none\.pt2: there is no such file"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, nets: Path, text: str, kind: type[IrcError], said: str) -> None:
        with pytest.raises(kind, match=said) as error:
            open_source(text)
        assert "\n" not in str(error.value)

    def test_a_file_with_a_syntax_error(self, nets: Path) -> None:
        nets.write_text("def make(:\n")
        with pytest.raises(ModelError, match=r"raised SyntaxError: .*nets\.py:1"):
            open_source("nets.py:make")

    def test_an_import_that_fails_inside_is_not_a_missing_module(self, nets: Path) -> None:
        nets.with_name("broken.py").write_text("import not_there_at_all\n")
        with pytest.raises(ModelError, match=r"raised ModuleNotFoundError: .*not_there_at_all.* \(broken\.py:1\)"):
            open_source("broken:make")

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"\x80\x02}q\x00."])
    def test_a_damaged_program(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "net.pt2"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"net\.pt2 is not a program that this PyTorch .* reads"):
            open_source(path)
