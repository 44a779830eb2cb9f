"""fold-batch-norm: what it folds, what it must leave, and that the weights it makes are right, fresh and lazy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import assert_equal_after, assert_untouched, op_types, parse, statistics, weight

from irc.ir import constant_tensor
from irc.passes.simplification import FoldBatchNorm

PASS = FoldBatchNorm()


@pytest.mark.parametrize(
    ("shapes", "conv", "weights"),
    [
        pytest.param("float[2,3,8,8] x) => (float[2,4,8,8] y", "Conv<pads=[1,1,1,1]>(x, w)", {"w": (4, 3, 3, 3)}, id="2d"),
        pytest.param("float[2,6,8,8] x) => (float[2,4,6,6] y", "Conv<group=2>(x, w, b)", {"w": (4, 3, 3, 3), "b": (4,)}, id="grouped with bias"),
        pytest.param("float[2,4,8,8] x) => (float[2,8,4,4] y", "Conv<group=4, strides=[2,2]>(x, w)", {"w": (8, 1, 1, 1)}, id="depthwise"),
        pytest.param("float[2,4,9] x) => (float[2,8,9] y", "Conv<pads=[1,1]>(x, w, b)", {"w": (8, 4, 3), "b": (8,)}, id="1d"),
        pytest.param("float[1,2,4,4,4] x) => (float[1,3,3,3,3] y", "Conv(x, w)", {"w": (3, 2, 2, 2, 2)}, id="3d"),
        pytest.param("float[2,6,5,5] x) => (float[2,4,10,10] y", "ConvTranspose<strides=[2,2]>(x, w)", {"w": (6, 4, 2, 2)}, id="transposed"),
        pytest.param("float[2,6,5,5] x) => (float[2,8,10,10] y", "ConvTranspose<strides=[2,2], group=2>(x, w, b)", {"w": (6, 4, 2, 2), "b": (8,)}, id="transposed in groups"),
        pytest.param("float[5,3] x) => (float[5,4] y", "Gemm(x, w)", {"w": (3, 4)}, id="gemm without bias"),
        pytest.param("float[5,3] x) => (float[5,4] y", "Gemm<transB=1, alpha=0.7, beta=-1.3>(x, w, b)", {"w": (4, 3), "b": (4,)}, id="gemm with factors"),
        pytest.param("float[3,5] x) => (float[5,4] y", "Gemm<transA=1>(x, w, b)", {"w": (3, 4), "b": (1, 4)}, id="gemm with row bias"),
        pytest.param("float[5,3] x) => (float[5,4] y", "Gemm(x, w, b)", {"w": (3, 4), "b": ()}, id="gemm with scalar bias"),
        pytest.param("float[n,3] x) => (float[n,4] y", "MatMul(x, w)", {"w": (3, 4)}, id="matrix product"),
    ],
)  # fmt: skip
def test_folds(shapes: str, conv: str, weights: dict[str, tuple[int, ...]]) -> None:
    channels = 8 if "[2,8" in shapes else 3 if "[1,3," in shapes else 4
    model = parse(
        f"g ({shapes}) {{ h = {conv}  y = BatchNormalization<epsilon=0.01>(h, gamma, beta, mean, var) }}",
        weights,
        **statistics(channels),
    )
    outcome = assert_equal_after(PASS, model, rtol=2e-6)
    expected = "Gemm" if conv.startswith("MatMul") else conv.partition("(")[0].partition("<")[0]
    assert op_types(outcome.model) == [expected]
    assert outcome.rewritten == ["y"] and outcome.skipped == {}
    assert set(outcome.model.graph.initializers) == {"y.weight", "y.bias"}, "old weights and statistics are gone"


@pytest.mark.parametrize("opset", [9, 11, 13, 14, 15, 21])
def test_folds_every_form_of_batch_normalization(opset: int) -> None:
    model = parse(CONV, opset=opset, w=(4, 3, 3, 3), **statistics(4))
    assert op_types(assert_equal_after(PASS, model, rtol=2e-6).model) == ["Conv"]


def test_the_default_epsilon_counts() -> None:
    small = np.full(4, 1e-6, np.float32)
    model = parse(CONV, w=(4, 3, 3, 3), **{**statistics(4), "var": small})
    assert_equal_after(PASS, model, rtol=2e-6)


def test_mixed_precision_keeps_the_type_of_the_weight() -> None:
    model = parse(
        "g (float16[1,3,6,6] x) => (float16[1,4,4,4] y) { h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, mean, var) }",
        opset=15,
        w=np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float16),
        **statistics(4),
    )
    outcome = assert_equal_after(PASS, model, rtol=4e-3)
    assert weight(outcome.model, "y.weight").dtype == weight(outcome.model, "y.bias").dtype == np.float16


def test_convolutions_that_share_weight_and_statistics_get_their_own() -> None:
    model = parse(
        """g (float[1,3,8,8] x, float[1,3,8,8] z) => (float[1,4,6,6] y, float[1,4,6,6] u, float[1,4,6,6] v) {
        h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, mean, var)
        k = Conv(z, w)  u = BatchNormalization(k, beta, gamma, mean, var)
        v = Conv(z, w) }""",
        w=(4, 3, 3, 3),
        **statistics(4),
    )
    outcome = assert_equal_after(PASS, model, rtol=2e-6)
    assert outcome.rewritten == ["y", "u"]
    assert set(outcome.model.graph.initializers) == {"w", "y.weight", "y.bias", "u.weight", "u.bias"}
    np.testing.assert_array_equal(weight(outcome.model, "w"), weight(model, "w"))


def test_new_names_avoid_taken_ones() -> None:
    model = parse(CONV.replace("(x, w)", "(x, w1)"), w1=(4, 3, 3, 3), **statistics(4))
    _rename(model, "w1", "y.weight")
    outcome = assert_equal_after(PASS, model, rtol=2e-6)
    assert set(outcome.model.graph.initializers) == {"y.weight_1", "y.bias"}


def test_the_folded_node_belongs_to_the_module_of_the_convolution() -> None:
    model = parse(CONV, w=(4, 3, 3, 3), **statistics(4))
    conv, norm = model.graph
    conv.metadata_props["irc.module"], norm.metadata_props["irc.module"] = "layer1.conv", "layer1.norm"
    conv.name = "the_conv"
    (folded,) = assert_equal_after(PASS, model, rtol=2e-6).model.graph
    assert (folded.name, folded.metadata_props) == ("the_conv", {"irc.module": "layer1.conv"})


def test_folds_inside_a_body() -> None:
    model = parse(
        """g (bool c, float[1,3,8,8] x) => (float[1,4,6,6] y) { y = If (c) <
        then_branch = t () => (float[1,4,6,6] p) { h = Conv(x, w)  p = BatchNormalization(h, gamma, beta, mean, var) },
        else_branch = e () => (float[1,4,6,6] q) { k = Conv(x, w)  q = Neg(k) }> }""",
        w=(4, 3, 3, 3),
        **statistics(4),
    )
    outcome = assert_equal_after(PASS, model, rtol=2e-6, symbols=(0,) * 4)
    assert op_types(outcome.model) == ["If", "Conv", "Conv", "Neg"]


CONV = (
    "g (float[1,3,8,8] x) => (float[1,4,6,6] y) { h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, mean, var) }"
)
REASONS = {
    "graph output": (
        "g (float[1,3,8,8] x) => (float[1,4,6,6] y, float[1,4,6,6] h) { h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, mean, var) }",
        "the output of the Conv before it has other users",
        {"w": (4, 3, 3, 3)},
    ),
    "shared output": (
        "g (float[1,3,8,8] x) => (float[1,4,6,6] y, float[1,4,6,6] z) { h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, mean, var)  z = Relu(h) }",
        "the output of the Conv before it has other users",
        {"w": (4, 3, 3, 3)},
    ),
    "captured output": (
        """g (float[1,3,8,8] x, bool c) => (float[1,4,6,6] y, float[1,4,6,6] z) {
        h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, mean, var)
        z = If (c) <then_branch = t () => (float[1,4,6,6] p) { p = Neg(h) }, else_branch = e () => (float[1,4,6,6] q) { q = Abs(y) }> }""",
        "the output of the Conv before it has other users",
        {"w": (4, 3, 3, 3)},
    ),
    "in a body, convolution outside": (
        """g (float[1,3,8,8] x, bool c) => (float[1,4,6,6] z) { h = Conv(x, w)
        z = If (c) <then_branch = t () => (float[1,4,6,6] p) { p = BatchNormalization(h, gamma, beta, mean, var) }, else_branch = e () => (float[1,4,6,6] q) { q = Neg(zeros) }> }""",
        "it is in another graph than the Conv before it",
        {"w": (4, 3, 3, 3), "zeros": (1, 4, 6, 6)},
    ),
    "computed weight": (
        "g (float[1,3,8,8] x, float[4,3,3,3] w) => (float[1,4,6,6] y) { h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, mean, var) }",
        "weight or bias of the Conv before it is not constant",
        {},
    ),
    "computed bias": (
        "g (float[1,3,8,8] x, float[4] b) => (float[1,4,6,6] y) { h = Conv(x, w, b)  y = BatchNormalization(h, gamma, beta, mean, var) }",
        "weight or bias of the Conv before it is not constant",
        {"w": (4, 3, 3, 3)},
    ),
    "computed statistics": (
        "g (float[1,3,8,8] x, float[4] m) => (float[1,4,6,6] y) { h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, m, var) }",
        "its statistics are not constant",
        {"w": (4, 3, 3, 3)},
    ),
    "training mode": (
        "g (float[2,3,8,8] x) => (float[2,4,6,6] y) { h = Conv(x, w)  y, m, v = BatchNormalization<training_mode=1>(h, gamma, beta, mean, var) }",
        "it is in training mode",
        {"w": (4, 3, 3, 3)},
    ),
    "training mode without the new statistics": (
        "g (float[2,3,8,8] x) => (float[2,4,6,6] y) { h = Conv(x, w)  y = BatchNormalization<training_mode=1>(h, gamma, beta, mean, var) }",
        "it is in training mode",
        {"w": (4, 3, 3, 3)},
    ),
    "activation between": (
        "g (float[1,3,8,8] x) => (float[1,4,6,6] y) { h = Conv(x, w)  r = Relu(h)  y = BatchNormalization(r, gamma, beta, mean, var) }",
        "its input is not a Conv, ConvTranspose, Gemm or MatMul",
        {"w": (4, 3, 3, 3)},
    ),
    "first in the graph": (
        "g (float[1,4,6,6] x) => (float[1,4,6,6] y) { y = BatchNormalization(x, gamma, beta, mean, var) }",
        "its input is not a Conv, ConvTranspose, Gemm or MatMul",
        {},
    ),
    "MatMul of rank 3": (
        "g (float[2,4,3] x) => (float[2,4,4] y) { h = MatMul(x, square)  y = BatchNormalization(h, gamma, beta, mean, var) }",
        "the MatMul before it is not known to be a product of two matrices",
        {"square": (3, 4)},
    ),
    "Gemm with a bias per row": (
        "g (float[4,3] x) => (float[4,4] y) { h = Gemm(x, square, rows)  y = BatchNormalization(h, gamma, beta, mean, var) }",
        "the bias of the Gemm before it differs from row to row",
        {"square": (3, 4), "rows": (4, 1)},
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_leaves(case: str) -> None:
    source, reason, weights = REASONS[case]
    model = parse(source, weights, **statistics(4))
    assert list(assert_untouched(PASS, model).values()) == [reason]


def test_leaves_a_weight_that_callers_may_override() -> None:
    model = parse(CONV, w=(4, 3, 3, 3), **statistics(4))
    for name in ("w", "gamma"):
        overridable = model.clone()
        overridable.graph.inputs.append(overridable.graph.initializers[name])
        assert "not constant" in assert_untouched(PASS, overridable)["y"]


def test_leaves_batch_normalization_before_opset_9() -> None:
    model = parse(CONV, opset=8, w=(4, 3, 3, 3), **statistics(4))
    assert assert_untouched(PASS, model)["y"].startswith("BatchNormalization of opset 8 is not folded")


def test_before_opset_14_more_outputs_mean_training() -> None:
    source = CONV.replace("y = B", "y, m, v, sm, sv = B")
    assert (
        assert_untouched(PASS, parse(source, opset=9, w=(4, 3, 3, 3), **statistics(4)))["y"] == "it is in training mode"
    )


def test_leaves_a_variance_that_is_not_positive() -> None:
    model = parse(CONV, w=(4, 3, 3, 3), **{**statistics(4), "var": np.array([1, 2, -1, 1], np.float32)})
    assert assert_untouched(PASS, model)["y"] == "its variance plus epsilon is not positive in every channel"


def test_leaves_half_precision_that_would_overflow() -> None:
    half = {
        name: np.full(4, value, np.float16)
        for name, value in (("gamma", 60000), ("beta", 0), ("mean", 0), ("var", 1e-4))
    }
    model = parse(
        "g (float16[1,3,8,8] x) => (float16[1,4,6,6] y) { h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, mean, var) }",
        w=np.ones((4, 3, 3, 3), np.float16),
        **half,
    )
    assert assert_untouched(PASS, model)["y"] == "the folded weight or bias does not fit FLOAT16"


def test_a_large_weight_is_scaled_when_it_is_read_and_not_before() -> None:
    model = parse(
        "g (float[1,256,4,4] x) => (float[1,256,2,2] y) { h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, mean, var) }",
        w=(256, 256, 3, 3),
        **statistics(256),
    )
    reads = []
    original = constant_tensor(model.graph.initializers["w"])
    assert original is not None

    def read() -> ir.TensorProtocol:
        reads.append(1)
        return original

    model.graph.initializers["w"].const_value = ir.LazyTensor(
        read, ir.DataType.FLOAT, ir.Shape((256, 256, 3, 3)), name="w"
    )
    outcome = assert_equal_after(PASS, model, rtol=2e-6)
    reads.clear()
    FoldBatchNorm().rewrite(next(iter(PASS.sites(model, None))), None)  # type: ignore[arg-type]
    assert reads == [], "folding does not touch the weight"
    tensor = outcome.model.graph.initializers["y.weight"].const_value
    assert (
        isinstance(tensor, ir.LazyTensor)
        and tensor.dtype == ir.DataType.FLOAT
        and tuple(tensor.shape) == (256, 256, 3, 3)
    )


def _rename(model: ir.Model, old: str, new: str) -> None:
    value = model.graph.initializers.pop(old)
    value.name = new
    value.const_value.name = new  # type: ignore[union-attr]
    model.graph.register_initializer(value)
