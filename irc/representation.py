"""What the pass manager needs of an IR: copies, validity, the interface to keep, and the services its passes run with.

Passes of one kind rewrite `onnx_ir.Model`, passes of the other the `torch.fx.GraphModule` of a traced PyTorch module
(`irc.trace`). The loop, selection, the ledger, limits, verification and bisection are the same for both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any, Protocol

import onnx_ir as ir

from irc.application import count_nodes
from irc.ir import check, interface, snapshot
from irc.pass_base import Context
from irc.services import services
from irc.soundness import VerifierFactory


class Interface(Protocol):
    """What callers of a model rely on."""

    def difference(self, other: Any, *, narrower: Collection[str] = ()) -> str | None:
        """How another interface differs, in words, or None; outputs named in `narrower` may have smaller dimensions."""


class Representation(Protocol):
    """An IR as the pass manager sees it."""

    def snapshot(self, model: Any) -> Any:
        """A copy to rewrite; tensors are shared."""

    def check(self, model: Any) -> None:
        """Raises an IrcError that says why a model is not valid."""

    def interface(self, model: Any) -> Interface:
        """What a rewrite must keep."""

    def count_nodes(self, model: Any) -> int:
        """Number of nodes."""

    def services(
        self, verify: bool | VerifierFactory, ctx: Context, model: Any
    ) -> contextlib.AbstractContextManager[tuple[Context, VerifierFactory | None]]:
        """Opens what passes and verification need for one run."""


class OnnxRepresentation:
    """`onnx_ir.Model`."""

    def snapshot(self, model: ir.Model) -> ir.Model:
        """A copy whose graph has a name, as the checker wants."""
        copy = snapshot(model)
        copy.graph.name = copy.graph.name or "graph"
        return copy

    def check(self, model: ir.Model) -> None:
        """The checker of onnx, and ours."""
        check(model)

    def interface(self, model: ir.Model) -> Interface:
        """Inputs and outputs with types and shapes."""
        return interface(model)

    def count_nodes(self, model: ir.Model) -> int:
        """Nodes, those in bodies included."""
        return count_nodes(model)

    def services(
        self, verify: bool | VerifierFactory, ctx: Context, model: ir.Model
    ) -> contextlib.AbstractContextManager[tuple[Context, VerifierFactory | None]]:
        """Target, data, collector, verifier and the process they run in."""
        return services(verify, ctx, model)
