"""Reshapes that are told their shape by constants, by arithmetic on sizes, or by a mix of both, at sizes other than those analysed."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import model_of
from movement_kit import check, flat, ints, reasons, tokens, weights

from irc.analysis.channels import channel_groups
from irc.channel_surgery import cut
from irc.ir import snapshot

TO_HEADS = {
    "copies": ("", ints(0, 0, 3, 8)),
    "free heads": ("", ints(0, 0, -1, 8)),
    "free dimensions": ("", ints(0, 0, 3, -1)),
    "computed": ("sh = Shape(a) n = Gather(sh, i0) t = Gather(sh, i1) s = Concat<axis=0>(n, t, three, eight)", None),
    "computed, free heads": (
        "sh = Shape(a) n = Gather(sh, i0) t = Gather(sh, i1) s = Concat<axis=0>(n, t, minus, eight)",
        None,
    ),
    "computed from channels": (
        "sh = Shape(a) n = Gather(sh, i0) t = Gather(sh, i1) c = Gather(sh, i2) heads = Div(c, eight) s = Concat<axis=0>(n, t, heads, eight)",
        None,
    ),
    "sliced": ("sh = Shape(a) nt = Slice(sh, i0, i2) s = Concat<axis=0>(nt, three, minus)", None),
}
FROM_HEADS = {
    "copies": ("", ints(0, 0, 24)),
    "free": ("", ints(0, 0, -1)),
    "product": (
        "hs = Shape(h) p = Gather(hs, i2) q = Gather(hs, i3) pq = Mul(p, q) hn = Gather(hs, i0) ht = Gather(hs, i1) j = Concat<axis=0>(hn, ht, pq)",
        None,
    ),
}


def numbers() -> dict[str, np.ndarray]:
    """Indices and sizes that graphs of this file name."""
    return {f"i{i}": ints(i) for i in range(4)} | {"three": ints(3), "eight": ints(8), "minus": ints(-1)}


@pytest.mark.parametrize("back", sorted(FROM_HEADS))
@pytest.mark.parametrize("to", sorted(TO_HEADS))
def test_heads_made_and_merged_in_every_spelling(to: str, back: str) -> None:
    (make, s), (merge, j) = TO_HEADS[to], FROM_HEADS[back]
    body = f"a = MatMul(x, w1) {make} h = Reshape(a, s) g = Relu(h) {merge} o = Reshape(g, j) y = MatMul(o, w2)"
    given = weights(w1=(4, 24), w2=(24, 3)) | numbers()
    given |= {name: value for name, value in (("s", s), ("j", j)) if value is not None}
    check(tokens(body), given, ["3 on w1.1x8 w2.0x8"], ["24 on w1.1x1 w2.0x1"])


MERGED_BATCH = (
    "a = MatMul(x, w1) sh = Shape(a) n = Gather(sh, i0) t = Gather(sh, i1) h = Reshape(a, s) p = Transpose<perm=[0,2,1,3]>(h) "
    "{merge} b = Reshape(p, m) bt = Transpose<perm=[0,2,1]>(b) bb = MatMul(b, bt) r = MatMul(bb, b) {split} k = Reshape(r, u) q = Transpose<perm=[0,2,1,3]>(k) o = Reshape(q, j) y = MatMul(o, w2)"
)


@pytest.mark.parametrize(
    "merge", ["m = Concat<axis=0>(minus, t, eight)", "nh = Mul(n, three) m = Concat<axis=0>(nh, t, eight)"]
)
@pytest.mark.parametrize(
    "split",
    [
        "u = Concat<axis=0>(n, three, t, eight)",
        "u = Concat<axis=0>(minus, three, t, eight)",
        "u = Concat<axis=0>(n, minus, t, eight)",
    ],
)
def test_heads_merged_with_a_dynamic_batch(merge: str, split: str) -> None:
    given = weights(w1=(4, 24), w2=(24, 3), s=ints(0, 0, 3, 8), j=ints(0, 0, 24)) | numbers()
    check(
        tokens(MERGED_BATCH.format(merge=merge, split=split)), given, ["3 on w1.1x8 w2.0x8"],
        ["24 on w1.1x1 w2.0x1"],
    )  # fmt: skip


def test_scores_of_merged_heads_get_their_heads_back() -> None:
    """Labels that stand for heads after a contraction repeat with the batch as the heads do."""
    body = (
        "a = MatMul(x, w1) sh = Shape(a) n = Gather(sh, i0) t = Gather(sh, i1) h = Reshape(a, s) p = Transpose<perm=[0,2,1,3]>(h) "
        "m = Concat<axis=0>(minus, t, eight) b = Reshape(p, m) bt = Transpose<perm=[0,2,1]>(b) bb = MatMul(b, bt) "
        "u = Concat<axis=0>(n, three, t, t) c = Reshape(bb, u) d = Add(c, bias) z = Concat<axis=0>(minus, t, t) f = Reshape(d, z) "
        "r = MatMul(f, b) v = Concat<axis=0>(n, three, t, eight) k = Reshape(r, v) q = Transpose<perm=[0,2,1,3]>(k) o = Reshape(q, j) y = MatMul(o, w2)"
    )
    given = weights(w1=(4, 24), w2=(24, 3), bias=(3, 1, 1), s=ints(0, 0, 3, 8), j=ints(0, 0, 24)) | numbers()
    check(tokens(body), given, ["3 on w1.1x8 bias.0x1 w2.0x8"], ["24 on w1.1x1 w2.0x1"])


def test_tokens_merged_with_the_batch_around_a_product() -> None:
    body = "a = Reshape(x, flat) b = Gemm(a, w1, c) sh = Shape(x) nt = Slice(sh, i0, i2) s = Concat<axis=0>(nt, six) d = Reshape(b, s) y = MatMul(d, w2)"
    given = weights(w1=(4, 6), c=(6,), w2=(6, 3), flat=ints(-1, 4), six=ints(6)) | numbers()
    check(tokens(body), given, ["6 on w1.1x1 c.0x1 w2.0x1"])


def test_images_flattened_to_features_of_channels() -> None:
    body = "a = Conv(x, w1) b = Reshape(a, s) y = MatMul(b, w2)"
    text = flat(body, given="float[N,4,3,3] x")
    for shape in (ints(0, -1), ints(0, 54), ints(-1, 54)):
        check(text, weights(w1=(6, 4, 1, 1), w2=(54, 3), s=shape), ["6 on w1.0x1 w2.0x9"])


def test_copies_by_zero_of_an_axis_that_has_moved() -> None:
    body = "a = MatMul(x, w1) b = Transpose<perm=[0,2,1]>(a) c = Reshape(b, s) d = Transpose<perm=[0,2,1]>(c) y = MatMul(d, w2)"
    check(tokens(body), weights(w1=(4, 6), w2=(6, 3), s=ints(0, 0, -1)), ["6 on w1.1x1 w2.0x1"])


def test_zeros_that_copy_another_axis_are_written_out() -> None:
    body = "a = Conv(x, w1) b = Reshape(a, s) c = Relu(b) d = Reshape(c, u) y = Conv(d, w2)"
    text = flat(body, given="float[6,4,6,5] x", made="float[6,3,6,5] y")
    check(
        text,
        weights(w1=(6, 4, 1, 1), w2=(3, 6, 1, 1), s=ints(0, 2, 3, 30), u=ints(0, 6, 6, 5)),
        ["2 on w1.0x3 w2.1x3"],
        ["6 on w1.0x1 w2.1x1"],
    )


def test_zeros_under_allowzero_pin_nothing_they_do_not_mean() -> None:
    body = "a = MatMul(x, w1) b = Reshape<allowzero=1>(a, s) y = MatMul(b, w2)"
    text = flat(body, given="float[2,9,4] x", made="float[18,3] y")
    check(text, weights(w1=(4, 6), w2=(6, 3), s=ints(-1, 6)), ["6 on w1.1x1 w2.0x1"])


def test_a_shape_that_is_fed_pins() -> None:
    text = flat(
        "a = MatMul(x, w1) b = Reshape(a, s) y = MatMul(b, w2)", given="float[2,4] x, int64[2] s", made="float[n,3] y"
    )
    made = model_of(text, weights(w1=(4, 6), w2=(6, 3)))
    assert not channel_groups(made).families
    assert {"computed sizes", "unknown shape"} & reasons(made, "w1")


def test_a_shape_shared_by_cut_and_uncut_values_is_copied() -> None:
    body = "a = MatMul(x, w1) b = Reshape(a, s) r = Tanh(b) c = Reshape(r, t) d = Reshape(x2, s) e = Reshape(d, t) y = MatMul(c, w2)"
    text = flat(body, given="float[N,4] x, float[N,6] x2", made="float[N,3] y, float[N,6] e")
    made = check(
        text,
        weights(w1=(4, 6), w2=(6, 3), s=ints(0, 2, 3), t=ints(0, 6)),
        ["2 on w1.1x3 w2.0x3"],
        ["6 on w1.1x1 w2.0x1"],
    )
    groups = channel_groups(made)
    small = snapshot(made)
    cut(small, groups.propagation, groups.survivors({groups.families[0]: groups.families[0].atoms[:1]}))
    assert sorted(small.graph.initializers) == sorted({*small.graph.initializers})
    assert small.graph.initializers["s"].const_value.numpy().tolist() == [0, 2, 3]


def test_a_shape_that_a_body_reads_is_left_alone() -> None:
    body = (
        "a = MatMul(x, w1) sh = Shape(a) e = If (yes) <then_branch = t () => (int64[2] u) { u = Identity(sh) }, "
        "else_branch = f () => (int64[2] v) { v = Neg(sh) }> y = MatMul(a, w2)"
    )
    text = flat(body, made="float[N,3] y, int64[2] e")
    check(text, weights(w1=(4, 6), w2=(6, 3), yes=np.array(True)), ["6 on w1.1x1 w2.0x1"])


def test_a_size_is_told_as_it_was() -> None:
    body = "a = MatMul(x, w1) n = Size(a) f = Cast<to=1>(n) b = Div(a, f) y = MatMul(b, w2)"
    given = weights(w1=(4, 6), w2=(6, 3))
    check(flat(body), given, ["6 on w1.1x1 w2.0x1"])
