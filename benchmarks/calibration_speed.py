#!/usr/bin/env python3
"""What calibration costs: time against running the same samples in float, memory against the number of samples.

    python benchmarks/calibration_speed.py                     # times, 40 samples a round
    python benchmarks/calibration_speed.py --memory            # peaks with 40 and 400 samples, a process each
    python benchmarks/calibration_speed.py --peers             # ONNX Runtime's own calibrators beside it

The network is ResNet-50 with random weights and its BatchNorms folded, inputs of 224 x 224. Observed are the values that
`quantize` asks for on the ort target. Times are of whole calibrations, the opening of the session and the search for ranges
included, in rounds: every round runs the samples in a stock session and calibrates with every observer, in an order drawn
anew; given are medians of the ratios within a round. Peaks are anonymous memory of the process and all below it together,
sampled every 20 ms, above what an interpreter with the same imports takes.

ONNX Runtime's entropy and percentile calibrators keep every activation of every sample, so they get `--peer-samples`.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from external_weights import anonymous_bytes, children

OBSERVERS = ("min-max", "mean", "percentile", "entropy", "mse")
PEERS = ("MinMax", "Percentile", "Entropy")
STAGES = ((64, 256, 3, 1), (128, 512, 4, 2), (256, 1024, 6, 2), (512, 2048, 3, 2))
Feed = dict[str, np.ndarray]


def resnet50(path: Path, *, seed: int = 0) -> None:
    """Writes ResNet-50 (He et al. 2016, arXiv:1512.03385) with random weights of unit gain."""
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def conv(source: str, into: int, out: int, size: int, stride: int = 1, *, relu: bool = True) -> str:
        name = f"c{len(nodes)}"
        gain = np.sqrt(2 / (into * size * size))
        weight = (rng.standard_normal((out, into, size, size)) * gain).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(weight, f"{name}.w"))
        weights.append(onnx.numpy_helper.from_array((rng.standard_normal(out) * 0.1).astype(np.float32), f"{name}.b"))
        attributes = {"strides": [stride, stride], "pads": [size // 2] * 4, "kernel_shape": [size, size]}
        nodes.append(onnx.helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [name], name=name, **attributes))
        if relu:
            nodes.append(onnx.helper.make_node("Relu", [name], [f"{name}.r"], name=f"{name}.r"))
            return f"{name}.r"
        return name

    value = conv("x", 3, 64, 7, 2)
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    nodes.append(onnx.helper.make_node("MaxPool", [value], ["pool"], name="pool", **pool))
    value, width = "pool", 64
    for narrow, wide, blocks, stride in STAGES:
        for block in range(blocks):
            step = stride if block == 0 else 1
            branch = conv(conv(conv(value, width, narrow, 1), narrow, narrow, 3, step), narrow, wide, 1, relu=False)
            skip = conv(value, width, wide, 1, step, relu=False) if block == 0 else value
            nodes.append(onnx.helper.make_node("Add", [branch, skip], [f"{branch}.s"], name=f"{branch}.s"))
            nodes.append(onnx.helper.make_node("Relu", [f"{branch}.s"], [f"{branch}.a"], name=f"{branch}.a"))
            value, width = f"{branch}.a", wide
    nodes.append(onnx.helper.make_node("GlobalAveragePool", [value], ["gap"], name="gap"))
    nodes.append(onnx.helper.make_node("Flatten", ["gap"], ["flat"], name="flat"))
    weights.append(onnx.numpy_helper.from_array((rng.standard_normal((2048, 1000)) / 45).astype(np.float32), "fc.w"))
    nodes.append(onnx.helper.make_node("Gemm", ["flat", "fc.w"], ["y"], name="fc"))
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 224, 224])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1000])
    graph = onnx.helper.make_graph(nodes, "resnet50", [given], [result], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def feeds(count: int) -> Iterator[Feed]:
    """Samples, made one at a time."""
    for index in range(count):
        rng = np.random.default_rng(index)
        yield {"x": rng.standard_normal((1, 3, 224, 224), dtype=np.float32) * (1 + index % 3)}


def plain(path: Path, count: int, threads: int) -> Callable[[], None]:
    """Runs the samples in a stock session, opening it included."""

    def run() -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for feed in feeds(count):
            session.run(None, feed)

    return run


def calibrate(path: Path, count: int, threads: int, name: str) -> Callable[[], None]:
    """Calibrates what `quantize` asks for, with one observer; a process of the runtime is there already."""
    import irc.ir
    from irc.backends.ort import OrtTarget
    from irc.calibration import DataSource, Sample, Statistics, collect
    from irc.pass_base import Context
    from irc.passes.quantization.quantize import Quantize
    from irc.runner import Runner

    class Generated(DataSource):
        name = "generated"

        def __len__(self) -> int:
            return count

        def samples(self) -> Iterator[Sample]:
            for index, feed in enumerate(feeds(count)):
                yield Sample(feed, {}, f"sample {index}")

    model = irc.ir.load(path)
    asked: list[Any] = []

    def record(_: Any, requests: Any) -> Statistics:
        asked.extend(requests)
        return Statistics()

    list(Quantize(calibrator=name).sites(model, Context(target=OrtTarget(), collect=record)))  # type: ignore[arg-type]
    runner = Runner(threads=threads)
    runner.start()

    def run() -> None:
        found = collect(runner, model, Generated(), asked)
        if found.samples != count or len(found) != len(asked) or found.missing:
            raise SystemExit(f"{name}: {found.samples} samples, {len(found)} of {len(asked)} ranges")

    return run


def peer(path: Path, count: int, threads: int, name: str) -> Callable[[], None]:
    """ONNX Runtime's calibrator on the operators of its defaults."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = feeds(count)

        def get_next(self) -> Feed | None:
            return next(self.left, None)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            augmented = Path(folder) / "augmented.onnx"
            method = getattr(CalibrationMethod, name)
            found = create_calibrator(path, ["Conv", "Gemm"], str(augmented), calibrate_method=method)
            found.collect_data(Reader())
            found.compute_data()

    return run


def family(pid: int) -> list[int]:
    """A process, its children and theirs."""
    return [pid, *(member for child in children(pid) for member in family(child))]


def peak(mode: str, path: Path, count: int, threads: int) -> float:
    """Peak memory in bytes of one mode in a process of its own, children included, above an idle one."""
    figures = []
    for samples in (0, count):
        command = [sys.executable, __file__, "--child", mode, "--model", str(path), "--samples", str(samples)]
        process = subprocess.Popen([*command, "--threads", str(threads)], stdout=subprocess.DEVNULL)
        highest, done = 0, threading.Event()

        def sample(pid: int, done: threading.Event) -> None:
            nonlocal highest
            while not done.is_set():
                highest = max(highest, sum(map(anonymous_bytes, family(pid))))
                time.sleep(0.02)

        thread = threading.Thread(target=sample, args=(process.pid, done))
        thread.start()
        code = process.wait()
        done.set()
        thread.join()
        if code:
            raise SystemExit(f"{mode} with {samples} samples: exit {code}")
        figures.append(highest)
    return figures[1] - figures[0]


def task(mode: str, path: Path, count: int, threads: int) -> Callable[[], None]:
    """A mode by name."""
    kind, _, name = mode.partition(":")
    if kind == "plain":
        return plain(path, count, threads)
    return (calibrate if kind == "irc" else peer)(path, count, threads, name)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--many", type=int, default=400, help="samples of the second peak")
    parser.add_argument("--peer-samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--observers", default=",".join(OBSERVERS))
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run = task(args.child, args.model, args.samples, args.threads)
        if args.samples:
            run()
        return
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        resnet50(path)
        modes = [f"irc:{name}" for name in args.observers.split(",")]
        if args.memory:
            results["peak MB"] = peaks(path, ["plain", *modes], args)
        else:
            results["time ratio"] = ratios(path, modes, args)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def ratios(path: Path, modes: list[str], args: argparse.Namespace) -> dict[str, list[float]]:
    """Times over that of running the same number of samples, by mode and round."""
    runs = {mode: task(mode, path, args.samples, args.threads) for mode in ["plain", *modes]}
    if args.peers:
        few = {f"ort:{name}": task(f"ort:{name}", path, args.peer_samples, args.threads) for name in PEERS}
        runs |= {"few": plain(path, args.peer_samples, args.threads), **few}
    for name in ("plain", modes[0]):
        runs[name]()
    found: dict[str, list[float]] = {mode: [] for mode in runs if mode not in ("plain", "few")}
    order, rng = list(runs), random.Random(0)
    for _ in range(args.rounds):
        rng.shuffle(order)
        seconds = {}
        for mode in order:
            begin = time.perf_counter()
            runs[mode]()
            seconds[mode] = time.perf_counter() - begin
        for mode, values in found.items():
            values.append(seconds[mode] / seconds["few" if mode.startswith("ort:") else "plain"])
        print("  ".join(f"{mode} {values[-1]:.2f}x" for mode, values in found.items()), flush=True)
    for mode, values in found.items():
        count = args.peer_samples if mode.startswith("ort:") else args.samples
        print(
            f"{mode:16s} {np.median(values):6.2f}x of running {count} samples ({min(values):.2f} to {max(values):.2f})"
        )
    return found


def peaks(path: Path, modes: list[str], args: argparse.Namespace) -> dict[str, list[float]]:
    """Peaks in megabytes with few and with many samples, by mode."""
    found = {}
    for mode in modes:
        few, many = (peak(mode, path, count, args.threads) / 1e6 for count in (args.samples, args.many))
        found[mode] = [few, many]
        reference = found["plain"][0]
        print(
            f"{mode:16s} {few:7.0f} MB with {args.samples}, {many:7.0f} MB with {args.many} samples ({many / few:.3f}x), "
            f"{few / reference:.2f}x of running them",
            flush=True,
        )
    if args.peers:
        for name in PEERS:
            few, many = (peak(f"ort:{name}", path, count, args.threads) / 1e6 for count in (4, args.peer_samples))
            found[f"ort:{name}"] = [few, many]
            print(f"ort:{name:12s} {few:7.0f} MB with 4, {many:7.0f} MB with {args.peer_samples} samples", flush=True)
    return found


if __name__ == "__main__":
    main()
