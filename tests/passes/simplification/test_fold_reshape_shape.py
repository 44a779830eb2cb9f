"""Constant shapes for Reshape: only where every run of the model agrees."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from pass_kit import apply, assert_equal_after, op_types, parse

from irc.ir import constant, refresh_shapes
from irc.passes.simplification.fold_reshape_shape import FoldReshapeShape

PASS = FoldReshapeShape()
CHAIN = "s = Shape(x)  b = Gather(s, zero)  u = Unsqueeze(b, zeros)  "
INDICES = {"zero": np.array(0), "zeros": np.array([0]), "minus": np.array([-1]), "two": np.array([2]),
           "one": np.array([1]), "six": np.array([6]), "three": np.array([3]), "four": np.array([4])}  # fmt: skip


def known(text: str, **weights: object) -> ir.Model:
    model = parse(text, **{**INDICES, **weights})
    for output in model.graph.outputs:
        if output.shape == ir.Shape([]):  # text without a shape
            output.shape = None
    refresh_shapes(model)
    return model


def shapes(model: ir.Model) -> list[list[int] | None]:
    found = [constant(node.inputs[1]) for node in model.graph.all_nodes() if node.op_type == "Reshape"]
    return [None if shape is None else shape.tolist() for shape in found]


@pytest.mark.parametrize(
    ("concat", "expected"),
    [
        ("Concat<axis=0>(u, two, three)", [0, 2, 3]),  # the same dimension at the same place is copied
        ("Concat<axis=0>(u, minus)", [0, -1]),  # the -1 was there
        ("Concat<axis=0>(two, u, three)", [2, -1, 3]),  # moved, the dimension is what is left
        ("Concat<axis=0>(six, u)", [6, -1]),
        ("Concat<axis=0>(six, one, u)", [6, 1, -1]),  # behind the last one there is nothing to copy
    ],
)
def test_computed_shapes_become_constants(concat: str, expected: list[int]) -> None:
    model = known(f"g (float[n,6] x) => (float y) {{ {CHAIN} t = {concat}  r = Reshape(x, t)  y = Neg(r) }}")
    outcome = assert_equal_after(PASS, model, symbols=(1, 2, 5))
    assert shapes(outcome.model) == [expected]
    assert op_types(outcome.model) == ["Reshape", "Neg"]


def test_a_zero_that_copies_does_so_beside_other_dimensions() -> None:
    text = """g (float[n,m,6] x) => (float y) { s = Shape(x)  d = Slice(s, one, two)  t = Concat<axis=0>(zeros, d, two, three)
        r = Reshape(x, t)  y = Neg(r) }"""
    outcome = assert_equal_after(PASS, known(text), symbols=(1, 3))
    assert shapes(outcome.model) == [[0, 0, 2, 3]]


@pytest.mark.parametrize(
    ("dtype", "steps"),
    [
        ("int64", "t = Identity(c)"),
        ("int64", "i = Cast<to=6>(c)  t = Cast<to=7>(i)"),
        ("int32", "t = Cast<to=7>(c)"),
        ("int32", "i = Identity(c)  t = Cast<to=7>(i)"),
    ],
)
def test_what_copies_or_casts_a_computed_shape_is_looked_through(dtype: str, steps: str) -> None:
    text = f"g (float[n,6] x, {dtype}[1] d) => (float y) {{ c = Concat<axis=0>(d, k)  {steps}  r = Reshape(x, t)  y = Neg(r) }}"
    outcome = apply(PASS, known(text, k=np.array([3], dtype)))
    assert shapes(outcome.model) == [[-1, 3]] and op_types(outcome.model) == ["Reshape", "Neg"]


def test_a_computed_dimension_is_what_is_left() -> None:
    """n * 2 has no name, yet it is the only one that is unknown."""
    text = f"g (float[n,6] x) => (float[m,k] y) {{ {CHAIN} d = Mul(u, two)  t = Concat<axis=0>(d, three)  y = Reshape(x, t) }}"
    outcome = assert_equal_after(PASS, known(text), symbols=(1, 4))
    assert shapes(outcome.model) == [[-1, 3]]


def test_dimensions_without_a_name_are_copied_where_they_are_the_same() -> None:
    """NonZero gives a number of rows that only runs know; Shape of its negation asks for the same."""
    text = """g (float[n,6] x) => (int64[a,b,c] y) { i = NonZero(x)  v = Transpose<perm=[1,0]>(i)  w = Neg(v)  s = Shape(w)
        b = Gather(s, zero)  u = Unsqueeze(b, zeros)  t = Concat<axis=0>(u, minus, two)  y = Reshape(v, t) }"""
    outcome = assert_equal_after(PASS, known(text), symbols=(2, 3))
    assert shapes(outcome.model) == [[0, -1, 2]]


@pytest.mark.parametrize(
    "nodes",
    [
        # two unknown dimensions
        CHAIN + "d = Mul(u, two)  t = Concat<axis=0>(d, d, minus)  y = Reshape(x, t)",
        CHAIN + "d = Mul(u, two)  t = Concat<axis=0>(minus, d)  y = Reshape(x, t)",
        # one is copied and another unknown: runtimes refuse -1 beside a copied 0
        CHAIN + "d = Mul(u, two)  e = Div(d, two)  t = Concat<axis=0>(u, three, e)  y = Reshape(x, t)",
        # 0 and -1 mean something else
        CHAIN + "t = Concat<axis=0>(zeros, u)  y = Reshape<allowzero=1>(x, t)",
        CHAIN + "t = Concat<axis=0>(u, zeros)  y = Reshape<allowzero=1>(x, t)",
    ],
)
def test_what_runs_may_disagree_about_stays(nodes: str) -> None:
    outcome = apply(PASS, known(f"g (float[n,6] x) => (float y) {{ {nodes} }}"))
    assert outcome.rewritten == []
    assert set(outcome.skipped) == {"y"} and "more than one dimension" in outcome.skipped["y"]


def test_allowzero_goes_where_it_makes_no_difference() -> None:
    nodes = f"{CHAIN} t = Concat<axis=0>(u, two, three)  y = Reshape<allowzero=1>(x, t)"
    outcome = assert_equal_after(PASS, known(f"g (float[n,6] x) => (float y) {{ {nodes} }}"), symbols=(1, 3))
    assert shapes(outcome.model) == [[0, 2, 3]] and "allowzero" not in outcome.model.graph[-1].attributes


def test_a_zero_that_is_meant_stays_a_zero() -> None:
    nodes = f"{CHAIN} t = Concat<axis=0>(zeros, u)  y = Reshape<allowzero=1>(x, t)"
    assert apply(PASS, known(f"g (float[n,0] x) => (float[a,b] y) {{ {nodes} }}")).rewritten == []


def test_the_dimension_of_another_input_is_not_copied() -> None:
    """n and m may differ, so that a 0 would be wrong; -1 is right as long as the model runs."""
    text = f"g (float[n,6] x, float[m,6] z) => (float y) {{ {CHAIN} t = Concat<axis=0>(u, minus)  r = Reshape(z, t)  y = Neg(r) }}"
    outcome = apply(PASS, known(text))
    assert outcome.rewritten == []


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_empty_batches_still_run(rows: int) -> None:
    text = f"g (float[n,6] x) => (float[a,b,c] y) {{ {CHAIN} t = Concat<axis=0>(u, two, three)  y = Reshape(x, t) }}"
    outcome = apply(PASS, known(text))
    assert outcome.rewritten == ["y"]
    session = ort.InferenceSession(ir.to_proto(outcome.model).SerializeToString())
    assert session.run(None, {"x": np.zeros((rows, 6), np.float32)})[0].shape == (rows, 2, 3)


def test_a_shape_that_others_use_stays_computed() -> None:
    text = f"g (float[n,6] x) => (float[a,b] y, int64[2] t) {{ {CHAIN} t = Concat<axis=0>(u, six)  y = Reshape(x, t) }}"
    outcome = apply(PASS, known(text))
    assert outcome.rewritten == [] and outcome.skipped == {"y": "the nodes that compute its shape have other users"}
    text = f"g (float[n,6] x) => (float[a,b] y, int64[2] k) {{ {CHAIN} t = Concat<axis=0>(u, six)  y = Reshape(x, t)  k = Neg(t) }}"
    assert apply(PASS, known(text)).rewritten == []
    text = f"g (float[n,6] x) => (float[a,b] y, int64[2] k) {{ {CHAIN} t = Concat<axis=0>(u, six)  y = Reshape(x, t)  k = Mul(two, t) }}"
    assert apply(PASS, known(text)).rewritten == []
    # Another Reshape by it is a site itself; the data of a Reshape is not a shape.
    text = f"g (float[n,6] x) => (float[a,b] y, float[c,d] z) {{ {CHAIN} t = Concat<axis=0>(u, six)  y = Reshape(x, t)  n = Neg(x)  z = Reshape(n, t) }}"
    assert shapes(assert_equal_after(PASS, known(text), symbols=(2,)).model) == [[0, 6], [0, 6]]
    text = f"g (float[n,6] x) => (float[a,b] y, int64 z) {{ {CHAIN} t = Concat<axis=0>(u, six)  y = Reshape(x, t)  k = Concat<axis=0>(two)  z = Reshape(t, k) }}"
    assert "y" not in apply(PASS, known(text)).rewritten


def test_shapes_given_by_the_caller_stay() -> None:
    model = parse("g (float[n,6] x, int64[2] t) => (float[a,b] y) { y = Reshape(x, t) }")
    refresh_shapes(model)
    outcome = apply(PASS, model)
    assert outcome.rewritten == [] and outcome.skipped == {}


def test_works_in_bodies_and_over_captured_values() -> None:
    text = f"""g (bool c, float[n,6] x) => (float[a,b,d] y) {{ {CHAIN} y = If (c) <
        then_branch = t () => (float[e,f,g] p) {{ k = Concat<axis=0>(u, two, three)  p = Reshape(x, k) }},
        else_branch = e () => (float[h,i,j] q) {{ m = Neg(x)  l = Concat<axis=0>(u, three, two)  q = Reshape(m, l) }}> }}"""
    outcome = assert_equal_after(PASS, known(text), symbols=(1, 2))
    assert shapes(outcome.model) == [[0, 2, 3], [0, 3, 2]]


def test_in_a_loop_equal_names_are_not_equal_sizes() -> None:
    """The state grows with every iteration, its shape of the last one is not that of this one."""
    text = """g (int64 k, bool on, float[n,6] x) => (float[m,6] y) { y = Loop (k, on, x) <
        body = b (int64 i, bool c, float[n,6] s) => (bool d, float[n,6] r) { d = Identity(c)  j = Concat<axis=0>(s, s)
        h = Shape(s)  b0 = Gather(h, zero)  u = Unsqueeze(b0, zeros)  t = Concat<axis=0>(u, minus)  v = Reshape(j, t)
        q = Reshape(v, back)  r = Identity(q) }> }"""
    model = known(text, back=np.array([-1, 6]))
    apply(PASS, model)
    outcome = apply(PASS, model)
    assert [0, -1] not in shapes(outcome.model)


def test_before_opset_5_the_shape_is_an_attribute() -> None:
    model = parse("g (float[2,6] x) => (float[3,4] y) { y = Reshape<shape=[3,4]>(x) }", opset=4)
    outcome = apply(PASS, model)
    assert outcome.rewritten == [] and outcome.skipped == {}
