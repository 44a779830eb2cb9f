"""Values of a model on all batches at the place where a sweep from front to back stands, every node run once.

Weights behind that place may be changed as the sweep goes on: a value is computed when it is asked for, by a model of just the nodes
between what is known and what is asked, and forgotten behind its last reader.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir.bodies import bodies
from irc.passes.pruning.repair.batches import Batch
from irc.runner import Runner

Array = np.ndarray[Any, Any]

_serial = itertools.count()


class Frontier:
    """A model halfway through some batches.

    Args:
        model: Its weights are read when a value is asked for that depends on them.
        runner: Where it runs.
        batches: All of them stand at the same place.
    """

    def __init__(self, model: ir.Model, runner: Runner, batches: Sequence[Batch]) -> None:
        self._model, self._runner = model, runner
        self._feeds = [batch.feed for batch in batches]
        serial = next(_serial)
        self._shelves = [f"frontier {serial} {index}" for index in range(len(batches))]
        for shelf, feed in zip(self._shelves, self._feeds, strict=True):
            runner.shelve(shelf, feed)
        self._known: dict[str, None] = dict.fromkeys(self._feeds[0])
        self._inputs = {str(value.name) for value in model.graph.inputs}
        self._types: dict[str, ir.TensorType] = {}
        self._makers: dict[str, ir.Value] = {}
        self._place: dict[ir.Node, int] = {}
        self._waiting: dict[str, set[ir.Node]] = {}
        for place, node in enumerate(model.graph):
            self._place[node] = place
            self._makers |= {str(value.name): value for value in node.outputs}
            for value in read_by(node):
                self._waiting.setdefault(str(value.name), set()).add(node)

    def bring(self, names: Sequence[str]) -> None:
        """Computes values for `of`, and forgets those that all their readers have read."""
        over = [n for n in self._known if n not in self._inputs and n not in names and not self._waiting.get(n)]
        if over:
            self._runner.unshelve(self._shelves, over)
            for name in over:
                del self._known[name]
        missing = [name for name in dict.fromkeys(names) if name not in self._known]
        if missing:
            self._run(missing)

    def of(self, name: str, batch: int) -> Array:
        """A value that was brought."""
        if name in self._inputs:
            return self._feeds[batch][name]
        return np.asarray(self._runner.shelved(self._shelves[batch], name))

    def close(self) -> None:
        """Frees everything."""
        self._runner.unshelve(self._shelves)

    def _run(self, missing: Sequence[str]) -> None:
        nodes, boundary = self._between(missing)
        for node in nodes:
            # A bias may have been given to it since.
            for value in read_by(node):
                self._waiting.get(str(value.name), set()).discard(node)
        made = [str(value.name) for node in nodes for value in node.outputs]
        later = [name for name in made if self._waiting.get(name) and name not in missing]
        wanted = [*missing, *later]
        graph = ir.convenience.extract(self._model.graph, [self._value(name) for name in boundary], wanted)
        for value in graph.inputs:
            original = self._value(str(value.name))
            known = original.shape
            value.type = original.type or self._types.get(str(value.name)) or ir.TensorType(ir.DataType.FLOAT)
            value.shape = None if known is None else ir.Shape([None] * len(known))
        part = ir.Model(graph, ir_version=self._model.ir_version)
        with self._runner.open(part) as opened:
            opened.advance(self._shelves, boundary, wanted)
            # Shape inference does not know all types; the runtime does.
            self._types |= {output.name: found for output in opened.outputs if (found := _tensor_type(output.type))}
        self._known |= dict.fromkeys(wanted)

    def _between(self, names: Sequence[str]) -> tuple[list[ir.Node], list[str]]:
        """The nodes that make values from known ones, and the known ones they read."""
        known, pending = self._known, list(names)
        nodes: dict[ir.Node, None] = {}
        boundary: dict[str, None] = {}
        while pending:
            name = pending.pop()
            if name in known:
                boundary[name] = None
                continue
            node = self._makers[name].producer() if name in self._makers else None
            if node is None or node in nodes:
                continue
            nodes[node] = None
            pending += [str(value.name) for value in read_by(node)]
        return sorted(nodes, key=self._place.__getitem__), sorted(boundary)

    def _value(self, name: str) -> ir.Value:
        if name in self._makers:
            return self._makers[name]
        return next(value for value in self._model.graph.inputs if value.name == name)


def _tensor_type(text: str) -> ir.TensorType | None:
    """The type that the runtime spells "tensor(int64)"; None for what is no tensor."""
    name = text.removeprefix("tensor(").removesuffix(")").upper()
    return ir.TensorType(ir.DataType[name]) if text.startswith("tensor(") and name in ir.DataType.__members__ else None


def read_by(node: ir.Node) -> list[ir.Value]:
    """The values of its graph that a node reads, through its bodies too."""
    found = [value for value in node.inputs if value is not None]
    for body in bodies(node):
        for inner in body.all_nodes():
            found += [value for value in inner.inputs if value is not None and value.graph is node.graph]
        found += [value for value in body.outputs if value.graph is node.graph]
    return found
