#!/usr/bin/env python3
"""Is a composite operator faster than the operators it stands for, in ONNX Runtime with all its optimizations on?

    python benchmarks/fusions.py [--only NAME] [--seconds 2] [--threads 1]

Each case is one computation twice: decomposed, as exporters write it, and with the composite operator of the standard. The
runtime fuses many decomposed patterns itself, also with their neighbours, so that a composite operator may win nothing or
lose; what each of the two becomes in the runtime is printed beside the ratio of their latencies (decomposed / composite,
above 1 when the composite is faster; both take turns in one process, with the 95 % interval of the ratio). The passes
that fuse, and where they leave alone, rest on these figures.
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
    "third": 3.0, "c3": 0.044715, "k": (2 / np.pi) ** 0.5, "scale": 0.125, "rsix": 1 / 6,
}  # fmt: skip

LAYER_NORM = "m = ReduceMean({x}, last) d = Sub({x}, m) p = Pow(d, two) v = ReduceMean(p, last) e = Add(v, eps) s = Sqrt(e) n = Div(d, s) w = Mul(n, g) {y} = Add(w, b)"
RMS = "p = Pow({x}, two) v = ReduceMean(p, last) e = Add(v, eps) s = Sqrt(e) r = Reciprocal(s) n = Mul({x}, r) {y} = Mul(n, g)"
ERF = "ed = Div({x}, root2) ee = Erf(ed) e1 = Add(ee, one) em = Mul({x}, e1) {y} = Mul(em, half)"
TANH = "t2 = Mul({x}, {x}) t3 = Mul(t2, {x}) tc = Mul(t3, c3) ts = Add({x}, tc) tk = Mul(ts, k) tt = Tanh(tk) t1 = Add(tt, one) th = Mul({x}, half) {y} = Mul(th, t1)"
SIZES = {"[1,128,384]": (1, 128, 384), "[8,197,768]": (8, 197, 768), "[1,1,768]": (1, 1, 768)}


def cases() -> list[Case]:
    """Every case, at several sizes."""
    found = []
    for label, shape in SIZES.items():
        width, x = shape[-1], {"x": shape}
        norm = {"g": (width,), "b": (width,)}
        product = {"w1": (width, width), "b1": (width,)}
        for dtype in ("float", "float16"):
            at = f"{label} {dtype}"
            found += [
                Case(f"LayerNormalization {at}", x, LAYER_NORM.format(x="x", y="y"), "y = LayerNormalization(x, g, b)", 18, norm, dtype),
                Case(f"RMSNormalization {at}", x, RMS.format(x="x", y="y"), "y = RMSNormalization(x, g)", 23, norm, dtype),
                Case(f"Gelu {at}", x, ERF.format(x="x", y="y"), "y = Gelu(x)", 20, {}, dtype),
                Case(f"Gelu tanh {at}", x, TANH.format(x="x", y="y"), 'y = Gelu<approximate="tanh">(x)', 20, {}, dtype),
                Case(f"HardSwish of HardSigmoid {at}", x, "a = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, a)", "y = HardSwish(x)", 14, {}, dtype),
                Case(f"HardSwish of Clip {at}", x, "a = Add(x, three) c = Clip(a, zero, six) d = Mul(x, c) y = Div(d, six)", "y = HardSwish(x)", 14, {}, dtype),
                Case(f"HardSigmoid of Clip {at}", x, "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)", "y = HardSigmoid<alpha=0.16666667, beta=0.5>(x)", 14, {}, dtype),
                Case(f"HardSwish as HardSigmoid and Mul {at}", x, "a = Add(x, three) c = Clip(a, zero, six) d = Mul(x, c) y = Div(d, six)", "h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, h)", 14, {}, dtype),
                Case(f"Mish {at}", x, "a = Softplus(x) t = Tanh(a) y = Mul(x, t)", "y = Mish(x)", 18, {}, dtype),
                Case(f"Swish {at}", x, "a = Sigmoid(x) y = Mul(x, a)", "y = Swish(x)", 24, {}, dtype),
            ]  # fmt: skip
        found += [
            Case(f"Add, LayerNormalization {label}", {**x, "z": shape}, "xz = Add(x, z) " + LAYER_NORM.format(x="xz", y="ln") + " y = Add(ln, xz)", "xz = Add(x, z) ln = LayerNormalization(xz, g, b) y = Add(ln, xz)", 18, norm),
            Case(f"Add, RMSNormalization {label}", {**x, "z": shape}, "xz = Add(x, z) " + RMS.format(x="xz", y="ln") + " y = Add(ln, xz)", "xz = Add(x, z) ln = RMSNormalization(xz, g) y = Add(ln, xz)", 23, norm),
            Case(f"MatMul, Add, Gelu {label}", x, "mm = MatMul(x, w1) ma = Add(mm, b1) " + ERF.format(x="ma", y="y"), "mm = MatMul(x, w1) ma = Add(mm, b1) y = Gelu(ma)", 20, product),
            Case(f"MatMul, Add, Gelu tanh {label}", x, "mm = MatMul(x, w1) ma = Add(mm, b1) " + TANH.format(x="ma", y="y"), 'mm = MatMul(x, w1) ma = Add(mm, b1) y = Gelu<approximate="tanh">(ma)', 20, product),
        ]  # fmt: skip
    for rows, depth, width in ((1, 768, 768), (1, 512, 10), (32, 784, 128), (128, 384, 1536), (197, 768, 768)):
        at, weights = f"[{rows},{depth}] x [{depth},{width}]", {"w1": (depth, width), "b1": (width,)}
        x = {"x": (rows, depth)}
        found += [
            Case(f"MatMul, Add {at}", x, "m = MatMul(x, w1) y = Add(m, b1)", "y = Gemm(x, w1, b1)", 17, weights),
            Case(f"MatMul, Add, Relu {at}", x, "m = MatMul(x, w1) a = Add(m, b1) y = Relu(a)", "a = Gemm(x, w1, b1) y = Relu(a)", 17, weights),
            Case(f"Transpose, Gemm {at}", {"x": (depth, rows)}, "t = Transpose<perm=[1,0]>(x) y = Gemm(t, w1, b1)", "y = Gemm<transA=1>(x, w1, b1)", 17, weights),
            Case(f"Transpose, MatMul, Add {at}", {"x": (depth, rows)}, "t = Transpose<perm=[1,0]>(x) m = MatMul(t, w1) y = Add(m, b1)", "y = Gemm<transA=1>(x, w1, b1)", 17, weights),
            Case(f"Gemm, Transpose of B {at}", {"x": (rows, depth), "z": (width, depth)}, "t = Transpose<perm=[1,0]>(z) y = Gemm(x, t, b1)", "y = Gemm<transB=1>(x, z, b1)", 17, weights),
        ]  # fmt: skip
    for batch, heads, length, size in ((1, 12, 128, 32), (8, 12, 197, 64), (1, 6, 64, 64)):
        shape = (batch, heads, length, size)
        at, qkv = str(list(shape)), {"q": shape, "kt": (batch, heads, size, length), "v": shape}
        turned = {"q": shape, "k4": shape, "v": shape}
        for opset in (23, 24):
            found += [
                Case(f"Attention {opset} {at}", turned, "kt = Transpose<perm=[0,1,3,2]>(k4) qk = MatMul(q, kt) sc = Mul(qk, scale) p = Softmax<axis=-1>(sc) y = MatMul(p, v)", "y = Attention<scale=0.125>(q, k4, v)", opset),
                Case(f"Attention {opset}, mask {at}", {**turned, "mask": (batch, 1, length, length)}, "kt = Transpose<perm=[0,1,3,2]>(k4) qk = MatMul(q, kt) sc = Mul(qk, scale) sm = Add(sc, mask) p = Softmax<axis=-1>(sm) y = MatMul(p, v)", "y = Attention<scale=0.125>(q, k4, v, mask)", opset),
                Case(f"Attention {opset}, given k transposed {at}", qkv, "qk = MatMul(q, kt) sc = Mul(qk, scale) p = Softmax<axis=-1>(sc) y = MatMul(p, v)", "k4 = Transpose<perm=[0,1,3,2]>(kt) y = Attention<scale=0.125>(q, k4, v)", opset),
            ]  # fmt: skip
    return found


def build(case: Case, nodes: str) -> onnx.ModelProto:
    """One spelling as a model."""
    rng = np.random.default_rng(0)
    inputs = ", ".join(f"{case.dtype}[{','.join(map(str, shape))}] {name}" for name, shape in case.inputs.items())
    text = f'<ir_version: 10, opset_import: ["" : {case.opset}]> g ({inputs}) => ({case.dtype} y) {{ {nodes} }}'
    proto = onnx.parser.parse_model(text)
    numpy_type = np.float16 if case.dtype == "float16" else np.float32
    arrays = {name: np.array(value, numpy_type) for name, value in SCALARS.items()}
    arrays["last"] = np.array([-1])
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
    arguments = parser.parse_args()
    print("decomposed / composite | case | decomposed runs as | composite runs as | largest difference")
    with Runner(threads=arguments.threads) as runner:
        for case in cases():
            if arguments.only.lower() in case.name.lower():
                print(measured(runner, case, arguments.seconds), flush=True)


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
