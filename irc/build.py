"""One build for one target: from the loaded model to a staged artifact with its evidence.

The lossless prefix of the pipeline runs once. What follows the first approximate pass is a candidate, rebuilt by the guard
with fewer and fewer sites until it is within the accuracy budget; the survivor is staged, read back and timed against
the original file, and gives way to the lossless model if it is slower than the budget allows, and that to the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from irc.acceptance import Accepted, accept, without_slower
from irc.application import SiteKey
from irc.artifact import Stage, data_file
from irc.built import Built, shifted
from irc.calibration.data import DataSource, SamplesWithout
from irc.candidates import Candidates, Choices
from irc.decisions import Decisions, Kept
from irc.dumps import Dumps
from irc.errors import ModelError, UsageError
from irc.expansion import expand
from irc.growth import growing_steps
from irc.ir import provenance, save, snapshot
from irc.judge import Assessment, Budget, Judge
from irc.judge.halves import split
from irc.ledger import Ledger
from irc.measurement import Measurement
from irc.pass_base import MODEL_SITE, Context
from irc.pass_manager import PassManager, RunResult
from irc.pipeline import Step
from irc.plan import Plan
from irc.recipe import Recipe
from irc.runner import Feed, Runner
from irc.selection import Selection
from irc.sensitivity import Sensitivity
from irc.site_ranking import rank_sites

if TYPE_CHECKING:
    from irc.driver import Request
    from irc.target import Target

LEAST_UNSEEN = 16
"""Samples that nothing was fitted to, from which on they say more of the accuracy than many that were."""


class Build:
    """Carries one build through its stages.

    Args:
        path: The input file.
        model: The loaded input; not modified.
        recipe: Pipeline and budget.
        target: What the artifact must run on.
        request: Data, metric and options.
        plan: Decisions to replay instead of making them; None to decide.
        selection: Sites that approximate passes may touch.
        stage: Where files are completed.
        examples: Inputs to verify and measure on where there is no data.
        notes: What the report should say of where the input came from.
        label: Start of the names of its folders in the stage, where several builds share one.
    """

    def __init__(
        self,
        *,
        path: Path,
        model: ir.Model,
        recipe: Recipe,
        target: Target,
        request: Request,
        plan: Plan | None,
        selection: Selection,
        stage: Stage,
        examples: Sequence[Feed] = (),
        notes: Sequence[str] = (),
        label: str = "",
    ) -> None:
        self.path, self.model, self.recipe, self.target = path, model, recipe, target
        self.request, self.plan, self.stage, self._label = request, plan, stage, label
        self.steps: list[Step] = list(recipe.steps) if plan is not None else expand(recipe.steps, selection=selection)
        self.budget = Budget.parse(
            max_drop=recipe.max_drop, min_speedup=recipe.min_speedup, target_size=recipe.target_size
        )
        self._dumps = Dumps(stage.output, request.dump_after)
        self.notes: list[str] = [*notes, *provenance(model).notes]
        self.decisions = Decisions(plan.decisions if plan is not None else None)
        self.choices: Choices = {}
        self._asked: tuple[str, ...] = ()
        self.sensitivity: list[Sensitivity] = []
        self._examples = list(examples)
        self._float_model: ir.Model | None = None
        self._accepting: frozenset[str] | None = None
        self._fitted: set[str] = set()
        approximate = [i for i, step in enumerate(self.steps) if not step.pass_.contract.lossless]
        self._split = approximate[0] if approximate else len(self.steps)
        _check_names(self.steps, request)
        for name, asked in (("sensitivity", request.sensitivity), ("keep-float-above", request.keep_float_above)):
            if asked and not approximate:
                raise UsageError(
                    f"--{name} is about what approximate passes rewrite, and the pipeline has none; try -O2"
                )

    @property
    def dumps(self) -> list[Path]:
        """Files written beside the artifact on the way: asked for, or to reproduce a failure."""
        return self._dumps.files

    @property
    def budget_text(self) -> str:
        """The budget in words; "" without one."""
        return self.budget.describe() if self.recipe.has_budget else ""

    def run(self) -> Built:
        """Runs all stages in a child process of the runtime.

        Raises:
            IrcError: Of the kind that fits; nothing is published then.
        """
        request = self.request
        with Runner(threads=request.threads) as runner:
            planned = self.plan.statistics if self.plan is not None else None
            samples = Measurement(self.path, self.model, request, runner, planned=planned, examples=self._examples)
            if samples.refused is not None and self._split < len(self.steps):
                raise ModelError(
                    f"{self.path.name}: the runtime cannot run it, so it can be neither calibrated nor judged: "
                    f"{samples.refused}; -O1 simplifies it"
                )
            base = self._run_lossless(runner, samples)
            self._asked = base.asked
            if self._split == len(self.steps):
                built = self._finish(base.model, base.ledger, base.undone, None, 0, runner, samples)
            else:
                built = self._run_approximate(base, runner, samples)
            if self._too_slow(built):
                built = self._restore(built, runner, samples)
            return built

    @property
    def made_decisions(self) -> Mapping[str, Kept]:
        """The decisions that the artifact rests on."""
        return {key: self.decisions.kept[key] for key in self._asked}

    @property
    def made_choices(self) -> Choices:
        """The variants that the artifact was built with; that of a site left in float still counts for what it shares."""
        return dict(self.choices)

    # -- lossless ---------------------------------------------------------------------------------------------------

    def _run_lossless(
        self, runner: Runner, samples: Measurement, left_out: Mapping[SiteKey, str] | None = None
    ) -> RunResult:
        steps = self.steps[: self._split]
        if not steps:
            return RunResult(snapshot(self.model), Ledger(), [])
        self.request.progress(0.05, "simplifying")
        context = self._context(runner, samples)

        def build(denied: Mapping[SiteKey, str]) -> RunResult:
            return self._manager(steps, 0, denied, runner, samples).run(self.model, context)

        denied = dict(left_out or {})
        result = build(denied)
        if self.recipe.never_worse and self.plan is None:
            growing = growing_steps(self.model, result.model, steps, {**result.undone, **denied}, context)
            if growing:
                denied |= growing
                result = build(denied)
        result.undone |= denied
        _mark_reverted(result.ledger, denied)
        return result

    def _manager(
        self,
        steps: list[Step],
        offset: int,
        denied: Mapping[SiteKey, str],
        runner: Runner,
        samples: Measurement,
        *,
        dump: bool = True,
    ) -> PassManager:
        planned = self.plan.denied if self.plan is not None else {}
        combined = {
            shifted(key, -offset): reason
            for key, reason in {**planned, **denied}.items()
            if offset <= key.step < offset + len(steps)
        }
        explicit = self.recipe.name == "passes"
        return PassManager(
            steps,
            # A plan says what verification undid; on other inputs it could decide otherwise.
            verify=samples.verifier if self.request.verify and self.plan is None else False,
            limits={k: v for k, v in self.request.limits.items() if k in {s.pass_.name for s in steps}},
            denied=combined,
            on_failure="raise" if explicit else "undo",
            after_pass=self._dumps.after_pass(offset) if dump and self.request.dump_after else None,
            insert_required=False,
            reproducer=self._dumps.write_reproducer,
        )

    def _context(self, runner: Runner, samples: Measurement, choices: Choices | None = None) -> Context:
        return Context(
            target=self.target,
            data=samples.source,
            collect=samples.collect,
            observe=samples.observe,
            decisions=self.decisions,
            choices=choices or {},
            runner=runner,
            reserved=self._reserved(samples),
            fitted=self._fitted,
            timed=self.request.measure,
            prove=self.request.verify == "full",
            seed=self.request.seed,
            progress=self.request.progress,
        )

    def _reserved(self, samples: Measurement) -> frozenset[str]:
        """The samples that a result is accepted on, where it has to be: nothing is fitted to them."""
        source = samples.source
        if self.plan is not None or source is None or not self.recipe.has_budget or self.budget.max_drop is None:
            return frozenset()
        if self._accepting is None:
            choice, acceptance = split(sample.key for sample in source.samples())
            self._accepting = acceptance - choice
        return self._accepting

    # -- approximate ------------------------------------------------------------------------------------------------

    def _run_approximate(self, base: RunResult, runner: Runner, samples: Measurement) -> Built:
        self._float_model = base.model
        steps = self.steps[self._split :]

        def build(denied: Mapping[SiteKey, str], choices: Choices, *, dump: bool = False) -> RunResult:
            context = self._context(runner, samples, choices)
            return self._manager(steps, self._split, denied, runner, samples, dump=dump).run(base.model, context)

        self.request.progress(0.2, "rewriting")
        planned = self.plan.choices if self.plan is not None else {}
        context = self._context(runner, samples, planned)
        candidates = Candidates(
            base.model, steps, self._split, lambda denied, choices: build(denied, choices or planned), context, runner
        )
        if self.plan is None:
            self.sensitivity = rank_sites(
                candidates, factor=self.request.keep_float_above, confirmed=self.request.sensitivity
            )
        keys = candidates.keys
        if not keys:
            self.notes.append("no site could be rewritten by an approximate pass; the artifact is lossless")
        judge = self._judge(runner, samples) if keys and self.plan is None else None
        accepted = self._accept(candidates, judge, runner, samples)
        candidates.close()
        self.choices = accepted.choices or planned
        if self.request.dump_after:
            # Of all that was built, what stays is dumped.
            accepted.result = build({**candidates.left, **accepted.denied}, self.choices, dump=True)
        ledger, undone = self._joined(base, accepted.result, {**candidates.left, **accepted.denied})
        accepted.annotate(ledger)
        model, assessment = accepted.result.model, accepted.assessment
        built = self._finish(model, ledger, undone, assessment, accepted.reverted, runner, samples)
        if self._too_slow(built):
            assert built.latency is not None
            slower = f"slower than the original ({built.latency.describe()})"
            why = {key: f"{candidates.taken_back(key)}: the rewritten model is {slower}" for key in keys}
            built = self._lossless_instead(base, {**candidates.left, **why}, None, runner, samples)
            built.missed.append(f"the rewritten model was {slower}; the artifact is lossless")
        elif keys and accepted.reverted == len(keys):
            denied = {**candidates.left, **accepted.denied}
            built = self._lossless_instead(base, denied, accepted.assessment, runner, samples)
            built.missed.append(
                f"no site can be rewritten within {self.budget.describe_drop()}; the artifact is lossless"
            )
        return built

    def _accept(self, candidates: Candidates, judge: Judge | None, runner: Runner, samples: Measurement) -> Accepted:
        """The candidate to go on with: within the accuracy budget where there is one, without what does not pay."""
        measured = self.request.measure and self.plan is None and self.target.executed_here
        feeds = samples.latency_feeds() if measured and candidates.keys else []
        guarded = judge is not None and self.budget.max_drop is not None and self.recipe.has_budget
        if judge is not None and guarded:
            found = accept(
                candidates,
                judge,
                self.budget,
                target=self.target,
                feeds=feeds,
                objective=self.recipe.objective,
                search=self.request.search,
                workers=self.request.workers,
                notes=self.notes,
            )
        else:
            found = Accepted(candidates.full)
        if self._speed_decides and feeds and len(candidates.keys) > len(found.denied):
            found = without_slower(
                found, candidates, judge if guarded else None, self.budget, self.target, feeds, self.request.seed
            )
        if judge is not None and found.assessment is None:
            self.request.progress(0.7, "judging")
            found.assessment = candidates.assess(judge, found.result, "acceptance" if guarded else "all")
        return found

    def _judge(self, runner: Runner, samples: Measurement) -> Judge | None:
        if samples.source is None:
            self.notes.append("accuracy not judged: there is no data; give --data to judge and to calibrate")
            return None
        original = runner.open(self.path)
        return Judge(
            self.model,
            original,
            self._judged_on(samples),
            metric=self.request.metric,
            label=self.request.label,
            budget=self.budget,
            seed=self.request.seed,
        )

    def _judged_on(self, samples: Measurement) -> DataSource:
        """All samples where some are kept apart for a budget; else those that no weights were fitted to, if there are enough."""
        source = samples.source
        assert source is not None
        if not self._fitted or self._reserved(samples):
            return source
        unseen = SamplesWithout(source, self._fitted)
        if len(unseen) < LEAST_UNSEEN:
            self.notes.append(
                "the accuracy is of samples that weights were fitted to, which flatters it: give more of them"
            )
            return source
        self.notes.append(f"the accuracy is of the {len(unseen)} samples that no weights were fitted to")
        return unseen

    def _joined(
        self, base: RunResult, result: RunResult, denied: Mapping[SiteKey, str]
    ) -> tuple[Ledger, dict[SiteKey, str]]:
        """The ledger of both halves of the pipeline, and every rewrite that was not to be made, for the plan."""
        ledger = Ledger(list(base.ledger.passes), list(base.ledger.notes), base.ledger.verification_runs)
        ledger.extend(result.ledger)
        self._asked = tuple(dict.fromkeys((*base.asked, *result.asked)))
        _mark_reverted(ledger, denied)
        later = {shifted(key, self._split): reason for key, reason in result.undone.items()}
        return ledger, {**base.undone, **later, **denied}

    # -- the artifact -------------------------------------------------------------------------------------------------

    def _finish(
        self,
        model: ir.Model,
        ledger: Ledger,
        undone: Mapping[SiteKey, str],
        assessment: Assessment | None,
        reverted: int,
        runner: Runner,
        samples: Measurement,
        *,
        folder: str = "candidate",
    ) -> Built:
        """Stages a model and gathers the evidence about it."""
        self.request.progress(0.8, "writing")
        file = self.stage.subfolder(self._label + folder) / self.stage.output.name
        save(model, file)
        coverage = None
        asked = self.plan is None or self.request.require
        if any(record.contract == "approximate" for record in ledger) and asked:
            resizing = frozenset(step.pass_.name for step in self.steps if step.pass_.resizes)
            coverage = samples.coverage(self.target, self._float_model or model, ledger, file, besides=resizing)
        latency = None
        if self.request.measure and self.plan is None and self.steps:
            if self.target.executed_here:
                self.request.progress(0.85, "measuring latency")
                latency = samples.latency(file)
            else:
                samples.notes.append(f"latency not measured: {self.target.name} is not executed here")
        built = Built(
            model=model,
            file=file,
            ledger=ledger,
            denied=dict(undone),
            statistics=samples.statistics,
            samples=samples.collected,
            data_name=samples.name,
            assessment=assessment,
            coverage=coverage,
            latency=latency,
            reverted=reverted,
            missed=[],
            notes=list(dict.fromkeys([*samples.notes, *self.notes, *ledger.notes])),
            refinements=frozenset(step.pass_.name for step in self.steps if step.pass_.refines),
        )
        built.missed += self._missed(built)
        return built

    def _missed(self, built: Built) -> list[str]:
        if not self.recipe.has_budget or self.plan is not None:
            return []
        size = built.file.stat().st_size
        if (external := data_file(built.file)).exists():
            size += external.stat().st_size
        return self.budget.missed(built.assessment, built.latency, size)

    @property
    def _speed_decides(self) -> bool:
        """Whether approximate rewrites have to pay in time: not those named beside a lossless level, without a budget."""
        return self.budget.min_speedup is not None or (self.recipe.never_worse and self.recipe.has_budget)

    def _too_slow(self, built: Built) -> bool:
        """Whether the artifact must not be: slower than the original where a budget of speed forbids it."""
        least = self.budget.min_speedup
        approximated = any(record.contract == "approximate" and record.rewritten for record in built.ledger)
        if least is None and (self._speed_decides if approximated else self.recipe.never_worse):
            least = 1.0
        if self.plan is not None:
            return False
        return least is not None and built.latency is not None and built.latency.slower_than(min(1.0, least))

    def _lossless_instead(
        self,
        base: RunResult,
        denied: Mapping[SiteKey, str],
        assessment: Assessment | None,
        runner: Runner,
        samples: Measurement,
    ) -> Built:
        """The lossless model in place of a candidate, without what only prepared it.

        Args:
            base: The lossless model, prepared.
            denied: All approximate rewrites, with the reason.
            assessment: The judge's word on it; None if it was not asked.
            runner: Where models run.
            samples: Of this build.
        """
        preparing = {
            SiteKey(i, MODEL_SITE): "left out: it only prepares what was taken back"
            for i, step in enumerate(self.steps[: self._split])
            if step.pass_.prepares and base.ledger.passes[i].rewritten
        }
        if preparing:
            base = self._run_lossless(runner, samples, preparing)
        steps, context = self.steps[self._split :], self._context(runner, samples)
        manager = self._manager(steps, self._split, denied, runner, samples)
        result = manager.run(base.model, context)
        ledger, undone = self._joined(base, result, denied)
        built = self._finish(result.model, ledger, undone, assessment, len(denied), runner, samples, folder="lossless")
        self.choices = {}
        return built

    def _restore(self, slow: Built, runner: Runner, samples: Measurement) -> Built:
        """The original, saved again, in place of a lossless model that is slower."""
        assert slow.latency is not None
        why = f"left out: the lossless model is slower than the original ({slow.latency.describe()})"
        denied = {SiteKey(step, MODEL_SITE): why for step in range(len(self.steps))}
        result = self._manager(self.steps, 0, denied, runner, samples).run(self.model, self._context(runner, samples))
        _mark_reverted(result.ledger, denied)
        self._asked, self.choices = (), {}
        built = self._finish(
            result.model, result.ledger, denied, None, slow.reverted, runner, samples, folder="original"
        )
        said = [text for text in slow.missed if text.endswith("the artifact is lossless")]
        built.missed += [text.replace("the artifact is lossless", "lossless was tried") for text in said]
        text = (
            f"the lossless model was slower than the original ({slow.latency.describe()}); the artifact is the original"
        )
        (built.missed if self.recipe.has_budget else built.notes).append(text)
        return built


def _check_names(steps: Sequence[Step], request: Request) -> None:
    known = [step.pass_.name for step in steps]
    for name in request.dump_after:
        if name != "all" and name not in known:
            raise UsageError(f"--dump-after {name}: the pipeline has no such pass; it has {', '.join(known)}")
    for name in request.limits:
        if name not in known:
            raise UsageError(f"--limit {name}: the pipeline has no such pass; it has {', '.join(known)}")


def _mark_reverted(ledger: Ledger, denied: Mapping[SiteKey, str]) -> None:
    """Moves what the guard took back from skipped to undone."""
    by_step: dict[int, dict[str, str]] = {}
    for key, reason in denied.items():
        by_step.setdefault(key.step, {})[key.site] = reason
    for step, sites in by_step.items():
        record = ledger.passes[step]
        record.undone += [e for e in record.skipped if sites.get(e.site) == e.reason]
        record.skipped = [e for e in record.skipped if sites.get(e.site) != e.reason]


__all__ = ["Build"]
