"""From the command line: artifact, plan, report and errors."""

from __future__ import annotations

import json

import pytest
from pruning_models import cnn, mlp

import irc.ir
from irc.cli import main


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    irc.ir.save(cnn(), path)
    return path


def test_an_artifact_a_report_and_a_plan_that_gives_the_same_bytes(model, capsys):
    out = model.with_name("small.onnx")
    options = ["--no-measure", "-v"]
    assert main(["optimize", str(model), "--passes", "prune-channels{macs=0.6}", "-o", str(out), *options]) == 0
    said = capsys.readouterr().out
    assert "of the original)" in said and "-> " in said and "pinned, it reaches the output 'y'" in said
    manifest = json.loads(out.with_name("small.manifest.json").read_text())
    assert "MACs" in json.dumps(manifest)
    again = model.with_name("again.onnx")
    plan = out.with_name("small.plan.yaml")
    assert main(["optimize", str(model), "--plan", str(plan), "-o", str(again), "--no-measure"]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_an_unreachable_budget_is_one_line_and_no_artifact(model, capsys):
    out = model.with_name("small.onnx")
    code = main(["optimize", str(model), "--passes", "prune-channels{macs=0.001}", "-o", str(out), "--no-measure"])
    assert code != 0 and not out.exists()
    assert "prune-channels: macs=0.001 cannot be reached, only 0.35" in " ".join(capsys.readouterr().err.split())


def test_an_output_that_gets_narrower(tmp_path):
    path, out = tmp_path / "model.onnx", tmp_path / "small.onnx"
    irc.ir.save(mlp(4, 12, 10, output="embedding"), path)
    passes = "prune-channels{ratio=0.5,allow_output=embedding}"
    assert main(["optimize", str(path), "--passes", passes, "-o", str(out), "--no-measure"]) == 0
    assert list(irc.ir.load(out).graph.outputs[0].shape or ())[1] == 5
