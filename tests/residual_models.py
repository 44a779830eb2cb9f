"""Small residual networks that layer pruning is tested on, with any of their blocks missing from the start."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
from channel_kit import model_of, random_weight

from irc.calibration import FeedList, Sample
from irc.ir import refresh_shapes

Array = np.ndarray[Any, Any]
WIDTH = 8


def inferred(text: str, weights: dict[str, Array]) -> ir.Model:
    """A model with shapes."""
    model = model_of(text, weights)
    refresh_shapes(model)
    return model


def stream(kinds: str, *, gone: Collection[int] = (), constants: dict[int, Array] | None = None) -> ir.Model:
    """A residual stream `[n, t, 8]`, made by a product and read by one, with one branch per letter.

    - f: a feed-forward network behind a LayerNormalization.
    - F: the same, of hardly any weight.
    - a: attention without heads behind a LayerNormalization, masked by an input.
    - p: both side by side from one LayerNormalization, `x + attention + feed-forward`.
    - n: a feed-forward network with the LayerNormalization behind the sum.
    - b: a feed-forward network whose bias is added behind the sum.

    Args:
        kinds: One letter per block.
        gone: Blocks without their branch.
        constants: What such a block adds instead, `[8]`.
    """
    constants = constants or {}
    weights: dict[str, Array] = {"first": random_weight(5, WIDTH), "last": random_weight(WIDTH, 3, seed=1)}
    lines = ["s0 = MatMul(x, first)"]
    for i, kind in enumerate(kinds):
        s, n = f"s{i}", f"s{i + 1}"
        scale = 0.01 if kind == "F" else 1.0
        weights[f"g{i}"], weights[f"h{i}"] = 1 + random_weight(WIDTH, seed=9 + i), random_weight(WIDTH, seed=19 + i)
        weights[f"u{i}"] = random_weight(WIDTH, 12, seed=29 + i)
        weights[f"d{i}"] = scale * random_weight(12, WIDTH, seed=39 + i)
        weights[f"b{i}"] = scale * random_weight(WIDTH, seed=49 + i)
        normal = f"l{i} = LayerNormalization<axis=-1>({s}, g{i}, h{i})"
        source = s if kind == "n" else f"l{i}"
        feed = f"f{i}a = MatMul({source}, u{i}) f{i}b = Relu(f{i}a) f{i}c = MatMul(f{i}b, d{i}) f{i} = Add(f{i}c, b{i})"
        attention = (
            f"k{i} = Transpose<perm=[0, 2, 1]>(l{i}) q{i} = MatMul(l{i}, k{i}) m{i} = Add(q{i}, mask) "
            f"p{i} = Softmax<axis=-1>(m{i}) o{i} = MatMul(p{i}, l{i}) a{i} = MatMul(o{i}, w{i})"
        )
        if kind in "ap":
            weights[f"w{i}"] = random_weight(WIDTH, WIDTH, seed=59 + i)
        if i in gone:
            weights[f"c{i}"] = constants.get(i, np.zeros(WIDTH)).astype(np.float32)
            tail = f"t{i} = LayerNormalization<axis=-1>(j{i}, g{i}, h{i})" if kind == "n" else ""
            tail = f"t{i} = Add(j{i}, b{i})" if kind == "b" else tail
            lines += [f"j{i} = Add({s}, c{i})", tail, f"{n} = Identity({'t' if tail else 'j'}{i})"]
        elif kind in "fF":
            lines += [normal, feed, f"{n} = Add({s}, f{i})"]
        elif kind == "a":
            lines += [normal, attention, f"{n} = Add(a{i}, {s})"]
        elif kind == "p":
            lines += [normal, attention, feed, f"j{i} = Add(a{i}, f{i})", f"{n} = Add({s}, j{i})"]
        elif kind == "n":
            lines += [feed, f"j{i} = Add({s}, f{i})", f"{n} = LayerNormalization<axis=-1>(j{i}, g{i}, h{i})"]
        elif kind == "b":
            feed = feed.replace(f" f{i} = Add(f{i}c, b{i})", "")
            lines += [normal, feed, f"j{i} = Add({s}, f{i}c)", f"{n} = Add(j{i}, b{i})"]
    lines.append(f"y = MatMul(s{len(kinds)}, last)")
    body = "\n".join(lines)
    used = {name: array for name, array in weights.items() if any(name in line for line in lines)}
    head = "agraph (float[n, t, 5] x, float[t] mask) => (float[n, t, 3] y)"
    return inferred(f"{head} {{ {body} }}", {k: v.astype(np.float32) for k, v in used.items()})


def resnet(*, projected: bool = True) -> ir.Model:
    """Two blocks of two convolutions with an identity, `Relu(x + f(x))`, and one with a projection between them."""
    weights = {
        "w0": (6, 3, 3, 3),
        "w1": (6, 6, 3, 3),
        "w2": (6, 6, 3, 3),
        "w3": (6, 6, 3, 3),
        "w4": (6, 6, 3, 3),
        "w5": (6, 6, 1, 1),
        "w6": (6, 6, 3, 3),
        "w7": (6, 6, 3, 3),
        "w8": (6, 4),
    }
    shortcut = "k = Conv(e, w5)" if projected else "k = Identity(e)"
    text = f"""agraph (float[n, 3, 8, 8] x) => (float[n, 4] y) {{
        a = Conv<pads=[1,1,1,1]>(x, w0)
        b = Conv<pads=[1,1,1,1]>(a, w1)  c = Relu(b)  d = Conv<pads=[1,1,1,1]>(c, w2)  s1 = Add(d, a)  e = Relu(s1)
        f = Conv<pads=[1,1,1,1]>(e, w3)  g = Relu(f)  h = Conv<pads=[1,1,1,1]>(g, w4)  {shortcut}  s2 = Add(h, k)  i = Relu(s2)
        o = Conv<pads=[1,1,1,1]>(i, w6)  p = Relu(o)  q = Conv<pads=[1,1,1,1]>(p, w7)  s3 = Add(i, q)  r = Relu(s3)
        t = GlobalAveragePool(r)  u = Flatten(t)  y = MatMul(u, w8)
    }}"""
    if not projected:
        del weights["w5"]
    return inferred(text, {name: random_weight(*shape, seed=i) for i, (name, shape) in enumerate(weights.items())})


def samples(model: ir.Model, count: int = 12, *, seed: int = 0) -> FeedList:
    """Random feeds of two lengths."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        sizes = {"n": 2, "t": 3 + i % 2}
        feed = {
            value.name or "": rng.standard_normal(
                [d if isinstance(d, int) else sizes[str(d.value)] for d in value.shape or ()]
            ).astype((value.dtype or ir.DataType.FLOAT).numpy())
            for value in model.graph.inputs
        }
        found.append(Sample(feed))
    return FeedList(found)
