"""Weight-only int8: weights stored as int8, arithmetic in float; needs no data.

    y = MatMul(x, W)   =>   y = MatMul(x, Cast(W_q) * W_s)               (form "folded")
                            y = MatMul(x, DequantizeLinear(W_q, W_s))     (form "dequantized")

The file shrinks nearly fourfold. In the folded form ONNX Runtime multiplies once, when it loads the model, and then
runs at float speed with float memory; behind DequantizeLinear it keeps int8 weights in memory and chooses kernels of
its own: measured, MatMul 0.9 to 1.5 times the float speed, Conv 0.55 times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

import onnx_ir as ir

from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.quantization import placement
from irc.passes.quantization.table import quantize_table
from irc.passes.quantization.workspace import Workspace, drop_if_unused
from irc.target import QuantizationStyle, is_dequantized

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclasses.dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Stores the weights of Conv, ConvTranspose, Gemm, MatMul and embedding tables as int8; computes in float.

    Attributes:
        form: "folded", "dequantized", or "auto": folded where the target folds constants when it loads a model.
        min_elements: Smaller weights stay float.
    """

    name: ClassVar[str] = "quantize-weights"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("opset-13", "shapes-known")

    form: Literal["auto", "folded", "dequantized"] = "auto"
    min_elements: int = 1024

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields operators with a large constant float weight, and table lookups."""
        main = model.graph
        style = ctx.target.quantization if ctx.target is not None else QuantizationStyle("uint8")
        # No products of two integers here, so nothing can saturate and all eight bits are free.
        work = Workspace(main, dataclasses.replace(style, weight_limit=127))
        folded = self.form == "folded" or (self.form == "auto" and style.weights_fold)
        planned = [(node, self._plan(node, main)) for node in main.all_nodes() if node.domain == ""]
        for node, plan in planned:
            if isinstance(plan, Skip):
                yield plan
            elif plan:
                yield Site(node, (work, folded))

    def _plan(self, node: ir.Node, main: ir.Graph) -> Skip | bool:
        if placement.is_table_lookup(node):
            reason = placement.why_not_table(node, main)
        elif node.op_type in OPERATORS and not placement.is_product(node):
            reason = self._why_not(node, main)
        else:
            return False
        return Skip(node, reason) if reason else True

    def _why_not(self, node: ir.Node, main: ir.Graph) -> str | None:
        if node.graph is not main:
            return "it is in the body of an If, Loop or Scan"
        if is_dequantized(node.inputs[1]):
            return "it is already quantized"
        weight = placement.weight_of(node)
        if weight is None:
            return "its weight is not constant"
        if weight.tensor.dtype != ir.DataType.FLOAT:
            return f"its weight is {weight.tensor.dtype.name}; int8 storage starts from FLOAT"
        if len(weight.tensor.shape) < 2:
            return "its weight is a vector"
        if weight.tensor.size < self.min_elements:
            return f"its weight has fewer than {self.min_elements} elements"
        if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
            return "grouped transposed convolutions have no single channel axis"
        return placement.why_not_stored(weight.origin, main, readers=OPERATORS)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts the int8 weight, brought back to float in the graph, in place of the weight."""
        node = site.node
        assert node is not None
        work, folded = site.match
        if node.op_type == "Gather":
            quantize_table(node, work)
            return None
        weight = placement.weight_of(node)
        assert weight is not None
        old = node.inputs[1]
        node.replace_input_with(1, _folded(weight, work) if folded else _dequantized(weight, work))
        drop_if_unused(old)
        return None


def _dequantized(weight: placement.Weight, work: Workspace) -> ir.Value:
    return work.dequantized(weight.origin, weight.axis, transposed=weight.transposed, zero_point=False)


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

    return work.once(("folded", weight.origin, weight.axis, weight.transposed), build)
