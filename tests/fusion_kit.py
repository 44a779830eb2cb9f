"""What tests of fusions share: the constants exporters write, and a target that has no composite operator."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from pass_kit import assert_untouched, parse

from irc.application import apply_pass
from irc.backends.ort import OrtTarget
from irc.ir import snapshot
from irc.pass_base import Context, Pass
from irc.pipeline import Step

NUMBERS = {
    "zero": 0.0, "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "sixth": 1 / 6, "minus_half": -0.5,
    "eps": 1e-6, "root2": math.sqrt(2), "inverse_root2": math.sqrt(0.5), "k": math.sqrt(2 / math.pi), "c": 0.044715,
    "kc": math.sqrt(2 / math.pi) * 0.044715, "negative": -1e-6, "wrong": 0.7,
}  # fmt: skip
AXES = {"last": [-1], "first": [0], "middle": [1], "last_two": [-1, -2], "both": [0, 1]}


def constants(nodes: str, dtype: Any = np.float32, **more: Any) -> dict[str, Any]:
    """The constants whose names occur in the text, `name_1d` being `name` with one axis, and those given."""
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    found: dict[str, Any] = {}
    for name, number in NUMBERS.items():
        if name in words:
            found[name] = np.array(number, dtype)
        if f"{name}_1d" in words:
            found[f"{name}_1d"] = np.array([number], dtype)
        if f"{name}_4d" in words:
            found[f"{name}_4d"] = np.full((1, 1, 1, 1), number, dtype)
    found |= {name: np.array(axes) for name, axes in AXES.items() if name in words}
    return {**found, **{name: value for name, value in more.items() if name in words}}


@dataclasses.dataclass(frozen=True)
class PlainTarget(OrtTarget):
    """A runtime with nothing but elementary operators."""

    name: ClassVar[str] = "plain"

    def has_operator(self, op_type: str, opset: int, dtype: ir.DataType, *, mode: str = "") -> bool:
        return False


def reasons(pass_: Pass, text: str, weights: dict[str, Any], *, opset: int, target: Any = None) -> list[str]:
    """Asserts that a pass leaves a graph alone; returns why it says it does."""
    model = parse(text, weights, opset=opset)
    if target is None:
        return list(assert_untouched(pass_, model).values())
    record = apply_pass(Step(pass_), snapshot(model), Context(target=target)).record
    assert record.rewritten == []
    return [entry.reason for entry in record.skipped]
