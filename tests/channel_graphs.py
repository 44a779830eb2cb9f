"""Small networks with families of every kind, for reports and drawings of channel groups."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from channel_kit import model_of, random_weight


def transformer(layers: int, *, width: int = 16, heads: int = 4) -> ir.Model:
    """A pre-norm transformer without biases: an embedding, layers of attention and ReLU, a head."""
    lines, weights = ["s0 = Gather(table, ids)"], {"table": random_weight(50, width), "head": random_weight(width, 5)}
    weights["split"] = np.array([0, 0, heads, width // heads])
    weights["merge"] = np.array([0, 0, width])
    for i in range(layers):
        for name in "qkv":
            weights[f"layer{i}_{name}"] = random_weight(width, width, seed=i)
        weights[f"layer{i}_o"] = random_weight(width, width, seed=i + 50)
        weights[f"layer{i}_up"] = random_weight(width, 2 * width, seed=i)
        weights[f"layer{i}_down"] = random_weight(2 * width, width, seed=i)
        weights[f"layer{i}_g"] = random_weight(width, seed=i)
        n = f"n{i}"
        lines.append(f"{n} = LayerNormalization(s{i}, layer{i}_g)")
        for name in "qkv":
            order = "0,2,3,1" if name == "k" else "0,2,1,3"
            lines.append(f"{name}{i} = MatMul({n}, layer{i}_{name}) {name}s{i} = Reshape({name}{i}, split)")
            lines.append(f"{name}h{i} = Transpose<perm=[{order}]>({name}s{i})")
        lines.append(f"sc{i} = MatMul(qh{i}, kh{i}) p{i} = Softmax(sc{i}) a{i} = MatMul(p{i}, vh{i})")
        lines.append(f"at{i} = Transpose<perm=[0,2,1,3]>(a{i}) am{i} = Reshape(at{i}, merge)")
        lines.append(f"o{i} = MatMul(am{i}, layer{i}_o) m{i} = Add(s{i}, o{i})")
        lines.append(f"up{i} = MatMul(m{i}, layer{i}_up) r{i} = Relu(up{i})")
        lines.append(f"d{i} = MatMul(r{i}, layer{i}_down) s{i + 1} = Add(m{i}, d{i})")
    lines.append(f"y = MatMul(s{layers}, head)")
    text = "g (int64[batch,seq] ids) => (float[batch,seq,5] y) { " + " ".join(lines) + " }"
    return model_of(text, weights)


def self_attention(*, length: int | str, width: int, heads: int, weighting: str = "Softmax<axis=-1>") -> ir.Model:
    """One layer of attention by heads; `weighting` makes weights of its scores."""
    lines = []
    for name in "qkv":
        order = "0,2,3,1" if name == "k" else "0,2,1,3"
        lines.append(f"{name} = MatMul(x, w{name}) {name}4 = Reshape({name}, split)")
        lines.append(f"{name}t = Transpose<perm=[{order}]>({name}4)")
    lines.append(f"s = MatMul(qt, kt) p = {weighting}(s) o = MatMul(p, vt)")
    lines.append("ot = Transpose<perm=[0,2,1,3]>(o) m = Reshape(ot, merge) y = MatMul(m, wo)")
    weights = {name: random_weight(width, width, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    weights |= {"split": np.array([0, 0, heads, width // heads]), "merge": np.array([0, 0, width])}
    shape = f"batch, {length}, {width}"
    return model_of(f"g (float[{shape}] x) => (float[{shape}] y) {{ " + " ".join(lines) + " }", weights)


def convolutional(blocks: int = 2) -> ir.Model:
    """Inverted residuals as in MobileNetV2: expand, filter depthwise, project, add."""
    lines, weights = ["s0 = Conv(image, stem)"], {"stem": random_weight(8, 3, 1, 1), "head": random_weight(8, 5)}
    for i in range(blocks):
        weights[f"expand{i}"] = random_weight(24, 8, 1, 1, seed=i)
        weights[f"filter{i}"] = random_weight(24, 1, 3, 3, seed=i)
        weights[f"project{i}"] = random_weight(8, 24, 1, 1, seed=i)
        lines.append(f"e{i} = Conv(s{i}, expand{i}) f{i} = Conv<group=24,pads=[1,1,1,1]>(e{i}, filter{i})")
        lines.append(f"r{i} = Relu(f{i}) p{i} = Conv(r{i}, project{i}) s{i + 1} = Add(s{i}, p{i})")
    lines.append(f"pool = GlobalAveragePool(s{blocks}) flat = Flatten(pool) logits = Gemm(flat, head)")
    return model_of("g (float[batch,3,8,8] image) => (float[batch,5] logits) { " + " ".join(lines) + " }", weights)


def recurrent() -> ir.Model:
    """An LSTM and a head."""
    text = """g (float[7,batch,10] x) => (float[7,batch,3] y) {
      h, last, cell = LSTM<hidden_size=6>(x, w, r) s = Squeeze(h, axes) y = MatMul(s, out) }"""
    weights = {
        "w": random_weight(1, 24, 10),
        "r": random_weight(1, 24, 6),
        "out": random_weight(6, 3),
        "axes": np.array([1]),
    }
    return model_of(text, weights)


def gated() -> ir.Model:
    """A gated feed-forward network."""
    text = """g (float[batch,8] x) => (float[batch,8] y) {
      a = MatMul(x, gate) s = Sigmoid(a) b = MatMul(x, up) m = Mul(s, b) y = MatMul(m, down) }"""
    weights = {"gate": random_weight(8, 20), "up": random_weight(8, 20, seed=1), "down": random_weight(20, 8)}
    return model_of(text, weights)


def grouped() -> ir.Model:
    """A convolution in 3 groups of 4 channels between two plain ones."""
    text = """g (float[batch,3,8,8] x) => (float[batch,4,8,8] y) {
      a = Conv(x, w1) b = Relu(a) c = Conv<group=3>(b, w2) d = Relu(c) y = Conv(d, w3) }"""
    weights = {"w1": random_weight(12, 3, 1, 1), "w2": random_weight(12, 4, 1, 1), "w3": random_weight(4, 12, 1, 1)}
    return model_of(text, weights)
