"""Rewritten models to choose among: built with fewer sites or other variants, judged, and compared site by site.

The guard and the search ask for candidates by what is left out and what is chosen, and for two kinds of error: that of a
site's own output, and that of the model's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from irc.application import SiteKey
from irc.calibration.sources import take
from irc.judge import Assessment, Judge
from irc.judge.model_outputs import ModelOutputs
from irc.pass_base import Context
from irc.pipeline import Step
from irc.runner.emulation import emulated, needs_emulation

if TYPE_CHECKING:
    from irc.pass_manager import RunResult
    from irc.runner import Opened, Runner

OUTPUT_SAMPLES = 32
Choices = Mapping[str, str]
"""Variants by pass name and site id, as `Context.choices` has them."""


class Candidates:
    """The approximate part of a pipeline applied to one float model, in any selection.

    Args:
        float_model: What it starts from.
        steps: The pipeline from its first approximate pass on.
        offset: How many steps are before them: keys count from the start of the pipeline.
        build: Builds without the given rewrites and with the given variants.
        context: What passes are given.
        runner: Where models run.

    Attributes:
        full: The build with everything, and every site as its pass has it by default.
        keys: Its approximate rewrites, refinements not counted.
        left: Sites that every candidate leaves in float, with the reason.
    """

    def __init__(
        self,
        float_model: ir.Model,
        steps: Sequence[Step],
        offset: int,
        build: Callable[[Mapping[SiteKey, str], Choices], RunResult],
        context: Context,
        runner: Runner,
    ) -> None:
        self.float_model, self.steps, self.offset = float_model, steps, offset
        self._build, self.context, self.runner = build, context, runner
        self._outputs: tuple[ModelOutputs, Opened] | None = None
        self._resized: dict[frozenset[SiteKey], ir.Model] = {}
        self.left: dict[SiteKey, str] = {}
        self.full = build({}, {})
        self.keys = self.keys_of(self.full)

    def leave(self, denied: Mapping[SiteKey, str]) -> None:
        """Leaves sites in float in every candidate from now on."""
        self.left |= denied
        self.full = self._build(self.left, {})
        self.keys = self.keys_of(self.full)

    def build(self, denied: Mapping[SiteKey, str], choices: Choices | None = None) -> RunResult:
        """The model without some rewrites and with other variants."""
        return self._build({**self.left, **denied}, choices or {}) if denied or choices else self.full

    def keys_of(self, result: RunResult) -> list[SiteKey]:
        """The approximate rewrites of a build that stand for themselves, refinements of them not counted."""
        return [
            dataclasses.replace(key, step=key.step + self.offset)
            for key in result.keys
            if self._counts(self.steps[key.step])
        ]

    @property
    def _everything(self) -> list[SiteKey]:
        """All approximate rewrites of the full build, refinements among them."""
        keys = [dataclasses.replace(key, step=key.step + self.offset) for key in self.full.keys]
        return [key for key in keys if not self.step_of(key).pass_.contract.lossless]

    @staticmethod
    def _counts(step: Step) -> bool:
        return not step.pass_.contract.lossless and not step.pass_.refines

    def resizes(self, key: SiteKey) -> bool:
        """Whether a rewrite leaves values smaller, rather than computing them otherwise."""
        return self.step_of(key).pass_.resizes

    def resized(self, result: RunResult) -> ir.Model:
        """The float model with the sizes of a build: nothing rewritten in it but what makes values smaller."""
        mine = frozenset(key for key in self.keys_of(result) if self.resizes(key))
        if not mine:
            return self.float_model
        if mine not in self._resized:
            others = {k: "it is compared with" for k in self._everything if k not in mine}
            self._resized = {mine: self._build({**self.left, **others}, {}).model}
        return self._resized[mine]

    def taken_back(self, key: SiteKey) -> str:
        """What to call it when a rewrite is not made after all."""
        return "kept whole" if self.resizes(key) else "back to float"

    def error_name(self, key: SiteKey) -> str:
        """What `errors` tells of a rewrite."""
        return "loss" if self.resizes(key) else "output error"

    def step_of(self, key: SiteKey) -> Step:
        """The step that makes a rewrite."""
        return self.steps[key.step - self.offset]

    def choice_key(self, key: SiteKey) -> str:
        """How `Context.choices` spells a rewrite."""
        return f"{self.step_of(key).pass_.name}/{key.site}"

    def errors(
        self, result: RunResult, keys: Sequence[SiteKey], context: Context | None = None
    ) -> dict[SiteKey, float]:
        """Relative error energy of the output of every site in a build; 0 where a pass cannot tell.

        Args:
            result: A build with the sites rewritten.
            keys: Which sites.
            context: Another context than the passes were given, as for fewer samples.
        """
        found: dict[SiteKey, float] = {}
        before = self.resized(result)
        for i, step in enumerate(self.steps):
            mine = [key for key in keys if key.step == self.offset + i]
            if mine:
                sites = [key.site for key in mine]
                errors = step.pass_.site_errors(before, result.model, sites, context or self.context) or {}
                found |= {key: errors.get(key.site, 0.0) for key in mine}
        return found

    def ranking(self, result: RunResult) -> list[tuple[SiteKey, float]]:
        """All sites with their own error in a build, worst first."""
        self.context.progress(0.4, "measuring the output error of every site")
        return sorted(self.errors(result, self.keys).items(), key=lambda item: -item[1])

    def output_error(self, result: RunResult) -> float:
        """Relative error of the worst output of a build against the float model's, on a few samples; 0 without outputs."""
        if self._outputs is None:
            original = self.runner.open(self.float_model)
            outputs = ModelOutputs(self.float_model, original, self.context.data, limit=OUTPUT_SAMPLES)
            self._outputs = outputs, original
        with self.runner.open(self.as_executed(result.model)) as opened:
            return self._outputs[0].error(opened) or 0.0

    def close(self) -> None:
        """Gives up the float model that outputs were compared with, and its outputs."""
        if self._outputs is not None:
            self._outputs[1].close()
            self._outputs = None

    def try_out(self, result: RunResult) -> None:
        """Runs a build on the first sample.

        Raises:
            RunnerError: If it does not run.
        """
        with self.runner.open(self.as_executed(result.model)) as opened:
            for sample in take(self.context.data, 1):
                opened.run(sample.feed)

    def assess(self, judge: Judge, result: RunResult, half: str) -> Assessment:
        """The judge's word on a build, computed as its target does."""
        with self.runner.open(self.as_executed(result.model)) as opened:
            return judge.assess(opened, half=half)

    def as_executed(self, model: ir.Model) -> ir.Model:
        """The model to run for another: the runtime here may compute float16 in float32, where no overflow shows."""
        target, half = self.context.target, ir.DataType.FLOAT16
        if target is None or target.executed_here or not needs_emulation(model, half):
            return model
        return emulated(model, half)
