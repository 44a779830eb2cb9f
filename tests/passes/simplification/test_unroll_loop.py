"""unroll-loop: loops that run once or never, and those of which that is not known."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from exactness_kit import assert_exact_after
from onnx.reference import ReferenceEvaluator
from pass_kit import apply, assert_equal_after, assert_promises, assert_untouched, op_types, parse, run

from irc.ir import size_on_disk
from irc.passes.simplification import UnrollLoop
from irc.testing import assert_conforms, assert_rewrites

PASS = UnrollLoop()
COUNTS = {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "minus": np.array(-3), "one1": np.array([1])}
WEIGHTS = {**COUNTS, "yes": np.array(True), "no": np.array(False), "w": np.arange(1, 3, dtype=np.float32)}
FACE = "float[2] x) => (float[2] y, float[?,2] all"
BODY = "(int64 i, bool go, float[2] s) => (bool on, float[2] t, float[2] o)"
TURN = "on = Identity(go)  t = Mul(s, w)  o = Neg(t)"


def _model(
    loop: str, body: str = TURN, face: str = FACE, signature: str = BODY, opset: int = 17, **more: object
) -> ir.Model:
    face = face.replace("float[?,2]", "float[rounds,2]")
    source = f"g ({face}) {{ {loop} <body = b {signature} {{ {body} }}> }}"
    model = parse(source, {**WEIGHTS, **more}, opset=opset)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    return model


ONCE = {
    "count": ("y, all = Loop (one, , x)", TURN),
    "count in a vector": ("y, all = Loop (one1, , x)", TURN),
    "count and condition": ("y, all = Loop (one, yes, x)", TURN),
    "condition false afterwards": ("y, all = Loop (two, yes, x)", "on = Identity(no)  t = Mul(s, w)  o = Neg(t)"),
    "condition false afterwards, no count": ("y, all = Loop (, yes, x)", "on = Not(go)  t = Mul(s, w)  o = Neg(t)"),
    "no count and no condition": ("y, all = Loop (, , x)", "on = Less(i, zero)  t = Mul(s, w)  o = Neg(t)"),
    "counting condition": ("y, all = Loop (, , x)", "n = Add(i, one)  l = Less(n, one)  on = And(l, go)  t = Mul(s, w)  o = Neg(t)"),
    "stored condition": ("y, all = Loop (two, , x)", "on = Constant<value = bool {0}>()  t = Mul(s, w)  o = Neg(t)"),
}  # fmt: skip


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@pytest.mark.parametrize("case", ONCE)
def test_runs_once(case: str, opset: int) -> None:
    loop, body = ONCE[case]
    outcome = assert_exact_after(PASS, model := _model(loop, body, opset=opset))
    assert sorted(op_types(outcome.model)) == ["Mul", "Neg", "Unsqueeze"]
    assert size_on_disk(outcome.model) <= size_on_disk(model)


NEVER = {
    "count": "y, all = Loop (zero, yes, x)",
    "negative count": "y, all = Loop (minus, , x)",
    "condition": "y, all = Loop (two, no, x)",
    "condition without a count": "y, all = Loop (, no, x)",
}


@pytest.mark.parametrize("case", NEVER)
def test_never_runs(case: str) -> None:
    outcome = assert_exact_after(PASS, model := _model(NEVER[case]))
    assert op_types(outcome.model) == ["Identity", "Identity"]
    assert size_on_disk(outcome.model) <= size_on_disk(model)


def test_becomes() -> None:
    assert_rewrites(
        PASS,
        f"g (float[2] x) => (float[2] y, float[1,2] all) {{ y, all = Loop (one, yes, x) <body = b {BODY} {{ {TURN} }}> }}",
        "g (float[2] x) => (float[2] y, float[1,2] all) { y = Mul(x, w)  o = Neg(y)  all = Unsqueeze(o, axes) }",
        {**WEIGHTS, "axes": np.array([0])},
    )
    assert_rewrites(
        PASS,
        f"g (float[2] x) => (float[2] y, float[1,2] all) {{ y, all = Loop (one, yes, x) <body = b {BODY} {{ {TURN} }}> }}",
        "g (float[2] x) => (float[2] y, float[1,2] all) { y = Mul(x, w)  o = Neg(y)  all = Unsqueeze<axes=[0]>(o) }",
        WEIGHTS,
        opset=11,
    )
    assert_rewrites(
        PASS,
        f"g (float[2] x) => (float[2] y) {{ h = Neg(x)  k, all = Loop (zero, yes, h) <body = b {BODY} {{ {TURN} }}>  y = Tanh(k) }}",
        "g (float[2] x) => (float[2] y) { h = Neg(x)  y = Tanh(h) }",
        WEIGHTS,
    )


def test_number_and_condition_used_in_the_body() -> None:
    outcome = assert_exact_after(
        PASS,
        _model(
            "y, n, z, c = Loop (one, yes, x, two)",
            "on = And(go, yes)  f = Cast<to=1>(i)  t = Add(s, f)  u = Add(k, i)  o = Cast<to=1>(go)  p = Identity(i)",
            "float[2] x) => (float[2] y, int64 n, float[r] z, int64[r] c",
            "(int64 i, bool go, float[2] s, int64 k) => (bool on, float[2] t, int64 u, float o, int64 p)",
        ),
    )
    assert "Loop" not in op_types(outcome.model)


def test_a_body_that_wants_vectors_gets_vectors() -> None:
    outcome = assert_exact_after(
        PASS,
        _model(
            "y, all = Loop (one, yes, x)",
            "on = Not(go)  f = Cast<to=1>(i)  t = Add(s, f)  o = Concat<axis=0>(i, i)",
            "float[2] x) => (float[2] y, int64[r,2] all",
            "(int64[1] i, bool[1] go, float[2] s) => (bool[1] on, float[2] t, int64[2] o)",
        ),
    )
    assert "Loop" not in op_types(outcome.model)


def test_values_that_change_places() -> None:
    model = _model(
        "y, z = Loop (one, yes, x, h)",
        "on = Identity(go)  t = Identity(k)  u = Identity(s)",
        "float[2] x) => (float[2] y, float[2] z",
        "(int64 i, bool go, float[2] s, float[2] k) => (bool on, float[2] t, float[2] u)",
        h=np.array([5, 6], np.float32),
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Identity", "Identity"]


def test_values_that_pass_through() -> None:
    source = """g (float[2] x) => (float[2] y, float[2] z) { a = Neg(x)  p, q = Loop (one, yes, a, x) <
        body = b (int64 i, bool go, float[2] s, float[2] k) => (bool go, float[2] s, float[2] u) { u = Mul(k, w) }>
        y = Tanh(p)  z = Tanh(q) }"""
    outcome = assert_exact_after(PASS, parse(source, WEIGHTS))
    assert sorted(op_types(outcome.model)) == ["Mul", "Neg", "Tanh", "Tanh"]
    direct = """g (float[2] x) => (float[2] y, float[2] z) { y, z = Loop (one, yes, x, x) <
        body = b (int64 i, bool go, float[2] s, float[2] k) => (bool go, float[2] s, float[2] u) { u = Mul(k, w) }> }"""
    outcome = assert_exact_after(PASS, parse(direct, WEIGHTS))
    assert sorted(op_types(outcome.model)) == ["Identity", "Mul"]


def test_one_value_for_two_outputs() -> None:
    source = """g (float[2] x) => (float[2] y, float[2] z) { y, z = Loop (one, yes, x, x) <
        body = b (int64 i, bool go, float[2] s, float[2] k) => (bool on, float[2] u, float[2] u) { u = Mul(k, s)  on = Not(go) }> }"""
    outcome = assert_exact_after(PASS, parse(source, WEIGHTS))
    assert sorted(op_types(outcome.model)) == ["Identity", "Mul"]


@pytest.mark.parametrize("loop", ["Loop (one, yes, x)", "Loop (zero, yes, x)"])
def test_what_nothing_uses_costs_nothing(loop: str) -> None:
    source = f"g (float[2] x) => (float[2] y) {{ h, all = {loop} <body = b {BODY.replace('float[2] o', 'float[n] o')} {{ on = Identity(go)  t = Mul(s, w)  o = NonZero(s)  }}>  y = Neg(h) }}"
    outcome = assert_exact_after(PASS, parse(source.replace("o = NonZero(s)", "z = NonZero(s)  q = Cast<to=1>(z)  o = Flatten(q)").replace("float[n] o", "float[a,b] o"), WEIGHTS))  # fmt: skip
    assert [op for op in op_types(outcome.model) if op in ("Loop", "Unsqueeze")] == []


def test_constants_and_captures_of_the_body_come_along() -> None:
    model = parse(
        """g (float[2] x, bool c) => (float[2] y) { h = Neg(x)  y = Loop (one, yes, x) <
        body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t) { on = Not(go)  k = Constant<value_floats=[0.5, 2.0]>()
        m = Mul(s, k)  t = If (c) <then_branch = a () => (float[2] p) { p = Add(m, h) }, else_branch = e () => (float[2] q) { q = Sub(s, m) }> }> }""",
        WEIGHTS,
    )
    outcome = assert_exact_after(PASS, model)
    assert sorted(op_types(outcome.model)) == ["Add", "If", "Mul", "Neg", "Sub"]


def test_in_a_body_and_around_one() -> None:
    model = parse(
        f"""g (float[2] x, bool c) => (float[2] y) {{ y = If (c) <
        then_branch = a () => (float[2] p) {{ p, z = Loop (one, yes, x) <body = b {BODY} {{ {TURN} }}> }},
        else_branch = e () => (float[2] q) {{ q = Loop (two, yes, x) <body = d (int64 j, bool go2, float[2] s2) => (bool on2, float[2] t2) {{
            on2 = Identity(go2)  t2 = Loop (one, yes, s2) <body = f (int64 k, bool go3, float[2] s3) => (bool on3, float[2] t3) {{
                on3 = Identity(go3)  t3 = Add(s2, s3) }}> }}> }}> }}""",
        WEIGHTS,
    )
    outcome = assert_exact_after(PASS, model)
    assert sorted(op_types(outcome.model)) == ["Add", "Identity", "If", "Loop", "Mul"]


def test_a_loop_in_a_loop_that_runs_once() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { y = Loop (one, yes, x) <body = d (int64 j, bool go2, float[2] s2) => (bool on2, float[2] t2) {
            on2 = Identity(go2)  t2 = Loop (one, yes, s2) <body = f (int64 k, bool go3, float[2] s3) => (bool on3, float[2] t3) {
                on3 = Identity(go3)  t3 = Add(s2, s3) }> }> }""",
        WEIGHTS,
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Add"]


SILENT = {
    "two rounds": ("y, all = Loop (two, yes, x)", TURN),
    "condition not known afterwards": ("y, all = Loop (two, , x)", "m = ReduceMax<keepdims=0>(s)  on = Greater(m, m)  t = Mul(s, w)  o = Neg(t)"),
    "condition that stays": ("y, all = Loop (two, yes, x)", "on = Not(no)  t = Mul(s, w)  o = Neg(t)"),
    "one more round": ("y, all = Loop (, , x)", "n = Add(i, one)  on = Less(n, two)  t = Mul(s, w)  o = Neg(t)"),
}  # fmt: skip


@pytest.mark.parametrize("case", SILENT)
def test_leaves_what_may_run_again(case: str) -> None:
    loop, body = SILENT[case]
    assert assert_untouched(PASS, _model(loop, body)) == {}


@pytest.mark.parametrize(
    ("loop", "more"),
    [("y, all = Loop (m, yes, x)", "int64 m"), ("y, all = Loop (one, c, x)", "bool c"), ("y, all = Loop (one1, c, x)", "bool[1] c")],
)  # fmt: skip
def test_leaves_what_depends_on_the_input(loop: str, more: str) -> None:
    stops = "on = Identity(no)  t = Mul(s, w)  o = Neg(t)"
    assert assert_untouched(PASS, _model(loop, stops, FACE.replace("x)", f"x, {more})"))) == {}


def test_leaves_a_count_that_callers_may_override() -> None:
    for name in ("one", "yes"):
        model = _model("y, all = Loop (one, yes, x)")
        model.graph.inputs.append(model.graph.initializers[name])
        assert assert_untouched(PASS, model) == {}


def test_a_loop_of_another_domain_is_not_known() -> None:
    source = f"g (float[2] x) => (float[2] y) {{ y, all = custom.Loop (one, yes, x) <body = b {BODY} {{ {TURN} }}> }}"
    assert apply(PASS, parse(source, WEIGHTS)).rewritten == []


def test_collected_tensors_of_unknown_shape_cannot_be_given_empty() -> None:
    model = parse(
        """g (float[2] x) => (int64[r,1,k] all) { y, all = Loop (zero, yes, x) <
        body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t, int64[a,c] o) { on = Not(go)  t = Mul(s, w)  o = NonZero(s) }> }""",
        WEIGHTS,
    )
    assert "shape that is not known" in assert_untouched(PASS, model)["y"]


@pytest.mark.parametrize("dtype", ["float16", "int64", "bool", "double"])
def test_empty_collections_keep_their_type(dtype: str) -> None:
    to = {"float16": 10, "int64": 7, "bool": 9, "double": 11}[dtype]
    model = parse(
        f"""g (float[2] x) => ({dtype}[r,2] all) {{ y, all = Loop (zero, yes, x) <
        body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t, {dtype}[2] o) {{ on = Not(go)  t = Mul(s, w)  o = Cast<to={to}>(s) }}> }}""",
        WEIGHTS,
    )
    (found,) = run(assert_exact_after(PASS, model).model, {"x": np.ones(2, np.float32)})
    assert found.shape == (0, 2)


def test_nothing_gets_more_nodes() -> None:
    collects = """g (float[2] x) => (float[r,2] p, float[r,2] q, float[r,2] z) { p, q, z = Loop (one, yes) <
        body = b (int64 i, bool go) => (bool on, float[2] o, float[2] o2, float[2] o3) { on = Identity(go)  o = Neg(x)  o2 = Abs(x)  o3 = Exp(x) }> }"""
    assert assert_untouched(PASS, parse(collects, WEIGHTS)) == {"p": "its outputs would need more nodes than it has"}
    two = (
        collects.replace(", float[r,2] z)", ")")
        .replace("p, q, z", "p, q")
        .replace(", float[2] o3", "")
        .replace("o3 = Exp(x)", "")
    )
    model = parse(two, WEIGHTS)
    outcome = assert_exact_after(PASS, model)
    assert sorted(op_types(outcome.model)) == ["Abs", "Neg", "Unsqueeze", "Unsqueeze"]
    kept = parse(
        two.replace(") => (", ") => (int64 n, bool m, ", 1).replace(
            "{ p, q", "{ n = Identity(one)  m = Identity(yes)  p, q"
        ),
        WEIGHTS,
    )
    outcome = assert_equal_after(PASS, kept)  # its constants have other users
    assert "Loop" not in op_types(outcome.model)
    assert size_on_disk(outcome.model) <= size_on_disk(kept)
    none = """g (float[2] x) => (float[2] y, float[2] z) { y, z = Loop (zero, yes, x, x) <
        body = b (int64 i, bool go, float[2] s, float[2] k) => (bool go, float[2] s, float[2] k) {  }> }"""
    assert assert_untouched(PASS, parse(none, WEIGHTS)) == {"y": "its outputs would need more nodes than it has"}


THREE = "(int64 i, bool go, float[2] s, float[2] k, float[2] m)"
COSTLY = {
    "one computed value": (f"one, yes, x, x, x) <body = b {THREE} => (bool go, float[2] t, float[2] t, float[2] t) {{ t = Neg(s) }}>"),
    "inputs of the model": (f"one, yes, x, a, c) <body = b {THREE} => (bool go, float[2] s, float[2] k, float[2] m) {{  }}>"),
    "one first value": (f"one, yes, h, h, h) <body = b {THREE} => (bool go, float[2] s, float[2] s, float[2] s) {{  }}>"),
    "one first value of a loop that never runs": (f"zero, yes, h, h, h) <body = b {THREE} => (bool go, float[2] s, float[2] k, float[2] m) {{  }}>"),
    "a constant of the body": (f"one, yes, x, x, x) <body = b {THREE} => (bool go, float[2] w2, float[2] w2, float[2] t) <float[2] w2 = {{1, 2}}> {{ t = Neg(s) }}>"),
    "condition with another use": (
        f"one, yes, x, x, x) <body = b {THREE} => (bool on, float[2] t, float[2] t, float[2] t) {{ on = Not(go)  f = Cast<to=1>(on)  t = Add(s, f) }}>"
    ),
    "node of the condition with another output": (
        f"""one, yes, x, x, x) <body = b {THREE} => (bool on, float[2] t, float[2] t, float[2] t) {{ on, t = If (go) <
        then_branch = d () => (bool p, float[2] q) {{ p = Not(go)  q = Neg(x) }}, else_branch = e () => (bool r, float[2] v) {{ r = Identity(go)  v = Abs(x) }}> }}>"""
    ),
    "node of the condition with another use": (
        f"""one, yes, x, x, x) <body = b {THREE} => (bool on, float[2] t, float[2] t, float[2] t) {{ on, o = If (go) <
        then_branch = d () => (bool p, float[2] q) {{ p = Not(go)  q = Neg(x) }}, else_branch = e () => (bool r, float[2] v) {{ r = Identity(go)  v = Abs(x) }}>  t = Exp(o) }}>"""
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", COSTLY)
def test_two_outputs_that_need_an_identity_cost_more_than_the_loop(case: str) -> None:
    source = f"g (float[2] x, float[2] a, float[2] c) => (float[2] y, float[2] z, float[2] u) {{ h = Exp(x)  y, z, u = Loop ({COSTLY[case]} }}"
    model = parse(source, WEIGHTS, raw=True)
    assert assert_untouched(PASS, model) == {"y": "its outputs would need more nodes than it has"}


def test_a_node_of_the_condition_goes_with_outputs_that_nothing_uses() -> None:
    model = parse(
        f"""g (float[2] x) => (float[2] y, float[2] z, float[2] u) {{ y, z, u = Loop (one, yes, x, x, x) <
        body = b {THREE} => (bool on, float[2] t, float[2] t, float[2] t) {{ t = Neg(s)  on, o = If (go) <
        then_branch = d () => (bool p, float[2] q) {{ p = Not(go)  q = Neg(x) }}, else_branch = e () => (bool r, float[2] v) {{ r = Identity(go)  v = Abs(x) }}> }}> }}""",
        WEIGHTS,
    )
    assert sorted(op_types(assert_exact_after(PASS, model).model)) == ["Identity", "Identity", "Neg"]


def test_a_condition_that_is_carried_does_not_go() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y, float[2] z, bool c, bool[r] all) { y, z, c, all = Loop (one, yes, x, x, yes) <
        body = b (int64 i, bool go, float[2] s, float[2] k, bool f) => (bool on, float[2] t, float[2] t, bool on, bool on) { on = Not(f)  t = Neg(s) }> }""",
        WEIGHTS,
    )
    assert assert_untouched(PASS, model) == {"y": "its outputs would need more nodes than it has"}


def test_what_the_body_gives_of_its_own_number_and_condition() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y, int64[r] all, bool c) { y, c, all = Loop (one, yes, x, no) <
        body = b (int64 i, bool go, float[2] s, bool f) => (bool on, float[2] t, bool go, int64 i) { on = Not(f)  t = Mul(s, w) }> }""",
        WEIGHTS,
    )
    outcome = apply(PASS, model)
    assert_promises(PASS, model, outcome)
    assert sorted(op_types(outcome.model)) == ["Identity", "Mul", "Unsqueeze"]
    assert {name.partition("_")[0] for name in outcome.model.graph.initializers} >= {"i", "go"}, (
        "called after what they were"
    )
    # ONNX Runtime counts on in the number that it has collected.
    y, number, going = ReferenceEvaluator(ir.to_proto(outcome.model)).run(None, {"x": np.ones(2, np.float32)})
    assert y.tolist() == [1, 2] and number.tolist() == [0] and going.shape == () and going


def test_what_is_carried_may_be_of_unknown_shape_where_nothing_runs() -> None:
    model = parse(
        """g (float[n] x) => (float[n] y) { h = Loop (zero, yes, x) <
        body = b (int64 i, bool go, float[k] s) => (bool on, float[m] t) { on = Not(go)  t = Concat<axis=0>(s, w) }>  y = Neg(h) }""",
        WEIGHTS,
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Neg"]


def _read_by(model: ir.Model, *names: str) -> list[ir.Value]:
    return [node.inputs[0] for name in names for node in model.graph if node.outputs[0].name == name]


def test_what_comes_out_keeps_what_is_known_of_it() -> None:
    source = f"""g (float[2] x) => (float[2] y, float[r,2] z) {{ h, all = Loop (one, yes, x) <body = b {BODY} {{ {TURN} }}>
        y = Neg(h)  z = Neg(all) }}"""
    outcome = assert_exact_after(PASS, parse(source, WEIGHTS, raw=True))  # the types of h and all are not said
    carried, collected = _read_by(outcome.model, "y", "z")
    assert carried.dtype == collected.dtype == ir.DataType.FLOAT
    assert collected.name.startswith("all") and collected.shape == [1, 2]
    typed = parse(source, WEIGHTS)
    loop = typed.graph[0]
    loop.outputs[1].shape = ir.Shape(["r", 2])
    for value in loop.attributes["body"].as_graph().outputs[1:]:
        value.type = value.shape = None  # files need not say them
    carried, collected = _read_by(apply(PASS, typed).model, "y", "z")
    assert carried.dtype == collected.dtype == ir.DataType.FLOAT and collected.shape == ["r", 2]


def test_empty_collections_are_called_after_the_output() -> None:
    source = f"""g (float[2] x) => (float[r,2] z) {{ h, all = Loop (zero, yes, x) <body = b {BODY} {{ {TURN} }}>  z = Neg(all) }}"""
    (empty,) = _read_by(assert_exact_after(PASS, parse(source, WEIGHTS)).model, "z")
    assert empty.is_initializer() and empty.name.startswith("all")


@pytest.mark.parametrize("unknown", ["type", "shape"])
def test_empty_collections_need_type_and_rank(unknown: str) -> None:
    source = f"g (float[2] x) => (float[r,2] all) {{ y, all = Loop (zero, yes, x) <body = b {BODY} {{ {TURN} }}> }}"
    model = parse(source, WEIGHTS)
    setattr(model.graph[0].attributes["body"].as_graph().outputs[2], unknown, None)
    assert "not known" in assert_untouched(PASS, model)["y"]


def test_conforms_where_values_have_other_users() -> None:
    models = {case: _model(loop, body) for case, (loop, body) in ONCE.items()}
    models |= {f"never: {case}": _model(loop) for case, loop in NEVER.items()}
    assert_conforms(PASS, models, must_fire=True)


def test_a_sequence_is_carried() -> None:
    model = parse(
        """g (float[2] x) => (float[k] y) { e = SequenceConstruct(x)  f = Loop (one, yes, e) <
        body = b (int64 i, bool go, seq(float[2]) s) => (bool on, seq(float[2]) t) { on = Identity(go)  t = SequenceInsert(s, w) }>
        y = ConcatFromSequence<axis=0>(f) }""",
        WEIGHTS,
    )
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["SequenceConstruct", "SequenceInsert", "ConcatFromSequence"]


def test_only_outputs_of_the_graph_may_need_nodes() -> None:
    inner = parse(
        """g (float[2] x) => (float[r,2] a2, int64[r] b2, float[2] y2) { y, a, b = Loop (zero, yes, x) <
        body = b (int64 i, bool go, float[2] s) => (bool go, float[2] s, float[2] s, int64 i) {  }>
        a2 = Neg(a)  b2 = Neg(b)  y2 = Neg(y) }""",
        WEIGHTS,
    )
    assert op_types(assert_exact_after(PASS, inner).model) == ["Neg", "Neg", "Neg"]
    computed = parse(
        """g (float[2] x) => (float[2] y, float[2] z) { h = Neg(x)  k = Abs(x)  y, z = Loop (zero, yes, h, k) <
        body = b (int64 i, bool go, float[2] s, float[2] t) => (bool go, float[2] s, float[2] t) {  }> }""",
        WEIGHTS,
    )
    assert op_types(assert_exact_after(PASS, computed).model) == ["Neg", "Abs"]


def test_a_constant_that_the_body_gives() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { y = Loop (one, yes, x) <
        body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t) { on = Not(go)  t = Constant<value_floats=[0.5, 2.0]>() }> }""",
        WEIGHTS,
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Constant"]
    (loop,) = model.graph  # as an initializer of the body it must be copied
    body = loop.attributes["body"].as_graph()
    given = body.outputs[1]
    stored = ir.Value(
        name="stored", type=given.type, shape=given.shape, const_value=ir.tensor(WEIGHTS["w"], name="stored")
    )
    body.register_initializer(stored)
    body.outputs[1] = stored
    body.remove(given.producer(), safe=True)
    assert op_types(apply(PASS, model).model) == ["Identity"]


@pytest.mark.parametrize(("dtype", "to"), [("string", 8), ("uint4", 21)])
def test_types_that_are_not_stored_byte_by_byte_stay(dtype: str, to: int) -> None:
    model = parse(
        f"""g (float[2] x) => ({dtype}[r,2] all) {{ y, all = Loop (zero, yes, x) <
        body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t, {dtype}[2] o) {{ on = Not(go)  t = Mul(s, w)  o = Cast<to={to}>(s) }}> }}""",
        WEIGHTS,
        opset=21,
    )
    assert "not known" in assert_untouched(PASS, model)["y"]
