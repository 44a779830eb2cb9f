#!/usr/bin/env python3
"""The corpus of the onnx package through `-O1`, and through other simplifiers: what stays the same, what does not.

    python benchmarks/corpus.py [--limit N] [--only REGEX] [--peers] [--results corpus.jsonl] [--json corpus.json]

The corpus is the node cases that onnx generates for every operator and the models under its backend/test/data. A
case counts as runnable if stock ONNX Runtime runs the original on the inputs of the case, every optimization off. Of
what a tool made of a runnable case the outputs on those inputs are compared: `same`, or `wrong`. `refused` is an error
that the tool raises on purpose (an IrcError of irc); anything else it raises is an `error`, and a process that dies or
does not answer a `crash`. Every case runs in a worker process (corpus_worker.py), so that a crash costs one case.

Nodes are counted with the bodies of If, Loop, Scan and called functions, without Constant; bytes are the file's.
With `--results`, each case is appended to that file as it ends, and a later run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import json
import os
import pickle
import queue
import re
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any

PEERS = {"onnxsim": "onnxsim", "onnxscript": "onnxscript.optimizer", "onnxslim": "onnxslim"}
SECONDS_PER_TOOL = 300
CHANGED = ("same", "wrong")


def write_node_cases(folder: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    """Writes the node cases whose name matches as model.onnx and inputs.pickle; returns their folders by name."""
    import onnx.backend.test.case.node as node_cases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = node_cases.collect_testcases(None)
    cases = {}
    for case in found:
        if not pattern.search(f"node/{case.name}"):
            continue
        path = folder / "node" / case.name
        path.mkdir(parents=True)
        (path / "model.onnx").write_bytes(case.model.SerializeToString())
        names = [value.name for value in case.model.graph.input]
        feeds = [dict(zip(names, inputs, strict=False)) for inputs, _ in case.data_sets]
        (path / "inputs.pickle").write_bytes(pickle.dumps(feeds))
        cases[f"node/{case.name}"] = path
    return cases


def data_models(pattern: re.Pattern[str]) -> dict[str, Path]:
    """The models under onnx/backend/test/data: a folder with data sets, or a file."""
    import onnx

    root = Path(onnx.__file__).parent / "backend" / "test" / "data"
    found = {}
    for path in sorted(root.rglob("*.onnx")):
        where = path.parent if path.name == "model.onnx" else path
        found[where.relative_to(root).with_suffix("").as_posix()] = where
    return {name: path for name, path in found.items() if pattern.search(name)}


class Worker:
    """A process that runs cases; replaced when it dies or does not answer."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()

    def run(self, path: Path, tools: list[str]) -> dict[str, Any]:
        """One case: facts of the original, and one record per tool."""
        record: dict[str, Any] = {"original": {}, "tools": {}}
        pending = list(tools)
        while True:
            self._ask({"path": str(path), "tools": pending})
            stage = "original"
            while (answer := self._answer()) is not None and answer.get("stage") != "done":
                stage = answer["stage"]
                if stage == "original":
                    record["original"] = answer
                elif "status" in answer:
                    record["tools"][stage] = answer
                    pending.remove(stage)
            if answer is not None:
                return record
            code = self._end()
            # Before the first word about a tool it was the runtime that died of the original.
            if stage == "original":
                record["original"] = {"runnable": False, "message": f"the runtime died of the original ({code})"}
                record["tools"].update({tool: {"status": "not tried"} for tool in pending})
                return record
            record["tools"][stage] = {"status": "crash", "message": f"the process died ({code})"}
            pending.remove(stage)
            if not pending:
                return record

    def _ask(self, request: dict[str, Any]) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("corpus_worker.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
            )
            self._answers = queue.Queue()
            threading.Thread(target=_pump, args=(self._process, self._answers), daemon=True).start()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any] | None:
        try:
            line = self._answers.get(timeout=SECONDS_PER_TOOL)
        except queue.Empty:
            return None
        return json.loads(line) if line is not None else None

    def _end(self) -> str:
        process, self._process = self._process, None
        assert process is not None
        try:
            code = process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"no answer within {SECONDS_PER_TOOL} s"
        return f"exit code {code}"


def _pump(process: subprocess.Popen[str], answers: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put(None)


def run_all(cases: dict[str, Path], tools: list[str], workers: int, results: Path | None) -> dict[str, dict[str, Any]]:
    """Runs the cases that `results` does not have yet; returns all records by name, in the order of the cases."""
    records: dict[str, dict[str, Any]] = {}
    if results is not None and results.exists():
        for line in results.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["case"] in cases and set(tools) <= set(record["tools"]):
                records[record["case"]] = record
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in cases:
        if name not in records:
            todo.put(name)
    lock = threading.Lock()

    def work() -> None:
        worker = Worker()
        while True:
            try:
                name = todo.get_nowait()
            except queue.Empty:
                return
            record = {"case": name, **worker.run(cases[name], tools)}
            with lock:
                records[name] = record
                if results is not None:
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")
                if len(records) % 100 == 0:
                    print(f"{len(records)} of {len(cases)}", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: records[name] for name in cases}


def summarize(records: dict[str, dict[str, Any]], tools: list[str]) -> dict[str, Any]:
    """Counts by status, sums over the cases that stayed the same, and what is worth naming."""
    runnable = {name: r for name, r in records.items() if r["original"].get("runnable")}
    summary: dict[str, Any] = {"cases": len(records), "runnable": len(runnable), "tools": {}}
    for tool in tools:
        of = {name: r["tools"][tool] for name, r in runnable.items()}
        other = {name: r["tools"][tool] for name, r in records.items() if name not in runnable}
        changed = [name for name, r in of.items() if r["status"] == "same"]
        unlisted = [name for name, r in {**of, **other}.items() if r["status"] in ("wrong", "error", "crash")]
        every = {**of, **other}
        summary["tools"][tool] = {
            "status": dict(collections.Counter(r["status"] for r in of.values()).most_common()),
            "status_where_the_original_does_not_run": dict(
                collections.Counter(r["status"] for r in other.values()).most_common()
            ),
            "refused": dict(
                collections.Counter(
                    _kind(r["message"]) for r in every.values() if r["status"] == "refused"
                ).most_common()
            ),
            "undone": {name: r["undone"] for name, r in every.items() if r.get("undone")},
            "more_nodes": [n for n in changed if of[n]["nodes"] > runnable[n]["original"]["nodes"]],
            "more_bytes": [n for n in changed if of[n]["bytes"] > runnable[n]["original"]["bytes"]],
            "nodes": [sum(runnable[n]["original"]["nodes"] for n in changed), sum(of[n]["nodes"] for n in changed)],
            "bytes": [sum(runnable[n]["original"]["bytes"] for n in changed), sum(of[n]["bytes"] for n in changed)],
            "seconds": round(sum(r.get("seconds", 0.0) for r in every.values()), 1),
            "findings": {name: f"{every[name]['status']}: {every[name].get('message', '')}" for name in unlisted},
        }
    return summary


def _kind(message: str) -> str:
    """A message without the names and numbers of its case."""
    message = re.sub(r"^\S*\.onnx: ", "", message)
    return re.sub(r"'[^']*'|\d+", "_", message)


def print_summary(summary: dict[str, Any]) -> None:
    """One block per tool."""
    print(f"{summary['cases']} cases, {summary['runnable']} of which ONNX Runtime runs")
    for tool, facts in summary["tools"].items():
        share = facts["status"].get("same", 0) / max(1, summary["runnable"])
        print(f"\n{tool}: same {share:.2%}; " + ", ".join(f"{k} {v}" for k, v in facts["status"].items()))
        others = facts["status_where_the_original_does_not_run"]
        print("  where the original does not run: " + (", ".join(f"{k} {v}" for k, v in others.items()) or "none"))
        for what in ("nodes", "bytes"):
            before, after = facts[what]
            ratio = after / max(1, before)
            print(f"  {what} {before} -> {after} ({ratio:.3f}x), more in {len(facts['more_' + what])} cases")
        print(f"  {facts['seconds']} s; rewrites undone in {len(facts['undone'])} cases")
        for reason, count in facts["refused"].items():
            print(f"  refused {count}: {reason}")
        for name, text in list(facts["findings"].items())[:40]:
            print(f"  {name}: {text[:160]}")


def main() -> None:
    """Runs the corpus, prints the summary and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="at most this many cases, spread over the corpus")
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="cases whose name matches, such as '^node/test_add'"
    )
    parser.add_argument("--peers", action="store_true", help="also onnxsim, onnxscript and onnxslim, where installed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--results", type=Path, help="one line per case, appended as it ends; cases in it are not run again"
    )
    parser.add_argument("--json", type=Path, help="where to write summary and cases")
    args = parser.parse_args()
    tools = ["irc"]
    if args.peers:
        for tool, module in PEERS.items():
            if importlib.util.find_spec(module.partition(".")[0]) is not None:
                tools.append(tool)
            else:
                print(f"{tool} is not installed", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        pattern = re.compile(args.only)
        cases = {**write_node_cases(Path(folder), pattern), **data_models(pattern)}
        if args.limit is not None and args.limit < len(cases):
            names = list(cases)
            chosen = [names[i * len(names) // args.limit] for i in range(args.limit)]
            cases = {name: cases[name] for name in chosen}
        records = run_all(cases, tools, args.workers, args.results)
    summary = summarize(records, tools)
    print_summary(summary)
    if args.json is not None:
        document = {"summary": summary, "cases": records}
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
