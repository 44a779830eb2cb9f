"""Small models that pruning is tested on."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
from channel_kit import model_of, random_weight

Array = np.ndarray[Any, Any]

CNN = """agraph (float[n, 3, 8, 8] x) => (float[n, 5] y) {
    a = Conv<pads=[1,1,1,1]>(x, w0, b0)
    b = Relu(a)
    c = Conv<pads=[1,1,1,1]>(b, w1, b1)
    d = Relu(c)
    e = Conv<pads=[1,1,1,1]>(d, w2)
    f = Add(b, e)
    g = Conv<pads=[1,1,1,1], group=24>(f, w3)
    h = Relu(g)
    i = GlobalAveragePool(h)
    j = Flatten(i)
    y = Gemm<transB=1>(j, w4, b4)
}"""


def cnn(*, seed: int = 0, width: int = 24, **changed: Array) -> ir.Model:
    """A convolution, a residual block with an inner convolution, a depthwise one, and a classifier."""
    inner = 32
    shapes = {
        "w0": (width, 3, 3, 3),
        "b0": (width,),
        "w1": (inner, width, 3, 3),
        "b1": (inner,),
        "w2": (width, inner, 3, 3),
        "w3": (width, 1, 3, 3),
        "w4": (5, width),
        "b4": (5,),
    }
    weights = {name: random_weight(*shape, seed=seed + i) for i, (name, shape) in enumerate(shapes.items())}
    return model_of(CNN.replace("group=24", f"group={width}"), {**weights, **changed})


def mlp(*sizes: int, seed: int = 0, output: str = "y") -> ir.Model:
    """Matrix products with Relu between them, from `sizes[0]` features to `sizes[-1]`."""
    lines, value, weights = [], "x", {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        weights[f"w{i}"] = random_weight(b, a, seed=seed + i).T.copy()
        made = output if i == len(sizes) - 2 else f"m{i}"
        lines.append(f"{made} = MatMul({value}, w{i})")
        if made != output:
            lines.append(f"r{i} = Relu({made})")
        value = f"r{i}"
    body = "\n".join(lines)
    return model_of(f"agraph (float[n, {sizes[0]}] x) => (float[n, {sizes[-1]}] {output}) {{ {body} }}", weights)


ATTENTION = """agraph (float[n, t, 16] x) => (float[n, t, 16] y) {
    q0 = MatMul(x, wq)  k0 = MatMul(x, wk)  v0 = MatMul(x, wv)
    q1 = Reshape(q0, split)  k1 = Reshape(k0, split)  v1 = Reshape(v0, split)
    q = Transpose<perm=[0,2,1,3]>(q1)  k = Transpose<perm=[0,2,3,1]>(k1)  v = Transpose<perm=[0,2,1,3]>(v1)
    s = MatMul(q, k)  p = Softmax<axis=-1>(s)  o = MatMul(p, v)
    o1 = Transpose<perm=[0,2,1,3]>(o)  o2 = Reshape(o1, join)  o3 = MatMul(o2, wo)
    a = Add(o3, x)
    h = MatMul(a, w1)  g = Relu(h)  y = MatMul(g, w2)
}"""


def attention(seed: int = 0) -> ir.Model:
    """4 heads of 8 dimensions, and a feed-forward network of 40."""
    weights: dict[str, Array] = {
        name: random_weight(*shape, seed=seed + i)
        for i, (name, shape) in enumerate(
            {"wq": (16, 32), "wk": (16, 32), "wv": (16, 32), "wo": (32, 16), "w1": (16, 40), "w2": (40, 16)}.items()
        )
    }
    weights |= {"split": np.array([0, 0, 4, 8]), "join": np.array([0, 0, 32])}
    return model_of(ATTENTION, weights)


NORMALIZED = """agraph (int64[n, t] ids) => (float[n, t, 6] y) {
    e = Gather(table, ids)
    l = LayerNormalization<axis=-1>(e, gamma, beta)
    h = MatMul(l, w1)
    r = Relu(h)
    o = MatMul(r, w2)
    s = Add(e, o)
    y = MatMul(s, w3)
}"""


def normalized(seed: int = 0) -> ir.Model:
    """A residual stream of 20 under LayerNormalization, with a feed-forward network of 30."""
    shapes = {"table": (11, 20), "gamma": (20,), "beta": (20,), "w1": (20, 30), "w2": (30, 20), "w3": (20, 6)}
    return model_of(NORMALIZED, {n: random_weight(*s, seed=seed + i) for i, (n, s) in enumerate(shapes.items())})
