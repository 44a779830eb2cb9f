"""What widths ONNX Runtime is fast at."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irc import targets


@pytest.mark.parametrize("width, multiple", [(64, 16), (24, 16), (16, 16), (15, 4), (8, 4)])
@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose", "QLinearConv"])
def test_convolutions_work_on_blocks_of_16_and_gain_nothing_below(op_type, width, multiple):
    node = ir.node(op_type, [ir.Value(name="x"), ir.Value(name="w", shape=ir.Shape([width, 8, 3, 3]))])
    assert targets.parse("ort").channel_multiple(node, width) == multiple


@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
def test_the_time_of_matrix_products_is_smooth(op_type):
    assert targets.parse("ort").channel_multiple(ir.node(op_type, [ir.Value(name="x"), ir.Value(name="w")]), 64) == 1
