"""What sparsify decided: replayed, decided again, ranked and taken back."""

from __future__ import annotations

import numpy as np
import pass_kit
import pytest
from sparsity_kit import (
    applied,
    correlated,
    image,
    product,
    remarks,
    text,
)

import irc
import irc.ir
from irc.decisions import Decisions
from irc.errors import UsageError
from irc.pass_base import Context
from irc.passes.pruning.sparsity.sparsify import Sparsify


@pytest.mark.parametrize("model", [text, image], ids=["text", "image"])
@pytest.mark.parametrize(
    "options",
    [{}, {"pattern": "2:4"}, {"criterion": "wanda"}, {"criterion": "magnitude"}, {"scope": "global"}],
    ids=str,
)
def test_it_replays_without_data_and_finds_nothing_more(model, options, runner):
    model, pass_ = model(), Sparsify(minimum=100, **options)
    decisions = Decisions()
    outcome = applied(pass_, model, runner, decisions=decisions)
    assert len(outcome.rewritten) >= 2
    replayed = applied(pass_, model, decisions=Decisions(planned=decisions.kept))
    assert pass_kit.text(replayed.model) == pass_kit.text(outcome.model) and remarks(replayed) == remarks(outcome)
    again = applied(pass_, outcome.model, runner)
    assert again.rewritten == [] and pass_kit.text(again.model) == pass_kit.text(outcome.model)
    assert all("already" in reason for site, reason in again.skipped.items() if site in outcome.rewritten)
    # What stays is kept once, with a bit per weight.
    size = sum(pass_kit.weight(model, name).size for name in ("w1", "w2"))
    raw = sum(
        np.asarray(v).nbytes
        for key in decisions
        for v in decisions.remember(key, dict).values()
        if isinstance(v, np.ndarray)
    )
    assert raw <= size * (4 * 0.6 + 1 / 8) + 4 * 100


def test_a_plan_replays_from_a_file(tmp_path):
    model = text()
    path = tmp_path / "model.onnx"
    irc.ir.save(model, path)
    options = {"measure": False, "cache": False, "passes": "sparsify{sparsity=0.6}"}
    report = irc.optimize(path, data=correlated(model), output=tmp_path / "a.onnx", **options)
    irc.optimize(path, plan=report.output.with_suffix(".plan.yaml"), output=tmp_path / "b.onnx", measure=False)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_an_edited_weight_is_decided_again(runner):
    decisions, pass_ = Decisions(), Sparsify()
    applied(pass_, product(), runner, decisions=decisions)
    other = product(w=np.random.default_rng(9).normal(size=(32, 40)).astype("f"))
    outcome = applied(pass_, other, runner, decisions=decisions)
    assert len(list(decisions)) == 2
    fresh = applied(pass_, other, runner)
    assert pass_kit.text(outcome.model) == pass_kit.text(fresh.model)
    with pytest.raises(UsageError, match="the plan has no decision"):
        pass_kit.text(applied(pass_, other, decisions=Decisions(planned={})).model)


def test_errors_rank_the_sites(runner):
    decisions, model, pass_ = Decisions(), text(), Sparsify(sparsity=0.7, minimum=1)
    outcome = applied(pass_, model, runner, decisions=decisions)
    errors = pass_.site_errors(model, outcome.model, outcome.rewritten, Context(decisions=decisions))
    assert set(errors) == {"h", "y"}
    for site, error in errors.items():
        assert f"output error {error:.3%} on held-out samples" in remarks(outcome)[site]


def test_sites_go_back_under_a_budget(tmp_path):
    path = tmp_path / "model.onnx"
    irc.ir.save(text(), path)
    report = irc.optimize(
        path,
        data=correlated(text()),
        passes="sparsify{sparsity=0.8,minimum=1}",
        max_drop="0.0001%",
        measure=False,
        cache=False,
        output=tmp_path / "o.onnx",
    )
    assert report.ledger["sparsify"].undone
