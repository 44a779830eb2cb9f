"""Which outputs of a graph are the scores of a classifier, and along which axis the classes lie.

An output is classifier-like if it is traced back, through operators that keep a score a score, to one of

- `Softmax` or `LogSoftmax` (the output then *is* a distribution, wherever its input comes from), or `Sigmoid` with one
  score per sample (a binary classifier);
- `Gemm`, `MatMul` or `Conv` with a constant weight (logits),

and its class axis has a static size of at least 2. Operators passed through: Identity, Cast, Dropout, Reshape,
Flatten, Squeeze, Unsqueeze, Transpose, Slice, Gather by a constant index, Resize, QuantizeLinear, DequantizeLinear,
Clip, and Add, Sub, Mul, Div with a constant. Everything else ends the trace: pooling, activations, LayerNormalization,
division by a norm and Tanh belong to embeddings, Concat to detection heads.

The class axis is that of the Softmax; else 1 for what a Conv leaves with its spatial axes ([N, C, H, W]); else the
last.

Logits and regressions can come from equal graphs. Hence outputs whose name says otherwise (`embedding`, `hidden`,
`box`, ...) are not classifier-like, nor are Conv outputs with 1, 3 or 4 channels (images) or [N, boxes, 4]; and bare
logits are believed only if the original's own numbers look like a classifier's (`looks_like_classes`). What is not
classifier-like is judged by its relative output error, which is the stricter evidence.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Literal

import onnx_ir as ir

Scores = Literal["logits", "log-probabilities", "probabilities", "sigmoid"]

_LAYOUT = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_PASSED = _LAYOUT | frozenset(
    {
        *("Identity", "Cast", "Dropout", "Transpose", "Slice", "Resize", "Upsample"),
        *("QuantizeLinear", "DequantizeLinear", "Clip"),
    }
)
_WITH_CONSTANT = frozenset({"Add", "Sub", "Mul", "Div"})
_HEADS = {"Gemm": 1, "MatMul": 1, "Conv": 1, "ConvTranspose": 1, "QLinearConv": 3, "QLinearMatMul": 3}
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "QLinearConv"})
_WEIGHT_STEPS = frozenset({"DequantizeLinear", "Transpose", "Cast", "Reshape", "Identity", "QuantizeLinear"})
_OTHER_THINGS = re.compile(
    r"(?:^|[^a-z])(?:embed|hidden|feature|pool|latent|encod|box|bbox|coord|keypoint|landmark|offset|delta|anchor|attention|attn"
    r"|mel|spectr|depth|flow|noise|image|mask|past|present|cache|state|regress)"
)
_STATE = re.compile(r"(?:^|[^a-z])(?:past|present|cache|kv)(?:$|[^a-z])")


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """How to read an output as the scores of a classifier.

    Attributes:
        axis: The class axis, counted from the end (negative).
        scores: What the numbers are; "sigmoid" is one probability per sample, of class 1.
        confirmed: Whether the graph itself normalises the scores; bare logits are only presumed to be class scores.
        sequence: Whether the output is [N, T, V]: one decision per position of a sequence.
    """

    axis: int
    scores: Scores
    confirmed: bool
    sequence: bool = False


def class_scores(value: ir.Value) -> ClassScores | None:
    """How a graph output is read as class scores, or None if it is not classifier-like."""
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", value.name or "").lower()
    shape = list(value.shape) if value.shape is not None else None
    if _OTHER_THINGS.search(name) or not shape or not (value.dtype is None or value.dtype.is_floating_point()):
        return None
    found = _trace(value, len(shape))
    if found is None:
        return None
    axis, scores, convolution = found
    if scores == "sigmoid":
        return ClassScores(-1, scores, True) if _one_per_sample(shape) else None
    if not -len(shape) <= axis < 0 or not isinstance(size := shape[axis], int) or size < 2:
        return None
    image = convolution and scores == "logits" and len(shape) >= 3 and size in (3, 4)
    boxes = scores == "logits" and len(shape) == 3 and size == 4
    if image or boxes:
        return None
    return ClassScores(axis, scores, scores != "logits", len(shape) == 3 and axis == -1)


def is_state(name: str) -> bool:
    """Whether an output's name says that it is a cache handed to the next call ("present.0.key")."""
    return _STATE.search(name.lower()) is not None


def looks_like_classes(entropy: float, classes: int, distinct: int, decisions: int) -> bool:
    """Whether presumed logits behave like a classifier's over the original's own outputs.

    Args:
        entropy: Mean entropy of the softmax, in nats. That of an embedding or a small regression is near log(classes).
        classes: Number of classes.
        distinct: Number of classes that are ever the largest. For boxes and other regressions it is always the same.
        decisions: Number of decisions.
    """
    return entropy <= 0.9 * math.log(classes) and (distinct > 1 or decisions < 8)


def _trace(value: ir.Value, rank: int) -> tuple[int, Scores, bool] | None:
    """(class axis from the end, kind of scores, whether a convolution makes them), or None."""
    axis_map: list[int] | None = list(range(rank))  # axis of the output -> axis of the value; None once reshaped
    scores: Scores = "logits"
    axis: int | None = None
    current: ir.Value | None = value
    while current is not None and (node := current.producer()) is not None and node.domain in ("", "ai.onnx"):
        kind = node.op_type
        if kind in ("Softmax", "LogSoftmax") and axis is None:
            axis = _softmax_axis(node, axis_map, rank)
            scores = "probabilities" if kind == "Softmax" else "log-probabilities"
            return (axis, scores, False) if axis is not None else None
        if kind == "Sigmoid":
            return -1, "sigmoid", False
        if kind in _HEADS:
            if not _is_constant(_input(node, _HEADS[kind])) and not (
                kind == "MatMul" and _is_constant(_input(node, 0))
            ):
                return None
            spatial = kind in _CONVOLUTIONS and axis_map is not None and rank >= 3
            channel = axis_map.index(1) - rank if spatial and axis_map is not None else -1
            return channel, scores, kind in _CONVOLUTIONS
        following = _data_input(node)
        if following is None:
            return None
        if kind in _LAYOUT:
            axis_map = None
        elif kind == "Transpose" and axis_map is not None:
            perm = node.attributes.get_ints("perm", list(range(rank))[::-1])
            axis_map = [perm[a] for a in axis_map] if len(perm) == rank else None
        elif kind == "Gather" and not _keeps_rank(node):
            axis_map = None
        current = following
    return None


def _softmax_axis(node: ir.Node, axis_map: list[int] | None, rank: int) -> int | None:
    """The axis of a Softmax in the output, from the end."""
    inner = node.outputs[0].shape
    inner_rank = len(inner) if inner is not None else rank
    version = node.version or (node.graph.opset_imports.get("", 13) if node.graph is not None else 13)
    axis = node.attributes.get_int("axis", -1 if version >= 13 else 1)
    axis = axis % inner_rank if -inner_rank <= axis < inner_rank else inner_rank - 1
    if axis_map is not None:
        return axis_map.index(axis) - rank if axis in axis_map else None
    return -1 if axis == inner_rank - 1 or rank <= 2 else None


def _data_input(node: ir.Node) -> ir.Value | None:
    """The input a score comes through, or None if the operator ends the trace."""
    if node.op_type in _PASSED:
        return _input(node, 0)
    if node.op_type == "Gather" and _is_constant(_input(node, 1)):
        return _input(node, 0)
    if node.op_type in _WITH_CONSTANT and len(node.inputs) == 2:
        first, second = node.inputs
        if _is_constant(second):
            return first
        if _is_constant(first) and node.op_type in ("Add", "Mul"):
            return second
    return None


def _keeps_rank(node: ir.Node) -> bool:
    index = _input(node, 1)
    return index is not None and index.shape is not None and len(index.shape) == 1


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _is_constant(value: ir.Value | None) -> bool:
    """Whether a value is computed from stored tensors alone, by the operators that unpack a weight."""
    for _ in range(8):
        if value is None:
            return False
        node = value.producer()
        if node is None:
            return value.is_initializer() and not value.is_graph_input()
        if node.op_type == "Constant":
            return True
        if node.op_type not in _WEIGHT_STEPS:
            return False
        value = _input(node, 0)
    return False


def _one_per_sample(shape: list[int | ir.SymbolicDim]) -> bool:
    """Whether a shape is [N] or [N, 1]."""
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
