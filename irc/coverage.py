"""Coverage: which nodes of the float model the runtime really executes as integer kernels.

The target reads it back from the runtime's own optimized graph; a node that was meant to be integer and is not carries the
reason, so that a build can tell intent from fact.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Covered:
    """One node of the float model.

    Attributes:
        site: Stable id.
        op_type: Operator type in the float model.
        intended: Whether the build quantized it.
        integer: Whether the runtime executes it as an integer kernel.
        reason: Why it is float, or why the intent was not met.
    """

    site: str
    op_type: str
    intended: bool
    integer: bool
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Coverage:
    """All quantizable nodes of a model.

    Attributes:
        nodes: One entry per node, in graph order.
        label: How it is known: "read back from onnxruntime 1.31.1", "declared, not executed".
    """

    nodes: tuple[Covered, ...]
    label: str

    def count(self, op_type: str = "*") -> tuple[int, int]:
        """Integer nodes and all nodes of an operator type ("*": of every type)."""
        chosen = [node for node in self.nodes if op_type in ("*", node.op_type)]
        return sum(node.integer for node in chosen), len(chosen)

    def reasons(self, op_type: str = "*") -> list[str]:
        """Why nodes of the type are float, each reason once, in graph order."""
        return list(
            dict.fromkeys(n.reason for n in self.nodes if op_type in ("*", n.op_type) and not n.integer and n.reason)
        )

    def unmet_intents(self) -> list[Covered]:
        """Nodes that were quantized and nevertheless run in float."""
        return [node for node in self.nodes if node.intended and not node.integer]

    def by_op_type(self) -> dict[str, tuple[int, int]]:
        """Integer and total counts per operator type, in order of first appearance."""
        return {op_type: self.count(op_type) for op_type in dict.fromkeys(node.op_type for node in self.nodes)}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {
            "label": self.label,
            "by_op_type": {k: {"integer": a, "total": b} for k, (a, b) in self.by_op_type().items()},
            "float": [{"site": n.site, "op_type": n.op_type, "reason": n.reason} for n in self.nodes if not n.integer],
        }
