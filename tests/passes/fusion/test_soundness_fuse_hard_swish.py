"""fuse-hard-swish: bounds that contradict each other, and sums that begin like a gate."""

from __future__ import annotations

import numpy as np
import pytest
from fusion_kit import constants, reasons
from pass_kit import apply, op_types, parse

from irc.passes.fusion import FuseHardSwish

HEAD = "g (float[n,4] x) => (float[n,4] y) {{ {} }}"
GATE = "a = Add(x, three) c = Clip(a, zero, six) "


def test_an_upper_bound_below_the_lower_one() -> None:
    nodes = "a = Add(x, three) c = Clip(a, zero, below) y = Div(c, below)"
    weights = constants(nodes, below=np.array(-6, np.float32))
    assert reasons(FuseHardSwish(), HEAD.format(nodes), weights, opset=18) == []


@pytest.mark.parametrize("added", ["x", "one"])
@pytest.mark.parametrize("gate", ["m = Mul(x, c) d = Div(m, six)", "d = Div(c, six)"])
def test_what_is_added_behind_stays(gate: str, added: str) -> None:
    nodes = f"{GATE} {gate} y = Add(d, {added})"
    outcome = apply(FuseHardSwish(), parse(HEAD.format(nodes), constants(nodes), opset=18))
    assert op_types(outcome.model) == ["HardSwish" if "Mul" in gate else "HardSigmoid", "Add"]


def test_a_sum_inside_the_last_factor_stays() -> None:
    nodes = GATE + "m = Mul(x, c) d = Add(m, x) y = Div(d, six)"
    assert reasons(FuseHardSwish(), HEAD.format(nodes), constants(nodes), opset=18) == []
