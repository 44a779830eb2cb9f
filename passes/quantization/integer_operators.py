"""How one operator becomes integer: weighted operators, lookups, products of activations, and what joins them.

Each function rewrites one node, or says why it cannot. What they share lives in the `Workspace` of the run.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from irc.pass_base import node_id
from irc.passes.quantization import placement, quantize_dynamic, quantize_weights
from irc.passes.quantization.float_reference import IntegerSite, Recording
from irc.passes.quantization.gemm import integer_bias, keep_sum_apart
from irc.passes.quantization.table import quantize_table
from irc.passes.quantization.workspace import Workspace, drop_if_unused, graph_of
from irc.target import Target

Rewrite = Callable[[ir.Node, Workspace], str | None]
"""Rewrites a node; returns why not, having changed nothing, or None."""
DYNAMIC, WEIGHT_ONLY, FLOAT16 = "dynamic", "weight-only", "float16"
"""Variants of a site besides the calibrators: ranges taken at run time, weights stored as int8 or float16 alone."""


def make_weighted(node: ir.Node, work: Workspace, *, recording: Recording) -> str | None:
    """Makes an operator with a weight integer, and remembers what its integers stand for."""
    site, source = node_id(node), node.inputs[0]
    weight = placement.weight_of(node)
    assert source is not None and weight is not None
    pair = work.quantize(source)
    if pair is None:
        return f"{source.name!r} has no calibrated range"
    keep_sum_apart(node, work)
    work.read_as_integers(node, 0, pair)
    old = node.inputs[1]
    float_weight = weight.tensor
    zero_point = node.op_type in work.style.weight_zero_points or weight.transposed
    dequantized = work.dequantized(
        weight.origin, weight.axis, graph_of(node), transposed=weight.transposed, zero_point=zero_point
    )
    node.replace_input_with(1, dequantized)
    stored = work.store(weight.origin, weight.axis)
    recording.add(
        IntegerSite(
            id=site,
            node=node.name or "",
            activation=recording.activation(node),
            scale=pair.scale.name or "",
            zero_point=pair.zero_point.name or "",
            weight=float_weight,
            axis=weight.axis,
            stored=stored.quantized.name or "",
            scales=stored.scales.name or "",
        )
    )
    if node.op_type == "Gemm" and work.style.gemm_bias == "int32":
        integer_bias(node, pair.step * stored.numbers, work)
    if node.op_type in work.style.needs_output:
        work.quantize_for_all(placement.fused_output(node, work.style))
    drop_if_unused(old)
    return None


def _lookup(node: ir.Node, work: Workspace) -> str | None:
    quantize_table(node, work)
    return None


def can_join(node: ir.Node, work: Workspace, target: Target) -> bool:
    """Whether all inputs of an operator are integers by now."""
    return all(work.integer_source(v) is not None or work.pair_of(v) is not None for v in node.inputs)


def _product(node: ir.Node, work: Workspace) -> str | None:
    for index, value in enumerate(node.inputs):
        pair = work.quantize(value) if value is not None else None
        assert pair is not None
        work.read_as_integers(node, index, pair)
    return None


def join(node: ir.Node, work: Workspace) -> str | None:
    """Makes an operator without weights integer."""
    for index, value in enumerate(node.inputs):
        assert value is not None
        pair = work.pair_of(value) or work.quantize(value)
        assert pair is not None
        work.read_as_integers(node, index, pair)
    work.quantize_for_all(placement.fused_output(node, work.style))
    return None


def skip_branch(node: ir.Node, work: Workspace) -> int | None:
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


def quantize_skip_branch(node: ir.Node, work: Workspace) -> str | None:
    """Quantizes the skip branch of an Add."""
    index = skip_branch(node, work)
    if index is None:
        return "its skip branch is not quantized"
    pair = work.pair_of(node.inputs[index])
    assert pair is not None
    work.read_as_integers(node, index, pair)
    return None


def _dynamic(node: ir.Node, work: Workspace) -> str | None:
    quantize_dynamic.make_dynamic(node, work)
    return None


def _stored(node: ir.Node, work: Workspace) -> str | None:
    quantize_weights.store(node, quantize_weights.operands(node), work, folded=work.style.weights_fold)
    return None


def _half(node: ir.Node, work: Workspace) -> str | None:
    weight = placement.weight_of(node)
    assert weight is not None
    return quantize_weights.store_half(node, weight, work)


REWRITES: dict[str, Rewrite] = {
    DYNAMIC: _dynamic,
    WEIGHT_ONLY: _stored,
    FLOAT16: _half,
    "table": _lookup,
    "product": _product,
}
