"""How much each operator distorts its own output when it alone computes in a narrow type, all in one sweep.

Beside each float32 operator a copy computes from the same values, rounded, and its result is rounded:

    y_narrow = round(op(round(x), round(W))),   round(v) = Cast<float>(Cast<float16>(v))

in float32 in between, so that the runtime need not have the type; it keeps Casts of the model's own, but drops those
around its own conversions, and with them the rounding. The error of a site does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irc.calibration import compare_values
from irc.errors import DataError
from irc.ir import add_initializer, constant, snapshot, unique_name
from irc.pass_base import Context, node_id
from irc.passes.precision.carriers import CARRIERS
from irc.passes.precision.number_format import NumberFormat
from irc.passes.precision.retyping import Retyping, retyping
from irc.passes.precision.value_roles import Roles
from irc.passes.quantization.workspace import home_of, insert_behind


def rounding_errors(
    before: ir.Model, sites: Sequence[str], number: NumberFormat, ctx: Context
) -> dict[str, float] | None:
    """Relative error energy `sum((y - y_narrow)^2) / sum(y^2)` of each operator's first output.

    Args:
        before: The float32 model.
        sites: Ids of operators; those in bodies, and those whose values mask scores, are left out.
        number: The narrow format.
        ctx: Data and runner.

    Returns:
        One number per operator that could be compared; None without data, or where values are not finite.
    """
    if ctx.runner is None or ctx.data is None:
        return None
    model, wanted = snapshot(before), set(sites)
    roles, rounding = Roles(model.graph), _Rounding(number)
    opset = model.graph.opset_imports.get("", 0)
    pairs: dict[str, tuple[str, str]] = {}
    for node in list(model.graph):
        site = node_id(node)
        if site not in wanted or node.op_type in CARRIERS or any(map(roles.is_score, node.outputs)):
            continue
        change = retyping(node, opset, number)
        if isinstance(change, Retyping) and 0 in change.outputs:
            pairs[site] = (site, rounding.twin(node, change).name or "")
    try:
        energies = compare_values(ctx.runner, model, ctx.data, list(pairs.values()), progress=ctx.progress)
    except DataError:
        return None
    return {
        site: error / signal if signal > 0 else float(error > 0)
        for site, pair in pairs.items()
        for signal, error in [energies.get(pair, (0.0, 0.0))]
    }


class _Rounding:
    """Rounded copies of values, each made once."""

    def __init__(self, number: NumberFormat) -> None:
        self._number = number
        self._rounded: dict[ir.Value, ir.Value] = {}

    def twin(self, node: ir.Node, change: Retyping) -> ir.Value:
        """Adds the copy of an operator behind it; returns its rounded first output."""
        inputs = list(node.inputs)
        for index in change.inputs:
            value = inputs[index]
            assert value is not None
            inputs[index] = self._round(value)
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs))
        for made, original in zip(copy.outputs, node.outputs, strict=True):
            made.name = unique_name(graph, f"{original.name}_twin")
            made.type, made.shape = original.type, original.shape
        graph.insert_after(node, copy)
        return self._round(copy.outputs[0])

    def _round(self, value: ir.Value) -> ir.Value:
        if value not in self._rounded:
            array = constant(value)
            if array is not None:
                narrow = self._number.rounded(array).astype(np.float32)
                self._rounded[value] = add_initializer(home_of(value), f"{value.name}_rounded", narrow)
            else:
                self._rounded[value] = self._cast(self._cast(value, self._number.dtype), ir.DataType.FLOAT)
        return self._rounded[value]

    @staticmethod
    def _cast(value: ir.Value, to: ir.DataType) -> ir.Value:
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", to.value)], num_outputs=1)
        made = node.outputs[0]
        made.name = unique_name(home_of(value), f"{value.name}_rounded")
        made.type, made.shape = ir.TensorType(to), value.shape
        insert_behind(value, node)
        return made
