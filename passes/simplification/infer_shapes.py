"""Infer the type and shape of every value anew."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from irc.errors import ModelError
from irc.ir import refresh_shapes
from irc.pass_base import Context, Contract, ModelPass, Site, Skip

_Annotation = tuple[ir.Value, ir.TypeProtocol | None, ir.Shape | None]


@dataclasses.dataclass(frozen=True)
class InferShapes(ModelPass):
    """Gives every value the type and shape that onnx infers, forgetting what may be stale.

    Graph inputs and outputs keep what they declare. Where inference contradicts the model, the model stays as it is.
    """

    name = "infer-shapes"
    contract = Contract.EXACT
    establishes = ("shapes-known",)
    invalidates = ()

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Infers shapes, or says what contradicts what."""
        before = _annotations(site.match)
        try:
            return None if self.apply(site.match, ctx) else Skip(None, "nothing to do")
        except ModelError as error:
            for value, type_, shape in before:
                value.type, value.shape = type_, shape
            return Skip(None, str(error))

    def apply(self, model: ir.Model, ctx: Context) -> bool:
        """Infers shapes; returns whether any type or shape changed.

        Raises:
            ModelError: If inference contradicts the model, whose shapes may then be half-known.
        """
        before = _annotations(model)
        refresh_shapes(model)
        return any(value.type != type_ or value.shape != shape for value, type_, shape in before)


def _annotations(model: ir.Model) -> list[_Annotation]:
    """The type and shape of every value, in graph order."""
    values: list[ir.Value] = []
    for graph in (model.graph, *model.graph.subgraphs()):
        values += (*graph.inputs, *graph.initializers.values())
        for node in graph:
            values += node.outputs
    return [(value, value.type, None if value.shape is None else value.shape.copy()) for value in values]
