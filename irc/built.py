"""What a build gave: a staged artifact and the evidence about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from irc.application import SiteKey
from irc.judge import Assessment
from irc.ledger import Ledger

if TYPE_CHECKING:
    from irc.coverage import Coverage
    from irc.latency import LatencyComparison


@dataclasses.dataclass
class Built:
    """What a build gave: a staged artifact and the evidence about it."""

    model: ir.Model
    file: Path
    ledger: Ledger
    denied: dict[SiteKey, str]
    statistics: Mapping[str, Any]
    samples: int
    data_name: str
    assessment: Assessment | None
    coverage: Coverage | None
    latency: LatencyComparison | None
    reverted: int
    missed: list[str]
    notes: list[str]
    refinements: Set[str] = frozenset()
    """Names of passes that only refine what others rewrote."""

    @property
    def approximate(self) -> int:
        """How many rewrites of approximate passes are in the model, refinements of them not counted."""
        return sum(
            len(record.rewritten)
            for record in self.ledger
            if record.contract == "approximate" and record.name not in self.refinements
        )

    @property
    def taken_back(self) -> int:
        """How many rewrites of approximate passes were undone."""
        return sum(len(record.undone) for record in self.ledger if record.contract == "approximate")

    def put_before(self, ledger: Ledger, undone: Mapping[SiteKey, str], steps: int) -> None:
        """Puts what earlier steps of the pipeline did before what the build did."""
        whole = Ledger(list(ledger.passes), list(ledger.notes), ledger.verification_runs)
        whole.extend(self.ledger)
        self.ledger = whole
        self.denied = {**undone, **{shifted(key, steps): reason for key, reason in self.denied.items()}}
        self.notes = list(dict.fromkeys([*self.notes, *ledger.notes]))


def shifted(key: SiteKey, steps: int) -> SiteKey:
    """The key of the same rewrite where the pipeline is counted from another step."""
    return dataclasses.replace(key, step=key.step + steps)
