"""What widths ONNX Runtime is fast at."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irc import targets


def convolution(op_type: str, width: int, kernel: int, *, quantized: bool = False) -> ir.Node:
    operands = [ir.Value(name="x"), ir.Value(name="w", shape=ir.Shape([width, 8, kernel, kernel]))]
    if quantized:
        for index, value in enumerate(operands):
            node = ir.node("DequantizeLinear", [ir.Value(name=f"q{index}"), ir.Value(name=f"s{index}")])
            node.outputs[0].shape, operands[index] = value.shape, node.outputs[0]
    return ir.node(op_type, operands)


def multiple(node: ir.Node, width: int, **more) -> int:
    return targets.parse("ort").channel_multiple(node, width, **more)


@pytest.mark.parametrize("width, expected", [(64, 16), (24, 16), (16, 4), (15, 4), (8, 4)])
def test_convolutions_work_on_blocks_of_16_and_wide_kernels_gain_below(width, expected):
    assert multiple(convolution("Conv", width, 3), width) == expected


def test_small_kernels_gain_nothing_below_16():
    assert multiple(convolution("Conv", 16, 1), 16) == 16


@pytest.mark.parametrize("width, expected", [(64, 16), (16, 16), (8, 4)])
def test_integers_gain_nothing_below_16(width, expected):
    assert multiple(convolution("Conv", width, 3), width, integers=True) == expected
    assert multiple(convolution("Conv", width, 3, quantized=True), width) == expected
    assert multiple(convolution("QLinearConv", width, 3), width) == expected


@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
def test_the_time_of_matrix_products_is_smooth(op_type):
    node = ir.node(op_type, [ir.Value(name="x"), ir.Value(name="w")])
    assert multiple(node, 64) == multiple(node, 64, integers=True) == 1
