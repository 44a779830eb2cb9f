"""fuse-gelu: every order of writing it, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from fusion_kit import PlainTarget, constants, reasons
from pass_kit import apply, op_types, parse

from irc.backends.tensorrt import TensorRtTarget
from irc.passes.fusion import FuseGelu
from irc.testing import assert_rewrites

PASS = FuseGelu()
HEAD = "g (float[n,4] x) => (float[n,4] y) {{ {} }}"
ERF = "a = Div(x, root2) t = Erf(a) b = Add(t, one) "
ERF_SPELLINGS = {
    "torch": ERF + "c = Mul(x, b) y = Mul(c, half)",
    "half first": ERF + "h = Mul(x, half) y = Mul(h, b)",
    "half in the middle": ERF + "h = Mul(half, b) y = Mul(h, x)",
    "divided by two": ERF + "c = Mul(b, x) y = Div(c, two)",
    "argument multiplied": ERF.replace("Div(x, root2)", "Mul(inverse_root2, x)").replace("Add(t, one)", "Add(one, t)") + "c = Mul(x, b) y = Mul(c, half)",
    "distributed": "a = Div(x, root2) t = Erf(a) h = Mul(x, half) i = Mul(h, t) y = Add(h, i)",
    "halved inside": "a = Div(x, root2) t = Erf(a) b = Mul(t, half) c = Add(b, half) y = Mul(x, c)",
    "scalars with an axis": ERF.replace("one", "one_1d") + "c = Mul(x, b) y = Mul(c, half_1d)",
}  # fmt: skip
TANH = "t = Tanh(a) b = Add(t, one) h = Mul(x, half) y = Mul(h, b)"
TANH_SPELLINGS = {
    "power": "p = Pow(x, three) q = Mul(p, c) s = Add(x, q) a = Mul(s, k) " + TANH,
    "products": "p = Mul(x, x) r = Mul(p, x) q = Mul(c, r) s = Add(q, x) a = Mul(k, s) " + TANH,
    "factored": "p = Mul(x, c) r = Mul(p, x) s = Add(r, one) u = Mul(x, k) a = Mul(u, s) " + TANH,
    "expanded": "p = Pow(x, three) q = Mul(p, kc) u = Mul(x, k) a = Add(u, q) " + TANH,
}


@pytest.mark.parametrize("nodes", ERF_SPELLINGS.values(), ids=ERF_SPELLINGS)
def test_exact_spellings(nodes: str) -> None:
    assert_rewrites(PASS, HEAD.format(nodes), HEAD.format("y = Gelu(x)"), constants(nodes), opset=20)


@pytest.mark.parametrize("nodes", TANH_SPELLINGS.values(), ids=TANH_SPELLINGS)
def test_tanh_spellings(nodes: str) -> None:
    fused = HEAD.format('y = Gelu<approximate="tanh">(x)')
    assert_rewrites(PASS, HEAD.format(nodes), fused, constants(nodes), opset=20)


def test_of_a_product_it_stops_there() -> None:
    nodes = "w = Mul(x, x) " + ERF_SPELLINGS["torch"].replace("x", "w")
    nodes = nodes.replace("w = Mul(w, w)", "w = Mul(x, x)")
    assert_rewrites(PASS, HEAD.format(nodes), HEAD.format("w = Mul(x, x) y = Gelu(w)"), constants(nodes), opset=20)


def test_half_precision() -> None:
    text = "g (float16[n,4] x) => (float16[n,4] y) {{ {} }}"
    nodes = ERF_SPELLINGS["torch"]
    assert_rewrites(PASS, text.format(nodes), text.format("y = Gelu(x)"), constants(nodes, np.float16), opset=20)
    nodes = TANH_SPELLINGS["power"]
    assert "as fast as" in reasons(PASS, text.format(nodes), constants(nodes, np.float16), opset=20)[0]
    assert reasons(PASS, text.format(nodes), constants(nodes, np.float16), opset=20) != []


LOOKALIKES = {
    "no half": ERF + "y = Mul(x, b)",
    "another factor": ERF + "c = Mul(x, b) y = Mul(c, wrong)",
    "another argument": ERF.replace("root2", "two") + "c = Mul(x, b) y = Mul(c, half)",
    "two instead of one": ERF.replace("one", "two") + "c = Mul(x, b) y = Mul(c, half)",
    "one minus": ERF.replace("Add(t, one)", "Sub(one, t)") + "c = Mul(x, b) y = Mul(c, half)",
    "argument over data": ERF.replace("Div(x, root2)", "Div(root2, x)") + "c = Mul(x, b) y = Mul(c, half)",
    "erf of something else": "z = Neg(x) " + ERF.replace("Div(x", "Div(z") + "c = Mul(x, b) y = Mul(c, half)",
    "twice the data": ERF + "d = Mul(x, x) c = Mul(d, b) y = Mul(c, half)",
    "tanh without the cube": "a = Mul(x, k) " + TANH,
    "tanh of a square": TANH_SPELLINGS["power"].replace("three", "two"),
    "tanh with the argument of erf": ERF.replace("Erf", "Tanh") + "c = Mul(x, b) y = Mul(c, half)",
    "erf with the argument of tanh": TANH_SPELLINGS["power"].replace("Tanh", "Erf"),
    "another coefficient": TANH_SPELLINGS["power"].replace("(p, c)", "(p, wrong)"),
    "vector of halves": ERF + "c = Mul(x, b) y = Mul(c, halves)",
    "fed half": ERF + "c = Mul(x, b) y = Mul(c, fed)",
    "a constant that enlarges": ERF.replace("one", "one_4d") + "c = Mul(x, b) d = Mul(c, half) y = Squeeze(d, both)",
}


@pytest.mark.parametrize("nodes", LOOKALIKES.values(), ids=LOOKALIKES)
def test_lookalikes(nodes: str) -> None:
    text = HEAD.format(nodes).replace("x)", "x, float fed)", 1) if "fed" in nodes else HEAD.format(nodes)
    assert reasons(PASS, text, constants(nodes, halves=np.full(4, 0.5, np.float32)), opset=20) == []


def test_constants_are_compared_to_their_precision() -> None:
    nodes = ERF_SPELLINGS["torch"]
    weights = constants(nodes)
    weights["root2"] = np.nextafter(weights["root2"], np.float32(2))
    assert_rewrites(PASS, HEAD.format(nodes), HEAD.format("y = Gelu(x)"), weights, opset=20)
    weights["root2"] = np.array(1.41422, np.float32)
    assert reasons(PASS, HEAD.format(nodes), weights, opset=20) == []


@pytest.mark.parametrize("value", ["a", "t", "b", "c"])
def test_what_is_inside_may_not_be_needed_elsewhere(value: str) -> None:
    nodes = ERF_SPELLINGS["torch"] + f" z = Neg({value})"
    text = HEAD.format(nodes).replace("float[n,4] y)", "float[n,4] y, float[n,4] z)")
    assert any("other users" in r for r in reasons(PASS, text, constants(nodes), opset=20))


def test_a_number_that_callers_may_override_is_no_constant() -> None:
    nodes = ERF_SPELLINGS["torch"]
    text = HEAD.format(nodes).replace("x)", "x, float half)", 1)
    assert reasons(PASS, text, constants(nodes), opset=20) == []


def test_needs_the_opset_and_the_target() -> None:
    nodes = ERF_SPELLINGS["torch"]
    said = reasons(PASS, HEAD.format(nodes), constants(nodes), opset=19)
    assert said == ["opset 19 has no such Gelu; it came with 20"]
    assert "plain has no Gelu" in reasons(PASS, HEAD.format(nodes), constants(nodes), opset=20, target=PlainTarget())[0]
    text = "g (double[n,4] x) => (double[n,4] y) {{ {} }}"
    for target in (None, TensorRtTarget()):
        assert (
            "has no Gelu of DOUBLE"
            in reasons(PASS, text.format(nodes), constants(nodes, np.float64), opset=20, target=target)[0]
        )


def test_inside_a_body_where_the_rest_of_the_model_is_outside() -> None:
    inner = ERF_SPELLINGS["torch"].replace("y =", "y1 =")
    text = f"""g (float[n,4] x) => (float[n,4] y) {{ y = If (yes) <then_branch = t () => (float[n,4] p1) {{ {inner} p1 = Identity(y1) }},
        else_branch = f () => (float[n,4] q1) {{ q1 = Neg(x) }}> }}"""
    outcome = apply(PASS, parse(text, {**constants(inner), "yes": np.array(True)}, opset=20))
    assert "Gelu" in op_types(outcome.model) and "Erf" not in op_types(outcome.model)
