"""Concat and Split move labels as they move data."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_feeds, run
from movement_kit import check, flat, ints, reasons, scalar, tokens, weights

from irc.analysis.channels import channel_groups
from irc.channel_surgery import cut
from irc.errors import ModelError
from irc.ir import snapshot

PACKED = (
    "a = MatMul(x, w1) h = Reshape(a, split) p = Transpose<perm=[2,0,3,1,4]>(h) {picks} kt = Transpose<perm=[0,1,3,2]>(k) "
    "qk = MatMul(q, kt) m = MatMul(qk, v) mt = Transpose<perm=[0,2,1,3]>(m) o = Reshape(mt, join) y = MatMul(o, w2)"
)


def test_concat_joins_labels_and_pins_only_what_has_none() -> None:
    body = "a = MatMul(x, w1) b = MatMul(x, w2) c = Concat<axis=1>(a, x, b) y = MatMul(c, w3)"
    made = check(flat(body), weights(w1=(4, 6), w2=(4, 8), w3=(18, 3)), ["6 on w1.1x1 w3.0x1", "8 on w2.1x1 w3.0x1"])
    assert "free axis" in reasons(made, "w3")


def test_concat_of_the_same_value_twice_repeats_labels() -> None:
    body = "a = MatMul(x, w1) c = Concat<axis=-1>(a, a) y = MatMul(c, w2)"
    check(flat(body), weights(w1=(4, 6), w2=(12, 3)), ["6 on w1.1x1 w2.0x2"])


def test_concat_along_another_axis_ties_the_operands() -> None:
    body = "a = MatMul(x, w1) b = MatMul(x, w2) c = Concat<axis=1>(a, b, cls) y = MatMul(c, w3)"
    text = flat(body, given="float[1,S,4] x", made="float[1,T,3] y")
    check(text, weights(w1=(4, 6), w2=(4, 6), cls=(1, 1, 6), w3=(6, 3)), ["6 on w1.1x1 w2.1x1 cls.2x1 w3.0x1"])


def test_concat_with_an_axis_of_no_fixed_size_pins_the_others() -> None:
    body = "t = Transpose<perm=[1,0,2]>(x) c = Concat<axis=0>(t, table) m = ReduceMax<keepdims=0>(c, zero) y = MatMul(m, w)"
    made = model_of(
        flat(body, given="float[2,S,4] x", made="float[2,3] y"), weights(table=(5, 2, 4), zero=ints(0), w=(4, 3))
    )
    assert "dynamic size" in reasons(made, "table")
    assert not channel_groups(made).families


@pytest.mark.parametrize("axis", [2, 3])
def test_concat_of_heads_and_of_head_dimensions(axis: int) -> None:
    body = (
        "a = MatMul(x, w1) h = Reshape(a, s1) b = MatMul(x, w2) i = Reshape(b, s2) "
        f"c = Concat<axis={axis}>(h, i) o = Reshape(c, join) y = MatMul(o, w3)"
    )
    second = ints(0, 0, 3, 8)
    rows = ["3 on w1.1x8 w3.0x8", "3 on w2.1x8 w3.0x8"] if axis == 2 else ["3 on w1.1x8 w2.1x8 w3.0x16"]
    # Rows of either operand have to lose equally many, so that both are cut in step.
    columns = ["48 on w1.1x1 w3.0x1 w2.1x1"] if axis == 2 else ["24 on w1.1x1 w3.0x1", "24 on w2.1x1 w3.0x1"]
    initializers = weights(w1=(4, 24), w2=(4, 24), w3=(48, 3), s1=ints(0, 0, 3, 8), s2=second, join=ints(0, 0, 48))
    check(tokens(body), initializers, rows, columns)


def test_concat_of_heads_with_an_operand_that_has_heads_only() -> None:
    body = (
        "a = MatMul(x, w1) h = Reshape(a, s1) b = MatMul(x, w2) i = Reshape(b, s2) c = Concat<axis=3>(h, i) "
        "o = Reshape(c, join) y = MatMul(o, w3)"
    )
    rows = ["3 on w1.1x8 w2.1x1 w3.0x9"]
    columns = ["24 on w1.1x1 w3.0x1"]
    initializers = weights(
        w1=(4, 24), w2=(4, 3), w3=(27, 3), s1=ints(0, 0, 3, 8), s2=ints(0, 0, 3, 1), join=ints(0, 0, 27)
    )
    check(tokens(body), initializers, rows, columns)


def test_rotary_halves_are_cut_together() -> None:
    body = (
        "a = MatMul(x, w1) h = Reshape(a, s) l = Slice(h, zero, half, last) r = Slice(h, half, end, last) n = Neg(r) "
        "c = Concat<axis=-1>(n, l) d = Mul(c, sin) e = Mul(h, cos) f = Add(d, e) o = Reshape(f, join) y = MatMul(o, w2)"
    )
    initializers = weights(
        w1=(4, 24), w2=(24, 3), s=ints(0, 0, 3, 8), join=ints(0, 0, 24), zero=ints(0), half=ints(4), end=ints(2**63 - 1),
        last=ints(-1), sin=(8,), cos=(8,),
    )  # fmt: skip
    check(tokens(body), initializers, ["3 on w1.1x8 w2.0x8"], ["4 on w1.1x6 sin.0x2 cos.0x2 w2.0x6"])


@pytest.mark.parametrize(
    ("opset", "attributes", "sizes"),
    [(11, "<axis=1>", None), (11, "<axis=-1, split=[6,6]>", None), (13, "<axis=1>", None), (13, "<axis=1>", ints(6, 6)),
     (18, "<axis=-1, num_outputs=2>", None), (18, "<axis=1>", ints(6, 6))],
)  # fmt: skip
def test_split_in_halves_in_every_spelling(opset: int, attributes: str, sizes: np.ndarray | None) -> None:
    given = "a, s" if sizes is not None else "a"
    body = f"a = MatMul(x, w1) b, c = Split{attributes}({given}) d = Mul(b, c) y = MatMul(d, w2)"
    initializers = weights(w1=(4, 12), w2=(6, 3)) | ({} if sizes is None else {"s": sizes})
    check(flat(body), initializers, ["6 on w1.1x2 w2.0x1"], opset=opset)


def test_split_in_uneven_parts() -> None:
    body = "a = MatMul(x, w1) b, c = Split<axis=1>(a, s) d = Concat<axis=1>(c, b) y = MatMul(d, w2)"
    check(flat(body), weights(w1=(4, 12), w2=(12, 3), s=ints(5, 7)), ["12 on w1.1x1 w2.0x1"])


def test_split_by_num_outputs_with_a_shorter_last_part() -> None:
    body = "a = MatMul(x, w1) b, c, d = Split<axis=1, num_outputs=3>(a) e = Add(b, c) f = Concat<axis=1>(e, d) y = MatMul(f, w2)"
    check(flat(body), weights(w1=(4, 11), w2=(7, 3)), ["3 on w1.1x1 w2.0x1", "4 on w1.1x2 w2.0x1"])


def test_split_of_sizes_computed_from_the_shape() -> None:
    body = (
        "a = MatMul(x, w1) sh = Shape(a) d = Gather(sh, one) h = Div(d, two) r = Sub(d, h) s = Concat<axis=0>(h, r) "
        "b, c = Split<axis=1>(a, s) e = Mul(b, c) y = MatMul(e, w2)"
    )
    check(flat(body), weights(w1=(4, 12), w2=(6, 3), one=ints(1), two=ints(2)), ["6 on w1.1x2 w2.0x1"])


def test_split_by_sizes_that_are_fed_pins() -> None:
    text = flat(
        "a = MatMul(x, w1) b, c = Split<axis=1>(a, s) e = Mul(b, c) y = MatMul(e, w2)", given="float[N,4] x, int64[2] s"
    )
    made = model_of(text, weights(w1=(4, 12), w2=(6, 3)))
    assert not channel_groups(made).families


def test_a_part_of_one_channel_stays() -> None:
    body = "a = MatMul(x, w1) b, c = Split<axis=1>(a, s) d = Mul(b, c) y = MatMul(d, w2)"
    made = check(flat(body), weights(w1=(4, 12), w2=(11, 3), s=ints(1, 11)), ["11 on w1.1x1 w2.0x1"])
    assert "single channel" in reasons(made, "w1")


def test_an_empty_part_is_refused() -> None:
    body = "a = MatMul(x, w1) b, c = Split<axis=1>(a, s) d = Concat<axis=1>(c, b) y = MatMul(d, w2)"
    made = model_of(flat(body), weights(w1=(4, 12), w2=(12, 3), s=ints(2, 10)))
    groups = channel_groups(made)
    (family,) = groups.families
    with pytest.raises(ModelError, match="nothing would survive"):
        cut(snapshot(made), groups.propagation, groups.survivors({family: family.atoms[2:]}))


@pytest.mark.parametrize("uneven", [False, True])
def test_split_of_head_dimensions(uneven: bool) -> None:
    body = (
        "a = MatMul(x, w1) h = Reshape(a, s) b, c = Split<axis=-1>(h, sizes) t = Tanh(b) d = Concat<axis=-1>(t, c) "
        "o = Reshape(d, join) y = MatMul(o, w2)"
    )
    sizes = ints(2, 6) if uneven else ints(4, 4)
    initializers = weights(w1=(4, 24), w2=(24, 3), s=ints(0, 0, 3, 8), join=ints(0, 0, -1), sizes=sizes)
    columns = ["6 on w1.1x1 w2.0x1", "18 on w1.1x1 w2.0x1"] if uneven else ["24 on w1.1x1 w2.0x1"]
    check(tokens(body), initializers, ["3 on w1.1x8 w2.0x8"], columns)


PACKED_PICKS = {
    "gather": "q = Gather<axis=0>(p, i0) k = Gather<axis=0>(p, i1) v = Gather<axis=0>(p, i2)",
    "split": "q5, k5, v5 = Split<axis=0, num_outputs=3>(p) q = Squeeze(q5, i3) k = Squeeze(k5, i3) v = Squeeze(v5, i3)",
}


@pytest.mark.parametrize("how", sorted(PACKED_PICKS))
def test_packed_projections_are_cut_by_heads(how: str) -> None:
    initializers = weights(
        w1=(4, 72), w2=(24, 3), split=ints(0, 0, 3, 3, 8), join=ints(0, 0, 24), i0=scalar(0), i1=scalar(1), i2=scalar(-1), i3=ints(0)
    )  # fmt: skip
    text = tokens(PACKED.format(picks=PACKED_PICKS[how]))
    model = model_of(text, initializers)
    groups = channel_groups(model)
    (family,) = groups.families
    assert len(family.atoms) == 3
    small = snapshot(model)
    cut(small, groups.propagation, groups.survivors({family: family.atoms[:2]}))
    feeds = random_feeds(model, {"N": 3, "S": 5})
    assert run(small, feeds)[0][0].shape == run(model, feeds)[0][0].shape
    assert small.graph.initializers["w1"].shape == ir.Shape([4, 48])
    assert small.graph.initializers["w2"].shape == ir.Shape([16, 3])


def test_a_value_that_is_a_graph_output_stays() -> None:
    body = "a = MatMul(x, w1) b, c = Split<axis=1, num_outputs=2>(a) d = Concat<axis=1>(c, b) y = MatMul(d, w2)"
    text = flat(body, made="float[N,3] y, float[N,6] b")
    made = check(text, weights(w1=(4, 12), w2=(12, 3)), ["6 on w1.1x1 w2.0x1"])
    assert "graph output" in reasons(made, "w1")


def test_a_value_read_by_a_body_stays() -> None:
    body = (
        "a = MatMul(x, w1) b, c = Split<axis=1, num_outputs=2>(a) "
        "e = If (yes) <then_branch = t () => (float[N,6] u) { u = Identity(b) }, else_branch = f () => (float[N,6] v) { v = Neg(b) }> "
        "d = Concat<axis=1>(c, e) y = MatMul(d, w2)"
    )
    made = check(flat(body), weights(w1=(4, 12), w2=(12, 3), yes=np.array(True)), ["6 on w1.1x1 w2.0x1"])
    assert "control flow" in reasons(made, "w1")


def test_sizes_shared_by_two_splits_get_copies() -> None:
    body = (
        "a = MatMul(x, w1) b, c = Split<axis=1>(a, s) i = MatMul(x, w2) j, k = Split<axis=1>(i, s) p = Mul(b, c) q = Mul(j, k) "
        "d = Concat<axis=1>(p, q) y = MatMul(d, w3)"
    )
    check(
        flat(body),
        weights(w1=(4, 12), w2=(4, 12), w3=(12, 3), s=ints(6, 6)),
        ["6 on w1.1x2 w3.0x1", "6 on w2.1x2 w3.0x1"],
    )
