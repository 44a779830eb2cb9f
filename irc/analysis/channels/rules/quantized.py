"""Quantized operators: labels pass as through the float operators they stand for, scales and zero points along."""

from __future__ import annotations

from collections.abc import Sequence

from irc.analysis.channels.alignment import Letter
from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.convolutions import convolve
from irc.analysis.channels.rules.joins import join
from irc.analysis.channels.rules.products import contract, general_product, matmul_letters, matrix_product
from irc.analysis.channels.rules.reductions import reduce
from irc.analysis.channels.rules.registration import rule

_Meeting = tuple[Labelled, Sequence[Letter | None]]


@rule("QuantizeLinear", "DequantizeLinear")
@rule("QuantizeLinear", "DequantizeLinear", domain="com.microsoft")
def scale(view: NodeView) -> None:
    """Y = x / scale + zero point and back; scale and zero point are scalars or run along `axis`."""
    x = view.read(0)
    if view.node.attributes.get_int("block_size", 0) or view.read(1).rank > 1:
        view.pin_inputs("blocks", f"{view.where} has a scale per block")
        return
    operands: list[_Meeting] = [(x, range(x.rank))]
    axis = view.node.attributes.get_int("axis", 1)
    for index in (1, 2):
        if view.has(index) and view.read(index).rank == 1:
            operands.append((view.read(index), (axis % x.rank if x.rank else None,)))
    groups = view.align(*operands)
    view.write_bundles(view.kept(groups, range(x.rank)))


@rule("DynamicQuantizeLinear")
def dynamic_scale(view: NodeView) -> None:
    """The scale comes from the smallest and largest element of all."""
    tensor = view.read(0)
    _by_range(view, tensor)
    view.write(tensor)


def _by_range(view: NodeView, tensor: Labelled) -> None:
    for bundle in tensor.bundles:
        view.statistic(bundle, "scales by the range of all of them")


@rule("QLinearConv")
def quantized_convolution(view: NodeView) -> None:
    """A Conv of integers; the weight's scale and zero point may run along its outputs."""
    convolve(view, weight=3, outputs=(4, 5, 8), zeros={0: 2, 3: 5})


@rule("QLinearConv", domain="com.microsoft")
def runtime_quantized_convolution(view: NodeView) -> None:
    """The same; channels last is not followed."""
    if view.node.attributes.get_int("channels_last", 0):
        view.pin_inputs("channels last", f"{view.where} has its channels last")
        return
    quantized_convolution(view)


@rule("ConvInteger")
def integer_convolution(view: NodeView) -> None:
    """A Conv of integers to int32."""
    convolve(view, outputs=(3,), zeros={0: 2, 1: 3})


@rule("QLinearMatMul")
def quantized_matmul(view: NodeView) -> None:
    """A MatMul of integers; scales and zero points may run along rows and columns."""
    matrix_product(view, right=3, of_left=(1, 2), of_right=(4, 5), zeros={0: 2, 3: 5})


@rule("MatMulInteger")
def integer_matmul(view: NodeView) -> None:
    """A MatMul of integers to int32."""
    matrix_product(view, of_left=(2,), of_right=(3,), zeros={0: 2, 1: 3})


@rule("MatMulIntegerToFloat", domain="com.microsoft")
def integer_matmul_to_float(view: NodeView) -> None:
    """A MatMul of integers, scaled, plus a bias."""
    matrix_product(view, of_left=(2, 4), of_right=(3, 5, 6), zeros={0: 4, 1: 5})


@rule("DynamicQuantizeMatMul", domain="com.microsoft")
def dynamic_matmul(view: NodeView) -> None:
    """A MatMul whose left operand is quantized by its own range."""
    _by_range(view, view.read(0))
    matrix_product(view, of_right=(2, 3, 4), zeros={1: 3})


@rule("QGemm", domain="com.microsoft")
def quantized_gemm(view: NodeView) -> None:
    """A Gemm of integers."""
    general_product(view, right=3, biases=(6,), of_right=(4, 5), zeros={0: 2, 3: 5})


@rule("MatMulNBits", domain="com.microsoft")
def packed_matmul(view: NodeView) -> None:
    """Y[..., n] = sum over k of A[..., k] B[n, k]; k is packed in blocks and stays, n are rows of B and of all that goes with it."""
    view.parameters(4)
    a = view.read(0)
    a = view.freed(a, a.rank - 1, "blocks", "packs this axis in blocks")
    left, _right, result = matmul_letters(a.rank, 2)
    outputs = view.node.attributes.get_int("N", 0)
    operands: list[tuple[Labelled, Sequence[object]]] = [(a, left)]
    for index in (1, 2, 3, 5):
        if view.has(index):
            tensor = view.read(index)
            for axis in range(1, tensor.rank):
                tensor = view.freed(tensor, axis, "blocks", "packs this axis in blocks")
            bundle = tensor.on(0)
            if bundle is not None:
                labels = bundle.labels.reshape(outputs, -1)
                view.constraints.equal(labels[:, :1], labels)
                bundle = Bundle((0,), labels[:, 0], bundle.factors)
            operands.append((Labelled((outputs,), () if bundle is None else (bundle,)), ("n",)))
    contract(view, operands, result)


@rule("QLinearAdd", "QLinearMul", domain="com.microsoft")
def quantized_pair(view: NodeView) -> None:
    """C = f(a, b) with scalar scales."""
    _broadcast(view, (0, 3))


@rule("QLinearWhere", domain="com.microsoft")
def quantized_choice(view: NodeView) -> None:
    """Z = x or y, as the condition says."""
    _broadcast(view, (0, 1, 4))


def _broadcast(view: NodeView, indices: Sequence[int]) -> None:
    rank = len(view.dims_out())
    operands: list[_Meeting] = []
    for index in range(len(view.node.inputs)):
        if view.has(index) and index in indices:
            operands.append((view.read(index), range(rank - view.read(index).rank, rank)))
        elif view.has(index):
            view.parameters(index)
    groups = view.align(*operands)
    view.write_bundles(view.kept(groups, range(rank)))


@rule("QLinearSigmoid", "QLinearLeakyRelu", domain="com.microsoft")
def quantized_activation(view: NodeView) -> None:
    """Y = f(x) with scalar scales."""
    view.write(view.read(0))


@rule("QLinearSoftmax", domain="com.microsoft")
def quantized_softmax(view: NodeView) -> None:
    """Softmax along `axis`, before opset 13 along all axes from it on."""
    tensor = view.read(0)
    flattens = view.node.attributes.get_int("opset", 13) < 13
    axis = view.node.attributes.get_int("axis", -1) % tensor.rank
    for i in range(axis, tensor.rank if flattens else axis + 1):
        tensor = view.freed(tensor, i, "softmax axis", "normalizes along this axis")
    view.write(tensor)


@rule("QLinearReduceMean", domain="com.microsoft")
def quantized_mean(view: NodeView) -> None:
    """The mean along `axes`."""
    rank = view.read(0).rank
    axes = [axis % rank for axis in view.node.attributes.get_ints("axes", [])] or list(range(rank))
    reduce(view, axes, keepdims=bool(view.node.attributes.get_int("keepdims", 1)))


@rule("QLinearConcat", domain="com.microsoft")
def quantized_concat(view: NodeView) -> None:
    """Operands one after the other along `axis`, each with a scalar scale and zero point."""
    join(view, range(2, len(view.node.inputs), 3))
