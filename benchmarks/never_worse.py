#!/usr/bin/env python3
"""`irc -O1` beside onnxsim, onnxscript's optimizer and OnnxSlim on real models: nodes, bytes, latency, same outputs.

    python benchmarks/never_worse.py [--zoo DIR] [--models DIR] [--small] [--only REGEX] [--json FILE]

The models are those of a zoo (`--zoo`, as int8_accuracy_speed.py takes it) and those that exported_models.py exports to
`--models`, which keeps them. Every tool runs with its defaults in a process of its own. Outputs are compared in ONNX
Runtime with its optimizations off, as corpus.py does, but may also differ by a few times what the runtime's own
optimizations change. Latency is that of the file in the stock runtime, optimizations on, the models taking turns in one
process; the ratio is artifact to original, with a 95 % interval.

Nodes are counted with the bodies of If, Loop, Scan and called functions, without Constant; bytes are those of the file
and its data file. `removed only by` says of which operators irc leaves more nodes than the peer with the fewest.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import importlib.util
import json
import multiprocessing
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import corpus_worker
import numpy as np
import onnx
from corpus import PEERS
from exported_models import export_all
from int8_accuracy_speed import tasks

from irc.errors import RunnerError
from irc.latency import Ratio, measure
from irc.runner import Feed, Runner

TOOLS = ("irc", *PEERS)
SECONDS_PER_TOOL = 900
SLOWER = 1.02
NOISE_MULTIPLE = 8


def find_models(args: argparse.Namespace) -> dict[str, tuple[Path, Feed]]:
    """Path and inputs of every model, by name."""
    pattern = re.compile(args.only)
    found: dict[str, tuple[Path, Feed]] = {}
    for name, task in tasks(args.zoo, ()).items():
        if pattern.search(f"zoo-{name}"):
            found[f"zoo-{name}"] = (Path(task.model), task.calibration(1)[0])
    if args.models is not None:
        for name, path in export_all(args.models, pattern, small=args.small).items():
            with np.load(path.with_name("inputs.npz")) as arrays:
                found[name] = (path, dict(arrays))
    return found


def in_process(function: Any, *arguments: Any) -> Any:
    """What a function returns in a fresh process, so that a crash, its memory and its threads stay there."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments).result(timeout=SECONDS_PER_TOOL)
        except concurrent.futures.process.BrokenProcessPool:
            return {"status": "crash", "message": "the process died"}
        except TimeoutError:
            for process in multiprocessing.active_children():
                process.kill()
            return {"status": "crash", "message": f"no answer within {SECONDS_PER_TOOL} s"}


def apply(tool: str, source: Path, output: Path) -> dict[str, Any]:
    """Applies a tool; facts about its file."""
    facts: dict[str, Any] = {"status": "unchecked"}
    start = time.perf_counter()
    try:
        corpus_worker.TOOLS[tool](source, output, facts)
    except corpus_worker.RefusedOnPurpose as error:
        return {"status": "refused", "message": str(error)}
    except Exception as error:
        return {"status": "error", "message": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {**facts, "seconds": round(time.perf_counter() - start, 2), **describe(output)}


def describe(path: Path) -> dict[str, Any]:
    """Nodes, operators and bytes of a file."""
    model = onnx.load(path, load_external_data=False)
    files = {path, *(path.parent / e.value for t in tensors(model) for e in t.external_data if e.key == "location")}
    histogram = collections.Counter(operators(model.graph.node, {(f.domain, f.name): f for f in model.functions}))
    return {
        "nodes": corpus_worker.count_nodes(model),
        "bytes": sum(file.stat().st_size for file in files),
        "operators": dict(sorted(histogram.items())),
    }


def tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The initializers of the main graph, the only ones that lie in files here."""
    return list(model.graph.initializer)


def operators(nodes: Any, functions: dict[tuple[str, str], onnx.FunctionProto]) -> list[str]:
    """Operator types with bodies and called functions, without Constant."""
    found = []
    for node in nodes:
        called = functions.get((node.domain, node.op_type))
        if called is not None:
            found += operators(called.node, functions)
        elif node.op_type != "Constant":
            found.append(f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                found += operators(body.node, functions)
    return found


def compare(source: Path, outputs: dict[str, Path], feed: Feed) -> dict[str, str]:
    """What is not the same in the outputs of each tool; "" if nothing is."""
    (reference,) = corpus_worker.run(source, [feed])
    with Runner() as runner, runner.open(source) as optimized:
        own = optimized.run(feed)
    noise = {name: _largest(value, own[name]) for name, value in reference.items()}
    found = {}
    for tool, path in outputs.items():
        try:
            (result,) = corpus_worker.run(path, [feed])
        except Exception as error:
            found[tool] = f"ONNX Runtime does not run it: {' '.join(str(error).split())[:300]}"
            continue
        wrong = corpus_worker.differences([reference], [result])
        wrong = {
            name: text
            for name, text in wrong.items()
            if not (name in result and _largest(reference[name], result[name]) <= NOISE_MULTIPLE * noise[name])
        }
        found[tool] = "; ".join(f"{name}: {text}" for name, text in wrong.items())
    return found


def _largest(a: Any, b: Any) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))


def latency(source: Path, outputs: dict[str, Path], feed: Feed, *, seconds: float, threads: int) -> dict[str, Any]:
    """Latency ratios to the original, by tool: the mean of sessions opened in either order, the interval spans both."""
    paths = {"original": source, **outputs}
    halves: list[dict[str, Ratio]] = []
    for names in (list(paths), list(paths)[::-1]):
        with Runner(threads=threads) as runner:
            try:
                opened = [runner.open(paths[name]) for name in names]
                measured = measure(runner, opened, [feed], seconds_per_model=seconds / 2)
            except RunnerError as error:
                return {"error": str(error)}
            place = {name: index for index, name in enumerate(names)}
            halves.append({name: measured.ratio(place[name], place["original"]) for name in outputs})
            original = measured.timings[place["original"]].median_ms
    found: dict[str, Any] = {"original_ms": original}
    for name in outputs:
        one, other = (half[name] for half in halves)
        found[name] = [(one.value * other.value) ** 0.5, min(one.low, other.low), max(one.high, other.high)]
    return found


def run_model(name: str, source: Path, feed: Feed, tools: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """One model through all tools."""
    record: dict[str, Any] = {"model": name, "original": describe(source), "tools": {}}
    with tempfile.TemporaryDirectory(prefix="never-worse-", dir=args.folder) as text:
        outputs = {}
        for tool in tools:
            path = Path(text) / tool / "model.onnx"
            path.parent.mkdir()
            facts = record["tools"][tool] = in_process(apply, tool, source.resolve(), path)
            if facts["status"] == "unchecked":
                outputs[tool] = path
        said = in_process(compare, source, outputs, feed)
        for tool in list(outputs):
            wrong = said.get(tool, said.get("message", "not compared"))
            record["tools"][tool] |= {"status": "wrong" if wrong else "same", "message": wrong}
        timed = {
            t: p
            for t, p in outputs.items()
            if record["tools"][t]["status"] == "same" and (t == "irc" or args.peer_latency)
        }
        if args.seconds > 0 and timed:
            record["latency"] = latency(source, timed, feed, seconds=args.seconds, threads=args.threads)
    peers = {t: f["nodes"] for t, f in record["tools"].items() if t != "irc" and f["status"] == "same"}
    record["best_peer"] = min(peers, key=lambda tool: peers[tool]) if peers else None
    record["left"] = _left(record)
    return record


def _left(record: dict[str, Any]) -> dict[str, int]:
    """Operators of which irc leaves more than the best peer (positive) or fewer, when it leaves more nodes in all."""
    mine, peer = record["tools"].get("irc", {}), record["tools"].get(record["best_peer"], {})
    if "operators" not in mine or not peer or mine["nodes"] <= peer["nodes"]:
        return {}
    difference = collections.Counter(mine["operators"])
    difference.subtract(peer["operators"])
    return {op: count for op, count in difference.most_common() if count}


def summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What is claimed, over all models."""
    done = [r for r in records if r["tools"]["irc"]["status"] == "same"]
    with_peers = [r for r in done if r["best_peer"] is not None]
    at_most = [r for r in with_peers if r["tools"]["irc"]["nodes"] <= r["tools"][r["best_peer"]]["nodes"]]
    timed = [r for r in done if "irc" in r.get("latency", {})]
    return {
        "models": len(records),
        "status": {
            tool: dict(collections.Counter(r["tools"][tool]["status"] for r in records if tool in r["tools"]))
            for tool in TOOLS
            if any(tool in r["tools"] for r in records)
        },
        "nodes_at_most_those_of_the_best_peer": [len(at_most), len(with_peers)],
        "more_nodes_than_the_best_peer": [r["model"] for r in with_peers if r not in at_most],
        "more_nodes_than_the_original": [
            r["model"] for r in done if r["tools"]["irc"]["nodes"] > r["original"]["nodes"]
        ],
        "more_bytes_than_the_original": [
            r["model"] for r in done if r["tools"]["irc"]["bytes"] > r["original"]["bytes"]
        ],
        "slower_than_the_original": [r["model"] for r in timed if r["latency"]["irc"][0] > SLOWER],
        "surely_slower_than_the_original": [r["model"] for r in timed if r["latency"]["irc"][1] > SLOWER],
        "undone": {r["model"]: u for r in records if (u := r["tools"]["irc"].get("undone"))},
    }


def print_row(record: dict[str, Any]) -> None:
    """One line per model, and one for what irc left."""
    mine, original, best = record["tools"]["irc"], record["original"], record["best_peer"]
    cells = [f"{record['model']:24s} {original['nodes']:6d}"]
    for tool, facts in record["tools"].items():
        mark = "" if facts["status"] == "same" else "!"
        cells.append(f"{str(facts.get('nodes', facts['status'])) + mark:>10s}" + ("*" if tool == best else " "))
    cells.append(f"{mine['bytes'] / original['bytes']:8.4f}x" if "bytes" in mine else f"{'-':>9s}")
    if "irc" in record.get("latency", {}):
        value, low, high = record["latency"]["irc"]
        cells.append(f" {value:.3f}x ({low:.3f} to {high:.3f})")
    cells.append(f"  {mine.get('seconds', 0.0):.0f} s")
    print(" ".join(cells))
    for tool, facts in record["tools"].items():
        if facts["status"] != "same":
            print(f"    {tool}: {facts['status']}: {facts['message'][:200]}")
    for text in mine.get("undone", []):
        print(f"    undone: {text[:200]}")
    if record["left"]:
        print("    removed only by " + str(best) + ": " + ", ".join(f"{op} {n:+d}" for op, n in record["left"].items()))
    sys.stdout.flush()


def main() -> None:
    """Prints the table and the summary, and with `--json` writes both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="folder with zoo.py; default: the shipped example")
    parser.add_argument("--models", type=Path, help="folder of exported models, filled where it is not; default: none")
    parser.add_argument("--small", action="store_true", help="export narrow models with few layers")
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="models whose name matches, such as '^zoo-' or 'gpt2'"
    )
    parser.add_argument("--no-peers", action="store_true", help="irc alone")
    parser.add_argument("--peer-latency", action="store_true", help="time the files of the peers too")
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing per model and file; 0 for none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where files are written meanwhile (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="where to write summary and models")
    args = parser.parse_args()
    tools = ["irc"]
    if not args.no_peers:
        tools += [t for t, module in PEERS.items() if importlib.util.find_spec(module.partition(".")[0]) is not None]
    print(f"{'model':24s} {'before':>6s} " + " ".join(f"{tool:>10s} " for tool in tools) + "    bytes  latency")
    records = []
    for name, (source, feed) in find_models(args).items():
        record = run_model(name, source, feed, tools, args)
        records.append(record)
        print_row(record)
        if args.json is not None:  # after each model: the full list takes long
            document = {"summary": summarize(records), "models": records}
            args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for what, value in summarize(records).items():
        print(f"{what.replace('_', ' ')}: {json.dumps(value)}")


if __name__ == "__main__":
    main()
