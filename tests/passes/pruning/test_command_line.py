"""From the command line: artifact, plan, report and errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pruning_models import cnn, mlp

import irc
import irc.ir
from irc.calibration import Sample
from irc.cli import main
from irc.judge.halves import split
from irc.latency_table import LatencyTable
from irc.passes.pruning.repair.batches import Batches


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


def samples(count: int):
    rng = np.random.default_rng(3)
    return [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def test_nothing_is_fitted_to_the_samples_that_a_result_is_accepted_on(model, monkeypatch):
    seen: list[set[str]] = []
    original = Batches.of.__func__

    def of(cls, teacher, ctx, **more):
        found = original(cls, teacher, ctx, **more)
        seen.append({sample.key for sample in ctx.data.samples()} - set(ctx.reserved))
        assert found.fit_samples + found.held_samples == len(seen[-1])
        return found

    monkeypatch.setattr(Batches, "of", classmethod(of))
    feeds = samples(40)
    irc.optimize(model, data=feeds, passes="prune-channels{macs=0.8}", max_drop="50%", measure=False)
    choice, acceptance = split(Sample(feed).key for feed in feeds)
    assert seen and all(keys == choice for keys in seen) and not choice & acceptance
    seen.clear()
    irc.optimize(model, data=feeds, passes="prune-channels{macs=0.8}", measure=False)
    assert all(len(keys) == 40 for keys in seen)


def test_a_repaired_artifact_is_replayed_without_data_to_the_byte(model):
    out, again = model.with_name("small.onnx"), model.with_name("again.onnx")
    report = irc.optimize(model, data=samples(24), passes="prune-channels{macs=0.6}", output=out, measure=False)
    summary = next(r.summary for r in report.ledger if r.name == "prune-channels")
    assert "cut alone" in summary and "as many channels at random" in summary
    irc.optimize(model, plan=out.with_name("small.plan.yaml"), output=again, measure=False)
    assert again.read_bytes() == out.read_bytes()


def test_a_loss_keeps_everything_where_nothing_can_be_lost(model):
    report = irc.optimize(model, data=samples(24), passes="prune-channels{loss=0.000001}", measure=False)
    record = next(r for r in report.ledger if r.name == "prune-channels")
    assert not record.rewritten and any(
        "no cut is sure to lose at most 0.0001 %" in entry.reason for entry in record.skipped
    )


@pytest.mark.parametrize(
    ("count", "judged", "note"),
    [(100, 20, "of the 20 samples that no weights were fitted to"), (40, 40, "were fitted to, which flatters it")],
)
def test_accuracy_is_told_of_samples_that_nothing_was_fitted_to(model, count, judged, note):
    report = irc.optimize(model, data=samples(count), passes="prune-channels{macs=0.8}", measure=False)
    assert report.accuracy is not None and report.accuracy.n == judged
    assert any(note in text for text in report.notes)
    kept = irc.optimize(model, data=samples(count), passes="prune-channels{macs=0.8}", measure=False, max_drop="90%")
    assert not any("fitted to" in text for text in kept.notes)


def test_without_clocks_a_loss_buys_multiply_accumulates(model, monkeypatch):
    """Two builds then give the same bytes."""
    monkeypatch.setattr(LatencyTable, "measured", None)
    options = {"data": samples(60), "passes": "prune-channels{loss=0.9,round_to=1}", "measure": False}
    out, again = (model.with_name(name) for name in ("a.onnx", "b.onnx"))
    report = irc.optimize(model, output=out, **options)
    assert report.ledger["prune-channels"].rewritten
    irc.optimize(model, output=again, **options)
    assert out.read_bytes() == again.read_bytes()
