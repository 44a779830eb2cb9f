"""Quantized operators: integer weights, their scales and zero points are cut with the channels they belong to."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import MODES, Array, assert_exact, describe, model_of, random_feeds, random_weight

from irc.analysis.channels import channel_groups

W = random_weight
TOKENS = ({"n": 3, "s": 4}, {"n": 1, "s": 9})
IMAGES = ({"n": 3}, {"n": 1})


def integers(*shape: int, seed: int = 0, dtype: type = np.int8) -> Array:
    low, high = (-100, 100) if dtype == np.int8 else (0, 200)
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(dtype)


def scales(*shape: int, seed: int = 0, size: float = 0.01) -> Array:
    return ((np.random.default_rng([seed, *shape]).random(shape) + 0.5) * size).astype(np.float32)


def f32(x: float) -> Array:
    return np.array(x, np.float32)


def atoms(model) -> dict[str, list[int]]:  # type: ignore[no-untyped-def]
    return {m: [len(f.atoms) for f in channel_groups(model, mode=m).families] for m in MODES}


@pytest.mark.parametrize("axis", [0, None])
def test_weights_behind_dequantization(axis: int | None) -> None:
    """Weight, bias, scales and zero points per output channel."""
    per = (8,) if axis == 0 else ()
    text = f"""g (float[n, 3, 9, 7] x) => (float[n, 5, 9, 7] y) {{
        w1 = DequantizeLinear{"<axis=0>" if axis == 0 else ""}(q1, s1, z1)
        b1 = DequantizeLinear{"<axis=0>" if axis == 0 else ""}(qb, sb)
        h = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x, w1, b1)
        a = Relu(h)
        q = QuantizeLinear(a, sa, za)
        d = DequantizeLinear(q, sa, za)
        w2 = DequantizeLinear(q2, s2)
        y = Conv<kernel_shape=[1, 1]>(d, w2)
    }}"""
    weights = {
        "q1": integers(8, 3, 3, 3),
        "s1": scales(*per),
        "z1": integers(*per, seed=3),
        "qb": np.arange(8, dtype=np.int32) * 50 - 100,
        "sb": scales(*per, seed=5),
        "sa": f32(0.05),
        "za": np.array(17, np.uint8),
        "q2": integers(5, 8, 1, 1, seed=6),
        "s2": f32(0.01),
    }
    model = model_of(text, weights)
    proofs = assert_exact(model, random_feeds(model, *IMAGES), families=1)
    assert proofs["rows"].cut == 1 and atoms(model)["rows"] == [8]
    slots = {a.slot.name for a in channel_groups(model).families[0].axes}
    assert slots == ({"q1", "s1", "z1", "qb", "sb", "q2"} if axis == 0 else {"q1", "qb", "q2"})


def test_grouped_convolution_behind_dequantization() -> None:
    text = """g (float[n, 3, 9, 7] x) => (float[n, 5, 9, 7] y) {
        h = Conv<kernel_shape=[1, 1]>(x, w0)
        w1 = DequantizeLinear<axis=0>(q1, s1)
        g1 = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=8>(h, w1)
        w2 = DequantizeLinear<axis=0>(q2, s2)
        k = Conv<kernel_shape=[1, 1], group=4>(g1, w2)
        y = Conv<kernel_shape=[1, 1]>(k, w3)
    }"""
    weights = {
        "w0": W(8, 3, 1, 1),
        "q1": integers(8, 1, 3, 3),
        "s1": scales(8),
        "q2": integers(16, 2, 1, 1),
        "s2": scales(16),
        "w3": W(5, 16, 1, 1),
    }
    model = model_of(text, weights)
    assert_exact(model, random_feeds(model, *IMAGES), families={"rows": 1, "columns": 2})
    assert atoms(model) == {"rows": [4], "columns": [2, 16]}


def test_scales_per_block_pin() -> None:
    text = """g (float[n, 6] x) => (float[n, 5] y) {
        w1 = DequantizeLinear<axis=0, block_size=3>(q1, s1)
        h = MatMul(x, w1)
        y = MatMul(h, w2)
    }"""
    weights = {"q1": integers(6, 8), "s1": scales(2, 8), "w2": W(8, 5)}
    groups = channel_groups(model_of(text, weights, opset=21))
    assert not groups.families and "block" in describe(groups)


def test_dynamic_quantization_is_a_statistic() -> None:
    text = """g (float[n, s, 6] x) => (float[n, s, 5] y) {
        h = MatMul(x, w1)
        a, s, z = DynamicQuantizeLinear(h)
        i = MatMulInteger(a, q2, z, z2)
        f = Cast<to=1>(i)
        t = Mul(s, s2)
        u = Mul(f, t)
        y = MatMul(u, w3)
    }"""
    weights = {"w1": W(6, 8), "q2": integers(8, 10), "z2": integers(10, seed=2), "s2": scales(10), "w3": W(10, 5)}
    model = model_of(text, weights)
    proofs = assert_exact(model, random_feeds(model, *TOKENS), families=2)
    assert proofs["rows"].cut == 1, "columns of the integer weight are exact, its rows are not"
    first, second = channel_groups(model).families
    assert first.statistics and not second.statistics
    assert {a.slot.name for a in second.axes} == {"q2", "z2", "s2", "w3"}


def quantized(name: str, source: str) -> str:
    return f"{name} = QuantizeLinear({source}, sa, za)\n"


@pytest.mark.parametrize("zero", [0, 131])
@pytest.mark.parametrize("per", [(), (8,)])
@pytest.mark.parametrize("group", [1, 4, 8])
def test_convolutions_of_integers(zero: int, per: tuple[int, ...], group: int) -> None:
    """The zero oracle puts the zero point where channels are cut."""
    text = f"""g (float[n, 3, 9, 7] x) => (float[n, 5, 9, 7] y) {{
        {quantized("q", "x")}
        a = QLinearConv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(q, sa, za, w1, s1, z1, sb, zb, b1)
        b = QLinearConv<kernel_shape=[1, 1], group={group}>(a, sb, zb, w2, s2, z2, sc, zc, b2)
        c = QLinearConv<kernel_shape=[1, 1]>(b, sc, zc, w3, s3, z3, sd, zd)
        y = DequantizeLinear(c, sd, zd)
    }}"""
    u8 = lambda value: np.array(value, np.uint8)  # noqa: E731
    weights = {
        "sa": f32(0.03), "za": u8(128),
        "w1": integers(8, 3, 3, 3), "s1": scales(*per), "z1": np.zeros(per, np.int8),
        "sb": f32(0.3), "zb": u8(zero), "b1": np.arange(8, dtype=np.int32) * 200 - 500,
        "w2": integers(8, 8 // group, 1, 1, seed=1), "s2": scales(*per, seed=2), "z2": np.zeros(per, np.int8),
        "sc": f32(0.9), "zc": u8(zero), "b2": np.arange(8, dtype=np.int32)[::-1] * 90,
        "w3": integers(5, 8, 1, 1, seed=3), "s3": f32(0.01), "z3": np.array(0, np.int8),
        "sd": f32(0.9), "zd": u8(100),
    }  # fmt: skip
    model = model_of(text, weights)
    families = {1: {"rows": 2, "columns": 2}, 4: {"rows": 1, "columns": 2}, 8: {"rows": 1, "columns": 1}}[group]
    proofs = assert_exact(model, random_feeds(model, *IMAGES), families=families)
    assert all(proof.cut == families[mode] and proof.effect > 1e-3 for mode, proof in proofs.items())


def test_matrix_products_of_integers() -> None:
    text = f"""g (float[n, s, 6] x) => (float[n, s, 5] y) {{
        {quantized("q", "x")}
        a = QLinearMatMul(q, sa, za, w1, s1, z1, sb, zb)
        c = com.microsoft.QLinearSigmoid(a, sb, zb, sc, zc)
        d = com.microsoft.QLinearMul(a, sb, zb, c, sc, zc, sb, zb)
        e = com.microsoft.QLinearLeakyRelu<alpha=0.1>(d, sb, zb, sb, zb)
        f = com.microsoft.QLinearAdd(e, sb, zb, a, sb, zb, sb, zb)
        i = com.microsoft.MatMulIntegerToFloat(f, w2, sb, s2, zb, z2, b2)
        j = com.microsoft.BiasGelu(i, b3)
        y = MatMul(j, w3)
    }}"""
    u8 = lambda value: np.array(value, np.uint8)  # noqa: E731
    weights = {
        "sa": f32(0.03), "za": u8(128),
        "w1": integers(6, 8), "s1": scales(8), "z1": np.zeros(8, np.int8), "sb": f32(0.08), "zb": u8(120),
        "sc": f32(0.005), "zc": u8(3),
        "w2": integers(8, 10), "s2": scales(10), "z2": integers(10, seed=4) // 10, "b2": W(10),
        "b3": W(10, seed=5), "w3": W(10, 5),
    }  # fmt: skip
    model = model_of(text, weights)
    proofs = assert_exact(model, random_feeds(model, *TOKENS), families=2)
    assert proofs["rows"].cut == 2 and atoms(model)["rows"] == [8, 10]


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_of_integers(transposed: int) -> None:
    text = f"""g (float[n, 6] x) => (float[n, 5] y) {{
        {quantized("q", "x")}
        a = com.microsoft.QGemm<transB={transposed}>(q, sa, za, w1, s1, z1, b1, sb, zb)
        f = com.microsoft.QGemm(a, sb, zb, w2, s2, z2)
        y = MatMul(f, w3)
    }}"""
    u8 = lambda value: np.array(value, np.uint8)  # noqa: E731
    weights = {
        "sa": f32(0.03), "za": u8(128),
        "w1": integers(8, 6) if transposed else integers(6, 8), "s1": scales(8), "z1": np.zeros(8, np.int8),
        "b1": np.arange(8, dtype=np.int32) * 200 - 500, "sb": f32(0.08), "zb": u8(120),
        "w2": integers(8, 10), "s2": f32(0.01), "z2": np.array(0, np.int8), "w3": W(10, 5),
    }  # fmt: skip
    model = model_of(text, weights)
    proofs = assert_exact(model, random_feeds(model, {"n": 3}, {"n": 7}), families=2)
    assert proofs["rows"].cut == 2 and atoms(model)["rows"] == [8, 10]


def test_integer_convolution() -> None:
    text = """g (uint8[n, 3, 9, 7] x) => (float[n, 5, 9, 7] y) {
        h = ConvInteger<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x, w1, zx, zw)
        f = Cast<to=1>(h)
        r = QuantizeLinear(f, sa, za)
        k = ConvInteger<kernel_shape=[1, 1]>(r, w2, za)
        y = Cast<to=1>(k)
    }"""
    weights = {
        "w1": integers(8, 3, 3, 3, dtype=np.uint8), "zx": np.array(2, np.uint8), "zw": np.array(99, np.uint8),
        "sa": f32(9.0), "za": np.array(140, np.uint8), "w2": integers(5, 8, 1, 1, dtype=np.uint8),
    }  # fmt: skip
    model = model_of(text, weights)
    assert assert_exact(model, random_feeds(model, *IMAGES), families=1)["rows"].cut == 1


def test_dynamic_matrix_product() -> None:
    text = """g (float[n, s, 6] x) => (float[n, s, 5] y) {
        h = MatMul(x, w1)
        a = com.microsoft.DynamicQuantizeMatMul(h, w2, s2, z2, b2)
        y = MatMul(a, w3)
    }"""
    weights = {
        "w1": W(6, 8), "w2": integers(8, 10), "s2": scales(10), "z2": np.zeros(10, np.int8), "b2": W(10),
        "w3": W(10, 5),
    }  # fmt: skip
    model = model_of(text, weights)
    assert assert_exact(model, random_feeds(model, *TOKENS), families=2)["rows"].cut == 1


@pytest.mark.parametrize("scales_of", [(16,), (8, 2)])
def test_packed_weights(scales_of: tuple[int, ...]) -> None:
    """Columns of the result may go, what is packed may not."""
    text = """g (float[n, s, 6] x) => (float[n, s, 5] y) {
        h = MatMul(x, w1)
        a = com.microsoft.MatMulNBits<K=32, N=8, bits=4, block_size=16>(h, w2, s2, z2)
        y = MatMul(a, w3)
    }"""
    weights = {
        "w1": W(6, 32), "w2": integers(8, 2, 8, dtype=np.uint8), "s2": scales(*scales_of),
        "z2": integers(8, dtype=np.uint8), "w3": W(8, 5),
    }  # fmt: skip
    model = model_of(text, weights)
    proofs = assert_exact(model, random_feeds(model, *TOKENS), families=1)
    assert proofs["columns"].cut == 1 and atoms(model) == {"rows": [8], "columns": [8]}


def test_pooling_and_joining_of_integers() -> None:
    text = f"""g (float[n, 3, 8, 6] x) => (float[n, 5, p, q] y) {{
        {quantized("q", "x")}
        a = QLinearConv<kernel_shape=[1, 1]>(q, sa, za, w1, s1, z1, sb, zb)
        b = QLinearConv<kernel_shape=[1, 1]>(q, sa, za, w2, s1, z1, sb, zb)
        float_a = DequantizeLinear(a, sb, zb)
        uint8[n, 14, 8, 6] c = com.microsoft.QLinearConcat<axis=1>(sb, zb, a, sb, zb, b, sb, zb)
        d = com.microsoft.QLinearGlobalAveragePool(c, sb, zb, sb, zb)
        e = DequantizeLinear(d, sb, zb)
        y = Conv<kernel_shape=[1, 1]>(e, w3)
    }}"""
    text = text.replace("        float_a = DequantizeLinear(a, sb, zb)\n", "").replace("uint8[n, 14, 8, 6] c", "c")
    u8 = lambda value: np.array(value, np.uint8)  # noqa: E731
    weights = {
        "sa": f32(0.03), "za": u8(128), "s1": f32(0.01), "z1": np.array(0, np.int8), "sb": f32(0.02), "zb": u8(120),
        "w1": integers(8, 3, 1, 1), "w2": integers(6, 3, 1, 1), "w3": W(5, 14, 1, 1),
    }  # fmt: skip
    model = model_of(text, weights)
    proofs = assert_exact(model, random_feeds(model, *IMAGES), families=2)
    assert proofs["rows"].cut == 2


def test_softmax_of_integers_pins() -> None:
    text = f"""g (float[n, 6] x) => (float[n, 5] y) {{
        {quantized("q", "x")}
        a = QLinearMatMul(q, sa, za, w1, s1, z1, sb, zb)
        c = com.microsoft.QLinearSoftmax<axis=1, opset=13>(a, sb, zb, sc, zc)
        d = DequantizeLinear(c, sc, zc)
        y = MatMul(d, w2)
    }}"""
    u8 = lambda value: np.array(value, np.uint8)  # noqa: E731
    weights = {
        "sa": f32(0.03), "za": u8(128), "w1": integers(6, 8), "s1": f32(0.01), "z1": np.array(0, np.int8),
        "sb": f32(0.08), "zb": u8(120), "sc": f32(1 / 256), "zc": u8(0), "w2": W(8, 5),
    }  # fmt: skip
    assert not channel_groups(model_of(text, weights)).families


@pytest.mark.parametrize(
    "body",
    [
        "z = com.microsoft.BiasGelu(h, b)",
        "z = com.microsoft.FastGelu(h, b)",
        "z = com.microsoft.QuickGelu(h)",
        "z = com.microsoft.Gelu(h)",
        "t = com.microsoft.FusedMatMul<alpha=0.5, transB=1>(h, w)\n z = Relu(t)",
        "t = com.microsoft.TransposeMatMul<alpha=0.5, transB=1>(h, w)\n z = Relu(t)",
    ],
)
def test_fused_elementwise_operators(body: str) -> None:
    text = f"""g (float[n, s, 6] x) => (float[n, s, 5] y) {{
        h = MatMul(x, w1)
        {body}
        y = MatMul(z, w2)
    }}"""
    weights = {"w1": W(6, 8), "w2": W(8, 5)} | {
        name: a for name, a in (("b", W(8)), ("w", W(8, 8))) if f", {name})" in body
    }
    model = model_of(text, weights)
    families = 2 if "MatMul" in body else 1
    assert assert_exact(model, random_feeds(model, *TOKENS), families=families)["rows"].cut == families


def test_fused_convolution_adds_a_tensor() -> None:
    text = """g (float[n, 3, 9, 7] x) => (float[n, 5, 9, 7] y) {
        a = Conv<kernel_shape=[1, 1]>(x, w0)
        h = Conv<kernel_shape=[1, 1]>(x, w1)
        k = com.microsoft.FusedConv<kernel_shape=[1, 1], activation="Relu">(a, w2, b2, h)
        y = Conv<kernel_shape=[1, 1]>(k, w3)
    }"""
    weights = {"w0": W(6, 3, 1, 1), "w1": W(8, 3, 1, 1), "w2": W(8, 6, 1, 1), "b2": W(8), "w3": W(5, 8, 1, 1)}
    model = model_of(text, weights)
    assert assert_exact(model, random_feeds(model, *IMAGES), families=2)["rows"].cut == 2
    assert atoms(model)["rows"] == [6, 8]


def test_fused_gemm() -> None:
    text = """g (float[n, 6] x) => (float[n, 5] y) {
        h = com.microsoft.FusedGemm<transB=1, activation="Relu">(x, w1, b1)
        y = MatMul(h, w2)
    }"""
    model = model_of(text, {"w1": W(8, 6), "b1": W(8), "w2": W(8, 5)})
    assert assert_exact(model, random_feeds(model, {"n": 3}, {"n": 5}), families=1)["rows"].cut == 1


U8 = np.uint8
STATIC: dict[str, Array] = {"sa": f32(0.05), "za": np.array(120, U8)}
SMALL: dict[str, Array] = {"w1": W(12, 3, 1, 1), "w2": W(5, 12, 1, 1, seed=2)}


@pytest.mark.parametrize(
    ("body", "shapes", "more"),
    [
        ("z = com.microsoft.QLinearAveragePool<kernel_shape=[2, 2]>(q, sa, za, sa, za)", "uint8[n, 12, 7, 5] z", {}),
        (
            """t = Transpose<perm=[0, 2, 3, 1]>(q)
            u = com.microsoft.QLinearAveragePool<kernel_shape=[2, 2], channels_last=1>(t, sa, za, sa, za)
            z = Transpose<perm=[0, 3, 1, 2]>(u)""",
            "uint8[n, 7, 5, 12] u",
            {},
        ),
        (
            """t = Transpose<perm=[0, 2, 3, 1]>(q)
            u = com.microsoft.QLinearGlobalAveragePool<channels_last=1>(t, sa, za, sa, za)
            z = Transpose<perm=[0, 3, 1, 2]>(u)""",
            "uint8[n, 1, 1, 12] u",
            {},
        ),
        (
            """t = Transpose<perm=[0, 2, 3, 1]>(q)
            u = com.microsoft.NhwcMaxPool<kernel_shape=[2, 2]>(t)
            z = Transpose<perm=[0, 3, 1, 2]>(u)""",
            "uint8[n, 7, 5, 12] u",
            {},
        ),
        (
            """d = com.microsoft.DequantizeLinear(q, sa, za)
            z = com.microsoft.QuantizeLinear(d, sa, za)""",
            "",
            {},
        ),
        (
            """c = Greater(h, zero)
            z = com.microsoft.QLinearWhere(c, q, sa, za, r, sa, za, sa, za)""",
            "uint8[n, 12, 8, 6] z",
            {"zero": f32(0), "r": np.arange(100, 112, dtype=U8).reshape(12, 1, 1)},
        ),
    ],
)
def test_operators_whose_shape_the_exporter_says(body: str, shapes: str, more: dict[str, Array]) -> None:
    text = f"""g (float[n, 3, 8, 6] x) => (float[n, 5, a, b] y) <{shapes}> {{
        h = Conv<kernel_shape=[1, 1]>(x, w1)
        q = QuantizeLinear(h, sa, za)
        {body}
        f = DequantizeLinear(z, sa, za)
        y = Conv<kernel_shape=[1, 1]>(f, w2)
    }}"""
    model = model_of(text, SMALL | STATIC | more)
    assert assert_exact(model, random_feeds(model, {"n": 2}, {"n": 1}), families=1)["rows"].cut == 1


def test_convolution_of_integers_of_the_runtime() -> None:
    text = """g (float[n, 3, 8, 6] x) => (float[n, 5, 8, 6] y) <uint8[n, 12, 8, 6] z> {
        h = Conv<kernel_shape=[1, 1]>(x, w1)
        q = QuantizeLinear(h, sa, za)
        z = com.microsoft.QLinearConv<kernel_shape=[1, 1]>(q, sa, za, wq, sa, zw, sa, za)
        f = DequantizeLinear(z, sa, za)
        y = Conv<kernel_shape=[1, 1]>(f, w2)
    }"""
    weights = SMALL | STATIC | {"wq": integers(12, 12, 1, 1, dtype=U8), "zw": np.array(70, U8)}
    model = model_of(text, weights)
    assert assert_exact(model, random_feeds(model, {"n": 2}, {"n": 1}), families=2)["rows"].cut == 2
    last = channel_groups(model_of(text.replace("QLinearConv<", "QLinearConv<channels_last=1, "), weights))
    assert "channels last" in describe(last)


@pytest.mark.parametrize(
    ("body", "families", "statistic"),
    [
        ("z = com.microsoft.BiasAdd(h, b, h)", 1, False),
        ("z = com.microsoft.BiasDropout(h, b, h)", 1, False),
        ("z = com.microsoft.BiasSoftmax<axis=2, is_inner_broadcast=0>(h, b)", 0, False),
        ("z = com.microsoft.SimplifiedLayerNormalization(h, b)", 1, True),
        ("z = com.microsoft.BiasSplitGelu(h, b)", 0, False),
        ("z = com.microsoft.QLinearReduceMean<axes=[1], keepdims=1>(h, s, s, s, s)", 1, False),
        ("z = com.microsoft.QLinearReduceMean<axes=[2], keepdims=1>(h, s, s, s, s)", 0, False),
    ],
)
def test_operators_without_a_kernel_for_the_cpu(body: str, families: int, statistic: bool) -> None:
    text = f"""g (float[n, s, 6] x) => (float[n, s, 5] y) <float[n, {"1" if "axes=[1]" in body else "s"}, 8] z> {{
        h = MatMul(x, w1)
        {body}
        y = MatMul(z, w2)
    }}"""
    if "axes=[2]" in body:
        text = text.replace("8] z>", "1] z>").replace("MatMul(z, w2)", "Mul(z, w3)")
    weights = {"w1": W(6, 8), "w2": W(8, 5), "w3": W(5)} | ({"b": W(8)} if ", b" in body else {"s": f32(1)})
    del weights["w2" if "w3" in text else "w3"]
    groups = channel_groups(model_of(text, weights))
    if "axes=[2]" in body:
        assert [bool(f.statistics) for f in groups.families] == [True]
        return
    assert [bool(f.statistics) for f in groups.families] == [statistic] * families


def test_groups_of_integer_and_fused_convolutions() -> None:
    text = """g (uint8[n, 3, 9, 7] x) => (float[n, 5, 9, 7] y) {
        a = ConvInteger<kernel_shape=[1, 1]>(x, w1)
        f = Cast<to=1>(a)
        q = QuantizeLinear(f, sa, za)
        b = ConvInteger<kernel_shape=[1, 1], group=4>(q, w2, za)
        g = Cast<to=1>(b)
        c = com.microsoft.FusedConv<kernel_shape=[1, 1], group=4, activation="Relu">(g, w3)
        y = Conv<kernel_shape=[1, 1]>(c, w4)
    }"""
    weights = {
        "w1": integers(8, 3, 1, 1, dtype=U8), "sa": f32(9.0), "za": np.array(140, U8),
        "w2": integers(8, 2, 1, 1, dtype=U8), "w3": W(8, 2, 1, 1), "w4": W(5, 8, 1, 1),
    }  # fmt: skip
    model = model_of(text, weights)
    proofs = assert_exact(model, random_feeds(model, *IMAGES))
    assert proofs["rows"].cut == 1 and atoms(model)["rows"] == [4]
