#!/usr/bin/env python3
"""Random graphs through the whole of `-O1`, each verified on generated inputs; what is wrong is made small and shown.

    python benchmarks/random_graphs.py [--seeds 0:5000] [--workers 2] [--passes TEXT] [--shrink N] [--json FILE]

A graph counts as wrong if a pass raises, if a rewrite had to be taken back, if the exact passes change a bit, or if nodes
or bytes grow: the rules of `irc.testing.pipelines`. The graphs are those of `irc.testing.graphs`.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import multiprocessing
import re
import time
from pathlib import Path

from irc.recipe import LOSSLESS
from irc.testing.graphs import random_model
from irc.testing.pipelines import pipeline_violations
from irc.testing.shrinking import shrink


def check_seed(seed: int, passes: str) -> tuple[int, list[str]]:
    """The seed, and what is wrong with what the pipeline makes of its model."""
    try:
        return seed, pipeline_violations([passes], random_model(seed))
    except Exception as error:  # whatever a pass lets through is a finding
        return seed, [f"raises: {type(error).__name__}: {error}"]


def kind(violation: str) -> str:
    """A violation without the names and numbers of its model."""
    return re.sub(r"'[^']*'|\bat \S+:|[-\d.]+(e[-+]?\d+)?", "_", violation)


def smallest(seed: int, passes: str, wanted: str) -> str:
    """The smallest graph with a violation of a kind, as ONNX text."""
    import onnx
    import onnx_ir as ir

    def fails(model: ir.Model) -> bool:
        try:
            return any(kind(text) == wanted for text in pipeline_violations([passes], model))
        except Exception as error:
            return kind(f"raises: {type(error).__name__}: {error}") == wanted

    text: str = onnx.printer.to_text(ir.to_proto(shrink(random_model(seed), fails)))
    return text


def main() -> None:
    """Prints findings by kind, each with its smallest graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:5000", metavar="FIRST:END", help="which graphs; the end is not included")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--passes", default=LOSSLESS, help="pipeline text; default: that of -O1")
    parser.add_argument("--shrink", type=int, default=5, metavar="N", help="kinds of findings to make small")
    parser.add_argument("--json", type=Path, help="where to write the findings")
    args = parser.parse_args()
    first, _, end = args.seeds.partition(":")
    seeds = range(int(first), int(end))
    start = time.perf_counter()
    findings: dict[int, list[str]] = {}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(args.workers, mp_context=context) as pool:
        jobs = [pool.submit(check_seed, seed, args.passes) for seed in seeds]
        for done, job in enumerate(concurrent.futures.as_completed(jobs), 1):
            seed, violations = job.result()
            if violations:
                findings[seed] = violations
                print(f"seed {seed}: {violations[0][:300]}", flush=True)
            if done % 500 == 0:
                print(
                    f"{done} of {len(seeds)} in {time.perf_counter() - start:.0f} s, {len(findings)} wrong", flush=True
                )
    print(f"{len(seeds)} graphs, {len(findings)} wrong, {time.perf_counter() - start:.0f} s")
    kinds: dict[str, list[int]] = collections.defaultdict(list)
    for seed in sorted(findings):
        for violation in findings[seed]:
            kinds[kind(violation)].append(seed)
    for index, (what, where) in enumerate(sorted(kinds.items(), key=lambda item: -len(item[1]))):
        print(f"\n{len(where)}x {what[:300]}\n  seeds {where[:10]}", flush=True)
        if index < args.shrink:
            print(smallest(where[0], args.passes, what), flush=True)
    if args.json is not None:
        args.json.write_text(
            json.dumps({str(s): findings[s] for s in sorted(findings)}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
