"""Fusions of ONNX Runtime's CPU provider that are slower than the operators they take the place of.

SkipLayerNormalization, which the runtime makes of Add and LayerNormalization. Latency with the fusion over latency without
it, above 1 when the fusion loses, measured with `benchmarks/fusions.py` ([1, 128, 768], float, one thread, x86-64):

| version | ratio | with a bias before the Add | fused | apart |
|---|---|---|---|---|
| 1.22 to 1.26 | 0.88 | 0.81 | 111 us | 127 us |
| 1.27 to 1.29 | 0.22 | 0.22 | 111 us | 506 us |
| 1.30, 1.31 | 6.8 | 5.8 | 490 us | 72 us |

Two threads on 1.31: 3.7 and 3.3. The kernel of LayerNormalization became slow in one version and fast in another, that of
SkipLayerNormalization slow when the other became fast. So this is asked of the version that an artifact is for, and only
the versions above are believed to be slow; what comes after them has not been measured, nor have ARM machines.

When the runtime fuses (learnt from its optimized graphs): operands of the Add are float, have three axes and the same
dimensions, known by number or by name; the result has no other reader; the last axis is normalized. Up to opset 12 the Add
may also belong to what the runtime fuses into one kernel for attention, so that it is left alone.
"""

from __future__ import annotations

import functools
import importlib.metadata

import onnx_ir as ir

SLOW_IN = ("1.30", "1.31")
"""Versions whose SkipLayerNormalization is slower than Add and LayerNormalization."""
_ATTENTION_IS_FUSED_UNTIL = 12
_AXES = 3


@functools.cache
def installed_version() -> str:
    """The version of the installed runtime, "" without one under its usual name."""
    try:
        return importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        return ""


def is_slow(node: ir.Node, reader: str, opset: int, version: str) -> bool:
    """Whether a version of the runtime fuses a node with its only reader, and loses time by it.

    Args:
        node: A node.
        reader: Type of the operator that reads its result, as it is or written out.
        opset: Version of the default domain.
        version: Of the runtime.
    """
    return (
        reader == "LayerNormalization"
        and ".".join(version.split(".")[:2]) in SLOW_IN
        and opset > _ATTENTION_IS_FUSED_UNTIL
        and node.op_type == "Add"
        and _are_alike(*node.inputs)
    )


def _are_alike(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Whether two operands are float and have three axes of the same dimensions, each of them known somehow."""
    if one is None or other is None or one.shape is None or other.shape is None:
        return False
    return (
        one.dtype == other.dtype == ir.DataType.FLOAT
        and len(one.shape) == len(other.shape) == _AXES
        and all(_is_same(a, b) for a, b in zip(one.shape, other.shape, strict=True))
    )


def _is_same(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    return a == b and (isinstance(a, int) or a.value is not None)
