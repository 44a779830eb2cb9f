"""Real architectures: families are cut exactly, at sizes the analysis has not seen, and as many as there should be."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from channel_kit import MODES, describe, run
from channel_models import stored

from irc.analysis.channels import ChannelGroups, Mode, Propagation, propagate
from irc.channel_oracles import prove

EXPECTED = Path(__file__).parent / "expected_families.json"
"""Families, atoms, and families that change no statistic, by model and mode. Fewer means that a rule was lost; after a gain, write
the file anew: python -m tests.analysis.channels.expected_families."""


@functools.lru_cache(maxsize=2)
def propagation_of(name: str) -> Propagation:
    return propagate(stored.load(name))


def summary(groups: ChannelGroups) -> dict[str, int]:
    return {
        "families": len(groups.families),
        "atoms": sum(len(family.atoms) for family in groups.families),
        "exact": sum(not family.statistics for family in groups.families),
    }


@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name in stored.names() for mode in MODES])
def test_stored_models_are_cut_exactly(name: str, mode: Mode) -> None:
    groups = ChannelGroups(propagation_of(name), mode)
    assert summary(groups) == json.loads(EXPECTED.read_text())[name][mode], describe(groups)
    proof = prove(groups, run, stored.feeds(name))
    assert proof.holds(), f"{proof}\n{describe(groups)}"
    if proof.cut:
        assert proof.effect > 1e-3, "a cut without effect proves nothing"
