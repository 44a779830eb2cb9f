"""Budgets of merge-channels: met, rounded, out of reach, and what goes first."""

from __future__ import annotations

import pytest
from merging_kit import (
    BOTH,
    chain,
    equal,
    error,
    merge,
    unchanged,
    width,
)
from pruning_models import cnn, mlp
from scaling_kit import apply, context, samples

from irc import PassManager
from irc.analysis.channels import ChannelGroups, propagate
from irc.analysis.channels.costs import ChannelCosts
from irc.channel_surgery import cut
from irc.errors import UsageError
from irc.ir import snapshot
from irc.pass_base import Context
from irc.passes.pruning.merging.decision import Merging
from irc.passes.pruning.merging.merge_channels import MergeChannels


@pytest.mark.parametrize("what", ["macs", "parameters"])
@pytest.mark.parametrize("scope", ["auto", "family", "global"])
@BOTH
def test_the_budget_is_met(what, scope, data):
    model = cnn(width=16)
    outcome = merge(model, MergeChannels(**{what: 0.7}, scope=scope, round_to=1), data=data)
    counts = [getattr(ChannelCosts(ChannelGroups(propagate(m), "rows")), what)() for m in (model, outcome.model)]
    assert 0.6 < counts[1] / counts[0] <= 0.7


def test_a_merge_loses_less_than_removal():
    """The same channels gone, without anything that stands for them and with."""
    model, pass_ = cnn(width=16), MergeChannels(ratio=0.3, round_to=1)
    ctx = context(samples(model, count=16), target=None)
    outcome = apply(pass_, model, ctx)
    merging = Merging(model, pass_, ctx)
    plain = snapshot(model)
    cut(plain, merging.propagation, merging.alive(merging.open))
    assert set(outcome.remarks) == {place.id for place in merging.open}
    assert error(model, outcome.model) < 0.8 * error(model, plain)


def test_the_most_alike_go_first():
    model = chain({3: (0, 2.0), 5: (2, 1.0)})
    for data in (False, True):
        outcome = merge(model, MergeChannels(ratio=0.25, round_to=1), data=data)
        assert width(outcome.model) == 6
        equal(model, outcome.model)


def test_a_budget_out_of_reach_says_how_far_it_goes():
    with pytest.raises(
        UsageError, match=r"macs=0.01 cannot be reached, only 0\.\d+; ask for less, or allow more: a larger"
    ):
        merge(cnn(), MergeChannels(macs=0.01, round_to=1))
    with pytest.raises(UsageError, match="there is no family to merge in"):
        merge(mlp(4, 3), MergeChannels(parameters=0.5))


def test_a_budget_out_of_reach_for_want_of_rows_says_so():
    model = mlp(6, 24, 24, 4)
    ctx = context(samples(model, count=1), target=None)
    with pytest.raises(UsageError, match=r"was seen to read \d rows, and 16 are needed"):
        apply(MergeChannels(macs=0.5), model, ctx)


def test_rounding_takes_less():
    model = chain({3: (0, 1.0), 5: (2, 1.0), 6: (1, 1.0)})
    outcome = merge(model, MergeChannels(round_to=2))
    assert width(outcome.model) == 6
    equal(model, outcome.model)
    assert unchanged(model, MergeChannels(round_to=8))["a"] == "3 of 8 could be merged, fewer than a step of 8"
    assert width(merge(model, MergeChannels(round_to=1, minimum=7)).model) == 7


def test_a_budget_missed_because_families_are_left_out_is_told():
    pass_, model = MergeChannels(macs=0.6, round_to=1), cnn(width=16)
    manager = PassManager([pass_], verify=False, limits={"merge-channels": 1})
    assert (
        manager.run(model, Context()).ledger["merge-channels"].summary.endswith("above macs=0.6, which was asked for")
    )
    assert "asked for" not in merge(model, pass_).record.summary
