"""Ask onnxsim for a simpler model, and take it only if it is one.

model  =>  onnxsim(model)      if worse in nothing (nodes, MACs, bytes moved, bytes stored) and better in something
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from irc.pass_base import Context, Contract, ModelPass, Site, Skip
from irc.passes.simplification import onnxsim_process
from irc.passes.simplification.cost_comparison import Costs, measured_slower, why_not_better
from irc.passes.simplification.foreign_result import handed_out, replace_contents, taken_back


@dataclasses.dataclass(frozen=True)
class SimplifyWithOnnxsim(ModelPass):
    """Takes onnxsim's result as one candidate, kept only if the cost model and the clock agree that it is better.

    onnxsim runs in a process of its own: that it is missing, crashes, hangs or fails is a reason in the ledger. The
    largest weights are not given to it where all of them are too many. Inputs and outputs keep their declarations,
    surviving nodes their modules, and unchanged weights stay where they are. What it decides by the clock may differ
    between two builds; `measure=false` decides by the cost model alone.

    Attributes:
        measure: Whether a candidate that is better on paper is refused if it runs more than 1.02 times as long.
        seconds: How long onnxsim may take.
        weight_limit: Bytes of weights it is given at most, the smallest ones (256 MiB).
    """

    measure: bool = True
    seconds: float = 120.0
    weight_limit: int = 256 << 20
    name: ClassVar[str] = "simplify-with-onnxsim"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ValueError(f"seconds is {self.seconds:g}; it must be positive")
        if self.weight_limit < 0:
            raise ValueError(f"weight_limit is {self.weight_limit}; it must be at least 0")

    def apply(self, model: ir.Model, ctx: Context) -> bool:
        """Replaces the model by onnxsim's if that is better; returns whether it is."""
        return self._candidate(model, ctx) is None

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Replaces the model by onnxsim's, or says why not."""
        reason = self._candidate(site.match, ctx)
        return None if reason is None else Skip(None, reason)

    def _candidate(self, model: ir.Model, ctx: Context) -> str | None:
        """Replaces the model and returns None, or returns why it stays."""
        if not onnxsim_process.is_installed():
            return "onnxsim is not installed; pip install 'irc-compiler[onnxsim]'"
        handout = handed_out(model, limit=self.weight_limit)
        result = onnxsim_process.simplified(handout.proto, seconds=self.seconds)
        if isinstance(result, str):
            return f"onnxsim {result}"
        found = taken_back(model, handout, result)
        if isinstance(found, str):
            return f"onnxsim's result cannot be used: {found}"
        reason = why_not_better(Costs.of(model), Costs.of(found))
        if reason is None and self.measure:
            reason = measured_slower(model, found, ctx)
        if reason is not None:
            return f"onnxsim's result is not better: {reason}"
        replace_contents(model, found)
        return None
