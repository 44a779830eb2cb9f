"""Sizes for a model's open dimensions: what the graph demands, what names and ranks suggest, and other tries.

Equal symbols get equal sizes; a symbol that is an expression ("past + seq") is computed. A weight that an input meets
fixes the size it must have (`MatMul` with `[384, 1536]`: 384 features).
"""

from __future__ import annotations

import ast
import dataclasses
import operator
from collections.abc import Callable, Mapping

import onnx_ir as ir

from irc.calibration.input_signature import UNKNOWN, InputSpec
from irc.ir import constant_tensor


@dataclasses.dataclass(frozen=True)
class SizeChoice:
    """One try at sizes that nothing fixes.

    Attributes:
        sequence: Lengths of sequences, in turn.
        image: Height and width of images.
        signal: Length of one-dimensional signals.
        batch: Size of batches.
        flag: Value of scalar booleans; None alternates.
    """

    sequence: tuple[int, ...] = (16, 24, 12, 20)
    image: int = 64
    signal: int = 4000
    batch: int = 1
    flag: bool | None = None


CHOICES = (
    SizeChoice(),
    SizeChoice(sequence=(16,), image=224, signal=16000, flag=True),
    SizeChoice(sequence=(4, 6, 3, 5), image=32, signal=64, flag=False),
    SizeChoice(sequence=(128,), image=256, signal=32000),
    SizeChoice(sequence=(1,), image=28, signal=16),
    SizeChoice(sequence=(8,), image=299, signal=80000),
    SizeChoice(sequence=(64,), image=512, signal=1024),
    SizeChoice(sequence=(16, 24), image=64, batch=2),
    SizeChoice(sequence=(512,), image=640, signal=160000),
)
"""Tried in this order until the model runs."""

_BATCH_NAMES = {"batch", "n", "b", "bs", "bsz", "num_images"}
_SEQUENCE_WORDS = ("seq", "len", "token", "time", "step", "frame")
_IMAGE_NAMES = {"height", "width", "h", "w"}
_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def input_sizes(
    specs: Mapping[str, InputSpec], demands: Mapping[str, Mapping[int, int]], choice: SizeChoice, index: int
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """The shape of each input, and the size of each symbol.

    Args:
        specs: The inputs.
        demands: Per input, sizes the graph fixes by axis (`demanded_sizes`).
        choice: Sizes of everything else.
        index: Number of the sample; lengths vary with it.
    """
    dims = {name: _ranked(spec, demands.get(name, {})) for name, spec in specs.items()}
    sizes: dict[str, int] = {}
    for name, axes in demands.items():
        for axis, size in axes.items():
            if axis < len(dims[name]) and isinstance(symbol := dims[name][axis], str) and symbol != UNKNOWN:
                sizes.setdefault(symbol, size)
    for name, spec in specs.items():
        for axis, dim in enumerate(dims[name]):
            if isinstance(dim, str) and dim.isidentifier():
                sizes.setdefault(dim, _guess(spec, dims[name], axis, choice, index))
    _add_totals(sizes)
    shapes = {
        name: [
            dim
            if isinstance(dim, int)
            else demands.get(name, {}).get(axis, _guess(spec, dims[name], axis, choice, index))
            if dim == UNKNOWN
            else _evaluate(dim, sizes, _guess(spec, dims[name], axis, choice, index))
            for axis, dim in enumerate(dims[name])
        ]
        for name, spec in specs.items()
    }
    return shapes, sizes


def _ranked(spec: InputSpec, demanded: Mapping[int, int]) -> tuple[int | str, ...]:
    """The dims of an input; of unknown rank, as many as the graph speaks of."""
    if spec.dims is not None:
        return spec.dims
    return (UNKNOWN,) * max((axis + 1 for axis in demanded), default=1)


def _guess(spec: InputSpec, dims: tuple[int | str, ...], axis: int, choice: SizeChoice, index: int) -> int:
    dim = dims[axis]
    name = dim.lower() if isinstance(dim, str) else ""
    if "batch" in name or name in _BATCH_NAMES:
        return choice.batch
    if "past" in name and "total" not in name:
        return 4
    sequence = any(word in name for word in _SEQUENCE_WORDS)
    if axis == 0 and len(dims) > 1 and not sequence:
        return choice.batch
    if name in _IMAGE_NAMES or (spec.dtype.is_floating_point() and len(dims) >= 4 and axis >= 2):
        return choice.image
    if spec.dtype == ir.DataType.UINT8 and len(dims) >= 3 and axis >= 1:
        return 3 if axis == len(dims) - 1 else choice.image
    if "sample" in name or "audio" in spec.name.lower() or "wav" in spec.name.lower():
        return choice.signal
    if spec.dtype.is_floating_point() and len(dims) == 3 and axis == 2 and dims[1] == 1:
        return choice.signal
    if len(dims) == 1 and not sequence:
        return choice.batch
    return choice.sequence[index % len(choice.sequence)]


def _add_totals(sizes: dict[str, int]) -> None:
    """A "total" length is the past and the new tokens together."""
    totals = [name for name in sizes if "total" in name.lower()]
    parts = {name.lower(): size for name, size in sizes.items() if name not in totals}
    past = [size for name, size in parts.items() if "past" in name]
    new = [size for name, size in parts.items() if "seq" in name and "past" not in name]
    for name in totals:
        if past and new:
            sizes[name] = past[0] + new[0]


def _evaluate(expression: str, sizes: Mapping[str, int], default: int) -> int:
    """The size an expression such as "past + seq" or "2*s0" stands for."""
    if expression in sizes:
        return sizes[expression]
    try:
        return max(0, _compute(ast.parse(expression, mode="eval").body, sizes))
    except (SyntaxError, KeyError, ZeroDivisionError):
        return default


def _compute(node: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return _ARITHMETIC[type(node.op)](_compute(node.left, sizes), _compute(node.right, sizes))
    raise KeyError(ast.dump(node))


def demanded_sizes(value: ir.Value) -> dict[int, int]:
    """Sizes by axis that weights fix for a graph input, followed through operators that keep its shape."""
    demands: dict[int, int] = {}
    rank = value.shape.rank() if value.shape is not None else None
    pending, seen = [value], {id(value)}
    while pending:
        for use in pending.pop().uses():
            for axis, size in _demand(use.node, use.idx, rank).items():
                demands.setdefault(axis, size)
            if use.node.op_type in _KEEPS_SHAPE and use.idx == 0 and id(use.node.outputs[0]) not in seen:
                seen.add(id(use.node.outputs[0]))
                pending.append(use.node.outputs[0])
    return demands


_KEEPS_SHAPE = {
    "Cast", "Identity", "Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Log", "Sqrt", "Clip", "LayerNormalization",
    "Dropout", "BatchNormalization", "InstanceNormalization", "QuantizeLinear", "DequantizeLinear", "Softmax",
}  # fmt: skip


def _demand(node: ir.Node, position: int, rank: int | None) -> dict[int, int]:
    """Sizes by axis that one use fixes."""
    weight = _static_shape(node.inputs[1]) if position == 0 and len(node.inputs) > 1 else None
    op = node.op_type
    if op in ("Add", "Sub", "Mul", "Div") and rank is not None:
        other = _static_shape(node.inputs[1 - position])
        if other is None:
            return {}
        return {rank - len(other) + i: n for i, n in enumerate(other) if n > 1 and rank - len(other) + i >= 0}
    if weight is None:
        return {}
    if op in ("Conv", "ConvTranspose") and len(weight) >= 3:
        channels = weight[1] * node.attributes.get_int("group", 1) if op == "Conv" else weight[0]
        return {1: channels, **_spatial(len(weight), rank)}
    if op == "MatMul" and weight:
        return {(rank or max(2, len(weight))) - 1: weight[-2] if len(weight) > 1 else weight[0]}
    if op == "Gemm" and len(weight) == 2:
        axis = 0 if node.attributes.get_int("transA", 0) else 1
        return {axis: weight[1] if node.attributes.get_int("transB", 0) else weight[0]}
    if op in ("BatchNormalization", "InstanceNormalization") and weight:
        return {1: weight[0]}
    if op == "LayerNormalization" and weight and rank is not None:
        return {rank - len(weight) + i: n for i, n in enumerate(weight)}
    if op in ("LSTM", "GRU", "RNN") and len(weight) == 3:
        return {2: weight[2]}
    return {}


def _spatial(weight_rank: int, rank: int | None) -> dict[int, int]:
    """Spatial sizes for an input of unknown rank, of which the graph says only how many there are."""
    if rank is not None:
        return {}
    return {0: 1, **dict.fromkeys(range(2, weight_rank), 64 if weight_rank > 3 else 4000)}


def _static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a constant."""
    tensor = constant_tensor(value)
    return None if tensor is None else tuple(int(size) for size in tensor.shape.numpy())
