"""Atoms, families and cells on small graphs whose groups are known by hand."""

from __future__ import annotations

from channel_kit import describe, model_of, random_weight

from irc.analysis.channels import ChannelGroups, Mode, channel_groups


def groups_of(text: str, mode: Mode = "rows", *, allow: tuple[str, ...] = (), **shapes: tuple[int, ...]) -> ChannelGroups:
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


HEADS = """g (float[N,T,12] x) => (float[N,T,12] y) {
  q = MatMul(x, wq)
  k = MatMul(x, wk)
  v = MatMul(x, wv)
  q4 = Reshape(q, split)
  k4 = Reshape(k, split)
  v4 = Reshape(v, split)
  qt = Transpose<perm=[0,2,1,3]>(q4)
  kt = Transpose<perm=[0,2,3,1]>(k4)
  vt = Transpose<perm=[0,2,1,3]>(v4)
  s = MatMul(qt, kt)
  p = Sigmoid(s)
  o = MatMul(p, vt)
  ot = Transpose<perm=[0,2,1,3]>(o)
  of = Reshape(ot, merge)
  y = MatMul(of, wo)
}"""


def attention(mode: Mode) -> ChannelGroups:
    import numpy as np

    weights = {name: random_weight(12, 12, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    weights |= {"split": np.array([0, 0, 3, 4]), "merge": np.array([0, 0, 12])}
    return channel_groups(model_of(HEADS, weights), mode=mode)


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


def test_rows_of_unlike_channels_stay() -> None:
    text = """g (float[N,6,5,5] x) => (float[N,4,5,5] y) {
      a = Conv<kernel_shape=[1,1]>(x, w1)
      b = Conv<kernel_shape=[1,1]>(x, w2)
      c = Concat<axis=1>(a, b)
      d = Conv<kernel_shape=[1,1],group=2>(c, w3)
      y = Conv<kernel_shape=[1,1]>(d, w4)
    }"""
    groups = groups_of(text, "columns", w1=(5, 6, 1, 1), w2=(3, 6, 1, 1), w3=(6, 4, 1, 1), w4=(4, 6, 1, 1))
    assert "a" not in widths(groups), describe(groups)
    assert widths(groups)["d"] == (3, 2)
