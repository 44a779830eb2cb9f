"""Residual branches of a graph, found by its structure: what is added to a value and computed from it.

    y = x + f(x)                    one branch
    y = x + attention(x) + mlp(x)   two: every term of a sum that is computed from another term of it

A term is a branch of the shortcut it is computed from by other operators than look at its shape. Where it is computed from several,
the last of them counts: that is the smallest branch. What else a branch reads (a mask, positions, what an encoder found) may be
anything, since without the branch nothing has to be put in its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx_ir as ir

from irc.analysis.weights import Weights
from irc.ir import bodies
from irc.pass_base import node_id
from irc.passes.pruning.layers.channel_axis import channel_axis

SHAPE_ONLY = frozenset({"Shape", "Size"})
"""What reads a value without its numbers."""
SAME_ELEMENTS = frozenset(
    {
        *("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
        *("QuantizeLinear", "DequantizeLinear"),
    }
)
"""A shortcut stays one behind these."""
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@dataclasses.dataclass(frozen=True, eq=False)
class Branch:
    """One term of a sum that is computed from another.

    Attributes:
        id: The name of what the addition gives; of the branch's own value where both operands of an addition are branches.
        add: The addition that it enters.
        index: Which operand of it.
        shortcut: The term it is computed from.
        joined: The whole sum.
        inner: The nodes that only it needs, in order, without what only looks at shapes.
        axis: Which axis of it counts channels; None if the rank is not known.
        same_shape: Whether shortcut and sum are known to have one shape; None if only data can tell.
        refused: Why it must stay, or None.
    """

    id: str
    add: ir.Node
    index: int
    shortcut: ir.Value
    joined: ir.Value
    inner: tuple[ir.Node, ...]
    axis: int | None
    same_shape: bool | None
    refused: str | None = None

    @property
    def value(self) -> ir.Value:
        """What is added."""
        found = self.add.inputs[self.index]
        assert found is not None
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class NoBranch:
    """A sum of activations none of whose terms is computed from another, with the reason."""

    add: ir.Node
    reason: str


def residual_branches(model: ir.Model, macs: Mapping[str, int | None]) -> Iterator[Branch | NoBranch]:
    """The residual branches of the main graph in its order, and the other sums of activations.

    Terms that hold no multiply-accumulates, such as the cube in a GELU, are neither.

    Args:
        model: In topological order; unchanged.
        macs: Multiply-accumulates by node id, None where unknown.
    """
    yield from _Finder(model, macs).found()


@dataclasses.dataclass(frozen=True, eq=False)
class _Term:
    add: ir.Node
    index: int
    value: ir.Value


class _Finder:
    def __init__(self, model: ir.Model, macs: Mapping[str, int | None]) -> None:
        self._graph, self._macs, self._weights = model.graph, macs, Weights(model)
        self._position = {node: i for i, node in enumerate(model.graph)}
        self._holder = {inner: node for node in model.graph for inner in inside(node)}

    def found(self) -> Iterator[Branch | NoBranch]:
        for node in self._graph:
            if self._is_sum(node) and not self._is_term(node):
                yield from self._of_sum(node)

    def _is_sum(self, node: ir.Node | None) -> bool:
        """Whether a node adds two activations in floating point."""
        return (
            node is not None
            and node in self._position
            and (node.domain, node.op_type) in (("", "Add"), ("ai.onnx", "Add"))
            and node.outputs[0].dtype in FLOATS
            and not any(value is None or self._weights.is_constant(value) for value in node.inputs)
        )

    def _is_term(self, node: ir.Node) -> bool:
        """Whether a sum is nothing but a term of a larger one."""
        uses = list(node.outputs[0].uses())
        return len(uses) == 1 and not node.outputs[0].is_graph_output() and self._is_sum(uses[0].node)

    def _terms(self, add: ir.Node) -> Iterator[_Term]:
        for index, value in enumerate(add.inputs):
            assert value is not None
            node = value.producer()
            if node is not None and self._is_sum(node) and self._is_term(node):
                yield from self._terms(node)
            else:
                yield _Term(add, index, value)

    def _of_sum(self, root: ir.Node) -> Iterator[Branch | NoBranch]:
        terms = list(self._terms(root))
        chains = [_chain(term.value) for term in terms]
        starts = [self._made(chain[-1]) for chain in chains]
        latest_first = sorted(range(len(terms)), key=lambda i: -starts[i])
        found: list[tuple[_Term, _Term, list[ir.Node], list[ir.Node]]] = []
        computed = False
        for term in terms:
            for i in latest_first:
                if terms[i] is term or starts[i] >= self._made(term.value):
                    continue
                cone = self._cone(term.value, starts[i])
                inner = _dependent(cone, chains[i], term.value)
                if inner:
                    computed = True
                    if any(self._is_heavy(node) for node in inner):
                        found.append((term, terms[i], cone, inner))
                    break
        if not computed:
            yield NoBranch(root, self._why_none(terms))
        shared = {add for add in (term.add for term, *_ in found) if sum(term.add is add for term, *_ in found) > 1}
        for term, shortcut, cone, inner in found:
            name = (term.value.name or "") if term.add in shared else node_id(term.add)
            yield self._branch(name, root, term, shortcut, cone, inner)

    def _branch(
        self, name: str, root: ir.Node, term: _Term, shortcut: _Term, cone: list[ir.Node], inner: list[ir.Node]
    ) -> Branch:
        joined = root.outputs[0]
        own = self._exclusive(cone, term)
        refused = None
        for node in inner:
            if node not in own and self._is_heavy(node):
                refused = self._why_shared(node, own, term)
                break
        same = _same_shape(shortcut.value, joined)
        if refused is None and same is False:
            refused = f"its shortcut {shortcut.value.name!r} has another shape than the sum"
        return Branch(
            name,
            term.add,
            term.index,
            shortcut.value,
            joined,
            tuple(node for node in inner if node in own),
            channel_axis(term.value, self._weights),
            same,
            refused,
        )

    def _made(self, value: ir.Value) -> int:
        """Where a value is made; -1 for inputs."""
        node = value.producer()
        return self._position.get(node, -1) if node is not None else -1

    def _cone(self, value: ir.Value, bound: int) -> list[ir.Node]:
        """The nodes behind a position that a value is computed by, in order."""
        seen: set[ir.Node] = set()
        pending = [value]
        while pending:
            node = pending.pop().producer()
            if node is not None and node not in seen and self._position.get(node, -1) > bound:
                seen.add(node)
                pending += reads(node)
        return sorted(seen, key=self._position.__getitem__)

    def _exclusive(self, cone: Sequence[ir.Node], term: _Term) -> set[ir.Node]:
        """The nodes of a cone that nothing else needs."""
        own: set[ir.Node] = set()
        for node in reversed(cone):
            if all(self._leaves(output, own, term) is None for output in node.outputs):
                own.add(node)
        return own

    def _leaves(self, value: ir.Value, own: Collection[ir.Node], term: _Term) -> str | None:
        """How a value is needed outside of some nodes, or None."""
        if value.is_graph_output():
            return f"its inner value {value.name!r} is an output"
        for use in value.uses():
            node = self._holder.get(use.node, use.node)
            if node not in own and not (node is term.add and use.idx == term.index):
                return f"its inner value {value.name!r} is read outside of it, by {node.op_type} {node_id(node)!r}"
        return None

    def _why_shared(self, node: ir.Node, own: Collection[ir.Node], term: _Term) -> str:
        reasons = (self._leaves(output, own, term) for output in node.outputs)
        return next(reason for reason in reasons if reason is not None)

    def _is_heavy(self, node: ir.Node) -> bool:
        count = self._macs.get(node_id(node), 0)
        return count is None or count > 0 or any(self._is_heavy(inner) for inner in inside(node))

    def _why_none(self, terms: Sequence[_Term]) -> str:
        return f"neither of {' and '.join(repr(term.value.name) for term in terms)} is computed from the other"


def inside(node: ir.Node) -> list[ir.Node]:
    """The nodes of its bodies."""
    return [inner for body in bodies(node) for inner in body.all_nodes()]


def reads(node: ir.Node) -> list[ir.Value]:
    """What a node reads, also in its bodies."""
    return [value for one in (node, *inside(node)) for value in one.inputs if value is not None]


def _chain(value: ir.Value) -> list[ir.Value]:
    """A value and those it is the same elements as, back to the first."""
    found = [value]
    while (node := found[-1].producer()) is not None and node.op_type in SAME_ELEMENTS and node.inputs[0] is not None:
        found.append(node.inputs[0])
    return found


def _dependent(cone: Sequence[ir.Node], start: Sequence[ir.Value], value: ir.Value) -> list[ir.Node]:
    """The nodes of a cone that a value is computed by from others; none if it is not computed from them."""
    known, found = set(start), []
    for node in cone:
        if node.op_type in SHAPE_ONLY or any(output in start for output in node.outputs):
            continue
        if any(read in known for read in reads(node)):
            found.append(node)
            known.update(node.outputs)
    return found if value in known and value not in start else []


def _same_shape(a: ir.Value, b: ir.Value) -> bool | None:
    if a.shape is None or b.shape is None:
        return None
    if len(a.shape) != len(b.shape):
        return False
    known: bool | None = True
    for m, n in zip(a.shape, b.shape, strict=True):
        if isinstance(m, int) and isinstance(n, int):
            if m != n:
                return False
        elif isinstance(m, int) or isinstance(n, int) or m.value is None or m.value != n.value:
            known = None
    return known
