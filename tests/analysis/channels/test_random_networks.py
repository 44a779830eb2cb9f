"""Random networks: whatever the analysis calls a family can be cut exactly, and every rule it is made of is needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import onnx_ir as ir
import pytest
from channel_kit import MODES, describe, run
from channel_models import stored

from irc.analysis.channels import ChannelGroups, Propagation, propagate
from irc.analysis.channels.analysis_sizes import distinct_shapes
from irc.analysis.channels.rules import all_rules
from irc.channel_oracles import prove
from irc.channel_surgery.rewrites import all_rewrites
from irc.testing.channel_graphs import ChannelModel, channel_models

FEW, MANY, WITNESSES = 100, 1000, 400


def assert_proved(network: ChannelModel) -> int:
    """Proves one network in both modes; the number of families cut."""
    propagation = propagate(network.model)
    feeds = [network.feeds(0), network.feeds(1)]
    count = 0
    for mode in MODES:
        groups = ChannelGroups(propagation, mode)
        proof = prove(groups, run, feeds, seed=network.seed)
        assert proof.holds(), f"{mode}: {proof}\n{describe(groups)}"
        count += proof.cut
    return count


def test_random_networks_are_cut_exactly() -> None:
    assert sum(assert_proved(network) for network in channel_models(FEW, seed=1)) > 2 * FEW


@pytest.mark.slow
def test_a_thousand_random_networks_are_cut_exactly() -> None:
    assert sum(assert_proved(network) for network in channel_models(MANY, seed=0)) > 2 * MANY


Operator = tuple[str, str]


@functools.cache
def witnesses() -> dict[Operator, list[tuple[ir.Model, Callable[[], list[dict[str, object]]]]]]:
    """Networks in which each operator occurs, those of fewest nodes first."""
    found: dict[Operator, list[tuple[ir.Model, Callable[[], list[dict[str, object]]]]]] = {}
    for model, feeds in _networks():
        for operator in dict.fromkeys((node.domain.removeprefix("ai.onnx"), node.op_type) for node in model.graph):
            found.setdefault(operator, []).append((model, feeds))
    for networks in found.values():
        networks.sort(key=lambda network: len(network[0].graph))
    return found


def _networks() -> Iterator[tuple[ir.Model, Callable[[], list[dict[str, object]]]]]:
    for name in stored.names():
        yield stored.load(name), functools.partial(stored.feeds, name)
    for network in channel_models(WITNESSES, seed=2):
        yield network.model, lambda network=network: [network.feeds(0), network.feeds(1)]  # type: ignore[misc]


def atoms(propagation: Propagation) -> int:
    return sum(len(family.atoms) for mode in MODES for family in ChannelGroups(propagation, mode).families)


def without_rule(model: ir.Model, operator: Operator) -> Propagation:
    propagation = Propagation(model, distinct_shapes(model))
    propagation.run({key: rule for key, rule in all_rules().items() if key != operator})
    return propagation


@pytest.mark.parametrize("operator", sorted(all_rules()), ids="::".join)
def test_every_rule_earns_its_place(operator: Operator) -> None:
    """Without it fewer channels can be cut of some network."""
    networks = witnesses().get(operator, [])
    assert networks, "no network has this operator"
    assert any(atoms(without_rule(model, operator)) < atoms(propagate(model)) for model, _feeds in networks[:40])


@pytest.mark.parametrize("operator", sorted(all_rewrites()), ids="::".join)
def test_every_rewrite_is_needed(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it some network is cut wrongly, which the oracles see, or not at all."""
    networks = witnesses().get(operator, [])
    monkeypatch.delitem(all_rewrites(), operator)
    assert any(_is_wrong(model, feeds()) for model, feeds in networks[:40])


def _is_wrong(model: ir.Model, feeds: list[dict[str, object]]) -> bool:
    propagation = propagate(model)
    try:
        return not all(prove(ChannelGroups(propagation, mode), run, feeds).holds() for mode in MODES)  # type: ignore[arg-type]
    except Exception:  # whatever a wrong shape leads to
        return True
