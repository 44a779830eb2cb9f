"""Names that are free in the whole model, bodies of If, Loop and Scan included, found without a walk per name."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import onnx_ir as ir

_ROOTS: weakref.WeakKeyDictionary[ir.Graph, weakref.ref[ir.Graph]] = weakref.WeakKeyDictionary()
_TAKEN: weakref.WeakKeyDictionary[ir.Graph, set[str]] = weakref.WeakKeyDictionary()


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
    inserted = [_inserted_names(scope) for scope in dict.fromkeys((root, graph))]

    def is_taken(name: str) -> bool:
        return (
            name in taken
            or name in root.initializers
            or name in graph.initializers
            or any(name in names for names in inserted)
        )

    name = hint if hint and not is_taken(hint) else _suffixed(hint or "value", is_taken)
    taken.add(name)
    return name


def _suffixed(hint: str, is_taken: Callable[[str], bool]) -> str:
    """`hint_N` with a free N, in O(log N): doubling, then bisection between a taken and a free suffix."""
    free = 1
    while is_taken(f"{hint}_{free}"):
        free *= 2
    low = free // 2
    while free - low > 1:
        middle = (low + free) // 2
        if is_taken(f"{hint}_{middle}"):
            low = middle
        else:
            free = middle
    return f"{hint}_{free}"


def _survey(root: ir.Graph) -> set[str]:
    for graph in root.subgraphs():
        if graph is not root:
            _ROOTS[graph] = weakref.ref(root)
    return value_names(root)


def _inserted_names(graph: ir.Graph) -> set[str]:
    """The names of the values that nodes ever brought into a graph.

    onnx_ir records them for its own use and offers no public way to ask. Without it a name that a pass chose itself,
    not through `unique_name`, could be handed out again, which `check` would refuse.
    """
    names = getattr(getattr(graph, "_name_authority", None), "_value_names", None)
    return names if isinstance(names, set) else set()


def value_names(graph: ir.Graph) -> set[str]:
    """Every value name in a graph and its subgraphs."""
    names: set[str] = set()
    for scope in (graph, *graph.subgraphs()):
        names.update(value.name for value in scope.inputs if value.name)
        names.update(scope.initializers)
        for node in scope:
            names.update(value.name for value in node.outputs if value.name)
    return names
