"""Channel groups in facts: the document behind `irc inspect --channel-groups`, and its JSON.

Every field is always there:

    irc               version of irc
    schema            1; grows when a field changes its meaning or goes away, not when one is added
    model             file name, "" for a model in memory
    mode              "rows" or "columns"
    allowed_outputs   outputs that may get narrower
    dynamic_axes      [{name, size, assumed, inputs: [[input, axis], ...]}]: the sizes that MACs are for
    macs              {total, in_families, at_half, least}: of the model; of nodes that run over a family; of what is left when
                      every family loses half of its atoms, and when it keeps one atom per cell
    parameters        the same of parameters; in_families: of initializers that a family cuts
    bytes             {total, at_half}: bytes of constants
    families          in the order of their first initializers:
        name            name of the first output of the first node that reads one of its initializers
        kind            "channels", "neurons", "gated neurons", "hidden units", "heads", "query/key dimensions",
                        "value dimensions", "convolution groups", "residual stream" or "features"
        module          the PyTorch module of its first operator; "" if unknown
        atoms, cells    what is cut one by one; rows that must stay equally long
        width           atoms per cell: the number that is chosen
        features        coordinates one atom stands for at least: 64 per head
        exact           whether removing an atom that is zero changes nothing
        statistics      [{kind, text}]: what changes for the survivors where removal is not exact
        axes            [{initializer, axis, positions, node}]; positions: coordinates per atom; node: the use of a small
                        initializer that every node has its own copy of, "" otherwise
        initializers    how many it cuts
        macs            MACs of the nodes that run over it
        parameters      parameters of the initializers it cuts
        step            {macs, parameters}: saved by cutting one atom of every cell
        half            {macs, parameters}: saved by cutting half of the atoms of every cell
        made_by, read_by, passed_by    operators by node: that make it, sum over it, work on its atoms one by one
    operators         operators with MACs, and look-ups in weights, in graph order:
        node, operator, label, title, module    id; type; type with kernel and groups; a name to read; PyTorch module
        macs            null if unknown
        inputs, outputs sizes of the index it sums over and of the one it makes; null if unknown
        makes, reads, passes    families by name
        pinned          [{side, initializer, pinned, size, kind, text, group}]; side: "in" or "out"; group: one of
                        pinned_groups, or ""
    pinned            why axes are not cut, most parameters first: [{kind, axes, coordinates, parameters, out_of_reach, trivial,
                      examples}]; parameters: of initializers with such an axis; out_of_reach: of these, those no family cuts;
                      trivial: kernels and the channels of the model's inputs; examples: up to three sentences
    pinned_groups     what several operators share and nothing cuts, as a stream that reaches an output:
                      [{name, size, kind, text, axes}]
    pinned_axes       [{initializer, axes, pinned, size, kind, text, node}]: all of them
    notes             things to know, in words
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from irc.analysis.assumed_sizes import dynamic_axes
from irc.analysis.channels import ChannelGroups, Family, Mode, PinnedAxis, channel_groups
from irc.analysis.channels.allowed_outputs import check_outputs
from irc.analysis.channels.costs import ChannelCosts, half_width
from irc.analysis.channels.operator_names import label, title, widths
from irc.analysis.channels.pinned_report import describe_pins, pinned_axis, pinned_groups
from irc.analysis.channels.roles import Operator, Roles
from irc.pass_base import node_id

SCHEMA = 1


def describe_channels(
    model: ir.Model,
    *,
    path: Path | None = None,
    mode: Mode = "rows",
    sizes: Mapping[str, int] | None = None,
    allow_outputs: Sequence[str] = (),
) -> dict[str, Any]:
    """What may be cut from a model and what it is worth, as JSON-ready values; the module describes each field.

    Args:
        model: A loaded model; unchanged.
        path: Where it was loaded from, for its name.
        mode: "rows" cuts whole heads and groups of a convolution; "columns" the same number of members of every one.
        sizes: Sizes of dynamic dimensions that MACs are for, by symbol or "input:axis"; the rest is assumed.
        allow_outputs: Outputs of the model that may get narrower.

    Raises:
        UsageError: If `sizes` or `allow_outputs` names what the model does not have.
    """
    check_outputs(model, allow_outputs)
    groups = channel_groups(model, mode=mode, sizes=sizes, allow_outputs=allow_outputs)
    return describe_groups(groups, path=path, sizes=sizes, allow_outputs=allow_outputs)


def describe_groups(
    groups: ChannelGroups,
    *,
    path: Path | None = None,
    sizes: Mapping[str, int] | None = None,
    allow_outputs: Sequence[str] = (),
) -> dict[str, Any]:
    """The same for groups that are known already."""
    import irc

    model = groups.propagation.model
    costs, roles = ChannelCosts(groups, sizes=sizes), Roles(groups)
    half = costs.survivors({family: half_width(family) for family in groups.families})
    shared, group_of = pinned_groups(groups, roles)
    least = costs.survivors({family: 1 for family in groups.families})
    return {
        "irc": irc.__version__,
        "schema": SCHEMA,
        "model": path.name if path is not None else "",
        "mode": groups.mode,
        "allowed_outputs": list(allow_outputs),
        "dynamic_axes": [
            {
                "name": name,
                "size": {**costs.sizes.given, **costs.sizes.assumed}.get(name),
                "assumed": name not in costs.sizes.given,
                "inputs": [list(place) for place in places],
            }
            for name, places in dynamic_axes(model).items()
        ],
        "macs": {
            "total": costs.macs(),
            "in_families": costs.cuttable_macs,
            "at_half": costs.macs(half),
            "least": costs.macs(least),
        },
        "parameters": {
            "total": costs.parameters(),
            "in_families": costs.cuttable_parameters,
            "at_half": costs.parameters(half),
            "least": costs.parameters(least),
        },
        "bytes": {"total": costs.bytes(), "at_half": costs.bytes(half)},
        "families": [_family(family, roles, costs) for family in groups.families],
        "operators": _operators(roles, costs, group_of),
        "pinned": describe_pins(groups),
        "pinned_groups": shared,
        "pinned_axes": [pinned_axis(pin) for pin in groups.pinned],
        "notes": list(costs.before.notes),
    }


def _family(family: Family, roles: Roles, costs: ChannelCosts) -> dict[str, Any]:
    role, worth = roles.of(family), costs.of(family)
    first = next(iter((*role.makers, *role.passers, *role.readers)), None)
    return {
        "name": family.name,
        "kind": role.kind,
        "module": first.node.metadata_props.get("irc.module", "") if first is not None else "",
        "atoms": len(family.atoms),
        "cells": family.cell_count,
        "width": family.width,
        "features": role.features,
        "exact": not family.statistics,
        "statistics": [{"kind": reason.kind, "text": reason.text} for reason in family.statistics],
        "axes": [
            {
                "initializer": axis.slot.name,
                "axis": axis.axis,
                "positions": axis.positions,
                "node": node_id(axis.slot.use[0]) if axis.slot.use is not None else "",
            }
            for axis in family.axes
        ],
        "initializers": len({axis.slot.name for axis in family.axes}),
        "macs": worth.macs,
        "parameters": worth.parameters,
        "step": {"macs": worth.step_macs, "parameters": worth.step_parameters},
        "half": {"macs": worth.half_macs, "parameters": worth.half_parameters},
        "made_by": _nodes(role.makers),
        "read_by": _nodes(role.readers),
        "passed_by": _nodes(role.passers),
    }


def _nodes(operators: Sequence[Operator]) -> list[str]:
    return [node_id(operator.node) for operator in operators]


def _operators(roles: Roles, costs: ChannelCosts, group_of: Mapping[PinnedAxis, str]) -> list[dict[str, Any]]:
    macs = {row.node: row.macs for row in costs.before.nodes}
    rows = []
    for operator in roles.operators:
        inputs, outputs = widths(operator.node, costs.shapes)
        rows.append(
            {
                "node": node_id(operator.node),
                "operator": operator.node.op_type,
                "label": label(operator, costs.shapes),
                "title": title(operator),
                "module": operator.node.metadata_props.get("irc.module", ""),
                "macs": macs.get(node_id(operator.node)),
                "inputs": inputs,
                "outputs": outputs,
                "makes": [family.name for family in operator.makes],
                "reads": [family.name for family in operator.reads],
                "passes": [family.name for family in operator.passes],
                "pinned": [
                    {
                        "side": side.side,
                        "initializer": side.axis.slot.name,
                        "pinned": side.axis.pinned,
                        "size": side.axis.size,
                        "kind": side.axis.reason.kind,
                        "text": side.axis.reason.text,
                        "group": group_of.get(side.axis, ""),
                    }
                    for side in operator.pinned
                ],
            }
        )
    return rows
