#!/usr/bin/env python3
"""Anonymous memory of the compiler process on a model with gigabytes of external weights.

    python benchmarks/external_weights.py [--gigabytes 2.5]

Builds a chain of MatMul, Identity and Tanh whose weights lie in one data file, runs `-O0` and `-O1` in a fresh
process each, and prints the peak of anonymous memory (RssAnon, sampled every 20 ms) of that process and of its children.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH = 4096


def build(folder: Path, gigabytes: float) -> Path:
    """Writes model.onnx and model.data; layers of WIDTH x WIDTH float32, an Identity and a Dropout between them."""
    layers = max(1, int(gigabytes * 1e9 / (WIDTH * WIDTH * 4)))
    nodes, initializers, current = [], [], "x"
    block = (np.random.default_rng(0).standard_normal((WIDTH, WIDTH)) / 64).astype(np.float32).tobytes()
    with (folder / "model.data").open("wb") as file:
        for i in range(layers):
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "model.data"), ("offset", str(file.tell())), ("length", str(len(block)))):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
            file.write(block)
            initializers.append(tensor)
            nodes.append(helper.make_node("MatMul", [current, f"w{i}"], [f"m{i}"]))
            nodes.append(helper.make_node("Identity", [f"m{i}"], [f"i{i}"]))
            nodes.append(helper.make_node("Tanh", [f"i{i}"], [f"t{i}"]))
            current = f"t{i}"
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info(current, TensorProto.FLOAT, ["batch", WIDTH])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert onnx.__version__
    return path


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process, 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(text) for text in task.read_text().split()]
    return found


def peak(arguments: list[str]) -> tuple[int, int, float, int]:
    """Peak anonymous bytes of a command and of its children, seconds, exit code."""
    start = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    own = below = 0
    done = threading.Event()

    def sample() -> None:
        nonlocal own, below
        while not done.is_set():
            own = max(own, anonymous_bytes(process.pid))
            below = max([below, *(anonymous_bytes(child) for child in children(process.pid))])
            time.sleep(0.02)

    thread = threading.Thread(target=sample)
    thread.start()
    code = process.wait()
    done.set()
    thread.join()
    return own, below, time.perf_counter() - start, code


def main() -> None:
    """Prints one line per level."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.5)
    parser.add_argument("--folder", type=Path, help="where to build the model (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as text:
        folder = Path(text)
        path = build(folder, args.gigabytes)
        size = (folder / "model.data").stat().st_size
        print(f"{size / 1e9:.2f} GB of external weights")
        for level in ("-O0", "-O1"):
            command = [
                sys.executable,
                "-m",
                "irc",
                "optimize",
                str(path),
                level,
                "-o",
                str(folder / "out.onnx"),
                "--no-measure",
                "-q",
            ]
            own, below, seconds, code = peak(command)
            print(
                f"{level}: compiler process {own / 1e6:.0f} MB anonymous, runtime process {below / 1e6:.0f} MB, "
                f"{seconds:.1f} s, exit {code}",
                flush=True,
            )


if __name__ == "__main__":
    main()
