"""Models with subgraphs, from ONNX text: what a body captures from outside must not change under it."""

from __future__ import annotations

import functools

import onnx
from channel_models.source_export import Source
from channel_models.stored import fill

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'

BRANCH = """branch (float[batch,10] x) => (float[batch,5] y)
<float[10,19] a, float[19] b, float[19,23] c, float[19,23] d, float[23,5] e, float zero = {0.0}> {
    h0 = MatMul(x, a) h1 = Add(h0, b) h = Relu(h1)
    sum = ReduceSum<keepdims = 0>(x)
    positive = Greater(sum, zero)
    z = If(positive) <
        then_branch = then () => (float[batch,23] p) { p = MatMul(h, c) },
        else_branch = other () => (float[batch,23] n) { m = MatMul(h, d) n = Neg(m) }
    >
    r = Relu(z)
    y = MatMul(r, e)
}"""

LOOP = """repeat (float[batch,10] x) => (float[batch,5] y)
<float[10,19] a, float[19,21] up, float[21,19] down, float[19,23] w, float[23,5] e, int64 times = {3}, bool go = {1}> {
    h = MatMul(x, a)
    z = Loop(times, go, h) <
        body = step (int64 i, bool more, float[batch,19] s) => (bool still, float[batch,19] next) {
            still = Identity(more) u0 = MatMul(s, up) u = Tanh(u0) v = MatMul(u, down) next = Add(s, v)
        }
    >
    q = MatMul(z, w) r = Relu(q)
    y = MatMul(r, e)
}"""

SCAN = """scanned (float[sequence,10] x) => (float[sequence,5] y)
<float[10,19] a, float[19,19] w, float[1,19] start, float[19,23] c, float[23,5] e> {
    h = MatMul(x, a)
    k = Unsqueeze(h, one)
    last, all = Scan<num_scan_inputs = 1, body = step (float[1,19] s, float[1,19] t) => (float[1,19] next, float[1,19] out) {
        m = MatMul(s, w) n = Add(m, t) next = Tanh(n) out = Identity(next)
    }>(start, k)
    g = Squeeze(all, one)
    q = MatMul(g, c) r = Relu(q)
    y = MatMul(r, e)
}"""


def parse(text: str) -> onnx.ModelProto:
    """A model from text; weights get their data where they are stored or loaded."""
    weights, lines = [], text.split("<", 1)
    head, rest = lines[0], lines[1]
    declared, body = rest.split("> {", 1)
    kept = []
    for entry in declared.replace("\n", " ").split(", "):
        if "=" in entry:
            kept.append(entry.strip())
        else:
            kind, name = entry.split()
            dims = [int(size) for size in kind.removeprefix("float[").removesuffix("]").split(",")]
            weights.append(onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=dims))
    kept.append("int64[1] one = {1}")
    proto = onnx.parser.parse_model(f"{HEAD}{head}<{', '.join(kept)}> {{{body}")
    proto.graph.initializer.extend(weights)
    fill(proto)
    return proto


def sources() -> dict[str, Source]:
    """Sources by name."""
    table = {
        "body_if": (BRANCH, "branches of an If capture a value and weights"),
        "body_loop": (LOOP, "a Loop carries a value through captured weights"),
        "body_scan": (SCAN, "a Scan over time with a captured weight"),
    }
    return {
        name: Source(make=functools.partial(parse, text), about=about, exporter="file")
        for name, (text, about) in table.items()
    }
