#!/usr/bin/env python3
"""Weight-only 4 bit in blocks of 32 on real models: what it loses beside round-to-nearest at the same size.

    python benchmarks/weight_only.py --zoo DIR                     # minilm and gpt2 of DIR/zoo.py
    python benchmarks/weight_only.py --zoo DIR --names gpt2 --asymmetric

Per model: the task metric on the whole test split in stock ONNX Runtime, its loss against float (negative: better than float, by
chance), and the relative error energy of the outputs on samples that nobody saw, which is less noisy. The ratio is that of the loss to
round-to-nearest's, for both. Round-to-nearest has the scales that just hold the largest magnitude; "searched" adds the search for scales.
Peers are ONNX Runtime's own quantizer (`matmul_nbits_quantizer`: its round-to-nearest, whose scales are signed, and its GPTQ, sorted
afterwards, since the runtime refuses the order it writes), on a model whose Gemm are written as MatMul and Add, since it knows MatMul
only; embedding tables stay float everywhere.

`zoo.py` is a module with `TASKS` and `load(name) -> task`, where a task has `.model` (path), `.calibration(n)` (feeds),
`.score(run)` (metric), `.metric` and `.higher`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

import irc

Feed = dict[str, np.ndarray]
HELD_OUT = 64
BLOCK = 32


@dataclasses.dataclass
class Row:
    """One way to store one model."""

    model: str
    method: str
    size: int
    metric: float
    loss: float
    output_error: float
    seconds: float
    kernels: int
    loss_ratio: float = float("nan")
    error_ratio: float = float("nan")
    failure: str = ""


def load(zoo: Path, name: str) -> Any:
    """A task of the zoo."""
    spec = importlib.util.spec_from_file_location("zoo", zoo / "zoo.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{zoo} has no zoo.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["zoo"] = module
    spec.loader.exec_module(module)
    return module.load(name)


def session(path: Path, optimized: Path | None = None, exact: bool = False) -> ort.InferenceSession:
    """A stock session; `exact` keeps activations in float inside the 4-bit kernel."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if exact:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def without_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with Gemm of constants written as MatMul and Add, for quantizers that know MatMul only."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")
        if node.op_type != "Gemm" or node.input[1] not in constants or not plain:
            nodes.append(node)
            continue
        weight = node.input[1]
        if attributes.get("transB"):
            array = np.ascontiguousarray(onnx.numpy_helper.to_array(constants[weight]).T)
            weight = f"{weight}_{node.output[0]}_turned"
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, weight))
        biased = len(node.input) > 2
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(onnx.helper.make_node("MatMul", [node.input[0], weight], [product], name=f"{node.name}_MatMul"))
        if biased:
            nodes.append(
                onnx.helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_Add")
            )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def by_irc(task: Any, calib: Path, out: Path, options: str) -> None:
    """Stores a model by the pass alone."""
    passes = f"quantize-weights-in-blocks{{block_size={BLOCK},{options}}}"
    irc.optimize(task.model, data=calib, passes=passes, output=out, measure=False)


def by_runtime(task: Any, feeds: Sequence[Feed], out: Path, *, symmetric: bool, gptq: bool) -> None:
    """ONNX Runtime's quantizer; its GPTQ writes MatMulNBits."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat
    from onnxruntime.quantization import matmul_nbits_quantizer as quantizer

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    model = onnx.version_converter.convert_version(without_gemm(onnx.load(str(task.model))), 21)
    model.ir_version = 10
    if gptq:
        config: Any = quantizer.GPTQWeightOnlyQuantConfig(calibration_data_reader=Reader(), block_size=BLOCK)
    else:
        config = quantizer.DefaultWeightOnlyQuantConfig(
            block_size=BLOCK, is_symmetric=symmetric, quant_format=QuantFormat.QDQ, bits=4
        )
    work = quantizer.MatMulNBitsQuantizer(model, block_size=BLOCK, is_symmetric=symmetric, algo_config=config)
    work.process()
    if gptq:  # it leaves the nodes out of order, which the runtime refuses
        work.model.topological_sort()
    if all(entry.domain != "com.microsoft" for entry in work.model.model.opset_import):
        work.model.model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(work.model.model, str(out))


def measured(name: str, task: Any, method: str, out: Path, seconds: float, feeds: Sequence[Feed], exact: bool) -> Row:
    """Metric, loss and output error of a finished file."""
    optimized = out.with_suffix(".optimized.onnx")
    run = session(out, optimized, exact)
    kernels = sum(node.op_type == "MatMulNBits" for node in onnx.load(str(optimized)).graph.node)
    float_run = session(task.model)
    error = signal = 0.0
    for feed in feeds:
        exact_output, output = (s.run(None, feed)[0].astype(np.float64) for s in (float_run, run))
        error += float(np.sum((output - exact_output) ** 2))
        signal += float(np.sum(exact_output**2))
    original = task.score(lambda feed: float_run.run(None, feed))
    metric = task.score(lambda feed: run.run(None, feed))
    loss = original - metric if task.higher else metric - original
    return Row(name, method, out.stat().st_size, metric, loss, error / signal, seconds, kernels)


def compare(name: str, task: Any, *, samples: int, symmetric: bool, exact: bool) -> list[Row]:
    """All methods on one model, round-to-nearest first."""
    feeds = task.calibration(samples + HELD_OUT)
    fit, held = feeds[:samples], feeds[samples:]
    layout = f"symmetric={str(symmetric).lower()}"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        calib = folder / "calib"
        calib.mkdir()
        for i, feed in enumerate(fit):
            np.savez(calib / f"{i:05d}.npz", **feed)
        methods: dict[str, Callable[[Path], None]] = {
            "round-to-nearest": lambda out: by_irc(task, calib, out, f"{layout},rounding=nearest,scales=largest"),
            "searched scales": lambda out: by_irc(task, calib, out, f"{layout},rounding=nearest"),
            "irc": lambda out: by_irc(task, calib, out, layout),
            "ort round-to-nearest": lambda out: by_runtime(task, fit, out, symmetric=symmetric, gptq=False),
            "ort gptq": lambda out: by_runtime(task, fit, out, symmetric=symmetric, gptq=True),
        }
        for index, (method, make) in enumerate(methods.items()):
            out = folder / f"{index}.onnx"
            start = time.perf_counter()
            try:
                make(out)
                row = measured(name, task, method, out, time.perf_counter() - start, held, exact)
            except Exception as error:
                if not method.startswith("ort"):
                    raise
                nan = float("nan")  # a peer that crashes is a result
                row = Row(name, method, 0, nan, nan, nan, nan, 0, failure=f"{type(error).__name__}: {error}"[:100])
            if rows:
                first = rows[0]
                row.loss_ratio = row.loss / first.loss if first.loss > 0 else float("nan")
                row.error_ratio = row.output_error / first.output_error
            rows.append(row)
            print(_line(row), flush=True)
    return rows


def _line(row: Row) -> str:
    if row.failure:
        return f"{row.model:8s} {row.method:21s} {row.failure}"
    return (
        f"{row.model:8s} {row.method:21s} {row.size / 1e6:8.2f} {row.metric:8.4f} {row.loss:9.5f} {row.loss_ratio:7.2f} "
        f"{row.output_error:10.3e} {row.error_ratio:7.2f} {row.kernels:7d} {row.seconds:6.0f}s"
    )


def main() -> None:
    """Prints the table, and with `--json` the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True, help="folder with zoo.py")
    parser.add_argument("--names", default="minilm,gpt2", help="models, separated by commas")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--asymmetric", action="store_true", help="with zero points")
    parser.add_argument("--exact", action="store_true", help="activations in float inside the runtime's kernel")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    columns = ("MB", "metric", "loss", "ratio", "output err", "ratio", "kernels", "time")
    widths = (8, 8, 9, 7, 10, 7, 7, 7)
    print(f"{'model':8s} {'method':21s} " + " ".join(f"{c:>{w}s}" for c, w in zip(columns, widths, strict=True)))
    rows = []
    for name in args.names.split(","):
        task = load(args.zoo, name)
        rows += compare(name, task, samples=args.samples, symmetric=not args.asymmetric, exact=args.exact)
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
