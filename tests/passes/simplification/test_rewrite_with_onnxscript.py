"""rewrite-with-onnxscript: rules of others, each replacement looked at before it takes its place."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from call_counting import assert_linear
from pass_kit import apply, assert_equal_after, assert_untouched, op_types, parse

from irc.adapters import RewriteRules
from irc.ir import snapshot
from irc.pass_base import Context
from irc.pass_manager import PassManager
from irc.passes.simplification import rewrite_with_onnxscript
from irc.passes.simplification.rewrite_with_onnxscript import LEFT_OUT, TAKEN, RewriteWithOnnxscript, rules
from irc.testing import assert_conforms
from irc.testing.integrity import model_bytes

if importlib.util.find_spec("onnxscript") is None:
    pytest.skip("onnxscript is not installed", allow_module_level=True)

PASS = RewriteWithOnnxscript()


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


ZEROS = np.zeros(2, np.float32)
EVERY_ROW = np.array([[0], [1], [2]], np.int64)
FIRES = {
    "two reshapes around MatMul": (
        "g (float[2,3,4] x, float[4,5] w) => (float[2,3,5] z) { a = Reshape(x, s1)  b = Reshape(w, s2)  c = MatMul(a, b)  y = Reshape(c, s3)  z = Neg(y) }",
        {"s1": _ints(6, 4), "s2": _ints(4, 5), "s3": _ints(2, 3, 5)},
        ["MatMul", "Neg"],
    ),
    "one reshape before MatMul": (
        "g (float[2,3,4] x, float[4,5] w) => (float[2,3,5] z) { a = Reshape(x, s1)  c = MatMul(a, w)  y = Reshape(c, s3)  z = Neg(y) }",
        {"s1": _ints(6, 4), "s3": _ints(2, 3, 5)},
        ["MatMul", "Neg"],
    ),
    "Expand before Add": (
        "g (float[1,4] x, float[n,4] w) => (float[n,4] z) { s = Shape(w)  e = Expand(x, s)  y = Add(e, w)  z = Neg(y) }",
        {},
        ["Add", "Neg"],
    ),
    "Cast of ConstantOfShape": (
        "g (int64[1] s) => (int64[n] z) { a = ConstantOfShape<value = float[1] {2.5}>(s)  y = Cast<to = 7>(a)  z = Neg(y) }",
        {},
        ["ConstantOfShape", "Neg"],
    ),
    "Cast of ConstantOfShape without value": (
        "g (int64[1] s) => (int32[n] z) { a = ConstantOfShape(s)  y = Cast<to = 6>(a)  z = Neg(y) }",
        {},
        ["ConstantOfShape", "Neg"],
    ),
    "Min of Min": (
        "g (float[2,4] x) => (float[2,4] z) { a = Min(x, c1)  b = Min(a, c2)  z = Neg(b) }",
        {"c1": (4,), "c2": (4,)},
        ["Min", "Neg"],
    ),
    "Max of Max": (
        "g (float[2,4] x) => (float[2,4] z) { a = Max(x, c1)  b = Max(a, c2)  z = Neg(b) }",
        {"c1": (4,), "c2": (4,)},
        ["Max", "Neg"],
    ),
    "one reshape before MatMul, the input an output too": (
        "g (float[2,3,4] x, float[4,5] w) => (float[2,3,5] z, float[2,3,4] x) { a = Reshape(x, s1)  c = MatMul(a, w)  y = Reshape(c, s3)  z = Neg(y) }",
        {"s1": _ints(6, 4), "s3": _ints(2, 3, 5)},
        ["MatMul", "Neg"],
    ),
    "ScatterND over everything": (
        "g (float[3,4] u) => (float[3,4] z) { y = ScatterND(d, i, u)  z = Neg(y) }",
        {"d": (3, 4), "i": EVERY_ROW},
        ["Neg"],
    ),
    "Conv with a bias of zeros": (
        "g (float[1,2,5] x) => (float[1,2,3] z) { y = Conv(x, w, b)  z = Neg(y) }",
        {"w": (2, 2, 3), "b": ZEROS},
        ["Conv", "Neg"],
    ),
    "Gemm with a bias of zeros": (
        "g (float[4,2] x) => (float[4,2] z) { z = Gemm<transB = 1, alpha = 0.5>(x, w, b) }",
        {"w": (2, 2), "b": ZEROS},
        ["Gemm"],
    ),
}


@pytest.mark.parametrize("name", FIRES)
def test_fires_and_conforms(name: str) -> None:
    text, weights, expected = FIRES[name]
    model = parse(text, weights)
    outcome = assert_equal_after(PASS, model, rtol=1e-6)
    assert op_types(outcome.model) == expected
    assert len(model_bytes(outcome.model)) < len(model_bytes(model))
    assert_conforms(PASS, model, must_fire=True)


def test_a_known_shape_replaces_a_computed_one_where_that_is_smaller() -> None:
    text = """g (float[n,4] x, int64[1] k) => (float[2,m] z, int64[1] j) {{ l = Abs(k)  t = Concat<axis = 0>(two, l)  y = Reshape(x, t)  z = Neg(y)  j = {j}(k) }}"""
    model = parse(text.format(j="Neg"), two=_ints(2))
    y = next(v for node in model.graph for v in node.outputs if v.name == "y")
    y.shape = ir.Shape([2, None])
    outcome = apply(PASS, model)
    assert op_types(outcome.model) == ["Reshape", "Neg", "Neg"]
    assert outcome.model.graph.initializers["y.Constant"].const_value.numpy().tolist() == [2, -1]
    shared = parse(text.format(j="Add").replace("Add(k)", "Add(t, l)"), two=_ints(2))
    y = next(v for node in shared.graph for v in node.outputs if v.name == "y")
    y.shape = ir.Shape([2, None])
    assert "bytes" in assert_untouched(PASS, shared)["y"]


def _computed_shape(nodes: str, outputs: str = "", inputs: str = "int64[2] k", **weights: np.ndarray) -> ir.Model:
    """A Reshape to a computed shape, of which it is known what it gives."""
    text = f"g (float[n,4] x, {inputs}) => (float[2,m] z{outputs}) {{ {nodes}  z = Neg(y) }}"
    model = parse(text, weights)
    next(v for node in model.graph for v in node.outputs if v.name == "y").shape = ir.Shape([2, None])
    return model


@pytest.mark.parametrize(
    ("length", "kept", "fires"), [(26, False, False), (27, False, True), (66, True, False), (67, True, True)]
)
def test_as_many_bytes_are_fewer_only_with_fewer_nodes(length: int, kept: bool, fires: bool) -> None:
    """The new Reshape and its shape take 85 bytes; the old one takes 19 and a name, the node before 12 and a name."""
    name = "t" * length
    model = _computed_shape(
        f"{name} = Abs(k)  y = Reshape(x, {name})" + f"  j = Neg({name})" * kept, ", int64[2] j" * kept
    )
    assert apply(PASS, model).rewritten == ["y"] * fires


def test_names_of_what_is_replaced_stay_and_make_nothing_smaller() -> None:
    name, long = "t" * 28, "y" * 60
    model = _computed_shape(f"{name} = Abs(k)  y = Reshape(x, {name})  j = Neg(y)", ", float[2,i] j")
    assert apply(PASS, model).rewritten == ["y"]
    next(v for node in model.graph for v in node.outputs if v.name == "y").name = long
    assert "bytes" in assert_untouched(PASS, model)[long]


NAME = "t" * 30
STAYS = {
    "an input with a default": (f"{NAME[:20]} = Add(k, o)  y = Reshape(x, {NAME[:20]})", "", "int64[2] k, int64[2] o"),
    "a weight that is an output": (f"{NAME[:20]} = Add(k, o)  y = Reshape(x, {NAME[:20]})", ", int64[2] o", "int64[2] k"),
    "a node with another output of the model": (f"{NAME}, u = Split<axis = 0>(k)  y = Reshape(x, {NAME})", ", int64[2] u", "int64[4] k"),
    "a node with another output that is used": (f"{NAME}, u = Split<axis = 0>(k)  y = Reshape(x, {NAME})  j = Neg(u)", ", int64[2] j", "int64[4] k"),
}  # fmt: skip


@pytest.mark.parametrize("case", STAYS)
def test_what_stays_makes_nothing_smaller(case: str) -> None:
    model = _computed_shape(*STAYS[case], **({"o": _ints(1, 2)} if "o)" in STAYS[case][0] else {}))
    assert "bytes" in assert_untouched(PASS, model)["y"]


def test_a_node_with_an_omitted_input_goes_with_the_others() -> None:
    model = _computed_shape(f"{NAME} = Clip(k, , one)  y = Reshape(x, {NAME})", one=np.array(1))
    assert op_types(apply(PASS, model).model) == ["Reshape", "Neg"]


def test_an_expand_of_unknown_rank() -> None:
    model = parse(EXPAND.replace("Shape(w)", "Abs(v)").replace("float[n,4] w", "float[n,4] w, int64[r] v"))
    y = next(v for node in model.graph for v in node.outputs if v.name == "y")
    y.shape = ir.Shape(["n", 4])
    assert assert_untouched(PASS, model) == {"y": "the Expand may add axes"}


def test_a_constant_may_be_the_output_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxscript.rewriter.pattern import RewriteRule

    zero = ir.tensor(np.zeros(1, np.float32))
    rule = RewriteRule(lambda op, x: op.Sub(x, x), lambda op, x: op.Constant(value=zero))
    monkeypatch.setattr(rewrite_with_onnxscript, "rules", lambda: [rule])
    model = parse("g (float[1] x) => (float[1] y) { a = Abs(x)  y = Sub(a, a) }")
    assert op_types(assert_equal_after(PASS, model).model) == ["Constant"]


EXPAND = (
    "g (float[1,4] x, float[n,4] w) => (float[n,4] z) { s = Shape(w)  e = Expand(x, s)  y = Add(e, w)  z = Neg(y) }"
)
REFUSED = {
    "the Expand adds an axis": (
        "g (float[4] x, float[4] w) => (float[1,4] z) { e = Expand(x, s)  y = Add(e, w)  z = Neg(y) }",
        {"s": _ints(1, 4)},
        "the Expand may add axes",
    ),
    "PRelu": (
        "g (float[1,4] x, float[3,4] w) => (float[3,4] z) { e = Expand(x, s)  y = PRelu(e, w)  z = Neg(y) }",
        {"s": _ints(3, 4)},
        "PRelu does not enlarge",
    ),
    "an attribute that the rule forgets": (
        "g (int64[1,4] x, int64[3,4] w) => (int64[3,4] z) { e = Expand(x, s)  y = Mod<fmod = 1>(e, w)  z = Neg(y) }",
        {"s": _ints(3, 4)},
        "forgets the attribute fmod",
    ),
    "ScatterND that adds": (
        'g (float[3,4] u) => (float[3,4] z) { y = ScatterND<reduction = "add">(d, i, u)  z = Neg(y) }',
        {"d": (3, 4), "i": EVERY_ROW},
        "reduction add",
    ),
    "a rule that raises while it looks": (
        "g (float[n,4] x, float[n,4] u) => (float[n,4] z) { y = ScatterND(x, i, u)  z = Neg(y) }",
        {"i": EVERY_ROW},
        "raised TypeError",
    ),
    "a rule that raises while it builds": (
        "g (int64[1] s) => (uint8[n] z) { a = ConstantOfShape<value = int64[1] {300}>(s)  y = Cast<to = 2>(a)  z = Identity(y) }",
        {},
        "raised OverflowError",
    ),
    "a 0 beside a -1": (
        "g (float[n,4] x, int64[1] k) => (float[0,m] z) { t = Concat<axis = 0>(none, k)  y = Reshape<allowzero = 1>(x, t)  z = Neg(y) }",
        {"none": _ints(0)},
        "what -1 is beside a dimension of 0",
    ),
    "an output whose declared shape nobody checks": (
        "g (float[n,4] x, int64[2] t) => (float[2,4] y) { s = Abs(t)  y = Reshape(x, s) }",
        {},
        "declared shape",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_and_says_why(name: str) -> None:
    text, weights, reason = REFUSED[name]
    skipped = assert_untouched(PASS, parse(text, weights))
    assert reason in "; ".join(skipped.values())


def test_an_opset_without_the_replacement() -> None:
    text = "g (float[4,2] x) => (float[4,2] z) { z = Gemm<transB = 1>(x, w, b) }"
    model = parse(text, opset=10, w=(2, 2), b=ZEROS)
    assert "Gemm of opset 10 does not take 2 inputs" in assert_untouched(PASS, model)["z"]
    assert apply(PASS, parse(text, opset=11, w=(2, 2), b=ZEROS)).rewritten == ["z"]


def test_dimensions_that_only_look_equal() -> None:
    assert apply(PASS, parse(EXPAND)).rewritten == ["y"]
    unnamed = parse(
        EXPAND.replace("s = Shape(w)", "s = Shape(v)").replace("float[n,4] w", "float[n,4] w, float[m,4] v")
    )
    for value in (*unnamed.graph.inputs, *(v for node in unnamed.graph for v in node.outputs)):
        if value.shape is not None and len(value.shape) == 2:
            value.shape = ir.Shape([d if isinstance(d, int) else None for d in value.shape])
    assert "not all dimensions" in assert_untouched(PASS, unnamed)["y"]


def test_a_symbol_in_a_loop_is_not_one_size() -> None:
    model = parse(
        """g (float[1,4] x, int64 n, bool on) => (float z) { z = Loop (n, on, x) <
        body = b (int64 i, bool c, float[k,4] w) => (bool d, float[k,4] t) {
        d = Identity(c)  s = Shape(w)  e = Expand(x, s)  y = Add(e, w)  t = Concat<axis=0>(y, y) }> }"""
    )
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.name == "e":
                value.shape = ir.Shape(["k", 4])
    skipped = assert_untouched(PASS, model)
    assert "y" in skipped and ("iteration" in skipped["y"] or "not all dimensions" in skipped["y"])


def test_works_in_bodies_but_not_across_them() -> None:
    text = """g (bool c, float[1,2,5] x) => (float z) {{ {outside}  z = If (c) <
        then_branch = t () => (float p) {{ {inside}  p = Abs(b) }}, else_branch = e () => (float q) {{ q = Neg(x) }}> }}"""
    weights = {"c1": (5,), "c2": (5,)}
    model = parse(text.format(outside="", inside="a = Min(x, c1)  b = Min(a, c2)"), weights)
    assert op_types(assert_equal_after(PASS, model).model) == ["If", "Min", "Abs", "Neg"]
    scatter = text.format(outside="", inside="u = Abs(x)  a = ScatterND(d, i, u)  b = Neg(a)")
    model = parse(scatter, d=(1, 2, 5), i=_ints(0)[None])
    assert op_types(assert_equal_after(PASS, model).model) == ["If", "Abs", "Neg", "Abs", "Neg"]
    reshaped = "a = Reshape(x, s1)  d = MatMul(a, w)  p = Reshape(d, s2)"
    model = parse(
        text.format(outside="", inside=reshaped).replace("  p = Abs(b)", ""),
        w=(5, 3),
        s1=_ints(2, 5),
        s2=_ints(1, 2, 3),
    )
    assert op_types(assert_equal_after(PASS, model).model) == ["If", "MatMul", "Neg"]
    model = parse(text.format(outside="a = Min(x, c1)", inside="b = Min(a, c2)"), weights)
    assert assert_untouched(PASS, model) == {}
    model = parse(text.format(outside="a = Expand(c0, s)", inside="b = Add(a, x)"), c0=(5,), s=_ints(1, 2, 5))
    assert assert_untouched(PASS, model) == {}


def test_a_weight_that_callers_may_override_is_no_constant() -> None:
    model = parse("g (float[1,2,5] x, float[2] b) => (float z) { z = Conv(x, w, b) }", w=(2, 2, 3), b=ZEROS)
    assert "'b' may be overridden" in assert_untouched(PASS, model)["z"]


def test_shared_values_and_outputs_stay() -> None:
    for extra in ("float a", "float v"):
        model = parse(
            f"g (float[2,4] x) => (float[2,4] z, {extra}) {{ a = Min(x, c1)  b = Min(a, c2)  z = Neg(b)  v = Abs(a) }}",
            c1=(4,),
            c2=(4,),
        )
        assert assert_untouched(PASS, model) == {}


def test_a_refused_replacement_leaves_no_trace() -> None:
    model = parse(REFUSED["PRelu"][0], REFUSED["PRelu"][1])
    before = {value.name: len(value.uses()) for value in model.graph.inputs}
    imports = dict(model.graph.opset_imports)
    context = Context()
    for found in PASS.sites(model, context):
        if found.match is not None:
            assert PASS.rewrite(found, context) is not None
    assert {value.name: len(value.uses()) for value in model.graph.inputs} == before
    assert dict(model.graph.opset_imports) == imports


def test_looking_changes_no_constant_node() -> None:
    model = parse(
        "g (float[1,4] x) => (float[1,4] y, float[2] k) { k = Constant<value = float[2] {1, 2}>()  y = Relu(x) }"
    )
    model.graph.outputs[1].shape = ir.Shape(["m"])
    before = model_bytes(model)
    assert list(RewriteRules(rules()).sites(model, Context())) == [] and model_bytes(model) == before


def test_every_rule_of_onnxscript_is_taken_or_left_out_for_a_reason() -> None:
    from onnxscript.rewriter.rules import common

    assert sorted((*TAKEN, *LEFT_OUT)) == sorted(common.__all__)
    assert all(rule._target_pattern.num_outputs == 1 for rule in rules())


def test_without_onnxscript(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    assert "irc-compiler[rules]" in assert_untouched(PASS, parse(EXPAND))["<model>"]


def test_listing_the_pass_does_not_import_onnxscript() -> None:
    code = (
        "import sys; from irc.registry import pass_class; pass_class('rewrite-with-onnxscript')();"
        "print([n for n in ('onnxscript', 'onnxsim', 'torch') if n in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_verified_by_the_manager() -> None:
    result = PassManager([PASS]).run(parse(*FIRES["two reshapes around MatMul"][:2]))
    assert result.ledger.passes[-1].rewritten and not result.ledger.passes[-1].undone


@pytest.mark.slow
def test_linear() -> None:
    def work(count: int) -> Callable[[], None]:
        steps = "  ".join(f"v{i + 1} = Min(v{i}, c{i % 7})" for i in range(count))
        weights = {f"c{i}": (4,) for i in range(7)}
        model = parse(f"g (float[2,4] x) => (float[2,4] y) {{ v0 = Abs(x)  {steps}  y = Neg(v{count}) }}", weights)

        def rewrite() -> None:
            assert len(op_types(apply(PASS, snapshot(model)).model)) == 3

        return rewrite

    assert_linear(work, 400, 1600)
