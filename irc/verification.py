"""Verify rewritten models against reference outputs of the model they came from, in the runtime process.

The reference is computed once: unoptimized outputs, whether they are reproducible, and the rounding noise
(`irc.runner.reference`). A model that the runtime refuses, or that crashes or hangs it, is a violation like any other;
only a reference that cannot run makes verification impossible, which is said.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import time
import weakref
from collections.abc import Callable, Sequence

import onnx_ir as ir

from irc.errors import DataError, RunnerError
from irc.pass_base import Context, Contract
from irc.runner import Feed, Runner
from irc.runner.tolerance import Rules

MULTIPLE = 8.0
# A candidate may take this many times the reference, and at least this many seconds, before it counts as hanging.
PATIENCE = 30.0
LEAST_PATIENCE_SECONDS = 60.0
# Unit roundoffs of types that a model may compute in, times what accumulates over its depth.
_COARSE = {ir.DataType.FLOAT: 64 * 2.0**-23, ir.DataType.FLOAT16: 8 * 2.0**-10, ir.DataType.BFLOAT16: 8 * 2.0**-7}
_numbers = itertools.count(1)
_SHAPE_OPS = frozenset({"Shape", "Size"})


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What verification says of one model.

    Attributes:
        ok: Whether the contract holds.
        message: What differs and by how much; "" when nothing does.
        worst_output: The output with the largest error.
        error: Largest absolute difference.
        tolerance: What was allowed.
    """

    ok: bool
    message: str = ""
    worst_output: str = ""
    error: float = 0.0
    tolerance: float = 0.0


class Verifier:
    """Compares rewritten models with a reference.

    Args:
        runner: Where models run.
        model: The reference; not to be changed while this object is in use.
        feeds: Inputs to compare on.
        multiple: A rounding pass may err by this multiple of the model's own rounding noise.

    Attributes:
        runs: How many models were compared.
        reference_failed: Why the reference cannot run; None if it can.
        unstable: Outputs that are not compared, with the reason: they differ between two runs of the reference.
        notes: What a report should say about the verification.
    """

    def __init__(self, runner: Runner, model: ir.Model, feeds: Sequence[Feed], *, multiple: float = MULTIPLE) -> None:
        self._runner = runner
        self._folder = runner.process.folder / f"reference-{next(_numbers)}"
        self.runs = 0
        self.reference_failed: str | None = None
        self.unstable: dict[str, str] = {}
        self.notes: list[str] = []
        if not feeds:
            self.reference_failed = "there are no inputs to run it on"
            return
        types = _computed_types(model)
        coarsest = max((_COARSE[dtype] for dtype in types if dtype in _COARSE), default=0.0)
        rules = Rules(multiple=multiple, relative=coarsest, exact_outputs=_exact_integer_outputs(model))
        # The runtime computes half precision in single precision and rounds where a value is shared or leaves: its bits
        # depend on who else uses a value, with its optimizations off as well.
        self._context_dependent = ir.DataType.FLOAT16 in types
        start = time.perf_counter()
        try:
            self._compute(model, list(feeds), rules)
        except RunnerError as error:
            self.reference_failed = f"the runtime cannot run the original: {error}"
        self._patience = max(LEAST_PATIENCE_SECONDS, PATIENCE * (time.perf_counter() - start))
        # The process drops what it holds of a folder that is gone.
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def check(self, model: ir.Model, contract: Contract) -> Verdict:
        """Runs a model on the feeds of the reference and compares under a contract.

        A model that cannot run, in whatever way, does not hold the contract; nor does any while `reference_failed`. Of
        models that compute in float16, equal bits are not asked for, since the runtime does not give them.
        """
        self.runs += 1
        if self.reference_failed is not None:
            return Verdict(False, f"not verified: {self.reference_failed}")
        try:
            portable, _kept = self._runner.portable(model)
            found = self._runner.process.call(
                "verify",
                str(self._folder),
                portable,
                contract is Contract.EXACT and not self._context_dependent,
                self._runner.threads,
                timeout=self._patience,
            )
        except RunnerError as error:
            return Verdict(False, f"the runtime refuses the rewritten model: {error}")
        except Exception as error:  # lazy weights run code of the pass, which may raise anything
            return Verdict(False, f"the rewritten model cannot be serialized: {type(error).__name__}: {error}")
        return Verdict(found.ok, found.message, found.output, found.error, found.tolerance)

    def _compute(self, model: ir.Model, feeds: list[Feed], rules: Rules) -> None:
        portable, _kept = self._runner.portable(model)
        call, threads = self._runner.process.call, self._runner.threads
        self.unstable = call("reference", str(self._folder), portable, feeds, rules, threads)
        try:
            self.unstable = call("noise", str(self._folder), portable, threads)
        except RunnerError as error:
            self.notes.append(f"rounding noise unknown, as the runtime runs the original only unoptimized: {error}")
        for name, reason in self.unstable.items():
            self.notes.append(f"output {name!r} is not verified: it {reason}")


def _computed_types(model: ir.Model) -> set[ir.DataType | None]:
    """The types a model computes in."""
    types = {value.dtype for value in model.graph.inputs}
    for node in model.graph.all_nodes():
        types.update(value.dtype for value in node.outputs)
        if node.op_type == "Cast" and "to" in node.attributes:
            types.add(ir.DataType(node.attributes["to"].as_int()))
            continue
        # Weights that are stored in a half type and cast before use are not computed with.
        types.update(value.dtype for value in node.inputs if value is not None and value.is_initializer())
    return types


def _exact_integer_outputs(model: ir.Model) -> tuple[str, ...]:
    """Names of integer outputs computed from integers (and shapes) alone, for which no rounding is an excuse."""
    return tuple(value.name for value in model.graph.outputs if value.name and not _reached_by_float(value))


def _reached_by_float(output: ir.Value) -> bool:
    pending, seen = [output], {output}
    while pending:
        value = pending.pop()
        if value.dtype is None or value.dtype.is_floating_point():
            return True
        node = value.producer()
        if node is None or (node.op_type in _SHAPE_OPS and node.domain in ("", "ai.onnx")):
            continue
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            return True
        for source in node.inputs:
            if source is not None and source not in seen:
                seen.add(source)
                pending.append(source)
    return False


def verifier_factory(runner: Runner, ctx: Context) -> Callable[[ir.Model], Verifier]:
    """A factory of verifiers on the context's first samples or, without data, on generated ones."""
    return lambda model: Verifier(runner, model, first_feeds(runner, model, ctx))


def first_feeds(runner: Runner, model: ir.Model, ctx: Context, *, count: int = 3) -> list[Feed]:
    """The first feeds of the context's data, or generated ones that the model accepts; none if it accepts none."""
    from irc.calibration import DataSource, runnable_feeds, take

    source = ctx.data if isinstance(ctx.data, DataSource) else None
    try:
        if source is None:
            source = runnable_feeds(runner, model, count=count, seed=ctx.seed)
        return [sample.feed for sample in take(source, count)]
    except (DataError, RunnerError):
        return []
