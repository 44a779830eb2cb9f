"""Budgets: shares, ratios, times and losses."""

from __future__ import annotations

import numpy as np
import pytest
from pruning_models import cnn

from irc import targets
from irc.analysis.channels import ChannelGroups, propagate
from irc.errors import UsageError
from irc.pass_base import Context
from irc.passes.pruning.decision import Pruning
from irc.passes.pruning.goal import Goal
from irc.passes.pruning.prune_channels import PruneChannels


def goal(options: PruneChannels, times: dict[bytes | None, float] | None = None, **more) -> Goal:
    groups = ChannelGroups(propagate(cnn()), "rows")
    asked: list[bytes | None] = []

    def milliseconds(alive):
        asked.append(None if alive is None else alive.tobytes())
        return (times or {}).get(asked[-1], 4.0)

    made = Goal(options, [groups], {}, milliseconds, **more)
    made.asked = asked  # type: ignore[attr-defined]
    return made


def test_a_share_of_the_multiply_accumulates():
    found = goal(PruneChannels(macs=0.5))
    everything = found.costs.macs()
    assert (found.text, found.whole, found.limit) == ("macs=0.5", everything, 0.5 * everything)
    assert not found.is_met(None)


def test_counts_are_of_the_model_before_it_was_pruned_first():
    groups = ChannelGroups(propagate(cnn()), "rows")
    found = Goal(PruneChannels(parameters=0.5), [groups], {"parameters": 10**9}, lambda alive: 1.0)
    assert found.whole == 10**9 and found.is_met(None)


def test_a_time_is_asked_for_once_per_survivors():
    some = np.array([True, False])
    found = goal(PruneChannels(latency=0.5), {None: 4.0, some.tobytes(): 2.0})
    assert [found.cost(None), found.cost(some), found.cost(some), found.cost(None)] == [4.0, 2.0, 2.0, 4.0]
    assert len(found.asked) == 2  # type: ignore[attr-defined]
    assert found.is_met(some) and not found.is_met(None) and found.text == "latency=0.5"


def test_a_time_that_no_cut_shortens_is_not_called_a_share():
    found = goal(PruneChannels(latency=0.5))
    for least, text in (
        (9.5, "save nothing of the 4 ms that an inference takes here; give macs"),
        (3.0, r"only 0\.75; ask"),
    ):
        with pytest.raises(UsageError, match=f"latency=0.5 cannot be reached.*{text}"):
            raise found.unreachable(least, cuttable=True, nothing="")


@pytest.mark.parametrize(("timed", "name"), [(True, "latency"), (False, "macs")])
def test_a_loss_buys_time_or_macs(timed, name):
    found = goal(PruneChannels(loss=0.01), timed=timed)
    share = found.at(0.6)
    assert (share.name, share.share, share.loss) == (name, 0.6, 0.01)
    assert found.is_met(None) and found.text == share.text == "loss=0.01"
    assert share.limit == pytest.approx(0.6 * share.whole)


def test_a_loss_buys_macs_where_an_inference_takes_next_to_no_time():
    found = goal(PruneChannels(loss=0.01), {None: 0.005}).at(0.6)
    assert found.name == "macs" and found.whole == found.costs.macs()


def test_no_time_is_measured_for_a_target_that_is_not_executed_here():
    ctx = Context(target=targets.parse("tensorrt"))
    with pytest.raises(UsageError, match="tensorrt is not executed here; give macs instead"):
        Pruning(cnn(), PruneChannels(latency=0.5), ctx).require_data()


@pytest.mark.parametrize(
    "options",
    [{"latency": 0.5}, {"loss": 0.01}, {"macs": 0.5, "criterion": "obs"}, {"macs": 0.5, "repair": "least-squares"}],
)
def test_what_needs_data_says_so(options):
    with pytest.raises(UsageError, match="needs data; give --data"):
        Pruning(cnn(), PruneChannels(**options), Context()).require_data()
