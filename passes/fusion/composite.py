"""What every fusion does: one composite operator in the place of the operators that compute the same.

A fusion says how the composite would look that ends in a given node; when it may be written is decided here: the opset
has it, the target executes it no slower, and nothing else needs what is computed on the way.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import onnx_ir as ir

from irc import registry, targets
from irc.ir import replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.unused import remove_unused
from irc.target import Target

Input = ir.Value | Callable[[ir.Node], ir.Value]
"""A value, or what makes one in front of the last node once it is needed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Composite:
    """One operator that computes what several do.

    Attributes:
        op_type: The operator, of the standard domain.
        since: The first opset that has it in the form used here.
        inputs: Its inputs.
        interior: The nodes that go away beside the last one, in any order, each once or more often.
        dtype: Type of the data.
        attributes: Its attributes.
        mode: The attribute value that selects what it computes, as `Target.has_operator` takes it.
    """

    op_type: str
    since: int
    inputs: tuple[Input, ...]
    interior: tuple[ir.Node, ...]
    dtype: ir.DataType
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mode: str = ""


class Fusion(Pass):
    """A pass that puts composite operators in the place of decomposed ones."""

    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def composite(self, last: ir.Node, model: ir.Model) -> Composite | str | None:
        """The operator that can take the place of what ends in a node.

        Args:
            last: A node of the standard domain with one output.
            model: The model it is in.

        Returns:
            The composite; None if nothing of the kind ends here; or why what ends here cannot be fused.
        """

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the last node of everything that can be fused, and why what looks like it cannot."""
        opset, target = opset_of(model), target_of(ctx)
        for node in model.graph.all_nodes():
            if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1 or not isinstance(node.graph, ir.Graph):
                continue
            found = self.composite(node, model)
            if isinstance(found, str):
                yield Skip(node, found)
            elif found is not None:
                reason = _why_not(found, node, opset, target)
                yield Site(node, match=found) if reason is None else Skip(node, reason)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts the composite in the place of the last node and removes the others."""
        last, found = site.node, site.match
        assert last is not None and isinstance(found, Composite)
        replaced = list(last.inputs)
        inputs = [value if isinstance(value, ir.Value) else value(last) for value in found.inputs]
        replace_node(last, found.op_type, inputs, found.attributes)
        remove_unused(replaced)
        return None


def opset_of(model: ir.Model) -> int:
    """The version of the default domain."""
    return model.graph.opset_imports.get("", 0)


def target_of(ctx: Context) -> Target:
    """The target of a run; any runtime means what ONNX Runtime has on every machine."""
    if ctx.target is None:
        target: Target = registry.target_class("ort")()
        return target
    return targets.parse(ctx.target) if isinstance(ctx.target, str) else ctx.target


def _why_not(found: Composite, last: ir.Node, opset: int, target: Target) -> str | None:
    """Why a composite must not be written, or None."""
    if (reason := needed_elsewhere(found.interior, last)) is not None:
        return reason
    if opset < found.since:
        return f"opset {opset} has no such {found.op_type}; it came with {found.since}"
    if not target.has_operator(found.op_type, opset, found.dtype, mode=found.mode):
        return f"{target.name} has no {found.op_type} of {found.dtype.name} that is as fast as what it stands for"
    return None


def needed_elsewhere(interior: Iterable[ir.Node], last: ir.Node) -> str | None:
    """Why nodes cannot go away together with a last one, or None: something else needs what they compute."""
    inside = {*interior, last}
    for node in interior:
        if node.graph is not last.graph:
            return f"its {node.op_type} is in another graph"
        for value in node.outputs:
            if value.is_graph_output() or any(use.node not in inside for use in value.uses()):
                return f"the output of its {node.op_type} has other users"
    return None


def producer_of(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node of the standard domain, of one of these types and with one output, that computes a value."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in op_types or node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
        return None
    return node


def two_inputs(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """The inputs of a node that has two."""
    if len(node.inputs) != 2 or node.inputs[0] is None or node.inputs[1] is None:
        return None
    return node.inputs[0], node.inputs[1]


def either_way(node: ir.Node) -> tuple[tuple[ir.Value, ir.Value], ...]:
    """The two inputs of a commutative node in both orders."""
    pair = two_inputs(node)
    return () if pair is None else (pair, pair[::-1])
