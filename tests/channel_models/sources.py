"""Makes the stored models; run by hand where torch (and for the first group transformers) is installed.

    cd tests && python -m channel_models.sources             # all, then the table of the README
    cd tests && python -m channel_models.sources bert gpt2   # some; a name may be a pattern such as 'micro_*'
    cd tests && python -m channel_models.sources --table     # only the table

The project's tests need none of this: they read what is stored.
"""

from __future__ import annotations

import fnmatch
import importlib
import sys
import time

import numpy as np
import torch
from channel_models.source_export import Source, export, store
from channel_models.stored import EXTENSION, FOLDER, feeds, load, names

ROOMS = ("transformers", "vision", "maps", "layers", "bodies", "quantized", "micro")
"""Modules `source_ROOM`, in the order in which they are made: quantized models start from stored ones."""


def sources(rooms: tuple[str, ...] = ROOMS) -> dict[str, Source]:
    """All models by name."""
    table: dict[str, Source] = {}
    for room in rooms:
        table |= importlib.import_module(f"channel_models.source_{room}").sources()
    return table


def run(name: str) -> list[list[np.ndarray]]:
    """Outputs of a stored model for its two samples, without optimizations."""
    import onnx_ir as ir
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(ir.to_proto(load(name)).SerializeToString(), options)
    return [session.run(None, feed) for feed in feeds(name)]


def write_table(table: dict[str, Source]) -> None:
    """Replaces the table in README.md by one of what is stored."""
    rows = ["| name | what it is there for | exporter, opset | bytes |", "|---|---|---|---|"]
    for name in names():
        source, size = table[name], (FOLDER / (name + EXTENSION)).stat().st_size
        rows.append(f"| {name} | {source.about} | {source.exporter}, {_opset(name)} | {size} |")
    readme = FOLDER / "README.md"
    head = readme.read_text(encoding="utf-8").split("| name |")[0]
    readme.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


def _opset(name: str) -> int:
    return load(name).graph.opset_imports[""]


def main(arguments: list[str]) -> int:
    """Makes what matches the arguments; prints a line each; 1 if any failed."""
    torch.set_num_threads(1)
    table, failed = sources(), []
    patterns = [a for a in arguments if a != "--table"] or ([] if arguments else ["*"])
    for name, source in table.items():
        if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            continue
        start = time.perf_counter()
        try:
            size = store(name, export(source), weights=source.exporter == "file")
            spread = min(float(np.std(o)) for outputs in run(name) for o in outputs)
            print(
                f"{name:40} {size:7} bytes {time.perf_counter() - start:6.1f} s  smallest spread {spread:.3g}",
                flush=True,
            )
        except Exception as error:
            failed.append(name)
            lines = str(error).strip().splitlines() or [""]
            print(f"{name:40} FAILED {type(error).__name__}: {lines[0][:300]} ... {lines[-1][:300]}", flush=True)
    write_table(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
