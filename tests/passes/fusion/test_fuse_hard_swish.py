"""fuse-hard-swish: every order of writing them, and what only looks like them."""

from __future__ import annotations

import numpy as np
import pytest
from fusion_kit import PlainTarget, constants, reasons
from pass_kit import apply, op_types, parse

from irc.passes.fusion import FuseHardSwish
from irc.testing import assert_conforms, assert_rewrites

PASS = FuseHardSwish()
HEAD = "g (float[n,4] x) => (float[n,4] y) {{ {} }}"
GATE = "a = Add(x, three) c = Clip(a, zero, six) "
HARD_SWISH = {
    "usual": GATE + "m = Mul(x, c) y = Div(m, six)",
    "multiplied by a sixth": GATE + "m = Mul(c, x) y = Mul(sixth, m)",
    "sixth first": GATE + "m = Mul(x, sixth) y = Mul(m, c)",
    "of HardSigmoid": "c = HardSigmoid<alpha=0.1666666716337204, beta=0.5>(x) y = Mul(c, x)",
    "of HardSigmoid with the default beta": "c = HardSigmoid<alpha=0.1666666716337204>(x) y = Mul(x, c)",
    "gate divided": GATE + "d = Div(c, six) y = Mul(d, x)",
}
HARD_SIGMOID = {
    "usual": (GATE + "y = Div(c, six)", "alpha=0.1666666716337204, beta=0.5"),
    "multiplied": (GATE + "y = Mul(sixth, c)", "alpha=0.1666666716337204, beta=0.5"),
    "other slope": (
        "s = Mul(x, half) a = Add(s, three) c = Clip(a, zero, two) y = Div(c, two)",
        "alpha=0.25, beta=1.5",
    ),
    "no offset to speak of": ("a = Sub(x, one) c = Clip(a, zero, two) y = Mul(c, half)", "alpha=0.5, beta=-0.5"),
}


@pytest.mark.parametrize("nodes", HARD_SWISH.values(), ids=HARD_SWISH)
def test_hard_swish(nodes: str) -> None:
    assert_rewrites(PASS, HEAD.format(nodes), HEAD.format("y = HardSwish(x)"), constants(nodes), opset=18)


@pytest.mark.parametrize("nodes, attributes", HARD_SIGMOID.values(), ids=HARD_SIGMOID)
def test_hard_sigmoid(nodes: str, attributes: str) -> None:
    model = parse(HEAD.format(nodes), constants(nodes), opset=18)
    outcome = apply(PASS, model)
    assert op_types(outcome.model) == ["HardSigmoid"]
    found = next(iter(outcome.model.graph)).attributes
    wanted = dict(pair.split("=") for pair in attributes.split(", "))
    assert {name: found[name].as_float() for name in found} == pytest.approx({n: float(v) for n, v in wanted.items()})
    assert_conforms(PASS, model, must_fire=True)


def test_a_factor_that_others_need_stays() -> None:
    nodes = HARD_SIGMOID["other slope"][0] + " z = Neg(s)"
    text = HEAD.format(nodes).replace("float[n,4] y)", "float[n,4] y, float[n,4] z)")
    assert op_types(apply(PASS, parse(text, constants(nodes), opset=18)).model) == ["Mul", "HardSigmoid", "Neg"]


def test_bounds_as_attributes_in_opset_10() -> None:
    nodes = "a = Add(x, three) c = Clip<min=0.0, max=6.0>(a) y = Div(c, six)"
    assert op_types(apply(PASS, parse(HEAD.format(nodes), constants(nodes), opset=10)).model) == ["HardSigmoid"]
    nodes = nodes.replace("min=0.0, ", "")
    assert reasons(PASS, HEAD.format(nodes), constants(nodes), opset=10) == []


LOOKALIKES = {
    "other offset": (GATE + "m = Mul(x, c) y = Div(m, six)").replace("three", "two"),
    "other bound": (GATE + "m = Mul(x, c) y = Div(m, six)").replace("zero, six", "zero, three"),
    "lower bound": (GATE + "m = Mul(x, c) y = Div(m, six)").replace("zero, six", "one, six"),
    "other divisor": GATE + "m = Mul(x, c) y = Div(m, three)",
    "gate over data": GATE + "m = Div(c, x) y = Div(m, six)",
    "gate of other data": "z = Neg(x) " + GATE.replace("Add(x", "Add(z") + "m = Mul(x, c) y = Div(m, six)",
    "squared gate": GATE + "m = Mul(c, c) y = Div(m, six)",
    "data squared": GATE + "s = Mul(x, x) m = Mul(s, c) y = Div(m, six)",
    "clip of the data itself": "c = Clip(x, zero, six) y = Div(c, six)",
    "clip of what is no sum": "s = Exp(x) c = Clip(s, zero, six) y = Div(c, six)",
    "clip of a polynomial": "s = Mul(x, x) q = Add(s, x) a = Add(q, three) c = Clip(a, zero, six) m = Mul(c, x) y = Div(m, six)",
    "HardSigmoid of another slope": "c = HardSigmoid(x) y = Mul(c, x)",
    "HardSigmoid of another middle": "c = HardSigmoid<alpha=0.1666666716337204, beta=0.4>(x) y = Mul(c, x)",
    "HardSigmoid of other data": "z = Neg(x) c = HardSigmoid<alpha=0.1666666716337204>(z) y = Mul(c, x)",
    "HardSigmoid plus data": "c = HardSigmoid<alpha=0.1666666716337204>(x) y = Add(c, x)",
    "no lower bound": (GATE + "m = Mul(x, c) y = Div(m, six)").replace("zero, six", ", six"),
    "fed bound": (GATE + "m = Mul(x, c) y = Div(m, six)").replace("zero, six", "fed, six"),
}


@pytest.mark.parametrize("nodes", LOOKALIKES.values(), ids=LOOKALIKES)
def test_lookalikes(nodes: str) -> None:
    text = HEAD.format(nodes).replace("x)", "x, float fed)", 1) if "fed" in nodes else HEAD.format(nodes)
    assert reasons(PASS, text, constants(nodes), opset=18) == []


@pytest.mark.parametrize("value", ["a", "c", "m"])
def test_what_is_inside_may_not_be_needed_elsewhere(value: str) -> None:
    nodes = HARD_SWISH["usual"] + f" z = Neg({value})"
    text = HEAD.format(nodes).replace("float[n,4] y)", "float[n,4] y, float[n,4] z)")
    assert any("other users" in r for r in reasons(PASS, text, constants(nodes), opset=18))


def test_hard_swish_needs_the_opset_and_the_target() -> None:
    nodes = HARD_SWISH["usual"]
    assert reasons(PASS, HEAD.format(nodes), constants(nodes), opset=13) == [
        "opset 13 has no such HardSwish; it came with 14"
    ]
    assert "plain has no" in reasons(PASS, HEAD.format(nodes), constants(nodes), opset=14, target=PlainTarget())[0]
    text = "g (double[n,4] x) => (double[n,4] y) {{ {} }}"
    assert "of DOUBLE" in reasons(PASS, text.format(nodes), constants(nodes, np.float64), opset=14)[0]
