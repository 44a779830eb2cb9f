"""fuse-mish: both orders of writing it, and what only looks like it."""

from __future__ import annotations

import pytest
from fusion_kit import PlainTarget, reasons

from irc.passes.fusion import FuseMish
from irc.testing import assert_rewrites

HEAD = "g (float[n,4] x) => (float[n,4] y) {{ {} }}"
MISH = "s = Softplus(x) t = Tanh(s) y = Mul(x, t)"


@pytest.mark.parametrize("nodes", [MISH, MISH.replace("(x, t)", "(t, x)")])
def test_mish(nodes: str) -> None:
    assert_rewrites(FuseMish(), HEAD.format(nodes), HEAD.format("y = Mish(x)"), opset=18)


@pytest.mark.parametrize(
    "nodes",
    [
        MISH.replace("(x, t)", "(s, t)"),
        MISH.replace("Tanh", "Sigmoid"),
        MISH.replace("Softplus", "Relu"),
        MISH.replace("Mul", "Add"),
        "z = Neg(x) " + MISH.replace("(x)", "(z)").replace("Neg(z)", "Neg(x)"),
    ],
)
def test_not_mish(nodes: str) -> None:
    assert reasons(FuseMish(), HEAD.format(nodes), {}, opset=18) == []


def test_mish_needs_the_opset_and_the_target_and_what_is_inside() -> None:
    assert reasons(FuseMish(), HEAD.format(MISH), {}, opset=17) == ["opset 17 has no such Mish; it came with 18"]
    assert "plain has no Mish" in reasons(FuseMish(), HEAD.format(MISH), {}, opset=18, target=PlainTarget())[0]
    for value in "st":
        text = HEAD.format(f"{MISH} z = Neg({value})").replace("float[n,4] y)", "float[n,4] y, float[n,4] z)")
        assert "other users" in reasons(FuseMish(), text, {}, opset=18)[0]
