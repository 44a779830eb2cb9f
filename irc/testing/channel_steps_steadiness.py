"""Where the last bits of a float decide something large: values that are rounded or compared, and whether they stay clear.

Channels in another order are summed in another order. What differs in the last bits then must not become another integer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

MARGIN = 5e-6
"""Of a step of the rounding, or of the largest entry."""
SMALLEST = 1e-3
"""Of an output that says anything, and of how much it varies."""
NUDGE = 2.5e-7
"""By how much inputs and weights are changed in a trial, about two roundings."""
MOST_MOVED = 3e-6
"""Of an output, by how much that may change it at most; oracles here compare to 1e-5."""


@dataclasses.dataclass(frozen=True)
class Unsteady:
    """A session that shows the values in question.

    Attributes:
        session: Of ONNX Runtime, with the values as outputs.
        rounded: Values that are quantized, with the scale.
        compared: Values whose largest entry along an axis is sought.
    """

    session: Any
    rounded: list[tuple[str, float]]
    compared: list[tuple[str, int]]


def unsteady_values(model: ir.Model) -> Unsteady | None:
    """What in a model depends on the last bits; None if nothing does.

    Args:
        model: Unchanged.
    """
    rounded: list[tuple[str, float]] = []
    compared: list[tuple[str, int]] = []
    for node in model.graph:
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "QuantizeLinear" and source is not None:
            scale = node.inputs[1]
            assert scale is not None and scale.const_value is not None
            rounded.append((str(source.name), float(scale.const_value.numpy())))
        elif node.op_type == "ArgMax" and source is not None:
            compared.append((str(source.name), int(node.attributes["axis"].as_int())))
    if not rounded and not compared:
        return None
    names = list(dict.fromkeys(name for name, _ in (*rounded, *compared)))
    return Unsteady(_session(model, names), rounded, compared)


def _session(model: ir.Model, names: list[str]) -> Any:
    """A session on the model as it is, with other outputs if there are names."""
    import onnxruntime

    proto = ir.to_proto(model)
    if names:
        del proto.graph.output[:]
        proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def outputs_vary(model: ir.Model, runs: Sequence[dict[str, np.ndarray[Any, Any]]]) -> bool:
    """Whether every output is finite, of moderate size, not the same everywhere, and hardly moved by the last bits of inputs and weights.

    Weights too, since what a network rounds or normalizes first does not show what becomes of an error made behind it.

    Args:
        model: To run.
        runs: Inputs of a run each.
    """
    session, beside = _session(model, []), _session(_nudged(model), [])
    for feeds in runs:
        nudged = {n: a * np.float32(1 + NUDGE) if a.dtype == np.float32 else a for n, a in feeds.items()}
        for made, other in zip(session.run(None, feeds), beside.run(None, nudged), strict=True):
            largest = float(np.abs(made).max())
            if not SMALLEST <= largest <= 1 / SMALLEST or float(made.std()) < SMALLEST * largest:
                return False
            if float(np.abs(made - other).max()) > MOST_MOVED * largest:
                return False
    return True


def _nudged(model: ir.Model) -> ir.Model:
    """The same model with the last bits of its weights changed, up or down at random."""
    generator = np.random.default_rng(0)
    copy = model.clone()
    for name, value in copy.graph.initializers.items():
        if value.const_value is not None and not name.startswith("constant"):
            array = value.const_value.numpy()
            factors = 1 + NUDGE * generator.choice([-1, 1], array.shape)
            value.const_value = ir.tensor((array * factors).astype(np.float32), name=value.name)
    return copy


def is_steady(unsteady: Unsteady, feeds: dict[str, np.ndarray[Any, Any]]) -> bool:
    """Whether with these inputs everything is clear of the place where it would be decided otherwise.

    Args:
        unsteady: Of the model.
        feeds: Its inputs.
    """
    names = [output.name for output in unsteady.session.get_outputs()]
    wanted = {source.name for source in unsteady.session.get_inputs()}
    made = unsteady.session.run(names, {name: array for name, array in feeds.items() if name in wanted})
    found = dict(zip(names, made, strict=True))
    for name, scale in unsteady.rounded:
        steps = found[name].astype("float64") / scale
        if np.abs(steps - np.floor(steps) - 0.5).min() < MARGIN * max(1.0, float(np.abs(steps).max())):
            return False
    for name, axis in unsteady.compared:
        ordered = np.sort(found[name], axis=axis)
        largest, next_one = (np.take(ordered, place, axis=axis) for place in (-1, -2))
        gap = largest - next_one
        # What is exactly equal, as zeros after Relu are, is so in any order of the channels.
        if np.any((gap > 0) & (gap < MARGIN * max(1.0, float(np.abs(largest).max())))):
            return False
    return True
