"""Weight-only int8: weights stored as int8, arithmetic in float; needs no data.

    y = MatMul(x, W)   =>   y = MatMul(x, Cast(W_q) * W_s)               (form "folded")
                            y = MatMul(x, DequantizeLinear(W_q, W_s))     (form "dequantized")

The file shrinks nearly fourfold. In the folded form ONNX Runtime multiplies once, when it loads the model, and then
runs at float speed with float memory; behind DequantizeLinear it keeps int8 weights in memory and chooses kernels of
its own: measured, MatMul 0.9 to 1.5 times the float speed, Conv 0.55 times, LSTM and GRU 0.35 to 0.8 times.

LSTM, GRU and RNN gain size only, whatever the target: their kernels are float, and coverage says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, constant_tensor
from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.quantization import existing, offers, placement
from irc.passes.quantization.local_error import errors_in_context
from irc.passes.quantization.table import quantize_table
from irc.passes.quantization.workspace import Workspace, drop_if_unused, home_of
from irc.target import QuantizationStyle, is_dequantized

HALF_LIMIT = 65504.0
OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul", *placement.RECURRENT)
Operand = tuple[int, placement.Weight]
"""An input of an operator, and the weight there."""


@dataclasses.dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Stores weights of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU, RNN and embedding tables as int8; computes in float.

    Attributes:
        form: "folded", "dequantized", or "auto": folded where the target folds constants when it loads a model.
        min_elements: Smaller weights stay float.
        rest: Only what no earlier pass of the pipeline could quantize. What one could and did not, since the accuracy
            guard or a selection left it in float, stays so; and nothing is stored that would cost time.
    """

    name: ClassVar[str] = "quantize-weights"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("opset-13", "shapes-known")

    form: Literal["auto", "folded", "dequantized"] = "auto"
    min_elements: int = 1024
    rest: bool = False

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields operators with a large constant float weight, and table lookups, in bodies too."""
        if (reason := existing.why_left_alone(model)) is not None:
            yield Skip(None, reason)
            return
        style = ctx.target.quantization if ctx.target is not None else QuantizationStyle("uint8")
        # No products of two integers here, so nothing can saturate and all eight bits are free.
        work = Workspace(model.graph, dataclasses.replace(style, weight_limit=127))
        folded = self.form == "folded" or (self.form == "auto" and style.weights_fold)
        decided = offers.offered(model) if self.rest else frozenset()
        planned = [(node, self._plan(node, model.graph)) for node in model.graph.all_nodes() if node.domain == ""]
        for node, plan in planned:
            if plan is None:
                continue
            if isinstance(plan, Skip):
                yield plan
            elif node_id(node) in decided:
                yield Skip(node, "an earlier pass could quantize it and it was left in float")
            elif self.rest and not folded:
                yield Skip(node, "the target does not fold constants at load, so that int8 storage would cost time")
            else:
                yield Site(node, (work, folded, plan))

    def _plan(self, node: ir.Node, main: ir.Graph) -> list[Operand] | Skip | None:
        """The weights to store, none for a table; why not; or None where there is nothing to consider."""
        if placement.is_table_lookup(node):
            reason = placement.why_not_table(node, main)
            return Skip(node, reason) if reason else []
        if node.op_type not in OPERATORS or placement.is_product(node):
            return None
        found = operands(node)
        if any(is_dequantized(node.inputs[index]) for index in weight_inputs(node)):
            # Of the rest nobody wants to hear what the pass before has done already.
            return None if self.rest else Skip(node, "it is already quantized")
        if not found:
            return Skip(node, "its weight is not constant")
        reasons = {index: self._why_not(node, weight) for index, weight in found}
        stored = [(index, weight) for index, weight in found if reasons[index] is None]
        return stored or Skip(node, next(iter(reasons.values())) or "")

    def _why_not(self, node: ir.Node, weight: placement.Weight) -> str | None:
        if weight.tensor.dtype != ir.DataType.FLOAT:
            return f"its weight is {weight.tensor.dtype.name}; int8 storage starts from FLOAT"
        if len(weight.tensor.shape) < 2:
            return "its weight is a vector"
        if weight.tensor.size < self.min_elements:
            return f"its weight has fewer than {self.min_elements} elements"
        if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
            return "grouped transposed convolutions have no single channel axis"
        return placement.why_not_stored(weight.origin, readers=OPERATORS)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts the int8 weights, brought back to float in the graph, in place of the weights."""
        node = site.node
        assert node is not None
        work, folded, weights = site.match
        if node.op_type == "Gather":
            quantize_table(node, work)
            return None
        store(node, weights, work, folded=folded)
        return None

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """Relative error energy of each site's output with its own weights stored, in one sweep."""
        return errors_in_context(before, after, sites, ctx)


def store(node: ir.Node, weights: Sequence[Operand], work: Workspace, *, folded: bool) -> None:
    """Puts int8 weights, brought back to float, in place of an operator's weights.

    Args:
        node: The operator.
        weights: Which.
        work: Of this run.
        folded: Whether by operators that a runtime computes when it loads the model, or by DequantizeLinear.
    """
    for index, weight in weights:
        old = node.inputs[index]
        node.replace_input_with(index, _folded(weight, work) if folded else _dequantized(weight, work))
        drop_if_unused(old)


def store_half(node: ir.Node, weight: placement.Weight, work: Workspace) -> str | None:
    """Puts a float16 weight, cast to float, in place of an operator's weight; returns why not, or None.

    A runtime that folds constants casts once, when it loads the model.
    """
    array = constant(weight.origin)
    assert array is not None
    largest = float(np.max(np.abs(array), initial=0.0))
    if not largest <= HALF_LIMIT:
        return f"its weight reaches {largest:.3g}, and float16 holds {HALF_LIMIT:g}"

    def build() -> list[ir.Node]:
        half = add_initializer(home_of(weight.origin), "h", array.astype(np.float16))
        nodes = [ir.node("Cast", [half], {"to": ir.DataType.FLOAT.value}, name="")]
        if weight.transposed:
            nodes.append(ir.node("Transpose", [nodes[0].outputs[0]], {"perm": [1, 0]}, name=""))
        return nodes

    old = node.inputs[1]
    node.replace_input_with(1, work.once(("half", weight.origin, weight.transposed), home_of(weight.origin), build))
    drop_if_unused(old)
    return None


def weight_inputs(node: ir.Node) -> tuple[int, ...]:
    """Which inputs of an operator are weights that it has."""
    inputs = placement.stored_inputs(node)
    return tuple(index for index in inputs if index < len(node.inputs) and node.inputs[index] is not None)


def operands(node: ir.Node) -> list[Operand]:
    """The constant weights of an operator, by input."""
    if node.op_type not in placement.RECURRENT:
        weight = placement.weight_of(node)
        return [(1, weight)] if weight is not None else []
    found = []
    for index in weight_inputs(node):
        value = node.inputs[index]
        if value is not None and constant_tensor(value) is not None:
            found.append((index, placement.Weight(value, False, 1)))
    return found


def _dequantized(weight: placement.Weight, work: Workspace) -> ir.Value:
    graph = home_of(weight.origin)
    return work.dequantized(weight.origin, weight.axis, graph, transposed=weight.transposed, zero_point=False)


def _folded(weight: placement.Weight, work: Workspace) -> ir.Value:
    def build() -> list[ir.Node]:
        stored = work.store(weight.origin, weight.axis)
        rank = len(weight.tensor.shape)
        scales = stored.scales
        if weight.axis != rank - 1:
            shape = [1] * rank
            shape[weight.axis] = -1
            scales = work.constant(stored.numbers.reshape(shape), "s")
        cast = ir.node("Cast", [stored.quantized], {"to": ir.DataType.FLOAT.value}, name="")
        product = ir.node("Mul", [cast.outputs[0], scales], name="")
        nodes = [cast, product]
        if weight.transposed:
            nodes.append(ir.node("Transpose", [product.outputs[0]], {"perm": [1, 0]}, name=""))
        return nodes

    # Beside the weight: outside of a body it was captured by, once however often the body runs.
    return work.once(("folded", weight.origin, weight.axis, weight.transposed), home_of(weight.origin), build)
