"""The runtime's own profile of a model: how long each node of its optimized graph takes.

Imports numpy and ONNX Runtime only, as the whole runtime process does.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from irc.runner.node_time import NodeTime
from irc.runner.portable import PortableModel
from irc.runner.session import Feed, open_session

_WARM_UP_RUNS = 3
_MAX_EVENTS = 40_000
_LEAST_ROUNDS = 5
"""An event takes most of a kilobyte of JSON; a few dozen runs tell the quiet quarter of them."""
_KERNEL = "_kernel_time"


def profile_nodes(
    model: PortableModel | str, feeds: list[Feed], *, seconds: float, threads: int | None, folder: Path
) -> list[NodeTime]:
    """Runs a model with the runtime's profiler on.

    Args:
        model: As the process takes it.
        feeds: Run in turn.
        seconds: Time to spend, five runs of each feed at least.
        threads: Threads within operators.
        folder: For the runtime's files; the caller removes it.

    Returns:
        The nodes of the optimized main graph and of its bodies, in the order of the profile.
    """
    import onnx

    path = folder / "optimized.onnx"
    opened = open_session(model, threads=threads, optimized_model_path=path, profile_prefix=str(folder / "profile"))
    for _ in range(_WARM_UP_RUNS):
        for feed in feeds:
            opened.run(feed)
    begin = time.perf_counter()
    rounds = 0
    graph = onnx.load(path, load_external_data=False).graph
    most = max(_LEAST_ROUNDS, _MAX_EVENTS // max(len(graph.node) * len(feeds), 1))
    while rounds < _LEAST_ROUNDS or (time.perf_counter() - begin < seconds and rounds < most):
        for feed in feeds:
            opened.run(feed)
        rounds += 1
    profile = Path(opened.session.end_profiling())
    runs = _runs(json.loads(profile.read_text(encoding="utf-8")))[_WARM_UP_RUNS * len(feeds) :]
    return _expanded(_times(runs, len(feeds)), _nodes(graph))


def _nodes(graph: Any) -> list[Any]:
    found, pending = [], [graph]
    while pending:
        for node in pending.pop().node:
            found.append(node)
            pending += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return found


def _runs(events: list[dict[str, Any]]) -> list[dict[str, tuple[float, str, int]]]:
    """Per run of the model, microseconds, operator and elements by node; a node in a loop counts all its turns."""
    runs: list[dict[str, tuple[float, str, int]]] = []
    current: dict[str, tuple[float, str, int]] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Session" and name == "model_run":
            runs.append(current)
            current = {}
        elif event.get("cat") == "Node" and name.endswith(_KERNEL):
            arguments = event.get("args", {})
            node = name.removesuffix(_KERNEL)
            before = current.get(node, (0.0, "", 0))[0]
            current[node] = (before + float(event["dur"]), arguments.get("op_name", ""), _elements(arguments))
    return runs


def _elements(arguments: dict[str, Any]) -> int:
    shapes = arguments.get("output_type_shape") or []
    for dims in shapes[0].values() if shapes else ():
        return math.prod(int(dim) for dim in dims)
    return 0


def _times(runs: list[dict[str, tuple[float, str, int]]], feeds: int) -> list[NodeTime]:
    names = list(dict.fromkeys(name for run in runs for name in run))
    found = []
    for name in names:
        op_type, elements = next((run[name][1:] for run in runs if name in run), ("", 0))
        quiet = []
        for feed in range(feeds):
            times = [run[name][0] if name in run else 0.0 for run in runs[feed::feeds]]
            # The profiler counts whole microseconds: a quantile would round what a mean tells.
            quiet.append(float(np.mean(np.sort(times)[: -(-len(times) // 4)])) if times else 0.0)
        found.append(NodeTime(name, op_type, (), (), elements, float(np.mean(quiet))))
    return found


def _expanded(times: list[NodeTime], nodes: list[Any]) -> list[NodeTime]:
    """The times with the outputs of the nodes, what the runtime expanded at the last moment put together again.

    An operator without a kernel is in the profile as the nodes of its definition, which have no names in the optimized
    graph, or are not there at all. They run right behind what the operator reads.
    """
    known = {node.name: node for node in nodes}
    ran = {time.name for time in times}
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        if node.name not in ran:
            for name in node.input:
                readers.setdefault(name, []).append(node)
    found: list[NodeTime] = []
    last: Any = None
    for one in times:
        node = known.get(one.name)
        if node is not None:
            last = node
            found.append(dataclasses.replace(one, inputs=tuple(node.input), outputs=tuple(node.output)))
            continue
        whole = [reader for name in (last.output if last is not None else ()) for reader in readers.get(name, ())]
        if not whole:
            found.append(one)
        elif found and found[-1].outputs == tuple(whole[0].output):
            total = found[-1].microseconds + one.microseconds
            found[-1] = dataclasses.replace(found[-1], microseconds=total, elements=one.elements)
        else:
            inputs, outputs = tuple(whole[0].input), tuple(whole[0].output)
            found.append(NodeTime(whole[0].name, whole[0].op_type, inputs, outputs, one.elements, one.microseconds))
    return found
