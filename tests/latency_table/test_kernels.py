"""The operators that stand for products of a model, whole and cut."""

from __future__ import annotations

import pruning_models
from latency_table.clocked_tables import attention, grouped, kernels, lstm, narrowed


def test_operators_of_grouped_and_depthwise_convolutions():
    groups, found = kernels(grouped(), "columns")
    alive = narrowed(groups, [family.width // 2 for family in groups.families])
    b, d = found["b"], found["d"]
    assert b.at(b.whole).describe() == "Conv 2x64x8x8 *64x16x3x3 group=4 pads=(1, 1, 1, 1)"
    assert b.at(b.sizes(alive)).describe() == "Conv 2x32x8x8 *32x8x3x3 group=4 pads=(1, 1, 1, 1)"
    assert d.at(d.sizes(alive)).describe() == "Conv 2x32x8x8 *32x1x3x3 group=32 pads=(1, 1, 1, 1)"
    assert found["y"].at(found["y"].sizes(alive)).describe() == "Gemm 2x32 *4x32 *4 transB=1"


def test_operators_of_attention_are_products_of_two_activations():
    groups, found = kernels(attention())
    (family,) = [family for family in groups.families if family.width == 4]
    alive = groups.survivors({family: family.atoms[:3]})
    s, o = found["s"], found["o"]
    assert s.at(s.sizes(alive)).describe() == "MatMul 2x3x8x16 2x3x16x8"
    assert o.at(o.sizes(alive)).describe() == "MatMul 2x3x8x8 2x3x8x16"
    assert found["y"].at(found["y"].sizes(alive)).describe() == "MatMul 2x8x48 *48x64"


def test_operators_of_recurrent_layers():
    groups, found = kernels(lstm())
    h = found["h"]
    alive = narrowed(groups, [family.width // 2 for family in groups.families])
    assert h.at(h.whole).describe() == "LSTM 6x2x24 *1x160x24 *1x160x40 *1x320 hidden_size=40"
    assert h.at(h.sizes(alive)).describe() == "LSTM 6x2x12 *1x80x12 *1x80x20 *1x160 hidden_size=20"


def test_a_dynamic_axis_has_the_size_of_the_feed():
    _groups, found = kernels(pruning_models.mlp(8, 16, 4))
    assert [kernel.whole for kernel in found.values()] == [(2, 8, 16), (2, 16, 4)]
