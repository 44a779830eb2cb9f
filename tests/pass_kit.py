"""What our own tests of passes add to `irc.testing`: one application at hand, and an oracle that shares no code with irc.

The oracle is ONNX Runtime with all its own optimizations off, in this process, fed from the serialized model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from irc.application import apply_pass
from irc.errors import ModelError
from irc.ir import check, snapshot
from irc.ledger import PassRecord
from irc.pass_base import Context, Pass
from irc.pipeline import Step
from irc.testing import check_pass, parse_model
from irc.testing.integrity import model_bytes
from irc.testing.model_text import parse_proto, seeded_numbers

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]
numbers = seeded_numbers


@dataclasses.dataclass
class Outcome:
    """What a pass made of a model.

    Attributes:
        model: The rewritten copy.
        record: Its ledger record.
    """

    model: ir.Model
    record: PassRecord

    @property
    def rewritten(self) -> list[str]:
        """Ids of the rewritten sites."""
        return [entry.site for entry in self.record.rewritten]

    @property
    def skipped(self) -> dict[str, str]:
        """Site id to reason."""
        return {entry.site: entry.reason for entry in self.record.skipped}


def parse(
    text: str,
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 10,
    raw: bool = False,
    **more: Any,
) -> ir.Model:
    """`irc.testing.parse_model`; `raw` leaves the model as it is: no normalization, no shape inference."""
    if raw:
        return snapshot(
            ir.from_proto(parse_proto(text, {**(weights or {}), **more}, opset=opset, ir_version=ir_version))
        )
    return parse_model(text, weights, opset=opset, ir_version=ir_version, **more)


def statistics(channels: int) -> dict[str, tuple[int, ...]]:
    """Weights `gamma`, `beta`, `mean` and `var` of a batch normalization."""
    return {name: (channels,) for name in ("gamma", "beta", "mean", "var")}


def feeds(model: ir.Model, *, symbol: int = 3, seed: int = 0) -> Feed:
    """One feed of seeded numbers; symbolic dimensions take the size `symbol`."""
    generator = np.random.default_rng(seed)
    feed: Feed = {}
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        assert value.shape is not None and value.dtype is not None and value.name
        dims = [d if isinstance(d, int) else symbol for d in value.shape]
        dtype = value.dtype.numpy()
        if value.dtype == ir.DataType.BOOL:
            feed[value.name] = generator.integers(0, 2, dims).astype(bool)
        elif np.issubdtype(dtype, np.integer):
            feed[value.name] = generator.integers(0, 4, dims).astype(dtype)
        else:
            feed[value.name] = generator.normal(size=dims).astype(dtype)
    return feed


def run(model: ir.Model, feed: Feed) -> list[Array]:
    """The outputs of a model in ONNX Runtime, every optimization off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


def apply(pass_: Pass, model: ir.Model) -> Outcome:
    """The pass applied to a copy, as the manager does it, without verification."""
    copy = snapshot(model)
    return Outcome(copy, apply_pass(Step(pass_), copy, Context()).record)


def assert_promises(pass_: Pass, before: ir.Model, outcome: Outcome) -> None:
    """Interface kept, model valid, initializers true, tensors untouched, and a second application finds nothing."""
    result = check_pass(pass_, before, sharing="skip", feeds=())
    assert result.ok, "; ".join(map(str, result.violations))
    assert result.rewritten["model"] == outcome.rewritten


def assert_equal_after(
    pass_: Pass,
    model: ir.Model,
    *,
    rtol: float = 0.0,
    atol: float | None = None,
    symbols: tuple[int, ...] = (3,),
) -> Outcome:
    """Applies a pass, checks what every pass promises and that the model still computes the same.

    Args:
        pass_: The pass.
        model: Unchanged.
        rtol: Allowed difference relative to the largest magnitude of each output; 0 means equal bits.
        atol: Allowed absolute difference; by default `rtol` times the largest magnitude.
        symbols: Sizes of symbolic dimensions to try.
    """
    outcome = apply(pass_, model)
    assert_promises(pass_, model, outcome)
    for seed, symbol in enumerate(symbols):
        feed = feeds(model, symbol=symbol, seed=seed)
        for expected, found in zip(run(model, feed), run(outcome.model, feed), strict=True):
            assert expected.dtype == found.dtype and expected.shape == found.shape
            if rtol == 0.0 and atol is None:
                np.testing.assert_array_equal(found, expected)
            else:
                allowed = atol if atol is not None else rtol * float(np.abs(expected).max(initial=0.0))
                np.testing.assert_allclose(found, expected, rtol=0.0, atol=allowed)
    return outcome


def assert_untouched(pass_: Pass, model: ir.Model) -> dict[str, str]:
    """Checks that a pass rewrites nothing; returns the reasons it gives by site."""
    outcome = apply(pass_, model)
    assert outcome.rewritten == []
    assert text(outcome.model) == text(model)
    check_or_custom(outcome.model)
    return outcome.skipped


def check_or_custom(model: ir.Model) -> None:
    """The checker, unless the model was built to be invalid on purpose."""
    try:
        check(model)
    except ModelError as error:
        raise AssertionError(f"the test's own model is invalid: {error}") from error


def text(model: ir.Model) -> bytes:
    """Everything a model says, to compare."""
    return model_bytes(model)


def op_types(model: ir.Model) -> list[str]:
    """Operator types in graph order, bodies included."""
    return [node.op_type for node in model.graph.all_nodes()]


def weight(model: ir.Model, name: str) -> Array:
    """The array of an initializer of the main graph."""
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return np.asarray(tensor.numpy())
