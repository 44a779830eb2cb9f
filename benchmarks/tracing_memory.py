#!/usr/bin/env python3
"""How much memory it takes to trace a large PyTorch module.

    python benchmarks/tracing_memory.py [--megabytes 400]

A chain of linear layers is traced (`irc.trace.trace`, with and without copying the weights, with an FX pass) and built
(`irc.optimize` at -O1), each in a process of its own. Figures are peaks of anonymous memory, sampled every 2 ms, in multiples
of the module's parameters, which are in memory before and are counted: 1.0 is the module itself.

`imports` is what the first trace of a process loads (torch.export and the exporter), which does not grow with the module:
it is measured on a module of one small layer, and given in megabytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

MODES = {
    "optimize -O1": "irc.optimize",
    "trace, weights copied": "irc.trace.trace",
    "trace, weights shared": "irc.trace.trace(copy=False)",
    "trace with fx-fold-batch-norm": "irc.trace.trace(passes=...)",
}


def anonymous() -> int:
    """Anonymous memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell anonymous memory")


class Peak(threading.Thread):
    """Samples the memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.done = anonymous(), False

    def run(self) -> None:
        """Samples until it is done."""
        while not self.done:
            self.bytes = max(self.bytes, anonymous())
            time.sleep(0.002)


def measure(mode: str, width: int, layers: int) -> dict[str, float]:
    """Peak while one module is traced, above what was there without the module."""
    import onnxruntime  # noqa: F401
    import torch

    import irc
    import irc.trace

    start = anonymous()
    module = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(layers)]).eval()
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    examples = [(torch.rand(2, width),), (torch.rand(3, width),)]
    peak = Peak()
    peak.start()
    kept: Any
    if mode == "optimize -O1":
        with tempfile.TemporaryDirectory() as folder:
            kept = irc.optimize(module, example_inputs=examples, level="O1", output=f"{folder}/m.onnx", measure=False)
    elif mode == "trace, weights copied":
        kept = irc.trace.trace(module, examples)
    elif mode == "trace, weights shared":
        kept = irc.trace.trace(module, examples, copy=False)
    else:
        kept = irc.trace.trace(module, examples, passes=["fx-fold-batch-norm"])
    peak.done = True
    peak.join()
    del kept
    return {"bytes": size, "peak": peak.bytes - start}


def main() -> None:
    """Prints one row per way of tracing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=400, help="parameters of the module (400)")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        mode, width, layers = args.one
        print(json.dumps(measure(mode, int(width), int(layers))))
        return

    def run(mode: str, width: int, layers: int) -> dict[str, float]:
        command = [sys.executable, __file__, "--one", mode, str(width), str(layers)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        found: dict[str, float] = json.loads(result.stdout.strip().splitlines()[-1])
        return found

    layers = max(1, round(args.megabytes * 1e6 / (4 * 2048 * 2049)))
    for mode in MODES:
        small, large = run(mode, 8, 1), run(mode, 2048, layers)
        imports, size = small["peak"], large["bytes"]
        print(
            f"{mode:32s} {size / 1e6:.0f} MB of parameters: peak {large['peak'] / size:.2f}x, imports {imports / 1e6:.0f} MB, "
            f"without them {(large['peak'] - imports) / size:.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
