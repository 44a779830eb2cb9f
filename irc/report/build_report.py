"""What a build tells: one object behind the console report, `--json` and the manifest.

The manifest holds only what the artifact is and why, so that equal builds write equal manifests; measured times and
per-pass seconds are in `to_dict` (the `--json` output) alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.ledger import Ledger

if TYPE_CHECKING:
    from irc.application import SiteKey
    from irc.coverage import Coverage
    from irc.judge import Assessment
    from irc.latency import LatencyComparison
    from irc.sensitivity import Left, Sensitivity

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """A model file in numbers.

    Attributes:
        name: File name.
        size_bytes: Size of the file and its data file.
        nodes: Number of nodes, bodies of If, Loop and Scan included.
        opset: Version of the default operator set.
        macs: Multiply-accumulates of one inference, as far as they can be counted, with assumed sizes of dynamic
            dimensions (`irc inspect` names them).
    """

    name: str
    size_bytes: int
    nodes: int
    opset: int
    macs: int = 0


@dataclasses.dataclass
class BuildReport:
    """The outcome of one build for one target.

    Attributes:
        recipe: Name of the recipe ("-O2", a file name, "passes").
        target: The target as text.
        pipeline: The pipeline as it ran.
        source: The input.
        artifact: The output.
        sha256: Hash of the artifact file.
        ledger: What every pass did.
        data: What the data was, in words; "" without data.
        accuracy: The judge's assessment of the artifact; None when nothing approximate ran.
        accuracy_lines: The assessment in words.
        coverage: Which nodes the runtime executes as integer kernels; None when nothing was quantized.
        latency: Original against artifact; None when not measured.
        reverted: Sites the guard took back.
        budget: What was asked, in words; "" without a budget.
        missed: Budget clauses that are not met.
        unmet: `--require` clauses that are not met.
        notes: Things the user should know.
        sensitivity: The sites by what they cost, worst first; empty if they were not ranked.
        files: What was written, the artifact first.
        seconds: Duration of the build.
    """

    recipe: str
    target: str
    pipeline: str
    source: ModelFacts
    artifact: ModelFacts
    sha256: str
    ledger: Ledger
    data: str = ""
    accuracy: Assessment | None = None
    accuracy_lines: list[str] = dataclasses.field(default_factory=list)
    coverage: Coverage | None = None
    latency: LatencyComparison | None = None
    reverted: int = 0
    budget: str = ""
    missed: list[str] = dataclasses.field(default_factory=list)
    unmet: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    sensitivity: Sequence[Sensitivity] = ()
    files: list[Path] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 ok, 3 budget missed, 5 `--require` unmet."""
        return 3 if self.missed else 5 if self.unmet else 0

    @property
    def output(self) -> Path:
        """Path of the artifact."""
        return self.files[0]

    def left_in_float(self) -> dict[SiteKey, Left]:
        """The ranked sites that the artifact has in float after all, and why in one word."""
        from irc.sensitivity import left_kind

        undone = {entry.site: entry.reason for record in self.ledger for entry in record.undone}
        return {item.key: left_kind(undone[item.site]) for item in self.sensitivity if item.site in undone}

    def manifest(self) -> dict[str, Any]:
        """What the artifact is and why: no times, no absolute paths."""
        import irc

        return {
            "irc": irc.__version__,
            "schema": SCHEMA,
            "recipe": self.recipe,
            "target": self.target,
            "pipeline": self.pipeline,
            "input": dataclasses.asdict(self.source),
            "artifact": {**dataclasses.asdict(self.artifact), "sha256": self.sha256},
            "data": self.data,
            "budget": {"asked": self.budget, "missed": self.missed},
            "accuracy": _plain(self.accuracy),
            "coverage": self.coverage.to_dict() if self.coverage is not None else None,
            "reverted": self.reverted,
            "requirements_unmet": self.unmet,
            "ledger": self.ledger.to_dict(),
            "notes": self.notes,
            **({"sensitivity": [item.to_dict() for item in self.sensitivity]} if self.sensitivity else {}),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, measured times included: the `--json` output."""
        document = self.manifest()
        document["ledger"] = self.ledger.to_dict(timings=True)
        document["latency"] = _plain(self.latency)
        document["files"] = [str(path) for path in self.files]
        document["seconds"] = round(self.seconds, 3)
        document["exit_code"] = self.exit_code
        return document


def _plain(value: Any) -> Any:
    """A dataclass (or None) as JSON-ready values; NaN and infinities become text."""
    if value is None:
        return None
    converted = value.to_dict() if hasattr(value, "to_dict") else dataclasses.asdict(value)
    return json_ready(converted)


def json_ready(value: Any) -> Any:
    """Nested values with numpy scalars, paths and non-finite floats made plain JSON."""
    if isinstance(value, dict):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
