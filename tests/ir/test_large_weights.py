"""Weights beyond 2 GiB: never in memory as a whole, whatever is done with the model."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = textwrap.dedent("""
    import sys, threading, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    folder, count = Path(sys.argv[2]), int(sys.argv[3])

    def anonymous():
        line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon"))
        return int(line.split()[1]) / 1024

    peak = 0.0
    def watch():
        global peak
        while True:
            peak = max(peak, anonymous())
            time.sleep(0.005)
    threading.Thread(target=watch, daemon=True).start()

    import numpy as np
    import onnx_ir as ir
    from onnx import helper
    from ir_graphs import external_tensor, model_proto
    from irc import ir as room
    size = 2048 * 2048 * 4
    with (folder / "w.bin").open("wb") as file:
        file.truncate(count * size)  # sparse: takes no space
    nodes = [helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"]) for i in range(count)]
    weights = {f"w{i}": external_tensor(f"w{i}", [2048, 2048], "w.bin", offset=i * size, length=size) for i in range(count)}
    proto = model_proto(nodes, {"h0": ["N", 2048]}, {f"h{count}": ["N", 2048]}, weights)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())

    model = room.load(folder / "m.onnx")
    copy = room.snapshot(model)
    for value in copy.graph.initializers.values():
        tensor = value.const_value
        value.const_value = ir.LazyTensor(
            lambda t=tensor: ir.tensor(np.asarray(t.numpy()) + 1), dtype=tensor.dtype, shape=ir.Shape(tensor.shape), name=value.name
        )
    for edited in (model, copy):
        room.refresh_shapes(edited)
        room.check(edited)
        room.size_on_disk(edited)
        room.skeleton(edited)
    files = room.save(copy, folder / "out.onnx", external_threshold=0)
    files[1].unlink()
    room.save(model, folder / "out.onnx", external_threshold=0)
    room.load(folder / "out.onnx")
    print(peak)
""")


def peak_megabytes(folder: Path, count: int) -> float:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[1]), str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory accounting")
def test_memory_does_not_follow_the_weights(tmp_path: Path) -> None:
    """256 MiB of weights, all edited: the peak stays at a few tensors of 16 MiB above the imports."""
    assert peak_megabytes(tmp_path, 16) < 200


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory accounting")
def test_two_and_a_half_gigabytes(tmp_path: Path) -> None:
    assert peak_megabytes(tmp_path, 160) < 700
