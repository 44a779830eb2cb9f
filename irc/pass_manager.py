"""Run a pipeline of passes over a model, verified: every rewrite is checked, and the one at fault is undone.

Consecutive lossless passes form a stretch. A stretch is verified once, at its end, against reference outputs of the
model it started from. If the outputs differ, or the model is no longer valid, `irc.isolation` finds the sites at fault by
bisection; they are undone and the rest stays. Approximate passes are checked for validity only: the judge decides
about their numbers.

    result = PassManager(["fold-batch-norm", MyPass(ratio=0.5)]).run(model)
    result.model, result.ledger
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import onnx_ir as ir

from irc import pipeline, registry
from irc.application import Applied, Permit, SiteKey, apply_pass
from irc.errors import IrcError, ModelError, PassFailed, UsageError
from irc.ir import check, interface, snapshot
from irc.isolation import Isolation, isolate
from irc.ledger import Entry, Ledger
from irc.pass_base import Context, Contract, Pass
from irc.pipeline import Step
from irc.selection import Selection


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
OnFailure = Literal["raise", "undo"]
MAX_FAILED_SITES = 20


@dataclasses.dataclass
class RunResult:
    """What a run of the pass manager gave.

    Attributes:
        model: The rewritten model; the one passed in is unchanged.
        ledger: What every pass did.
        steps: The pipeline as it ran, inserted passes included.
    """

    model: ir.Model
    ledger: Ledger
    steps: list[Step]


class PassManager:
    """Runs passes over a model with selection, verification, blame and a ledger.

    Args:
        passes: Passes, registered names, pipeline texts, steps, or `onnx_ir` passes (adapted as whole-model passes).
        verify: True verifies lossless passes on generated inputs (or the context's data) in a child process; a factory
            supplies another verifier; False only checks validity.
        selection: Sites that approximate passes may touch; every pass, if none is approximate.
        limits: At most this many sites per pass name.
        denied: Rewrites not to make, with the reason: how a plan and the guard speak to the manager.
        on_failure: "raise" ends the run when a pass raises; "undo" drops the site (or pass) and goes on.
        after_pass: Called with (index, step, model) after each pass, for dumps.
        insert_required: Whether passes that establish required facts are inserted; False when they already are.
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
    ) -> None:
        steps = as_steps(passes)
        self.steps = expand(steps, selection=selection) if insert_required else steps
        self._verify = verify
        self._limits = dict(limits or {})
        self._denied = dict(denied or {})
        self._on_failure: OnFailure = on_failure
        self._after_pass = after_pass
        self._reproducer = reproducer
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
            PassFailed: If a pass raised and `on_failure` is "raise"; the message names the pass and the site.
            ModelError: If the model is invalid to begin with, or an approximate pass left it so.
        """
        ctx = context or Context()
        ledger = Ledger()
        work = snapshot(model)
        work.graph.name = work.graph.name or "graph"
        check(work)
        with _services(self._verify, ctx, work) as (ctx, factory):
            for stretch in _stretches(self.steps):
                work = self._run_stretch(work, stretch, ctx, ledger, factory)
        return RunResult(work, ledger, self.steps)

    def _run_stretch(
        self, start: ir.Model, stretch: range, ctx: Context, ledger: Ledger, factory: VerifierFactory | None
    ) -> ir.Model:
        lossless = self.steps[stretch[0]].pass_.contract.lossless
        work, applied, failures = self._apply_tolerantly(start, stretch, ctx)
        records = [a.record for a in applied]
        keys = [key for a in applied for key in a.keys]
        if keys:
            sound = _Soundness(start, self.steps, factory if lossless else None)
            reason = sound.violation(work, keys)
            if reason is not None and not lossless:
                raise ModelError(f"{self.steps[stretch[0]].pass_.name}: {reason}")
            if reason is not None:

                def rebuild(allowed: Sequence[SiteKey]) -> ir.Model:
                    chosen = set(allowed)
                    permit = lambda key: None if key in chosen else "not part of this trial"  # noqa: E731
                    return self._apply(start, stretch, ctx, permit)[0]

                isolation = isolate(keys, reason, rebuild=rebuild, violation=sound.violation)
                work = isolation.model
                _undo(applied, isolation)
            ledger.verification_runs += sound.runs
            ledger.notes += [note for note in sound.notes if note not in ledger.notes]
        for failed_record, entry in failures:
            for record in records:
                if record.text == failed_record:
                    record.undone.append(entry)
        ledger.passes += records
        if self._after_pass is not None and not lossless:
            self._after_pass(stretch[0], self.steps[stretch[0]], work)
        return work

    def _apply_tolerantly(
        self, start: ir.Model, stretch: range, ctx: Context
    ) -> tuple[ir.Model, list[Applied], list[tuple[str, Entry]]]:
        """Applies a stretch; with `on_failure="undo"`, goes on without the sites and passes that raise."""
        dropped: dict[tuple[str, str | None], str] = {}
        failures: list[tuple[str, Entry]] = []
        while True:

            def permit(key: SiteKey) -> str | None:
                name = self.steps[key.step].pass_.name
                return dropped.get((name, key.site)) or dropped.get((name, None))

            try:
                work, applied = self._apply(start, stretch, ctx, permit, dump=True)
            except PassFailed as failure:
                advice = self._reproduce(start, stretch, failure) if not dropped else ""
                if self._on_failure == "raise" or (failure.pass_name, None) in dropped:
                    raise PassFailed(f"{failure}{advice}", pass_name=failure.pass_name, site=failure.site) from failure
                whole = failure.site is None or len(failures) >= MAX_FAILED_SITES
                site = None if whole else failure.site
                dropped[failure.pass_name, site] = str(failure)
                text = next(self.steps[i].text for i in stretch if self.steps[i].pass_.name == failure.pass_name)
                failures.append((text, Entry(site or "<model>", "", f"the pass failed here: {failure}{advice}")))
                continue
            return work, applied, failures

    def _reproduce(self, start: ir.Model, stretch: range, failure: PassFailed) -> str:
        """Hands out the smallest pipeline that shows the failure: the stretch up to the pass that failed."""
        if self._reproducer is None:
            return ""
        last = next(i for i in stretch if self.steps[i].pass_.name == failure.pass_name)
        return self._reproducer(start, pipeline.render(self.steps[stretch[0] : last + 1]), failure)

    def _apply(
        self, start: ir.Model, stretch: range, ctx: Context, permit: Permit, *, dump: bool = False
    ) -> tuple[ir.Model, list[Applied]]:
        work = snapshot(start)
        applied = []
        for index in stretch:
            step = self.steps[index]
            allowed = lambda key: self._denied.get(key) or permit(key)  # noqa: E731
            applied.append(
                apply_pass(step, work, ctx, index=index, permit=allowed, limit=self._limits.get(step.pass_.name))
            )
            if dump and self._after_pass is not None and step.pass_.contract.lossless:
                self._after_pass(index, step, work)
        return work, applied


class _Soundness:
    """Answers whether a rewritten model is valid and computes what the start of the stretch computes."""

    def __init__(self, start: ir.Model, steps: Sequence[Step], factory: VerifierFactory | None) -> None:
        self._start, self._steps, self._factory = start, steps, factory
        self._interface = interface(start)
        self._verifier: Verifier | None = None
        self.notes: list[str] = []

    @property
    def runs(self) -> int:
        return self._verifier.runs if self._verifier is not None else 0

    def violation(self, model: ir.Model, keys: Sequence[SiteKey]) -> str | None:
        """What is wrong with the model after these rewrites, or None."""
        try:
            check(model)
        except IrcError as error:
            return f"the model is no longer valid: {error}"
        if (difference := self._interface.difference(interface(model))) is not None:
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


def _undo(applied: list[Applied], isolation: Isolation) -> None:
    """Moves the culprits from rewritten to undone."""
    culprits = {key: reason for key, reason in isolation.undone}
    for one in applied:
        kept: list[Entry] = []
        for key, entry in zip(one.keys, one.record.rewritten, strict=True):
            if key in culprits:
                one.record.undone.append(dataclasses.replace(entry, reason=culprits[key]))
            else:
                kept.append(entry)
        one.record.rewritten = kept
        one.keys = [key for key in one.keys if key not in culprits]


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


def as_steps(passes: Iterable[object]) -> list[Step]:
    """Passes, names, pipeline texts, steps and foreign passes as steps."""
    steps: list[Step] = []
    for item in passes:
        if isinstance(item, Step):
            steps.append(item)
        elif isinstance(item, Pass):
            steps.append(Step(item))
        elif isinstance(item, str):
            steps += pipeline.parse(item)
        else:
            from irc.adapters import adapt

            steps.append(Step(adapt(item)))
    return steps


def expand(steps: Sequence[Step], *, selection: Selection = Selection()) -> list[Step]:  # noqa: B008
    """The steps with the passes inserted that establish what others require, and the build's selection applied.

    A selection applies to approximate passes; when the pipeline has none, to every pass.

    Raises:
        UsageError: If no registered pass establishes a required fact.
    """
    expanded: list[Step] = []
    known: set[str] = set()

    def add(step: Step, chain: tuple[str, ...]) -> None:
        for fact in step.pass_.requires:
            if fact in known:
                continue
            providers = registry.passes_establishing(fact)
            if not providers or providers[0] in chain:
                raise UsageError(f"{step.pass_.name} requires {fact!r}, which no registered pass establishes")
            provider = Step(registry.pass_class(providers[0])(), inserted_for=step.pass_.name)
            add(provider, (*chain, providers[0]))
        expanded.append(step)
        known.difference_update(step.pass_.invalidates)
        known.update(step.pass_.establishes)

    only_lossless = all(step.pass_.contract.lossless for step in steps)
    for step in steps:
        selected = selection and (only_lossless or not step.pass_.contract.lossless)
        both = Selection(step.selection.include + selection.include, step.selection.exclude + selection.exclude)
        add(dataclasses.replace(step, selection=both) if selected else step, (step.pass_.name,))
    return expanded


@contextlib.contextmanager
def _services(
    verify: bool | VerifierFactory, ctx: Context, model: ir.Model
) -> Iterator[tuple[Context, VerifierFactory | None]]:
    """What the context leaves open: a target and data given as text, a collector, a verifier, and the process they run in."""
    from irc import targets
    from irc.calibration import DataSource, collect, open_data
    from irc.runner import Runner
    from irc.verification import verifier_factory

    with contextlib.ExitStack() as stack:
        runner = ctx.runner if ctx.runner is not None else stack.enter_context(Runner())
        ctx = dataclasses.replace(ctx, runner=runner)
        if isinstance(ctx.target, str):
            ctx = dataclasses.replace(ctx, target=targets.parse(ctx.target))
        if ctx.data is not None and not isinstance(ctx.data, DataSource):
            ctx = dataclasses.replace(ctx, data=open_data(ctx.data, model, seed=ctx.seed, runner=runner))
        if ctx.collect is None and isinstance(ctx.data, DataSource):
            source = ctx.data
            ctx = dataclasses.replace(
                ctx,
                collect=lambda found, requests: collect(runner, found, source, requests, progress=ctx.progress),
            )
        if isinstance(verify, bool):
            yield ctx, verifier_factory(runner, ctx) if verify else None
        else:
            yield ctx, verify
