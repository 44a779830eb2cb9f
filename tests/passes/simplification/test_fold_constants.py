"""fold-constants: what is computed at build time, and what must not be."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import (
    apply,
    assert_equal_after,
    assert_promises,
    assert_untouched,
    numbers,
    op_types,
    parse,
    run,
    weight,
)

from irc.errors import PassOptionError
from irc.ir import snapshot
from irc.passes.simplification import FoldConstants

PASS = FoldConstants()


def test_folds_a_weight_norm() -> None:
    model = parse(
        """g (float[1,8,40] x) => (float[1,16,38] y) {
        n = ReduceL2<axes=[1,2]>(v)  r = Div(g0, n)  w = Mul(v, r)  y = Conv(x, w) }""",
        v=(16, 8, 3),
        g0=(16, 1, 1),
    )
    outcome = assert_equal_after(PASS, model, rtol=1e-6)
    assert op_types(outcome.model) == ["Conv"] and outcome.rewritten == ["w"]
    assert list(outcome.model.graph.initializers) == ["w"], "the parts of the weight are gone"


SHAPES = {
    "whole shape": ("float[2,6,4] x) => (float[2,24] y", "s = Shape(x)  b = Gather(s, zero)  c = Concat<axis=0>(b, minus)  y = Reshape(x, c)", ["Reshape"]),
    "one known dimension": ("float[n,6,4] x) => (float[n,6,4] y", "s = Shape(x)  d = Gather(s, one)  c = Concat<axis=0>(minus, d, four)  y = Reshape(x, c)", ["Reshape"]),
    "known dimensions from the end": ("float[n,6,4] x) => (float[n,6,4] y", "s = Shape(x)  d = Slice(s, minus2, end)  c = Concat<axis=0>(minus, d)  y = Reshape(x, c)", ["Reshape"]),
    "start and end": ("float[n,6,4] x) => (float[m,6] y", "d = Shape<start=-2, end=2>(x)  c = Concat<axis=0>(minus, d)  y = Reshape(x, c)", ["Reshape"]),
    "size": ("float[2,6] x) => (float[2,6] y", "s = Size(x)  f = Cast<to=1>(s)  y = Div(x, f)", ["Div"]),
    "of what is computed": ("float[2,6] x) => (float[2,6] y", "z = Neg(x)  s = Size(z)  f = Cast<to=1>(s)  y = Div(z, f)", ["Neg", "Div"]),
    "of an input that is passed on": ("float[2,6] x) => (float[2,6] x, float[2,6] y", "s = Size(x)  f = Cast<to=1>(s)  y = Div(x, f)", ["Div"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_folds_shape_arithmetic(case: str) -> None:
    signature, nodes, left = SHAPES[case]
    given = {"zero": [0], "one": [1], "four": [4], "minus": [-1], "minus2": [-2], "end": [1 << 62]}
    weights = {name: np.array(value) for name, value in given.items() if f" {name})" in nodes or f"{name}," in nodes}
    outcome = assert_equal_after(PASS, parse(f"g ({signature}) {{ {nodes} }}", weights, opset=18), symbols=(1, 5))
    assert op_types(outcome.model) == left


def test_leaves_shape_arithmetic_on_unknown_dimensions() -> None:
    model = parse(
        "g (float[n,6] x) => (float[6,n] y) { s = Shape(x)  n = Gather(s, zero)  c = Concat<axis=0>(six, n)  y = Reshape(x, c) }",
        zero=np.array([0]),
        six=np.array([6]),
    )
    assert assert_untouched(PASS, model) == {}


def test_the_steps_of_a_slice_may_be_omitted() -> None:
    nodes = "s = Shape(x)  d = Slice(s, one, end, zero, one)  c = Concat<axis=0>(minus, d)  y = Reshape(x, c)"
    given = {"one": np.array([1]), "end": np.array([3]), "zero": np.array([0]), "minus": np.array([-1])}
    model = parse(f"g (float[n,6,4] x) => (float[n,6,4] y) {{ {nodes} }}", given)
    next(node for node in model.graph if node.op_type == "Slice").replace_input_with(4, None)
    assert op_types(assert_equal_after(PASS, model).model) == ["Reshape"]


def test_outputs_of_one_node_are_stored_where_they_are_used() -> None:
    model = parse(
        "g (float[4,16] x) => (float[4,16] y, float[4,16] z) { a, b, c = Split<axis=0>(w)  y = Add(x, a)  z = Mul(x, c) }",
        w=(12, 16),
    )
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Add", "Mul"]
    assert set(outcome.model.graph.initializers) == {"a", "c"}


LEAVES = {
    "random": "r = RandomNormal<shape=[2]>()  y = Add(x, r)",
    "random like a constant": "r = RandomUniformLike(w)  y = Add(x, r)",
    "bernoulli": "r = Bernoulli(w)  y = Add(x, r)",
    "dropout": "r = Dropout(w)  y = Add(x, r)",
    "quantized weight": "d = DequantizeLinear(q, s)  n = Neg(d)  y = Add(x, n)",
    "quantize a weight": "u = QuantizeLinear(w, s)  d = DequantizeLinear(u, s)  y = Add(x, d)",
    "other domain": "r = custom.Neg(w)  y = Add(x, r)",
    "other domain of known type": "typed = custom.Neg(w)  y = Add(x, typed)",
    "constant of another domain": "typed = custom.Constant<value_floats=[1.0, 2.0]>()  y = Add(x, typed)",
    "to text": "t = Cast<to=8>(w)  f = Cast<to=1>(t)  y = Add(x, f)",
    "from text": "f = Cast<to=1>(words)  y = Add(x, f)",
    "loop": "r = Loop(i, on, w) <body = b (int64 j, bool c, float[2] s) => (bool d, float[2] t) { t = Neg(s)  d = Identity(c) }>  y = Add(x, r)",
    "identity": "r = Identity(w)  y = Add(x, r)",
    "sequence": "r = SequenceConstruct(w, w)  t = SequenceAt(r, i)  y = Add(x, t)",
}


@pytest.mark.parametrize("case", LEAVES)
def test_leaves(case: str) -> None:
    nodes = LEAVES[case]
    given = {"w": (2,), "q": np.array([3, -7], np.int8), "s": np.float32(0.5), "i": np.array(0), "on": np.array(True)}
    given |= {"words": np.array(["1.5", "2"], dtype=object)}
    weights = {
        name: value
        for name, value in given.items()
        if f"({name})" in nodes or f"({name}," in nodes or f", {name})" in nodes or f" {name}," in nodes
    }
    model = parse(f"g (float[2] x) => (float[2] y) <float[2] typed> {{ {nodes} }}", weights)
    assert assert_untouched(PASS, model) == {}


def test_what_nothing_uses_is_not_spoken_of() -> None:
    model = parse("g (float[2] x) => (float[2] y) { c = Conv(v, w)  y = Neg(x) }", v=(1, 8, 64, 64), w=(8, 8, 3, 3))
    assert assert_untouched(PASS, model) == {}


def test_leaves_what_callers_may_override() -> None:
    model = parse("g (float[2] x) => (float[2] y) { n = Neg(w)  y = Add(x, n) }", w=(2,))
    model.graph.inputs.append(model.graph.initializers["w"])
    assert assert_untouched(PASS, model) == {}


OMISSIONS = {
    "input": ("float[4] x) => (float[4] y", "c = Clip(w, , most)  y = Add(x, c)"),
    "first output, of an operator that is slow if large": ("float[2] x) => (float[1,1,2] y", ", h = RNN<hidden_size=2>(s, u, u)  y = Add(x, h)"),
    "output between others": ("float[4] x) => (float[3,4] y", "a, , b = LayerNormalization(v, w)  c = Add(x, a)  y = Mul(c, b)"),
}  # fmt: skip


@pytest.mark.parametrize("case", OMISSIONS)
def test_folds_with_an_omitted(case: str) -> None:
    signature, nodes = OMISSIONS[case]
    given = {"w": (4,), "most": np.float32(0.1), "s": (3, 1, 2), "u": (1, 2, 2), "v": (3, 4)}
    weights = {name: value for name, value in given.items() if f"({name}," in nodes or f" {name})" in nodes}
    outcome = assert_equal_after(PASS, parse(f"g ({signature}) {{ {nodes} }}", weights), rtol=1e-5)
    assert set(op_types(outcome.model)) <= {"Add", "Mul"}


def test_an_output_that_lost_its_name_is_not_asked_for_its_type() -> None:
    model = parse(
        "g (float[4] x) => (float[3,4] y) { a, m, b = LayerNormalization(v, w)  c = Add(x, a)  y = Mul(c, b) }",
        v=(3, 4),
        w=(4,),
    )
    model.graph[0].outputs[1].name = ""
    assert op_types(apply(PASS, model).model) == ["Add", "Mul"]


def test_integer_division_truncates() -> None:
    model = parse(
        "g (int64[4] x) => (int64[4] y) { q = Div(a, b)  r = Mod(a, b)  t = Mul(q, r)  y = Add(x, t) }",
        a=np.array([-7, 7, -7, 7]),
        b=np.array([2, -2, -2, 2]),
    )
    assert op_types(assert_equal_after(PASS, model).model) == ["Add"]


@pytest.mark.parametrize("dtype", ["BFLOAT16", "FLOAT8E4M3FN", "INT4", "UINT4"])
def test_small_types_survive(dtype: str) -> None:
    model = parse(
        f"g (float[8] x) => (float[8] y) {{ s = Cast<to={ir.DataType[dtype].value}>(w)  t = Transpose(s)  f = Cast<to=1>(t)  y = Add(x, f) }}",
        opset=21,
        w=np.array([0, 1, 2, 3, 4, 5, 6, 7], np.float32),
    )
    assert op_types(assert_equal_after(PASS, model).model) == ["Add"]


def test_constant_nodes_become_initializers_of_the_same_name() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y, float[1] k) { h = Constant<value_floats=[0.5, 2.0]>()  k = Constant<value_floats=[3.0]>()
        z = Add(x, h)  y = If (c) <then_branch = t () => (float[2] p) { o = Constant<value_float=1.5>()  p = Add(z, o) },
        else_branch = e () => (float[2] q) { q = Neg(z) }> }""",
        raw=True,
    )
    outcome = assert_equal_after(PASS, model, symbols=(1, 1))
    assert op_types(outcome.model) == ["Constant", "Add", "If", "Add", "Neg"], "a graph output stays a Constant"
    assert weight(outcome.model, "h").tolist() == [0.5, 2.0]
    assert outcome.rewritten == ["h", "o"]


def test_constant_nodes_of_text_become_initializers_too() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { k = Constant<value_strings=["a", "b"]>()  h = Constant<value_strings=["b", "b"]>()
        e = Equal(k, h)  f = Cast<to=1>(e)  y = Add(x, f) }""",
        raw=True,
        opset=19,
    )
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Equal", "Cast", "Add"] and outcome.rewritten == ["k", "h"]


def test_max_bytes_must_not_be_negative() -> None:
    with pytest.raises(PassOptionError, match="max_bytes is -1; it must be at least 0"):
        FoldConstants(max_bytes=-1)


def test_promises_hold_after_every_single_site() -> None:
    from irc.application import apply_pass
    from irc.pass_base import Context
    from irc.pipeline import Step

    model = parse(
        """g (float[2,6,4] x) => (float[2,24] y, float[6] k) { s = Shape(x)  b = Gather(s, zero)  c = Concat<axis=0>(b, minus)  r = Reshape(x, c)
        t = Transpose<perm=[1,0]>(w)  u = MatMul(r, t)  a, o = Split<axis=0>(v)  k = Neg(a)  m = ReduceSum<keepdims=0>(o)  y = Add(u, m) }""",
        zero=np.array([0]), minus=np.array([-1]), w=(24, 24), v=(12,),
    )  # fmt: skip
    expected = run(model, {"x": numbers("x", (2, 6, 4))})
    total = len(apply(PASS, model).rewritten)
    assert total >= 4
    for limit in range(1, total + 1):
        copy = snapshot(model)
        apply_pass(Step(PASS), copy, Context(), limit=limit)
        for a, b in zip(expected, run(copy, {"x": numbers("x", (2, 6, 4))}), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5)
    assert_promises(PASS, model, apply(PASS, model))


def test_the_outputs_of_a_node_that_is_still_needed_have_names() -> None:
    from irc.application import apply_pass
    from irc.pass_base import Context
    from irc.pipeline import Step

    model = parse(
        "g (float[4] x) => (float[4] y) { a, b = Split<axis=0>(w)  c = Neg(b)  u = Add(x, a)  y = Mul(u, c) }", w=(8,)
    )
    copy = snapshot(model)
    apply_pass(Step(PASS), copy, Context(), limit=1)
    assert op_types(copy)[0] == "Split" and all(value.name for value in copy.graph[0].outputs)
    assert op_types(apply(PASS, copy).model) == ["Add", "Mul"]
