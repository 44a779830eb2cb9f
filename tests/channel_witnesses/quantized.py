"""Witnesses of operators on integers."""

from __future__ import annotations

from typing import Any

from channel_witnesses import network as plain
from channel_witnesses.network import MS, Operator, Witness

Q = "$real[0.05], $byte[120]"
"""A scale and a zero point."""


def quantized() -> dict[Operator, list[Witness]]:
    def image(body: str, shape: str = "", **options: Any) -> Witness:
        return plain.image(f"q = QuantizeLinear(h, {Q}) {body} o = DequantizeLinear(z, {Q})", shapes=shape, **options)

    def sequence(body: str, shape: str = "", **options: Any) -> Witness:
        return plain.sequence(
            f"q = QuantizeLinear(h, {Q}) {body} o = DequantizeLinear(z, {Q})", shapes=shape, **options
        )

    last = "t = Transpose<perm=[0,2,3,1]>(q)", "z = Transpose<perm=[0,3,1,2]>(u)"
    per_column = "DequantizeLinear<axis=1>($i8[8,8], $small[8])"
    found: dict[Operator, list[Witness]] = {
        ("", "QuantizeLinear"): [plain.image("q = QuantizeLinear<axis=1>(h, $small[8], $u8[8]) o = DequantizeLinear<axis=1>(q, $small[8])")],
        ("", "DequantizeLinear"): [plain.sequence(f"w = {per_column} t = MatMul(h, w) o = Relu(t)")],
        (MS, "QuantizeLinear"): [plain.image(f"q = {MS}.QuantizeLinear(h, {Q}) o = DequantizeLinear(q, {Q})", shapes="uint8[n,8,8,6] q")],
        (MS, "DequantizeLinear"): [
            plain.image(f"q = QuantizeLinear(h, {Q}) o = {MS}.DequantizeLinear(q, {Q})", shapes="float[n,8,8,6] o")
        ],
        ("", "DynamicQuantizeLinear"): [plain.sequence("t = Mul(h, $reals[1,2,3,4,5,6,7,9]) q, c, z = DynamicQuantizeLinear(t) o = DequantizeLinear(q, c, z)")],
        ("", "QLinearConv"): [
            image(f"z = QLinearConv<kernel_shape=[1,1]>(q, {Q}, $i8[10,8,1,1], $small[10], $zero8[10], {Q}, $i32[10])", width=10),
            image(f"z = QLinearConv<kernel_shape=[1,1],group=4>(q, {Q}, $i8[12,2,1,1], $small[12], $zero8[12], {Q}, $i32[12])", width=12),
        ],
        (MS, "QLinearConv"): [
            image(f"z = {MS}.QLinearConv<kernel_shape=[1,1]>(q, {Q}, $u8[10,8,1,1], $real[0.01], $byte[99], {Q})", "uint8[n,10,8,6] z", width=10),
            image(f"z = {MS}.QLinearConv<kernel_shape=[1,1],group=4>(q, {Q}, $u8[12,2,1,1], $real[0.02], $byte[99], {Q})", "uint8[n,12,8,6] z", width=12),
        ],
        ("", "ConvInteger"): [
            plain.image(f"q = QuantizeLinear(h, {Q}) z = ConvInteger<kernel_shape=[1,1]>(q, $u8[10,8,1,1], $byte[120], $byte[99]) o = Cast<to=1>(z)", width=10),
            plain.image(f"q = QuantizeLinear(h, {Q}) z = ConvInteger<kernel_shape=[1,1],group=4>(q, $u8[12,2,1,1], $byte[120]) o = Cast<to=1>(z)", width=12),
        ],
        ("", "QLinearMatMul"): [sequence(f"z = QLinearMatMul(q, {Q}, $i8[8,10], $small[10], $i8[10], {Q})", width=10)],
        ("", "MatMulInteger"): [
            plain.sequence(f"q = QuantizeLinear(h, {Q}) z = MatMulInteger(q, $i8[8,10], $byte[120], $i8[10]) o = Cast<to=1>(z)", width=10)
        ],
        (MS, "MatMulIntegerToFloat"): [
            plain.sequence(
                f"q = QuantizeLinear(h, {Q}) o = {MS}.MatMulIntegerToFloat(q, $i8[8,10], $real[0.05], $small[10], $byte[120], $i8[10], $f32[10])",
                width=10,
            )
        ],
        (MS, "DynamicQuantizeMatMul"): [
            plain.sequence(f"t = Mul(h, $reals[1,2,3,4,5,6,7,9]) o = {MS}.DynamicQuantizeMatMul(t, $i8[8,10], $small[10], $zero8[10], $f32[10])", width=10)
        ],
        (MS, "QGemm"): [
            plain.vector(
                f"q = QuantizeLinear(h, {Q}) o = {MS}.QGemm<transB=1>(q, {Q}, $i8[10,8], $small[10], $i8[10], $i32[10])", width=10
            )
        ],
        (MS, "MatMulNBits"): [
            plain.sequence(
                f"t = MatMul(h, $f32[8,32]) o = {MS}.MatMulNBits<K=32,N=10,bits=4,block_size=16>(t, $u8[10,2,8], $small[20], $u8[10])",
                width=10,
            )
        ],
        (MS, "QLinearAdd"): [sequence(f"p = MatMul(x, $f32[6,8]) r = QuantizeLinear(p, {Q}) z = {MS}.QLinearAdd(q, {Q}, r, {Q}, {Q})")],
        (MS, "QLinearMul"): [sequence(f"p = MatMul(x, $f32[6,8]) r = QuantizeLinear(p, {Q}) z = {MS}.QLinearMul(q, {Q}, r, {Q}, {Q})")],
        (MS, "QLinearWhere"): [
            image(f"p = Conv<kernel_shape=[1,1]>(x, $f32[8,3,1,1]) c = Greater(p, $f32[8,1,1]) z = {MS}.QLinearWhere(c, q, {Q}, $u8[8,1,1], {Q}, {Q})", "uint8[n,8,8,6] z")
        ],
        (MS, "QLinearSigmoid"): [sequence(f"z = {MS}.QLinearSigmoid(q, {Q}, {Q})")],
        (MS, "QLinearLeakyRelu"): [sequence(f"z = {MS}.QLinearLeakyRelu(q, {Q}, {Q})")],
        (MS, "QLinearSoftmax"): [
            sequence(f"z = {MS}.QLinearSoftmax<axis=1,opset=13>(q, {Q}, $real[0.004], $byte[0])", "uint8[n,s,8] z"),
            sequence(f"z = {MS}.QLinearSoftmax<axis=2,opset=13>(q, {Q}, $real[0.004], $byte[0])", "uint8[n,s,8] z"),
        ],
        (MS, "QLinearReduceMean"): [
            sequence(f"z = {MS}.QLinearReduceMean<axes=[1],keepdims=1>(q, {Q}, {Q})", "uint8[n,1,8] z", runs=False)
        ],
        (MS, "QLinearConcat"): [
            image(
                f"p = Conv<kernel_shape=[1,1]>(x, $f32[6,3,1,1]) r = QuantizeLinear(p, {Q}) z = {MS}.QLinearConcat<axis=1>({Q}, q, {Q}, r, {Q})",
                "uint8[n,14,8,6] z", width=14,
            )
        ],
        (MS, "QLinearAveragePool"): [
            image(f"z = {MS}.QLinearAveragePool<kernel_shape=[2,2]>(q, {Q}, {Q})", "uint8[n,8,7,5] z"),
            image(f"{last[0]} u = {MS}.QLinearAveragePool<kernel_shape=[2,2],channels_last=1>(t, {Q}, {Q}) {last[1]}", "uint8[n,7,5,8] u"),
        ],
        (MS, "QLinearGlobalAveragePool"): [
            image(f"z = {MS}.QLinearGlobalAveragePool(q, {Q}, {Q})", "uint8[n,8,1,1] z"),
            image(f"{last[0]} u = {MS}.QLinearGlobalAveragePool<channels_last=1>(t, {Q}, {Q}) {last[1]}", "uint8[n,1,1,8] u"),
        ],
        (MS, "NhwcMaxPool"): [image(f"{last[0]} u = {MS}.NhwcMaxPool<kernel_shape=[2,2]>(t) {last[1]}", "uint8[n,7,5,8] u")],
    }  # fmt: skip
    return found
