"""Repairs a graph in which a name is defined more than once, before it is read into objects.

Some exporters write such graphs (torch did when the name of an output equalled that of an internal value). Executed in
order, a use means the latest definition before it; that is how the repair reads it.
"""

from __future__ import annotations

import collections

import onnx

from irc.errors import ModelError


def repair_names(proto: onnx.ModelProto) -> list[str]:
    """Gives every definition but one of a repeated name a name of its own, in place.

    The latest definition keeps the name of a graph output, the first one any other. Of equal initializers of one name
    one stays.

    Returns:
        The repeated names.

    Raises:
        ModelError: If two graph inputs share a name, two different initializers do, or a graph input and an output it
            is not passed to.
    """
    repeated = _Repair(proto)
    repeated.graph(proto.graph, {}, public=True)
    return list(dict.fromkeys(repeated.names))


class _Repair:
    """One walk over a model; names in use are collected when the first repetition is found."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.names: list[str] = []
        self._proto = proto
        self._taken: set[str] | None = None

    def graph(self, graph: onnx.GraphProto, outer: dict[str, str], *, public: bool) -> None:
        self._drop_equal_initializers(graph)
        counts = collections.Counter(value.name for value in graph.input)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ModelError(f"two graph inputs are called {twice[0]!r}; export the model again with distinct names")
        for initializer in graph.initializer:
            counts[initializer.name] = max(1, counts[initializer.name])
        for node in graph.node:
            counts.update(name for name in node.output if name)
        repeated = {name for name, count in counts.items() if count > 1}
        outputs = {value.name for value in graph.output}
        inputs = {value.name for value in graph.input}
        clash = next((name for name in counts if name in repeated and name in inputs and name in outputs), None)
        if clash is not None and public:
            raise ModelError(
                f"graph input and graph output are both called {clash!r}; export again with distinct names"
            )
        if not repeated and not outer:
            for node in graph.node:
                self._bodies(node, outer)
            return
        self.names += sorted(repeated)
        self._rename(graph, outer, repeated, outputs, counts, inputs)

    def _rename(
        self,
        graph: onnx.GraphProto,
        outer: dict[str, str],
        repeated: set[str],
        outputs: set[str],
        counts: collections.Counter[str],
        inputs: set[str],
    ) -> None:
        current = {name: new for name, new in outer.items() if name not in counts}
        left = dict(counts)
        defined: set[str] = set()

        def define(name: str) -> str:
            if name not in repeated:
                return name
            left[name] -= 1
            keeps = left[name] == 0 if name in outputs else name not in defined
            defined.add(name)
            current[name] = name if keeps else self._fresh(name)
            return current[name]

        for initializer in graph.initializer:
            if initializer.name not in inputs:
                initializer.name = define(initializer.name)
        for name in inputs:
            define(name)
        for node in graph.node:
            for i, name in enumerate(node.input):
                if name in current:
                    node.input[i] = current[name]
            self._bodies(node, current)
            for i, name in enumerate(node.output):
                if name:
                    node.output[i] = define(name)
        for value in graph.output:
            value.name = current.get(value.name, value.name)
        # What is known about a repeated name may belong to any of its definitions.
        kept = [info for info in graph.value_info if info.name not in repeated]
        del graph.value_info[:]
        graph.value_info.extend(kept)

    def _bodies(self, node: onnx.NodeProto, current: dict[str, str]) -> None:
        renamed = {name: new for name, new in current.items() if name != new}
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                self.graph(attribute.g, renamed, public=False)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for body in attribute.graphs:
                    self.graph(body, renamed, public=False)

    def _fresh(self, name: str) -> str:
        if self._taken is None:
            self._taken = _all_names(self._proto.graph)
        suffix = 1
        while f"{name}_{suffix}" in self._taken:
            suffix += 1
        self._taken.add(f"{name}_{suffix}")
        return f"{name}_{suffix}"

    def _drop_equal_initializers(self, graph: onnx.GraphProto) -> None:
        latest = {tensor.name: i for i, tensor in enumerate(graph.initializer)}
        if len(latest) != len(graph.initializer):
            kept = []
            for i, tensor in enumerate(graph.initializer):
                if latest[tensor.name] == i:
                    kept.append(tensor)
                elif tensor != graph.initializer[latest[tensor.name]]:
                    raise ModelError(
                        f"two initializers are called {tensor.name!r} and differ, and runtimes disagree which one "
                        "counts; export the model again"
                    )
                else:
                    self.names.append(tensor.name)
            del graph.initializer[:]
            graph.initializer.extend(kept)


def _all_names(graph: onnx.GraphProto) -> set[str]:
    from irc.ir.stripped import graphs_of

    names: set[str] = set()
    for scope in graphs_of(graph):
        names.update(value.name for value in (*scope.input, *scope.output, *scope.initializer))
        for node in scope.node:
            names.update(node.output)
    return names
