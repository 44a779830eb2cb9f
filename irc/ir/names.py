"""Names that are free in the whole model, bodies of If, Loop and Scan included, found without a walk per name."""

from __future__ import annotations

import dataclasses
import weakref

import onnx_ir as ir


@dataclasses.dataclass
class _Taken:
    """Names in use in one model: those found by a walk or handed out, and those nodes brought along since."""

    names: set[str]
    inserted: tuple[set[str], ...]

    def __contains__(self, name: object) -> bool:
        return name in self.names or any(name in names for names in self.inserted)


_ROOTS: weakref.WeakKeyDictionary[ir.Graph, weakref.ref[ir.Graph]] = weakref.WeakKeyDictionary()
_TAKEN: weakref.WeakKeyDictionary[ir.Graph, _Taken] = weakref.WeakKeyDictionary()


def track(model: ir.Model) -> None:
    """Tells the naming which graphs belong to one model, and forgets names that are no longer in use.

    `snapshot` calls it on both models, so that the names a pass gets depend on the model it received and on nothing
    earlier.
    """
    root = model.graph
    for graph in root.subgraphs():
        if graph is not root:
            _ROOTS[graph] = weakref.ref(root)
    _TAKEN.pop(root, None)


def unique_name(scope: ir.Model | ir.Graph, hint: str) -> str:
    """A name that no value of the model has: `hint` itself if it is free, else `hint_N`.

    The same model, hints and order give the same names. A name once handed out is not given again before the next
    `snapshot`, whether it was used or not.

    Args:
        scope: The model, or any of its graphs.
        hint: What the name should look like.
    """
    graph = scope.graph if isinstance(scope, ir.Model) else scope
    reference = _ROOTS.get(graph)
    root = (reference() if reference is not None else None) or graph
    taken = _TAKEN.get(root)
    if taken is None:
        taken = _TAKEN[root] = _survey(root)
    name = hint
    if not name or name in taken or name in root.initializers or name in graph.initializers:
        name = _suffixed(hint or "value", taken)
    taken.names.add(name)
    return name


def _suffixed(hint: str, taken: _Taken) -> str:
    """`hint_N` with a free N, in O(log N): doubling, then bisection between a taken and a free suffix."""
    free = 1
    while f"{hint}_{free}" in taken:
        free *= 2
    low = free // 2
    while free - low > 1:
        middle = (low + free) // 2
        if f"{hint}_{middle}" in taken:
            low = middle
        else:
            free = middle
    return f"{hint}_{free}"


def _survey(root: ir.Graph) -> _Taken:
    graphs = list(dict.fromkeys((root, *root.subgraphs())))
    for graph in graphs:
        if graph is not root:
            _ROOTS[graph] = weakref.ref(root)
    # onnx_ir records the name of every value inserted with a node here; there is no public way to ask for it. Without
    # it a name that a pass chose itself after this survey could be handed out again, which `check` would refuse.
    authorities = (getattr(graph, "_name_authority", None) for graph in graphs)
    inserted = tuple(names for a in authorities if isinstance(names := getattr(a, "_value_names", None), set))
    return _Taken(value_names(root), inserted)


def value_names(graph: ir.Graph) -> set[str]:
    """Every value name in a graph and its subgraphs."""
    names: set[str] = set()
    for scope in (graph, *graph.subgraphs()):
        names.update(value.name for value in scope.inputs if value.name)
        names.update(scope.initializers)
        for node in scope:
            names.update(value.name for value in node.outputs if value.name)
    return names
