"""Atoms, families and cells on small graphs whose groups are known by hand."""

from __future__ import annotations

import numpy as np
from channel_graphs import self_attention
from channel_kit import describe, model_of, random_weight

from irc.analysis.channels import ChannelGroups, Mode, channel_groups


def groups_of(
    text: str, mode: Mode = "rows", *, allow: tuple[str, ...] = (), **shapes: tuple[int, ...]
) -> ChannelGroups:
    model = model_of(text, {name: random_weight(*shape) for name, shape in shapes.items()})
    return channel_groups(model, mode=mode, allow_outputs=allow)


def widths(groups: ChannelGroups) -> dict[str, tuple[int, int]]:
    """Atoms per cell and cells of every family by name."""
    return {family.name: (family.width, family.cell_count) for family in groups.families}


CHAIN = """g (float[N,6] x) => (float[N,5] y) {
  a = MatMul(x, w1)
  b = Add(a, b1)
  c = Relu(b)
  y = MatMul(c, w2)
}"""


def test_a_hidden_layer_is_one_family_of_all_that_makes_and_reads_it() -> None:
    groups = groups_of(CHAIN, w1=(6, 8), b1=(8,), w2=(8, 5))
    assert widths(groups) == {"a": (8, 1)}
    assert [(axis.slot.name, axis.axis) for axis in groups.families[0].axes] == [("w1", 1), ("b1", 0), ("w2", 0)]
    assert not groups.families[0].statistics


def test_inputs_and_outputs_of_the_model_pin_with_a_reason() -> None:
    groups = groups_of(CHAIN, w1=(6, 8), b1=(8,), w2=(8, 5))
    reasons = {(pin.slot.name, pin.slot.bundles[pin.bundle].axes): pin.reason for pin in groups.pinned}
    assert set(reasons) == {("w1", (0,)), ("w2", (1,))}
    assert reasons["w1", (0,)].kind == "free axis"
    assert reasons["w2", (1,)].text == "it reaches the output 'y' of the model"


def test_an_output_that_is_allowed_to_get_narrower_is_a_family() -> None:
    groups = groups_of(CHAIN, allow=("y",), w1=(6, 8), b1=(8,), w2=(8, 5))
    assert widths(groups) == {"a": (8, 1), "y": (5, 1)}


def test_equal_biases_that_were_stored_once_do_not_tie_their_layers() -> None:
    text = """g (float[N,6] x) => (float[N,5] y) {
      a = MatMul(x, w1)
      b = Add(a, shared)
      c = MatMul(b, w2)
      d = Add(c, shared)
      y = MatMul(d, w3)
    }"""
    groups = groups_of(text, w1=(6, 8), shared=(8,), w2=(8, 8), w3=(8, 5))
    assert widths(groups) == {"a": (8, 1), "c": (8, 1)}


def test_weights_that_are_shared_tie_their_uses() -> None:
    text = """g (float[N,6] x) => (float[N,5] y) {
      a = MatMul(x, w1)
      b = MatMul(a, w2)
      c = Relu(b)
      d = MatMul(c, w2)
      y = MatMul(d, w3)
    }"""
    groups = groups_of(text, w1=(6, 8), w2=(8, 8), w3=(8, 5))
    assert widths(groups) == {"a": (8, 1)}, describe(groups)


def attention(mode: Mode) -> ChannelGroups:
    return channel_groups(self_attention(length="T", width=12, heads=3, weighting="Sigmoid"), mode=mode)


def test_heads_are_atoms_in_row_mode() -> None:
    groups = attention("rows")
    assert widths(groups) == {"q": (3, 1)}, describe(groups)
    assert {axis.positions for axis in groups.families[0].axes} == {4}


def test_dimensions_within_heads_are_atoms_in_column_mode() -> None:
    assert widths(attention("columns")) == {"q": (4, 3), "v": (4, 3)}


def test_survivors_leave_out_what_is_not_kept() -> None:
    groups = groups_of(CHAIN, w1=(6, 8), b1=(8,), w2=(8, 5))
    family = groups.families[0]
    alive = groups.survivors({family: family.atoms[:3]})
    assert int((~alive).sum()) == 5 * 3, "five channels in three slots"
    assert groups.family("a") is family


def test_uneven_rows_are_seen() -> None:
    groups = attention("columns")
    family = groups.family("v")
    assert not groups.uneven(groups.survivors({family: family.atoms}))
    assert groups.uneven(groups.survivors({family: family.atoms[1:]}))


UNLIKE = """g (float[N,6,5,5] x) => (float[N,4,5,5] y) {
  a = Conv<kernel_shape=[1,1]>(x, w1)
  b = Conv<kernel_shape=[1,1]>(x, w2)
  c = Concat<axis=1>(a, b)
  d = Conv<kernel_shape=[1,1],group=2>(c, w3)
  y = Conv<kernel_shape=[1,1]>(d, w4)
}"""


def test_unlike_channels_in_rows_of_one_length_are_cut_in_step() -> None:
    groups = groups_of(UNLIKE, "columns", w1=(5, 6, 1, 1), w2=(3, 6, 1, 1), w3=(6, 4, 1, 1), w4=(4, 6, 1, 1))
    assert widths(groups) == {"a": (4, 2), "d": (3, 2)}, "rows a0 a1 a2 a3 and a4 b0 b1 b2"
    assert {axis.slot.name for axis in groups.family("a").axes} == {"w1", "w2", "w3"}


def test_unlike_parts_of_rows_are_families_of_their_own() -> None:
    """As in partial rotary embeddings: two dimensions of every head are turned, and four are not."""
    text = """g (float[N,T,7] x) => (float[N,T,5] y) {
      q = MatMul(x, w1)
      h = Reshape(q, split)
      turned, rest = Split<axis=3>(h, sizes)
      t = Tanh(turned)
      r = Relu(rest)
      c = Concat<axis=3>(t, r)
      f = Reshape(c, merge)
      y = MatMul(f, w2)
    }"""
    weights = {"w1": random_weight(7, 18), "w2": random_weight(18, 5), "sizes": np.array([2, 4])}
    weights |= {"split": np.array([0, 0, 3, 6]), "merge": np.array([0, 0, 18])}
    groups = channel_groups(model_of(text, weights), mode="columns")
    assert sorted(widths(groups).values()) == [(2, 3), (4, 3)], describe(groups)


def test_what_can_only_be_cut_together_is_pinned() -> None:
    text = """g (float[N,6] x) => (float[N,5] y) {
      a = MatMul(x, w1)
      b = Slice(a, zero, most, last)
      c = Slice(a, one, all, last)
      d = Add(b, c)
      y = MatMul(d, w2)
    }"""
    weights = {"w1": random_weight(6, 8), "w2": random_weight(7, 5)}
    weights |= {
        "zero": np.array([0]),
        "one": np.array([1]),
        "most": np.array([7]),
        "all": np.array([8]),
        "last": np.array([1]),
    }
    groups = channel_groups(model_of(text, weights))
    assert not groups.families
    assert {pin.reason.kind for pin in groups.pinned if pin.slot.name == "w1"} == {"free axis", "indivisible"}
