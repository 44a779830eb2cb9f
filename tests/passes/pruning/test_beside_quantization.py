"""Cut channels and int8 in one pipeline under a budget: sites of both are compared with models of the right sizes, and called by their name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pruning_models import cnn

import irc
import irc.ir
from irc.cli import main
from irc.measurement import _structure

PRUNE = "prune-channels{ratio=0.3,round_to=1}"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    irc.ir.save(cnn(), path)
    return path


def samples(count: int = 24) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((4, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("passes", [f"{PRUNE},quantize", PRUNE])
def test_families_go_back_under_a_budget(model, passes):
    report = irc.optimize(model, data=samples(), passes=passes, max_drop="5%", measure=False, cache=False)
    undone = {entry.site: entry.reason for entry in report.ledger["prune-channels"].undone}
    assert undone
    assert all(reason.startswith("kept whole: its loss") for reason in undone.values()), undone


@pytest.mark.slow
def test_speed_does_not_call_families_integers(model):
    report = irc.optimize(
        model, data=samples(), passes=f"{PRUNE},quantize", max_drop="90%", min_speedup=0.01, cache=False
    )
    for entry in report.ledger["prune-channels"].undone:
        assert "as integers" not in entry.reason and "float" not in entry.reason


def test_coverage_does_not_count_families_as_sites(model, capsys):
    out = model.with_name("o.onnx")
    options = ["--passes", PRUNE, "--require", "int8:Conv>=90%", "--no-measure", "-o", str(out)]
    assert main(["optimize", str(model), *options]) == 5
    assert "stored as int8" not in capsys.readouterr().err


def test_sensitivity_ranks_both(model, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    for i, feed in enumerate(samples(8)):
        np.savez(folder / f"{i}.npz", **feed)
    assert main(["sensitivity", str(model), "--data", str(folder), "--passes", f"{PRUNE},quantize", "--json"]) == 0
    assert {"prune-channels", "quantize"} <= {row["pass"] for row in json.loads(capsys.readouterr().out)["sites"]}


def test_statistics_of_a_plan_are_told_apart_by_the_sizes_of_weights():
    """Builds with other families cut have nodes of the same names; a replay would take the ranges of the first."""
    assert _structure(cnn(width=24)) == _structure(cnn(width=24, seed=1))
    assert _structure(cnn(width=24)) != _structure(cnn(width=16))


def test_families_keep_their_names_when_quantization_goes_back(model):
    """The guard denies families by name: those of a quantized model must not be called after its DequantizeLinears."""
    passes = f"quantize,{PRUNE}"
    out = model.with_name("out.onnx")
    report = irc.optimize(
        model, data=samples(), passes=passes, max_drop="0.01%", measure=False, cache=False, output=out
    )
    assert {entry.site for entry in report.ledger["prune-channels"].undone} == {"a", "c"}
    shapes = {v.name: list(v.const_value.shape) for v in irc.load(out).graph.initializers.values()}
    whole = {v.name: list(v.const_value.shape) for v in irc.load(model).graph.initializers.values()}
    assert {name: shape for name, shape in shapes.items() if name in whole} == whole


def test_channels_are_scaled_by_what_is_left_of_them(model, tmp_path):
    """Factors that were found for a cut layer do not fit the whole one, once the guard has taken the cut back."""
    report = irc.optimize(
        model,
        data=samples(),
        passes=f"{PRUNE},equalize-channels,smooth-activations,quantize",
        max_drop="0.01%",
        measure=False,
        cache=False,
        output=tmp_path / "out.onnx",
    )
    assert report.ledger["prune-channels"].undone
    failed = [e.reason for record in report.ledger for e in record.undone if "the pass failed here" in e.reason]
    assert not failed
