"""fold-constants: what is computed at build time, what must not be, and that no model grows by it."""

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
from irc.ir import size_on_disk, snapshot, weight_bytes
from irc.passes.simplification import FoldConstants, constant_program, constant_regions, fold_constants

PASS = FoldConstants()
TOO_LARGE = "its value is larger than what it is computed from"


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


def test_a_matrix_of_zeros_does_not_replace_its_dimensions() -> None:
    model = parse(
        """g (float[1,64,8,8] x) => (float[1,64,8,8] y) {
        d = Concat<axis=0>(c, c, one, one)  z = ConstantOfShape(d)  w = Add(z, half)  y = Conv(x, w) }""",
        c=np.array([64]),
        one=np.array([1]),
        half=np.array([0.5], np.float32),
    )
    outcome = assert_equal_after(PASS, model, rtol=1e-6)
    assert op_types(outcome.model) == ["ConstantOfShape", "Add", "Conv"], "only its dimensions are folded"
    assert outcome.rewritten == ["d"] and outcome.skipped == {"w": TOO_LARGE}
    assert weight_bytes(outcome.model) < 100
    generous = apply(FoldConstants(max_bytes=64 * 64 * 4), model)
    assert op_types(generous.model) == ["Conv"]


def test_a_matrix_of_zeros_that_shrinks_again_is_folded() -> None:
    model = parse(
        "g (float[1] x) => (float[1] y) { z = ConstantOfShape(d)  s = ReduceSum<keepdims=0>(z)  y = Add(x, s) }",
        d=np.array([100, 100]),
    )
    assert op_types(assert_equal_after(PASS, model).model) == ["Add"]


def test_an_enormous_value_is_never_made() -> None:
    model = parse(
        "g (float[1] x) => (float[1] y) { z = ConstantOfShape(d)  s = ReduceSum<keepdims=0>(z)  y = Add(x, s) }",
        d=np.array([1 << 20, 1 << 20]),
    )
    outcome = apply(FoldConstants(max_bytes=1 << 62), model)
    assert outcome.rewritten == [] and outcome.skipped == {"z": TOO_LARGE}


def test_what_makes_little_of_much_is_not_called_enormous(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (constant_program, constant_regions):
        monkeypatch.setattr(module, "MAX_GENERATED_BYTES", 4)
    text = "g (float[m,40] x) => (float[m,40] y) { e = Expand(w, s)  n = Neg(e)  y = Add(x, n) }"
    assert op_types(assert_equal_after(PASS, parse(text, w=(40,), s=np.array([1]))).model) == ["Add"]
    unknown = parse("g (float[m,40] x) => (float[k] y) { s = Shape<start=1>(x)  y = Expand(x, s) }")
    assert assert_untouched(PASS, unknown) == {"s": TOO_LARGE}


def test_the_transposed_copy_of_a_shared_weight_is_not_stored() -> None:
    model = parse(
        "g (int64[n] i) => (float[n,64] y) { e = Gather(w, i)  t = Transpose<perm=[1,0]>(w)  y = MatMul(e, t) }",
        w=(64, 32),
    )
    assert assert_untouched(PASS, model) == {"t": TOO_LARGE}
    alone = parse("g (float[n,32] x) => (float[n,64] y) { t = Transpose<perm=[1,0]>(w)  y = MatMul(x, t) }", w=(64, 32))
    assert op_types(assert_equal_after(PASS, alone, rtol=1e-6).model) == ["MatMul"]


def test_parts_of_a_weight_replace_it_together() -> None:
    model = parse(
        """g (float[n,32] x) => (float[n,32] y, float[n,32] z) {
        a = Slice(w, zero, rows, zero)  b = Slice(w, rows, end, zero)
        p = Transpose<perm=[1,0]>(a)  q = Transpose<perm=[1,0]>(b)  y = MatMul(x, p)  z = MatMul(x, q) }""",
        w=(64, 32),
        zero=np.array([0]),
        rows=np.array([32]),
        end=np.array([64]),
    )
    outcome = assert_equal_after(PASS, model, rtol=1e-6)
    assert op_types(outcome.model) == ["MatMul", "MatMul"] and outcome.rewritten == ["p", "q"]
    assert weight_bytes(outcome.model) == 64 * 32 * 4


def test_half_precision_storage_stays() -> None:
    model = parse(
        "g (float[n,64] x) => (float[n,64] y) { f = Cast<to=1>(w)  y = MatMul(x, f) }",
        w=numbers("w", (64, 64)).astype(np.float16),
    )
    assert assert_untouched(PASS, model) == {"f": TOO_LARGE}


HALVES = numbers("w", (8, 8)).astype(np.float16)
SIZES = {
    "few bytes for fewer": ("float[n,8] x) => (float[8,8] y", "c = Cast<to=1>(w)  y = Add(x, c)", {"w": HALVES}, False),
    "few bytes for a long name": ("float[n,8] x) => (float[8,8] y", f"c = Cast<to=1>({'w' * 51})  y = Add(x, c)", {"w" * 51: HALVES}, True),
    "long integers, too many for dimensions": ("int64[n] x) => (int64[125] y", "c = Cast<to=7>(w)  y = Add(x, c)", {"w": (125,)}, False),
    "a copy smaller than its node": ("float[n,4] x) => (float[2,4] u, float[4,2] y", "u = Add(x, w)  c = Transpose(w)  v = ReduceSum<keepdims=0>(x)  y = Add(c, v)", {"w": (2, 4)}, True),
    "a copy of many dimensions": ("float[n,4] x) => (float[1,1,1,1,1,1,2,4] u, float[4,2,1,1,1,1,1,1] y", "u = Add(x, w)  c = Transpose(w)  v = ReduceSum<keepdims=0>(x)  y = Add(c, v)", {"w": (1, 1, 1, 1, 1, 1, 2, 4)}, False),
}  # fmt: skip


@pytest.mark.parametrize("case", SIZES)
def test_the_bytes_that_a_file_grows_by_decide(case: str) -> None:
    signature, nodes, weights, folds = SIZES[case]
    model = parse(f"g ({signature}) {{ {nodes} }}", weights)
    if folds:
        assert assert_equal_after(PASS, model, symbols=(1,)).rewritten == ["c"]
    else:
        assert assert_untouched(PASS, model) == {"c": TOO_LARGE}


def test_a_neighbour_that_saves_does_not_pay_for_one_that_shares_a_small_constant() -> None:
    model = parse(
        """g (float[60] x, float z) => (float[60] y, float u) { m = Mul(w, k)  s = ReduceSum<keepdims=0>(m)  u = Add(z, s)
        e = Expand(k, many)  y = Add(x, e) }""",
        w=(100,),
        k=np.array([2.0], np.float32),
        many=np.array([60]),
    )
    outcome = assert_equal_after(FoldConstants(max_bytes=100), model, rtol=1e-6)
    assert outcome.rewritten == ["s"] and outcome.skipped == {"e": TOO_LARGE}
    assert apply(PASS, model).rewritten == ["s", "e"], "without an allowance they count together"


def test_a_constant_that_is_an_output_is_not_freed() -> None:
    elements = ",".join(f"{i}.5" for i in range(40))
    nodes = f"k = Constant<value_floats=[{elements}]>()  n = Neg(k)  y = Add(x, n)"
    model = parse(f"g (float[1] x) => (float[40] y, float[40] k) {{ {nodes} }}")
    assert assert_untouched(PASS, model) == {"n": TOO_LARGE}


def test_outputs_of_one_node_are_stored_where_they_are_used() -> None:
    model = parse(
        "g (float[4,16] x) => (float[4,16] y, float[4,16] z) { a, b, c = Split<axis=0>(w)  y = Add(x, a)  z = Mul(x, c) }",
        w=(12, 16),
    )
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Add", "Mul"]
    assert set(outcome.model.graph.initializers) == {"a", "c"}


def test_a_constant_graph_output_keeps_its_name() -> None:
    model = parse("g (float[2] x) => (float[2] y, float[2] k) { k = Add(w, w)  m = Neg(k)  y = Add(x, m) }", w=(2,))
    outcome = assert_equal_after(FoldConstants(max_bytes=64), model)
    assert sorted(op_types(outcome.model)) == ["Add", "Constant"]
    assert set(outcome.model.graph.initializers) == {"m"}


def test_a_large_constant_graph_output_is_an_initializer_behind_an_identity() -> None:
    model = parse("g (float[1] x) => (float[1] y, float[400] k) { k = Add(w, w)  y = Neg(x) }", w=(400,))
    outcome = assert_equal_after(FoldConstants(max_bytes=64), model)
    assert sorted(op_types(outcome.model)) == ["Identity", "Neg"]
    assert set(outcome.model.graph.initializers) == {"k.value"}


@pytest.mark.parametrize("body", ["k = Shape(x)", "a = Neg(w)  k = Add(a, w)  y = Mul(x, a)"])
def test_small_results_do_not_make_a_model_larger_either(body: str) -> None:
    outputs = "int64[2] k" if "Shape" in body else "float[4,8] y, float[4,8] k"
    model = parse(f"g (float[4,8] x) => ({outputs}) {{ {body} }}", w=(4, 8))
    before = size_on_disk(model)
    outcome = assert_equal_after(PASS, model)
    assert size_on_disk(outcome.model) <= before


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


def test_a_node_that_cannot_be_evaluated_stays_and_what_is_before_it_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parse(
        "g (float[1,1,8,8] x) => (float[1,1,8,8] y) { n = Neg(w)  m = Softplus(n)  a = Abs(m)  y = Mul(x, a) }",
        w=(1, 1, 8, 8),
    )
    evaluate = constant_program.evaluate

    def without_softplus(proto, inputs, *, opset):  # type: ignore[no-untyped-def]
        if proto.op_type == "Softplus":
            raise constant_program.EvaluationError("the reference implementation has no Softplus of opset 17")
        return evaluate(proto, inputs, opset=opset)

    monkeypatch.setattr(constant_program, "evaluate", without_softplus)
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Softplus", "Abs", "Mul"]
    assert outcome.rewritten == ["n"]
    assert outcome.skipped == {"a": "the reference implementation has no Softplus of opset 17"}


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("n = Reshape(w, s)", "evaluating it raises ValueError"),
        ("n = Gather(w, s)", "evaluating it raises IndexError"),
        ("n = Range(zero, one, zero)", "evaluating it raises ZeroDivisionError"),
        ("n = Range(zero, infinity, one)", "evaluating it raises OverflowError"),
        ("n = Range(zero, infinity, infinity)", "evaluating it raises ValueError"),
        ("n = OneHot(s, nothing, w)", "evaluating it raises IndexError"),
    ],
)
def test_a_broken_node_does_not_break_the_build(node: str, reason: str) -> None:
    scalars = {"zero": np.float32(0), "one": np.float32(1), "infinity": np.float32(np.inf)}
    given = {"w": (2,), "s": np.array([5]), "nothing": np.array([], np.int64), **scalars}
    model = parse(f"g (float[2] x) => (float[k] y) {{ {node}  y = Add(x, n) }}", given)
    outcome = apply(PASS, model)
    assert outcome.rewritten == [] and outcome.skipped == {"n": reason}


def test_a_wrong_dtype_of_the_reference_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parse("g (float[2] x) => (float[2] y) { n = Neg(w)  y = Add(x, n) }", w=(2,))
    monkeypatch.setattr(constant_program, "evaluate", lambda proto, inputs, *, opset: [-inputs[0].astype(np.float64)])
    outcome = apply(PASS, model)
    assert outcome.rewritten == []
    assert outcome.skipped == {"n": "the reference implementation gives float64, not FLOAT"}


@pytest.mark.parametrize("dims", [[3], [2, 1], []], ids=str)
def test_a_value_of_another_shape_than_the_model_says_is_not_stored(dims: list[int]) -> None:
    model = parse("g (float[2] x) => (float[2] y) { n = Neg(w)  y = Add(x, n) }", w=(2,))
    model.graph[0].outputs[0].shape = ir.Shape(dims)
    outcome = apply(FoldConstants(max_bytes=64), model)
    assert outcome.rewritten == [] and outcome.skipped == {"n": "its value has another shape than the model says"}


def test_slow_reference_implementations_are_waited_for_where_there_is_little_to_compute() -> None:
    text = "g (float[2] x) => (float[1,8,4,2] y) { c = Conv(v, w)  y = Add(x, c) }"
    model = parse(text, v=(1, 8, 6, 4), w=(8, 8, 3, 3))
    assert op_types(assert_equal_after(PASS, model, rtol=1e-5).model) == ["Add"]


def test_slow_reference_implementations_are_not_waited_for() -> None:
    model = parse(
        "g (float[1,8,64,64] x) => (float[1,8,64,64] y) { c = Conv<pads=[1,1,1,1]>(image, w)  y = Add(x, c) }",
        image=(1, 8, 64, 64),
        w=(8, 8, 3, 3),
    )
    assert assert_untouched(PASS, model) == {"c": "evaluating a Conv of this size would take long"}


def test_values_of_unknown_size_are_folded_if_they_turn_out_small() -> None:
    model = parse(
        "g (float[m] x) => (float[k] y) { n = NonZero(w)  f = Cast<to=1>(n)  s = ReduceSum<keepdims=0>(f)  y = Add(x, s) }",
        w=np.array([0.0, 2.0, 0.0, 1.0], np.float32),
    )
    assert op_types(assert_equal_after(PASS, model).model) == ["Add"]
    large = parse(
        "g (float[m] x) => (float[k] y) { n = NonZero(w)  f = Cast<to=1>(n)  s = ReduceSum<keepdims=0>(f)  y = Add(x, s) }",
        w=np.ones(4096, np.float32),
    )
    outcome = apply(PASS, large)
    assert outcome.rewritten == [] and outcome.skipped == {"n": TOO_LARGE}


def test_values_of_unknown_rank_and_from_omitted_inputs_are_folded_too() -> None:
    model = parse(
        "g (int64[m] x) => (int64[k] y) { n = NonZero(w)  c = Clip(n, , most)  q = Squeeze(c)  y = Add(x, q) }",
        w=np.array([0.0, 2.0, 0.0, 1.0], np.float32),
        most=np.array(2),
    )
    assert op_types(assert_equal_after(PASS, model, symbols=(2,)).model) == ["Add"]


def test_an_identity_of_unknown_size_is_left_to_be_eliminated() -> None:
    model = parse("g (int64[m] x) => (int64[k] y) { n = NonZero(w)  i = Identity(n)  y = Add(x, i) }", w=(3,))
    assert op_types(assert_equal_after(PASS, model).model) == ["Identity", "Add"]


def test_nothing_is_computed_from_what_is_too_large_on_the_chance_that_it_is_small() -> None:
    model = parse(
        "g (int64[m] x) => (int64[k] y) { z = ConstantOfShape(many)  n = NonZero(z)  y = Add(x, n) }",
        many=np.array([100, 100]),
    )
    assert assert_untouched(PASS, model) == {"z": TOO_LARGE}


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


BODY = """g (bool c, float[2] x) => (float[2] y) {{ k = Neg(w)  y = If ({condition}) <
    then_branch = t () => (float[2] p) {{ m = Add(k, w)  p = Mul(x, m) }},
    else_branch = e () => (float[2] q) {{ q = Abs(k) }}> }}"""


def test_folds_in_bodies_and_over_captured_values() -> None:
    model = parse(BODY.format(condition="c"), w=(2,))
    outcome = assert_equal_after(FoldConstants(max_bytes=64), model, symbols=(1, 1, 1, 1))
    assert op_types(outcome.model) == ["If", "Mul", "Constant"]
    names = {graph.name: list(graph.initializers) for graph in (outcome.model.graph, *outcome.model.graph.subgraphs())}
    assert names["t"] == ["m"] and names["e"] == []


@pytest.mark.parametrize(("taken", "left"), [(True, ["Mul"]), (False, ["Constant"])])
def test_an_if_with_a_known_condition_becomes_its_branch(taken: bool, left: list[str]) -> None:
    model = parse(BODY.format(condition="on"), w=(2,), on=np.array(taken))
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == left
    assert len(outcome.model.graph.initializers) == int(taken), "the other branch let go of what it captured"


@pytest.mark.parametrize("outer", [True, False])
def test_branches_are_inlined_in_bodies_with_their_constants_and_outputs(outer: bool) -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y, float[2] z, float[2] u) {
        y, z, u = If (c) <then_branch = t () => (float[2] p, float[2] q, float[2] r) {
            a = Neg(x)
            p, q, r = If (on) <then_branch = tt () => (float[2] pp, float[2] qq, float[2] rr) { h = Add(a, k)  pp = Abs(h)  qq = Identity(x)  rr = Identity(a) },
                               else_branch = te () => (float[2] ep, float[2] eq, float[2] er) { ep = Neg(a)  eq = Abs(x)  er = Exp(x) }> },
        else_branch = e () => (float[2] s, float[2] v, float[2] o) { s = Exp(x)  v = Neg(x)  o = Abs(x) }> }""",
        k=(2,),
        **({"on": np.array(True)} if outer else {"on": np.array(False)}),
    )
    outcome = assert_equal_after(PASS, model, symbols=(1, 1, 1, 1))
    assert op_types(outcome.model).count("If") == 1


CHOICE = """g (float[2] x) => (float[k] y) {{ z = {op} (on) <then_branch = t () => (float[2] p) {{ p = Neg(x) }},
    else_branch = e () => (float[3] q) {{ q = Concat<axis=0>(x, one) }}>  y = Exp(z) }}"""


@pytest.mark.parametrize(("op", "on"), [("custom.If", True), ("If", [True, True]), ("If", [])])
def test_what_chooses_otherwise_is_left(op: str, on: bool | list[bool]) -> None:
    model = parse(CHOICE.format(op=op), on=np.array(on, bool), one=np.array([1], np.float32))
    assert assert_untouched(PASS, model) == {}


def test_what_a_branch_gives_keeps_what_is_known_of_it() -> None:
    weights = {"on": np.array(True), "one": np.array([1], np.float32)}
    inferred = parse(CHOICE.format(op="If"), weights)  # the other branch gives another shape
    raw = parse(CHOICE.format(op="If"), weights, raw=True)  # the type of the output is not said
    same = CHOICE.format(op="If").replace("float[3] q", "float[2] q").replace("Concat<axis=0>(x, one)", "Abs(x)")
    silent = parse(same, weights)
    for branch in silent.graph.subgraphs():
        for value in branch.outputs:
            value.type = value.shape = None  # files need not say them
    for model in (inferred, raw, silent):
        outcome = apply(PASS, model)
        assert op_types(outcome.model) == ["Neg", "Exp"]
        (given,) = outcome.model.graph[0].outputs
        assert given.dtype == ir.DataType.FLOAT and given.shape == [2]


def test_what_is_in_a_branch_that_is_not_taken_is_no_site() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { y = If (off) <
        then_branch = t () => (float[2] p) { k = Constant<value_float=2.0>()  p = If (off) <
            then_branch = tt () => (float[2] a) { a = Add(x, k) }, else_branch = te () => (float[2] b) { b = Neg(k) }> },
        else_branch = e () => (float[2] q) { q = Abs(x) }> }""",
        off=np.array(False),
        raw=True,
    )
    outcome = assert_equal_after(PASS, model)
    assert outcome.rewritten == ["y"] and op_types(outcome.model) == ["Abs"]


def test_the_body_of_a_loop_is_left_to_run() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { y = Loop (n, on, x) <
        body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) { k = Neg(w)  t = Add(s, k)  d = Identity(c) }> }""",
        n=np.array(3),
        on=np.array(True),
        w=(2,),
    )
    outcome = assert_equal_after(PASS, model, rtol=1e-6)
    assert op_types(outcome.model) == ["Loop", "Add", "Identity"]


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


def test_a_large_result_is_computed_when_it_is_read() -> None:
    model = parse(
        "g (float[n,600] x) => (float[n,512] y) { t = Transpose<perm=[1,0]>(w)  s = Mul(t, half)  y = MatMul(x, s) }",
        w=(512, 600),
        half=np.float32(0.5),
    )
    outcome = assert_equal_after(PASS, model, rtol=1e-6)
    tensor = outcome.model.graph.initializers["s"].const_value
    assert isinstance(tensor, ir.LazyTensor) and tuple(tensor.shape) == (600, 512)
    edited = snapshot(outcome.model)
    for node in edited.graph:
        node.name = "renamed"
    np.testing.assert_array_equal(tensor.numpy(), weight(model, "w").T * np.float32(0.5))


def evaluations_from_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operators that are evaluated from here on."""
    calls: list[str] = []
    evaluate = constant_program.evaluate
    monkeypatch.setattr(
        constant_program,
        "evaluate",
        lambda proto, inputs, *, opset: (calls.append(proto.op_type), evaluate(proto, inputs, opset=opset))[1],
    )
    return calls


def test_what_several_sites_need_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = evaluations_from_here(monkeypatch)
    chain = "  ".join(f"a{i} = Abs(a{i - 1})" for i in range(1, 50))
    users = "  ".join(f"b{i} = Mul(a49, k{i})  x{i} = Add(x{i - 1}, b{i})" for i in range(1, 20))
    model = parse(
        f"g (float[4] x0) => (float[4] y) {{ {chain} {users} y = Neg(x19) }}",
        {"a0": (4,), **{f"k{i}": (4,) for i in range(1, 20)}},
    )
    outcome = apply(PASS, model)
    assert len(outcome.rewritten) == 19 and calls.count("Abs") == 49


@pytest.mark.parametrize(("remembered", "evaluations"), [(16, 9), (15, 18)])
def test_no_more_is_remembered_than_allowed(remembered: int, evaluations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = evaluations_from_here(monkeypatch)
    monkeypatch.setattr(fold_constants, "REMEMBERED_BYTES", remembered)
    chain = "  ".join(f"a{i} = Abs(a{i - 1})" for i in range(1, 10))
    users = "b = Mul(a9, k)  c = Mul(a9, h)  u = Add(x, b)  y = Add(u, c)"
    model = parse(f"g (float[4] x) => (float[4] y) {{ {chain} {users} }}", a0=(4,), k=(4,), h=(4,))
    assert apply(PASS, model).rewritten == ["b", "c"] and calls.count("Abs") == evaluations


def test_what_two_steps_need_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = evaluations_from_here(monkeypatch)
    model = parse("g (float[4] x) => (float[4] y) { a = Neg(w)  b = Abs(a)  c = Mul(b, a)  y = Add(x, c) }", w=(4,))
    assert op_types(assert_equal_after(PASS, model).model) == ["Add"]
    del calls[:]
    apply(PASS, model)
    assert calls == ["Neg", "Abs", "Mul"]


def test_what_is_on_the_way_can_be_asked_for() -> None:
    model = parse("g (float[4] x) => (float[4] y) { a = Neg(w)  b = Abs(a)  y = Add(x, b) }", w=(4,))
    values = [node.outputs[0] for node in model.graph][:2]
    on_the_way, last = constant_program.program_for(values, opset=17, known={}).program.run()
    np.testing.assert_array_equal(on_the_way, -weight(model, "w"))
    np.testing.assert_array_equal(last, np.abs(weight(model, "w")))


def test_thousands_of_nodes_with_as_many_users_fold() -> None:
    count = 2000
    chain = "  ".join(f"a{i} = Add(a{i - 1}, k)" for i in range(1, count))
    taps = "  ".join(f"t{i} = Mul({'x' if i == 1 else f't{i - 2}'}, a{i})" for i in range(1, count, 2))
    model = parse(f"g (float[4] x) => (float[4] y) {{ {chain} {taps} y = Neg(t{count - 1}) }}", a0=(4,), k=(4,))
    outcome = apply(PASS, model)
    assert len(outcome.rewritten) == count // 2 and set(op_types(outcome.model)) == {"Mul", "Neg"}


def test_a_long_chain_does_not_exhaust_the_stack() -> None:
    chain = "  ".join(f"a{i} = Neg(a{i - 1})" for i in range(1, 1501))
    model = parse(f"g (float[4] x) => (float[4] y) {{ {chain} y = Add(x, a1500) }}", a0=(4,))
    outcome = apply(PASS, model)
    assert outcome.rewritten == ["a1500"] and op_types(outcome.model) == ["Add"]


def test_a_chain_of_doublings_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    answer = constant_regions.shape_answer
    monkeypatch.setattr(constant_regions, "shape_answer", lambda node: (asked.append(node), answer(node))[1])
    chain = "  ".join(f"a{i} = Add(a{i - 1}, a{i - 1})" for i in range(1, 12))
    model = parse(f"g (float[4] x) => (float[4] y) {{ {chain} y = Add(x, a11) }}", a0=(4,))
    assert apply(PASS, model).rewritten == ["a11"] and len(asked) < 500


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


def test_one_value_that_is_too_large_does_not_keep_its_neighbours() -> None:
    model = parse(
        """g (float[n,32] x) => (float[n,32] y, float[n,32] z, float[300,64,32] u) {
        a, b = Split<axis=0>(w)  p = Transpose<perm=[1,0]>(a)  q = Transpose<perm=[1,0]>(b)
        y = MatMul(x, p)  z = MatMul(x, q)  e = Expand(w, many)  s = ReduceSum<keepdims=0>(x)  u = Add(e, s) }""",
        w=(64, 32),
        many=np.array([300, 64, 32]),
    )
    outcome = apply(PASS, model)
    assert outcome.skipped["e"] == TOO_LARGE, "w is still needed, so nothing else is stored twice either"
    assert "Expand" in op_types(outcome.model) and weight_bytes(outcome.model) < 64 * 32 * 4 + 100
