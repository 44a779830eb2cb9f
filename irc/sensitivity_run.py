"""`irc.sensitivity_run.sensitivity_of`: which sites of a model a pipeline would hurt most, without building an artifact.

The lossless passes run as in a build, the approximate ones once with every site; then each pass tells the local errors
of its sites, and the worst are confirmed at the model's outputs.

    found = sensitivity_of("model.onnx", data="calib/")
    for item in found.ranking[:10]:
        print(item.site, item.local_error, item.output_error)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc import pipeline, targets
from irc.application import SiteKey
from irc.decisions import Decisions
from irc.driver import Request, resolve
from irc.errors import ModelError, RunnerError, UsageError
from irc.expansion import expand
from irc.growth import growing_steps
from irc.measurement import Measurement
from irc.pass_base import Context
from irc.pass_manager import PassManager, RunResult
from irc.report.sensitivity_report import SensitivityReport
from irc.runner import Runner
from irc.selection import Selection
from irc.sensitivity import (
    CONFIRMATION_SAMPLES,
    SHARE,
    Left,
    approximate_keys,
    confirm,
    confirmed_count,
    left_kind,
    rank,
    thresholds,
)
from irc.trace.module_source import is_module_spelling

if TYPE_CHECKING:
    import onnx_ir as ir

    from irc.pipeline import Step
    from irc.recipe import Recipe
    from irc.target import Target

Progress = Callable[[float, str], None]


def sensitivity_of(
    model: str | Path,
    *,
    data: Any,
    passes: str | None = None,
    target: str | None = None,
    share: float = SHARE,
    factor: float | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    label: str | None = None,
    cache: bool = True,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress = lambda fraction, what: None,
) -> SensitivityReport:
    """Ranks the sites that the approximate passes of a pipeline rewrite; writes nothing.

    Args:
        model: Path of an ONNX file.
        data: Samples as in `irc.optimize`.
        passes: Pipeline text; default that of `-O2`.
        target: For example "ort" or "ort{cpu=avx2}".
        share: How much of the ranking is confirmed at the model's outputs, in [0, 1]; at most 32 sites, none for 0.
        factor: Tell the sites whose local error exceeds this many times the median; None for none.
        include: Selectors of the sites that approximate passes may touch.
        exclude: Selectors of sites they must not touch.
        label: Which array in the data is the label, if there are several candidates.
        cache: Whether statistics are taken from an earlier build, and kept for the next.
        threads: Threads of the runtime; default all cores.
        seed: Seed of random choices.
        progress: Called with a fraction in [0, 1] and what is being done; a fraction that falls starts a new stage.

    Raises:
        UsageError: If the pipeline has no approximate pass, or an option is out of its range.
        ModelError: If the model is damaged, or the runtime does not run it.
        DataError: If the data does not fit the model.
    """
    from irc.ir import load

    confirmed_count(0, share)
    if factor is not None:
        thresholds([], factor)
    for name, value, least in (("threads", threads, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UsageError(f"--{name} is {value}; it must be at least {least}")
    path = Path(model)
    if is_module_spelling(str(model)):
        raise UsageError(f"{model} is a PyTorch module; write it as ONNX first: irc optimize {model} --inputs ... -O0")
    request = Request(
        data=data,
        label=label,
        passes=passes,
        target=target,
        measure=False,
        cache=cache,
        threads=threads,
        seed=seed,
        include=tuple(include),
        exclude=tuple(exclude),
        progress=progress,
    )
    recipe = resolve(request)
    selection = Selection.of(request.include, request.exclude)
    steps = expand(recipe.steps, selection=selection)
    if all(step.pass_.contract.lossless for step in steps):
        raise UsageError(
            f"the pipeline {pipeline.render(recipe.steps)!r} has no approximate pass, so that no site has an error; "
            'try --passes "quantize"'
        )
    found_target = targets.parse(request.target or recipe.target or "ort")
    progress(0.0, "loading the model")
    loaded = load(path)
    for selected in (selection, *(step.selection for step in recipe.steps)):
        selected.require_matches(loaded)
    with Runner(threads=threads) as runner:
        run = _Run(path, loaded, recipe, steps, found_target, request, runner)
        return run.report(share, factor)


class _Run:
    """One analysis: the model before and behind the approximate passes, and what they say of it."""

    def __init__(
        self,
        path: Path,
        model: ir.Model,
        recipe: Recipe,
        steps: list[Step],
        target: Target,
        request: Request,
        runner: Runner,
    ) -> None:
        self._path, self._model, self._recipe, self._steps = path, model, recipe, steps
        self._request, self._runner, self._target = request, runner, target
        self._split = next(i for i, step in enumerate(steps) if not step.pass_.contract.lossless)
        self._samples = Measurement(path, model, request, runner, planned=None)
        if self._samples.refused is not None or self._samples.source is None:
            raise ModelError(f"{path.name}: the runtime cannot run it: {self._samples.refused}; -O1 simplifies it")
        self._source = self._samples.source
        self._context = Context(
            target=target,
            data=self._source,
            collect=self._samples.collect,
            observe=self._samples.observe,
            decisions=Decisions(),
            runner=runner,
            seed=request.seed,
            progress=request.progress,
        )
        self._notes: list[str] = []

    def report(self, share: float, factor: float | None) -> SensitivityReport:
        """Runs everything."""
        progress = self._request.progress
        progress(0.05, "simplifying")
        base = self._lossless()

        def build(denied: Mapping[SiteKey, str]) -> RunResult:
            return self._manager(self._steps[self._split :], self._split, denied).run(base.model, self._context)

        progress(0.2, "rewriting every site")
        full = build({})
        keys = approximate_keys(full, self._split)
        if not keys:
            self._notes.append("no site can be rewritten by an approximate pass")
        sizing = [key for key in keys if self._steps[key.step].pass_.resizes]
        others = {key: "it is compared with" for key in keys if key not in sizing}
        before = build(others) if sizing and others else base
        ranking = rank(self._local_errors(before, full, keys), model=base.model, steps=self._steps)
        tried = confirmed_count(len(ranking), share)
        try:
            ranking = confirm(
                ranking,
                build=build,
                runner=self._runner,
                model=base.model,
                source=self._source,
                share=share,
                keys=keys,
                offset=self._split,
                progress=progress,
            )
        except RunnerError as error:
            if error.crashed:
                raise
            raise ModelError(f"{self._path.name}: the runtime does not run the simplified model: {error}") from error
        if alone := tried - sum(item.output_error is not None for item in ranking):
            self._notes.append(f"{alone} of the {tried} worst sites cannot be rewritten alone and were not confirmed")
        progress(1.0, "done")
        return SensitivityReport(
            model=self._path.name,
            target=targets.render(self._target),
            recipe=self._recipe.name,
            pipeline=pipeline.render(self._steps),
            data=self._source.name,
            samples=len(self._source),
            generated=self._source.synthetic,
            ranking=ranking,
            tried=tried,
            confirmed_on=min(len(self._source), CONFIRMATION_SAMPLES) if tried else 0,
            left=self._selected_away(full),
            factor=factor,
            notes=list(dict.fromkeys([*self._samples.notes, *base.ledger.notes, *full.ledger.notes, *self._notes])),
        )

    def _lossless(self) -> RunResult:
        """The float model that a build would quantize."""
        steps = self._steps[: self._split]
        result = self._manager(steps, 0, {}).run(self._model, self._context)
        if self._recipe.never_worse:
            grown = growing_steps(self._model, result.model, steps, result.undone, self._context)
            if grown:
                result = self._manager(steps, 0, grown).run(self._model, self._context)
        return result

    def _manager(self, steps: list[Step], offset: int, denied: Mapping[SiteKey, str]) -> PassManager:
        return PassManager(
            steps,
            verify=self._samples.verifier,
            denied={dataclasses.replace(key, step=key.step - offset): reason for key, reason in denied.items()},
            on_failure="raise" if self._recipe.name == "passes" else "undo",
            insert_required=False,
        )

    def _local_errors(self, base: RunResult, full: RunResult, keys: list[SiteKey]) -> dict[SiteKey, float]:
        """What each pass says of its sites; those it says nothing of are counted in a note."""
        self._request.progress(0.0, "measuring the output error of every site")
        errors: dict[SiteKey, float] = {}
        for index in range(self._split, len(self._steps)):
            mine = [key for key in keys if key.step == index]
            if not mine:
                continue
            pass_ = self._steps[index].pass_
            found = pass_.site_errors(base.model, full.model, [key.site for key in mine], self._context)
            if found is None:
                self._notes.append(
                    f"{pass_.name} does not tell the errors of its {len(mine)} sites; they are not ranked"
                )
                continue
            told = {key: found[key.site] for key in mine if key.site in found}
            if missing := len(mine) - len(told):
                self._notes.append(
                    f"the errors of {missing} of {len(mine)} sites of {pass_.name} could not be measured"
                )
            errors |= told
        return errors

    def _selected_away(self, full: RunResult) -> dict[SiteKey, Left]:
        """The sites that the user's selectors keep in float."""
        left: dict[SiteKey, Left] = {}
        for index, record in enumerate(full.ledger.passes):
            for entry in record.skipped:
                if left_kind(entry.reason) == "selection":
                    left[SiteKey(index + self._split, entry.site)] = "selection"
        return left
