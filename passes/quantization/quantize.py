"""Static int8: weights per channel, activations by calibrated ranges, placed where the target has integer kernels.

y = Conv(x, W, b);  z = Relu(y)
=>  z' = DQ(Q(Relu(Conv(DQ(Q(x)), DQ(W_q), b))))            (a runtime that needs quantized outputs)
y = MatMul(x, W)
=>  y = MatMul(DQ(Q(x)), DQ(W_q))                           (no Q on its output)
y = Gather(T, ids)
=>  y = DQ(Gather(T_q, ids))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

import onnx_ir as ir

from irc.calibration import StatisticRequest
from irc.errors import UsageError
from irc.ir import constant_tensor
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.quantization import placement
from irc.passes.quantization.gemm import integer_bias
from irc.passes.quantization.local_error import local_errors
from irc.passes.quantization.table import quantize_table
from irc.passes.quantization.workspace import Workspace, drop_if_unused
from irc.target import Target, is_dequantized

FACT = "opset-13"

_Rewrite = Callable[[ir.Node, Workspace], str | None]


@dataclasses.dataclass(frozen=True)
class Quantize(Pass):
    """Makes Conv, Gemm, MatMul and what lies between them integer; embedding tables int8.

    Source: Jacob et al. 2018, arXiv:1712.05877, for the arithmetic; placement is the target's.

    Attributes:
        calibrator: How a range is taken from the data: "min-max".
        embeddings: Whether tables of Gather are stored as int8.
        joining: Whether Add, pooling and the like become integer between integer operators.
    """

    name: ClassVar[str] = "quantize"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("batch-norm-folded", FACT, "shapes-known")

    calibrator: Literal["min-max"] = "min-max"
    embeddings: bool = True
    joining: bool = True

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields weighted operators, lookups, and operators whose inputs are all integers by the time they are reached.

        Raises:
            UsageError: If the context has no target or no data.
        """
        if ctx.target is None or ctx.collect is None:
            raise UsageError("quantize: needs a target and data; give --data, or use quantize-weights")
        target, main = ctx.target, model.graph
        style = target.quantization
        plans = self._plans(main, target)
        wanted = dict.fromkeys(name for _, _, names in plans for name in names)
        statistics = ctx.collect(model, [StatisticRequest(name) for name in wanted])
        work = Workspace(main, style, statistics)
        for node, kind, names in plans:
            if isinstance(kind, Skip):
                yield kind
                continue
            for name in names:
                if statistics.get(name) is None:
                    why = statistics.missing.get(name, "no sample gave it an element")
                    yield Skip(node, f"{name!r} has no calibrated range: {why}")
                    break
            else:
                if kind == "join":
                    if _can_join(node, work, target):
                        yield Site(node, (_join, work))
                elif kind == "residual":
                    if _skip_branch(node, work) is not None:
                        yield Site(node, (_quantize_skip_branch, work))
                else:
                    yield Site(node, (_lookup if kind == "table" else _weighted, work))

    def _plans(self, main: ir.Graph, target: Target) -> list[tuple[ir.Node, str | Skip, list[str]]]:
        """Every candidate in graph order: what to do there, and the values whose ranges that takes."""
        style = target.quantization
        plans: list[tuple[ir.Node, str | Skip, list[str]]] = []
        for node in main.all_nodes():
            if node.domain != "" or not node.inputs:
                continue
            if node.op_type in style.weighted or node.op_type == "ConvTranspose":
                if placement.is_product(node):
                    continue
                reason = placement.why_not_weighted(node, target, main)
                if reason is None and node.op_type not in style.weighted:
                    reason = "the target has no integer kernel for it"
                if reason is not None:
                    plans.append((node, Skip(node, reason), []))
                    continue
                values = [node.inputs[0]]
                if node.op_type in style.needs_output:
                    values.append(placement.fused_output(node, style))
                plans.append((node, "weighted", [v.name for v in values if v is not None and v.name]))
            elif self.embeddings and style.embeddings and placement.is_table_lookup(node):
                reason = placement.why_not_table(node, main)
                plans.append((node, Skip(node, reason) if reason else "table", []))
            elif self.joining and node.graph is main:
                if node.op_type in style.joining and self._may_join(node, target, main):
                    plans.append((node, "join", [placement.fused_output(node, style).name or ""]))
                elif style.residual and node.op_type == "Add":
                    plans.append((node, "residual", []))
        return plans

    @staticmethod
    def _may_join(node: ir.Node, target: Target, main: ir.Graph) -> bool:
        if any(v is None or constant_tensor(v) is not None or is_dequantized(v) for v in node.inputs):
            return False
        if target.refuses(node) is not None:
            return False
        return placement.read_as_integers(placement.fused_output(node, target.quantization), target, main)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Quantizes one site; operators it shares values with may or may not have been quantized."""
        node = site.node
        assert node is not None
        rewrite: _Rewrite
        rewrite, work = site.match
        reason = rewrite(node, work)
        return None if reason is None else Skip(node, reason)

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """Relative error energy of each site's output with its own inputs and weights quantized, in one sweep."""
        if ctx.runner is None or ctx.data is None:
            return None
        return local_errors(ctx.runner, before, after, sites, ctx.data, progress=ctx.progress)


def _weighted(node: ir.Node, work: Workspace) -> str | None:
    source = node.inputs[0]
    weight = placement.weight_of(node)
    assert source is not None and weight is not None
    pair = work.quantize(source)
    if pair is None:
        return f"{source.name!r} has no calibrated range"
    node.replace_input_with(0, pair.dequantized)
    old = node.inputs[1]
    zero_point = node.op_type in work.style.weight_zero_points or weight.transposed
    node.replace_input_with(
        1, work.dequantized(weight.origin, weight.axis, transposed=weight.transposed, zero_point=zero_point)
    )
    if node.op_type == "Gemm" and work.style.gemm_bias == "int32":
        integer_bias(node, pair.step * work.store(weight.origin, weight.axis).numbers, work)
    if node.op_type in work.style.needs_output:
        work.quantize_for_all(placement.fused_output(node, work.style))
    drop_if_unused(old)
    return None


def _lookup(node: ir.Node, work: Workspace) -> str | None:
    quantize_table(node, work)
    return None


def _can_join(node: ir.Node, work: Workspace, target: Target) -> bool:
    return all(work.integer_source(v) is not None or work.pair_of(v) is not None for v in node.inputs)


def _join(node: ir.Node, work: Workspace) -> str | None:
    for index, value in enumerate(node.inputs):
        assert value is not None
        pair = work.pair_of(value) or work.quantize(value)
        assert pair is not None
        node.replace_input_with(index, pair.dequantized)
    work.quantize_for_all(placement.fused_output(node, work.style))
    return None


def _skip_branch(node: ir.Node, work: Workspace) -> int | None:
    """Which input of an Add is a skip branch that integer operators read too, the other being made by one; or None."""
    made = [_made_by_integer_operator(value, work) for value in node.inputs]
    paired = [
        value is not None and not work.made_by_pair(value) and work.pair_of(value) is not None for value in node.inputs
    ]
    for index in (0, 1):
        if len(node.inputs) == 2 and paired[index] and made[1 - index]:
            return index
    return None


def _made_by_integer_operator(value: ir.Value | None, work: Workspace) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type in work.style.weighted and work.made_by_pair(producer.inputs[0])


def _quantize_skip_branch(node: ir.Node, work: Workspace) -> str | None:
    index = _skip_branch(node, work)
    if index is None:
        return "its skip branch is not quantized"
    pair = work.pair_of(node.inputs[index])
    assert pair is not None
    node.replace_input_with(index, pair.dequantized)
    return None
