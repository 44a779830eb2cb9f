"""What `irc sensitivity` tells: one object behind its table, its picture and its JSON.

The JSON of `irc sensitivity --json` is `SensitivityReport.to_dict`:

    irc, schema          version of irc; 1 (grows when a field changes its meaning or goes away, not when one is added)
    model, target        file name; target as text
    recipe, pipeline     level, or "passes"; the pipeline as it ran
    data                 {name, samples, generated}
    confirmed            {sites, samples}: how many sites were tried at the outputs, on how many samples
    sites                [{pass, step, site, occurrence, op_type, local_error, output_error}], worst first; an error that
                         is not finite is 1e9, output_error is null where it was not measured
    thresholds           {factor, limits, above}: by pass the local error to stay below, and the ids of the sites above; null
                         if not asked for
    left                 [{step, site, why}]: sites left in float, and why
    notes                what was not measured and why
"""

from __future__ import annotations

import dataclasses
from typing import Any

from irc.application import SiteKey
from irc.sensitivity import Left, Sensitivity, above_threshold, thresholds

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class SensitivityReport:
    """A ranking and where it comes from; the module describes the JSON.

    Attributes:
        model: File name.
        target: As text.
        recipe: Level, or "passes".
        pipeline: As it ran.
        data: Name of the samples.
        samples: How many there are.
        generated: Whether they are made up.
        ranking: Worst first.
        tried: How many sites were built alone.
        confirmed_on: How many samples those were compared on.
        left: Sites left in float, and why.
        factor: Of the thresholds; None if not asked for.
        notes: What was not measured and why.
    """

    model: str
    target: str
    recipe: str
    pipeline: str
    data: str
    samples: int
    generated: bool
    ranking: list[Sensitivity]
    tried: int
    confirmed_on: int
    left: dict[SiteKey, Left]
    factor: float | None
    notes: list[str]

    @property
    def limits(self) -> dict[str, float]:
        """By pass, the local error above which a site stands out; empty if not asked for."""
        return thresholds(self.ranking, self.factor) if self.factor is not None else {}

    @property
    def above(self) -> list[Sensitivity]:
        """The sites above the limits."""
        return above_threshold(self.ranking, self.factor) if self.factor is not None else []

    def describe(self) -> str:
        """Recipe, target and data in one line."""
        made_up = ", generated" if self.generated else ""
        plural = "" if self.samples == 1 else "s"
        return f"{self.recipe}, target {self.target}, {self.data} ({self.samples} sample{plural}{made_up})"

    def describe_confirmed(self) -> str:
        """How many sites there are and how many were confirmed, in one line."""
        sites = f"{len(self.ranking)} site{'' if len(self.ranking) == 1 else 's'}"
        if not self.tried:
            return sites
        done = sum(item.output_error is not None for item in self.ranking)
        plural = "" if self.confirmed_on == 1 else "s"
        return f"{sites}, {done} of them confirmed at the model's outputs on {self.confirmed_on} sample{plural}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        import irc

        asked = {
            "factor": self.factor,
            "limits": {name: float(f"{limit:.6g}") for name, limit in self.limits.items()},
            "above": [item.site for item in self.above],
        }
        return {
            "irc": irc.__version__,
            "schema": SCHEMA,
            "model": self.model,
            "target": self.target,
            "recipe": self.recipe,
            "pipeline": self.pipeline,
            "data": {"name": self.data, "samples": self.samples, "generated": self.generated},
            "confirmed": {"sites": self.tried, "samples": self.confirmed_on},
            "sites": [item.to_dict() for item in self.ranking],
            "thresholds": asked if self.factor is not None else None,
            "left": [{"step": key.step, "site": key.site, "why": why} for key, why in self.left.items()],
            "notes": self.notes,
        }
