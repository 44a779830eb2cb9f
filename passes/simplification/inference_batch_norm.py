"""When a BatchNormalization is a fixed scale and shift per channel."""

from __future__ import annotations

import onnx_ir as ir

from irc.ir import constant_tensor

MIN_OPSET = 9
"""Before, BatchNormalization chose its mode by its number of outputs and could normalize per activation (`spatial`)."""


def why_not_fixed(norm: ir.Node, opset: int) -> str | None:
    """Why a BatchNormalization is more than a fixed scale and shift per channel, or None if it is just that."""
    if opset < MIN_OPSET:
        return f"BatchNormalization of opset {opset} is not folded; convert the model to opset {MIN_OPSET} or later"
    # Only training gives running statistics; before opset 14 asking for them was what made it train.
    if norm.attributes.get_int("training_mode", 0) or any(output.name for output in norm.outputs[1:]):
        return "it is in training mode"
    return None


def has_constant_statistics(norm: ir.Node) -> bool:
    """Whether scale, shift, mean and variance are constant."""
    return all(constant_tensor(value) is not None for value in norm.inputs[1:5])
