"""Random networks: whatever the analysis calls a family can be cut exactly, and the rules it is made of are needed there too."""

from __future__ import annotations

import pytest
from channel_kit import MODES, describe, different_modes, run

from irc.analysis.channels import ChannelGroups, Propagation, propagate
from irc.analysis.channels.analysis_sizes import distinct_shapes
from irc.analysis.channels.rules import all_rules
from irc.channel_oracles import prove
from irc.testing.channel_graphs import ChannelLimits, ChannelModel, channel_models

FEW, MANY, WIDE = 30, 1000, 100
WIDE_LIMITS = ChannelLimits(blocks=(12, 24), width=64, inputs=3, outputs=5)


def assert_proved(network: ChannelModel) -> int:
    """Proves one network in both modes; the number of families cut."""
    feeds = [network.feeds(0), network.feeds(1)]
    count = 0
    for groups in different_modes(propagate(network.model)):
        proof = prove(groups, run, feeds, seed=network.seed)
        assert proof.holds(), f"{groups.mode}: {proof}\n{describe(groups)}"
        count += proof.cut
    return count


def test_random_networks_are_cut_exactly() -> None:
    assert sum(assert_proved(network) for network in channel_models(FEW, seed=1)) > 2 * FEW


@pytest.mark.slow
def test_a_thousand_random_networks_are_cut_exactly() -> None:
    assert sum(assert_proved(network) for network in channel_models(MANY, seed=0)) > 2 * MANY


@pytest.mark.slow
def test_long_and_wide_random_networks_are_cut_exactly() -> None:
    assert sum(assert_proved(network) for network in channel_models(WIDE, seed=0, limits=WIDE_LIMITS)) > 4 * WIDE


SELDOM = 10
"""Operators in so many random networks at least are needed by one of them."""
ELSEWHERE = {("", "ArgMax"), ("", "TopK"), ("", "Reciprocal"), ("", "Size")}
"""Operators that random networks have along channels only, which they pin, or among sizes; `test_rule_mutations.py` has others."""


@pytest.mark.slow
def test_rules_are_needed_in_random_networks() -> None:
    """Without the rule of a common operator fewer channels can be cut of some random network."""
    seen: dict[tuple[str, str], int] = {}
    needed = set()
    for network in channel_models(MANY // 4, seed=2):
        operators = {(node.domain, node.op_type) for node in network.model.graph} & set(all_rules())
        whole = atoms(propagate(network.model)) if operators - needed else 0
        for operator in sorted(operators):
            seen[operator] = seen.get(operator, 0) + 1
            if operator not in needed and atoms(without(network, operator)) < whole:
                needed.add(operator)
    often = {operator for operator, count in seen.items() if count >= SELDOM}
    assert len(often) > 50 and not often - needed - ELSEWHERE


def atoms(propagation: Propagation) -> int:
    """How many atoms can be cut in both modes."""
    return sum(len(family.atoms) for mode in MODES for family in ChannelGroups(propagation, mode).families)


def without(network: ChannelModel, operator: tuple[str, str]) -> Propagation:
    """Labels by all rules but one."""
    propagation = Propagation(network.model, distinct_shapes(network.model))
    propagation.run({key: rule for key, rule in all_rules().items() if key != operator})
    return propagation
