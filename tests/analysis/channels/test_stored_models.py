"""Real architectures: families are cut exactly, at sizes the analysis has not seen, and as many as there should be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from channel_kit import MODES, describe, run
from channel_models import stored
from channel_models.expected import FILE, summary

from irc.analysis.channels import ChannelGroups, propagate
from irc.channel_oracles import prove

EXPECTED = json.loads(FILE.read_text(encoding="utf-8"))


SPELLINGS = ("_torchscript", "_opset23", "_batch_norm", "_eager", "_computed", "_gated")
"""Other spellings of models that are there in plain too: proved with the slow tests."""
LONGER = ("swin", "t5")
"""Models whose other spelling, `NAME_dynamo`, has fewer nodes and is proved with the fast tests instead."""
RELATIVES = frozenset(
    {
        *("albert", "bart", "clip", "conformer", "deberta_v2", "dinov2", "distilbert", "falcon", "gemma", "gpt_neox"),
        *(
            "gpt2_weights",
            "bert_qdq",
            "mobilebert",
            "mobilevit",
            "phi",
            "qwen2",
            "qwen3",
            "segformer",
            "vit_int8",
            "yolo_qdq",
        ),
    }
)
"""Relatives of models that are proved with the fast tests."""


def cases() -> list[object]:
    slow = pytest.mark.slow
    return [pytest.param(name, marks=[slow] if is_slow(name) else []) for name in stored.names()]


def is_slow(name: str) -> bool:
    return name.endswith(SPELLINGS) or name in RELATIVES or name in LONGER


def assert_as_expected(name: str, groups: ChannelGroups) -> None:
    """Families are as many as there should be, and every axis of an initializer is in one or has a reason not to be."""
    assert summary(groups) == EXPECTED[name][groups.mode], describe(groups)
    pinned = {(id(pin.slot), pin.bundle): pin for pin in groups.pinned}
    atoms = np.concatenate([np.zeros(0, dtype=np.int64), *(family.atoms for family in groups.families)])
    for slot in groups.propagation.slots:
        for index, bundle in enumerate(slot.bundles):
            shut = int((~np.isin(groups.class_of[bundle.labels], atoms)).sum())
            pin = pinned.get((id(slot), index))
            assert shut == (pin.pinned if pin is not None else 0)
            assert pin is None or len(pin.reason.text) > 10


@pytest.mark.parametrize("name", [name for name in stored.names() if is_slow(name)])
def test_families_and_reasons(name: str) -> None:
    propagation = propagate(stored.load(name))
    for mode in MODES:
        assert_as_expected(name, ChannelGroups(propagation, mode))


@pytest.mark.parametrize("name", cases())
def test_stored_models_are_cut_exactly(name: str) -> None:
    propagation, feeds = propagate(stored.load(name)), stored.feeds(name)
    proved: list[ChannelGroups] = []
    for mode in MODES:
        groups = ChannelGroups(propagation, mode)
        assert_as_expected(name, groups)
        if any((groups.class_of == other.class_of).all() for other in proved):
            continue  # no rows to speak of: both modes cut the same
        proved.append(groups)
        proof = prove(groups, run, feeds)
        assert proof.holds(), f"{mode}: {proof}\n{describe(groups)}"
        if proof.cut:
            assert proof.effect > 1e-3, "a cut without effect proves nothing"


def test_nearly_all_small_graphs_are_cut_exactly_in_both_modes() -> None:
    micro = {name: modes for name, modes in EXPECTED.items() if name.startswith("micro_")}
    assert len(micro) == 28
    exact = [name for name, modes in micro.items() if all(modes[mode]["exact"] for mode in MODES)]
    assert len(exact) >= 27, sorted(set(micro) - set(exact))
