"""fold-affine leaves alone what ends a normalization or Gelu that ONNX Runtime fuses, and nothing else.

The oracle is the graph that the runtime makes of a model when it optimizes it: a case is left alone if and only if there
is a kernel in it that the folded model would have lost.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import channel_models.stored as stored
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from pass_kit import apply, assert_equal_after, op_types, parse

from irc.passes.simplification import FoldAffine, InferShapes
from irc.passes.simplification.affine import affine_of
from irc.passes.simplification.written_out import ended_by

PASS = FoldAffine(max_bytes=1 << 20)
KERNELS = ("BiasGelu", "Gelu", "LayerNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization")
ROWS = "float[2,5,8] x) => (float[2,5,4] y"
HALVES = "float16[2,5,8] x16) => (float16[2,5,4] y"
IMAGE = "float[1,8,6,6] x) => (float[1,4,6,6] y"
POWER = "v = ReduceMean<axes=[-1]>(p)  e = Add(v, eps)  r = Sqrt(e)  "
CENTERED = f"u = ReduceMean<axes=[-1]>(x)  d = Sub(x, u)  p = Pow(d, two)  {POWER}"
LAYER = f"{CENTERED}q = Div(d, r)  "
RMS = f"p = Pow(x, two)  {POWER}"
GELU = "z = Div(x, root2)  f = Erf(z)  o = Add(f, one)  n = Mul(x, o)  "
HOST = "  m = MatMul(k, w)  y = Add(m, c)"
NORMALIZATION = "it ends a normalization that is written out, which the runtime computes in one kernel"
ACTIVATION = "it ends a Gelu that is written out, which the runtime computes in one kernel"
KEPT = {
    "scale and bias": (ROWS, f"{LAYER}l = Mul(q, g)  k = Add(l, b){HOST}", NORMALIZATION),
    "constants first": (ROWS, f"{LAYER}l = Mul(g, q)  k = Add(b, l){HOST}", NORMALIZATION),
    "epsilon first": (ROWS, f"{LAYER.replace('v, eps', 'eps, v')}l = Mul(q, g)  k = Add(l, b){HOST}", NORMALIZATION),
    "scale alone": (ROWS, f"{LAYER}k = Mul(q, g){HOST}", NORMALIZATION),
    "difference computed twice": (ROWS, f"{CENTERED}d2 = Sub(x, u)  q = Div(d2, r)  l = Mul(q, g)  k = Add(l, b){HOST}", NORMALIZATION),
    "inverse root": (ROWS, f"{CENTERED}i = Div(one, r)  q = Mul(d, i)  l = Mul(q, g)  k = Add(l, b){HOST}", NORMALIZATION),
    "axis from the front": (ROWS, f"{LAYER}l = Mul(q, g)  k = Add(l, b){HOST}".replace("axes=[-1]", "axes=[2]"), NORMALIZATION),
    "of a matrix": ("float[5,8] x) => (float[5,4] y", f"{LAYER}l = Mul(q, g)  k = Add(l, b)  y = Gemm(k, w, c)", NORMALIZATION),
    "half precision": (
        HALVES,
        f"x = Cast<to=1>(x16)  {LAYER}c16 = Cast<to=10>(q)  l = Mul(c16, g16)  k = Add(l, b16)  m = MatMul(k, w16)  y = Add(m, o16)",
        NORMALIZATION,
    ),
    "Cast before the power": (ROWS, f"{LAYER.replace('p = Pow(d', 'd1 = Cast<to=1>(d)  p = Pow(d1')}l = Mul(q, g)  k = Add(l, b){HOST}", NORMALIZATION),
    "root mean square": (ROWS, f"{RMS}q = Div(x, r)  k = Mul(q, g)  y = MatMul(k, w)", NORMALIZATION),
    "root mean square, inverse root": (ROWS, f"{RMS}i = Div(one, r)  q = Mul(x, i)  k = Mul(g, q)  y = MatMul(k, w)", NORMALIZATION),
    "root mean square, inverse root first": (ROWS, f"{RMS}i = Div(one, r)  q = Mul(i, x)  k = Mul(g, q)  y = MatMul(k, w)", NORMALIZATION),
    "root mean square, half precision": (
        HALVES,
        f"x = Cast<to=1>(x16)  {RMS}i = Div(one, r)  q = Mul(x, i)  c16 = Cast<to=10>(q)  k = Mul(g16, c16)  y = MatMul(k, w16)",
        NORMALIZATION,
    ),
    "Gelu": (ROWS, f"{GELU}k = Mul(n, half)  y = MatMul(k, w)", ACTIVATION),
    "Gelu, every constant first": (
        ROWS,
        "z = Div(x, root2)  f = Erf(z)  o = Add(one, f)  n = Mul(o, x)  k = Mul(half, n)  y = MatMul(k, w)",
        ACTIVATION,
    ),
    "Gelu, numbers in rows": (ROWS, f"{GELU}k = Mul(n, half1)  y = MatMul(k, w)".replace("root2", "root21"), ACTIVATION),
    "Gelu behind a bias": (
        "float[2,5,6] x0) => (float[2,5,4] y",
        f"h = MatMul(x0, w0)  x = Add(h, b)  {GELU}k = Mul(n, half)  y = MatMul(k, w)",
        ACTIVATION,
    ),
    "Gelu before a Conv": (IMAGE, f"{GELU}k = Mul(n, half)  y = Conv(k, wc, c)", ACTIVATION),
    "Gelu before a BatchNormalization": (
        "float[2,8,5] x) => (float[2,8,5] y",
        f"{GELU}k = Mul(n, half)  y = BatchNormalization(k, g, b, mean, var)",
        ACTIVATION,
    ),
}  # fmt: skip
FOLDED = {
    "squared by Mul": (ROWS, f"{LAYER}l = Mul(q, g)  k = Add(l, b){HOST}".replace("Pow(d, two)", "Mul(d, d)"), "Mul Add"),
    "to the fourth": (ROWS, f"{LAYER}l = Mul(q, g)  k = Add(l, b){HOST}".replace("two", "four"), "Mul Add"),
    "Reciprocal": (ROWS, f"{CENTERED}i = Reciprocal(r)  q = Mul(d, i)  l = Mul(q, g)  k = Add(l, b){HOST}", "Mul Add"),
    "two over the root": (ROWS, f"{CENTERED}i = Div(two, r)  q = Mul(d, i)  l = Mul(q, g)  k = Add(l, b){HOST}", "Mul Add"),
    "power of a half": (ROWS, f"{LAYER}l = Mul(q, g)  k = Add(l, b){HOST}".replace("Sqrt(e)", "Pow(e, half)"), "Mul Add"),
    "over the power of something else": (ROWS, f"{CENTERED}t = Tanh(x)  q = Div(t, r)  l = Mul(q, g)  k = Add(l, b){HOST}", "Mul Add"),
    "over the power of another difference": (ROWS, f"{CENTERED}t = Sub(x, one)  q = Div(t, r)  l = Mul(q, g)  k = Add(l, b){HOST}", "Mul Add"),
    "root over": (ROWS, f"{CENTERED}q = Div(r, d)  l = Mul(q, g)  k = Add(l, b){HOST}", "Mul Add"),
    "maximum in place of the mean": (ROWS, f"{LAYER}l = Mul(q, g)  k = Add(l, b){HOST}".replace("v = ReduceMean", "v = ReduceMax"), "Mul Add"),
    "no epsilon": (ROWS, f"{LAYER}l = Mul(q, g)  k = Add(l, b){HOST}".replace("e = Add(v, eps)", "e = Abs(v)"), "Mul Add"),
    "bias alone": (ROWS, f"{LAYER}k = Add(q, b){HOST}", "Add"),
    "divided by a scale": (ROWS, f"{LAYER}l = Div(q, g)  k = Add(l, b){HOST}", "Div Add"),
    "over channels": (IMAGE, f"{LAYER}l = Mul(q, gc)  k = Add(l, bc)  y = Conv(k, wc, c)".replace("[-1]", "[1]"), "Mul Add"),
    "over the middle axis": ("float[2,8,8] x) => (float[2,8,4] y", f"{LAYER}l = Mul(q, g)  k = Add(l, b){HOST}".replace("[-1]", "[1]"), "Mul Add"),
    "over two axes": (ROWS, f"{LAYER}l = Mul(q, g)  k = Add(l, b){HOST}".replace("[-1]", "[-2,-1]"), "Mul Add"),
    "parameters with two axes": (ROWS, f"{LAYER}l = Mul(q, g2)  k = Add(l, b2){HOST}", "Mul Add"),
    "scale with two axes": (ROWS, f"{LAYER}l = Mul(q, g2)  k = Add(l, b){HOST}", "Mul Add"),
    "a number for a scale": (ROWS, f"{LAYER}k = Mul(q, s){HOST}", "Mul"),
    "root mean square, squared by Mul": (ROWS, f"{RMS}q = Div(x, r)  k = Mul(q, g)  y = MatMul(k, w)".replace("Pow(x, two)", "Mul(x, x)"), "Mul"),
    "root mean square, Reciprocal": (ROWS, f"{RMS}i = Reciprocal(r)  q = Mul(x, i)  k = Mul(q, g)  y = MatMul(k, w)", "Mul"),
    "root mean square over two axes": (ROWS, f"{RMS}q = Div(x, r)  k = Mul(q, g)  y = MatMul(k, w)".replace("[-1]", "[-2,-1]"), "Mul"),
    "root mean square, Sub": (ROWS, f"{RMS}q = Sub(x, r)  k = Mul(q, g)  y = MatMul(k, w)", "Mul"),
    "root mean square, unscaled": (ROWS, f"{RMS}q = Div(x, r)  y = MatMul(q, w)", ""),
    "Gelu over two": (ROWS, f"{GELU}k = Div(n, two)  y = MatMul(k, w)", "Div"),
    "Gelu, multiplied inside": (ROWS, f"{GELU}k = Mul(n, half)  y = MatMul(k, w)".replace("Div(x, root2)", "Mul(x, inverse)"), "Mul"),
    "Gelu, another factor": (ROWS, f"{GELU}k = Mul(n, third)  y = MatMul(k, w)", "Mul"),
    "Gelu, plus a half": (ROWS, f"{GELU}k = Add(n, half){HOST}", "Add"),
    "Gelu, another divisor": (ROWS, f"{GELU}k = Mul(n, half)  y = MatMul(k, w)".replace("root2", "two"), "Mul"),
    "Gelu, another sum": (ROWS, f"{GELU}k = Mul(n, half)  y = MatMul(k, w)".replace("one", "two"), "Mul"),
    "Gelu of something else": (ROWS, f"{GELU}k = Mul(n, half)  y = MatMul(k, w)".replace("n = Mul(x, o)", "t = Abs(x)  n = Mul(t, o)"), "Mul"),
    "Gelu by tanh": (
        ROWS,
        "p = Pow(x, three)  a = Mul(p, cubic)  t = Add(x, a)  z = Mul(t, rate)  f = Tanh(z)  o = Add(f, one)  n = Mul(x, o)  k = Mul(n, half)  y = MatMul(k, w)",
        "Mul",
    ),
    "Gelu, half precision": (
        "float16[2,5,8] x) => (float16[2,5,4] y",
        f"{GELU}k = Mul(n, half)  y = MatMul(k, w16)".replace("root2", "root16").replace("one", "one16").replace("half", "half16"),
        "Mul",
    ),
    "SiLU, halved": (ROWS, "f = Sigmoid(x)  n = Mul(x, f)  k = Mul(n, half)  y = MatMul(k, w)", "Mul"),
    "HardSwish": (IMAGE, "a = Add(x, three)  h = Clip(a, zero, six)  n = Mul(x, h)  k = Div(n, six)  y = Conv(k, wc, c)", "Div"),
    "halved softmax": (ROWS, "a = Softmax(x)  k = Mul(a, half)  y = MatMul(k, w)", "Mul"),
    "over a length": (ROWS, f"a = ReduceL2<axes=[-1]>(x)  q = Div(x, a)  k = Mul(q, g){HOST}", "Mul"),
}  # fmt: skip

SLOW = ("a number for a scale",)
"""Fused into a kernel that is slower than what it is made of."""
MISTAKEN = ("to the fourth", "root over")
"""Taken by the runtime for normalizations, which they are not."""


def _constants() -> dict[str, np.ndarray | tuple[int, ...]]:
    row = np.linspace(0.5, 2, 8, dtype=np.float32)
    numbers = {
        "zero": 0, "half": 0.5, "third": 1 / 3, "one": 1, "two": 2, "three": 3, "four": 4, "six": 6, "eps": 1e-5, "root2": 2**0.5,
        "inverse": 0.5**0.5, "cubic": 0.044715, "rate": (2 / np.pi) ** 0.5,
    }  # fmt: skip
    halves = {"one16": 1, "half16": 0.5, "root16": 2**0.5, "g16": row, "b16": row / 3, "o16": row[:4]}
    return {
        **{name: np.float32(number) for name, number in numbers.items()},
        **{name: np.asarray(number, np.float16) for name, number in halves.items()},
        "w16": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float16),
        "half1": np.float32([0.5]), "root21": np.float32([2**0.5]), "s": np.float32([0.7]),
        "g": row, "b": row / 3, "g2": row.reshape(1, 8), "b2": row.reshape(1, 8) / 3, "gc": row.reshape(8, 1, 1),
        "bc": row.reshape(8, 1, 1) / 3, "w": (8, 4), "c": (4,), "w0": (6, 8), "wc": (4, 8, 1, 1), "mean": (8,), "var": (8,),
    }  # fmt: skip


def _model(signature: str, nodes: str, opset: int = 16) -> ir.Model:
    model = parse(f"g ({signature}) {{ {nodes} }}", _constants(), opset=opset)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    return model


def _kernels(model: ir.Model) -> list[str]:
    """The kernels for whole normalizations and activations that the runtime makes of a model."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    return sorted(node.op_type for node in nodes if node.op_type in KERNELS)


@pytest.mark.parametrize("case", KEPT)
def test_leaves_what_the_runtime_fuses(case: str) -> None:
    signature, nodes, reason = KEPT[case]
    model = _model(signature, nodes)
    outcome = apply(PASS, model)
    assert reason in outcome.skipped.values()
    assert outcome.rewritten == []
    assert len(_kernels(model)) == 1


@pytest.mark.parametrize("case", FOLDED)
def test_folds_what_the_runtime_does_not_fuse(case: str) -> None:
    signature, nodes, gone = FOLDED[case]
    model = _model(signature, nodes)
    assert bool(_kernels(model)) == (case in (*SLOW, *MISTAKEN))
    outcome = assert_equal_after(PASS, model, rtol=4e-3 if "half precision" in case else 1e-5)
    left = op_types(outcome.model)
    for op_type in op_types(model):
        if op_type in left:
            left.remove(op_type)
        else:
            assert op_type == gone.split()[0]
            gone = gone.partition(" ")[2]
    assert gone == "" and outcome.skipped == {}


@pytest.mark.parametrize(
    ("behind", "left"),
    [
        ("l = Mul(q, g)  a = Add(l, b)  k = Mul(a, g)", ["Mul", "Add"]),
        ("l = Mul(q, g)  k = Mul(l, b)", ["Mul"]),
        ("l = Mul(q, g)  k = Sub(l, b)", ["Mul"]),
        ("l = Mul(q, g)  k = Add(l, b2)", ["Mul"]),
    ],
)
def test_what_follows_what_the_runtime_fuses_is_folded(behind: str, left: list[str]) -> None:
    model = _model(ROWS, LAYER + behind + HOST)
    outcome = assert_equal_after(PASS, model, rtol=1e-5)
    nodes = op_types(outcome.model)
    assert nodes[nodes.index("Div") + 1 : nodes.index("MatMul")] == left
    assert _kernels(outcome.model) == _kernels(model) != []


def test_what_follows_a_gelu_is_folded() -> None:
    model = _model(ROWS, f"{GELU}h = Mul(n, half)  k = Mul(h, third)  y = MatMul(k, w)")
    outcome = assert_equal_after(PASS, model, rtol=1e-5)
    assert list(outcome.skipped.values()) == [ACTIVATION]
    assert _kernels(outcome.model) == ["Gelu"]


@pytest.mark.parametrize("data", ["x", "Sub(x, t)"])
def test_without_a_mean_there_is_no_bias(data: str) -> None:
    nodes = f"{RMS}q = Div(x, r)  l = Mul(q, g)  k = Add(l, b){HOST}"
    if data != "x":
        nodes = f"t = Tanh(x)  d = {data}  " + nodes.replace("(x", "(d")
    model = _model(ROWS, nodes)
    outcome = assert_equal_after(PASS, model, rtol=1e-5)
    assert outcome.skipped == {"l": NORMALIZATION} and outcome.rewritten == ["k"]
    assert _kernels(outcome.model) == _kernels(model) == ["SimplifiedLayerNormalization"]


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_opsets(opset: int) -> None:
    nodes = f"{LAYER}l = Mul(q, g)  k = Add(l, b){HOST}"
    if opset >= 18:
        nodes = nodes.replace("ReduceMean<axes=[-1]>(x)", "ReduceMean(x, axes)")
        nodes = nodes.replace("ReduceMean<axes=[-1]>(p)", "ReduceMean(p, axes)")
    model = parse(f"g ({ROWS}) {{ {nodes} }}", {**_constants(), "axes": np.array([-1])}, opset=opset)
    assert apply(PASS, model).skipped == {"k": NORMALIZATION}
    assert _kernels(model) == ["LayerNormalization"]


def test_operators_of_another_domain_are_something_else() -> None:
    for nodes, expected in ((GELU, "Gelu"), (GELU.replace("Erf", "custom.Erf"), None)):
        model = _model(ROWS, f"{nodes}k = Mul(n, half)  y = MatMul(k, w)")
        affine = affine_of(next(node for node in model.graph if node.outputs[0].name == "k"))
        assert affine is not None and ended_by(affine) == expected


def test_an_activation_behind_an_operator_is_not_its_end() -> None:
    """The product behind a MatMul begins something, whatever it multiplies by."""
    model = _model(ROWS, "h = MatMul(x, w)  y = Mul(h, half)")
    assert op_types(assert_equal_after(PASS, model, rtol=1e-5).model) == ["MatMul"]


def test_of_a_rank_that_is_not_known_the_last_axis_is_named_from_behind() -> None:
    for axis, expected in ((-1, "normalization"), (2, None)):
        nodes = f"{LAYER}l = Mul(q, g)  k = Add(l, b)".replace("[-1]", f"[{axis}]")
        model = parse(f"g ({ROWS}) {{ {nodes}{HOST} }}", _constants(), opset=16)
        for node in model.graph:
            node.outputs[0].shape = None
        last = next(node for node in model.graph if node.outputs[0].name == "k")
        affine = affine_of(last)
        assert affine is not None and ended_by(affine) == expected


@pytest.mark.parametrize("name", ["bert_torchscript", "deberta_v2_torchscript", "swin", "wav2vec2_computed"])
def test_exported_models_keep_their_kernels(name: str) -> None:
    model = apply(InferShapes(), stored.load(name)).model
    before = _kernels(model)
    assert {"Gelu", "BiasGelu"} & set(before)
    outcome = apply(FoldAffine(), model)
    assert ACTIVATION in outcome.skipped.values()
    assert _kernels(outcome.model) == before


@pytest.mark.parametrize(("name", "count"), [("convnext", 2), ("llama", 1), ("conformer", 2), ("t5_dynamo", 8)])
def test_exported_models_are_still_folded(name: str, count: int) -> None:
    outcome = apply(FoldAffine(), apply(InferShapes(), stored.load(name)).model)
    assert len(outcome.rewritten) == count
    assert not {NORMALIZATION, ACTIVATION} & set(outcome.skipped.values())
