"""Which inputs, outputs and attributes of an operator change when it computes in a narrower type, by its schema."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from irc.passes.precision.number_format import NumberFormat

MOVES = frozenset((
    "Compress", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
    "Reshape", "ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "TensorScatter", "Tile", "Transpose", "Trilu", "Unique", "Unsqueeze", "Where",
))  # fmt: skip
"""Operators that compute nothing: they follow the type of what they move."""
RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
QUANTIZERS = frozenset((
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear",
))  # fmt: skip
_FIXED = frozenset((
    "BitCast", "BlackmanWindow", "HammingWindow", "HannWindow", "MeanVarianceNormalization", "MelWeightMatrix",
))  # fmt: skip
"""Operators whose type is part of what they compute, is an attribute of another form, or float32 in their definition."""
_KEPT = frozenset((("Dropout", "T1"), ("Resize", "T2")))
"""Type variables of numbers that steer an operator and are not its data: a ratio, a region."""


@dataclasses.dataclass(frozen=True)
class Retyping:
    """What changes about an operator.

    Attributes:
        inputs: Indices of float32 inputs that become narrow.
        outputs: Indices of float32 outputs that become narrow.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def retyping(node: ir.Node, opset: int, number: NumberFormat) -> Retyping | str | None:
    """How an operator of the standard domain changes; why it cannot; or None where it has nothing in float32.

    Args:
        node: With known types.
        opset: Version of the default domain.
        number: The narrow format.
    """
    if not any(_is_float(value) for value in (*node.inputs, *node.outputs)):
        return None
    if node.domain not in ("", "ai.onnx"):
        return f"it is of domain {node.domain!r}, whose types are not known"
    variables = _variables(node.op_type, opset, number.dtype.name.lower())
    if variables is None:
        return f"opset {opset} does not know it"
    if any(
        v is not None and v.type is not None and not isinstance(v.type, ir.TensorType)
        for v in (*node.inputs, *node.outputs)
    ):
        return "it takes or gives a sequence or an optional value"
    takes, gives = variables
    for values, narrow in ((node.inputs, takes), (node.outputs, gives)):
        for index, value in enumerate(values):
            if value is not None and value.dtype is None and value.name and narrow[min(index, len(narrow) - 1)]:
                return f"the type of {value.name!r} is not known"
    inputs = tuple(
        index for index, value in enumerate(node.inputs) if _is_float(value) and takes[min(index, len(takes) - 1)]
    )
    outputs = tuple(
        index for index, value in enumerate(node.outputs) if _is_float(value) and gives[min(index, len(gives) - 1)]
    )
    if node.op_type in _FIXED or (not inputs and not outputs):
        return f"it has no {number.name} form"
    return Retyping(inputs, outputs)


def retyped_attributes(node: ir.Node, change: Retyping, number: NumberFormat, *, masking: bool) -> list[ir.Attr]:
    """The attributes of an operator that say its type, in the narrow type; none where its inputs say it."""
    if not change.outputs:
        return []
    if node.op_type == "Cast":
        return [ir.AttrInt64("to", number.dtype.value)]
    if node.op_type == "EyeLike" and node.attributes.get_int("dtype") is not None:
        return [ir.AttrInt64("dtype", number.dtype.value)]
    if node.op_type == "ConstantOfShape":
        fill = fill_value(node)
        stored = number.rounded(number.masked(fill) if masking else fill)
        return [ir.AttrTensor("value", ir.Tensor(stored, dtype=number.dtype, name="value"))]
    return []


def fill_value(node: ir.Node) -> np.ndarray[Any, Any]:
    """What a ConstantOfShape is filled with, `[1]`."""
    value = node.attributes.get("value")
    return np.asarray(value.as_tensor().numpy()) if value is not None else np.zeros(1, np.float32)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.FLOAT


@functools.lru_cache(maxsize=1024)
def _variables(op_type: str, opset: int, narrow: str) -> tuple[tuple[bool, ...], tuple[bool, ...]] | None:
    """Whether each formal input and output may be narrow where it is float."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    free = {
        constraint.type_param_str
        for constraint in schema.type_constraints
        if f"tensor({narrow})" in constraint.allowed_type_strs and (op_type, constraint.type_param_str) not in _KEPT
    }
    # Mean and deviation of a layer normalization have a type of their own, of what it computes in.
    if op_type == "LayerNormalization":
        free.discard("U")
    return tuple(f.type_str in free for f in schema.inputs), tuple(f.type_str in free for f in schema.outputs)
