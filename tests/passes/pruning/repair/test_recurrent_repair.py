"""Pruned recurrent networks as a whole: what is read by operators and layers alike takes over, and a plan gives it again without data."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import run
from recurrent_kit import KINDS, recurrent
from repair_kit import feeds, keeping, layers_of, source

from irc.application import apply_pass
from irc.channel_surgery import cut
from irc.decisions import Decisions
from irc.ir import snapshot
from irc.pass_base import Context
from irc.passes.pruning.prune_channels import PruneChannels
from irc.passes.pruning.repair.repairer import Repairer, apply_weights
from irc.passes.pruning.repair.student import cut_student
from irc.pipeline import Step
from irc.testing.integrity import model_bytes


def pruned(model, ctx, **options):
    small = snapshot(model)
    return small, apply_pass(Step(PruneChannels(round_to=1, **options)), small, ctx).record


def error(small, model, seed=5):
    found = feeds(model, {"n": 5}, count=8, seed=seed)
    mine, theirs = (np.concatenate([y[0].ravel() for y in run(m, found)]) for m in (small, model))
    return float(np.square(mine - theirs).sum() / np.square(theirs).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_operators_make_up_for_it_before_layers_behind_do(runner, kind):
    model = recurrent(kind, "bidirectional")
    layers = layers_of(model)
    mine = Repairer(layers.propagation, Context(data=source(feeds(model, {"n": 6}, count=30)), runner=runner), layers)
    alive = keeping(layers, 0.67)
    whole = cut_student(layers, alive, mine.moments)
    layers.recurrent.all = ()
    behind = cut_student(layers, alive, mine.moments)
    raw = cut_student(layers, alive, None)
    errors = [error(student.model, model) for student in (whole, behind, raw)]
    assert errors[0] < 0.9 * min(errors[1:])


@pytest.mark.parametrize("method", ["none", "update", "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_down_gives_the_same_bytes(runner, kind, method):
    model = recurrent(kind, last=True)
    layers = layers_of(model)
    mine = Repairer(layers.propagation, Context(data=source(feeds(model, {"n": 6}, count=20)), runner=runner), layers)
    result = mine.repaired(keeping(layers, 0.67), method)
    written = mine.written(result)
    assert any(key.startswith("recurrent ") for key in written) is (result.how != "cut alone") is (method != "none")
    copies = []
    for _ in range(2):
        copy = snapshot(model)
        cut(copy, layers.propagation, result.student.alive)
        assert (apply_weights(copy, layers, written) > 0) is bool(written)
        copies.append(model_bytes(copy))
    assert copies[0] == copies[1]
    found = feeds(model, {"n": 4}, count=2)
    for a, b in zip(run(copy, found), run(result.student.model, found), strict=True):
        assert np.array_equal(a[0], b[0])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_two_builds_and_a_replay_without_data_give_the_same_bytes(runner, kind):
    model = recurrent(kind, "bidirectional")
    found = feeds(model, {"n": 6}, count=20)
    first, second = (Context(data=source(data), runner=runner) for data in (found, found[::-1]))
    small, record = pruned(model, first, macs=0.6)
    assert record.rewritten and model_bytes(pruned(model, second, macs=0.6)[0]) == model_bytes(small)
    replayed, _ = pruned(model, Context(decisions=Decisions(first.decisions.kept)), macs=0.6)
    assert model_bytes(replayed) == model_bytes(small)
    raw, _ = pruned(model, Context(data=source(found), runner=runner), macs=0.6, repair="none")
    assert error(small, model) < 0.7 * error(raw, model)
