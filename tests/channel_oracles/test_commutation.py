"""What one oracle does not see the others do: statistics, weights that meet only each other, operator sets of long ago."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import MODES, assert_exact, model_of, random_feeds, random_weight, run

from irc.analysis.channels import ChannelGroups, channel_groups, propagate
from irc.channel_oracles import commuted, prove, random_survivors, relative_error
from irc.channel_surgery import Cut, cut
from irc.channel_surgery.rewrites import all_rewrites
from irc.ir import snapshot

NORMALIZED = """g (float[N,8] x) => (float[N,4] y) {
  a = MatMul(x, w) l = LayerNormalization(a, s, b) p = Gather<axis=1>(l, places) y = MatMul(p, v)
}"""


def normalized() -> ir.Model:
    """Every atom changes a statistic, so that the zero oracle has nothing to say."""
    arrays = {"w": (8, 6), "s": (6,), "b": (6,), "v": (6, 4)}
    places = {"places": np.array([3, 1, 5, 0, 4, 2])}
    return model_of(NORMALIZED, places | {name: random_weight(*shape) for name, shape in arrays.items()})


@pytest.mark.parametrize("mode", MODES)
def test_a_permuted_model_cut_alike_computes_the_same(mode: Any) -> None:
    model = normalized()
    groups = channel_groups(model, mode=mode)
    feeds = random_feeds(model, {"N": 1}, {"N": 5})
    for seed in range(3):
        alive = groups.survivors(random_survivors(groups, groups.families, seed=seed))
        small = snapshot(model)
        cut(small, groups.propagation, alive)
        other = commuted(groups, alive, seed=seed)
        assert other is not None
        assert relative_error(run(small, feeds)[1], run(other, feeds)[1]) < 1e-5


def test_a_wrong_rewrite_behind_a_statistic_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = normalized()
    groups = ChannelGroups(propagate(model), "rows")
    feeds = random_feeds(model, {"N": 5})
    right = prove(groups, run, feeds)
    assert right.holds()
    assert right.cut == 0

    def reversed_gather(node: ir.Node, operation: Cut) -> None:
        size = operation.size(operation.made(node), 1)
        operation.set_constant(node, 1, np.arange(size))

    monkeypatch.setitem(all_rewrites(), ("", "Gather"), reversed_gather)
    wrong = prove(groups, run, feeds)
    assert wrong.shapes_kept
    assert wrong.permutation_error < 1e-5
    assert wrong.commutation_error > 1e-3
    assert not wrong.holds()
    assert dataclasses.replace(wrong, commutation_error=0.0).holds()


EINSUMS = {
    "three operands": ("y = Einsum<equation='...i,ij,jk->...k'>(x, w, v)", 1),
    "summed weight": ("a = MatMul(x, w) s = Einsum<equation='ni,kj->ni'>(a, q) y = MatMul(s, v)", 3),
}


@pytest.mark.parametrize("name", EINSUMS)
def test_indices_that_only_weights_have_are_masked(name: str) -> None:
    nodes, families = EINSUMS[name]
    text = f"g (float[N,8] x) => (float[N,4] y) {{ {nodes} }}".replace("'", '"')
    shapes = {"w": (8, 6), "v": (6, 4), "q": (5, 6)}
    model = model_of(
        text, {key: random_weight(*shape) for key, shape in shapes.items() if f"{key})" in text or f"{key}," in text}
    )
    assert_exact(model, random_feeds(model, {"N": 1}, {"N": 5}), families=families)


@pytest.mark.parametrize("opset", [7, 8, 9, 11])
def test_masks_need_no_newer_operators_than_the_model_has(opset: int) -> None:
    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y) {
      a = Conv(x, k) f = Reshape(a, merged) r = Relu(f) b = Reshape(r, apart) y = Conv(b, k2)
    }"""
    arrays = {"k": random_weight(6, 3, 1, 1), "k2": random_weight(4, 6, 1, 1)}
    shapes = {"merged": np.array([1, -1, 6, 6]), "apart": np.array([-1, 6, 6, 6])}
    model = model_of(text, arrays | shapes, opset=opset)
    assert_exact(model, random_feeds(model, {"N": 1}, {"N": 3}), families=1)
