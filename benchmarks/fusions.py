#!/usr/bin/env python3
"""Is a composite operator faster than the operators it stands for, in ONNX Runtime with all its optimizations on?

    python benchmarks/fusions.py [--only NAME] [--seconds 2] [--threads 1] [--control]

Each case is one computation twice: decomposed, as exporters write it, and with the composite operator of the standard. The
runtime fuses many decomposed patterns itself, also with their neighbours, so that a composite operator may win nothing or
lose; what each of the two becomes in the runtime is printed beside the ratio of their latencies (decomposed / composite,
above 1 when the composite is faster; both take turns in one process, with the 95 % interval of the ratio). The passes
that fuse, and where they leave alone, rest on these figures. With --control the composite runs against itself, which tells
whether the machine is quiet enough: other work on it can make one of two equal models look twice as slow.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses

import numpy as np
import onnx

from irc.ir import normalize
from irc.latency import compare_latency
from irc.runner import Runner


@dataclasses.dataclass(frozen=True)
class Case:
    """One computation in two spellings.

    Attributes:
        name: What is compared.
        inputs: Graph inputs by name.
        before: Nodes of the decomposed form; the output is y.
        after: Nodes with the composite operator.
        opset: Of the second; the first has the same.
        weights: Shapes of weights.
        dtype: Of inputs and weights.
    """

    name: str
    inputs: dict[str, tuple[int, ...]]
    before: str
    after: str
    opset: int
    weights: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    dtype: str = "float"


SCALARS = {
    "two": 2.0, "eps": 1e-5, "half": 0.5, "one": 1.0, "root2": 2**0.5, "three": 3.0, "six": 6.0, "zero": 0.0,
    "c": 0.044715, "k": (2 / np.pi) ** 0.5, "scale": 0.125,
}  # fmt: skip
VECTORS = {"last": [-1], "last_two": [-2, -1], "heads": [0, 0, 12, -1], "flat": [0, 0, -1], "width": [768]}

POWER = "p = Pow({x}, two) v = ReduceMean(p, last) e = Add(v, eps) s = Sqrt(e) "
LAYER_NORM = (
    "m = ReduceMean(x, last) d = Sub(x, m) " + POWER.format(x="d") + "q = Div(d, s) n = Mul(q, g) y = Add(n, b)"
)
RMS_NORM = POWER.format(x="x") + "r = Reciprocal(s) q = Mul(x, r) y = Mul(q, g)"
GELU = "a = Div(x, root2) t = Erf(a) o = Add(t, one) u = Mul(x, o) y = Mul(u, half)"
TANH = "t = Tanh(a) o = Add(t, one) h = Mul(x, half) y = Mul(h, o)"
GELU_TANH = f"p = Pow(x, three) q = Mul(p, c) s = Add(x, q) a = Mul(s, k) {TANH}"
GELU_TANH_FACTORED = f"p = Mul(x, c) r = Mul(p, x) s = Add(r, one) u = Mul(x, k) a = Mul(u, s) {TANH}"
GATE = "a = Add(x, three) h = Clip(a, zero, six) "
SIGMOID = "HardSigmoid<alpha=0.16666667, beta=0.5>(x)"
ONES = "o = ConstantOfShape<value=float[1]{1}>(width) "
TANH_MODE = 'y = Gelu<approximate="tanh">(x)'

NORM = {"g": (768,), "b": (768,)}
ROWS = {"g": (197, 768), "b": (197, 768)}
ELEMENTWISE: list[tuple[str, str, str, int, dict[str, tuple[int, ...]]]] = [
    ("LayerNormalization", LAYER_NORM, "y = LayerNormalization(x, g, b)", 18, NORM),
    ("RMSNormalization", RMS_NORM, "y = RMSNormalization(x, g)", 23, {"g": (768,)}),
    ("Gelu", GELU, "y = Gelu(x)", 20, {}),
    ("Gelu, tanh", GELU_TANH, TANH_MODE, 20, {}),
    ("Gelu, tanh, factored", GELU_TANH_FACTORED, TANH_MODE, 20, {}),
    ("HardSwish of HardSigmoid", f"h = {SIGMOID} y = Mul(x, h)", "y = HardSwish(x)", 14, {}),
    ("HardSwish of Clip", GATE + "u = Mul(x, h) y = Div(u, six)", "y = HardSwish(x)", 14, {}),
    ("HardSigmoid of Clip", GATE + "y = Div(h, six)", f"y = {SIGMOID}", 14, {}),
    ("Mish", "a = Softplus(x) t = Tanh(a) y = Mul(x, t)", "y = Mish(x)", 18, {}),
    ("Swish", "a = Sigmoid(x) y = Mul(x, a)", "y = Swish(x)", 24, {}),
]
SINGLE: list[tuple[str, str, str, int, dict[str, tuple[int, ...]]]] = [
    (
        "LayerNormalization with Reciprocal",
        LAYER_NORM.replace("q = Div(d, s)", "r = Reciprocal(s) q = Mul(d, r)"),
        "y = LayerNormalization(x, g, b)",
        18,
        NORM,
    ),
    (
        "LayerNormalization without scale",
        LAYER_NORM.split("q =")[0] + "y = Div(d, s)",
        ONES + "y = LayerNormalization(x, o)",
        18,
        {},
    ),
    (
        "RMSNormalization without scale",
        RMS_NORM.split("r =")[0] + "y = Div(x, s)",
        ONES + "y = RMSNormalization(x, o)",
        23,
        {},
    ),
    (
        "RMSNormalization with Div",
        RMS_NORM.split("r =")[0] + "q = Div(x, s) y = Mul(q, g)",
        "y = RMSNormalization(x, g)",
        23,
        NORM,
    ),
]
"""What the runtime may fuse with what stands before it."""
BEFORE = {
    "Add": "x = Add(w, z) ",
    "MatMul, Add": "mm = MatMul(w, m1) x = Add(mm, b1) ",
    "MatMul, Add, Add": "mm = MatMul(w, m1) ma = Add(mm, b1) x = Add(ma, z) ",
}
ATTENTION = (
    "qs = Reshape(q, heads) ks = Reshape(k3, heads) vs = Reshape(v3, heads) qt = Transpose<perm=[0,2,1,3]>(qs) "
    "kt = Transpose<perm=[0,2,3,1]>(ks) vt = Transpose<perm=[0,2,1,3]>(vs) qk = MatMul(qt, kt) sc = Mul(qk, scale) {mask}"
    "pr = Softmax<axis=-1>({scores}) ct = MatMul(pr, vt) cr = Transpose<perm=[0,2,1,3]>(ct) y = Reshape(cr, flat)"
)
ATTENTION_4D = (
    "kt = Transpose<perm=[0,1,3,2]>(k3) qk = MatMul(q, kt) sc = Mul(qk, scale) {mask}pr = Softmax<axis=-1>({scores}) "
    "y = MatMul(pr, v3)"
)


def cases() -> list[Case]:
    """Every case, at several sizes."""
    return [*elementwise(), *products(), *attention(), *kept_apart(), *spatial_means()]


def elementwise() -> list[Case]:
    """Normalizations and activations, alone and behind what the runtime may fuse them with."""
    found = []
    for shape in ((1, 1, 768), (1, 128, 768), (8, 197, 768)):
        for name, before, after, opset, weights in ELEMENTWISE:
            for dtype in ("float", "float16"):
                found.append(Case(f"{name} {list(shape)} {dtype}", {"x": shape}, before, after, opset, weights, dtype))
        for name, before, after, opset, weights in SINGLE:
            found.append(Case(f"{name} {list(shape)}", {"x": shape}, before, after, opset, weights))
        for name, before, after, opset, weights in ELEMENTWISE[:5]:
            for label, first in BEFORE.items():
                given = {one: shape for one in ("w", "z") if f"{one})" in first or f"({one}" in first}
                both = {**weights, **({"m1": (768, 768), "b1": (768,)} if "m1" in first else {})}
                found.append(Case(f"{label}, {name} {list(shape)}", given, first + before, first + after, opset, both))
    two = (LAYER_NORM.replace("last", "last_two"), "y = LayerNormalization<axis=-2>(x, g, b)")
    return [*found, Case("LayerNormalization, two axes [8, 197, 768]", {"x": (8, 197, 768)}, *two, 18, ROWS)]


def products() -> list[Case]:
    """Gemm for MatMul and Add, and for transposes before it."""
    found = []
    for rows, depth, width in ((1, 768, 768), (1, 512, 10), (32, 784, 128), (128, 384, 1536), (197, 768, 768)):
        at, weights = f"[{rows}, {depth}] x [{depth}, {width}]", {"m1": (depth, width), "b1": (width,)}
        straight, turned = {"x": (rows, depth)}, {"x": (depth, rows)}
        both = {"x": (rows, depth), "z": (width, depth)}
        swap = "t = Transpose<perm=[1,0]>"
        gemm, swapped = "y = Gemm(x, m1, b1)", "y = Gemm<transA=1>(x, m1, b1)"
        found += [
            Case(f"MatMul, Add {at}", straight, "p = MatMul(x, m1) y = Add(p, b1)", gemm, 17, weights),
            Case(
                f"MatMul, Add {at} float16", straight, "p = MatMul(x, m1) y = Add(p, b1)", gemm, 17, weights, "float16"
            ),
            Case(
                f"MatMul, Add, Relu {at}",
                straight,
                "p = MatMul(x, m1) a = Add(p, b1) y = Relu(a)",
                "a = Gemm(x, m1, b1) y = Relu(a)",
                17,
                weights,
            ),
            Case(f"Transpose, Gemm {at}", turned, f"{swap}(x) y = Gemm(t, m1, b1)", swapped, 17, weights),
            Case(
                f"Transpose, MatMul, Add {at}",
                turned,
                f"{swap}(x) p = MatMul(t, m1) y = Add(p, b1)",
                swapped,
                17,
                weights,
            ),
            Case(
                f"Transpose of B, Gemm {at}",
                both,
                f"{swap}(z) y = Gemm(x, t, b1)",
                "y = Gemm<transB=1>(x, z, b1)",
                17,
                weights,
            ),
        ]
    return found


def attention() -> list[Case]:
    """Scaled dot products, 12 heads, with heads as an axis (4-D) and in the last axis (3-D)."""
    found = []
    for batch, length, size in ((1, 128, 64), (1, 384, 32), (8, 64, 64)):
        for mask in (None, (batch, 1, length, length), (length, length)):
            parts = {"mask": "sm = Add(sc, mask) " if mask else "", "scores": "sm" if mask else "sc"}
            masks, given = ({"mask": mask}, ", mask") if mask else ({}, "")
            for rank, shape, before, heads in (
                (4, (batch, 12, length, size), ATTENTION_4D, ""),
                (3, (batch, length, 12 * size), ATTENTION, ", q_num_heads=12, kv_num_heads=12"),
            ):
                inputs = {**dict.fromkeys(("q", "k3", "v3"), shape), **masks}
                after = f"y = Attention<scale=0.125{heads}>(q, k3, v3{given})"
                name = f"Attention {rank}-D {list(shape)} mask {mask and list(mask)}"
                found.append(Case(name, inputs, before.format(**parts), after, 23))
    return found


def kept_apart() -> list[Case]:
    """A residual sum as Add, which the runtime fuses with the normalization behind it, and as Sum, which it does not."""
    found = []
    for shape in ((1, 16, 384), (1, 128, 384), (1, 128, 768), (8, 197, 768)):
        weights = dict.fromkeys(("g", "b", "b1"), shape[-1:])
        for label, first, norm, opset in (
            ("Add", "", "LayerNormalization(s, g, b)", 17),
            ("Add, Add", "a = Add(x, b1) ", "LayerNormalization(s, g, b)", 17),
            ("Add", "", "RMSNormalization(s, g)", 23),
        ):
            inputs = "a, z" if first else "x, z"
            before, after = (f"{first}s = {sum_}({inputs}) y = {norm}" for sum_ in ("Add", "Sum"))
            name = f"{label} before {norm.partition('(')[0]} as Sum {list(shape)}"
            found.append(Case(name, {"x": shape, "z": shape}, before, after, opset, weights))
    return found


def spatial_means() -> list[Case]:
    """The mean over all spatial axes and the pool, in float behind a convolution, and between integers."""
    found = []
    for channels, size in ((64, 8), (320, 4), (1280, 7)):
        shape, groups = (1, channels, size, size), f"<group={channels}, kernel_shape=[1,1]>"
        pair = "{0}q = QuantizeLinear({0}, scale) {0}d = DequantizeLinear({0}q, scale) "
        for label, first, value, last in (
            ("float", f"c = Conv{groups}(x, w) ", "c", "y = Relu(m)"),
            ("int8", pair.format("x"), "xd", f"{pair.format('m')}y = Identity(md)"),
        ):
            mean = f"{first}m = ReduceMean<axes=[2,3], keepdims=1>({value}) {last}"
            pool = f"{first}m = GlobalAveragePool({value}) {last}"
            name = f"GlobalAveragePool for ReduceMean {list(shape)} {label}"
            found.append(Case(name, {"x": shape}, mean, pool, 17, {"w": (channels, 1, 1, 1)}))
    return found


def build(case: Case, nodes: str) -> onnx.ModelProto:
    """One spelling as a model."""
    rng = np.random.default_rng(0)
    inputs = ", ".join(f"{case.dtype}[{','.join(map(str, shape))}] {name}" for name, shape in case.inputs.items())
    text = f'<ir_version: 10, opset_import: ["" : {case.opset}]> g ({inputs}) => ({case.dtype} y) {{ {nodes} }}'
    proto = onnx.parser.parse_model(text)
    numpy_type = np.float16 if case.dtype == "float16" else np.float32
    arrays = {name: np.array(value, numpy_type) for name, value in SCALARS.items()}
    arrays |= {name: np.array(values) for name, values in VECTORS.items()}
    arrays |= {
        name: (rng.standard_normal(shape) / max(shape[0], 1) ** 0.5).astype(numpy_type)
        for name, shape in case.weights.items()
    }
    used = {name for node in proto.graph.node for name in node.input} - set(case.inputs)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items() if n in used)
    return proto


def main() -> None:
    """Measures and prints one line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--control", action="store_true", help="compare the composite with itself")
    arguments = parser.parse_args()
    print("decomposed / composite | case | decomposed runs as | composite runs as | largest difference")
    with Runner(threads=arguments.threads) as runner:
        for case in cases():
            if arguments.only.lower() in case.name.lower():
                chosen = dataclasses.replace(case, before=case.after) if arguments.control else case
                print(measured(runner, chosen, arguments.seconds), flush=True)


def measured(runner: Runner, case: Case, seconds: float) -> str:
    """One line."""
    rng = np.random.default_rng(1)
    numpy_type = np.float16 if case.dtype == "float16" else np.float32
    feed = {name: rng.standard_normal(shape).astype(numpy_type) for name, shape in case.inputs.items()}
    models = [normalize(build(case, nodes)) for nodes in (case.before, case.after)]
    with runner.open(models[0]) as before, runner.open(models[1]) as after:
        results = [np.asarray(model.run(feed)["y"]).astype(np.float64) for model in (before, after)]
        ratio = compare_latency(runner, before, after, [feed], seconds=seconds)
        kernels = [_kernels(runner, model) for model in models]
    difference = np.abs(results[0] - results[1]).max() / np.abs(results[0]).max()
    return f"{ratio.describe():24} | {case.name} | {kernels[0]} | {kernels[1]} | {difference:.1e}"


def _kernels(runner: Runner, model: object) -> str:
    counts = collections.Counter(node.op_type for node in runner.runtime_graph(model))  # type: ignore[arg-type]
    return ", ".join(name if n == 1 else f"{n} {name}" for name, n in counts.items())


if __name__ == "__main__":
    main()
