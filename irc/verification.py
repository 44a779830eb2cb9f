"""Verify a rewritten model against reference outputs of the model it came from, in the runtime process.

The reference is computed once: unoptimized outputs, whether they are reproducible, and the rounding noise. A model that the
runtime refuses or that crashes it is a violation like any other; only a reference that cannot run makes verification
impossible, which is said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import onnx_ir as ir

from irc.errors import RunnerError
from irc.pass_base import Context, Contract
from irc.runner import Feed, Runner


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What verification says of one model.

    Attributes:
        ok: Whether the contract holds.
        message: What differs and by how much; "" when nothing does.
        worst_output: The output with the largest error.
        error: Largest absolute difference.
        tolerance: What was allowed.
    """

    ok: bool
    message: str = ""
    worst_output: str = ""
    error: float = 0.0
    tolerance: float = 0.0


class Verifier:
    """Compares rewritten models with a reference.

    Args:
        runner: Where models run.
        model: The reference, or the path it was loaded from.
        feeds: Inputs to compare on.

    Attributes:
        runs: How many models were compared.
        reference_failed: Why the reference cannot run; None if it can.
        random_outputs: Outputs that differ between two runs of the reference, and are not compared.
    """

    def __init__(self, runner: Runner, model: ir.Model, feeds: Sequence[Feed]) -> None:
        self._runner, self._model, self._feeds = runner, model, list(feeds)
        self.runs = 0
        self.reference_failed: str | None = None
        self.random_outputs: list[str] = []
        self._handle = -1
        self._generation = -1
        if not self._feeds:
            self.reference_failed = "there are no inputs to run it on"
            return
        try:
            self._compute()
        except RunnerError as error:
            self.reference_failed = f"the runtime cannot run the original: {error}"

    def _compute(self) -> None:
        portable = self._runner._portable(self._model, ())
        self._handle, self.random_outputs = self._runner.process.call(
            "reference", portable, self._feeds, self._runner.threads
        )
        self._generation = self._runner.process.generation

    def check(self, model: ir.Model, contract: Contract) -> Verdict:
        """Runs a model on the feeds of the reference and compares under a contract.

        Raises:
            RunnerError: If the reference itself can no longer be computed.
        """
        self.runs += 1
        if self._generation != self._runner.process.generation:
            self._compute()
        try:
            portable = self._runner._portable(model, ())
            found = self._runner.process.call(
                "compare", self._handle, portable, contract is Contract.EXACT, self._runner.threads
            )
        except RunnerError as error:
            return Verdict(False, f"the runtime refuses the rewritten model: {error}")
        return Verdict(found.ok, found.message, found.output, found.error, found.tolerance)


def verifier_factory(ctx: Context) -> tuple[Callable[[ir.Model], Verifier], Callable[[], None]]:
    """A factory of verifiers for a pass manager used on its own, and what closes the process it starts.

    Inputs are the context's data (its first samples) or, without data, generated.
    """
    runner = ctx.runner or Runner()

    def factory(model: ir.Model) -> Verifier:
        return Verifier(runner, model, first_feeds(model, ctx))

    return factory, (lambda: None) if ctx.runner is not None else runner.close


def first_feeds(model: ir.Model, ctx: Context, *, count: int = 3) -> list[Feed]:
    """The first feeds of the context's data, or generated ones."""
    from irc.calibration import generate_feeds

    source = ctx.data if ctx.data is not None else generate_feeds(model, count=count, seed=ctx.seed)
    feeds = []
    for sample in source.samples():
        feeds.append(sample.feed)
        if len(feeds) == count:
            break
    return feeds
