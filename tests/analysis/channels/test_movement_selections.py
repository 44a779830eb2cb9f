"""Slice, Gather and their kin: what constants pick moves labels, what is known at run time only pins them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of
from movement_kit import check, flat, ints, reasons, scalar, tokens, weights

from irc.analysis.channels import channel_groups
from irc.channel_surgery import cut
from irc.ir import snapshot

END = 2**63 - 1
HEADS = "a = MatMul(x, w1) h = Reshape(a, s) {} o = Reshape(b, join) y = MatMul(o, w2)"


def slice_of(start: int, end: int, step: int = 1, axis: int = 1, dtype: type = np.int64) -> dict[str, np.ndarray]:
    """The four parameters of a Slice of one axis."""
    return {name: np.array([n], dtype=dtype) for name, n in zip("sexp", (start, end, axis, step), strict=True)}


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize(("start", "end"), [(0, 5), (-9, -2), (1, END), (1, 1000)])
def test_a_contiguous_slice_keeps_counting_survivors(opset: int, start: int, end: int) -> None:
    count = len(range(*slice(start, end).indices(12)))
    if opset < 10:
        body = f"a = MatMul(x, w1) b = Slice<starts=[{start}], ends=[{end}], axes=[1]>(a) c = Relu(b) y = MatMul(c, w2)"
        parameters = {}
    else:
        body, parameters = (
            "a = MatMul(x, w1) b = Slice(a, s, e, x_, p) c = Relu(b) y = MatMul(c, w2)",
            slice_of(start, end, axis=-1),
        )
        parameters["x_"] = parameters.pop("x")
    initializers = weights(w1=(4, 12), w2=(count, 3)) | parameters
    rest = [f"{12 - count} on w1.1x1"] if count < 11 else []  # a single channel is no family
    check(flat(body), initializers, [f"{count} on w1.1x1 w2.0x1", *rest], opset=opset)


def test_bounds_to_the_end_stay_and_other_axes_too() -> None:
    body = "a = MatMul(x, w1) b = Slice(a, s, e, ax) y = MatMul(b, w2)"
    initializers = weights(w1=(4, 12), w2=(10, 3), s=ints(1, 2), e=ints(-1, END), ax=ints(1, 2))
    made = check(tokens(body), initializers, ["10 on w1.1x1 w2.0x1", "2 on w1.1x1"])
    groups = channel_groups(made)
    small = snapshot(made)
    cut(small, groups.propagation, groups.survivors({f: f.atoms[:1] for f in groups.families}))
    (node,) = [node for node in small.graph if node.op_type == "Slice"]
    assert node.inputs[1].const_value.numpy().tolist() == [1, 1]
    assert node.inputs[2].const_value.numpy().tolist() == [-1, END]


@pytest.mark.parametrize(("start", "end", "step"), [(0, END, 2), (1, END, 3), (10, 2, -2), (-1, -(2**63), -1)])
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_a_strided_slice_picks_what_is_left(start: int, end: int, step: int, dtype: type) -> None:
    limit = np.iinfo(dtype)
    end = min(max(end, limit.min), limit.max)
    count = len(range(*slice(start, end, step).indices(12)))
    body = "a = MatMul(x, w1) b = Slice(a, s, e, ax, p) y = MatMul(b, w2)"
    parameters = slice_of(start, end, step, dtype=dtype)
    parameters["ax"] = parameters.pop("x")
    expected = [f"{count} on w1.1x1 w2.0x1", *([f"{12 - count} on w1.1x1"] if count < 12 else [])]
    check(flat(body), weights(w1=(4, 12), w2=(count, 3)) | parameters, expected)


def test_survivors_without_a_pattern_are_gathered_before_the_slice() -> None:
    body = "a = MatMul(x, w1) b = Slice(a, s, e, ax, p) c = Add(a, d) e2 = Concat<axis=1>(b, c) y = MatMul(e2, w2)"
    parameters = slice_of(0, END, 2)
    parameters["ax"] = parameters.pop("x")
    made = check(
        flat(body), weights(w1=(4, 12), w2=(18, 3), d=(12,)) | parameters,
        ["6 on w1.1x1 d.0x1 w2.0x1", "6 on w1.1x1 d.0x1 w2.0x2"],
    )  # fmt: skip
    groups = channel_groups(made)
    by_size = {len(f.axes[-1].slot.bundles) and f.axes[-1].positions: f for f in groups.families}
    odd, even = by_size[1], by_size[2]
    small = snapshot(made)
    cut(small, groups.propagation, groups.survivors({odd: odd.atoms[[0, 1, 4]], even: even.atoms[[0, 2, 3, 5]]}))
    assert "Gather" in [node.op_type for node in small.graph]
    plain = snapshot(made)
    cut(plain, groups.propagation, groups.survivors({even: even.atoms[:2], odd: odd.atoms[:1]}))
    assert [node.op_type for node in plain.graph] == [node.op_type for node in made.graph]


def test_bounds_computed_from_the_shape_of_channels_become_constants() -> None:
    body = (
        "a = MatMul(x, w1) sh = Shape(a) d = Gather(sh, one) h = Div(d, two) "
        "b = Slice(a, zero, h, one) c = Slice(a, h, d, one) e = Mul(b, c) y = MatMul(e, w2)"
    )
    initializers = weights(w1=(4, 12), w2=(6, 3), zero=ints(0), one=ints(1), two=ints(2))
    check(flat(body), initializers, ["6 on w1.1x2 w2.0x1"])


def test_bounds_that_are_partly_computed_stay_computed() -> None:
    body = (
        "a = MatMul(x, w1) sh = Shape(a) t = Gather(sh, one) m = Sub(t, one) e = Concat<axis=0>(m, eight) "
        "b = Slice(a, s, e, ax) y = MatMul(b, w2)"
    )
    initializers = weights(w1=(4, 12), w2=(6, 3), one=ints(1), eight=ints(8), s=ints(0, 2), ax=ints(1, 2))
    check(tokens(body), initializers, ["6 on w1.1x1 w2.0x1", "6 on w1.1x1"])


def test_bounds_that_depend_on_sizes_or_data_pin_their_axis_only() -> None:
    body = (
        "a = MatMul(x, w1) sh = Shape(a) t = Gather(sh, one) b = Slice(a, zero, t, two) m = ReduceMax(b) y = Mul(m, m)"
    )
    made = model_of(
        flat(body, given="float[N,S,4] x", made="float[1,1,1] y"),
        weights(w1=(4, 1024), one=ints(1), zero=ints(0), two=ints(2)),
    )
    assert "computed bounds" in reasons(made, "w1")
    body = "a = MatMul(x, w1) b = Slice(a, zero, n, one) y = MatMul(b, w2)"
    text = flat(body, given="float[N,S,4] x, int64[1] n", made="float[N,T,3] y")
    known = model_of(text, weights(w1=(4, 12), w2=(12, 3), zero=ints(0), one=ints(1)))
    assert not channel_groups(known).families  # the length of the result is not known


def test_a_bound_that_callers_may_override_pins() -> None:
    body = "a = MatMul(x, w1) b = Slice(a, s, e, one) y = MatMul(b, w2)"
    text = flat(body, given="float[N,4] x, int64[1] e")
    given = weights(w1=(4, 12), w2=(6, 3), s=ints(0), e=ints(6), one=ints(1))
    assert given.pop("e").tolist() == [6]
    assert channel_groups(model_of(flat(body), given | {"e": ints(6)})).families
    for initializers in (given, given | {"e": ints(6)}):
        assert not channel_groups(model_of(text, initializers)).families


def test_a_piece_of_an_axis_into_which_the_batch_is_merged_pins() -> None:
    body = "a = MatMul(x, w1) b = Reshape(a, s) c = Slice(b, zero, nine, one) d = ReduceMax(c, one) y = Mul(d, d)"
    given = weights(w1=(4, 12), s=ints(0, -1), zero=ints(0), nine=ints(9), one=ints(1))
    made = model_of(flat(body, given="float[N,S,4] x", made="float[N,1] y"), given)
    assert not channel_groups(made).families
    assert "dynamic size" in reasons(made, "w1")


@pytest.mark.parametrize(
    ("start", "end", "rows", "columns"),
    [(0, 4, ["3 on w1.1x8 w2.0x4"], ["12 on w1.1x1", "12 on w1.1x1 w2.0x1"]),
     (4, END, ["3 on w1.1x8 w2.0x4"], ["12 on w1.1x1", "12 on w1.1x1 w2.0x1"])],
)  # fmt: skip
def test_a_slice_of_head_dimensions(start: int, end: int, rows: list[str], columns: list[str]) -> None:
    text = tokens(HEADS.format("b = Slice(h, st, e, last)"))
    initializers = weights(
        w1=(4, 24), w2=(12, 3), s=ints(0, 0, 3, 8), join=ints(0, 0, -1), st=ints(start), e=ints(end), last=ints(-1)
    )
    check(text, initializers, rows, columns)


def test_a_strided_slice_of_head_dimensions_cuts_equal_columns() -> None:
    text = tokens(HEADS.format("b = Slice(h, st, e, last, two)"))
    initializers = weights(
        w1=(4, 24), w2=(12, 3), s=ints(0, 0, 3, 8), join=ints(0, 0, -1), st=ints(0), e=ints(END), last=ints(-1), two=ints(2)
    )  # fmt: skip
    check(text, initializers, ["3 on w1.1x8 w2.0x4"], ["4 on w1.1x3", "4 on w1.1x3 w2.0x3"])


@pytest.mark.parametrize("axis", [1, -1])
def test_gather_with_constant_indices(axis: int) -> None:
    body = f"a = MatMul(x, w1) b = Gather<axis={axis}>(a, i) c = Concat<axis=1>(a, b) y = MatMul(c, w2)"
    initializers = weights(w1=(4, 12), w2=(17, 3), i=ints(3, -1, 5, 5, 0))
    check(flat(body), initializers, ["3 on w1.1x1 w2.0x2", "8 on w1.1x1 w2.0x1"])


def test_a_channel_shuffle_by_gather() -> None:
    shuffled = np.arange(12).reshape(3, 4).T.ravel().copy()
    body = "a = MatMul(x, w1) b = Gather<axis=1>(a, i) c = Mul(a, b) y = MatMul(c, w2)"
    assert len(np.unique(shuffled)) == 12
    model = model_of(flat(body), weights(w1=(4, 12), w2=(12, 3), i=shuffled))
    groups = channel_groups(model)
    assert sum(len(f.atoms) for f in groups.families) < 12  # what the permutation links is cut together


def test_one_channel_alone_stays() -> None:
    body = "a = MatMul(x, w1) b = Gather<axis=1>(a, i) c = Unsqueeze(b, one) d = Mul(a, c) y = MatMul(d, w2)"
    made = check(flat(body), weights(w1=(4, 12), w2=(12, 3), i=scalar(-2), one=ints(1)), ["11 on w1.1x1 w2.0x1"])
    assert "single channel" in reasons(made, "w1")


def test_one_channel_read_for_its_size_is_cut_like_any() -> None:
    body = (
        "a = MatMul(x, w1) b = Gather<axis=2>(a, i) sh = Shape(b) s = Concat<axis=0>(sh, six, two) h = Reshape(a, s) r = Tanh(h) "
        "o = Reshape(r, j) y = MatMul(o, w2)"
    )
    given = weights(w1=(4, 12), w2=(12, 3), i=scalar(-1), six=ints(6), two=ints(2), j=ints(0, 0, 12))
    check(tokens(body), given, ["6 on w1.1x2 w2.0x2"], ["12 on w1.1x1 w2.0x1"])


def test_gather_of_heads() -> None:
    text = tokens(HEADS.format("b = Gather<axis=2>(h, i)"))
    initializers = weights(w1=(4, 24), w2=(16, 3), s=ints(0, 0, 3, 8), join=ints(0, 0, 16), i=ints(2, 0))
    check(text, initializers, ["2 on w1.1x8 w2.0x8"], ["24 on w1.1x1 w2.0x1"])


def test_a_lookup_keeps_its_table_and_carries_features() -> None:
    body = "b = Gather(e, x) y = MatMul(b, w2)"
    text = flat(body, given="int64[N,S] x", made="float[N,S,3] y")
    made = check(text, weights(e=(5, 12), w2=(12, 3)), ["12 on e.1x1 w2.0x1"])
    assert reasons(made, "e") == {"lookup"}


def test_a_table_tied_with_the_output_is_pinned_where_it_is_looked_up() -> None:
    body = "b = Gather(e, x) t = Transpose(e) y = MatMul(b, t)"
    check(flat(body, given="int64[N,S] x", made="float[N,S,5] y"), weights(e=(5, 12)), ["12 on e.1x1"])


def test_two_gathers_share_their_indices() -> None:
    body = "a = MatMul(x, w1) b = Gather<axis=1>(a, i) c = MatMul(x, w2) d = Gather<axis=1>(c, i) e = Concat<axis=1>(b, d) y = MatMul(e, w3)"
    initializers = weights(w1=(4, 6), w2=(4, 6), w3=(12, 3), i=ints(5, 4, 3, 2, 1, 0))
    check(flat(body), initializers, ["6 on w1.1x1 w3.0x1", "6 on w2.1x1 w3.0x1"])


@pytest.mark.parametrize(("axis", "expected"), [(1, ["12 on w1.1x1 w2.0x1"]), (-1, [])])
def test_cumulative_sums_keep_their_own_axis(axis: int, expected: list[str]) -> None:
    body = "a = MatMul(x, w1) b = CumSum(a, axis) y = MatMul(b, w2)"
    check(tokens(body), weights(w1=(4, 12), w2=(12, 3), axis=scalar(axis)), expected)


def test_reversing_keeps_time_and_batch() -> None:
    body = "a = MatMul(x, w1) b = ReverseSequence<time_axis=1, batch_axis=0>(a, lengths) y = MatMul(b, w2)"
    text = flat(body, given="float[2,9,4] x", made="float[2,9,3] y")
    check(text, weights(w1=(4, 12), w2=(12, 3), lengths=ints(4, 9)), ["12 on w1.1x1 w2.0x1"])
    body = "a = MatMul(x, w1) b = ReverseSequence<time_axis=1, batch_axis=0>(a, lengths) y = MatMul(b, w2)"
    made = check(
        flat(body, given="float[2,4] x", made="float[2,3] y"), weights(w1=(4, 12), w2=(12, 3), lengths=ints(4, 9)), []
    )
    assert "ordered axis" in reasons(made, "w1")


def test_a_triangle_keeps_its_last_two_axes() -> None:
    body = "a = Conv(x, w1) b = Trilu(a) y = Conv(b, w2)"
    text = flat(body, given="float[N,4,S,S] x", made="float[N,3,S,S] y")
    check(text, weights(w1=(6, 4, 1, 1), w2=(3, 6, 1, 1)), ["6 on w1.0x1 w2.1x1"])
    body = "a = MatMul(x, w1) b = Trilu(a) y = MatMul(b, w2)"
    check(tokens(body), weights(w1=(4, 12), w2=(12, 3)), [])


@pytest.mark.parametrize(
    "body",
    ["a = MatMul(x, w1) i = Cast<to=7>(a) z = Mul(i, zero) b = GatherElements<axis=1>(a, z) y = MatMul(b, w2)",
     "a = MatMul(x, w1) u = Compress<axis=1>(a, keep) b = Concat<axis=1>(u, a) y = MatMul(a, w2)",
     "a = MatMul(x, w1) b = ScatterElements<axis=1>(a, at, x) y = MatMul(b, w2)"],
)  # fmt: skip
def test_operators_without_a_rule_pin(body: str) -> None:
    initializers = weights(
        w1=(4, 12), w2=(12, 3), zero=ints(0), keep=np.array([True] * 6 + [False] * 6), at=np.tile(np.arange(4), (2, 1))
    )  # fmt: skip
    text = flat(body, given="float[2,4] x", made="float[2,3] y")
    made = model_of(text, {k: v for k, v in initializers.items() if k in body})
    assert not channel_groups(made).families
    assert "no rule" in reasons(made, "w1")


def test_indices_of_32_bits_stay_so() -> None:
    body = "a = MatMul(x, w1) b = Gather<axis=1>(a, i) y = MatMul(b, w2)"
    made = check(flat(body), weights(w1=(4, 6), w2=(6, 3), i=np.arange(6, dtype=np.int32)), ["6 on w1.1x1 w2.0x1"])
    groups = channel_groups(made)
    cut(made, groups.propagation, groups.survivors({groups.families[0]: groups.families[0].atoms[:2]}))
    (node,) = [node for node in made.graph if node.op_type == "Gather"]
    assert node.inputs[1].dtype == ir.DataType.INT32
