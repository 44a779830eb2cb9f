"""The mean over all spatial axes as the pooling operator that integer runtimes know.

    ReduceMean<axes=[2, 3], keepdims=1>(x)   =>   GlobalAveragePool(x)
    ReduceMean<axes=[2, 3], keepdims=0>(x)   =>   Squeeze(GlobalAveragePool(x), [2, 3])

Quantization leaves a ReduceMean in float, and with it the conversions around it and what stands between it and the last
integer operator. The Squeeze is one node more, which moves integers; so this belongs before `quantize` and nowhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, module_metadata, replace_node, unique_name
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.fusion.composite import opset_of, target_of
from irc.passes.quantization.placement import read_as_integers
from irc.passes.simplification.unused import remove_unused

_POOL = "GlobalAveragePool"
_AXES_ARE_AN_INPUT_FROM = 18


@dataclasses.dataclass(frozen=True)
class PoolSpatialMean(Pass):
    """A pool can be integer where a mean cannot.

    Only where the target has an integer pool, and an operator behind it that will read integers.
    """

    name: ClassVar[str] = "pool-spatial-mean"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("opset-13", "shapes-known")
    invalidates: ClassVar[tuple[str, ...]] = ()
    prepares: ClassVar[bool] = True

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every mean over all spatial axes whose result will be read as integers, or why it stays."""
        if ctx.target is None:
            return
        opset, target = opset_of(model), target_of(ctx)
        if _POOL not in target.quantization.joining:
            return
        for node in model.graph.all_nodes():
            if node.op_type != "ReduceMean" or node.domain not in ("", "ai.onnx"):
                continue
            if (reason := _why_not(node, opset)) is not None:
                yield Skip(node, reason)
            elif not read_as_integers(node.outputs[0], target, model.graph):
                yield Skip(node, "nothing behind it will read integers")
            else:
                yield Site(node)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts the pool in the place of the mean, and a Squeeze behind it where the mean drops the axes."""
        node = site.node
        assert node is not None and isinstance(node.graph, ir.Graph)
        source, result, settings = node.inputs[0], node.outputs[0], list(node.inputs[1:])
        assert source is not None and source.shape is not None
        if node.attributes.get_int("keepdims", 1):
            replace_node(node, _POOL, [source])
        else:
            name = unique_name(node.graph, f"{node.name}_pool")
            pool = ir.Node("", _POOL, [source], num_outputs=1, name=name, metadata_props=module_metadata(node))
            pooled, rank = pool.outputs[0], len(source.shape)
            pooled.name, pooled.type = unique_name(node.graph, f"{result.name}_pooled"), source.type
            pooled.shape = ir.Shape([*source.shape[:2], *[1] * (rank - 2)])
            node.graph.insert_before(node, pool)
            axes = add_initializer(node.graph, f"{result.name}_axes", np.arange(2, rank))
            replace_node(node, "Squeeze", [pooled, axes])
        remove_unused(settings)
        return None


def _why_not(node: ir.Node, opset: int) -> str | None:
    """Why a mean is not that of a pool, or None."""
    source = node.inputs[0]
    if source is None or source.shape is None or source.dtype != ir.DataType.FLOAT:
        return "its input is not known to be FLOAT and of which rank"
    rank = len(source.shape)
    if opset < _AXES_ARE_AN_INPUT_FROM:
        axes = list(node.attributes.get_ints("axes", ()))
    else:
        array = constant(node.inputs[1]) if len(node.inputs) > 1 else np.empty(0)
        if array is None:
            return "its axes are not constant"
        axes = [int(axis) for axis in array]
    if rank < 3 or sorted(axis % rank for axis in axes) != list(range(2, rank)):
        return "it does not reduce all axes behind the second, and only those"
    return None
