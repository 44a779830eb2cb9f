#!/usr/bin/env python3
"""How long convolutions of ONNX Runtime take by their number of channels: what `OrtTarget.channel_multiple` rests on.

    python benchmarks/channel_staircase.py [--outer 16 64] [--depthwise] [--int8]

A chain of 3x3 convolutions with Relu, `outer` channels to `inner` and back (or 1x1 and depthwise ones with `--depthwise`), one
thread, the fastest of many runs, in ms by the number of inner channels; with `--int8` as `quantize` makes it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

INNER = (4, 8, 12, 15, 16, 17, 20, 24, 28, 31, 32, 36, 40, 44, 48, 52, 56, 60, 63, 64)


def chain(outer: int, inner: int, *, depthwise: bool, pairs: int = 3, side: int = 28) -> onnx.ModelProto:
    """Convolutions from `outer` channels to `inner` and back, some times."""
    rng = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"

    def convolution(shape: tuple[int, ...], **attributes: object) -> None:
        nonlocal value
        name = f"w{len(weights)}"
        array = rng.standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        nodes.append(helper.make_node("Conv", [value, name], [f"c{name}"], **attributes))
        nodes.append(helper.make_node("Relu", [f"c{name}"], [f"r{name}"]))
        value = f"r{name}"

    for _ in range(pairs):
        kernel, pads = (1, [0] * 4) if depthwise else (3, [1] * 4)
        convolution((inner, outer, kernel, kernel), pads=pads)
        if depthwise:
            convolution((inner, 1, 3, 3), pads=[1] * 4, group=inner)
        convolution((outer, inner, kernel, kernel), pads=pads)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, outer, side, side]) for n in ("x", value)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """In int8, calibrated with noise."""
    from irc import PassManager, targets
    from irc.calibration.data import FeedList, Sample
    from irc.pass_base import Context

    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    noise = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    context = Context(target=targets.parse("ort"), data=FeedList([Sample({"x": noise})]))
    loaded = onnx_ir.serde.deserialize_model(model)
    return onnx_ir.serde.serialize_model(PassManager(["quantize"], verify=False).run(loaded, context).model)


def fastest(model: onnx.ModelProto, runs: int) -> float:
    """Of some runs, in ms."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (argument,) = session.get_inputs()
    feed = {argument.name: np.random.default_rng(1).standard_normal(argument.shape).astype(np.float32)}
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def main() -> None:
    """Prints one line per number of outer channels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outer", nargs="*", type=int, default=[16, 64])
    parser.add_argument("--depthwise", action="store_true")
    parser.add_argument("--int8", action="store_true", help="quantized")
    parser.add_argument("--runs", type=int, default=60)
    given = parser.parse_args()
    for outer in given.outer:
        found = []
        for inner in INNER:
            model = chain(outer, inner, depthwise=given.depthwise)
            found.append(f"{inner}: {fastest(quantized(model) if given.int8 else model, given.runs):.3f}")
        print(f"{outer} outer channels; " + ", ".join(found))


if __name__ == "__main__":
    main()
