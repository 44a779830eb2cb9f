"""The float patterns that `ort_integer_kernels.py` quantizes, and the sizes it does so at."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Pattern(NamedTuple):
    """A float graph and where its pairs of QuantizeLinear and DequantizeLinear are.

    Attributes:
        name: What it is.
        inputs: Shapes by name; each is dequantized.
        constants: Shapes by name. A weight, with its channel axis behind "@" or "none" for one scale, is stored as integers,
            "@u8" as activations are, "@i32" as an int32 bias; others stay float.
        nodes: What computes y. `p = Pair(c)` is a pair, `p = Same(c, a)` one with the scale of a.
        behind: What follows y: "q" a QuantizeLinear, "same" one with the scale of x, "float" nothing.
    """

    name: str
    inputs: str
    constants: str
    nodes: str
    behind: str


SIZES = {
    "small": {"C": 32, "H": 14, "L": 64, "V": 6, "R": 16, "D": 128, "A": 4},
    "medium": {"C": 64, "H": 56, "L": 1024, "V": 16, "R": 128, "D": 768, "A": 12},
}
"""Channels, height, length, edge of a volume, rows, width, heads."""
CONSTANTS: dict[str, Array] = {
    "zero": np.float32(0), "six": np.float32(6), "three": np.float32(3), "half": np.float32(0.5), "sixth": np.float32(1 / 6),
    "root2": np.float32(2**0.5), "one": np.float32(1), "flat": np.array([0, -1]), "merge": np.array([0, 0, -1]),
    "first": np.array([0]), "second": np.array([1]), "two": np.array([2]), "hw": np.array([2, 3]), "last": np.array([-1]),
    "start": np.array([0]), "stop": np.array([5]), "edges": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "twice": np.array([1, 1, 2, 2], np.float32), "front": np.array([4, 1, 1, 1, 1]), "ids": np.array([3, 1, 0, 2]),
}  # fmt: skip
P3 = "Conv<pads=[1,1,1,1]>"
CONV, ROWS = ("x:1,C,H,H", "w:C,C,3,3@0 b:C"), ("x:R,D", "w:D,D@1")
GATE = "g = Add({c}, three) k = Clip(g, zero, six) "
SPLIT = ("x:1,C,H,H", "w:C,C,3,3@0 u:C,C//2,3,3@0 b:C", f"c = {P3}(x, w, b) p = Pair(c) ")
JOINED = f" e = {P3}(q, u) f = Pair(e) g = {P3}(r, u) h = Pair(g) y = Concat<axis=1>(f, h)"
BETWEEN = {
    "MaxPool": "MaxPool<kernel_shape=[3,3], strides=[2,2]>(p)",
    "AveragePool": "AveragePool<kernel_shape=[2,2], strides=[2,2]>(p)",
    "Resize": 'Resize<mode="nearest">(p, , twice)',
    "Slice": "Slice(p, start, stop, two)",
    "Pad": "Pad(p, edges)",
    "Relu": "Relu(p)",
}
SCALES = {", one scale": "q = Same(m, c)", ", two scales": "q = Pair(m)"}
PATTERNS = [Pattern(*row) for row in [
    ("Conv", *CONV, f"y = {P3}(x, w, b)", "q"),
    ("Conv, float output", *CONV, f"y = {P3}(x, w, b)", "float"),
    ("3 Conv", *CONV, f"a = {P3}(x, w, b) p = Pair(a) c = {P3}(p, w, b) r = Pair(c) y = {P3}(r, w, b)", "q"),
    ("Conv 1x1", "x:1,C,H,H", "w:C,C,1,1@0 b:C", "y = Conv(x, w, b)", "q"),
    ("Conv 1-D", "x:1,C,L", "w:C,C,3@0 b:C", "y = Conv<pads=[1,1]>(x, w, b)", "q"),
    ("Conv 3-D", "x:1,C,V,V,V", "w:C,C,3,3,3@0 b:C", "y = Conv(x, w, b)", "q"),
    ("Conv grouped by 4", "x:1,C,H,H", "w:C,C//4,3,3@0 b:C", "y = Conv<group=4>(x, w, b)", "q"),
    ("Conv depthwise", "x:1,C,H,H", "w:C,1,3,3@0 b:C", "y = Conv<group=C>(x, w, b)", "q"),
    ("Conv, Relu", *CONV, f"c = {P3}(x, w, b) y = Relu(c)", "q"),
    ("Conv, Clip", *CONV, f"c = {P3}(x, w, b) y = Clip(c, zero, six)", "q"),
    ("Conv, LeakyRelu", *CONV, f"c = {P3}(x, w, b) y = LeakyRelu(c)", "q"),
    ("Conv, pair, LeakyRelu", *CONV, f"c = {P3}(x, w, b) p = Pair(c) y = LeakyRelu(p)", "q"),
    ("Conv, Silu", *CONV, f"c = {P3}(x, w, b) s = Sigmoid(c) y = Mul(c, s)", "q"),
    ("Conv, pair, Silu", *CONV, f"c = {P3}(x, w, b) p = Pair(c) s = Sigmoid(p) y = Mul(p, s)", "q"),
    ("Conv, pair, Silu of pairs", *CONV, f"c = {P3}(x, w, b) p = Pair(c) s = Sigmoid(p) t = Pair(s) y = Mul(p, t)", "q"),
    ("Conv, HardSwish", *CONV, f"c = {P3}(x, w, b) y = HardSwish(c)", "q"),
    ("Conv, pair, HardSwish", *CONV, f"c = {P3}(x, w, b) p = Pair(c) y = HardSwish(p)", "q"),
    ("Conv, pair, HardSwish of Clip", *CONV, f"c = {P3}(x, w, b) p = Pair(c) {GATE.format(c='p')} m = Mul(p, k) y = Mul(m, sixth)", "q"),
    ("ConvTranspose", "x:1,C,H,H", "w:C,C,2,2@1 b:C", "y = ConvTranspose<strides=[2,2]>(x, w, b)", "q"),
    ("Gemm, int32 bias", "x:R,D", "w:D,D@1 b:D@i32", "y = Gemm(x, w, b)", "float"),
    ("Gemm, int32 bias, q", "x:R,D", "w:D,D@1 b:D@i32", "y = Gemm(x, w, b)", "q"),
    ("Gemm, int32 bias, Relu, q", "x:R,D", "w:D,D@1 b:D@i32", "c = Gemm(x, w, b) y = Relu(c)", "q"),
    ("Gemm, float bias", "x:R,D", "w:D,D@1 b:D", "y = Gemm(x, w, b)", "float"),
    ("Gemm, transB, alpha", "x:R,D", "w:D,D@0", "y = Gemm<transB=1, alpha=0.5>(x, w)", "float"),
    ("Gemm, transA", "x:D,R", "w:D,D@1", "y = Gemm<transA=1>(x, w)", "float"),
    ("MatMul", *ROWS, "y = MatMul(x, w)", "float"),
    ("MatMul, q", *ROWS, "y = MatMul(x, w)", "q"),
    ("MatMul, Add, q", "x:R,D", "w:D,D@1 b:D", "m = MatMul(x, w) y = Add(m, b)", "q"),
    ("MatMul, Add", "x:R,D", "w:D,D@1 b:D", "m = MatMul(x, w) y = Add(m, b)", "float"),
    ("MatMul rank 3", "x:2,R,D", "w:D,D@1", "y = MatMul(x, w)", "float"),
    ("MatMul rank 4", "x:1,2,R,D", "w:D,D@1", "y = MatMul(x, w)", "float"),
    ("MatMul, batched weight, per channel", "x:2,R,D", "w:2,D,D@2", "y = MatMul(x, w)", "float"),
    ("MatMul, batched weight, per channel, q", "x:2,R,D", "w:2,D,D@2", "y = MatMul(x, w)", "q"),
    ("MatMul, batched weight, one scale", "x:2,R,D", "w:2,D,D@none", "y = MatMul(x, w)", "float"),
    ("MatMul, weight on the left", "x:D,R", "w:D,D@0", "y = MatMul(w, x)", "float"),
    ("MatMul of activations", "x:1,A,R,64 v:1,A,64,R", "", "y = MatMul(x, v)", "float"),
    ("MatMul of activations, q", "x:1,A,R,64 v:1,A,64,R", "", "y = MatMul(x, v)", "q"),
    ("attention, products in float", "x:1,A,R,64 v:1,A,64,R u:1,A,R,64", "",
     "m = MatMul(x, v) s = Softmax(m) p = Pair(s) y = MatMul(p, u)", "float"),
    ("attention, all pairs", "x:1,A,R,64 v:1,A,64,R u:1,A,R,64", "",
     "m = MatMul(x, v) n = Pair(m) s = Softmax(n) p = Pair(s) y = MatMul(p, u)", "q"),
    ("MatMul, Add, rank 3", "x:2,R,D", "w:D,D@1 b:D", "m = MatMul(x, w) y = Add(m, b)", "float"),
    ("MatMul, Add of 1 x N, rank 3", "x:2,R,D", "w:D,D@1 b:1,D", "m = MatMul(x, w) y = Add(m, b)", "float"),
    ("Gemm, then Add", "x:R,D", "w:D,D@1 b:D", "m = Gemm(x, w) y = Add(m, b)", "float"),
    ("Conv of a float weight", "x:1,C,H,H", "k:C,C,3,3 b:C", f"y = {P3}(x, k, b)", "q"),
    ("Conv of a float weight, float output", "x:1,C,H,H", "k:C,C,3,3 b:C", f"y = {P3}(x, k, b)", "float"),
    ("Gemm of a float weight", "x:R,D", "k:D,D", "y = Gemm(x, k)", "q"),
    ("ConvTranspose of a float weight", "x:1,C,H,H", "k:C,C,2,2", "y = ConvTranspose<strides=[2,2]>(x, k)", "q"),
    ("Conv 1x1, depthwise, 1x1", "x:1,C,H,H", "w:C,C,1,1@0 v:C,1,3,3@0",
     "c = Conv(x, w) p = Pair(c) m = Conv<group=C>(p, v) q = Pair(m) y = Conv(q, w)", "q"),
    ("Conv 1x1, grouped by 4, 1x1", "x:1,C,H,H", "w:C,C,1,1@0 v:C,C//4,3,3@0",
     "c = Conv(x, w) p = Pair(c) m = Conv<group=4>(p, v) q = Pair(m) y = Conv(q, w)", "q"),
    ("Conv, Split, 2 Conv, Concat", SPLIT[0], SPLIT[1],
     SPLIT[2] + "a, d = Split<axis=1, num_outputs=2>(p) q = Same(a, c) r = Same(d, c)" + JOINED, "q"),
    ("Conv, Split with own scales, 2 Conv, Concat", SPLIT[0], SPLIT[1],
     SPLIT[2] + "a, d = Split<axis=1, num_outputs=2>(p) q = Pair(a) r = Pair(d)" + JOINED, "q"),
    *((f"Conv, {name}, Conv{how}", *CONV, f"c = {P3}(x, w, b) p = Pair(c) m = {nodes} {pair} y = {P3}(q, w, b)", "q")
      for name, nodes in BETWEEN.items() for how, pair in SCALES.items()),
    ("Flatten, Gemm", "x:R,4,D//4", "w:D,D@1", "f = Flatten(x) y = Gemm(f, w)", "float"),
    ("Reshape, Gemm", "x:R,4,D//4", "w:D,D@1", "f = Reshape(x, flat) y = Gemm(f, w)", "float"),
    ("Add", "x:1,C,H,H v:1,C,H,H", "", "y = Add(x, v)", "q"),
    ("Add, float output", "x:1,C,H,H v:1,C,H,H", "", "y = Add(x, v)", "float"),
    ("Add, Relu", "x:1,C,H,H v:1,C,H,H", "", "a = Add(x, v) y = Relu(a)", "q"),
    ("Add, broadcast", "x:1,C,H,H v:1,C,1,1", "", "y = Add(x, v)", "q"),
    ("Add of a float constant", "x:R,D", "b:D", "y = Add(x, b)", "q"),
    ("Add of a quantized constant", "x:R,D", "w:D@u8", "y = Add(x, w)", "q"),
    ("Sub", "x:1,C,H,H v:1,C,H,H", "", "y = Sub(x, v)", "q"),
    ("Mul", "x:1,C,H,H v:1,C,H,H", "", "y = Mul(x, v)", "q"),
    ("Mul, broadcast", "x:1,C,H,H v:1,C,1,1", "", "y = Mul(x, v)", "q"),
    ("Mul by a quantized constant", "x:R,D", "w:D@u8", "y = Mul(x, w)", "q"),
    ("Div", "x:1,C,H,H", "", "y = Div(x, three)", "q"),
    ("Concat", "x:1,C,H,H v:1,C,H,H", "", "y = Concat<axis=1>(x, v)", "q"),
    ("Split", "x:1,C,H,H", "", "y, z = Split<axis=1, num_outputs=2>(x)", "same"),
    ("AveragePool", "x:1,C,H,H", "", "y = AveragePool<kernel_shape=[3,3], strides=[2,2]>(x)", "q"),
    ("GlobalAveragePool", "x:1,C,H,H", "", "y = GlobalAveragePool(x)", "q"),
    ("ReduceMean", "x:1,C,H,H", "", "y = ReduceMean(x, hw)", "q"),
    ("Softmax", "x:A,R,R", "", "y = Softmax(x)", "q"),
    ("Sigmoid", "x:1,C,H,H", "", "y = Sigmoid(x)", "q"),
    ("HardSigmoid", "x:1,C,H,H", "", "y = HardSigmoid(x)", "q"),
    ("Tanh", "x:1,C,H,H", "", "y = Tanh(x)", "q"),
    ("LeakyRelu", "x:1,C,H,H", "", "y = LeakyRelu(x)", "q"),
    ("PRelu", "x:1,C,H,H", "b:C,1,1", "y = PRelu(x, b)", "q"),
    ("Relu, scale of the output", "x:1,C,H,H", "", "y = Relu(x)", "q"),
    ("Clip, scale of the output", "x:1,C,H,H", "", "y = Clip(x, zero, six)", "q"),
    ("Relu, scale of the input", "x:1,C,H,H", "", "y = Relu(x)", "same"),
    ("MaxPool", "x:1,C,H,H", "", "y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(x)", "same"),
    ("GlobalMaxPool", "x:1,C,H,H", "", "y = GlobalMaxPool(x)", "same"),
    ("Reshape", "x:1,C,H,H", "", "y = Reshape(x, merge)", "same"),
    ("Flatten", "x:1,C,H,H", "", "y = Flatten(x)", "same"),
    ("Squeeze", "x:1,C,H,H", "", "y = Squeeze(x, first)", "same"),
    ("Unsqueeze", "x:1,C,H,H", "", "y = Unsqueeze(x, first)", "same"),
    ("Transpose", "x:1,C,H,H", "", "y = Transpose<perm=[0,2,3,1]>(x)", "same"),
    ("Slice", "x:1,C,H,H", "", "y = Slice(x, start, stop, two)", "same"),
    ("Pad with zeros", "x:1,C,H,H", "", "y = Pad(x, edges)", "same"),
    ("Pad, reflect", "x:1,C,H,H", "", 'y = Pad<mode="reflect">(x, edges)', "same"),
    ("Resize, nearest", "x:1,C,H,H", "", 'y = Resize<mode="nearest">(x, , twice)', "same"),
    ("Resize, linear", "x:1,C,H,H", "", 'y = Resize<mode="linear">(x, , twice)', "same"),
    ("Expand", "x:1,C,H,H", "", "y = Expand(x, front)", "same"),
    ("Gather of an activation", "x:1,C,H,H", "", "y = Gather<axis=1>(x, ids)", "same"),
    ("DepthToSpace", "x:1,C,H,H", "", "y = DepthToSpace<blocksize=2>(x)", "same"),
    ("SpaceToDepth", "x:1,C,H,H", "", "y = SpaceToDepth<blocksize=2>(x)", "same"),
    ("Where", "c:bool,1,C,H,H x:1,C,H,H v:1,C,H,H", "", "y = Where(c, x, v)", "q"),
    ("LayerNormalization", "x:R,D", "b:D", "y = LayerNormalization(x, b)", "q"),
    ("Gelu", "x:R,D", "", "y = Gelu(x)", "q"),
    ("Gelu of Erf", "x:R,D", "", "a = Div(x, root2) e = Erf(a) o = Add(e, one) m = Mul(x, o) y = Mul(m, half)", "q"),
    ("InstanceNormalization", "x:1,C,H,H", "b:C", "y = InstanceNormalization(x, b, b)", "q"),
]]  # fmt: skip
SIGNS = (
    "Conv",
    "Conv depthwise",
    "Conv, Relu",
    "Gemm, int32 bias",
    "MatMul",
    "MatMul, q",
    "MatMul of activations, q",
    "Add",
    "Sigmoid",
)
