"""The oracles find what is wrong: each is shown an analysis with one thing missing or misplaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_feeds, random_weight, run

from irc.analysis.channels import ChannelGroups, NodeView, Propagation, propagate
from irc.analysis.channels.analysis_sizes import distinct_shapes
from irc.analysis.channels.bundles import Bundle
from irc.analysis.channels.rules import all_rules
from irc.channel_oracles import permuted, prove, random_survivors, relative_error
from irc.channel_surgery import cut
from irc.ir import snapshot

TEXT = """g (float[N,3,6,6] x) => (float[N,5] y) {
  a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(a)
  b = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(r, w2)
  s = Add(r, b)
  f = Flatten(s)
  y = Gemm(f, w3)
}"""


def model() -> ir.Model:
    weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "w3": (8 * 36, 5)}
    return model_of(TEXT, {name: random_weight(*shape) for name, shape in weights.items()})


def propagated(broken: ir.Model, operator: str, rule: Callable[[NodeView], None]) -> Propagation:
    propagation = Propagation(broken, distinct_shapes(broken))
    propagation.run({**all_rules(), ("", operator): rule})
    return propagation


def test_a_right_analysis_is_proved_at_sizes_it_has_not_seen() -> None:
    found = model()
    proof = prove(ChannelGroups(propagate(found), "rows"), run, random_feeds(found, {"N": 1}, {"N": 3}))
    assert proof.holds()
    assert proof.moved > 0
    assert proof.cut == 1
    assert proof.effect > 0.01


def test_a_missing_slot_changes_the_permuted_model() -> None:
    found = model()
    propagation = propagate(found)
    propagation.slots = [slot for slot in propagation.slots if slot.name != "b1"]
    groups = ChannelGroups(propagation, "rows")
    feeds = random_feeds(found, {"N": 2})
    other, moved = permuted(groups)
    assert moved
    assert relative_error(run(found, feeds)[0], run(other, feeds)[0]) > 1e-2


def test_a_misplaced_label_changes_the_permuted_model() -> None:
    found = model()
    propagation = propagate(found)
    for index, slot in enumerate(propagation.slots):
        if slot.name == "b1":
            rolled = dataclasses.replace(slot.bundles[0], labels=np.roll(slot.bundles[0].labels, 1))
            propagation.slots[index] = dataclasses.replace(slot, bundles=(rolled,))
    feeds = random_feeds(found, {"N": 2})
    other, _moved = permuted(ChannelGroups(propagation, "rows"))
    assert relative_error(run(found, feeds)[0], run(other, feeds)[0]) > 1e-2


def test_a_rule_that_forgets_that_channels_mix_is_found() -> None:
    text = TEXT.replace("r = Relu(a)", "r = Softmax<axis=1>(a)")
    weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "w3": (8 * 36, 5)}
    found = model_of(text, {name: random_weight(*shape) for name, shape in weights.items()})
    groups = ChannelGroups(propagated(found, "Softmax", lambda view: view.write(view.read(0))), "rows")
    proof = prove(groups, run, random_feeds(found, {"N": 2}))
    assert proof.permutation_error < 1e-5, "softmax does not mind the order"
    assert proof.zero_error > 1e-2, "but it minds what is missing"
    assert not proof.holds()


def test_a_rule_that_turns_channels_round_is_found() -> None:
    text = TEXT.replace("r = Relu(a)", "r = Gather<axis=1>(a, order)")
    weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "w3": (8 * 36, 5)}
    found = model_of(
        text,
        {
            **{name: random_weight(*shape) for name, shape in weights.items()},
            "order": np.array([1, 2, 3, 4, 5, 6, 7, 0]),
        },
    )
    groups = ChannelGroups(propagated(found, "Gather", lambda view: view.write(view.read(0))), "rows")
    feeds = random_feeds(found, {"N": 2})
    other, _moved = permuted(groups)
    assert relative_error(run(found, feeds)[0], run(other, feeds)[0]) > 1e-2


def test_atoms_change_places_only_with_atoms_that_play_the_same_part() -> None:
    """x and its padding meet in one family; a padded channel must not change places with a computed one."""
    text = """g (float[N,3,4,4] x) => (float[N,5,4,4] y) {
      a = Conv<kernel_shape=[1,1]>(x, w1)
      b = Conv<kernel_shape=[1,1]>(a, w2)
      c = Concat<axis=1>(a, a)
      d = Add(b, c)
      y = Conv<kernel_shape=[1,1]>(d, w3)
    }"""
    found = model_of(
        text, {"w1": random_weight(6, 3, 1, 1), "w2": random_weight(12, 6, 1, 1), "w3": random_weight(5, 12, 1, 1)}
    )
    proof = prove(ChannelGroups(propagate(found), "rows"), run, random_feeds(found, {"N": 2}))
    assert proof.holds(), proof


def test_survivors_are_as_many_of_every_row() -> None:
    text = """g (float[N,3,4,4] x) => (float[N,5,4,4] y) {
      a = Conv<kernel_shape=[1,1]>(x, w1)
      b = Conv<kernel_shape=[1,1],group=3>(a, w2)
      y = Conv<kernel_shape=[1,1]>(b, w3)
    }"""
    found = model_of(
        text, {"w1": random_weight(12, 3, 1, 1), "w2": random_weight(6, 4, 1, 1), "w3": random_weight(5, 6, 1, 1)}
    )
    groups = ChannelGroups(propagate(found), "columns")
    kept = random_survivors(groups, groups.families, seed=3)
    alive = groups.survivors(kept)
    assert not groups.uneven(alive)
    first = groups.families[0]
    rows = [set(first.members(cell).tolist()) & set(kept[first].tolist()) for cell in range(first.cell_count)]
    assert [len(row) for row in rows] == [2, 2, 2]
    assert len({tuple(atom - min(first.members(cell)) for atom in sorted(row)) for cell, row in enumerate(rows)}) > 1
    small = snapshot(found)
    cut(small, groups.propagation, alive)
    assert [int(d) for d in small.graph.initializers["w2"].const_value.shape] == [3, 2, 1, 1]


@pytest.mark.parametrize(
    ("one", "other", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([3.0, 4.0], [3.0, 4.5], 0.125),
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([1.0, 2.0], [1.0, 2.0, 3.0], np.inf),
    ],
)
def test_relative_error(one: list[float], other: list[float], error: float) -> None:
    assert relative_error([np.array(one)], [np.array(other)]) == pytest.approx(error)


def test_integer_outputs_must_be_equal() -> None:
    assert relative_error([np.array([1, 2])], [np.array([1, 3])]) == np.inf
    assert relative_error([np.array([1, 2])], [np.array([1, 2])]) == 0


def test_bundles_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Bundle((0,), np.arange(2), (0,)).axes = (1,)  # type: ignore[misc]
