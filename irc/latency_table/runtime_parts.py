"""The profile of a whole model in terms of the model itself: which of its nodes each node of the runtime carries out.

The runtime fuses and renames. A runtime node carries out everything between the values it reads and the value it makes,
as far as their names are still those of the model.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from irc.latency_table.probes import INTO_BLOCKS, OUT_OF_BLOCKS
from irc.runner import NodeTime, original_name

_FUSION = re.compile(r"(/\w*Fusion/?)+\Z")
"""What some fusions put behind the name of a node: "n/MatMulAddFusion", a Gemm between two Reshapes."""
_FUSED_NODES = 64
"""A fused operator stands for no more nodes than this."""


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A node of the runtime.

    Attributes:
        time: Its profile.
        nodes: The nodes of the model that it carries out, its last one first; empty if it is none of the model's.
    """

    time: NodeTime
    nodes: tuple[ir.Node, ...]

    @property
    def reorders(self) -> bool:
        """Whether all it does is to change the layout."""
        return self.time.op_type in (INTO_BLOCKS, OUT_OF_BLOCKS)


def runtime_parts(model: ir.Model, profile: Sequence[NodeTime]) -> list[Part]:
    """What each node of a profile carries out.

    Args:
        model: With the names under which it was profiled.
        profile: As `Runner.profile` gives it.
    """
    values = {value.name: value for node in model.graph for value in node.outputs if value.name}
    named = {name_in_profile(node): node for node in model.graph}
    ends = [_end(time, values, named) for time in profile]
    made = {value for end, time in zip(ends, profile, strict=True) if end is not None for value in end.outputs}
    taken: set[ir.Node] = set()
    found = []
    for end, time in zip(ends, profile, strict=True):
        nodes = () if end is None else _between(end, made, taken)
        if time.op_type not in (INTO_BLOCKS, OUT_OF_BLOCKS):
            taken.update(nodes)
        found.append(Part(time, nodes))
    return found


def _end(time: NodeTime, values: Mapping[str, ir.Value], named: Mapping[str, ir.Node]) -> ir.Node | None:
    """The node of the model whose result a runtime node makes, or whose name it kept."""
    for name in (*time.outputs, time.name):
        value = values.get(original_name(name))
        if value is not None:
            return value.producer()
    return named.get(_FUSION.sub("", original_name(time.name)))


def name_in_profile(node: ir.Node) -> str:
    """What a node is called where it is profiled: its name, or one after its first result."""
    return node.name or f"irc.node.{node.outputs[0].name if node.outputs else ''}"


def _between(end: ir.Node, made: set[ir.Value], taken: set[ir.Node]) -> tuple[ir.Node, ...]:
    """A node and what feeds it that no other node of the runtime makes."""
    found, pending = [end], [end]
    while pending:
        for value in pending.pop(0).inputs:
            node = value.producer() if value is not None else None
            if node is None or value in made or node in taken or node in found or len(found) >= _FUSED_NODES:
                continue
            found.append(node)
            pending.append(node)
    return tuple(found)
