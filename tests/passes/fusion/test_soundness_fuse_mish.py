"""fuse-mish, and with it what all fusions look at: other domains, and outputs of the model on the way."""

from __future__ import annotations

import pytest
from fusion_kit import reasons

from irc.passes.fusion import FuseMish

NODES = "s = Softplus(x) t = Tanh(s) y = Mul(x, t)"
HEAD = "g (float[n,4] x) => (float[n,4] y{}) {{ {} }}"


@pytest.mark.parametrize("op_type", ["Softplus", "Tanh", "Mul"])
def test_operators_of_other_domains_only_have_the_name(op_type: str) -> None:
    assert reasons(FuseMish(), HEAD.format("", NODES.replace(op_type, f"custom.{op_type}")), {}, opset=18) == []


@pytest.mark.parametrize("value", ["s", "t"])
def test_outputs_of_the_model_stay(value: str) -> None:
    said = reasons(FuseMish(), HEAD.format(f", float[n,4] {value}", NODES), {}, opset=18)
    assert len(said) == 1 and "has other users" in said[0]
