"""Weight-only quantization in blocks: weights of MatMul and Gemm as 2 to 8 bit integers with a scale per block, arithmetic in float.

    y = MatMul(x, W)            =>   y = MatMul(x, DequantizeLinear<axis=0, block_size=32>(W_q int4 [K, N], scales [K / 32, N]))
    y = Gemm<transB=1>(x, W, b) =>   y = Gemm(x, DequantizeLinear<axis=0, block_size=32>(W_q, scales), b)

ONNX Runtime makes one MatMulNBits of both, see `block_storage`. That kernel rounds activations to int8 unless the session option
`session.qdq_matmulnbits_accuracy_level` is set to 1; the graph itself says float.

With data, the scales are chosen and the weights rounded so that the outputs of the layer change little: GPTQ, arXiv:2210.17323, with the
scale of every block chosen when its turn comes. `bits` 2, 3, 5, 6 and 7 have no storage type of their own at opset 21: their levels are
stored in the next larger one, so that the file shows the accuracy and not the size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irc.decisions import Decision
from irc.errors import UsageError
from irc.ir import snapshot
from irc.pass_base import Context, Contract, Pass, Remark, Site, Skip, node_id
from irc.passes.quantization import existing, float_reference, placement
from irc.passes.quantization.block_format import BlockFormat, BlockWeight, rounded
from irc.passes.quantization.block_rounding import decide
from irc.passes.quantization.block_storage import store
from irc.passes.quantization.layer_grams import LayerGrams, Wanted
from irc.passes.quantization.local_error import errors_in_context
from irc.passes.quantization.weights import Array
from irc.passes.simplification.raise_opset_to_21 import MIN_IR_VERSION, RaiseOpsetTo21
from irc.target import is_dequantized

MIN_OPSET = 21
"""The first with `block_size` and 4-bit types that DequantizeLinear takes."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
    """What is known of one site.

    Attributes:
        weight: Its weight.
        transposed: Whether the constant is `[N, K]`.
        gram: The gram it wants; None where nothing can be observed.
        walk: What the sites of one walk share.
    """

    weight: placement.Weight
    transposed: bool
    gram: Wanted | None
    walk: _Walk


class _Walk:
    """What the sites of one walk over a model share.

    Args:
        model: The model, before anything is rewritten.
    """

    def __init__(self, model: ir.Model, ctx: Context) -> None:
        found = float_reference.reference(model)
        self.model = model
        self._float_model = found.model if found is not None else snapshot(model)
        self._ctx = ctx
        self._grams: LayerGrams | None = None
        self.wanted: list[Wanted] = []
        self.merging = ctx.target is None or ctx.target.quantization.sums_become_bias

    def grams(self, wanted: Wanted) -> tuple[Array, Array | None] | None:
        """The grams of one input over two halves of the samples."""
        if self._grams is None:
            self._grams = LayerGrams(self._float_model, self.wanted, self._ctx)
        return self._grams.take(wanted)


@dataclasses.dataclass(frozen=True)
class QuantizeWeightsInBlocks(Pass):
    """Stores weights of MatMul and Gemm as integers of 2 to 8 bits with a scale per block; computes in float.

    Attributes:
        bits: 2 to 8; 4 and 8 have a storage type, the others show accuracy only.
        block_size: Inputs that share a scale; a power of two from 16 to 256 for the runtime's kernel.
        symmetric: No zero points; otherwise one per block.
        rounding: "nearest", "compensated" (needs data), or "auto": compensated with data where it lowers the output error of the layer
            on samples that were held out.
        scales: "searched" for the least error, or "largest": those that just hold the largest magnitude, with `rounding=nearest`.
        min_elements: Smaller weights stay float.
    """

    name: ClassVar[str] = "quantize-weights-in-blocks"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("opset-21", "shapes-known")

    bits: int = 4
    block_size: int = 32
    symmetric: bool = True
    rounding: Literal["auto", "nearest", "compensated"] = "auto"
    scales: Literal["searched", "largest"] = "searched"
    min_elements: int = 1024

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits={self.bits}: give 2 to 8")
        if self.block_size < 2:
            raise ValueError(
                f"block_size={self.block_size}: give at least 2; the runtime's kernel takes 16, 32, 64, 128 and 256"
            )
        if self.scales == "largest" and self.rounding != "nearest":
            raise ValueError("scales=largest goes with rounding=nearest")

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields MatMul and Gemm with a large constant float matrix, in bodies too.

        Raises:
            UsageError: If compensation is asked for and there is no data.
        """
        if (reason := existing.why_left_alone(model)) is not None:
            yield Skip(None, reason)
            return
        if self.rounding == "compensated" and not _has_data(ctx) and not ctx.decisions.replaying:
            raise UsageError(f"{self.name}{{rounding=compensated}} decides on samples; give --data")
        walk = _Walk(model, ctx)
        planned = [
            (node, self._plan(node, model, walk))
            for node in model.graph.all_nodes()
            if node.op_type in ("MatMul", "Gemm") and node.domain == "" and not placement.is_product(node)
        ]
        walk.wanted += [
            plan.gram
            for node, plan in planned
            if isinstance(plan, _Plan) and plan.gram is not None and self._key(node_id(node)) not in ctx.decisions
        ]
        for node, plan in planned:
            yield plan if isinstance(plan, Skip) else Site(node, plan)

    def rewrite(self, site: Site, ctx: Context) -> Skip | Remark | None:
        """Puts the dequantized blocks in place of the weight."""
        node, plan = site.node, site.match
        assert node is not None and isinstance(plan, _Plan)
        array = np.asarray(plan.weight.tensor.numpy(), np.float32)
        matrix = np.ascontiguousarray(array if plan.transposed else array.T)
        alpha = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
        matrix = matrix if alpha == 1.0 else matrix * np.float32(alpha)
        stored, remark = self._stored(matrix, self._key(site.id), plan, ctx)
        store(node, plan.weight.origin, stored, merging=plan.walk.merging)
        plan.walk.model.ir_version = max(plan.walk.model.ir_version or 0, MIN_IR_VERSION)
        return Remark(self._described() + remark)

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """Relative error energy of each site's output with its own weight stored, in one sweep."""
        if before.graph.opset_imports.get("", MIN_OPSET) < MIN_OPSET:
            # What raised the opset may have run behind the model that the guard compares with.
            before = snapshot(before)
            RaiseOpsetTo21().apply(before, ctx)
        return errors_in_context(before, after, sites, ctx)

    # -- where ------------------------------------------------------------------------------------------------------

    def _plan(self, node: ir.Node, model: ir.Model, walk: _Walk) -> _Plan | Skip:
        if model.graph.opset_imports.get("", MIN_OPSET) < MIN_OPSET:
            return Skip(node, f"opset {model.graph.opset_imports['']} has no blocks; run raise-opset-to-21 first")
        if is_dequantized(node.inputs[1]):
            return Skip(node, "it is already quantized")
        if is_dequantized(node.inputs[0]):
            return Skip(node, "its input is already quantized")
        weight = placement.weight_of(node)
        if weight is None:
            return Skip(node, "its weight is not constant")
        if weight.tensor.dtype != ir.DataType.FLOAT:
            return Skip(node, f"its weight is {weight.tensor.dtype.name}; storage in blocks starts from FLOAT")
        if len(weight.tensor.shape) != 2:
            return Skip(node, "its weight is not a matrix")
        if weight.tensor.size < self.min_elements:
            return Skip(node, f"its weight has fewer than {self.min_elements} elements")
        if node.op_type == "Gemm" and node.attributes.get_int("transA", False):
            return Skip(node, "its input is transposed")
        if any(use.node.op_type == "Gather" for use in weight.origin.uses()):
            return Skip(
                node, "its weight is a table that is looked up too, so that a copy in blocks would add to the file"
            )
        if (reason := placement.why_not_stored(weight.origin, readers=("MatMul", "Gemm"))) is not None:
            return Skip(node, reason)
        grid = BlockFormat(self.bits, self.block_size, self.symmetric)
        readers = _readers(weight.origin)
        if readers * grid.bits_per_weight > 32:
            return Skip(node, f"its weight has {readers} readers, each of which needs a copy in blocks of its own")
        transposed = (weight.axis % 2) == 0
        columns = weight.tensor.shape.numpy()[1 if transposed else 0]
        source = node.inputs[0]
        observable = source is not None and source.name and node.graph is model.graph and source.graph is model.graph
        gram = Wanted(source.name, columns) if observable and source is not None and source.name else None
        return _Plan(weight, transposed, gram, walk)

    # -- what -------------------------------------------------------------------------------------------------------

    def _format(self, ctx: Context) -> BlockFormat:
        # A runtime with symmetric activations wants plain positive scales.
        free = ctx.target is None or getattr(ctx.target.quantization, "activation", "") == "uint8"
        return BlockFormat(self.bits, self.block_size, self.symmetric, free)

    def _key(self, site: str) -> str:
        kind = "symmetric" if self.symmetric else "asymmetric"
        return f"{self.name}/{site}#{self.bits},{self.block_size},{kind},{self.rounding},{self.scales}"

    def _described(self) -> str:
        text = f"{self.bits} bits in blocks of {self.block_size}"
        grid = BlockFormat(self.bits, self.block_size, self.symmetric)
        return text + (f", simulated: stored as {grid.dtype.name}" if grid.is_simulated else "")

    def _stored(self, matrix: Array, key: str, plan: _Plan, ctx: Context) -> tuple[BlockWeight, str]:
        """The rounded weight `[N, K]`, and what there is to say of it."""
        grid = self._format(ctx)
        if key not in ctx.decisions and (ctx.decisions.replaying or not _has_data(ctx) or self.scales == "largest"):
            found = rounded(matrix, grid, search=self.scales == "searched")
            return found, f"; {self.scales} scales, rounded to the nearest"
        decision = ctx.decisions.remember(key, lambda: self._decision(matrix, grid, plan))
        return _from_decision(matrix, grid, decision), _told(decision)

    def _decision(self, matrix: Array, grid: BlockFormat, plan: _Plan) -> Decision:
        grams = plan.walk.grams(plan.gram) if plan.gram is not None else None
        if grams is None:
            return _decision("nearest", "its input cannot be observed", matrix, rounded(matrix, grid))
        fit, held = grams
        if self.rounding == "nearest":
            both = fit if held is None else fit + held
            return _decision("nearest", "", matrix, rounded(matrix, grid, np.diagonal(both)))
        found = decide(matrix, fit, held, grid, always=self.rounding == "compensated")
        why = "nothing to hold out" if found.nearest_error is None else ""
        errors = {"nearest_error": found.nearest_error, "compensated_error": found.compensated_error}
        known = {name: error for name, error in errors.items() if error is not None}
        return {**_decision(found.method, why, matrix, found.weight), **known}


def _readers(origin: ir.Value) -> int:
    """How many products read a constant, through transposes or not."""
    users = [use.node for use in origin.uses()]
    return sum(len(node.outputs[0].uses()) if node.op_type == "Transpose" else 1 for node in users)


def _has_data(ctx: Context) -> bool:
    return ctx.data is not None and ctx.runner is not None


def _decision(method: str, why: str, matrix: Array, weight: BlockWeight) -> Decision:
    """A rounded weight as its scales and its difference from rounding to the nearest, which is mostly zeros."""
    plain = BlockWeight.of(matrix, weight.format, weight.scales, weight.zero_points.astype(np.float32))
    steps = weight.levels.astype(np.int16) - plain.levels
    return {
        "rounding": method,
        "why": why,
        "scales": weight.scales,
        "zero_points": weight.zero_points if not weight.format.symmetric else np.zeros(0, np.uint8),
        # Without compensation there is nothing to say; with it a step may be large, but its remainder fits eight bits.
        "steps": steps.astype(np.int8) if steps.any() else np.zeros(0, np.int8),
    }


def _from_decision(matrix: Array, grid: BlockFormat, decision: Decision) -> BlockWeight:
    scales, zeros, steps = (np.asarray(decision[name]) for name in ("scales", "zero_points", "steps"))
    wide = zeros.astype(np.float32) if zeros.size else np.zeros_like(scales)
    plain = BlockWeight.of(matrix, grid, scales, wide)
    if not steps.size:
        return plain
    levels = (plain.levels.astype(np.int16) + steps).astype(plain.levels.dtype)
    return dataclasses.replace(plain, levels=levels)


def _told(decision: Decision) -> str:
    text = f"; {decision['rounding']}" + (f", {decision['why']}" if decision["why"] else "")
    before, after = decision.get("nearest_error"), decision.get("compensated_error")
    if before is None or after is None:
        return text
    verb = (
        "output error on held-out samples" if decision["rounding"] == "compensated" else "compensation would not help:"
    )
    return f"{text}; {verb} {before:.3%} -> {after:.3%}"
