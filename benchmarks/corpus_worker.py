#!/usr/bin/env python3
"""The process of corpus.py in which models are run and tools are applied, one case per line of its standard input."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from irc.errors import IrcError
from irc.runner.difference import disagreement, is_float, largest_difference, leaves, same_exceptions, same_form, scale

Feed = dict[str, Any]
EPSILONS = {"float16": 8, "float32": 128, "float64": 128}
"""Allowed relative to the largest magnitude of an output, in units of its own precision."""


class RefusedOnPurpose(Exception):
    """The tool says that it does not take the model."""


def irc_o1(source: Path, output: Path, facts: dict[str, Any]) -> None:
    """`irc optimize -O1`, verified, not timed."""
    import irc

    try:
        report = irc.optimize(source, level="O1", output=output, measure=False, threads=1)
    except IrcError as error:
        raise RefusedOnPurpose(str(error)) from error
    facts["undone"] = [f"{r.name}: {e.site}: {e.reason}" for r in report.ledger for e in r.undone]
    facts["notes"] = report.ledger.notes
    facts["rewritten"] = {r.name: len(r.rewritten) for r in report.ledger if r.rewritten}


def onnxsim_simplify(source: Path, output: Path, facts: dict[str, Any]) -> None:
    """The defaults of onnxsim."""
    import onnxsim

    model, facts["checked"] = onnxsim.simplify(onnx.load(source))
    onnx.save(model, output)


def onnxscript_optimize(source: Path, output: Path, facts: dict[str, Any]) -> None:
    """The defaults of the optimizer of onnxscript."""
    from onnxscript import optimizer

    onnx.save(optimizer.optimize(onnx.load(source)), output)


def onnxslim_slim(source: Path, output: Path, facts: dict[str, Any]) -> None:
    """The defaults of OnnxSlim."""
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), output)


TOOLS: dict[str, Callable[[Path, Path, dict[str, Any]], None]] = {
    "irc": irc_o1,
    "onnxsim": onnxsim_simplify,
    "onnxscript": onnxscript_optimize,
    "onnxslim": onnxslim_slim,
}


def read_feeds(path: Path, model: onnx.ModelProto) -> list[Feed]:
    """The inputs of a case; seeded numbers for models that come without."""
    if (path / "inputs.pickle").exists():
        feeds = pickle.loads((path / "inputs.pickle").read_bytes())
        return [{name: plain(value) for name, value in feed.items()} for feed in feeds]
    names = [value.name for value in model.graph.input]
    sets = sorted(path.glob("test_data_set_*")) if path.is_dir() else []
    if sets:
        return [
            {name: read_value(folder / f"input_{i}.pb", model.graph.input[i]) for i, name in enumerate(names)
             if (folder / f"input_{i}.pb").exists()}
            for folder in sets
        ]  # fmt: skip
    generator = np.random.default_rng(0)
    given = {tensor.name for tensor in model.graph.initializer}
    feed = {}
    for value in model.graph.input:
        if value.name not in given:
            dims = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feed[value.name] = generator.standard_normal(dims).astype(dtype)
    return [feed]


def read_value(path: Path, info: onnx.ValueInfoProto) -> Any:
    """A tensor, sequence or optional of a data set."""
    kind = info.type.WhichOneof("value")
    content = path.read_bytes()
    if kind == "sequence_type":
        return [np.asarray(a) for a in numpy_helper.to_list(onnx.SequenceProto.FromString(content))]
    if kind == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return numpy_helper.to_array(onnx.TensorProto.FromString(content))


def plain(value: Any) -> Any:
    """Protobufs of a case as arrays, scalars as arrays of rank 0."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None else np.asarray(value)


def run(path: Path, feeds: list[Feed]) -> list[dict[str, Any]]:
    """Outputs by name for each feed, every optimization of the runtime off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    results = []
    for feed in feeds:
        taken = {value.name for value in session.get_inputs()}
        unknown = [
            name for name in feed if name not in taken | {v.name for v in session.get_overridable_initializers()}
        ]
        if unknown:
            raise ValueError(f"the model has no input {unknown[0]!r}")
        results.append(dict(zip(names, session.run(None, feed), strict=True)))
    return results


def differences(reference: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[str, str]:
    """What is not the same, by output; tolerances are a few units of the precision of each output."""
    result: dict[str, str] = {}
    for mine, theirs in zip(reference, found, strict=True):
        if list(mine) != list(theirs):
            return {"": f"outputs are {list(theirs)}, not {list(mine)}"}
        for name in mine:
            a, b = dict(leaves(name, mine[name])), dict(leaves(name, theirs[name]))
            if list(a) != list(b):
                result[name] = "another structure"
                continue
            for label in a:
                if text := _difference(a[label], b[label]):
                    result[name] = text
    return result


def _difference(a: Any, b: Any) -> str:
    if not same_form(a, b):
        return f"{a.dtype}{list(a.shape)} became {b.dtype}{list(b.shape)}"
    if not is_float(a):
        return f"{disagreement(a, b):.1%} of the elements differ" if disagreement(a, b) else ""
    if not same_exceptions(a, b):
        return "NaN or infinity in other places"
    allowed = EPSILONS.get(a.dtype.name, 128) * float(np.finfo(a.dtype).eps) * scale(a)
    error = largest_difference(a, b)
    return f"off by {error:.3g}, allowed {allowed:.3g}" if error > allowed else ""


def count_nodes(model: onnx.ModelProto) -> int:
    """Nodes that compute, those of bodies and of called functions included."""
    functions = {(f.domain, f.name): f for f in model.functions}

    def count(nodes: Any) -> int:
        total = 0
        for node in nodes:
            function = functions.get((node.domain, node.op_type))
            total += count(function.node) if function is not None else node.op_type != "Constant"
            for attribute in node.attribute:
                total += sum(count(body.node) for body in (attribute.g, *attribute.graphs))
        return total

    return count(model.graph.node)


def process(path: Path, tools: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Says what it is about to do, then what came of it."""
    source = path / "model.onnx" if path.is_dir() else path
    model = onnx.load(source)
    facts = {"stage": "original", "nodes": count_nodes(model), "bytes": source.stat().st_size, "runnable": True}
    reference: list[dict[str, Any]] = []
    feeds: list[Feed] = []
    unstable: list[str] = []
    try:
        feeds = read_feeds(path, model)
        reference = run(source, feeds)
        unstable = list(differences(reference, run(source, feeds)))
    except Exception as error:
        facts |= {"runnable": False, "message": _line(error)}
    yield facts
    for tool in tools:
        yield {"stage": tool}
        output = folder / f"{tool}.onnx"
        found: dict[str, Any] = {"stage": tool}
        start = time.perf_counter()
        try:
            TOOLS[tool](source, output, found)
            found["status"] = "unchecked"
        except RefusedOnPurpose as error:
            found |= {"status": "refused", "message": _line(error)}
        except Exception as error:
            found |= {"status": "error", "message": _line(error)}
        found["seconds"] = round(time.perf_counter() - start, 3)
        if found["status"] == "unchecked":
            found |= {"nodes": count_nodes(onnx.load(output)), "bytes": output.stat().st_size}
        if found["status"] == "unchecked" and reference:
            try:
                wrong = differences(reference, run(output, feeds))
                wrong = {name: text for name, text in wrong.items() if name not in unstable}
                found["status"] = "wrong" if wrong else "same"
                found["message"] = "; ".join(f"{name}: {text}" for name, text in wrong.items())
            except Exception as error:
                found |= {"status": "wrong", "message": f"ONNX Runtime does not run it: {_line(error)}"}
        yield found
    yield {"stage": "done"}


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:400] if isinstance(error, RefusedOnPurpose) else f"{type(error).__name__}: {text[:400]}"


def main() -> None:
    """Answers requests until standard input ends. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory(prefix="corpus-case-") as folder, contextlib.chdir(folder):
            for answer in process(Path(request["path"]), request["tools"], Path(folder)):
                print(json.dumps(answer, default=str), file=answers)


if __name__ == "__main__":
    main()
