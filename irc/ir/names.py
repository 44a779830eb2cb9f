"""Names that are free in the whole model, bodies of If, Loop and Scan included, found without a walk per name."""

from __future__ import annotations

import weakref

import onnx_ir as ir

_ROOTS: weakref.WeakKeyDictionary[ir.Graph, weakref.ref[ir.Graph]] = weakref.WeakKeyDictionary()
_TAKEN: weakref.WeakKeyDictionary[ir.Graph, set[str]] = weakref.WeakKeyDictionary()


def track(model: ir.Model) -> None:
    """Tells the naming which graphs belong to one model, so that names are unique across its subgraphs."""
    root = model.graph
    for graph in root.subgraphs():
        if graph is not root:
            _ROOTS[graph] = weakref.ref(root)
    _TAKEN.pop(root, None)


def unique_name(scope: ir.Model | ir.Graph, hint: str) -> str:
    """A name that no value of the model has, `hint` itself if it is free, else `hint_1`, `hint_2`, ...

    Args:
        scope: The model, or any of its graphs.
        hint: What the name should look like.
    """
    graph = scope.graph if isinstance(scope, ir.Model) else scope
    reference = _ROOTS.get(graph)
    root = (reference() if reference is not None else None) or graph
    taken = _TAKEN.get(root)
    if taken is None:
        taken = _TAKEN[root] = value_names(root)
    name, suffix = hint, 0
    while name in taken:
        suffix += 1
        name = f"{hint}_{suffix}"
    taken.add(name)
    return name


def value_names(graph: ir.Graph) -> set[str]:
    """Every value name in a graph and its subgraphs."""
    names: set[str] = set()
    for scope in (graph, *graph.subgraphs()):
        names.update(value.name for value in scope.inputs if value.name)
        names.update(scope.initializers)
        for node in scope:
            names.update(value.name for value in node.outputs if value.name)
    return names
