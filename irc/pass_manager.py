"""Run a pipeline of passes over a model, verified: every rewrite is checked, and the one at fault is undone.

Consecutive lossless passes form a stretch. A stretch is verified once, at its end, against reference outputs of the
model it started from. If the outputs differ, or the model is no longer valid, `irc.isolation` finds the sites at fault by
bisection; they are undone and the rest stays. Approximate passes are checked for validity only: the judge decides
about their numbers. What was decided is in `RunResult.undone`, so that a plan can repeat it.

A pass may stand in a pipeline several times: where nothing was rewritten since it ran last, it does not run again. So a
pipeline can repeat what may open the way for one another.

    result = PassManager(["fold-batch-norm", MyPass(ratio=0.5)]).run(model)
    result.model, result.ledger
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import onnx_ir as ir

from irc import pipeline
from irc.application import Applied, SiteKey, apply_pass
from irc.errors import PassFailed, UsageError
from irc.expansion import as_steps, expand
from irc.isolation import isolate
from irc.ledger import Entry, Ledger, PassRecord
from irc.pass_base import MODEL_SITE, Context
from irc.pipeline import Step
from irc.representation import OnnxRepresentation, Representation
from irc.selection import Selection
from irc.soundness import Soundness, VerifierFactory

OnFailure = Literal["raise", "undo"]
MAX_FAILED_SITES = 20
"""With so many failures in a stretch, a pass that raises once more is left out as a whole."""
NOT_TRIED = "it came up only after another rewrite was undone, and was left alone"


@dataclasses.dataclass
class RunResult:
    """What a run of the pass manager gave.

    Attributes:
        model: The rewritten model; the one passed in is unchanged.
        ledger: What every pass did.
        steps: The pipeline as it ran, inserted passes included.
        keys: The rewrites that were made and stayed, in order.
        undone: The rewrites that this run decided not to make, or took back, with the reason: given as `denied`, they make
            an unverified run without limits give the same model.
        asked: Keys of the decisions that passes asked for.
    """

    model: ir.Model
    ledger: Ledger
    steps: list[Step]
    keys: list[SiteKey] = dataclasses.field(default_factory=list)
    undone: dict[SiteKey, str] = dataclasses.field(default_factory=dict)
    asked: tuple[str, ...] = ()


class PassManager:
    """Runs passes over a model with selection, verification, blame and a ledger.

    Args:
        passes: Passes, registered names, pipeline texts, steps, or `onnx_ir` passes (adapted as whole-model passes).
        verify: True verifies lossless passes on generated inputs (or the context's data) in a child process; a factory
            supplies another verifier; False only checks validity.
        selection: Sites that approximate passes may touch; every pass, if none is approximate.
        limits: At most this many sites per pass name, over all its places in the pipeline.
        denied: Rewrites not to make, with the reason: how a plan and the guard speak to the manager. The site `<model>`
            stands for the whole pass.
        on_failure: "raise" ends the run when a pass raises or an approximate one leaves the model invalid; "undo" takes the
            site (or pass) back and goes on.
        after_pass: Called with (index, step, model) after each pass, for dumps.
        insert_required: Whether passes that establish required facts are inserted; False when they already are.
        representation: What the passes rewrite; ONNX by default.
        reproducer: Called when a pass raises, with the model that the failing pipeline text starts from, that text, and the
            failure; returns what to tell the user about it.

    Raises:
        UsageError: For an unknown pass or a requirement that no pass establishes.
    """

    def __init__(
        self,
        passes: Iterable[object],
        *,
        verify: bool | VerifierFactory = True,
        selection: Selection = Selection(),  # noqa: B008
        limits: Mapping[str, int] | None = None,
        denied: Mapping[SiteKey, str] | None = None,
        on_failure: OnFailure = "raise",
        after_pass: Callable[[int, Step, ir.Model], None] | None = None,
        insert_required: bool = True,
        reproducer: Callable[[ir.Model, str, PassFailed], str] | None = None,
        representation: Representation | None = None,
    ) -> None:
        steps = as_steps(passes)
        self.steps = expand(steps, selection=selection) if insert_required else steps
        self._verify = verify
        self._limits = dict(limits or {})
        self._denied = dict(denied or {})
        self._on_failure: OnFailure = on_failure
        self._after_pass = after_pass
        self._reproducer = reproducer
        self._ir = representation or OnnxRepresentation()
        known = {step.pass_.name for step in self.steps}
        for name in self._limits:
            if name not in known:
                raise UsageError(f"limit for {name!r}, which is not in the pipeline: {', '.join(sorted(known))}")

    @property
    def text(self) -> str:
        """The pipeline as text, inserted passes included."""
        return pipeline.render(self.steps)

    def run(self, model: ir.Model, context: Context | None = None) -> RunResult:
        """Runs the pipeline on a copy of the model.

        Raises:
            PassFailed: If `on_failure` is "raise" and a pass raised, or an approximate one left the model invalid; the
                message names the pass and the site.
            ModelError: If the model is invalid to begin with.
        """
        ctx = context or Context()
        work = self._ir.snapshot(model)
        self._ir.check(work)
        result = RunResult(work, Ledger(), self.steps)
        ctx.decisions.asked.clear()
        with self._ir.services(self._verify, ctx, work) as (ctx, factory):
            for stretch in _stretches(self.steps):
                result.model = self._run_stretch(result.model, stretch, ctx, result, factory)
        result.asked = tuple(ctx.decisions.asked)
        return result

    def _run_stretch(
        self, start: ir.Model, stretch: range, ctx: Context, result: RunResult, factory: VerifierFactory | None
    ) -> ir.Model:
        first = self.steps[stretch[0]]
        lossless = first.pass_.contract.lossless
        trial, undone = self._apply_tolerantly(start, stretch, ctx)
        if keys := trial.keys:
            sound = Soundness(start, self.steps, factory if lossless else None, self._ir)
            reason = sound.violation(trial.model, keys)
            if reason is not None and not lossless and self._on_failure == "raise":
                raise PassFailed(f"{first.pass_.name}: {reason}", pass_name=first.pass_.name, step=stretch[0])
            if reason is not None:
                whole, failed = trial, dict(undone)

                def rebuild(allowed: Sequence[SiteKey]) -> _Trial:
                    return self._apply(start, stretch, ctx, failed, only=frozenset(allowed), refused=whole.refused)

                isolation = isolate(
                    keys,
                    reason,
                    rebuild=rebuild,
                    violation=lambda trial, allowed: sound.violation(trial.model, allowed),
                )
                trial = isolation.trial
                undone |= isolation.undone
                if self._after_pass is not None:  # the dumps are of the passes as they stay
                    allowed = frozenset(trial.keys)
                    self._apply(start, stretch, ctx, failed, only=allowed, refused=whole.refused, dump=True)
            result.ledger.verification_runs += sound.runs
            result.ledger.notes += [note for note in sound.notes if note not in result.ledger.notes]
        for one in trial.applied:
            _move_to_undone(one, undone)
            result.keys += one.keys
            result.ledger.passes.append(one.record)
        for key, entry in trial.refused.items():
            if key not in self._denied:
                result.undone[key] = undone.get(key, entry.reason)
        return trial.model

    def _apply_tolerantly(self, start: ir.Model, stretch: range, ctx: Context) -> tuple[_Trial, dict[SiteKey, str]]:
        """Applies a stretch; with `on_failure="undo"`, goes on without the sites and passes that raise."""
        failed: dict[SiteKey, str] = {}
        while True:
            try:
                return self._apply(start, stretch, ctx, failed, dump=True), failed
            except PassFailed as failure:
                advice = self._reproduce(start, stretch, failure) if not failed else ""
                key = SiteKey(failure.step, failure.site or MODEL_SITE)
                if len(failed) >= MAX_FAILED_SITES or key in failed:
                    key = SiteKey(failure.step, MODEL_SITE)
                if self._on_failure == "raise" or key in failed:
                    raise PassFailed(
                        f"{failure}{advice}", pass_name=failure.pass_name, site=failure.site, step=failure.step
                    ) from failure
                failed[key] = f"the pass failed here: {failure}{advice}"

    def _reproduce(self, start: ir.Model, stretch: range, failure: PassFailed) -> str:
        """Hands out the smallest pipeline that shows the failure: the stretch up to the pass that failed."""
        if self._reproducer is None:
            return ""
        return self._reproducer(start, pipeline.render(self.steps[stretch[0] : failure.step + 1]), failure)

    def _apply(
        self,
        start: ir.Model,
        stretch: range,
        ctx: Context,
        failed: Mapping[SiteKey, str],
        *,
        only: frozenset[SiteKey] | None = None,
        refused: Mapping[SiteKey, Entry] | None = None,
        dump: bool = False,
    ) -> _Trial:
        """Applies a stretch to a copy of its start.

        Args:
            start: Unchanged.
            stretch: Which steps.
            ctx: For the passes.
            failed: Sites (or passes, as `<model>`) to leave out because they raise.
            only: Make these rewrites alone; what was `refused` before keeps its reason, limits included.
            refused: What was refused when all rewrites were made.
            dump: Whether to call `after_pass`.
        """
        denied = {**self._denied, **failed}
        trial = _Trial(self._ir.snapshot(start))
        ran: list[tuple[Step, int]] = []  # with the number of rewrites made until it was done
        offered: collections.Counter[str] = collections.Counter()
        nodes = self._ir.count_nodes(start)

        def permit(key: SiteKey) -> str | None:
            if (reason := denied.get(key)) is not None or only is None or key in only:
                return reason
            return refused[key].reason if refused is not None and key in refused else NOT_TRIED

        for index in stretch:
            step = self.steps[index]
            whole = SiteKey(index, MODEL_SITE)
            name, made = step.pass_.name, len(trial.keys)
            if whole in denied:
                one = _left_out(step, nodes, whole, denied[whole])
            elif any(done == made and _same_step(earlier, step) for earlier, done in ran):
                one = _unchanged(step, nodes)
            else:
                limit = self._limits.get(name) if only is None else None
                left = None if limit is None else max(0, limit - offered[name])
                one = apply_pass(
                    step,
                    trial.model,
                    ctx,
                    index=index,
                    permit=permit,
                    limit=left,
                    nodes_before=nodes,
                    count=self._ir.count_nodes,
                )
                offered[name] += one.offered
                ran.append((step, made + len(one.keys)))
            nodes = one.record.nodes_after
            trial.applied.append(one)
            if dump and self._after_pass is not None:
                self._after_pass(index, step, trial.model)
        return trial


@dataclasses.dataclass
class _Trial:
    """A stretch as applied to a copy of its start."""

    model: ir.Model
    applied: list[Applied] = dataclasses.field(default_factory=list)

    @property
    def keys(self) -> list[SiteKey]:
        return [key for one in self.applied for key in one.keys]

    @property
    def refused(self) -> dict[SiteKey, Entry]:
        return {key: entry for one in self.applied for key, entry in one.refused.items()}


def _same_step(a: Step, b: Step) -> bool:
    """Whether two places of a pipeline have the same pass, options and selection included."""
    return a.pass_ == b.pass_ and a.selection == b.selection


def _unchanged(step: Step, nodes: int) -> Applied:
    """What applying a pass gives that ran before on the same model."""
    return Applied(
        PassRecord(step.pass_.name, step.text, step.pass_.contract.value, nodes_before=nodes, nodes_after=nodes)
    )


def _left_out(step: Step, nodes: int, key: SiteKey, reason: str) -> Applied:
    """What applying a pass gives that is not to run at all."""
    entry = Entry(MODEL_SITE, "", reason)
    record = PassRecord(step.pass_.name, step.text, step.pass_.contract.value, nodes_before=nodes, nodes_after=nodes)
    record.skipped.append(entry)
    return Applied(record, refused={key: entry})


def _move_to_undone(one: Applied, undone: Mapping[SiteKey, str]) -> None:
    """Moves what verification or a failure took back from skipped to undone."""
    taken = {key: entry for key, entry in one.refused.items() if key in undone}
    sites = {key.site for key in taken}
    one.record.undone += [dataclasses.replace(entry, reason=undone[key]) for key, entry in taken.items()]
    one.record.skipped = [entry for entry in one.record.skipped if entry.site not in sites]


def _stretches(steps: Sequence[Step]) -> Iterator[range]:
    """Maximal runs of lossless steps, and each approximate step alone."""
    start = 0
    for i, step in enumerate(steps):
        if not step.pass_.contract.lossless:
            if start < i:
                yield range(start, i)
            yield range(i, i + 1)
            start = i + 1
    if start < len(steps):
        yield range(start, len(steps))
