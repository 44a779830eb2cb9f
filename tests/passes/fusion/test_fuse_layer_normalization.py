"""fuse-layer-normalization: every spelling, and what only looks like it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from fusion_kit import PlainTarget, constants, reasons
from pass_kit import apply, assert_equal_after, assert_untouched, op_types, parse

from irc.backends.tensorrt import TensorRtTarget
from irc.passes.fusion import FuseLayerNormalization
from irc.testing import assert_conforms, assert_rewrites

PASS = FuseLayerNormalization()
HEAD = "g (float[n,3,4] x) => (float[n,3,4] y) {{ {} }}"
MEAN = "m = ReduceMean(x, last) d = Sub(x, m) "
ROOT = "p = Pow(d, two) v = ReduceMean(p, last) e = Add(v, eps) s = Sqrt(e) "
END = "q = Div(d, s) w = Mul(q, scale) y = Add(w, bias)"
WEIGHTS = {"scale": (4,), "bias": (4,)}
FUSED = HEAD.format("y = LayerNormalization<epsilon=0.000001>(x, scale, bias)")

SPELLINGS = {
    "usual": MEAN + ROOT + END,
    "other orders": MEAN + ROOT.replace("v, eps", "eps, v") + "q = Div(d, s) w = Mul(scale, q) y = Add(bias, w)",
    "square by Mul": MEAN + ROOT.replace("Pow(d, two)", "Mul(d, d)") + END,
    "root by Pow": MEAN + ROOT.replace("Sqrt(e)", "Pow(e, half)") + END,
    "reciprocal": MEAN + ROOT + "r = Reciprocal(s) " + END.replace("Div(d, s)", "Mul(r, d)"),
    "one over": MEAN + ROOT + "r = Div(one, s) " + END.replace("Div(d, s)", "Mul(d, r)"),
    "inverse root by Pow": MEAN + ROOT.replace("Sqrt(e)", "Pow(e, minus_half)") + END.replace("Div(d, s)", "Mul(d, s)"),
    "two differences": MEAN + "f = Sub(x, m) " + ROOT.replace("Pow(d", "Pow(f") + END,
    "two means": MEAN + "o = ReduceMean(x, last) f = Sub(x, o) " + ROOT.replace("Pow(d", "Pow(f") + END,
    "scalars with axes": MEAN + ROOT.replace("eps", "eps_1d").replace("two", "two_1d") + END,
}


@pytest.mark.parametrize("nodes", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(nodes: str) -> None:
    assert_rewrites(PASS, HEAD.format(nodes), FUSED, constants(nodes, **WEIGHTS), opset=18)


def test_axes_as_attribute_and_the_default_epsilon() -> None:
    nodes = (MEAN + ROOT + END).replace("(x, last)", "<axes=[2]>(x)").replace("(p, last)", "<axes=[-1]>(p)")
    weights = {**constants(nodes, **WEIGHTS), "eps": np.array(1e-5, np.float32)}
    assert_rewrites(PASS, HEAD.format(nodes), FUSED.replace("<epsilon=0.000001>", ""), weights, opset=17)


def test_several_axes() -> None:
    nodes = (MEAN + ROOT + END).replace("last", "last_two")
    fused = FUSED.replace("epsilon", "axis=-2, epsilon")
    assert_rewrites(PASS, HEAD.format(nodes), fused, constants(nodes, scale=(3, 4), bias=(3, 4)), opset=18)


def test_all_axes_are_meant_by_none() -> None:
    nodes = (MEAN + ROOT + END).replace("(x, last)", "(x)").replace("(p, last)", "(p)")
    text = "g (float[3,4] x) => (float[3,4] y) {{ {} }}"
    fused = text.format("y = LayerNormalization<axis=-2, epsilon=0.000001>(x, scale, bias)")
    assert_rewrites(PASS, text.format(nodes), fused, constants(nodes, scale=(3, 4), bias=(3, 4)), opset=18)
    kept = nodes.replace("ReduceMean(x)", "ReduceMean<noop_with_empty_axes=1>(x)")
    assert reasons(PASS, text.format(kept), constants(kept, scale=(3, 4), bias=(3, 4)), opset=18) == []


def test_without_bias() -> None:
    nodes = MEAN + ROOT + "q = Div(d, s) y = Mul(q, scale)"
    fused = HEAD.format("y = LayerNormalization<epsilon=0.000001>(x, scale)")
    assert_rewrites(PASS, HEAD.format(nodes), fused, constants(nodes, **WEIGHTS), opset=18)


@pytest.mark.parametrize("end", ["y = Div(d, s)", "r = Reciprocal(s) y = Mul(d, r)"])
def test_without_scale(end: str) -> None:
    nodes = MEAN + ROOT + end
    fused = HEAD.format(
        "o = ConstantOfShape<value=float[1]{{1}}>(dims) y = LayerNormalization<epsilon=0.000001>(x, o)".replace(
            "{{", "{"
        ).replace("}}", "}")
    )
    assert_rewrites(PASS, HEAD.format(nodes), fused, constants(nodes), opset=18)


def test_without_scale_it_does_not_make_the_model_larger() -> None:
    """Constants that others use do not go, but nodes do."""
    nodes = MEAN + ROOT + "y = Div(d, s)"
    model = parse(HEAD.format(nodes), constants(nodes), opset=18)
    outcome = apply(PASS, model)
    sizes = [ir.to_proto(m).ByteSize() for m in (model, outcome.model)]
    assert outcome.rewritten == ["y"] and sizes[1] <= sizes[0]


def test_a_residual_sum_is_no_bias_and_a_gate_no_scale() -> None:
    text = "g (float[n,3,4] x, float[n,3,4] z) => (float[n,3,4] y) {{ {} }}"
    nodes = MEAN + ROOT + "q = Div(d, s) w = Mul(q, scale) y = Add(w, z)"
    fused = "w = LayerNormalization<epsilon=0.000001>(x, scale) y = Add(w, z)"
    assert_rewrites(PASS, text.format(nodes), text.format(fused), constants(nodes, **WEIGHTS), opset=18)
    nodes = MEAN + ROOT + "q = Div(d, s) y = Mul(q, z)"
    outcome = apply(PASS, parse(text.format(nodes), constants(nodes), opset=18))
    assert op_types(outcome.model) == ["ConstantOfShape", "LayerNormalization", "Mul"]


@pytest.mark.parametrize("shape", [(1,), (3, 4), (3, 1), ()])
def test_other_shapes_are_no_bias(shape: tuple[int, ...]) -> None:
    nodes = MEAN + ROOT + END
    outcome = apply(PASS, parse(HEAD.format(nodes), constants(nodes, scale=(4,), bias=shape), opset=18))
    assert op_types(outcome.model) == ["LayerNormalization", "Add"]


@pytest.mark.parametrize("shape", [(1,), (3, 4), (3, 1), ()])
def test_other_shapes_are_no_scale(shape: tuple[int, ...]) -> None:
    nodes = MEAN + ROOT + END
    outcome = apply(PASS, parse(HEAD.format(nodes), constants(nodes, scale=shape, bias=(4,)), opset=18))
    assert op_types(outcome.model) == ["ConstantOfShape", "LayerNormalization", "Mul", "Add"]


@pytest.mark.parametrize("head", ["float[n,3,?] x, float[?] scale", "float[n,3,k] x, float[j] scale"])
def test_a_scale_of_another_size_as_far_as_known_is_none(head: str) -> None:
    text = f"g ({head}) => (float[n,3,k] y) {{{{ {{}} }}}}"
    nodes = MEAN + ROOT + "q = Div(d, s) y = Mul(q, scale)"
    assert all("not known" in r for r in reasons(PASS, text.format(nodes), constants(nodes), opset=18))


def test_a_scale_with_more_axes_than_the_data_is_none() -> None:
    nodes = MEAN + ROOT + "q = Div(d, s) y = Mul(q, scale)"
    text = HEAD.format(nodes).replace("(float[n,3,4] y)", "(float[1,n,3,4] y)")
    outcome = assert_equal_after(PASS, parse(text, constants(nodes, scale=(1, 1, 1, 4)), opset=18), rtol=1e-5)
    assert op_types(outcome.model) == ["ConstantOfShape", "LayerNormalization", "Mul"]


def test_nothing_is_normalized_as_it_was() -> None:
    """ONNX Runtime refuses to normalize an axis of size 0, and averages it."""
    nodes = SPELLINGS["usual"]
    text = "g (float[3,0] x) => (float[3,0] y) {{ {} }}"
    said = reasons(PASS, text.format(nodes), constants(nodes, scale=(0,), bias=(0,)), opset=18)
    assert said and all("size is 0" in reason for reason in said)


@pytest.mark.parametrize("end", ["y = Div(d, s)", "q = Div(d, s) y = Mul(q, scale)"])
def test_the_rank_of_the_data_must_be_known(end: str) -> None:
    """That of the first factor is no more than a guess."""
    head = "g (float[4] a, float[1,4] b, int64[k] dims) => (float[1,4] y) <float[1,4] d>"
    text = head + " {{ t = Reshape(b, dims) x = Mul(a, t) {} }}"
    nodes = MEAN + ROOT + end
    said = reasons(PASS, text.format(nodes), constants(nodes, scale=(4,)), opset=18)
    assert len(said) == 1 and "not known" in said[0]


def test_the_type_of_the_data_must_be_known() -> None:
    nodes = MEAN + ROOT + "y = Div(d, s)"
    text = f"g (float[3,4] a) => (float[3,4] y) <float[3,4] x> {{ x = custom.Draw(a) {nodes} }}"
    model = parse(text, constants(nodes), opset=18)
    model.graph.node(0).outputs[0].dtype = ir.DataType.UNDEFINED
    assert "type is not known" in assert_untouched(PASS, model)["y"]


def test_a_scale_of_unknown_rank_is_none() -> None:
    text = "g (float[n,3,4] x, float[4] t, int64[k] dims) => (float[i,j,k] y) {{ scale = Reshape(t, dims) {} }}"
    nodes = MEAN + ROOT + "q = Div(d, s) y = Mul(q, scale)"
    outcome = apply(PASS, parse(text.format(nodes), constants(nodes), opset=18))
    assert op_types(outcome.model) == ["Reshape", "ConstantOfShape", "LayerNormalization", "Mul"]


def test_a_scale_that_enlarges_the_data_is_none() -> None:
    text = "g (float[n,1] x) => (float[n,4] y) {{ {} }}"
    nodes = MEAN + ROOT + END
    outcome = apply(PASS, parse(text.format(nodes), constants(nodes, **WEIGHTS), opset=18))
    assert op_types(outcome.model) == ["ConstantOfShape", "LayerNormalization", "Mul", "Add"]


def test_ones_in_front_of_the_scale_go() -> None:
    nodes = MEAN + ROOT + END
    fused = FUSED.replace("scale, bias", "row, other_row")
    weights = constants(nodes, scale=(1, 1, 4), bias=(1, 4))
    assert_rewrites(PASS, HEAD.format(nodes), fused, weights, opset=18)


def test_ones_in_front_of_a_shared_or_computed_scale_stay() -> None:
    nodes = MEAN + ROOT + "q = Div(d, s) w = Mul(q, scale) y = Add(w, scale)"
    outcome = apply(PASS, parse(HEAD.format(nodes), constants(nodes, scale=(1, 1, 4)), opset=18))
    assert "Mul" in op_types(outcome.model)
    text = "g (float[n,3,4] x, float[1,1,4] scale) => (float[n,3,4] y) {{ {} }}"
    outcome = apply(PASS, parse(text.format(nodes), constants(nodes), opset=18))
    assert "Mul" in op_types(outcome.model)
    text = HEAD.format(MEAN + ROOT + "q = Div(d, s) y = Mul(q, scale)").replace("y)", "y, float[1,1,4] scale)", 1)
    outcome = assert_equal_after(PASS, parse(text, constants(text, scale=(1, 1, 4)), opset=18), rtol=1e-5)
    assert "Mul" in op_types(outcome.model)


def test_a_scale_that_is_no_constant() -> None:
    text = "g (float[n,3,4] x, float[4] scale, float[4] bias) => (float[n,3,4] y) {{ {} }}"
    nodes = MEAN + ROOT + END
    fused = "y = LayerNormalization<epsilon=0.000001>(x, scale, bias)"
    assert_rewrites(PASS, text.format(nodes), text.format(fused), constants(nodes), opset=18)


@pytest.mark.parametrize("scaled_in", ["half", "float"])
def test_casts_around_it(scaled_in: str) -> None:
    text = "g (float16[n,3,4] x) => (float16[n,3,4] y) {{ {} }}"
    inner = (MEAN.replace("x", "h") + ROOT).replace("h, ", "h, ") + "q = Div(d, s) "
    if scaled_in == "half":
        nodes = "h = Cast<to=1>(x) " + inner + "t = Cast<to=10>(q) w = Mul(t, scale) y = Add(w, bias)"
        fused, dtype = "y = LayerNormalization<epsilon=0.000001>(x, scale, bias)", np.float16
    else:
        nodes = "h = Cast<to=1>(x) " + inner + "w = Mul(q, scale) t = Add(w, bias) y = Cast<to=10>(t)"
        fused = "h = Cast<to=1>(x) t = LayerNormalization<epsilon=0.000001>(h, scale, bias) y = Cast<to=10>(t)"
        dtype = np.float32
    weights = {**constants(nodes), "scale": np.arange(4, dtype=dtype), "bias": np.ones(4, dtype)}
    assert_rewrites(PASS, text.format(nodes), text.format(fused), weights, opset=18)


def test_casts_without_scale_end_in_the_cast() -> None:
    text = "g (float16[n,3,4] x) => (float16[n,3,4] y) {{ {} }}"
    nodes = "h = Cast<to=1>(x) " + MEAN.replace("x", "h") + ROOT + "q = Div(d, s) y = Cast<to=10>(q)"
    outcome = apply(PASS, parse(text.format(nodes), constants(nodes), opset=18))
    assert op_types(outcome.model) == ["ConstantOfShape", "LayerNormalization"] and outcome.rewritten == ["y"]


def test_a_cast_of_float_data_stays() -> None:
    text = "g (float[n,3,4] x) => (float16[n,3,4] y) {{ {} }}"
    nodes = MEAN + ROOT + "q = Div(d, s) t = Cast<to=10>(q) y = Mul(t, scale)"
    weights = {**constants(nodes), "scale": np.ones(4, np.float16)}
    outcome = apply(PASS, parse(text.format(nodes), weights, opset=18))
    assert op_types(outcome.model) == ["ConstantOfShape", "LayerNormalization", "Cast", "Mul"]


@pytest.mark.parametrize("before, inside, behind", [(10, 1, 16), (10, 1, 11), (6, 1, 6), (10, 11, 10), (11, 1, 11)])
def test_other_casts_stay(before: int, inside: int, behind: int) -> None:
    names = {1: "float", 6: "int32", 10: "float16", 11: "double", 16: "bfloat16"}
    dtype = {1: np.float32, 11: np.float64}[inside]
    nodes = MEAN.replace("x", "h") + ROOT + f"q = Div(d, s) y = Cast<to={behind}>(q)"
    text = f"g ({names[before]}[n,3,4] x) => ({names[behind]}[n,3,4] y) {{ h = Cast<to={inside}>(x) {nodes} }}"
    weights = {**constants(nodes, dtype), "eps": np.array(2.0**-17, dtype)}
    outcome = apply(PASS, parse(text, weights, opset=18))
    assert op_types(outcome.model) == ["Cast", "ConstantOfShape", "LayerNormalization", "Cast"]


def test_double_keeps_its_precision() -> None:
    text = "g (double[n,3,4] x) => (double[n,3,4] y) {{ {} }}"
    nodes = MEAN + ROOT + END
    weights = {name: np.array(value, np.float64) for name, value in constants(nodes).items() if name != "last"}
    weights |= {"last": np.array([-1]), "scale": np.arange(4.0), "bias": np.ones(4), "eps": np.array(2.0**-17)}
    fused = text.format("y = LayerNormalization<epsilon=7.62939453125e-06, stash_type=11>(x, scale, bias)")
    assert_rewrites(PASS, text.format(nodes), fused, weights, opset=18)
    near = float(np.nextafter(np.float32(1e-5), np.float32(1)))
    weights["eps"] = np.array(near)
    outcome = apply(PASS, parse(text.format(nodes), weights, opset=18))
    assert outcome.model.graph.node(-1).attributes.get_float("epsilon", 1e-5) == near
    weights["eps"] = np.array(1e-5)
    assert any("float32 number" in reason for reason in reasons(PASS, text.format(nodes), weights, opset=18))


LOOKALIKES = {
    "mean minus data": SPELLINGS["usual"].replace("Sub(x, m)", "Sub(m, x)"),
    "cubed": SPELLINGS["usual"].replace("Pow(d, two)", "Pow(d, three)"),
    "squared is something else": SPELLINGS["usual"].replace("Pow(d, two)", "Pow(x, two)"),
    "variance of other data": "z = Exp(x) o = ReduceMean(z, last) f = Sub(z, o) "
    + SPELLINGS["usual"].replace("Pow(d, two)", "Pow(f, two)"),
    "product of two": SPELLINGS["usual"].replace("Pow(d, two)", "Mul(d, x)"),
    "another exponent": SPELLINGS["usual"].replace("Sqrt(e)", "Pow(e, wrong)"),
    "root where an inverse root belongs": SPELLINGS["usual"].replace("Div(d, s)", "Mul(d, s)"),
    "inverse root divides": SPELLINGS["inverse root by Pow"].replace("Mul(d, s)", "Div(d, s)"),
    "two over the root": SPELLINGS["one over"].replace("Div(one", "Div(two"),
    "root over data": SPELLINGS["usual"].replace("Div(d, s)", "Div(s, d)"),
    "negative epsilon": SPELLINGS["usual"].replace("eps", "negative"),
    "epsilon subtracted": SPELLINGS["usual"].replace("Add(v, eps)", "Sub(v, eps)"),
    "epsilon is no scalar": SPELLINGS["usual"].replace("Add(v, eps)", "Add(v, bias)"),
    "epsilon enlarges": SPELLINGS["usual"].replace("eps", "eps_4d").replace("y =", "z =") + " y = Squeeze(z, first)",
    "epsilon is fed": SPELLINGS["usual"].replace("eps", "fed"),
    "middle axis": SPELLINGS["usual"].replace("last", "middle"),
    "leading axes": SPELLINGS["usual"].replace("last", "both"),
    "axes are fed": SPELLINGS["usual"].replace("last", "given"),
    "mean over other axes": SPELLINGS["usual"].replace("(x, last)", "(x, last_two)"),
    "variance over other axes": SPELLINGS["usual"].replace("(p, last)", "(p, last_two)"),
    "maximum": SPELLINGS["usual"].replace("ReduceMean(x", "ReduceMax(x"),
    "sum": SPELLINGS["usual"].replace("ReduceMean(p", "ReduceSum(p"),
    "mean of other data": SPELLINGS["usual"].replace("ReduceMean(x", "ReduceMean(other"),
    "foreign operator": SPELLINGS["usual"].replace("Sqrt(e)", "custom.Sqrt(e)"),
}


@pytest.mark.parametrize("nodes", LOOKALIKES.values(), ids=LOOKALIKES)
def test_lookalikes(nodes: str) -> None:
    inputs = "float[n,3,4] x"
    for name, type_ in (("fed", "float"), ("given", "int64[1]"), ("other", "float[n,3,4]")):
        inputs += f", {type_} {name}" if name in nodes else ""
    text = f"g ({inputs}) => (float[n,3,4] y) {{ {nodes} }}"
    model = parse(text, constants(nodes, **WEIGHTS), opset=18)
    assert "LayerNormalization" not in op_types(apply(PASS, model).model)


def test_axes_that_are_dropped() -> None:
    text = "g (float[4,4] x) => (float[4,4] y) {{ {} }}"
    nodes = SPELLINGS["usual"]
    for reduction in ("(x, last)", "(p, last)"):
        kept = nodes.replace(f"ReduceMean{reduction}", f"ReduceMean<keepdims=0>{reduction}")
        assert reasons(PASS, text.format(kept), constants(kept, **WEIGHTS), opset=18) == []


def test_the_size_of_the_last_axis_must_be_known() -> None:
    text = "g (float[n,k] x) => (float[n,k] y) {{ {} }}"
    nodes = SPELLINGS["usual"]
    assert all("not known" in r for r in reasons(PASS, text.format(nodes), constants(nodes, **WEIGHTS), opset=18))


@pytest.mark.parametrize("value", ["m", "d", "p", "v", "e", "s"])
def test_what_is_inside_may_not_be_needed_elsewhere(value: str) -> None:
    nodes = SPELLINGS["usual"]
    text = HEAD.format(nodes).replace(
        "float[n,3,4] y)", f"float[n,3,4] y, float[n,3,{4 if value in 'dp' else 1}] {value})"
    )
    assert any("other users" in r for r in reasons(PASS, text, constants(nodes, **WEIGHTS), opset=18))
    used = f"{nodes} z = Neg({value}) "
    text = HEAD.format(used).replace("float[n,3,4] y)", f"float[n,3,4] y, float[n,3,{4 if value in 'dp' else 1}] z)")
    assert any("other users" in r for r in reasons(PASS, text, constants(used, **WEIGHTS), opset=18))


def test_what_follows_may_be_needed_elsewhere() -> None:
    text = "g (float[n,3,4] x) => (float[n,3,4] y, float[n,3,4] w) {{ {} }}"
    nodes = SPELLINGS["usual"]
    fused = "w = LayerNormalization<epsilon=0.000001>(x, scale) y = Add(w, bias)"
    model = parse(text.format(nodes), constants(nodes, **WEIGHTS), opset=18)
    outcome = assert_equal_after(PASS, model, rtol=1e-5, symbols=(1, 3))
    assert op_types(outcome.model) == op_types(parse(text.format(fused), WEIGHTS, opset=18))


@pytest.mark.parametrize(
    "nodes, after",
    [
        ("w = Mul(q, scale) z = Neg(q) y = Add(w, z)", ["Mul", "Neg", "Add"]),
        ("y = custom.Mul(q, scale)", ["Mul"]),
        ("y = Sigmoid(x)", ["Sigmoid"]),
    ],
    ids=["another user", "foreign operator", "no user"],
)
def test_what_has_no_scale_behind_it_alone_gets_one(nodes: str, after: list[str]) -> None:
    nodes = f"{MEAN}{ROOT}q = Div(d, s) {nodes}"
    outcome = apply(PASS, parse(HEAD.format(nodes), constants(nodes, **WEIGHTS), opset=18))
    assert op_types(outcome.model) == ["ConstantOfShape", "LayerNormalization", *after]


def test_needs_the_opset() -> None:
    nodes = (MEAN + ROOT + END).replace("(x, last)", "<axes=[2]>(x)").replace("(p, last)", "<axes=[-1]>(p)")
    reason = "opset 16 has no such LayerNormalization; it came with 17"
    assert reasons(PASS, HEAD.format(nodes), constants(nodes, **WEIGHTS), opset=16) == [reason]


def test_needs_a_target_that_has_it() -> None:
    nodes = SPELLINGS["usual"]
    weights = constants(nodes, **WEIGHTS)
    said = reasons(PASS, HEAD.format(nodes), weights, opset=18, target=PlainTarget())
    assert said == ["plain has no LayerNormalization of FLOAT that is as fast as what it stands for"]
    assert reasons(PASS, HEAD.format(nodes), weights, opset=21, target=TensorRtTarget()) != []


BODY = """g (bool c, float[3,4] x) => (float[3,4] y) {{ {outer} y = If (c) <
    then_branch = t () => (float[3,4] p1) {{ {inner} p1 = Identity(y1) }}, else_branch = f () => (float[3,4] q1) {{ q1 = Neg({other}) }}> }}"""


def test_inside_a_body_with_what_it_captures() -> None:
    inner = SPELLINGS["usual"].replace("y =", "y1 =")
    model = parse(BODY.format(outer="", inner=inner, other="x"), constants(inner, **WEIGHTS), opset=18)
    assert_conforms(PASS, model, must_fire=True)
    assert "LayerNormalization" in op_types(apply(PASS, model).model)


def test_not_across_the_border_of_a_body() -> None:
    inner = (ROOT + END).replace("y =", "y1 =")
    model = parse(BODY.format(outer=MEAN, inner=inner, other="x"), constants(MEAN + inner, **WEIGHTS), opset=18)
    outcome = apply(PASS, model)
    assert outcome.rewritten == [] and "its Sub is in another graph" in outcome.skipped.values()


def test_a_scale_in_a_body_is_not_waited_for() -> None:
    outer, inner = MEAN + ROOT + "q = Div(d, s)", "w = Mul(q, scale) y1 = Add(w, bias)"
    model = parse(BODY.format(outer=outer, inner=inner, other="x"), constants(outer + " " + inner, **WEIGHTS), opset=18)
    assert op_types(apply(PASS, model).model)[:2] == ["ConstantOfShape", "LayerNormalization"]
