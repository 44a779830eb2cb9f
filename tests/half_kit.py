"""Reduce the precision of a model in a test, with or without data; the oracle is the float32 model in ONNX Runtime."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pass_kit

from irc.application import apply_pass
from irc.calibration import FeedList, Sample
from irc.ir import check, interface, snapshot
from irc.pass_base import Context
from irc.passes.precision.reduce_precision import UNCHECKED, ReducePrecision
from irc.pipeline import Step
from irc.testing.conformance import shared_runner

Feed = dict[str, np.ndarray[Any, Any]]
LIMIT = 5e-3
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)


def context(feeds: Sequence[Feed] | None = None, **more: Any) -> Context:
    """A context with samples, if given, and where to run them."""
    data = FeedList([Sample(feed) for feed in feeds]) if feeds is not None else None
    return Context(runner=shared_runner(), data=data, **more)


def reduced(
    model: ir.Model,
    *,
    feeds: Sequence[Feed] | None = None,
    pass_: ReducePrecision = ReducePrecision(),  # noqa: B008
    deny: Callable[[str], bool] = lambda site: False,
    ctx: Context | None = None,
) -> pass_kit.Outcome:
    """The pass applied to a copy; valid, interface kept, and a second time nothing is left to do."""
    ctx = ctx or context(feeds)
    work = snapshot(model)
    record = apply_pass(Step(pass_), work, ctx, permit=lambda key: "denied" if deny(key.site) else None).record
    check(work)
    assert interface(model).difference(interface(work)) is None
    again = snapshot(work)
    second = apply_pass(
        Step(pass_), again, context(feeds, target=ctx.target), permit=lambda key: "denied" if deny(key.site) else None
    )
    assert second.record.rewritten == [] and pass_kit.text(again) == pass_kit.text(work)
    return pass_kit.Outcome(work, record)


def skipped(outcome: pass_kit.Outcome) -> dict[str, str]:
    """Site id to reason, without the note that there was no data."""
    return {site: reason for site, reason in outcome.skipped.items() if reason != UNCHECKED}


def assert_agrees(model: ir.Model, outcome: pass_kit.Outcome, feeds: Sequence[Feed], *, limit: float = LIMIT) -> None:
    """The narrow model opens and runs at both ends of the runtime's optimization levels, and is finite and close."""
    proto = ir.to_proto(outcome.model).SerializeToString()
    for level in LEVELS:
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 4
        session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        for feed in feeds:
            for expected, found in zip(pass_kit.run(model, feed), session.run(None, feed), strict=True):
                assert (expected.dtype, expected.shape) == (found.dtype, found.shape)
                if expected.dtype.kind != "f":
                    np.testing.assert_array_equal(found, expected)
                    continue
                assert np.isfinite(found[np.isfinite(expected)]).all()
                scale = float(np.abs(expected).max(initial=0.0))
                np.testing.assert_allclose(found, expected, rtol=0, atol=limit * scale)


def casts(model: ir.Model) -> list[tuple[str, str]]:
    """(from, to) of every Cast between floating-point types, bodies included."""
    found = []
    for node in model.graph.all_nodes():
        if node.op_type == "Cast":
            a, b = node.inputs[0].dtype, node.outputs[0].dtype  # type: ignore[union-attr]
            if a is not None and b is not None and a.is_floating_point() and b.is_floating_point():
                found.append((a.name, b.name))
    return found


def dtypes(model: ir.Model) -> Mapping[str, str]:
    """Type of every value by name, initializers and bodies included."""
    found = {}
    for graph in dict.fromkeys((model.graph, *model.graph.subgraphs())):
        for value in (*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)):
            found[value.name or ""] = value.dtype.name if value.dtype is not None else "?"
    return found


def weight_types(model: ir.Model) -> collections.Counter[str]:
    """How many initializers have which type."""
    return collections.Counter(
        value.dtype.name  # type: ignore[union-attr]
        for graph in dict.fromkeys((model.graph, *model.graph.subgraphs()))
        for value in graph.initializers.values()
    )
