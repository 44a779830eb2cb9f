"""How much each quantized site distorts its own output, all sites in one sweep over the data.

Beside each float site, a branch computes it from the float model's values with the site's own quantizers and int8
weights; the energy of the difference is reduced inside the runtime. The error of a site does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from irc.calibration import DataSource, compare_values
from irc.errors import UsageError
from irc.ir import snapshot, unique_name
from irc.pass_base import Context
from irc.runner import Runner


def local_errors(
    runner: Runner,
    before: ir.Model,
    after: ir.Model,
    sites: Sequence[str],
    source: DataSource,
    *,
    progress: Callable[[float, str], None] = lambda fraction, what: None,
) -> dict[str, float]:
    """Relative error energy `sum((y - y_q)^2) / sum(y^2)` of each site's output.

    Args:
        runner: Where the model runs.
        before: The float model.
        after: The same model with the sites quantized; float values keep their names.
        sites: Ids of quantized sites.
        source: All samples are used.
        progress: Told the share of samples done.

    Returns:
        One number per site that could be compared.
    """
    merged = _Merged(before, after)
    pairs: dict[str, tuple[str, str]] = {}
    for site in sites:
        pair = merged.branch(site)
        if pair is not None:
            pairs[site] = pair
    energies = compare_values(runner, merged.model, source, list(pairs.values()), progress=progress)
    errors = {}
    for site, pair in pairs.items():
        signal, error = energies.get(pair, (0.0, 0.0))
        errors[site] = error / signal if signal > 0 else float(error > 0)
    return errors


def errors_in_context(before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context) -> dict[str, float] | None:
    """The local errors by what a pass is given; None without data, or anything to run it in."""
    if ctx.runner is None or ctx.data is None:
        return None
    return local_errors(ctx.runner, before, after, sites, ctx.data, progress=ctx.progress)


class _Merged:
    """The float model with a quantized branch beside every site."""

    def __init__(self, before: ir.Model, after: ir.Model) -> None:
        self.model = snapshot(before)
        self._floats = ir.convenience.create_value_mapping(self.model.graph)
        self._after = ir.convenience.create_value_mapping(after.graph)
        self._constants: dict[tuple[ir.Graph, ir.Value], ir.Value] = {}

    def branch(self, site: str) -> tuple[str, str] | None:
        """Adds the branch of a site; returns the names of the float value and its quantized twin."""
        end = self._after.get(site)
        if end is None or site not in self._floats:
            return None
        name, top = site, end
        users = [use.node for use in end.uses()]
        if len(users) == 1 and users[0].op_type in ("Relu", "Clip") and not end.is_graph_output():
            top = users[0].outputs[0]
            name = top.name or site
        top = _dequantized_behind(top) or top
        if name not in self._floats:
            return None
        where = self._floats[name].graph
        if not isinstance(where, ir.Graph):
            return None
        copy = self._copy(top, where, {site, name}, {})
        copy.type = copy.type or ir.TensorType(ir.DataType.FLOAT)
        return (name, copy.name or "") if copy is not self._floats[name] else None

    def _copy(self, value: ir.Value, where: ir.Graph, inside: set[str], branch: dict[ir.Value, ir.Value]) -> ir.Value:
        """The twin of a value of the quantized model: a float value of the same name, or a copy of what computes it.

        Only what is computed from constants is shared between branches: the quantizer behind one site, seen from the
        next, starts from the float value. A copy is in the graph or body of the site, also of what was outside of it.
        """
        known = self._constants.get((where, value)) or branch.get(value)
        if known is not None:
            return known
        name = value.name or ""
        if name in self._floats and (value.is_graph_input() or name not in inside):
            return self._floats[name]
        producer = value.producer()
        if producer is None:
            copy = self._constants[where, value] = self._initializer(value)
            return copy
        inputs = [None if v is None else self._copy(v, where, inside, branch) for v in producer.inputs]
        node = ir.Node(
            producer.domain,
            producer.op_type,
            inputs,
            list(producer.attributes.values()),
            num_outputs=len(producer.outputs),
        )
        where.append(node)
        for twin, original in zip(node.outputs, producer.outputs, strict=True):
            twin.name = unique_name(self.model.graph, "twin")
            twin.type = original.type
        copy = node.outputs[producer.outputs.index(value)]
        if all(v is None or (where, v) in self._constants for v in producer.inputs):
            self._constants[where, value] = copy
        else:
            branch[value] = copy
        return copy

    def _initializer(self, value: ir.Value) -> ir.Value:
        if value.const_value is None:
            raise UsageError(f"local error: {value.name!r} of the quantized model has no value")
        name = unique_name(self.model.graph, "twin")
        copy = ir.Value(name=name, type=value.type, shape=value.shape, const_value=value.const_value)
        self.model.graph.register_initializer(copy)
        return copy


def _dequantized_behind(value: ir.Value) -> ir.Value | None:
    """The dequantized twin of a value that is quantized for all its users; a pair beside float users is another's."""
    uses = list(value.uses())
    if len(uses) != 1 or uses[0].node.op_type != "QuantizeLinear" or value.is_graph_output():
        return None
    for inner in uses[0].node.outputs[0].uses():
        if inner.node.op_type == "DequantizeLinear" and inner.node.graph is uses[0].node.graph:
            return inner.node.outputs[0]
    return None
