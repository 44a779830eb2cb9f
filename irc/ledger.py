"""The ledger: what every pass did, what it left alone and why, what was undone.

One `PassRecord` per place of the pipeline, in order; who reads the ledger sees one per pass, however often it ran.
Nothing here depends on a clock except `seconds`, which the console shows and `to_dict` leaves out unless asked, so that
two equal builds have equal ledgers.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Entry:
    """One site in the ledger.

    Attributes:
        site: Stable id of the site.
        op_type: Operator type of its anchor node; "" for a whole-model pass.
        reason: Why it was skipped or undone; of a rewritten site what its pass says of it, or "".
    """

    site: str
    op_type: str = ""
    reason: str = ""

    def to_dict(self) -> dict[str, str]:
        """The entry as JSON-ready fields, empty ones left out."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v}


@dataclasses.dataclass
class PassRecord:
    """What one pass did.

    Attributes:
        name: Name of the pass.
        text: The pass as pipeline text, options included.
        contract: "exact", "rounding" or "approximate".
        rewritten: Sites that were changed and stayed changed.
        skipped: Near misses, each with the reason.
        undone: Sites that were changed and then taken back, each with the reason.
        nodes_before: Number of nodes before the pass.
        nodes_after: Number of nodes after the pass.
        seconds: Time the pass took, verification not included.
        summary: What it says of all its sites together, in one line or several, or "".
    """

    name: str
    text: str
    contract: str
    rewritten: list[Entry] = dataclasses.field(default_factory=list)
    skipped: list[Entry] = dataclasses.field(default_factory=list)
    undone: list[Entry] = dataclasses.field(default_factory=list)
    nodes_before: int = 0
    nodes_after: int = 0
    seconds: float = 0.0
    summary: str = ""

    @property
    def changed(self) -> bool:
        """Whether the pass left any change in the model."""
        return bool(self.rewritten)

    def skip_reasons(self) -> list[tuple[str, int]]:
        """Reasons with their counts, most frequent first, ties in order of appearance."""
        return collections.Counter(entry.reason for entry in self.skipped).most_common()

    def to_dict(self, *, timings: bool = False) -> dict[str, Any]:
        """The record as JSON-ready fields; `timings` adds the seconds it took."""
        record: dict[str, Any] = {
            "pass": self.name,
            "text": self.text,
            "contract": self.contract,
            "rewritten": [entry.to_dict() for entry in self.rewritten],
            "skipped": [entry.to_dict() for entry in self.skipped],
            "undone": [entry.to_dict() for entry in self.undone],
            "nodes_before": self.nodes_before,
            "nodes_after": self.nodes_after,
        }
        if self.summary:
            record["summary"] = self.summary
        if timings:
            record["seconds"] = round(self.seconds, 6)
        return record


@dataclasses.dataclass
class Ledger:
    """The records of a build in pipeline order; iteration gives one for all places of a pass with the same options.

    Attributes:
        passes: The records, one per place of the pipeline.
        notes: Things said once about the whole build: what could not be verified, what was random.
        verification_runs: How many times a rewritten model was run against the reference outputs.
    """

    passes: list[PassRecord] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    verification_runs: int = 0

    def __iter__(self) -> Iterator[PassRecord]:
        groups: dict[tuple[str, str], list[PassRecord]] = {}
        for record in self.passes:
            groups.setdefault((record.name, record.text), []).append(record)
        return iter([_merged(records) for records in groups.values()])

    def __getitem__(self, name: str) -> PassRecord:
        """The first record of the pass called `name`; KeyError if it did not run."""
        for record in self:
            if record.name == name:
                return record
        raise KeyError(f"no pass called {name!r} ran; these did: {', '.join(r.name for r in self.passes)}")

    @property
    def rewritten(self) -> int:
        """Number of rewritten sites over all passes."""
        return sum(len(record.rewritten) for record in self.passes)

    def extend(self, other: Ledger) -> None:
        """Appends another ledger's records and notes, as when a build goes on."""
        self.passes.extend(other.passes)
        self.notes.extend(note for note in other.notes if note not in self.notes)
        self.verification_runs += other.verification_runs

    def to_dict(self, *, timings: bool = False) -> dict[str, Any]:
        """The ledger as JSON-ready fields; `timings` adds the seconds each pass took."""
        return {
            "passes": [record.to_dict(timings=timings) for record in self],
            "notes": list(self.notes),
            "verification_runs": self.verification_runs,
        }


def _merged(records: Sequence[PassRecord]) -> PassRecord:
    """What a pass did in all its places: a site skipped in one and rewritten in a later one counts as rewritten."""
    if len(records) == 1:
        return records[0]
    rewritten = [entry for record in records for entry in record.rewritten]
    undone = [entry for record in records for entry in record.undone]
    done = {entry.site for entry in (*rewritten, *undone)}
    skipped = {entry.site: entry for record in records for entry in record.skipped if entry.site not in done}
    return dataclasses.replace(
        records[0],
        rewritten=rewritten,
        skipped=list(skipped.values()),
        undone=undone,
        nodes_after=records[-1].nodes_after,
        summary="\n".join(filter(None, (record.summary for record in records))),
        seconds=sum(record.seconds for record in records),
    )
