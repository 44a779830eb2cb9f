"""Every operator that is quantized, against float within what the quantization steps imply, element by element.

How tight the bound is, is shown by faults planted into the scales and zero points of every DequantizeLinear, each of which
must break it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import int8_kit
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pass_kit
import pytest
from error_bound import Bound

from irc.backends.ort import OrtTarget
from irc.ir import snapshot
from irc.passes.quantization.quantize_weights import QuantizeWeights

Array = pass_kit.Array


@dataclasses.dataclass(frozen=True)
class Case:
    """A float graph whose weights are made from shapes.

    Attributes:
        name: Its test id.
        graph: In the text of `pass_kit.parse`.
        weights: Shapes, or arrays; the last letter of a name tells the channel axis: w0, w1.
        sites: Ids that the pass must rewrite.
    """

    name: str
    graph: str
    weights: dict[str, Any]
    sites: Sequence[str] = ("y",)


def conv(name: str, x: str, w: tuple[int, ...], attributes: str = "group=1") -> Case:
    """One Conv with a bias."""
    return Case(name, f"g (float[{x}] x) => (float y) {{ y = Conv<{attributes}>(x, w0, b) }}", {"w0": w, "b": (w[0],)})


def gemm(attributes: str, bias: tuple[int, ...] | None) -> Case:
    """One Gemm."""
    weight = {"w0": (8, 12)} if "transB" in attributes else {"w1": (12, 8)}
    weights: dict[str, Any] = weight | ({} if bias is None else {"large": bias})
    text = f"g (float[12,12] x) => (float y) {{ y = Gemm<{attributes}>(x, {', '.join(weights)}) }}"
    return Case(f"Gemm {attributes}, bias {bias}", text, weights)


def moved(name: str, between: str, sites: Sequence[str] = ("c", "y")) -> Case:
    """Data moved between two Convs."""
    constants = {
        "ids": np.array([3, 1, 0, 2, 7, 6, 5, 4]), "first": np.array([0, 0, 1, 1]), "last": np.array([1, 8, 4, 5]),
        "shape": np.array([1, 8, 9, 4]), "edges": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "low": np.float32(-30),
    }  # fmt: skip
    graph = (
        f"g (float[1,4,6,6] x) => (float y) {{ c = Conv<pads=[1,1,1,1]>(x, v0) r = Relu(c) {between} y = Conv(t, w0) }}"
    )
    used = {key: array for key, array in constants.items() if f" {key}" in between}
    return Case(f"{name} between Convs", graph, {"v0": (8, 4, 3, 3), "w0": (8, 8, 1, 1), **used}, sites)


W3, SAME = (8, 4, 3, 3), "pads=[1,1,1,1]"
TAIL = "y = Conv(t, w0)"
CASES = [
    conv("Conv 1-D", "2,4,10", (8, 4, 3)),
    conv("Conv 1-D, stride and dilation", "2,4,15", (8, 4, 3), "strides=[2], dilations=[2], pads=[2,1]"),
    conv("Conv 2-D", "2,4,7,7", W3),
    conv("Conv 2-D, stride, dilation, uneven pads", "2,4,9,9", W3, "strides=[2,1], dilations=[1,2], pads=[0,1,2,3]"),
    conv("Conv 2-D, auto_pad", "1,4,7,7", W3, 'auto_pad="SAME_UPPER", strides=[2,2]'),
    conv("Conv 2-D, auto_pad, lower", "1,4,7,7", W3, 'auto_pad="SAME_LOWER", strides=[2,2]'),
    conv("Conv 3-D", "1,4,5,5,5", (8, 4, 2, 3, 2), "pads=[0,1,0,1,1,0]"),
    conv("Conv grouped", "2,16,6,6", (8, 4, 3, 3), "group=4, pads=[1,1,1,1]"),
    conv("Conv depthwise", "2,8,6,6", (8, 1, 3, 3), "group=8, pads=[1,1,1,1]"),
    conv("Conv depthwise, two outputs each", "2,4,6,6", (8, 1, 3, 3), "group=4"),
    conv("Conv depthwise 1-D", "2,16,12", (16, 1, 5), "group=16"),
    conv("Conv grouped 3-D", "1,8,4,4,4", (8, 2, 2, 2, 2), "group=4"),
    *(
        gemm(attributes, bias)
        for attributes in ("alpha=1.0", "transA=1", "transB=1", "transA=1, transB=1", "alpha=-0.5, beta=2.0", "beta=0.25")
        for bias in (None, (8,), (12, 8))
    ),
    Case("MatMul rank 2", "g (float[6,12] x) => (float y) { y = MatMul(x, w1) }", {"w1": (12, 8)}),
    Case("MatMul rank 3", "g (float[2,6,12] x) => (float y) { y = MatMul(x, w1) }", {"w1": (12, 8)}),
    Case("MatMul rank 4", "g (float[2,2,3,12] x) => (float y) { y = MatMul(x, w1) }", {"w1": (12, 8)}),
    Case("MatMul, weight transposed", "g (float[6,12] x) => (float y) { t = Transpose<perm=[1,0]>(w0) y = MatMul(x, t) }", {"w0": (8, 12)}),
    Case("weight shared by two Convs", f"g (float[1,8,6,6] x) => (float y, float z) {{ y = Conv(x, w0) r = Relu(x) z = Conv<{SAME}>(r, w0, b) }}", {"w0": (8, 8, 3, 3), "b": (8,)}, ("y", "z")),
    Case("weight shared by two MatMuls", "g (float[6,12] x) => (float y, float z) { y = MatMul(x, w1) t = Tanh(x) z = MatMul(t, w1) }", {"w1": (12, 8)}, ("y", "z")),
    Case("weight of MatMul and of a transposed Gemm", "g (float[6,10] x) => (float y, float z) { y = MatMul(x, w1) z = Gemm<transB=1>(x, w1) }", {"w1": (10, 10)}, ("y", "z")),
    Case("Conv, Relu, MaxPool, Conv", f"g (float[1,4,8,8] x) => (float y) {{ c = Conv<{SAME}>(x, v0) r = Relu(c) t = MaxPool<kernel_shape=[2,2]>(r) {TAIL} }}", {"v0": (8, 4, 3, 3), "w0": (8, 8, 1, 1)}, ("c", "y")),
    Case("Add joins", f"g (float[1,4,6,6] x) => (float y) {{ a = Conv(x, v0) b = Conv(x, u0) t = Add(a, b) {TAIL} }}", {"v0": W3, "u0": W3, "w0": (8, 8, 1, 1)}, ("a", "b", "t", "y")),
    Case("Mul joins", f"g (float[1,4,6,6] x) => (float y) {{ a = Conv(x, v0) b = Conv(x, u0) t = Mul(a, b) {TAIL} }}", {"v0": W3, "u0": W3, "w0": (8, 8, 1, 1)}, ("a", "b", "t", "y")),
    Case("Concat joins", f"g (float[1,4,6,6] x) => (float y) {{ a = Conv(x, v0) b = Conv(x, u0) t = Concat<axis=1>(a, b) {TAIL} }}", {"v0": W3, "u0": W3, "w0": (8, 16, 1, 1)}, ("a", "b", "t", "y")),
    Case("AveragePool joins", f"g (float[1,4,8,8] x) => (float y) {{ a = Conv(x, v0) t = AveragePool<kernel_shape=[2,2], strides=[2,2]>(a) {TAIL} }}", {"v0": W3, "w0": (8, 8, 1, 1)}, ("a", "t", "y")),
    Case("GlobalAveragePool joins", f"g (float[1,4,8,8] x) => (float y) {{ a = Conv(x, v0) t = GlobalAveragePool(a) {TAIL} }}", {"v0": W3, "w0": (8, 8, 1, 1)}, ("a", "t", "y")),
    moved("Split", "a, b = Split<axis=1>(r) t = Concat<axis=1>(b, a)", ("c", "t", "y")),
    moved("Gather", "t = Gather<axis=1>(r, ids)"),
    moved("Slice", "t = Slice(r, first, last)"),
    moved("Transpose, Reshape", "a = Transpose<perm=[0,1,3,2]>(r) t = Reshape(a, shape)"),
    moved("Pad, below the range", "t = Pad(r, edges, low)"),
    Case("LeakyRelu joins", f"g (float[1,4,8,8] x) => (float y) {{ a = Conv(x, v0) t = LeakyRelu<alpha=0.2>(a) {TAIL} }}", {"v0": W3, "w0": (8, 8, 1, 1)}, ("a", "t", "y")),
]  # fmt: skip


def array_of(name: str, shape: tuple[int, ...]) -> Array:
    """A weight whose channels differ eightfold in size, mostly positive, so that sums are large beside their bound."""
    generator = np.random.default_rng(list(name.encode()))
    if name in ("b", "large"):
        return (generator.uniform(15, 30, shape) * (8 if name == "large" else 1)).astype(np.float32)
    values = generator.uniform(-0.5, 1.5, shape)
    others = [1] * len(shape)
    axis = int(name[-1])
    others[axis] = shape[axis]
    return (values * np.geomspace(0.5, 4, shape[axis]).reshape(others)).astype(np.float32)


def build(case: Case) -> ir.Model:
    """The float model."""
    weights = {name: array_of(name, w) if isinstance(w, tuple) else w for name, w in case.weights.items()}
    return pass_kit.parse(case.graph, weights)


def feeds_of(model: ir.Model) -> list[pass_kit.Feed]:
    """Asymmetric inputs; the first feed is the one that is compared."""
    found = []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        shapes = {v.name: tuple(v.shape or ()) for v in model.graph.inputs}
        found.append({str(name): generator.uniform(-1, 3, shape).astype(np.float32) for name, shape in shapes.items()})
    return found


def run_optimized(model: ir.Model, feed: pass_kit.Feed) -> list[Array]:
    """The outputs with all of the runtime's optimizations: its integer kernels."""
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_error_is_within_the_steps(case):
    model = build(case)
    feeds = feeds_of(model)
    outcome = int8_kit.quantize(model, feeds=feeds)
    assert outcome.rewritten == list(case.sites)
    bound = Bound(model, feeds, limit=127)
    assert 0 < bound.broken_by(model, pass_kit.run(outcome.model, feeds[0])) <= 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_integer_kernels_are_within_a_step_more(case, tmp_path):
    # Seven-bit weights: products of two pairs of eight bits saturate on processors without VNNI.
    model = build(case)
    feeds = feeds_of(model)
    outcome = int8_kit.quantize(model, feeds=feeds, target=OrtTarget(cpu="avx2"))
    found = set(int8_kit.runtime_operators(outcome.model, tmp_path))
    assert not {"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul"} & found
    assert not case.name.endswith(" joins") or f"QLinear{case.name.removesuffix(' joins')}" in found
    bound = Bound(model, feeds, limit=63, steps=1.5)
    assert 0 < bound.broken_by(model, run_optimized(outcome.model, feeds[0])) <= 1


def faults(model: ir.Model, *, factor: float, shift: int) -> list[tuple[str, ir.Model]]:
    """Copies of a quantized model, each with one DequantizeLinear spoiled: a scale, two channels, a zero point."""
    found = []
    for index, node in enumerate(model.graph):
        if node.op_type != "DequantizeLinear":
            continue
        scale = np.asarray(node.inputs[1].const_value.numpy())
        most = int(scale.argmax())
        spoiled = {"scale": scale.copy()}
        spoiled["scale"].reshape(-1)[most] *= np.float32(factor)
        if scale.ndim:
            spoiled["channels"] = np.roll(scale, 1)
        dtype = node.inputs[0].dtype or node.inputs[2].dtype
        if dtype != ir.DataType.INT32:
            zero = (
                np.zeros(scale.shape, dtype.numpy())
                if len(node.inputs) < 3
                else np.array(node.inputs[2].const_value.numpy())
            )
            old = int(zero.reshape(-1)[most])
            zero.reshape(-1)[most] = old + shift if old <= 100 else old - shift
            spoiled["zero point"] = zero
        for what, array in spoiled.items():
            copy = snapshot(model)
            victim = list(copy.graph)[index]
            value = ir.Value(
                name="spoiled",
                const_value=ir.tensor(array),
                type=ir.TensorType(ir.tensor(array).dtype),
                shape=ir.Shape(array.shape),
            )
            copy.graph.register_initializer(value)
            victim.resize_inputs(3 if what == "zero point" else len(victim.inputs))
            victim.replace_input_with(2 if what == "zero point" else 1, value)
            found.append((f"{what} of {node.outputs[0].name}", copy))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_planted_fault_breaks_the_bound(case):
    model = build(case)
    feeds = feeds_of(model)
    outcome = int8_kit.quantize(model, feeds=feeds)
    bound = Bound(model, feeds, limit=127)
    # A scale is made smaller, since a larger result would be clipped by the range behind it. Through several operators
    # the bound adds up what in fact averages out.
    strength = {"factor": 0.9, "shift": 3} if len(case.sites) == 1 else {"factor": 0.65, "shift": 12}
    planted = faults(outcome.model, **strength)
    assert len(planted) >= 4
    unnoticed = {what: round(bound.broken_by(model, pass_kit.run(copy, feeds[0])), 2) for what, copy in planted}
    assert not {what: ratio for what, ratio in unnoticed.items() if ratio <= 1}


STORED = [
    Case("ConvTranspose", "g (float[1,8,5,5] x) => (float y) { y = ConvTranspose<strides=[2,1], pads=[0,1,1,0]>(x, w1, b) }", {"w1": (8, 6, 3, 2), "b": (6,)}),
    Case("ConvTranspose 1-D", "g (float[2,8,5] x) => (float y) { y = ConvTranspose<strides=[3], dilations=[2]>(x, w1) }", {"w1": (8, 6, 3)}),
    Case("ConvTranspose 3-D", "g (float[1,8,3,3,3] x) => (float y) { y = ConvTranspose(x, w1) }", {"w1": (8, 6, 2, 2, 2)}),
    Case("ConvTranspose, auto_pad", 'g (float[1,8,4,4] x) => (float y) { y = ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2]>(x, w1) }', {"w1": (8, 6, 3, 3)}),
    Case("Conv", "g (float[1,8,5,5] x) => (float y) { y = Conv<group=2>(x, w0, b) }", {"w0": (6, 4, 3, 3), "b": (6,)}),
    Case("Gemm", "g (float[6,12] x) => (float y) { y = Gemm<alpha=0.5, beta=3.0, transB=1>(x, w0, b) }", {"w0": (8, 12), "b": (8,)}),
    Case("MatMul, weight transposed", "g (float[2,6,12] x) => (float y) { t = Transpose<perm=[1,0]>(w0) y = MatMul(x, t) }", {"w0": (8, 12)}),
    Case("MatMul, batched weight", "g (float[2,6,12] x) => (float y) { y = MatMul(x, w2) }", {"w2": (2, 12, 8)}),
]  # fmt: skip


@pytest.mark.parametrize("form", ["folded", "dequantized"])
@pytest.mark.parametrize("case", STORED, ids=lambda case: case.name)
def test_stored_weights_are_within_their_steps(case, form):
    model = build(case)
    feeds = feeds_of(model)
    outcome = int8_kit.quantize(model, feeds=feeds, pass_=QuantizeWeights(form=form, min_elements=64))
    assert outcome.rewritten == ["y"]
    bound = Bound(model, feeds, limit=127, weights_only=True)
    for run in (pass_kit.run, run_optimized):
        assert 0 < bound.broken_by(model, run(outcome.model, feeds[0])) <= 1
    for what, copy in faults(outcome.model, factor=0.9, shift=3):
        assert bound.broken_by(model, pass_kit.run(copy, feeds[0])) > 1, what


@pytest.mark.parametrize("group", [2, 8])
def test_grouped_transposed_convolutions_stay_in_float(group):
    graph = f"g (float[1,8,5,5] x) => (float y) {{ y = ConvTranspose<group={group}>(x, w1) }}"
    model = build(Case("", graph, {"w1": (8, 4, 3, 3)}))
    for pass_ in (None, QuantizeWeights(min_elements=64)):
        outcome = int8_kit.quantize(model, feeds=feeds_of(model), pass_=pass_)
        assert outcome.rewritten == [] and list(outcome.skipped) == ["y"]
        assert int8_kit.operators(outcome.model) == int8_kit.operators(model)


TABLES = {
    "columns differ": ("w1", "e = Gather(w1, i)", 1),
    "rows differ": ("w0", "e = Gather(w0, i)", 0),
    "shared with a MatMul": ("w1", "e = Gather(w1, i) y = MatMul(e, w1)", 1),
    "tied to a head": ("w0", "e = Gather(w0, i) t = Transpose<perm=[1,0]>(w0) y = MatMul(e, t)", 0),
}


@pytest.mark.parametrize("name", TABLES)
def test_looked_up_rows_are_within_their_steps(name):
    weight, body, axis = TABLES[name]
    table = array_of(weight, (40, 40))
    table[(slice(None),) * axis + (0,)] *= 100
    outputs = ["e", "y"] if "y =" in body else ["e"]
    ends = ", ".join(f"float[2,9,40] {output}" for output in outputs)
    model = pass_kit.parse(f"g (int64[2,9] i) => ({ends}) {{ {body} }}", {weight: table})
    ids = np.random.default_rng(0).integers(0, 40, (2, 9))
    outcome = int8_kit.quantize(model, feeds=[{"i": ids}])
    assert outcome.rewritten == outputs
    step = np.abs(table).max(axis=1 - axis, keepdims=True) / 127
    allowed = np.broadcast_to(step / 2, table.shape)[ids] * np.float32(1 + 1e-4)
    for run in (pass_kit.run, run_optimized):
        error = np.abs(run(outcome.model, {"i": ids})[0] - table[ids])
        assert error.max() > 0 and (error <= allowed).all()
    for what, copy in faults(outcome.model, factor=0.9, shift=3):
        if what.endswith(" of e"):
            assert (np.abs(pass_kit.run(copy, {"i": ids})[0] - table[ids]) > allowed).any(), what
    other = np.abs(table).max(axis=axis, keepdims=True) / 127
    wrong = np.rint(table / other) * other
    assert (np.abs(wrong[ids] - table[ids]) > allowed).any(), "steps along the other axis would go unnoticed"
