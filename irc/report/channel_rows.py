"""Which operators a drawing of channel groups shows: all of them, but of equal layers in a row the first, with their number.

Layers are equal when the graphs of their operators and families are: the same operators in the same order, the same families between
them, and the same way to the same families outside. A family that crosses from layer to layer must be one and the same, so only layers
that hang on a common stream are folded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

LEAST_REPEATS = 4
"""Equal layers in a row that are folded in any case; fewer are where there are more than `MOST_ROWS` rows."""
MOST_ROWS = 64
Document = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Fold:
    """Equal layers.

    Attributes:
        start: Index of the first operator of the first layer.
        period: Operators per layer.
        times: How many layers.
    """

    start: int
    period: int
    times: int

    @property
    def end(self) -> int:
        """Index behind the last operator of the last layer."""
        return self.start + self.period * self.times


@dataclasses.dataclass(frozen=True)
class Rows:
    """Operators as rows.

    Attributes:
        shown: Indices of the operators that have a row, in order.
        row_of: The row of every operator; that of its like in the first layer for one that is folded away.
        folds: What was folded.
    """

    shown: tuple[int, ...]
    row_of: Mapping[int, int]
    folds: tuple[Fold, ...]


def rows_of(document: Document) -> Rows:
    """Rows for the operators of a document of channel groups."""
    folds = _folds(document, LEAST_REPEATS)
    count = len(document["operators"])
    if count - _hidden(folds) > MOST_ROWS:
        folds = _folds(document, 2)
    shown: list[int] = []
    row_of: dict[int, int] = {}
    ends = {fold.start: fold for fold in folds}
    index = 0
    while index < count:
        fold = ends.get(index, Fold(index, 1, 1))
        for i in range(fold.start, fold.end):
            row_of[i] = len(shown) + (i - fold.start) % fold.period
        shown += range(fold.start, fold.start + fold.period)
        index = fold.end
    return Rows(tuple(shown), row_of, tuple(folds))


def _hidden(folds: Sequence[Fold]) -> int:
    return sum(fold.period * (fold.times - 1) for fold in folds)


def family_graph(document: Document) -> Any:
    """The bipartite graph of operators and families: nodes with a text that says what they are, edges with what one does to the other."""
    import networkx

    graph = networkx.Graph()
    for family in document["families"]:
        text = f"{family['kind']} {family['width']} x {family['cells']} {family['exact']}"
        graph.add_node(("family", family["name"]), text=text)
    for group in document["pinned_groups"]:
        graph.add_node(("family", group["name"]), text=f"pinned {group['size']} {group['kind']}")
    for index, operator in enumerate(document["operators"]):
        pins = sorted(f"{pin['side']} {pin['kind']}" for pin in operator["pinned"])
        text = f"{operator['label']} {operator['inputs']} {operator['outputs']} {pins}"
        graph.add_node(("operator", index), text=text)
        done: dict[str, str] = {}
        for name, relation in touches(operator):
            done[name] = f"{done.get(name, '')} {relation}"
        for name, text in done.items():
            graph.add_edge(("operator", index), ("family", name), text=text)
    return graph


def touches(operator: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What an operator does to which families and pinned groups: (name, "reads", "makes" or "passes")."""
    found = [(name, relation) for relation in ("passes", "reads", "makes") for name in operator[relation]]
    pins = [(pin["group"], "reads" if pin["side"] == "in" else "makes") for pin in operator["pinned"] if pin["group"]]
    return list(dict.fromkeys((*found, *pins)))


def _folds(document: Document, least: int) -> list[Fold]:
    """Equal layers in a row, from the first on those that fold away the most."""
    graph = family_graph(document)
    count = len(document["operators"])
    texts = [graph.nodes["operator", i]["text"] for i in range(count)]
    hashes: dict[tuple[int, int], str] = {}

    def alike(start: int, other: int, period: int) -> bool:
        if texts[start : start + period] != texts[other : other + period]:
            return False
        for at in (start, other):
            if (at, period) not in hashes:
                hashes[at, period] = _layer_hash(graph, at, period)
        return hashes[start, period] == hashes[other, period]

    folds: list[Fold] = []
    start = 0
    while start < count:
        best = Fold(start, 1, 1)
        for period in range(1, (count - start) // least + 1):
            times = 1
            while start + period * (times + 1) <= count and alike(start, start + period * times, period):
                times += 1
            if times >= least and period * (times - 1) > best.period * (best.times - 1):
                best = Fold(start, period, times)
        if best.times > 1:
            folds.append(best)
        start = best.end
    return folds


def _layer_hash(graph: Any, start: int, period: int) -> str:
    """A hash of some operators and the families they touch, those that others touch too by their names."""
    import networkx

    mine = {("operator", i) for i in range(start, start + period)}
    families = {name for node in mine for name in graph.neighbors(node)}
    layer = graph.subgraph(mine | families).copy()
    for family in families:
        if not set(graph.neighbors(family)) <= mine:
            layer.nodes[family]["text"] += f" {family[1]}"
    for node in mine:
        layer.nodes[node]["text"] = f"{node[1] - start} {layer.nodes[node]['text']}"
    found: str = networkx.weisfeiler_lehman_graph_hash(layer, node_attr="text", edge_attr="text")
    return found
