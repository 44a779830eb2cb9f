#!/usr/bin/env python3
"""The process of peers.py in which one peer makes one model, in the peer's own environment: irc is not installed there.

    python -I peers_worker.py '{"way": "nncf", "configuration": "", "model": FILE, "feeds": FOLDER, "output": FILE, ...}'

Seconds are those from the model file and the feeds to the artifact's file; the imports before are not counted.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Feed = dict[str, np.ndarray]


def read_feeds(folder: Path) -> list[Feed]:
    """One feed per file, in the order of their names."""
    feeds = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            feeds.append(dict(arrays))
    return feeds


def runtime_quantization(request: Mapping[str, Any]) -> tuple[float, str]:
    """One of the configurations of ort_baseline.py."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import ort_baseline

    start = time.perf_counter()
    output = Path(request["output"])
    (made,) = ort_baseline.peers(
        Path(request["model"]),
        read_feeds(Path(request["feeds"])),
        output.parent,
        reduce_range=request["reduce_range"],
        only=request["configuration"],
    )
    if made.path is None:
        raise RuntimeError(made.error)
    made.path.replace(output)
    return time.perf_counter() - start, made.note


def nncf_quantization(request: Mapping[str, Any]) -> tuple[float, str]:
    """`nncf.quantize` with its defaults on all samples, for a transformer if the configuration says so."""
    import nncf
    import onnx
    import onnxsim

    start = time.perf_counter()
    feeds = read_feeds(Path(request["feeds"]))
    options = {"model_type": nncf.ModelType.TRANSFORMER} if request["configuration"] == "transformer" else {}

    def quantize(model: onnx.ModelProto) -> onnx.ModelProto:
        return nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds), **options)

    note = ""
    try:
        model = quantize(onnx.load(request["model"]))
    except Exception as error:  # a peer that fails is a result
        note = f"from onnxsim's model: the original gave {type(error).__name__}: {' '.join(str(error).split())[:80]}"
        model = quantize(onnxsim.simplify(onnx.load(request["model"]))[0])
    onnx.save(model, request["output"])
    return time.perf_counter() - start, note


def onnxsim_simplification(request: Mapping[str, Any]) -> tuple[float, str]:
    """`onnxsim.simplify` with its defaults; it needs no data."""
    import onnx
    import onnxsim

    start = time.perf_counter()
    model, passed = onnxsim.simplify(onnx.load(request["model"]))
    onnx.save(model, request["output"])
    return time.perf_counter() - start, "" if passed else "its own check failed"


WAYS = {"ort": runtime_quantization, "nncf": nncf_quantization, "onnxsim": onnxsim_simplification}


def main() -> None:
    """Answers one request in the file that it names."""
    request = json.loads(sys.argv[1])
    answer: dict[str, Any] = {}
    try:
        answer["seconds"], answer["note"] = WAYS[request["way"]](request)
    except Exception as error:  # a peer that fails is a result
        reason = " ".join(str(error).split())[:200]
        answer["error"] = reason if type(error) is RuntimeError else f"{type(error).__name__}: {reason}"
    answer["versions"] = {
        distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()
    }
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
