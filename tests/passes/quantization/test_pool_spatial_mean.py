"""pool-spatial-mean: which means are pools, and that the pool and what follows become integer in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import int8_kit
import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import Outcome, feeds, op_types, parse, run

from irc.application import apply_pass
from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.ir import snapshot
from irc.pass_base import Context
from irc.pass_manager import PassManager
from irc.passes.quantization.pool_spatial_mean import PoolSpatialMean
from irc.pipeline import Step
from irc.recipe import level
from irc.testing import assert_conforms
from irc.testing.structure import structural_difference

PASS = PoolSpatialMean()
WEIGHTS: dict[str, Any] = {"w": (16, 16, 3, 3), "w4": (10, 16), "b4": (10,), "sh": np.array([0, -1])}
AXES = np.array([2, 3])
HEAD = "t (float[n,16,8,8] x) => (float[n,10] y{}) {{ c = Conv<pads=[1,1,1,1]>(x, w) r = Relu(c) {} }}"
DROPPED = "m = ReduceMean<axes=[2,3], keepdims=0>(r) y = Gemm<transB=1>(m, w4, b4)"
KEPT = "m = ReduceMean<axes=[2,3]>(r) f = Reshape(m, sh) y = Gemm<transB=1>(f, w4, b4)"


def _apply(model: ir.Model, target: Any = "ort") -> Outcome:
    copy = snapshot(model)
    return Outcome(copy, apply_pass(Step(PASS), copy, Context(target=target)).record)


def _becomes(nodes: str, expected: str, *, opset: int = 17, **weights: Any) -> None:
    model = parse(HEAD.format("", nodes), {**WEIGHTS, **weights}, opset=opset)
    outcome = _apply(model)
    assert outcome.rewritten == ["m"]
    wanted = parse(HEAD.format("", expected), {**WEIGHTS, "squeezed": AXES, **weights}, opset=opset)
    assert structural_difference(outcome.model, wanted) is None
    assert_conforms(PASS, model, must_fire=True, context=Context(target=OrtTarget()))
    feed = feeds(model)
    for before, after in zip(run(model, feed), run(outcome.model, feed), strict=True):
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())


def _stays(text: str, *, opset: int = 17, target: Any = "ort", **weights: Any) -> list[str]:
    outcome = _apply(parse(text, {**WEIGHTS, **weights}, opset=opset), target)
    assert outcome.rewritten == [] and "GlobalAveragePool" not in op_types(outcome.model)
    return list(outcome.skipped.values())


@pytest.mark.parametrize("axes", ["2,3", "3,2", "-2,-1", "2,-1"])
def test_attribute_axes(axes: str) -> None:
    _becomes(
        DROPPED.replace("2,3", axes),
        DROPPED.replace(
            "m = ReduceMean<axes=[2,3], keepdims=0>(r)", "p = GlobalAveragePool(r) m = Squeeze(p, squeezed)"
        ),
    )
    _becomes(KEPT.replace("2,3", axes), KEPT.replace("ReduceMean<axes=[2,3]>", "GlobalAveragePool"))


def test_axes_as_an_input() -> None:
    dropped = DROPPED.replace("ReduceMean<axes=[2,3], keepdims=0>(r)", "ReduceMean<keepdims=0>(r, over)")
    pooled = DROPPED.replace(
        "m = ReduceMean<axes=[2,3], keepdims=0>(r)", "p = GlobalAveragePool(r) m = Squeeze(p, squeezed)"
    )
    _becomes(dropped, pooled, opset=18, over=np.array([-1, 2]))


def test_an_old_model_is_converted_first() -> None:
    model = parse(HEAD.format("", DROPPED), WEIGHTS, opset=12)
    assert list(_apply(model).skipped.values()) == ["nothing behind it will read integers"]
    result = PassManager([PASS.name], verify=False).run(model, Context(target=OrtTarget())).model
    assert op_types(result) == ["Conv", "Relu", "GlobalAveragePool", "Squeeze", "Gemm"]
    assert result.graph.opset_imports[""] >= 13


@pytest.mark.parametrize("dims, axes, kernel", [("8", "2", "3"), ("8,8,8", "2,3,4", "3,3,3")])
def test_any_number_of_spatial_axes(dims: str, axes: str, kernel: str) -> None:
    text = f"""t (float[n,16,{dims}] x) => (float[n,10] y) {{ c = Conv(x, w) m = ReduceMean<axes=[{axes}], keepdims=0>(c)
        y = Gemm<transB=1>(m, w4, b4) }}"""
    model = parse(text, {**WEIGHTS, "w": (16, 16, *map(int, kernel.split(",")))})
    assert _apply(model).rewritten == ["m"]
    assert_conforms(PASS, model, must_fire=True, context=Context(target=OrtTarget()))


@pytest.mark.parametrize("axes", ["1,2,3", "2", "1", "0,2,3", "1,3"])
def test_means_over_other_axes_stay(axes: str) -> None:
    text = f"t (float[n,16,8,8] x) => (float[a,b,c,d] y) {{ m = ReduceMean<axes=[{axes}]>(x) y = Conv(m, k) }}"
    assert _stays(text, k=(16, 16, 1, 1)) == ["it does not reduce all axes behind the second, and only those"]


def test_means_over_everything_or_axes_that_callers_give_stay() -> None:
    reason = "it does not reduce all axes behind the second, and only those"
    text = "t (float[n,16,8,8] x{}) => (float[a,b,c,d] y) {{ m = ReduceMean(x{}) y = Conv(m, k) }}"
    assert _stays(text.format("", ""), k=(16, 16, 1, 1)) == [reason]
    assert _stays(text.format("", ""), opset=18, k=(16, 16, 1, 1)) == [reason]
    assert _stays(text.format(", int64[2] a", ", a"), opset=18, k=(16, 16, 1, 1)) == ["its axes are not constant"]
    matrix = "t (float[n,16] x) => (float[a,b] y) { m = ReduceMean<axes=[1]>(x) y = Gemm<transB=1>(m, k) }"
    assert _stays(matrix, k=(64, 1)) == [reason]
    nothing = (
        "t (float[n,16] x) => (float[a,b] y) { m = ReduceMean<noop_with_empty_axes=1>(x) y = Gemm<transB=1>(m, k) }"
    )
    assert _stays(nothing, opset=18, k=(64, 16)) == [reason]


def test_types_and_ranks_that_are_not_known_stay() -> None:
    reason = "its input is not known to be FLOAT and of which rank"
    model = parse(HEAD.format("", KEPT), WEIGHTS)
    source = next(node for node in model.graph if node.op_type == "ReduceMean").inputs[0]
    assert source is not None
    source.shape = None
    assert list(_apply(model).skipped.values()) == [reason]
    for dtype in ("float16", "double"):
        half = f"t ({dtype}[n,16,8,8] x) => ({dtype}[n,16,1,1] y) {{ m = ReduceMean<axes=[2,3]>(x) y = Neg(m) }}"
        assert _stays(half) == [reason]


@pytest.mark.parametrize(
    "behind", ["y = Tanh(m)", "h = Tanh(m) y = Gemm<transB=1>(h, w4, b4)", "y = custom.Gemm(m, w4)"]
)
def test_what_no_integer_operator_reads_stays(behind: str) -> None:
    text = HEAD.format("", DROPPED.partition(" y =")[0] + " " + behind)
    assert _stays(text) == ["nothing behind it will read integers"]


@pytest.mark.parametrize("target", [None, TensorRtTarget(), "tensorrt"])
def test_targets_without_an_integer_pool(target: Any) -> None:
    assert _stays(HEAD.format("", DROPPED), target=target) == []


def test_other_operators_and_domains_stay() -> None:
    for name in ("ReduceSum", "ReduceMax", "custom.ReduceMean"):
        nodes = (
            KEPT.replace("ReduceMean", name)
            if name != "ReduceSum"
            else KEPT.replace("ReduceMean<axes=[2,3]>(r)", "ReduceSum(r, a)")
        )
        assert _stays(HEAD.format("", nodes), a=AXES) == []


def test_other_readers_and_outputs_see_the_same_mean() -> None:
    text = HEAD.format(", float[n,16] m, float[n,16] k", DROPPED + " k = Neg(m)")
    model = parse(text, WEIGHTS)
    assert _apply(model).rewritten == ["m"]
    assert_conforms(PASS, model, must_fire=True, context=Context(target=OrtTarget()))


def test_in_a_body() -> None:
    text = """t (bool q, float[n,16,8,8] x) => (float[n,10] y) { y = If (q) <
        then_branch = a () => (float[n,10] p) { m = ReduceMean<axes=[2,3], keepdims=0>(x) p = Gemm<transB=1>(m, w4, b4) },
        else_branch = e () => (float[n,10] o) { k = ReduceMean<axes=[2,3], keepdims=0>(x) o = Gemm<transB=1>(k, w4, b4) }> }"""
    model = parse(text, WEIGHTS)
    assert _apply(model).rewritten == ["m", "k"]
    assert_conforms(PASS, model, must_fire=True, context=Context(target=OrtTarget()))


@pytest.mark.parametrize("nodes", [DROPPED, KEPT])
def test_pool_and_product_are_integer(nodes: str, tmp_path: Path) -> None:
    """One conversion at each end, where the mean keeps two more in the middle."""
    model = parse(
        HEAD.format("", "k = Conv<pads=[1,1,1,1]>(r, w) s = Add(k, r) z = Relu(s) " + nodes.replace("(r)", "(z)")),
        WEIGHTS,
    )
    before = int8_kit.runtime_operators(int8_kit.quantize(model).model, tmp_path)
    quantized = int8_kit.quantize(_apply(model).model)
    after = int8_kit.runtime_operators(quantized.model, tmp_path)
    assert OrtTarget().lint(quantized.model) == []
    assert (before["ReduceMean"], before["QLinearAdd"], before["QuantizeLinear"]) == (1, 0, 2)
    assert (after["QLinearGlobalAveragePool"], after["QLinearAdd"], after["QGemm"]) == (1, 1, 1)
    assert (after["QuantizeLinear"], after["DequantizeLinear"]) == (1, 0)
    assert int8_kit.noise(model, quantized.model) < 1e-3


def test_it_stands_before_quantize_and_nowhere_else() -> None:
    names = [step.pass_.name for step in level("O2", has_data=True).steps]
    assert names.index(PASS.name) < names.index("quantize")
    for name, has_data in (("O1", True), ("O2", False)):
        assert PASS.name not in [step.pass_.name for step in level(name, has_data=has_data).steps]
