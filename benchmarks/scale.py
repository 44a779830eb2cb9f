#!/usr/bin/env python3
"""Seconds that `-O1` with verification takes on graphs of many nodes, and how they grow.

    python benchmarks/scale.py [--nodes 2500,5000,10000] [--shapes chain,branching,runs] [--profile] [--json FILE]

Graphs of N nodes, in a file as an exporter writes it: `chain`, where every node uses the one before; `branching`, where
nodes also use one of the last few or of all before, so that values have many users; `runs`, a chain in which the steps
of a kind follow each other, hundreds of Transpose in a row. All mix elementwise operators and MatMul with what the
passes look for: no-ops, repeated subexpressions, Transpose, Reshape, Cast and Clip in a row, shape arithmetic, shared
weights. The growth exponent is the slope of log(seconds) over log(nodes): 1 is linear. `cpu` is processor time, that of
the runtime process included, which other work on the machine does not lengthen. `--profile` shows where the time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import os
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import irc

WIDTH = 8
WEIGHTS = 16
STEPS = (
    *("Relu", "MatMul", "Add", "Mul", "Identity", "Tanh", "Transpose"),
    *("AddZero", "Reshape", "Cast", "Clip", "Neg", "Repeat", "Shape"),
)


class Builder:
    """Nodes over square matrices, so that everything fits everything."""

    def __init__(self, branching: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.values = ["x"]
        self._branching, self._generator = branching, np.random.default_rng(0)

    def pick(self) -> str:
        """The last value; in a branching graph sometimes one of the last eight or of all."""
        if not self._branching or self._generator.random() < 0.4:
            return self.values[-1]
        recent = self.values[-8:] if self._generator.random() < 0.7 else self.values
        return str(recent[self._generator.integers(len(recent))])

    def node(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """Adds a node with one output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def step(self, what: str) -> None:
        """Adds one step."""
        a, weight = self.pick(), f"w{self._generator.integers(WEIGHTS)}"
        if what == "MatMul":
            made = self.node("MatMul", [a, weight])
        elif what in ("Add", "Mul"):
            made = self.node(what, [a, self.pick() if self._branching else weight])
            made = self.node("Tanh", [made])  # or numbers grow without end
        elif what == "Clip":
            made = self.node("Clip", [a, "low", "high"])
        elif what == "Cast":
            made = self.node("Cast", [self.node("Cast", [a], to=onnx.TensorProto.DOUBLE)], to=onnx.TensorProto.FLOAT)
        elif what == "AddZero":
            made = self.node("Add", [a, "zero"])
        elif what == "Transpose":
            made = self.node("Transpose", [a], perm=[1, 0])
        elif what == "Reshape":
            made = self.node("Reshape", [a, "shape"])
        elif what == "Repeat":  # what merging of common subexpressions finds
            made = self.node("Add", [self.node("Abs", [a]), self.node("Abs", [a])])
        elif what == "Shape":  # arithmetic on sizes
            made = self.node("Reshape", [a, self.node("Shape", [a])])
        else:
            made = self.node(what, [a])
        self.values.append(made)


def build(path: Path, count: int, shape: str) -> None:
    """Writes a graph of about so many nodes."""
    branching = shape == "branching"
    builder, generator = Builder(branching), np.random.default_rng(1)
    while len(builder.nodes) < count:
        which = len(builder.nodes) * len(STEPS) // count if shape == "runs" else int(generator.integers(len(STEPS)))
        builder.step(STEPS[which])
    out = builder.node("Tanh", [builder.values[-1]])
    outputs = [out]
    if branching:  # nothing is dead
        used = {name for node in builder.nodes for name in node.input}
        loose = [node.output[0] for node in builder.nodes if node.output[0] not in used]
        outputs = [builder.node("Sum", loose[i : i + 64]) for i in range(0, len(loose), 64)]
    weights = {
        **{
            f"w{i}": np.linalg.qr(generator.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
            for i in range(WEIGHTS)
        },
        "zero": np.zeros((1,), np.float32),
        "low": np.array(-4, np.float32),
        "high": np.array(4, np.float32),
        "shape": np.array([WIDTH, WIDTH]),
    }
    graph = helper.make_graph(
        builder.nodes,
        "scale",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [WIDTH, WIDTH])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [WIDTH, WIDTH]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def optimize(source: Path) -> dict[str, Any]:
    """Seconds of `-O1` with verification, all of them and those of each pass."""
    start, used = time.perf_counter(), sum(os.times()[:4])
    report = irc.optimize(source, level="O1", output=source.with_name("out.onnx"), measure=False)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu": round(sum(os.times()[:4]) - used, 2),
        "after": report.artifact.nodes,
        "passes": {record.name: round(record.seconds, 2) for record in report.ledger},
        "undone": [f"{r.name}: {e.site}: {e.reason}" for r in report.ledger for e in r.undone],
    }


def main() -> None:
    """Prints a line per graph and the growth exponents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="2500,5000,10000", help="sizes, separated by commas")
    parser.add_argument("--shapes", default="chain,branching,runs")
    parser.add_argument("--profile", action="store_true", help="where the time of the largest graph goes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sizes = [int(text) for text in args.nodes.split(",")]
    document: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="scale-") as text:
        for shape in args.shapes.split(","):
            runs = []
            for size in sizes:
                path = Path(text) / f"{shape}-{size}.onnx"
                build(path, size, shape)
                run = {"nodes": size, **optimize(path)}
                runs.append(run)
                slowest = sorted(run["passes"].items(), key=lambda item: -item[1])[:4]
                print(
                    f"{shape:10s} {size:6d} nodes: {run['seconds']:6.2f} s, cpu {run['cpu']:6.2f} s, {run['after']} nodes left; "
                    + ", ".join(f"{name} {seconds} s" for name, seconds in slowest),
                    flush=True,
                )
                for line in run["undone"][:5]:
                    print(f"    undone: {line[:200]}")
            growth = None
            if len(sizes) > 1:
                logs = [math.log(size) for size in sizes], [math.log(run["cpu"]) for run in runs]
                growth = float(np.polyfit(*logs, 1)[0])
                print(f"{shape:10s} grows with exponent {growth:.2f}")
            document[shape] = {"runs": runs, "exponent": growth}
            if args.profile:
                profile = cProfile.Profile()
                profile.runcall(optimize, path)
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
