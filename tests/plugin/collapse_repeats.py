"""Remove an operator applied to its own result where once is enough.

    y = Relu(x); z = Relu(y)   =>   y = Relu(x)

Holds for idempotent operators. This is all that a pass from outside irc consists of: a frozen dataclass with `sites` and
`rewrite`, and one line in the entry-point group `irc.passes` of its pyproject.toml.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import onnx_ir as ir

from irc.ir import bypass, can_replace
from irc.pass_base import Context, Contract, Pass, Site, Skip

IDEMPOTENT = ("Abs", "Ceil", "Floor", "Relu", "Round", "Sign")


@dataclasses.dataclass(frozen=True)
class CollapseRepeats(Pass):
    """Removes the second of two equal idempotent operators in a row.

    Attributes:
        operators: Operator types to look at.
    """

    name = "collapse-repeats"
    contract = Contract.EXACT

    operators: tuple[str, ...] = IDEMPOTENT

    def __post_init__(self) -> None:
        if wrong := [operator for operator in self.operators if operator not in IDEMPOTENT]:
            raise ValueError(
                f"operators has {wrong[0]!r}, which is not idempotent; choose from {', '.join(IDEMPOTENT)}"
            )

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the outer operator of each pair."""
        for node in model.graph.all_nodes():
            source = node.inputs[0] if node.op_type in self.operators and node.domain == "" else None
            inner = source.producer() if source is not None else None
            if source is None or inner is None or (inner.op_type, inner.domain) != (node.op_type, ""):
                continue
            if can_replace(node.outputs[0], source):
                yield Site(node, match=source)
            else:
                yield Skip(node, "it gives a graph output a name that its input cannot take")

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Lets the users of the outer operator use the inner one."""
        assert site.node is not None
        return None if bypass(site.node, site.match) else Skip(site.node, "its output must stay")
