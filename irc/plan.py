"""The plan: everything a clock, a search or data decided, so that a build can be replayed byte for byte.

A plan names the input by its hash, the pipeline with all options, the rewrites that were undone or reverted, the
calibrated statistics, and what passes decided from data; arrays among that are in a file beside the plan. Replaying needs
no data, measures nothing and decides nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irc.application import SiteKey
from irc.decision_arrays import read_arrays, replace_arrays
from irc.decisions import Kept
from irc.errors import UsageError

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a build decided.

    Attributes:
        input_name: File name of the model.
        input_sha256: Hash of the model file and its data files, in order of name.
        target: The target as text, options included.
        pipeline: Pipeline text, inserted passes included.
        recipe: Name of the recipe, for the report.
        seed: Seed of random choices.
        denied: Rewrites not made, with the reason.
        statistics: Calibrated statistics, as their collector writes them.
        samples: How many samples they come from.
        decisions: What passes decided from data, by key.
        choices: Variants other than a pass's own, by pass name and site id.
    """

    input_name: str
    input_sha256: str
    target: str
    pipeline: str
    recipe: str
    seed: int = 0
    denied: Mapping[SiteKey, str] = dataclasses.field(default_factory=dict)
    statistics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    samples: int = 0
    decisions: Mapping[str, Kept] = dataclasses.field(default_factory=dict)
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_yaml(self) -> str:
        """The plan as YAML, the same text for the same plan; arrays by their place in the file beside it."""
        import yaml

        import irc

        document = {
            "irc": irc.__version__,
            "plan": VERSION,
            "input": {"name": self.input_name, "sha256": self.input_sha256},
            "target": self.target,
            "recipe": self.recipe,
            "pipeline": self.pipeline,
            "seed": self.seed,
            "denied": [
                {"step": key.step, "site": key.site, "occurrence": key.occurrence, "reason": reason}
                for key, reason in self.denied.items()
            ],
            "samples": self.samples,
            "statistics": dict(self.statistics),
        }
        if self.choices:
            document["choices"] = dict(self.choices)
        if self.decisions:
            document["decisions"] = replace_arrays(self.decisions)
        return yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Reads a plan file.

        Raises:
            UsageError: If the file is missing, is not a plan, or is of a version this irc does not read.
        """
        import yaml

        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"plan {path}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(f"plan {path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(document, Mapping) or "plan" not in document:
            raise UsageError(f"plan {path} is not a plan written by irc")
        if document["plan"] != VERSION:
            raise UsageError(f"plan {path} has version {document['plan']!r}; this irc reads version {VERSION}")
        try:
            return cls(
                input_name=str(document["input"]["name"]),
                input_sha256=str(document["input"]["sha256"]),
                target=str(document["target"]),
                pipeline=str(document["pipeline"] or ""),
                recipe=str(document["recipe"]),
                seed=int(document["seed"]),
                denied={
                    SiteKey(int(d["step"]), str(d["site"]), int(d["occurrence"])): str(d["reason"])
                    for d in document["denied"]
                },
                statistics=dict(document["statistics"]),
                samples=int(document["samples"]),
                choices={str(k): str(v) for k, v in (document.get("choices") or {}).items()},
                decisions=read_arrays(document.get("decisions") or {}, path),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"plan {path} is damaged: {type(error).__name__}: {error}; build again without --plan"
            ) from error

    def behind(self, steps: int) -> Plan:
        """The plan of what comes after the first steps of the pipeline."""
        if not steps:
            return self
        later = {
            dataclasses.replace(key, step=key.step - steps): reason
            for key, reason in self.denied.items()
            if key.step >= steps
        }
        return dataclasses.replace(self, denied=later)

    def check_input(self, sha256: str, name: str) -> None:
        """Raises UsageError when the model is not the one the plan was made for."""
        if sha256 != self.input_sha256:
            raise UsageError(
                f"the plan was made for {self.input_name!r} (sha256 {self.input_sha256[:12]}...), but {name!r} is another "
                f"model (sha256 {sha256[:12]}...); build again without --plan"
            )
