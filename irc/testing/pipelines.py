"""A whole pipeline of lossless passes on one model: everything that must not happen, in words.

| rule | what must hold |
| --- | --- |
| raises | no pass raises |
| undone | no rewrite is found at fault and taken back: verification is a net, not a method |
| exact | the exact passes alone give equal bits, also where inputs are NaN, infinite or -0 |
| ends | no pass finds sites without end |
| smaller | neither nodes nor bytes grow |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.application import MAX_SWEEPS
from irc.calibration import runnable_feeds
from irc.errors import DataError, IrcError, RunnerError
from irc.expansion import as_steps
from irc.ir import size_on_disk
from irc.pass_base import Context, Contract
from irc.pass_manager import PassManager, RunResult
from irc.pipeline import Step
from irc.runner import Feed, Runner
from irc.testing.conformance import shared_runner, with_exceptions
from irc.verification import Verifier

SAMPLES = 3


def pipeline_violations(
    passes: Sequence[object], model: ir.Model, *, runner: Runner | None = None, target: str = "ort"
) -> list[str]:
    """What a pipeline of lossless passes does to a model that it must not do; nothing is what one hopes for.

    Args:
        passes: Pipeline texts, names or passes.
        model: Unchanged. A model that the runtime does not run is only checked for validity.
        runner: Where models run; by default a process shared by all calls.
        target: What the passes compile for.

    Returns:
        One line per violation: the rule, then what happened.
    """
    runner = runner or shared_runner()
    steps = as_steps(passes)
    feeds = _feeds(runner, model)
    violations, result = _violations(steps, model, feeds, runner, target)
    contracts = {record.contract for record in result.ledger if record.changed} if result is not None else set()
    exact = [step for step in steps if step.pass_.contract is Contract.EXACT]
    if feeds and exact and contracts:
        special = [{name: _with_exceptions(array) for name, array in feeds[0].items()}]
        found, _ = _violations(exact, model, feeds if contracts != {"exact"} else [], runner, target, special)
        violations += [f"exact: {text}" for text in found if text not in violations]
    return violations


def _violations(
    steps: Sequence[Step],
    model: ir.Model,
    feeds: list[Feed],
    runner: Runner,
    target: str,
    special: Sequence[Feed] = (),
) -> tuple[list[str], RunResult | None]:
    feeds = [*feeds, *special]
    manager = PassManager(steps, verify=(lambda start: Verifier(runner, start, feeds)) if feeds else False)
    try:
        result = manager.run(model, Context(target=target, runner=runner))
    except IrcError as error:
        return [f"raises: {error}"], None
    found = [f"undone: {record.name} at {e.site}: {e.reason}" for record in result.ledger for e in record.undone]
    endless = f"stopped after {MAX_SWEEPS} sweeps"
    found += [f"ends: {r.name}: {e.reason}" for r in result.ledger for e in r.skipped if e.reason.startswith(endless)]
    for what, before, after in (
        ("nodes", _nodes(model), _nodes(result.model)),
        ("bytes", size_on_disk(model), size_on_disk(result.model)),
    ):
        if after > before:
            found.append(f"smaller: {before} {what} became {after}")
    return found, result


def _with_exceptions(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An input with NaN, -0 and infinities, but no infinities of half precision.

    ONNX Runtime computes half precision in single where it has no kernel, as far as neighbouring operators do the same;
    whether Clip without an upper bound makes 65504 of infinity depends on that.
    """
    special = with_exceptions(array)
    if special.dtype == np.float16:
        special = np.where(np.isinf(special), array, special)
    return special


def _nodes(model: ir.Model) -> int:
    return sum(node.op_type != "Constant" for node in model.graph.all_nodes())


def _feeds(runner: Runner, model: ir.Model) -> list[Feed]:
    try:
        return [sample.feed for sample in runnable_feeds(runner, model, count=SAMPLES).samples()]
    except (DataError, RunnerError):
        return []
