"""The promises every pass makes, checked on models: the rules of a pass author, in one place.

| rule | what must hold |
| --- | --- |
| raises | neither `sites` nor `rewrite` raises |
| looks only | `sites` alone changes nothing, and a pass that reports no rewrite made none |
| input untouched | the model the copy was taken from is the same afterwards, and so is every tensor |
| valid | the onnx checker passes, and initializers are what their values say |
| interface | inputs and outputs keep name, type and shape |
| idempotent | a second application finds nothing and changes nothing |
| deterministic | another application to another copy gives the same bytes |
| numbers | outputs agree under the contract in ONNX Runtime with its optimizations off |
| sharing | all of this where the values it removes have other users, are graph outputs, or may be overridden |
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir

from irc.application import apply_pass
from irc.errors import DataError, IrcError, RunnerError
from irc.ir import check, interface, normalize, snapshot
from irc.ledger import PassRecord
from irc.pass_base import Context, Contract, Pass
from irc.pipeline import Step
from irc.runner import Feed, Runner
from irc.testing.integrity import model_bytes, tensor_digests, untrue_initializers, with_read_only_tensors
from irc.testing.sharing import Variant, variants
from irc.verification import Verifier

Models = ir.Model | onnx.ModelProto | Iterable[ir.Model | onnx.ModelProto] | Mapping[str, ir.Model | onnx.ModelProto]
Sharing = Literal["skip", "conform", "refuse"]
MAX_TOLD = 12


@dataclasses.dataclass(frozen=True)
class Violation:
    """One broken promise.

    Attributes:
        model: Name of the model, with what was changed about it.
        rule: Which promise; a row of the table of this module.
        message: What happened.
    """

    model: str
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.model}: {self.rule}: {self.message}"


@dataclasses.dataclass
class Conformance:
    """What checking a pass gave.

    Attributes:
        violations: Broken promises; none is what one hopes for.
        rewritten: Ids of the rewritten sites, by model.
        not_run: Models whose numbers were not compared, with the reason.
    """

    violations: list[Violation] = dataclasses.field(default_factory=list)
    rewritten: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    not_run: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no promise was broken."""
        return not self.violations


def check_pass(
    pass_: Pass,
    models: Models,
    *,
    sharing: Sharing = "conform",
    feeds: Sequence[Feed] | Callable[[ir.Model], Sequence[Feed]] | None = None,
    context: Context | None = None,
    runner: Runner | None = None,
) -> Conformance:
    """Applies a pass to models and says which of its promises it broke.

    Args:
        pass_: The pass.
        models: Models in memory: one, several, or several by name. Unchanged.
        sharing: Which variants of the models are checked too, in which a value that the pass removes has another user,
            also one in a body, or is a graph output, and in which a weight it removes may be overridden by the caller.
            "conform": they are; "refuse": the pass must not fire on the variants with users and outputs;
            "skip": no variants.
        feeds: Inputs to run the models on; by default generated, and for an exact pass also with NaN, infinities and -0.
        context: What the pass may ask of the world.
        runner: Where models run; by default a process shared by all calls.

    Returns:
        What was broken, what was rewritten, and what could not be run.
    """
    result = Conformance()
    ctx = dataclasses.replace(context or Context(), runner=runner or (context and context.runner) or shared_runner())
    for name, model in _named(models).items():
        one = _Check(pass_, name, model, ctx, feeds, result)
        base = one.run()
        if base is None or sharing == "skip":
            continue
        for variant in variants(one.armed, base):
            _Check(pass_, f"{name}, {variant.what}", variant.model, ctx, feeds, result, variant, sharing).run()
    return result


def assert_conforms(pass_: Pass, models: Models, *, must_fire: bool = False, **options: Any) -> Conformance:
    """Asserts that a pass keeps its promises on models.

    Args:
        pass_: The pass.
        models: Models in memory: one, several, or several by name. Unchanged.
        must_fire: Whether it must also rewrite something in each of them.
        options: Those of `check_pass`.

    Raises:
        AssertionError: With every broken promise on a line of its own.
    """
    result = check_pass(pass_, models, **options)
    told = [str(violation) for violation in result.violations[:MAX_TOLD]]
    if must_fire:
        names = _named(models)
        told += [f"{name}: it rewrites nothing" for name in names if not result.rewritten.get(name)]
    if len(result.violations) > MAX_TOLD:
        told.append(f"... and {len(result.violations) - MAX_TOLD} more")
    if told:
        raise AssertionError(f"{pass_.name} does not conform:\n  " + "\n  ".join(told))
    return result


@functools.cache
def shared_runner() -> Runner:
    """The runtime process that checks share; it ends with the interpreter."""
    return Runner(threads=1)


def _named(models: Models) -> dict[str, ir.Model | onnx.ModelProto]:
    if isinstance(models, ir.Model | onnx.ModelProto):
        return {"model": models}
    if isinstance(models, Mapping):
        return dict(models)
    return {f"model {index}": model for index, model in enumerate(models)}


class _Check:
    """One model under one pass."""

    def __init__(
        self,
        pass_: Pass,
        name: str,
        model: ir.Model | onnx.ModelProto,
        ctx: Context,
        feeds: Sequence[Feed] | Callable[[ir.Model], Sequence[Feed]] | None,
        result: Conformance,
        variant: Variant | None = None,
        sharing: Sharing = "conform",
    ) -> None:
        self._pass, self._name, self._ctx, self._feeds, self._result = pass_, name, ctx, feeds, result
        self._variant, self._sharing = variant, sharing
        self.armed = with_read_only_tensors(model if isinstance(model, ir.Model) else normalize(model))

    def run(self) -> Applied | None:
        """Applies and checks; None if it could not even be applied."""
        before, tensors = model_bytes(self.armed), tensor_digests(self.armed)
        try:
            looked = snapshot(self.armed)
            for _ in self._pass.sites(looked, self._ctx):
                pass
            if model_bytes(looked) != before:
                self._broken("looks only", "sites() alone changes the model")
            work, record = self._apply(self.armed)
            again, _ = self._apply(self.armed)
            second, second_record = self._apply(work)
        except Exception as error:
            self._broken("raises", f"{type(error).__name__}: {error}")
            return None
        rewritten = [entry.site for entry in record.rewritten]
        if self._variant is None:
            self._result.rewritten[self._name] = rewritten
        after = model_bytes(work)
        if not rewritten and after != before:
            self._broken("looks only", "it reports no rewrite, and the model is another")
        if model_bytes(self.armed) != before or tensor_digests(self.armed) != tensors:
            self._broken("input untouched", "the pass writes into the model or a tensor that its copy shares")
        if second_record.rewritten or model_bytes(second) != after:
            sites = [entry.site for entry in second_record.rewritten]
            self._broken("idempotent", f"a second application rewrites {sites or 'nothing, and changes the model'}")
        if model_bytes(again) != after:
            self._broken("deterministic", "two applications to copies of one model differ")
        if self._is_valid(work) and rewritten:
            self._compare(work)
        if self._variant is not None and self._sharing == "refuse" and self._variant.must_refuse:
            still = [site for site in self._variant.sites if site in rewritten]
            if still == self._variant.sites:
                self._broken("sharing", f"it still rewrites {still}")
        return Applied(work, rewritten)

    def _apply(self, model: ir.Model) -> tuple[ir.Model, PassRecord]:
        work = snapshot(model)
        return work, apply_pass(Step(self._pass), work, self._ctx).record

    def _broken(self, rule: str, message: str) -> None:
        self._result.violations.append(Violation(self._name, rule, message))

    def _is_valid(self, work: ir.Model) -> bool:
        difference = interface(self.armed).difference(interface(work), narrower=self._pass.narrows)
        if difference is not None:
            self._broken("interface", difference)
        try:
            check(work)
        except IrcError as error:
            self._broken("valid", str(error))
            return False
        wrong = untrue_initializers(work)
        if wrong:
            self._broken("valid", wrong[0])
        return difference is None and not wrong

    def _compare(self, work: ir.Model) -> None:
        assert self._ctx.runner is not None
        runner, contract = self._ctx.runner, self._pass.contract
        try:
            feeds = self._choose_feeds(runner)
        except (DataError, RunnerError) as error:
            self._result.not_run[self._name] = str(error)
            return
        for batch in (feeds, self._exceptional(feeds)):
            if not batch:
                continue
            verifier = Verifier(runner, self.armed, batch)
            if verifier.reference_failed:
                self._result.not_run.setdefault(self._name, verifier.reference_failed)
                continue
            if contract.lossless:
                verdict = verifier.check(work, contract)
                if not verdict.ok:
                    self._broken("numbers", verdict.message)
            elif (message := _form_differs(runner, self.armed, work, batch)) is not None:
                self._broken("numbers", message)

    def _choose_feeds(self, runner: Runner) -> list[Feed]:
        from irc.calibration import runnable_feeds

        if callable(self._feeds):
            feeds = list(self._feeds(self.armed))
        elif self._feeds is not None:
            feeds = list(self._feeds)
        else:
            feeds = [sample.feed for sample in runnable_feeds(runner, self.armed, count=3).samples()]
        if self._variant is None or self._variant.overrides is None:
            return feeds
        return [{**feed, **self._variant.overrides} for feed in feeds]

    def _exceptional(self, feeds: list[Feed]) -> list[Feed]:
        """The first feed with values that only an exact rewrite must keep in their places."""
        if self._pass.contract is not Contract.EXACT or self._feeds is not None or not feeds:
            return []
        feed = {name: with_exceptions(array) for name, array in feeds[0].items()}
        return [feed] if any(array is not feeds[0][name] for name, array in feed.items()) else []


@dataclasses.dataclass(frozen=True)
class Applied:
    """A rewritten model and the ids of the rewritten sites."""

    model: ir.Model
    rewritten: list[str]


def with_exceptions(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A float array with -0.0, NaN and both infinities in places; others as they are."""
    if array.dtype.kind != "f" or not array.size:
        return array
    values = array.copy().reshape(-1)
    for index, value in enumerate((-0.0, np.nan, np.inf, -np.inf)):
        values[index * max(1, values.size // 4) % values.size] = value
    return values.reshape(array.shape)


def _form_differs(runner: Runner, before: ir.Model, after: ir.Model, feeds: Sequence[Feed]) -> str | None:
    """How the outputs of an approximate rewrite differ in shape or type, or why it does not run; None if they do not."""
    try:
        with runner.open(before, optimization="none") as mine, runner.open(after, optimization="none") as theirs:
            for feed in feeds:
                expected, found = mine.run(feed), theirs.run(feed)
                for name, value in expected.items():
                    a, b = np.asarray(value), np.asarray(found[name])
                    if (a.dtype, a.shape) != (b.dtype, b.shape):
                        return f"output {name!r} was {a.dtype}{list(a.shape)} and is {b.dtype}{list(b.shape)}"
    except RunnerError as error:
        return f"the runtime refuses the rewritten model: {error}"
    return None
