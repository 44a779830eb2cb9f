"""Each check of a pass is needed: change it, and a test of that pass fails. The mutants are those of benchmarks/mutation.py."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from mutation_survivors import HARMLESS, PASSES

MODULE = "a = 1 if not x and y or z else 2\nif a == 1:\n    pass\nb = [i for i in y if i]\nassert a and b\n"


@pytest.fixture(scope="module")
def mutation() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "mutation.py"
    spec = importlib.util.spec_from_file_location("mutation", path)
    module = sys.modules["mutation"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_check_of_a_module_is_changed_in_every_way(mutation: ModuleType) -> None:
    found = mutation.mutants(MODULE)
    assert [(m.kind, m.check) for m in found] == [
        ("negated", "not x and y or z"),
        ("and/or swapped", "not x and y or z"),
        ("left out", "not x and y"),
        ("left out", "z"),
        ("and/or swapped", "not x and y"),
        ("left out", "not x"),
        ("left out", "y"),
        ("not dropped", "not x"),
        ("negated", "a == 1"),
        ("negated", "i"),
    ]
    texts = {mutation.mutated(MODULE, m.index) for m in found}
    assert len(texts) == len(found) and MODULE not in texts
    assert "1 if x and y or z else 2" in mutation.mutated(MODULE, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", PASSES)
def test_every_check_is_needed(mutation: ModuleType, name: str, tmp_path: Path) -> None:
    out = tmp_path / "survivors.json"
    # A process of its own, in which no pass is loaded yet.
    subprocess.run([sys.executable, mutation.__file__, name, "--workers", "1", "--json", str(out)], check=True)
    found = json.loads(out.read_text())[name]
    assert not found["problem"]
    left = [text.partition(": ")[2] for text in found["survivors"]]
    assert [text for text in left if text not in HARMLESS.get(name, ())] == []
