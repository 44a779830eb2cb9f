"""merge-channels again: plans, files, proofs, and its options."""

from __future__ import annotations

import pytest
from merging_kit import (
    PASS,
    chain,
    equal,
    merge,
    residual,
)
from pruning_models import cnn
from scaling_kit import apply, context, samples

import irc.ir
from irc import pipeline
from irc.decisions import Decisions
from irc.errors import PassOptionError, UsageError
from irc.pass_base import Context
from irc.passes.pruning.merging.decision import Merging
from irc.passes.pruning.merging.merge_channels import MergeChannels
from irc.testing.integrity import model_bytes


@pytest.mark.parametrize("pass_", [PASS, MergeChannels(macs=0.8, round_to=1)])
def test_a_plan_gives_the_same_bytes_without_data(pass_, monkeypatch):
    model = residual({3: (0, 2.0), 5: (1, 1.0)})
    outcome = merge(model, pass_, data=True)
    monkeypatch.setattr(Merging, "_decided", None)
    replayed = apply(pass_, model, Context(decisions=Decisions(outcome.decisions.kept)))
    assert replayed.remarks and model_bytes(replayed.model) == model_bytes(outcome.model)
    with pytest.raises(UsageError, match="the plan has no decision"):
        apply(MergeChannels(ratio=0.4, round_to=1), model, Context(decisions=Decisions(outcome.decisions.kept)))


def test_the_guard_is_told_which_family_lost_most():
    model, pass_ = cnn(width=16), MergeChannels(ratio=0.3, round_to=1)
    ctx = Context()
    outcome = apply(pass_, model, ctx)
    errors = pass_.site_errors(model, outcome.model, list(outcome.remarks), ctx)
    assert errors is not None and set(errors) == set(outcome.remarks) and all(0 < e < 1 for e in errors.values())


def test_it_is_proved_where_asked():
    model = residual({3: (0, 2.0)})
    ctx = context(samples(model, count=4), target=None, prove=True)
    outcome = apply(PASS, model, ctx)
    assert "proved on" in outcome.record.summary
    equal(model, outcome.model)


def test_it_survives_a_file(tmp_path):
    model = chain({3: (0, 2.0)})
    small = merge(model).model
    irc.ir.save(small, tmp_path / "small.onnx")
    found = irc.ir.load(tmp_path / "small.onnx")
    equal(model, found)
    assert not merge(found).record.rewritten


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("similarity=0.9,macs=0.5", "at most one of similarity"),
        ("macs=1.5", "macs is 1.5"),
        ("similarity=0", "similarity is 0"),
        ("ratio=0.95", "raise largest_cut"),
        ("minimum=0", "minimum is 0"),
        ("round_to=0", "round_to is 0"),
        ("scope=some", "scope"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(PassOptionError, match=message):
        pipeline.parse(f"merge-channels{{{options}}}")


@pytest.mark.parametrize("options", [{"likeness": "data"}, {"scope": "measured", "macs": 0.8}])
def test_what_needs_data_says_so(options):
    with pytest.raises(UsageError, match="needs data; give --data"):
        merge(chain({}), MergeChannels(**options))


def test_two_applications_are_equal_bytes():
    model = residual({3: (0, 2.0)})
    pass_ = MergeChannels(macs=0.8, round_to=1)
    assert model_bytes(merge(model, pass_, data=True).model) == model_bytes(merge(model, pass_, data=True).model)


def test_once_is_enough():
    model = chain({3: (0, 1.0)})
    once = merge(model).model
    again = merge(once)
    assert (
        not again.record.rewritten and again.record.skipped[0].reason == "the model was merged by these options before"
    )
