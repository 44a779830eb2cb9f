"""Whether a rewritten model is still valid and computes what it computed: what the pass manager asks after a stretch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import onnx_ir as ir

from irc.application import SiteKey
from irc.errors import IrcError
from irc.pass_base import Contract
from irc.pipeline import Step

if TYPE_CHECKING:
    from irc.representation import Representation


class Verdict(Protocol):
    """What verification says of one rewritten model."""

    @property
    def ok(self) -> bool:
        """Whether the contract holds."""

    @property
    def message(self) -> str:
        """What differs and by how much."""


class Verifier(Protocol):
    """Compares rewritten models with reference outputs; see `irc.verification`."""

    runs: int
    reference_failed: str | None
    notes: list[str]

    def check(self, model: ir.Model, contract: Contract) -> Verdict:
        """Runs the model and compares."""


VerifierFactory = Callable[[ir.Model], Verifier]


class Soundness:
    """Answers whether a rewritten model is valid and computes what the start of the stretch computes."""

    def __init__(
        self, start: Any, steps: Sequence[Step], factory: VerifierFactory | None, representation: Representation
    ) -> None:
        self._start, self._steps, self._factory, self._ir = start, steps, factory, representation
        self._interface = representation.interface(start)
        self._verifier: Verifier | None = None
        self.notes: list[str] = []

    @property
    def runs(self) -> int:
        """How many times a rewritten model was run."""
        return self._verifier.runs if self._verifier is not None else 0

    def violation(self, model: Any, keys: Sequence[SiteKey]) -> str | None:
        """What is wrong with a model after these rewrites, or None."""
        try:
            self._ir.check(model)
        except IrcError as error:
            return f"the model is no longer valid: {error}"
        narrower = {name for key in keys for name in self._steps[key.step].pass_.narrows}
        if (difference := self._interface.difference(self._ir.interface(model), narrower=narrower)) is not None:
            return f"the interface changed: {difference}"
        if self._factory is None or not keys:
            return None
        if self._verifier is None:
            self._verifier = self._factory(self._start)
            if self._verifier.reference_failed:
                self.notes.append(f"not verified: {self._verifier.reference_failed}")
            self.notes += self._verifier.notes
        if self._verifier.reference_failed:
            return None
        exact = all(self._steps[key.step].pass_.contract is Contract.EXACT for key in keys)
        verdict = self._verifier.check(model, Contract.EXACT if exact else Contract.ROUNDING)
        return None if verdict.ok else verdict.message
