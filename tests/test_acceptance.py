"""What a build goes on with: thresholds, rankings, and nothing left behind of what only prepared int8."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import onnx
import onnx_ir as ir
import pass_kit
import pytest

import irc
from irc.candidates import Candidates
from irc.errors import RunnerError, UsageError

GRAPH = "g (float[n,64] x) => (float[n,64] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    model = pass_kit.parse(GRAPH, {"w": (64, 64), "v": (64, 64)})
    path = tmp_path_factory.mktemp("m") / "model.onnx"
    onnx.save(ir.to_proto(model), path)
    return path


def feeds(count=32):
    """One channel is far larger than the others, so that it pays to even them out."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(64) == 7, 200.0, 1.0)
    return [{"x": (rng.standard_normal((8, 64)) * scale).astype(np.float32)} for _ in range(count)]


def exact(run):
    """1 for a model that computes what float32 computes."""
    weights = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in exact.model.graph.initializer}
    (feed,) = feeds(1)
    wanted = np.maximum(feed["x"].astype(np.float64) @ weights["w"], 0) @ weights["v"]
    error = np.linalg.norm(run(feed)[0] - wanted) / np.linalg.norm(wanted)
    return float(error < 1e-5)


exact.higher_is_better = True


def operators(report):
    return [node.op_type for node in onnx.load(report.output).graph.node]


def test_what_only_prepared_goes_with_what_it_prepared(path, tmp_path):
    exact.model = onnx.load(path)
    kept = irc.optimize(path, data=feeds(), output=tmp_path / "a.onnx", level="O2", measure=False)
    assert operators(kept).count("Mul") >= 1 and len(kept.ledger["smooth-activations"].rewritten) >= 1
    report = irc.optimize(path, data=feeds(), output=tmp_path / "b.onnx", level="O2", measure=False, metric=exact)
    assert report.exit_code == 3 and sorted(operators(report)) == ["MatMul", "MatMul", "Relu"]
    assert not report.ledger["smooth-activations"].rewritten
    replayed = irc.optimize(path, plan=report.files[2], output=tmp_path / "c.onnx")
    assert replayed.output.read_bytes() == report.output.read_bytes()


def test_a_prepared_model_is_replayed_without_data(path, tmp_path):
    report = irc.optimize(path, data=feeds(), output=tmp_path / "a.onnx", level="O2", measure=False)
    replayed = irc.optimize(path, plan=report.files[2], output=tmp_path / "b.onnx")
    assert replayed.output.read_bytes() == report.output.read_bytes()


def test_a_threshold_leaves_the_worst_in_float(path, tmp_path):
    options = dict(data=feeds(), passes="quantize", measure=False)
    full = irc.optimize(path, output=tmp_path / "a.onnx", sensitivity=True, **options)
    assert [entry.site for entry in full.ledger["quantize"].rewritten] == ["h", "y"]
    worst, best = full.sensitivity
    assert worst.site == "h" and worst.local_error > best.local_error > 0
    report = irc.optimize(path, output=tmp_path / "b.onnx", keep_float_above=1.0, **options)
    record = report.ledger["quantize"]
    assert [entry.site for entry in record.rewritten] == ["y"]
    (left,) = record.undone
    assert left.site == "h" and "is above 1 times the median" in left.reason
    replayed = irc.optimize(path, plan=report.files[2], output=tmp_path / "c.onnx")
    assert replayed.output.read_bytes() == report.output.read_bytes()


def test_the_ranking_is_in_the_manifest_and_drawn(path, tmp_path):
    report = irc.optimize(
        path, data=feeds(), output=tmp_path / "a.onnx", passes="quantize", measure=False, sensitivity=True
    )
    manifest = json.loads(report.files[1].read_text())
    assert [item["site"] for item in manifest["sensitivity"]] == [item.site for item in report.sensitivity]
    assert manifest["sensitivity"][0]["output_error"] > 0
    (picture,) = [file for file in report.files if file.suffix == ".svg"]
    assert picture.name == "a.sensitivity.svg" and ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_without_asking_there_is_no_ranking(path, tmp_path):
    report = irc.optimize(path, data=feeds(), output=tmp_path / "a.onnx", passes="quantize", measure=False)
    assert "sensitivity" not in json.loads(report.files[1].read_text())
    assert not [file for file in report.files if file.suffix == ".svg"]


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_threshold_that_makes_no_sense_is_refused(path, tmp_path, factor):
    with pytest.raises(UsageError, match="--keep-float-above is"):
        irc.optimize(path, data=feeds(), output=tmp_path / "a.onnx", passes="quantize", keep_float_above=factor)


@pytest.mark.parametrize("options", [{"sensitivity": True}, {"keep_float_above": 5.0}])
def test_ranking_nothing_is_refused(path, tmp_path, options):
    with pytest.raises(UsageError, match="and the pipeline has none; try -O2"):
        irc.optimize(path, output=tmp_path / "a.onnx", level="O1", **options)


def test_a_ranking_needs_data(path, tmp_path):
    with pytest.raises(UsageError, match="give --data"):
        irc.optimize(path, output=tmp_path / "a.onnx", passes="quantize-weights", sensitivity=True, measure=False)


def test_what_is_named_beside_a_lossless_level_need_not_pay_in_time(path, tmp_path):
    """Half precision between Casts is slower on a CPU: still what was asked for, and no budget was given."""
    report = irc.optimize(path, passes="O1,reduce-precision", data=feeds(8), output=tmp_path / "a.onnx")
    assert len(report.ledger["reduce-precision"].rewritten) == 3 and not report.ledger["reduce-precision"].undone
    assert report.exit_code == 0


def test_the_float_model_that_outputs_are_compared_with_is_closed(path, tmp_path, monkeypatch):
    compared = []
    close = Candidates.close

    def closed(candidates):
        compared.append(candidates._outputs[1])
        close(candidates)

    monkeypatch.setattr(Candidates, "close", closed)
    options = dict(passes="quantize-weights", max_drop="2%", measure=False)
    irc.optimize(path, output=tmp_path / "m.onnx", data=feeds(4), **options)
    assert len(compared) == 1
    with pytest.raises(RunnerError, match="closed"):
        compared[0].run({})
