"""A small network with one site that is planted to be the worst, and samples for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from analysis_graphs import floats, write

NET = """g (float[batch,16] x) => (float[batch,8] y) {
  first = Gemm(x, w1, b1) r1 = Relu(first)
  bad = Gemm(r1, w2, b2) r2 = Relu(bad)
  third = Gemm(r2, w3, b3) r3 = Relu(third)
  y = Gemm(r3, w4, b4) }"""
SITES = ("first", "bad", "third", "y")


def planted(path: Path, *, outlier: float = 300.0) -> Path:
    """Writes the network: what `bad` reads has a channel that is huge, needs all of the range, and counts for nothing."""
    weights = {f"w{i}": floats(16, 8 if i == 4 else 16, seed=i) / 4 for i in (1, 2, 3, 4)}
    biases = {f"b{i}": floats(8 if i == 4 else 16, seed=10 + i) / 4 for i in (1, 2, 3, 4)}
    biases["b1"][0] = outlier
    weights["w2"][0] = 0.0
    return write(path, NET, **weights, **biases)


def feeds(count: int = 24, *, rows: int = 4) -> list[dict[str, np.ndarray]]:
    """Inputs for it."""
    return [{"x": floats(rows, 16, seed=100 + i)} for i in range(count)]
