"""merge-common-subexpressions: what is computed twice is computed once, and nothing that only looks the same."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from call_counting import assert_linear
from pass_kit import apply, assert_equal_after, assert_promises, assert_untouched, op_types, parse

from irc.ir import snapshot
from irc.passes.simplification import MergeCommonSubexpressions

PASS = MergeCommonSubexpressions()


def test_equal_chains_become_one() -> None:
    model = parse(
        """g (float[n,4] x) => (float[n,4] y) { a = Neg(x)  b = Exp(a)  c = Softmax<axis=1>(b)
        d = Neg(x)  e = Exp(d)  f = Softmax<axis=1>(e)  y = Sub(c, f) }"""
    )
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Neg", "Exp", "Softmax", "Sub"]
    assert outcome.rewritten == ["d", "e", "f"] and outcome.skipped == {}


def test_nodes_with_several_outputs() -> None:
    model = parse(
        """g (float[6,4] x) => (float[3,4] y) { a, b = Split<axis=0, num_outputs=2>(x)  c, d = Split<axis=0, num_outputs=2>(x)
        e = Mul(a, d)  f = Mul(b, c)  y = Sub(e, f) }""",
        opset=18,
    )
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Split", "Mul", "Mul", "Sub"] and outcome.rewritten == ["c"]


DIFFERENT = {
    "operator": "a = Neg(x)  b = Abs(x)",
    "attribute": "a = Softmax<axis=1>(x)  b = Softmax<axis=0>(x)",
    "one attribute more": "a = Softmax<axis=1>(x)  b = Softmax(x)",
    "sign of a zero": "a = Elu<alpha=0.0>(x)  b = Elu<alpha=-0.0>(x)",
    "order of inputs": "a = Sub(x, w)  b = Sub(w, x)",
    "omitted input": "a = Clip(x, low)  b = Clip(x, , low)",
    "constant": "a = Mul(x, w)  b = Mul(x, v)",
    "outputs": "a = LayerNormalization(x, s)  b, m = LayerNormalization(x, s)  z = Exp(m)",
    "type": "a = Cast<to=7>(x)  c = Cast<to=6>(x)  b = Cast<to=7>(c)",
    "custom operator": "a = custom.Neg(x)  b = custom.Neg(x)",
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_keeps_nodes_that_differ_in(case: str) -> None:
    model = parse(
        f"g (float[4,4] x) => (float[4,4] y) {{ {DIFFERENT[case]}  c1 = Cast<to=1>(a)  c2 = CastLike(b, x)  y = Add(c1, c2) }}",
        w=(4, 4), v=(4, 4), s=(4,), low=np.array(-0.5, np.float32),
    )  # fmt: skip
    assert assert_untouched(PASS, model) == {}


@pytest.mark.parametrize(
    "value",
    [
        "value = float[2] {1, 2}",
        "value_floats = [1.0, 2.0]",
    ],
)
def test_constant_nodes_are_compared_by_value(value: str) -> None:
    source = "g (float[2] x) => (float[2] y) {{ a = Constant<{}>()  b = Constant<{}>()  c = Add(x, a)  y = Mul(c, b) }}"
    model = parse(source.format(value, value), raw=True)
    assert apply(PASS, model).rewritten == ["b"]
    assert_untouched(PASS, parse(source.format(value, value.replace("2}", "3}").replace("2.0", "3.0")), raw=True))


RANDOM = {
    "RandomNormal": ("RandomNormal<shape=[2]>()", "it draws random numbers"),
    "seeded": ("RandomUniform<shape=[2], seed=1.0>()", "it draws random numbers"),
    "RandomNormalLike": ("RandomNormalLike(x)", "it draws random numbers"),
    "RandomUniformLike": ("RandomUniformLike(x)", "it draws random numbers"),
    "Bernoulli": ("Bernoulli(x)", "it draws random numbers"),
    "Dropout that trains": ("Dropout(x, ratio, on)", "it may be in training mode"),
    "Dropout that may train": ("Dropout(x, ratio, c)", "it may be in training mode"),
}


@pytest.mark.parametrize("case", RANDOM)
def test_keeps_random(case: str) -> None:
    call, reason = RANDOM[case]
    model = parse(
        f"g (float[2] x, bool c) => (float[2] y) {{ a = {call}  b = {call}  y = Sub(a, b) }}",
        ratio=np.float32(0.5),
        on=np.array(True),
    )
    assert assert_untouched(PASS, model) == {"b": reason}


def test_keeps_multinomial() -> None:
    call = "Multinomial<sample_size=4>(x)"
    model = parse(f"g (float[2,3] x) => (int32[2,4] y) {{ a = {call}  b = {call}  y = Sub(a, b) }}")
    assert assert_untouched(PASS, model) == {"b": "it draws random numbers"}


@pytest.mark.parametrize(("opset", "arguments"), [(11, "x"), (13, "x"), (13, "x, ratio, off")])
def test_merges_dropout_in_inference_mode(opset: int, arguments: str) -> None:
    model = parse(
        f"g (float[2] x) => (float[2] y) {{ a = Dropout({arguments})  b = Dropout({arguments})  y = Sub(a, b) }}",
        opset=opset, ratio=np.float32(0.5), off=np.array(False),
    )  # fmt: skip
    assert assert_equal_after(PASS, model).rewritten == ["b"]


def test_merges_batch_normalization_in_inference_mode_only() -> None:
    norm = {name: np.ones(4, np.float32) for name in ("s", "b", "m", "v")}
    source = "g (float[2,4] x) => (float[2,4] y) { p = BatchNormalization(x, s, b, m, v)  q = BatchNormalization(x, s, b, m, v)  y = Sub(p, q) }"
    assert assert_equal_after(PASS, parse(source, **norm)).rewritten == ["q"]
    training = source.replace("p =", "p, p1, p2 =").replace("q =", "q, q1, q2 =")
    modern = training.replace("Normalization(", "Normalization<training_mode=1>(")
    assert assert_untouched(PASS, parse(modern, **norm)) == {"q": "it may be in training mode"}
    old = source.replace("p =", "p, p1, p2, p3, p4 =").replace("q =", "q, q1, q2, q3, q4 =")
    assert assert_untouched(PASS, parse(old, opset=9, **norm)) == {"q": "it may be in training mode"}


def test_a_repetition_that_is_a_graph_output_gives_its_name_to_the_first() -> None:
    model = parse("g (float[n] x) => (float[n] y, float[n] z) { a = Neg(x)  y = Exp(a)  z = Neg(x) }")
    outcome = assert_equal_after(PASS, model)
    assert [o.name for node in outcome.model.graph for o in node.outputs] == ["z", "y"]


def test_a_graph_output_that_comes_first_keeps_its_name() -> None:
    model = parse("g (float[n] x) => (float[n] y, float[n] z) { y = Neg(x)  a = Neg(x)  z = Exp(a) }")
    assert op_types(assert_equal_after(PASS, model).model) == ["Neg", "Exp"]


def test_two_graph_outputs_both_stay() -> None:
    model = parse("g (float[n] x) => (float[n] y, float[n] z) { y = Neg(x)  z = Neg(x) }")
    assert assert_untouched(PASS, model) == {
        "z": "it and the node it repeats are both graph outputs, whose names must stay"
    }


def test_a_body_uses_what_was_computed_before_it() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) { a = Exp(x)  b = Neg(a)  d = If (c) <
        then_branch = t () => (float[2] p) { h = Exp(x)  i = Neg(h)  p = Mul(i, w) },
        else_branch = e () => (float[2] q) { k = Exp(x)  q = Abs(k) }>  y = Add(d, b) }""",
        w=(2,),
    )
    outcome = assert_equal_after(PASS, model, symbols=(1, 1, 1, 1))
    assert op_types(outcome.model) == ["Exp", "Neg", "If", "Mul", "Abs", "Add"] and outcome.rewritten == ["h", "i", "k"]


def test_a_body_in_a_loop_uses_what_was_computed_before_it() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { a = Exp(x)  b = Neg(a)  y = Loop (n, on, b) <
        body = l (int64 i, bool c, float[2] s) => (bool d, float[2] t) { h = Exp(x)  t = Add(s, h)  d = Identity(c) }> }""",
        n=np.array(3),
        on=np.array(True),
    )
    assert op_types(assert_equal_after(PASS, model).model) == ["Exp", "Neg", "Loop", "Add", "Identity"]


NOT_SHARED = {
    "of a branch": """g (bool c, float[2] x) => (float[2] y) { d = If (c) <
        then_branch = t () => (float[2] p) { h = Exp(x)  p = Neg(h) }, else_branch = e () => (float[2] q) { k = Exp(x)  q = Abs(k) }>
        a = Exp(x)  y = Add(d, a) }""",
    "of the body of a custom operator": """g (bool c, float[2] x) => (float[2] y) { a = Exp(x)  d = custom.Beam (c) <
        body = t () => (float[2] p) { h = Exp(x)  p = Neg(h) }>  y = Add(d, a) }""",
}


@pytest.mark.parametrize("case", NOT_SHARED)
def test_keeps_values(case: str) -> None:
    model = parse(NOT_SHARED[case], raw=True)
    assert apply(PASS, model).rewritten == []


def test_the_output_of_a_body_is_computed_there() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) { a = Exp(x)  d = If (c) <
        then_branch = t () => (float[2] p) { p = Exp(x) }, else_branch = e () => (float[2] q) { q = Neg(x) }>  y = Add(d, a) }"""
    )
    assert assert_untouched(PASS, model) == {"p": "it gives its body an output, which must be computed there"}


BODIES = """g (bool c, float[2] x) => (float[2] y) {{ a = If (c) <
    then_branch = t () => (float[2] p) <float[2] k = {{1, 2}}> {{ h = Add(x, k)  p = {first}(h) }}, else_branch = e () => (float[2] q) {{ q = Abs(x) }}>
    b = If (c) <
    then_branch = t () => (float[2] r) <float[2] l = {{1, {number}}}> {{ i = Add(x, l)  r = {second}(i) }}, else_branch = e () => (float[2] s) {{ s = Abs({source}) }}>
    m = Neg(x)  n = Mul(a, b)  y = Add(m, n) }}"""
SAME = {"first": "Neg", "second": "Neg", "number": "2", "source": "x"}


def test_bodies_are_compared_by_structure() -> None:
    outcome = assert_equal_after(PASS, parse(BODIES.format(**SAME)), symbols=(1, 1, 1, 1))
    assert op_types(outcome.model).count("If") == 1 and outcome.rewritten == ["b"]
    present = set(outcome.model.graph.all_nodes())
    assert all(use.node in present for use in outcome.model.graph.inputs[1].uses()), "the removed If lets go of x"


@pytest.mark.parametrize(
    "change", [{"second": "Exp"}, {"number": "3"}, {"source": "r0"}, {"first": "Bernoulli", "second": "Bernoulli"}]
)
def test_bodies_that_differ(change: dict[str, str]) -> None:
    source = BODIES.format(**{**SAME, **change}).replace("{ a = If", "{ r0 = Exp(x)  a = If", 1)
    assert assert_untouched(PASS, parse(source)) == {}


def test_bodies_that_return_their_values_in_another_order() -> None:
    branches = "then_branch = t () => (float[2] {p}, float[2] {q}) {{ {a} = Neg(x)  {b} = Abs(x) }}, else_branch = e () => (float[2] {r}, float[2] {s}) {{ {r} = Exp(x)  {s} = Abs(x) }}"
    first = branches.format(p="p", q="q", a="p", b="q", r="r", s="s")
    swapped = branches.format(p="p1", q="q1", a="q1", b="p1", r="r1", s="s1")
    model = parse(
        f"g (bool c, float[2] x) => (float[2] y) {{ a, b = If (c) <{first}>  d, e = If (c) <{swapped}>  f = Mul(a, d)  g = Mul(b, e)  y = Sub(f, g) }}"
    )
    assert assert_untouched(PASS, model) == {}


def test_a_body_is_compared_in_the_names_of_its_loop() -> None:
    """The state `s` and the output of the body play the same part under other names; the captured `x` counts as it is."""
    loop = """{y} = Loop (n, on, x) <body = l (int64 {i}, bool {c}, float[2] {s}) => (bool {d}, float[2] {t}) {{
        {t} = Mul({s}, {u})  {d} = Identity({c}) }}>"""
    first = loop.format(y="a", i="i1", c="c1", s="s1", t="t1", d="d1", u="x")
    second = loop.format(y="b", i="i2", c="c2", s="s2", t="t2", d="d2", u="x")
    other = loop.format(y="b", i="i2", c="c2", s="s2", t="t2", d="d2", u="s2")
    frame = "g (float[2] x) => (float[2] y) {{ {}  {}  y = Add(a, b) }}"
    weights = {"n": np.array(3), "on": np.array(True)}
    assert assert_equal_after(PASS, parse(frame.format(first, second), weights)).rewritten == ["b"]
    assert assert_untouched(PASS, parse(frame.format(first, other), weights)) == {}


def test_a_refused_site_leaves_the_rest_sound() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x)  b = Neg(x)  c = Exp(a)  d = Exp(b)  y = Add(c, d) }")
    copy = snapshot(model)
    found = [site.id for site in PASS.sites(copy, None)]  # type: ignore[arg-type]
    assert found == ["b"], "d repeats c only once b is merged"


def test_shapes_known_of_the_repetition_are_kept() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x)  b = Neg(x)  y = Add(a, b) }")
    first = model.graph[0].outputs[0]
    first.shape, first.type = None, None
    kept = apply(PASS, model).model.graph[0].outputs[0]
    assert kept.shape == ir.Shape([2]) and kept.dtype == ir.DataType.FLOAT


@pytest.mark.parametrize("form", ["chain", "fan"])
def test_ten_thousand_nodes_take_linear_time(form: str) -> None:
    def work(count: int) -> Callable[[], None]:
        before = "x" if form == "fan" else "b{}"
        lines = "  ".join(
            f"a{i} = Neg({'x' if i == 0 else before.format(i - 1)})  b{i} = Neg({'x' if i == 0 else before.format(i - 1)})"
            for i in range(count // 2)
        )
        model = parse(
            f"g (float[2] x) => (float[2] y) {{ {lines}  y = Add(a{count // 2 - 1}, b{count // 2 - 1}) }}", raw=True
        )

        def merge() -> None:
            start = time.process_time()
            outcome = apply(PASS, model)
            assert time.process_time() - start < 10
            assert len(op_types(outcome.model)) == (count // 2 + 1 if form == "chain" else 2)

        return merge

    work(10_000)()
    assert_linear(work, 500, 2000)


def test_promises_on_a_graph_of_everything() -> None:
    model = parse(BODIES.format(**SAME))
    assert_promises(PASS, model, apply(PASS, model))
