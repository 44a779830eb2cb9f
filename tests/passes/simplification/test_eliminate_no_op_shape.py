"""eliminate-no-op-shape: goes where the shape is provably the same, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from exactness_kit import assert_exact_after, assert_identical, constants, initializer_names, special_feed
from pass_kit import apply, assert_untouched, op_types, parse, run

from irc.passes.simplification import EliminateNoOpShape

PASS = EliminateNoOpShape()
TO_END = 2**63 - 1

# operator text, input type, constants, opset
NO_OPS = {
    "transpose": ("Transpose<perm=[0,1,2]>(x)", "float[n,2,k]", {}, 17),
    "transpose of axes of size 1": ("Transpose<perm=[1,0,2,4,3]>(x)", "float[1,1,n,1,1]", {}, 17),
    "transpose of a vector": ("Transpose(x)", "float[n]", {}, 17),
    "reshape to numbers": ("Reshape(x, s)", "float[2,3]", {"s": [2, 3]}, 17),
    "reshape with 0 and -1": ("Reshape(x, s)", "float[n,m,4]", {"s": [0, -1, 4]}, 17),
    "reshape, -1 in place of the unnamed": ("Reshape(x, s)", "float[?,4]", {"s": [-1, 4]}, 17),
    "reshape, only 0": ("Reshape(x, s)", "float[n,?]", {"s": [0, 0]}, 17),
    "reshape of a vector": ("Reshape(x, s)", "float[?]", {"s": [-1]}, 17),
    "reshape of nothing, allowzero": ("Reshape<allowzero=1>(x, s)", "float[0,3]", {"s": [0, 3]}, 17),
    "reshape by attribute": ("Reshape<shape=[0,-1,4]>(x)", "float[2,3,4]", {}, 4),
    "flatten": ("Flatten(x)", "float[n,m]", {}, 17),
    "flatten from behind": ("Flatten<axis=-1>(x)", "float[n,m]", {}, 17),
    "flatten one row": ("Flatten<axis=0>(x)", "float[1,m]", {}, 17),
    "flatten one column": ("Flatten<axis=2>(x)", "float[n,1]", {}, 17),
    "squeeze nothing": ("Squeeze(x)", "float[2,3]", {}, 17),
    "squeeze nothing of opset 11": ("Squeeze(x)", "float[2,3]", {}, 11),
    "unsqueeze nothing": ("Unsqueeze(x, a)", "float[n,m]", {"a": []}, 17),
    "expand to ones": ("Expand(x, s)", "float[n,m,4]", {"s": [1, 4]}, 17),
    "expand to itself": ("Expand(x, s)", "float[2,3]", {"s": [2, 3]}, 17),
    "expand to a scalar's shape": ("Expand(x, s)", "float[n]", {"s": []}, 17),
    "tile once": ("Tile(x, r)", "float[n,?]", {"r": [1, 1]}, 17),
    "slice to the end": ("Slice(x, b, e, a)", "float[?,n]", {"b": [0, 0], "e": [TO_END, 2**31 - 1], "a": [1, 0]}, 17),
    "slice to the size": ("Slice(x, b, e, a)", "float[?,4]", {"b": [0], "e": [4], "a": [-1]}, 17),
    "slice from before the start": ("Slice(x, b, e, a, t)", "float[n,4]", {"b": [-5], "e": [9], "a": [1], "t": [1]}, 17),
    "slice by attributes": ("Slice<starts=[0,0], ends=[2,2147483647]>(x)", "float[2,n]", {}, 9),
    "pad by nothing": ("Pad(x, p)", "float[n,m]", {"p": [0, 0, 0, 0]}, 17),
    "pad by nothing, reflected": ('Pad<mode="reflect">(x, p)', "float[n,m]", {"p": [0, 0, 0, 0]}, 17),
    "pad by attribute": ("Pad<pads=[0,0,0,0]>(x)", "float[n,m]", {}, 10),
    "concat of one": ("Concat<axis=1>(x)", "float[n,m]", {}, 17),
    "split into one": ("Split<axis=1>(x)", "float[n,4]", {}, 17),
    "split into one, sized": ("Split<axis=1>(x, s)", "float[n,4]", {"s": [4]}, 17),
    "split into one of opset 18": ("Split<axis=0, num_outputs=1>(x)", "float[n,4]", {}, 18),
    "sum over no axes": ("ReduceSum<noop_with_empty_axes=1>(x, a)", "float[n,m]", {"a": []}, 17),
    "sum over omitted axes": ("ReduceSum<noop_with_empty_axes=1>(x)", "float[n,m]", {}, 17),
    "mean over no axes": ("ReduceMean<noop_with_empty_axes=1, keepdims=0>(x, a)", "float[n,m]", {"a": []}, 18),
    "max over no axes": ("ReduceMax<noop_with_empty_axes=1>(x)", "float[n,m]", {}, 18),
    "min over no axes": ("ReduceMin<noop_with_empty_axes=1>(x)", "float[n,m]", {}, 18),
    "product over no axes": ("ReduceProd<noop_with_empty_axes=1>(x)", "float[n,m]", {}, 18),
    "resize by 1": ('Resize<mode="linear">(x, , s)', "float[n,2,m,4]", {"s": np.ones(4, np.float32)}, 17),
    "resize to its size": ('Resize<mode="nearest">(x, , , s)', "float[1,2,3,4]", {"s": [1, 2, 3, 4]}, 17),
    "resize some axes": ('Resize<mode="cubic", axes=[2,3]>(x, , , s)', "float[n,2,3,4]", {"s": [3, 4]}, 18),
    "resize of opset 10": ("Resize(x, s)", "float[1,2,3,4]", {"s": np.ones(4, np.float32)}, 10),
    "upsample": ("Upsample(x, s)", "float[1,2,3,4]", {"s": np.ones(4, np.float32)}, 9),
    "depth to space": ("DepthToSpace<blocksize=1>(x)", "float[n,2,3,4]", {}, 17),
    "space to depth": ("SpaceToDepth<blocksize=1>(x)", "float[n,2,3,4]", {}, 17),
}  # fmt: skip

NOT_NO_OPS = {
    "transpose": ("Transpose<perm=[1,0]>(x)", "float[n,n]", {}, 17),
    "transpose of one axis of size 1": ("Transpose<perm=[1,0]>(x)", "float[1,n]", {}, 17),
    "transpose without perm": ("Transpose(x)", "float[2,2]", {}, 17),
    "reshape that merges": ("Reshape(x, s)", "float[n,m]", {"s": [-1, 4]}, 17),
    "reshape to a number that only may be the size": ("Reshape(x, s)", "float[n,m]", {"s": [2, -1]}, 17),
    "reshape to another rank": ("Reshape(x, s)", "float[n,4]", {"s": [0, 2, 2]}, 17),
    "reshape that swaps": ("Reshape(x, s)", "float[2,3]", {"s": [3, 2]}, 17),
    "flatten at the wrong axis": ("Flatten<axis=0>(x)", "float[n,m]", {}, 17),
    "flatten of three": ("Flatten(x)", "float[n,m,1]", {}, 17),
    "squeeze of a size that may be 1": ("Squeeze(x)", "float[n,3]", {}, 17),
    "squeeze with empty axes": ("Squeeze(x, a)", "float[1,3]", {"a": []}, 17),
    "squeeze": ("Squeeze(x, a)", "float[1,3]", {"a": [0]}, 17),
    "unsqueeze": ("Unsqueeze(x, a)", "float[n,3]", {"a": [0]}, 17),
    "expand what may be 1": ("Expand(x, s)", "float[n,3]", {"s": [2, 3]}, 17),
    "expand to a larger rank": ("Expand(x, s)", "float[n]", {"s": [1, 1]}, 17),
    "tile": ("Tile(x, r)", "float[n,m]", {"r": [1, 2]}, 17),
    "slice that reverses": ("Slice(x, b, e, a, t)", "float[4]", {"b": [3], "e": [-9], "a": [0], "t": [-1]}, 17),
    "slice in steps": ("Slice(x, b, e, a, t)", "float[4]", {"b": [0], "e": [TO_END], "a": [0], "t": [2]}, 17),
    "slice of one less": ("Slice(x, b, e, a)", "float[n,4]", {"b": [0], "e": [3], "a": [1]}, 17),
    "slice that starts later": ("Slice(x, b, e, a)", "float[n,4]", {"b": [1], "e": [TO_END], "a": [1]}, 17),
    "slice from behind": ("Slice(x, b, e, a)", "float[n,4]", {"b": [-3], "e": [TO_END], "a": [1]}, 17),
    "slice up to -1": ("Slice(x, b, e, a)", "float[n,4]", {"b": [0], "e": [-1], "a": [1]}, 17),
    "slice to what may be the size": ("Slice(x, b, e, a)", "float[n,4]", {"b": [0], "e": [2], "a": [0]}, 17),
    "pad": ("Pad(x, p)", "float[n,m]", {"p": [0, 1, 0, -1]}, 17),
    "pad that crops": ("Pad(x, p)", "float[n,m]", {"p": [0, 0, 0, -1]}, 17),
    "concat of two": ("Concat<axis=0>(x, x)", "float[n,m]", {}, 17),
    "sum over all axes": ("ReduceSum<keepdims=1>(x)", "float[n,m]", {}, 17),
    "sum over one axis": ("ReduceSum<noop_with_empty_axes=1>(x, a)", "float[n,m]", {"a": [0]}, 17),
    "L1 norm over no axes": ("ReduceL1<noop_with_empty_axes=1>(x)", "float[n,m]", {}, 18),
    "sum of squares over no axes": ("ReduceSumSquare<noop_with_empty_axes=1>(x)", "float[n,m]", {}, 18),
    "log of the sum over no axes": ("ReduceLogSum<noop_with_empty_axes=1>(x)", "float[n,m]", {}, 18),
    "resize to what may be its size": ("Resize(x, , , s)", "float[1,2,n,4]", {"s": [1, 2, 3, 4]}, 17),
    "resize by 2": ("Resize(x, , s)", "float[1,1,2,2]", {"s": np.array([1, 1, 1, 2], np.float32)}, 17),
    "other domain": ("custom.Flatten(x)", "float[n,m]", {}, 17),
}  # fmt: skip


def _between(case, *, dtype="float"):
    """The operator between two others, so that only provability decides."""
    operator, type_, weights, opset = case
    type_ = type_.replace("float", dtype)
    return parse(
        f"g ({type_} x0) => ({dtype}[] y) {{ x = Identity(x0)  z = {operator}  y = Identity(z) }}".replace(f"{dtype}[] y", f"{dtype} y"),
        constants(**weights),
        opset=opset,
    )  # fmt: skip


@pytest.mark.parametrize("case", NO_OPS)
def test_removes(case: str) -> None:
    model = _between(NO_OPS[case])
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Identity", "Identity"] and outcome.rewritten == ["z"]
    assert initializer_names(outcome.model) == [], "what only the no-op used stays"


@pytest.mark.parametrize("case", NOT_NO_OPS)
def test_leaves(case: str) -> None:
    assert_untouched(PASS, _between(NOT_NO_OPS[case]))


@pytest.mark.parametrize("dtype", ["float16", "int64", "bool"])
@pytest.mark.parametrize(
    "case", ["transpose", "reshape with 0 and -1", "expand to ones", "concat of one", "split into one"]
)
def test_any_type(case: str, dtype: str) -> None:
    assert op_types(assert_exact_after(PASS, _between(NO_OPS[case], dtype=dtype)).model) == ["Identity", "Identity"]


def test_empty_tensors() -> None:
    for case in ("reshape with 0 and -1", "slice to the end", "expand to ones"):
        model = _between(NO_OPS[case])
        after = apply(PASS, model).model
        feed = special_feed(model, {"n": 2, "m": 0, "?": 0} if "slice" in case else {"n": 2, "m": 0})
        if "reshape" not in case:  # 0 and -1 together is an error for empty tensors
            assert_identical(run(after, feed)[0], run(model, feed)[0])


# --- shapes that are computed


def test_reshape_to_its_own_shape_although_no_dimension_has_a_name() -> None:
    model = parse("g (float[?,?] x) => (float[?,?] y) { a = Neg(x)  s = Shape(a)  b = Reshape(a, s)  y = Abs(b) }")
    assert op_types(assert_exact_after(PASS, model).model) == ["Neg", "Abs"]


def test_reshape_to_dimensions_picked_one_by_one() -> None:
    model = parse(
        """g (float[?,?,4] x) => (float y) { s = Shape(x)  i = Gather(s, zero)  iu = Unsqueeze(i, zeros)  j = Slice(s, ones, two)
        t = Concat<axis=0>(iu, j, four)  a = Reshape(x, t)  y = Abs(a) }""",
        constants(zero=np.array(0), zeros=[0], ones=[1], two=[2], four=[4]),
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Abs"] and initializer_names(outcome.model) == []


def test_expand_to_the_shape_of_another_with_the_same_symbols() -> None:
    model = parse("g (float[n,m] x, float[n,m] z) => (float y) { s = Shape(z)  a = Expand(x, s)  y = Add(a, z) }")
    assert op_types(assert_exact_after(PASS, model).model) == ["Add"]


def test_expand_to_the_shape_of_another_whose_dimensions_have_no_name() -> None:
    model = parse("g (float[n,?] x, float[n,?] z) => (float y) { s = Shape(z)  a = Expand(x, s)  y = Abs(a) }")
    assert assert_untouched(PASS, model) == {}


def test_slice_up_to_its_own_size() -> None:
    model = parse(
        "g (float[?,?] x) => (float y) { s = Shape(x)  e = Gather(s, ones)  a = Slice(x, zeros, e, ones)  y = Abs(a) }",
        constants(zeros=[0], ones=[1]),
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Abs"]
    other = parse(
        "g (float[?,?] x) => (float y) { s = Shape(x)  e = Gather(s, zeros)  a = Slice(x, zeros, e, ones)  y = Abs(a) }",
        constants(zeros=[0], ones=[1]),
    )
    assert assert_untouched(PASS, other) == {}


def test_says_why_a_reshape_that_may_be_one_stays() -> None:
    model = _between(NOT_NO_OPS["reshape that merges"])
    assert "not all dimensions" in assert_untouched(PASS, model)["z"]


@pytest.mark.parametrize("mode", ["tf_crop_and_resize", "tf_half_pixel_for_nn"])
def test_resize_that_reads_elsewhere_stays(mode: str) -> None:
    model = parse(
        f'g (float[1,1,3,4] x) => (float y) {{ a = Resize<coordinate_transformation_mode="{mode}">(x, roi, s)  y = Abs(a) }}',
        constants(s=np.ones(4, np.float32), roi=np.array([0, 0, 0, 0, 1, 1, 0.5, 0.5], np.float32)),
        opset=12,
    )
    assert mode in assert_untouched(PASS, model)["a"]


# --- what counts as known


def test_a_shape_that_callers_may_override_is_not_constant() -> None:
    model = parse("g (float[2,3] x, int64[2] s) => (float y) { a = Reshape(x, s)  y = Abs(a) }", constants(s=[2, 3]))
    assert assert_untouched(PASS, model) == {}


def test_the_symbols_of_an_output_prove_nothing() -> None:
    # The user calls both sizes n; nothing checks what an output is said to be.
    model = parse("g (float[n] x, int64[1] e) => (float[n] y) { y = Slice(x, zeros, e) }", constants(zeros=[0]))
    assert assert_untouched(PASS, model) == {}
    through = parse(
        "g (float[n] x, int64[1] e) => (float[n] y, float z) { y = Slice(x, b, e)  s = Shape(y)  z = Expand(x, s) }",
        constants(b=[0]),
    )
    assert assert_untouched(PASS, through) == {}


def test_symbols_in_a_loop_prove_nothing_but_numbers_do() -> None:
    body = """g (float[n] x, float[n] w) => (float y) {{ y = Loop (two, , x) <body = b (int64 i, bool c, {s} s) => (bool d, float t) {{
        d = Identity(c)  k = Shape(w)  r = Reshape(s, k)  q = {op}  t = Neg(q) }}> }}"""
    growing = parse(body.format(s="float[n]", op="Identity(r)"), constants(two=np.array(2)))
    assert assert_untouched(PASS, growing) == {}
    fixed = parse(
        "g (float[3] x) => (float y) { y = Loop (two, , x) <body = b (int64 i, bool c, float[3] s) => (bool d, float[3] t) {"
        " d = Identity(c)  r = Reshape(s, k)  t = Neg(r) }> }",
        constants(two=np.array(2), k=[-1]),
    )
    assert "Reshape" not in op_types(assert_exact_after(PASS, fixed).model)


# --- names


def test_graph_outputs_keep_their_names_and_shapes() -> None:
    model = parse(
        "g (float[n,2,3] x) => (float[n,a,b] y, float[n,2,3] z) { t = Abs(x)  y = Reshape(t, s)  z = Neg(t) }",
        constants(s=[0, 2, 3]),
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Abs", "Neg"]
    assert [str(d) for d in outcome.model.graph.outputs[0].shape or ()] == ["n", "2", "3"]


def test_between_input_and_output_an_identity_stays() -> None:
    model = parse("g (float[n,2] x) => (float[n,2] y) { y = Reshape(x, s) }", constants(s=[-1, 2]))
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Identity"] and initializer_names(outcome.model) == []


def test_a_shared_shape_stays_for_the_others() -> None:
    model = parse(
        "g (float[n,2] x, float[k,m] z) => (float y, float u) { y = Reshape(x, s)  u = Reshape(z, s) }",
        constants(s=[-1, 2]),
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Identity", "Reshape"] and initializer_names(outcome.model) == ["s"]


def test_two_that_share_everything_and_a_chain() -> None:
    model = parse(
        "g (float[n,2] x) => (float y) { a = Reshape(x, s)  b = Reshape(a, s)  c = Reshape(x, s)  y = Add(b, c) }",
        constants(s=[-1, 2]),
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Add"] and initializer_names(outcome.model) == []


def test_bodies_and_captured_values() -> None:
    model = parse(
        """g (bool c, float[n,2] x) => (float y, float z) { a = Reshape(x, s)  y = If (c) <
        then_branch = t () => (float[n,2] p) { p = Reshape(a, s) }, else_branch = e () => (float[n,2] q) { r = Concat<axis=0>(a)  q = Neg(r) }>
        z = Neg(a) }""",
        constants(s=[-1, 2]),
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["If", "Identity", "Neg", "Neg"] and initializer_names(outcome.model) == []


def test_a_permutation_that_does_not_fit_is_left() -> None:
    model = parse("g (float[1,2] x) => (y) { y = Transpose<perm=[0,1,2]>(x) }", raw=True)
    outcome = apply(PASS, model)
    assert outcome.rewritten == []
