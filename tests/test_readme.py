"""README's Python examples run as they stand, in order, on the model that ships with the project."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("readme")
    digits = ROOT / "examples" / "digits"
    shutil.copy(digits / "digits.onnx", path / "model.onnx")
    with np.load(digits / "calib.npz") as data:
        np.savez(path / "calib.npz", **{name: array[:64] for name, array in data.items()})
    return path


def test_there_are_examples_of_each_use():
    text = "\n".join(BLOCKS)
    assert len(BLOCKS) >= 3 and "irc.optimize(" in text and "irc.PassManager(" in text and "irc.Pass)" in text


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_example_runs(index, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code = compile(BLOCKS[index], f"README.md, example {index}", "exec", dont_inherit=True)
    exec(code, {"__name__": "builtins"})
    assert capsys.readouterr().out.strip()


def test_every_pass_is_in_the_table():
    from irc import registry

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (exact|rounding|approximate) \|", text, re.MULTILINE))
    ours = {n: e.load().contract.value for n, e in registry.installed_passes().items() if e.target.startswith("irc.")}
    assert listed == ours
