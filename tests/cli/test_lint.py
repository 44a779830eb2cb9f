"""`irc lint`: findings by what they lead to, as text and JSON, with an exit code of their own, without a runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import int8_kit
import pytest

from irc.backends.ort import OrtTarget
from irc.cli import main
from irc.ir import save


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lint") / "block.onnx"
    save(int8_kit.quantize(int8_kit.block(), target=OrtTarget()).model, path)
    return path


def test_a_sound_model(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(artifact)]) == 0
    assert capsys.readouterr().out == "block.onnx: no rule of ort is broken\n"


def test_findings_are_grouped_by_effect_and_rule(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(artifact), "--target", "tensorrt"]) == 5
    text = capsys.readouterr().out
    assert text.index("refused: the runtime does not take the model") < text.index("wrong: the runtime takes it")
    assert "  quantized-type-is-int8  (" in text and " more (-v lists every node)" in text
    assert main(["lint", str(artifact), "--target", "tensorrt", "-v"]) == 5
    assert "more (-v" not in capsys.readouterr().out
    assert main(["lint", str(artifact), "--target", "tensorrt", "-q"]) == 5
    assert capsys.readouterr().out == ""


def test_json(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(artifact), "--target", "tensorrt{sm=86}", "--json"]) == 5
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == "block.onnx" and document["target"] == "tensorrt{sm=86}"
    assert {"rule", "effect", "node", "message"} == set(document["findings"][0])


def test_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--rules", "--target", "tensorrt"]) == 0
    assert "zero-point-is-zero" in capsys.readouterr().out
    assert main(["lint", "--rules", "--json"]) == 0
    assert {rule["rule"] for rule in json.loads(capsys.readouterr().out)} == {rule.name for rule in OrtTarget().rules}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "give the model to read, or --rules"),
        (["missing.onnx"], 4, "missing.onnx"),
        (["missing.onnx", "--target", "tensort"], 2, "did you mean 'tensorrt'"),
    ],
)
def test_errors(arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_no_runtime_is_needed(artifact: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None; sys.modules['torch'] = None\n"
        f"from irc.cli import main; sys.exit(main(['lint', {str(artifact)!r}, '--target', 'tensorrt', '-q']))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 5
