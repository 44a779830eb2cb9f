"""Infer the type and shape of every value anew."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from irc.errors import ModelError
from irc.ir import refresh_shapes
from irc.ir.shapes import is_invented, shape_dims
from irc.pass_base import Context, Contract, ModelPass, Site, Skip

_Annotation = tuple[ir.Value, ir.TypeProtocol | None, ir.Shape | None]


@dataclasses.dataclass(frozen=True)
class InferShapes(ModelPass):
    """Gives every value the type and shape that onnx infers, forgetting what may be stale.

    Graph inputs and outputs keep what they declare. Where inference meets a contradiction, it goes on as far as it can.
    """

    name: ClassVar[str] = "infer-shapes"
    contract: ClassVar[Contract] = Contract.EXACT
    establishes: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Infers shapes; says what contradicts what where that left nothing to learn."""
        model, problem = site.match, "nothing to do"
        before = _annotations(model)
        try:
            refresh_shapes(model)
        except ModelError as error:
            problem = str(error)
            refresh_shapes(model, strict=False)
        return None if _changed(before) else Skip(None, problem)

    def apply(self, model: ir.Model, ctx: Context) -> bool:
        """Infers shapes; returns whether any type or shape changed."""
        return self.rewrite(Site(None, match=model), ctx) is None


def _annotations(model: ir.Model) -> list[_Annotation]:
    """The type and shape of every value, in graph order."""
    values: list[ir.Value] = []
    for graph in (model.graph, *model.graph.subgraphs()):
        values += (*graph.inputs, *graph.initializers.values())
        for node in graph:
            values += node.outputs
    return [(value, value.type, None if value.shape is None else value.shape.copy()) for value in values]


def _changed(before: list[_Annotation]) -> bool:
    """Whether more is known, or less; that equal unknown dimensions have another symbol than before is no change."""
    renamed: dict[object, object] = {}
    names: dict[object, object] = {}
    for value, type_, shape in before:
        if value.type != type_:
            return True
        was, now = shape_dims(shape), shape_dims(value.shape)
        if was is None or now is None or len(was) != len(now):
            if was != now:
                return True
            continue
        for old, new in zip(was, now, strict=True):
            if is_invented(old) and is_invented(new):
                if renamed.setdefault(old, new) != new or names.setdefault(new, old) != old:
                    return True
            elif old != new:
                return True
    return False
