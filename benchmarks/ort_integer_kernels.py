#!/usr/bin/env python3
"""Which quantized patterns ONNX Runtime's CPU provider computes in integers, and whether that is faster.

    python benchmarks/ort_integer_kernels.py [--only TEXT] [--seconds 0.4] [--threads 1] [--json FILE] [--kernels]

Each pattern is a float graph. Its int8 form has a DequantizeLinear behind every input and weight and a QuantizeLinear behind
its output, all graph inputs and outputs being integers, so that whatever Q or DQ the runtime's optimized graph still holds
was not fused. Four forms take turns in one process, and three ratios are printed (above 1: int8 is faster), at two sizes:

    chain   float graph / int8 form between integers: what a whole network of such operators wins
    join    the int8 form with the runtime's fusion switched off / the same fused: what making this operator integer wins
            where its neighbours are integer already, so that leaving it in float costs the pairs around it
    alone   float graph / int8 form that quantizes a float input first and ends in float: the operator among float ones

A convolution alone between integers pays for the two Transposes around the channels-last kernel, which a chain shares: see
"3 Conv". The second table has signedness and granularity of activations and weights; "int8 (ARM)" is the graph
that the runtime makes on ARM64, by its own switch `session.qdqisint8allowed`, its kernels being those of this machine.
The patterns are in `integer_patterns.py`, and `backends/ort/target.py` declares what this shows. With --kernels, no times.
"""

from __future__ import annotations

import argparse
import collections
import json
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from integer_graphs import Array, Graphs, Signs, open_session
from integer_patterns import PATTERNS, SIGNS, SIZES, Pattern

FLAGS = (
    "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimd", "asimddp", "i8mm", "sve",
)  # fmt: skip
KINDS = ("chain", "join", "alone")


def in_turns(runs: list[tuple[ort.InferenceSession, dict[str, Array]]], seconds: float) -> list[float]:
    """Lower quartile of the time of one run of each session, in seconds."""
    repeats = []
    for session, feed in runs:
        session.run(None, feed)
        start = time.perf_counter()
        session.run(None, feed)
        repeats.append(max(1, int(5e-4 / (time.perf_counter() - start))))
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for found, repeat, (session, feed) in zip(times, repeats, runs, strict=True):
            start = time.perf_counter()
            for _ in range(repeat):
                session.run(None, feed)
            found.append((time.perf_counter() - start) / repeat)
    return [float(np.quantile(found, 0.25)) for found in times]


def probe(pattern: Pattern, signs: Signs, seconds: float, threads: int) -> dict[str, Any]:
    """One pattern: what the runtime makes of it, and the ratios at each size."""
    row: dict[str, Any] = {
        "pattern": pattern.name,
        "signs": str(signs),
        "nodes": pattern.nodes,
        "output": pattern.behind,
    }
    for size, dims in SIZES.items():
        graphs = Graphs(pattern, dims, signs)
        session, operators = open_session(graphs.integer_model(), arm=signs.arm, threads=threads)
        if signs.converted:
            _, operators = open_session(graphs.integer_model(alone=True))
            operators -= collections.Counter({"QuantizeLinear": len(graphs.feed), "DequantizeLinear": 1})
        row["runs as"] = ", ".join(name if n == 1 else f"{n} {name}" for name, n in sorted(operators.items()))
        row["fused"] = not {"QuantizeLinear", "DequantizeLinear"} & set(operators)
        try:
            session.run(None, graphs.integer_feed())
        except Exception as error:
            row["error"] = str(error).splitlines()[0][-160:]
            break
        if seconds <= 0:
            break
        runs = [
            (open_session(graphs.float_model(), threads=threads)[0], graphs.feed),
            (session, graphs.integer_feed()),
            (open_session(graphs.integer_model(), fusion=False, threads=threads)[0], graphs.integer_feed()),
            (
                open_session(graphs.integer_model(alone=True), arm=signs.arm, threads=threads)[0],
                graphs.integer_feed(alone=True),
            ),
        ]
        plain, chained, unfused, alone = in_turns(runs, seconds)
        row[size] = {
            "chain": plain / chained,
            "join": unfused / chained,
            "alone": plain / alone,
            "float ms": plain * 1e3,
        }
    return row


def environment() -> dict[str, Any]:
    """Where this was measured."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    found = set(re.findall(r"\w+", text))
    model = re.search(r"model name\s*: (.*)", text)
    return {
        "onnxruntime": ort.__version__,
        "machine": platform.machine(),
        "cpu": model[1] if model else platform.processor(),
        "instruction sets": [flag for flag in FLAGS if flag in found],
    }


def described(row: dict[str, Any]) -> str:
    """One line of the table."""
    cells = [row["pattern"], row["signs"], row["runs as"], "yes" if row["fused"] else "no"]
    if "error" in row:
        cells.append(f"fails: {row['error']}")
    for size in SIZES:
        if size in row:
            cells.append(" ".join(f"{row[size][kind]:.2f}" if kind in row[size] else "-" for kind in KINDS))
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Probes and prints one line per pattern."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="patterns whose name contains this")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each pattern and size")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write what was found")
    parser.add_argument("--kernels", action="store_true", help="no times")
    arguments = parser.parse_args()
    seconds = 0.0 if arguments.kernels else arguments.seconds
    where = environment()
    print(", ".join(f"{key}: {value}" for key, value in where.items()))
    print("| pattern | integers | runs as | fused | chain join alone, small | medium |\n|---|---|---|---|---|---|")
    chosen = [(pattern, Signs()) for pattern in PATTERNS]
    spellings = [
        Signs(channels=False),
        Signs(weight="uint8", channels=False),
        Signs("int8"),
        Signs("int8", arm=True),
        Signs("int8", "int8", False, True),
    ]
    chosen += [(pattern, signs) for pattern in PATTERNS if pattern.name in SIGNS for signs in spellings]
    rows = []
    for pattern, signs in chosen:
        if arguments.only.lower() in pattern.name.lower():
            rows.append(probe(pattern, signs, seconds, arguments.threads))
            print(described(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({**where, "threads": arguments.threads, "rows": rows}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
