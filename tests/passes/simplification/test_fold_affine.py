"""fold-affine: which scalings and shifts it takes in, which it must leave, and that the weights it makes are right."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import apply, assert_equal_after, assert_untouched, op_types, parse, statistics, weight

from irc.errors import PassOptionError
from irc.ir import constant_tensor, size_on_disk
from irc.passes.simplification import FoldAffine, linear_operator
from irc.testing import assert_conforms, assert_rewrites

PASS = FoldAffine()
RTOL = 3e-6
CONV = "float[2,3,6,6] x) => (float[2,4,4,4] y"
PADDED = "float[2,3,6,6] x) => (float[2,4,6,6] y"
GROUPED = "float[2,6,6,6] x) => (float[2,4,4,4] y"
UPSAMPLED = "float[2,6,5,5] x) => (float[2,8,10,10] y"
GEMM = "float[5,3] x) => (float[5,4] y"
PRODUCT = "float[2,n,3] x) => (float[2,n,4] y"
NORM = "float[2,4,5] x) => (float[2,4,5] y"


def _offset(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers away from zero, of both signs, different in every place."""
    count = int(np.prod(shape))
    values = 0.5 + np.arange(count) * 0.375 + len(name) * 0.125
    return (values * np.where(np.arange(count) % 2, -1, 1)).reshape(shape).astype(np.float32)


SHAPES = {
    "one": (), "s1": (1,), "s4": (1, 1, 1, 1), "o": (4, 1, 1), "o4": (1, 4, 1, 1), "i": (3, 1, 1), "i6": (1, 6, 1, 1),
    "t8": (8, 1, 1), "row4": (4,), "row14": (1, 4), "row3": (3,), "column3": (3, 1), "c": (4, 1), "row114": (1, 1, 4),
}  # fmt: skip
WEIGHTS = {
    "w": (4, 3, 3, 3), "b": (4,), "wg": (4, 3, 3, 3), "wt": (6, 4, 2, 2), "bt": (8,), "m": (3, 4), "mt": (4, 3),
    "br": (1, 4), "b0": (), "bm": (1, 1, 4), "wd": (6, 1, 3, 3), "bd": (6,), "wt1": (6, 8, 2, 2),
}  # fmt: skip
FOLDS = {
    "scale behind": (CONV, "h = Conv(x, w)  y = Mul(h, one)", "Conv"),
    "scale behind, constant first": (CONV, "h = Conv(x, w, b)  y = Mul(s1, h)", "Conv"),
    "scale behind by channel": (CONV, "h = Conv(x, w, b)  y = Mul(h, o)", "Conv"),
    "quotient behind": (CONV, "h = Conv(x, w, b)  y = Div(h, o4)", "Conv"),
    "bias behind": (CONV, "h = Conv(x, w)  y = Add(h, o)", "Conv"),
    "second bias behind": (PADDED, "h = Conv<pads=[1,1,1,1]>(x, w, b)  y = Add(o4, h)", "Conv"),
    "difference behind": (CONV, "h = Conv(x, w, b)  y = Sub(h, s4)", "Conv"),
    "difference behind, the other way": (CONV, "h = Conv(x, w, b)  y = Sub(o, h)", "Conv"),
    "affine behind": (CONV, "h = Conv(x, w)  k = Mul(h, o)  y = Add(k, o4)", "Conv"),
    "shift, then scale": (CONV, "h = Conv(x, w)  k = Sub(h, one)  y = Div(k, o4)", "Conv"),
    "scale before": (CONV, "h = Mul(x, one)  y = Conv(h, w, b)", "Conv"),
    "scale before by channel": (PADDED, "h = Div(x, i)  y = Conv<pads=[1,1,1,1]>(h, w)", "Conv"),
    "shift before": (CONV, "h = Add(x, s4)  y = Conv(h, w)", "Conv"),
    "shift before by channel": (CONV, "h = Sub(x, i)  y = Conv<auto_pad=\"VALID\">(h, w, b)", "Conv"),
    "negative before": (CONV, "h = Sub(i, x)  y = Conv(h, w, b)", "Conv"),
    "normalized input": (CONV, "h = Sub(x, i)  k = Div(h, i)  y = Conv(k, w, b)", "Conv"),
    "both sides": (CONV, "h = Mul(x, i)  k = Conv(h, w)  y = Mul(k, o)", "Conv"),
    "grouped, before": (GROUPED, "h = Mul(x, i6)  y = Conv<group=2>(h, wg, b)", "Conv"),
    "grouped, shift before": (GROUPED, "h = Add(x, i6)  y = Conv<group=2>(h, wg, b)", "Conv"),
    "grouped, behind": (GROUPED, "h = Conv<group=2>(x, wg)  k = Mul(h, o)  y = Sub(k, o)", "Conv"),
    "depthwise": ("float[2,6,6,6] x) => (float[2,6,4,4] y", "h = Mul(x, i6)  k = Conv<group=6>(h, wd, bd)  y = Mul(k, i6)", "Conv"),
    "transposed, before": (UPSAMPLED, "h = Mul(x, i6)  y = ConvTranspose<strides=[2,2]>(h, wt1)", "ConvTranspose"),
    "transposed in groups, before": (UPSAMPLED, "h = Mul(x, i6)  y = ConvTranspose<strides=[2,2], group=2>(h, wt, bt)", "ConvTranspose"),
    "transposed in groups, behind": (UPSAMPLED, "h = ConvTranspose<strides=[2,2], group=2>(x, wt, bt)  k = Mul(h, t8)  y = Add(k, t8)", "ConvTranspose"),
    "Gemm behind": (GEMM, "h = Gemm<alpha=0.7, beta=-1.3>(x, m, b)  k = Mul(h, row4)  y = Add(k, row14)", "Gemm"),
    "Gemm without bias": (GEMM, "h = Gemm<alpha=0.7>(x, m)  y = Sub(h, row4)", "Gemm"),
    "Gemm with a row of bias": (GEMM, "h = Gemm<transB=1>(x, mt, br)  y = Mul(h, row4)", "Gemm"),
    "Gemm with one bias": (GEMM, "h = Gemm(x, m, b0)  y = Mul(h, row4)", "Gemm"),
    "Gemm before": (GEMM, "h = Mul(x, row3)  k = Sub(h, row3)  y = Gemm<alpha=0.7, beta=2.0>(k, m, b)", "Gemm"),
    "Gemm before, weight transposed": (GEMM, "h = Mul(x, row3)  k = Sub(h, row3)  y = Gemm<transB=1>(k, mt)", "Gemm"),
    "Gemm before, input transposed": ("float[3,5] x) => (float[5,4] y", "h = Mul(x, column3)  k = Sub(h, column3)  y = Gemm<transA=1>(k, m, b)", "Gemm"),
    "MatMul before": (PRODUCT, "h = Mul(x, row3)  y = MatMul(h, m)", "MatMul"),
    "MatMul behind": (PRODUCT, "h = MatMul(x, m)  y = Div(h, row114)", "MatMul"),
    "MatMul of a vector": ("float[3] x) => (float[4] y", "h = MatMul(x, m)  y = Mul(h, row4)", "MatMul"),
    "biased MatMul, scale": (PRODUCT, "h = MatMul(x, m)  k = Add(h, b)  y = Mul(k, row4)", "MatMul Add"),
    "biased MatMul, scale of one bias": (PRODUCT, "h = MatMul(x, m)  k = Add(b0, h)  y = Mul(k, row4)", "MatMul Add"),
    "biased MatMul, shift": (PRODUCT, "h = MatMul(x, m)  k = Add(h, bm)  y = Sub(row4, k)", "MatMul Add"),
    "biased MatMul, before": (PRODUCT, "h = Mul(x, row3)  k = Add(h, row3)  l = MatMul(k, m)  y = Add(l, b)", "MatMul Add"),
    "biased MatMul, another bias": (PRODUCT, "h = MatMul(x, m)  k = Add(h, b)  y = Add(k, row4)", "MatMul Add"),
    "computed bias, scale before": ("float[2,3,6,6] x, float[4] v) => (float[2,4,4,4] y", "h = Mul(x, i)  y = Conv(h, w, v)", "Conv"),
    "Gemm behind, input transposed": ("float[3,5] x) => (float[5,4] y", "h = Gemm<transA=1>(x, m, b)  y = Mul(h, row4)", "Gemm"),
    "norm, before": (NORM, "h = Mul(x, c)  k = Add(h, c)  y = BatchNormalization(k, gamma, beta, mean, var)", "BatchNormalization"),
    "norm, behind": (NORM, "h = BatchNormalization<epsilon=0.01>(x, gamma, beta, mean, var)  k = Div(h, c)  y = Sub(s1, k)", "BatchNormalization"),
}  # fmt: skip


def _constants() -> dict[str, np.ndarray]:
    return {**{name: _offset(name, shape) for name, shape in SHAPES.items()}, **WEIGHTS, **statistics(4)}  # type: ignore[dict-item]


def _model(signature: str, nodes: str, opset: int = 17, **more: object) -> ir.Model:
    """A model without constants it does not use."""
    model = parse(f"g ({signature}) {{ {nodes} }}", {**_constants(), **more}, opset=opset)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    return model


@pytest.mark.parametrize("case", FOLDS)
def test_folds(case: str) -> None:
    signature, nodes, left = FOLDS[case]
    model = _model(signature, nodes)
    outcome = assert_equal_after(FoldAffine(max_bytes=64), model, rtol=RTOL, symbols=(1, 3))
    assert op_types(outcome.model) == left.split()
    assert outcome.skipped == {}


@pytest.mark.parametrize("case", FOLDS)
def test_no_fold_makes_the_file_larger(case: str) -> None:
    signature, nodes, _ = FOLDS[case]
    model = _model(signature, nodes)
    outcome = assert_equal_after(PASS, model, rtol=RTOL)
    assert size_on_disk(outcome.model) <= size_on_disk(model)
    assert all("bytes larger" in reason for reason in outcome.skipped.values())


def test_conforms_where_values_have_other_users() -> None:
    models = {case: _model(signature, nodes) for case, (signature, nodes, _) in FOLDS.items() if "MatMul" not in case}
    assert_conforms(FoldAffine(max_bytes=1 << 20), dict(list(models.items())[::4]), must_fire=True)


def test_becomes() -> None:
    assert_rewrites(
        PASS,
        f"g ({CONV}) {{ h = Conv(x, w)  k = Mul(h, o)  y = Add(k, o4) }}",
        f"g ({CONV}) {{ y = Conv(x, new, bias) }}",
        _constants(),
    )


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 21])
def test_opsets(opset: int) -> None:
    model = _model(CONV, FOLDS["normalized input"][1], opset=opset)
    assert op_types(assert_equal_after(PASS, model, rtol=RTOL).model) == ["Conv"]


def test_before_opset_7_operators_broadcast_by_attributes() -> None:
    model = _model(CONV, "h = Conv(x, w)  y = Mul<broadcast=1>(h, s1)", opset=6)
    assert assert_untouched(PASS, model) == {}


def test_half_precision_keeps_its_type() -> None:
    model = parse(
        "g (float16[2,3,6,6] x) => (float16[2,4,4,4] y) { k = Mul(x, i)  h = Conv(k, w)  y = Add(h, o) }",
        w=np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float16),
        i=_offset("i", (3, 1, 1)).astype(np.float16),
        o=_offset("o", (4, 1, 1)).astype(np.float16),
    )
    outcome = assert_equal_after(PASS, model, rtol=4e-3)
    assert op_types(outcome.model) == ["Conv"]
    assert weight(outcome.model, "w_1").dtype == weight(outcome.model, "o_1").dtype == np.float16


def test_double_precision_keeps_its_precision() -> None:
    model = parse(
        "g (double[5,3] x) => (double[5,4] y) { k = Mul(x, i)  h = Gemm(k, w)  y = Add(h, o) }",
        w=np.random.default_rng(0).normal(size=(3, 4)),
        i=np.array([0.1, 0.2, 1 / 3]),
        o=np.array([0.1, 0.2, 1 / 3, 4]),
    )
    assert op_types(assert_equal_after(PASS, model, rtol=1e-14).model) == ["Gemm"]


LEAVES = {
    "graph output between": ("float[2,3,6,6] x) => (float[2,4,4,4] y, float[2,4,4,4] h", "h = Conv(x, w)  y = Mul(h, o)", "the output of the Conv has other users"),
    "other user between": ("float[2,3,6,6] x) => (float[2,4,4,4] y, float[2,4,4,4] z", "h = Conv(x, w)  y = Mul(h, o)  z = Relu(h)", "the output of the Conv has other users"),
    "other user before": ("float[2,3,6,6] x) => (float[2,4,4,4] y, float[2,3,6,6] z", "h = Mul(x, one)  y = Conv(h, w)  z = Relu(h)", "the output of the Mul has other users"),
    "output before": ("float[2,3,6,6] x) => (float[2,4,4,4] y, float[2,3,6,6] h", "h = Mul(x, one)  y = Conv(h, w)", "the output of the Mul has other users"),
    "captured between": (
        "float[2,3,6,6] x, bool c) => (float[2,4,4,4] y, float[2,4,4,4] z",
        "h = Conv(x, w)  y = Mul(h, o)  z = If (c) <then_branch = t () => (float[2,4,4,4] p) { p = Neg(h) }, else_branch = e () => (float[2,4,4,4] q) { q = Abs(y) }>",
        "the output of the Conv has other users",
    ),
    "in a body": (
        "float[2,3,6,6] x, bool c) => (float[2,4,4,4] z",
        "h = Conv(x, w)  z = If (c) <then_branch = t () => (float[2,4,4,4] p) { p = Mul(h, o) }, else_branch = e () => (float[2,4,4,4] q) { q = Identity(zeros) }>",
        "it is in another graph than the Conv",
    ),
    "padded": (PADDED, "h = Add(x, i)  y = Conv<pads=[1,1,1,1]>(h, w)", "the Conv pads, and not with what is added here"),
    "padded by itself": (PADDED, "h = Add(x, i)  y = Conv<auto_pad=\"SAME_UPPER\">(h, w)", "the Conv pads, and not with what is added here"),
    "shift before a transposed one": (UPSAMPLED, "h = Add(x, i6)  y = ConvTranspose<strides=[2,2]>(h, wt1)", "what a ConvTranspose makes of a shift depends on the position"),
    "shift before a product": (PRODUCT, "h = Add(x, row3)  y = MatMul(h, m)", "the MatMul has no bias"),
    "negation behind a product": (PRODUCT, "h = MatMul(x, m)  y = Sub(one, h)", "the MatMul has no bias"),
    "computed weight": ("float[2,3,6,6] x, float[4,3,3,3] v) => (float[2,4,4,4] y", "h = Conv(x, v)  y = Mul(h, one)", "the weight of the Conv is not constant"),
    "computed bias": ("float[2,3,6,6] x, float[4] v) => (float[2,4,4,4] y", "h = Conv(x, w, v)  y = Mul(h, one)", "the bias of the Conv is not constant"),
    "computed bias, shift before": ("float[2,3,6,6] x, float[4] v) => (float[2,4,4,4] y", "h = Add(x, one)  y = Conv(h, w, v)", "the bias of the Conv is not constant"),
    "bias by row": (GEMM, "h = Gemm(x, m, rows)  y = Mul(h, one)", "the bias of the Gemm differs from row to row"),
    "along another axis": ("float[2,3,6,6] x) => (float[2,4,4,4] y", "h = Conv(x, w)  y = Mul(h, row4)", "its constant is not known to be one number, or one for each channel of the Conv"),
    "along the batch": ("float[2,3,6,6] x) => (float[2,4,4,4] y", "h = Conv(x, w)  y = Mul(h, batch)", "its constant is not known to be one number, or one for each channel of the Conv"),
    "that enlarges the output": ("float[2,3,6,6] x) => (float[1,2,4,4,4] y", "h = Conv(x, w)  y = Mul(h, s5)", "its constant is not known to be one number, or one for each channel of the Conv"),
    "that enlarges one channel": ("float[2,3,6,6] x) => (float[2,4,4,4] y", "h = Conv(x, single)  y = Mul(h, o)", "its constant is not known to be one number, or one for each channel of the Conv"),
    "that makes channels before": ("float[2,1,6,6] x) => (float[2,4,4,4] y", "h = Mul(x, i)  y = Conv(h, w)", "its constant is not known to be one number, or one for each channel of the Conv"),
    "that makes axes before": ("float[3,6,6] x) => (float[1,4,4,4] y", "h = Mul(x, s4)  y = Conv(h, w)", "its constant is not known to be one number, or one for each channel of the Conv"),
    "of unknown rank before": ("float[n] x, int64[k] s) => (float[2,4,4,4] y", "r = Reshape(x, s)  h = Mul(r, s4)  y = Conv(h, w)", "its constant is not known to be one number, or one for each channel of the Conv"),
    "of unknown channels before": ("float[2,k,6,6] x) => (float[2,4,4,4] y", "h = Mul(x, i)  y = Conv(h, w)", "its constant is not known to be one number, or one for each channel of the Conv"),
    "rows of a product": ("float[3,3] x) => (float[3,4] y", "h = Mul(x, column3)  y = MatMul(h, m)", "its constant is not known to be one number, or one for each channel of the MatMul"),
    "that makes a vector of a number before": ("float x) => (float[4] y", "h = Mul(x, row3)  y = MatMul(h, m)", "its constant is not known to be one number, or one for each channel of the MatMul"),
    "bias of a product in a body": (
        "float[5,3] x, bool c) => (float[5,4] y",
        "k = Add(x, row3)  h = MatMul(k, m)  y = If (c) <then_branch = t () => (float[5,4] p) { p = Add(h, b) }, else_branch = e () => (float[5,4] q) { q = Identity(full) }>",
        "the MatMul has no bias",
    ),
    "bias of another length": (GEMM, "h = Gemm(x, m, row3)  y = Mul(h, one)", "the bias of the Gemm differs from row to row"),
    "columns of a transposed input": ("float[3,3] x) => (float[3,4] y", "h = Mul(x, row3)  y = Gemm<transA=1>(h, m, b)", "its constant is not known to be one number, or one for each channel of the Gemm"),
    "product by a stack": ("float[2,5,3] x) => (float[2,5,4] y", "h = MatMul(x, stack)  y = Mul(h, one)", "the weight of the MatMul is not a matrix"),
    "zero": (CONV, "h = Conv(x, w)  y = Mul(h, zero)", "it multiplies by zero, or by what is no finite number"),
    "zero in one channel": (CONV, "h = Conv(x, w)  y = Mul(h, some)", "it multiplies by zero, or by what is no finite number"),
    "division by zero": (CONV, "h = Conv(x, w)  y = Div(h, zero)", "it multiplies by zero, or by what is no finite number"),
    "infinity": (CONV, "h = Conv(x, w)  y = Mul(h, inf)", "it multiplies by zero, or by what is no finite number"),
    "division by infinity": (CONV, "h = Conv(x, w)  y = Div(h, inf)", "it multiplies by zero, or by what is no finite number"),
    "infinite shift": (CONV, "h = Conv(x, w)  y = Add(h, inf)", "it multiplies by zero, or by what is no finite number"),
    "NaN": (CONV, "h = Conv(x, w)  y = Mul(h, nan)", "it multiplies by zero, or by what is no finite number"),
    "too large": (CONV, "h = Conv(x, w)  k = Tanh(h)  y = Conv(x, huge)  z = Mul(y, large)", "the weight of the Conv would not fit FLOAT"),
    "too small": (CONV, "h = Conv(x, w, b)  y = Mul(h, tiny)", "the weight of the Conv would not fit FLOAT"),
    "too small in one channel": (CONV, "h = Conv(x, w, b)  y = Mul(h, tiny_channel)", "the weight of the Conv would not fit FLOAT"),
    "too small for small weights": (CONV, "h = Conv(x, small_w)  y = Mul(h, small)", "the weight of the Conv would not fit FLOAT"),
    "bias too large": (CONV, "h = Conv(x, w, large4)  y = Mul(h, thousand)", "the bias of the Conv would not fit FLOAT"),
    "bias too small": (CONV, "h = Conv(x, w, small4)  y = Mul(h, small)", "the bias of the Conv would not fit FLOAT"),
    "norm too large": (NORM, "h = Mul(x, small)  y = BatchNormalization(h, gamma, beta, large4, var)", "the numbers of the BatchNormalization would not fit FLOAT"),
    "norm in training": ("float[2,4,5] x) => (float[2,4,5] y", "h = Mul(x, c)  y, m1, v1 = BatchNormalization<training_mode=1>(h, gamma, beta, mean, var)", "of the BatchNormalization: it is in training mode"),
    "norm of computed statistics": ("float[2,4,5] x, float[4] v) => (float[2,4,5] y", "h = Mul(x, c)  y = BatchNormalization(h, gamma, beta, v, var)", "the statistics of the BatchNormalization are not constant"),
    "norm of unknown rank": ("float[n] x, int64[k] s) => (float[2,4,5] y", "r = Reshape(x, s)  h = Mul(r, s1)  y = BatchNormalization(h, gamma, beta, mean, var)", "its constant is not known to be one number, or one for each channel of the BatchNormalization"),
    "norm of a vector": ("float[4] x) => (float[4] y", "h = Mul(x, row4)  y = BatchNormalization(h, s1, s1, s1, s1)", "its constant is not known to be one number, or one for each channel of the BatchNormalization"),
    "norm, other axis": ("float[2,4,4] x) => (float[2,4,4] y", "h = Mul(x, row4)  y = BatchNormalization(h, gamma, beta, mean, var)", "its constant is not known to be one number, or one for each channel of the BatchNormalization"),
}  # fmt: skip
FURTHER = {
    "rows": _offset("rows", (5, 1)), "batch": _offset("batch", (2, 1, 1, 1)), "s5": _offset("s", (1, 1, 1, 1, 1)),
    "single": _offset("s", (1, 3, 3, 3)), "stack": _offset("s", (2, 3, 4)), "zeros": np.zeros((2, 4, 4, 4), np.float32),
    "zero": np.float32(0), "some": np.array([1, 0, 2, 3], np.float32).reshape(4, 1, 1), "inf": np.float32(np.inf),
    "nan": np.float32(np.nan), "large": np.float32(1e30), "huge": np.full((4, 3, 3, 3), 1e20, np.float32),
    "tiny": np.float32(1e-38 / 8), "tiny_channel": np.array([1, 1, 1e-40, 1], np.float32).reshape(4, 1, 1),
    "large4": np.full(4, 1e37, np.float32), "thousand": np.float32(1e3), "small4": np.full(4, 1e-30, np.float32),
    "small": np.float32(1e-9), "small_w": np.full((4, 3, 3, 3), 1e-30, np.float32), "full": _offset("f", (5, 4)),
}  # fmt: skip


@pytest.mark.parametrize("case", LEAVES)
def test_leaves(case: str) -> None:
    signature, nodes, reason = LEAVES[case]
    if case == "too large":
        nodes, signature = "h = Conv(x, huge)  y = Mul(h, large)", CONV
    skipped = assert_untouched(FoldAffine(max_bytes=1 << 20), _model(signature, nodes, **FURTHER))
    assert list(skipped.values()) == [reason]


def test_what_is_not_affine_is_not_mentioned() -> None:
    for nodes in (
        "h = Conv(x, w)  y = Div(one, h)",
        "h = Conv(x, w)  y = Mul(h, h)",
        "h = Conv(x, w)  y = Mul(h, full)",
        "h = Conv(x, w)  y = custom.Mul(h, one)",
        "h = custom.Conv(x, w)  y = Mul(h, one)",
        "h = Tanh(x)  y = Conv(h, w)",
    ):
        model = _model(CONV, nodes, full=_offset("f", (1, 4, 4, 1)))
        assert assert_untouched(PASS, model) == {}
    assert assert_untouched(PASS, _model(PRODUCT, "h = MatMul(x, m)  y = Add(h, b)")) == {}


def test_what_is_constant_or_whole_altogether_is_not_mentioned() -> None:
    image = "float[2,4,4,4] x) => (float[2,4,4,4] y"
    nodes = "h = Mul(s4, image)  k = Conv(h, w)  y = Add(x, k)"
    assert assert_untouched(PASS, _model(image, nodes, image=_offset("i", (1, 3, 6, 6)))) == {}
    whole = "g (int32[2,3] x) => (int32[2,4] y) { h = MatMul(x, n)  y = Mul(h, two) }"
    assert assert_untouched(PASS, parse(whole, n=np.ones((3, 4), np.int32), two=np.int32(2))) == {}


def test_a_product_that_another_tool_has_worked_out_is_a_constant() -> None:
    image = "float[2,4,4,4] x) => (float[2,4,4,4] y"
    model = _model(image, "h = Conv(image, w)  y = Mul(h, x)", image=_offset("i", (1, 3, 3, 3)))
    next(iter(model.graph)).outputs[0].const_value = ir.tensor(np.ones((1, 4, 1, 1), np.float32))
    assert assert_untouched(PASS, model) == {}


def test_an_omitted_bias_is_none() -> None:
    for nodes, inputs in (
        ("h = Conv(x, w)  y = Mul(h, o)", ["x", "w_1"]),
        ("h = Conv(x, w)  y = Add(h, o)", ["x", "w", "o_1"]),
        ("h = Add(x, i)  y = Conv(h, w)", ["x", "w", "i_1"]),
    ):
        model = _model(CONV, nodes)
        next(node for node in model.graph if node.op_type == "Conv").resize_inputs(3)
        (conv,) = assert_equal_after(PASS, model, rtol=RTOL).model.graph
        assert [value.name for value in conv.inputs if value is not None] == inputs


def test_a_bias_of_no_channels() -> None:
    nodes = "h = MatMul(x, none)  k = Add(h, nothing)  y = Mul(k, one)"
    model = _model(
        "float[2,3] x) => (float[2,0] y", nodes, none=np.ones((3, 0), np.float32), nothing=np.ones(0, np.float32)
    )
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["MatMul", "Add"]


def test_one_number_fits_channels_that_are_not_known() -> None:
    model = _model("float[2,k,6,6] x) => (float[2,4,4,4] y", "h = Mul(x, one)  y = Conv(h, w, b)")
    assert op_types(assert_equal_after(PASS, model, rtol=RTOL).model) == ["Conv"]


def test_a_product_by_no_constant_matrix_has_no_bias_to_use() -> None:
    computed = "float[2,5,3] x, float[3,4] v) => (float[2,5,4] y"
    assert assert_untouched(PASS, _model(computed, "h = MatMul(x, v)  k = Add(h, b)  y = Mul(k, row4)")) == {}
    stack = "float[2,5,3] x) => (float[2,5,4] y"
    assert (
        assert_untouched(PASS, _model(stack, "h = MatMul(x, stack)  k = Add(h, b)  y = Mul(k, row4)", **FURTHER)) == {}
    )


def test_an_unknown_window_is_no_reason_to_guess() -> None:
    source = 'h = Add(x, i)  y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(h, w)'
    model = _model("float[2,3,a,b] x) => (float[2,4,c,d] y", source.replace("i)", "one)"))
    assert "pads" in assert_untouched(PASS, model)["h"]


def test_the_second_add_behind_a_product_is_not_taken_for_its_bias_if_it_enlarges() -> None:
    model = _model("float[5,3] x) => (float[5,4] y", "h = MatMul(x, m)  k = Add(h, rows)  y = Mul(k, one)", **FURTHER)
    assert op_types(assert_equal_after(PASS, model, rtol=RTOL).model) == ["MatMul", "Add", "Mul"]
    shared = _model(
        "float[5,3] x) => (float[5,4] y, float[5,4] h", "h = MatMul(x, m)  k = Add(h, b)  y = Mul(k, one)", **FURTHER
    )
    assert op_types(assert_equal_after(PASS, shared, rtol=RTOL).model) == ["MatMul", "Add", "Mul"]


def test_constants_that_callers_may_override_are_not_constant() -> None:
    for name, expected in (
        ("w", "the weight of the Conv is not constant"),
        ("b", "the bias of the Conv is not constant"),
    ):
        model = _model(CONV, "h = Conv(x, w, b)  y = Mul(h, o)")
        model.graph.inputs.append(model.graph.initializers[name])
        assert assert_untouched(PASS, model) == {"y": expected}
    model = _model(CONV, "h = Conv(x, w, b)  y = Mul(h, o)")
    model.graph.inputs.append(model.graph.initializers["o"])
    assert assert_untouched(PASS, model) == {}


def test_a_shared_weight_stays_and_is_copied_only_if_asked() -> None:
    nodes = "h = Conv(x, w)  y = Mul(h, o)  z = Conv(x, w)"
    signature = "float[2,3,6,6] x) => (float[2,4,4,4] y, float[2,4,4,4] z"
    assert "bytes larger" in assert_untouched(PASS, _model(signature, nodes))["y"]
    outcome = assert_equal_after(FoldAffine(max_bytes=1000), model := _model(signature, nodes), rtol=RTOL)
    assert op_types(outcome.model) == ["Conv", "Conv"]
    np.testing.assert_array_equal(weight(outcome.model, "w"), weight(model, "w"))
    two = _model(
        signature, nodes.replace("z = Conv(x, w)", "k = Conv(x, w)  z = Mul(k, i4)"), i4=_offset("i", (4, 1, 1))
    )
    assert op_types(assert_equal_after(FoldAffine(max_bytes=1000), two, rtol=RTOL).model) == ["Conv", "Conv"]


def test_a_shared_constant_stays_for_its_other_users() -> None:
    model = _model(
        "float[2,3,6,6] x) => (float[2,4,4,4] y, float[4,1,1] z", "h = Conv(x, w)  y = Mul(h, o)  z = Tanh(o)"
    )
    outcome = assert_equal_after(PASS, model, rtol=RTOL)
    assert op_types(outcome.model) == ["Conv", "Tanh"] and "o" in outcome.model.graph.initializers


def test_a_new_bias_is_called_as_what_it_was_made_of_unless_that_stays() -> None:
    model = _model(CONV, "h = Conv(x, w)  y = Add(h, o)")
    assert next(iter(apply(PASS, model).model.graph)).inputs[2].name == "o_1"
    signature = "float[2,3,6,6] x) => (float[2,4,4,4] y, float[4,1,1] z"
    shared = _model(signature, "h = Conv(x, w)  y = Add(h, o)  z = Tanh(o)")
    assert next(iter(apply(FoldAffine(max_bytes=64), shared).model.graph)).inputs[2].name == "bias"


def test_a_weight_that_goes_takes_its_long_name_with_it() -> None:
    long = "w" * 60
    outcome = assert_equal_after(
        PASS, _model(CONV, f"h = Conv(x, {long})  y = Mul(h, one)", **{long: WEIGHTS["w"]}), rtol=RTOL
    )
    assert op_types(outcome.model) == ["Conv"]


@pytest.mark.parametrize("users", [1, 2, 5])
@pytest.mark.parametrize(("first", "second"), [("h", "k"), ("h" * 40, "k"), ("h", "k" * 40)])
def test_names_count(first: str, second: str, users: int) -> None:
    """Whoever read the node that goes says the name of the other one from then on."""
    outputs = ", ".join(f"float[2,4,4,4] y{i}" for i in range(users))
    nodes = "  ".join(f"y{i} = Neg({second})" for i in range(users))
    model = _model(f"float[2,3,6,6] x) => ({outputs}", f"{first} = Conv(x, w)  {second} = Mul({first}, one)  {nodes}")
    outcome = assert_equal_after(PASS, model, rtol=RTOL)
    assert size_on_disk(outcome.model) <= size_on_disk(model)
    assert ("Mul" in op_types(outcome.model)) == (len(first) > 1 and users > 1)


def test_max_bytes() -> None:
    with pytest.raises(PassOptionError, match="max_bytes is -1"):
        FoldAffine(max_bytes=-1)


def test_bodies() -> None:
    model = _model(
        "bool on, float[2,3,6,6] x) => (float[2,4,4,4] y",
        """y = If (on) <then_branch = t () => (float[2,4,4,4] p) { h = Mul(x, i)  k = Conv(h, w)  p = Add(k, o) },
        else_branch = e () => (float[2,4,4,4] q) { l = Conv(x, wg)  q = Mul(o, l) }>""",
    )
    outcome = assert_equal_after(FoldAffine(max_bytes=64), model, rtol=RTOL, symbols=(1, 2, 3))
    assert op_types(outcome.model) == ["If", "Conv", "Conv"]
    loop = _model(
        "float[5,4] x) => (float[5,4] y",
        """y = Loop (three, , x) <body = b (int64 i, bool go, float[5,4] s) => (bool on, float[5,4] t) {
            h = MatMul(s, square)  t = Mul(h, row4)  on = Identity(go) }>""",
        three=np.array(3), square=np.eye(4, dtype=np.float32) * 0.5 + 0.1,
    )  # fmt: skip
    assert op_types(assert_equal_after(PASS, loop, rtol=RTOL).model) == ["Loop", "MatMul", "Identity"]


def test_a_large_weight_is_scaled_when_it_is_read_and_not_before() -> None:
    def model(factor: float) -> ir.Model:
        return parse(
            "g (float[1,256,4,4] x) => (float[1,256,2,2] y) { h = Conv(x, w)  y = Mul(h, s) }",
            w=(256, 256, 3, 3),
            s=np.float32(factor),
        )

    outcome = assert_equal_after(PASS, model(0.3), rtol=RTOL)
    made = next(iter(outcome.model.graph)).inputs[1]
    assert isinstance(constant_tensor(made), ir.LazyTensor)
    assert list(assert_untouched(PASS, model(1e-20)).values()) == ["the weight of the Conv would not fit FLOAT"]


@pytest.mark.parametrize("factor", [6e4, 1e-7])
def test_a_large_weight_of_half_precision_is_looked_at_all_the_same(factor: float) -> None:
    model = parse(
        "g (float16[1,256,4,4] x) => (float16[1,256,2,2] y) { h = Conv(x, w)  y = Mul(h, s) }",
        w=np.random.default_rng(0).normal(size=(256, 256, 3, 3)).astype(np.float16),
        s=np.float16(factor),
    )
    assert list(assert_untouched(PASS, model).values()) == ["the weight of the Conv would not fit FLOAT16"]


@pytest.mark.parametrize("case", [case for case in FOLDS if "before" in case])
def test_a_weight_is_read_block_by_block(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_operator, "BLOCK_BYTES", 1)
    signature, nodes, left = FOLDS[case]
    outcome = assert_equal_after(FoldAffine(max_bytes=64), _model(signature, nodes), rtol=RTOL)
    assert op_types(outcome.model) == left.split()


def test_the_output_keeps_its_name_and_the_host_its_own() -> None:
    model = _model(CONV, "h = Conv(x, w)  y = Mul(h, o)")
    conv = next(iter(model.graph))
    conv.name = "the_conv"
    (folded,) = apply(PASS, model).model.graph
    assert (folded.name, folded.outputs[0].name, folded.outputs[0].is_graph_output()) == ("the_conv", "y", True)
