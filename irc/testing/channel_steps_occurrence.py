"""Which rules of channel propagation a model puts to use, found by its operators, constants and shapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from irc.testing.channel_steps_sites import CHANNEL_AXIS, Site, sizes

ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow")
UNARY = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Softplus", "Elu", "Erf", "Abs", "Sqrt", "Neg", "HardSwish", "Mish")
REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp")
RECURRENT = ("LSTM", "GRU", "RNN")
FOREIGN = ("QuickGelu", "BiasGelu", "SkipLayerNormalization")
Predicate = Callable[[Site], bool]


def _is(*operators: str) -> Predicate:
    return lambda site: site.op in operators


def _meets(test: Callable[[tuple[object, ...], tuple[object, ...]], bool]) -> Predicate:
    return lambda s: s.op in ARITHMETIC and s.operands == 2 and test(s.shape(0), s.shape(1))


def _weight_of(test: Callable[[tuple[int, ...]], bool]) -> Predicate:
    """Arithmetic of a value and an initializer of which something is true."""

    def found(site: Site) -> bool:
        constants = [site.constant(index) for index in (0, 1)] if site.op in ARITHMETIC else []
        return site.op in ARITHMETIC and site.operands == 1 and any(c is not None and test(c.shape) for c in constants)

    return found


def _convolution(test: Callable[[Site, int, int, int], bool]) -> Predicate:
    """Conv of which something is true, given the groups and the numbers of channels in and out."""

    def found(site: Site) -> bool:
        if site.op != "Conv":
            return False
        weight = site.shape(1)
        group = int(site.attribute("group", 1))
        return bool(weight) and test(site, group, int(weight[1]) * group, int(weight[0]))

    return found


def _kernel(site: Site) -> int:
    return int(np.prod(site.shape(1)[2:]))


def _grouped_transposed(site: Site) -> int:
    return int(site.attribute("group", 1)) if site.op == "ConvTranspose" else 0


def _rank(site: Site) -> tuple[int, int]:
    return len(site.shape(0)), len(site.result)


def _steps(site: Site) -> list[int]:
    steps = site.constant(4)
    return [int(step) for step in steps.ravel()] if steps is not None else [1]


def _on_channels(site: Site) -> bool:
    axis, rank = site.constant(3), len(site.shape(0))
    return axis is not None and rank > 0 and int(axis.ravel()[0]) % rank == CHANNEL_AXIS.get(rank, rank - 1)


def _slice(test: Predicate) -> Predicate:
    return lambda s: s.op == "Slice" and s.constant(1) is not None and s.constant(2) is not None and test(s)


def _split_sizes(site: Site) -> set[int]:
    axis = int(site.attribute("axis", 0))
    made = [sizes(output) for output in site.node.outputs]
    return {shape[axis] for shape in made if shape and isinstance(shape[axis], int)}


def _indices(site: Site, rank: int) -> bool:
    found = site.constant(1)
    return site.op == "Gather" and site.computed(0) and found is not None and found.ndim == rank and site.result != ()


def _padded(site: Site, channels: bool) -> bool:
    pads = site.constant(1)
    if site.op != "Pad" or pads is None:
        return False
    rank = len(pads) // 2
    return any(
        pads[end * rank + axis] and (axis == CHANNEL_AXIS[rank]) == channels for end in (0, 1) for axis in range(rank)
    )


def _reduced(site: Site, channels: bool, keep: int | None = None) -> bool:
    if site.op not in REDUCTIONS or site.over_channels != channels or not site.computed(0):
        return False
    return keep is None or int(site.attribute("keepdims", 1)) == keep


def _decomposed(site: Site, centred: bool) -> bool:
    """A root of a mean of squares, that a value is divided by."""
    if site.op != "Sqrt" or site.producer(0) != "Add":
        return False
    added = site.before(0)
    mean = added.before(0) if added is not None else None
    squares = mean.before(0) if mean is not None and mean.op == "ReduceMean" else None
    return squares is not None and squares.op in ("Pow", "Mul") and (squares.producer(0) == "Sub") == centred


def _repeats_heads(site: Site) -> bool:
    return site.op in ("Expand", "Tile") and len(site.shape(0)) == 5 and site.producer(0) == "Unsqueeze"


def _channels(shape: tuple[object, ...]) -> object:
    return shape[CHANNEL_AXIS[len(shape)]] if len(shape) in CHANNEL_AXIS else None


def _widens(site: Site) -> bool:
    """Whether there are more channels after an Expand or a Tile."""
    before, after = _channels(site.shape(0)), _channels(site.result)
    return site.op in ("Expand", "Tile") and None not in (before, after) and before != after


def _initial_state(site: Site) -> bool:
    return site.op in RECURRENT and site.value(5) is not None


def _tied(site: Site) -> bool:
    table = site.value(0)
    if site.op != "Gather" or table is None or table.const_value is None:
        return False
    return any(node.op_type in ("Transpose", "MatMul", "Gemm") for node, _ in table.uses())


def _shared(site: Site) -> bool:
    weight = site.value(1)
    return weight is not None and weight.const_value is not None and len(list(weight.uses())) > 1


def _quantized_weight(site: Site, ndim: int) -> bool:
    scale = site.constant(1)
    return site.op == "DequantizeLinear" and not site.computed(0) and scale is not None and scale.ndim == ndim


RULES: dict[str, Predicate] = {
    "elementwise: one operand": _is(*UNARY),
    "elementwise: values of one shape": _meets(lambda a, b: a == b),
    "elementwise: values that are broadcast": _meets(lambda a, b: a != b),
    "elementwise: a number": _weight_of(lambda shape: int(np.prod(shape)) == 1),
    "elementwise: a weight per channel": _weight_of(lambda shape: sum(size > 1 for size in shape) == 1),
    "elementwise: a weight of two axes or more": _weight_of(lambda shape: sum(size > 1 for size in shape) > 1),
    "elementwise: n-ary": lambda s: s.op in ("Max", "Min", "Sum", "Mean") and len(s.node.inputs) > 1,
    "elementwise: rotary table": lambda s: (
        s.op == "Concat" and s.producer(0) == "Neg" and s.producer(1) in ("Slice", "Split")
    ),
    "elementwise: Where": _is("Where"),
    "elementwise: Cast": _is("Cast"),
    "elementwise: Clip": _is("Clip"),
    "elementwise: PRelu": _is("PRelu"),
    "elementwise: Dropout": _is("Dropout"),
    "elementwise: Gelu": _is("Gelu", "com.microsoft::Gelu"),
    "elementwise: IsNaN": _is("IsNaN"),
    "elementwise: Q/DQ": lambda s: s.op == "DequantizeLinear" and s.computed(0),
    "elementwise: integer weight, one scale": lambda s: _quantized_weight(s, 0),
    "elementwise: integer weight, a scale per channel": lambda s: _quantized_weight(s, 1),
    "Conv: plain": _convolution(lambda s, g, i, o: g == 1 and _kernel(s) > 1),
    "Conv: 1x1": _convolution(lambda s, g, i, o: g == 1 and _kernel(s) == 1),
    "Conv: strided": _convolution(lambda s, g, i, o: 2 in s.attribute("strides", ())),
    "Conv: bias": _convolution(lambda s, g, i, o: s.value(2) is not None),
    "Conv: no bias": _convolution(lambda s, g, i, o: s.value(2) is None),
    "Conv: depthwise": _convolution(lambda s, g, i, o: g == i == o and g > 1),
    "Conv: depthwise, multiplier 2": _convolution(lambda s, g, i, o: g == i and o == 2 * i and g > 1),
    "Conv: grouped": _convolution(lambda s, g, i, o: 1 < g < i),
    "Conv: one spatial axis": _convolution(lambda s, g, i, o: len(s.shape(1)) == 3),
    "Conv: computed weight": lambda s: s.op == "Conv" and s.weight_is_computed,
    "Conv: shared weight": lambda s: s.op == "Conv" and _shared(s),
    "ConvTranspose: plain": lambda s: _grouped_transposed(s) == 1,
    "ConvTranspose: grouped": lambda s: _grouped_transposed(s) > 1,
    "Gemm": _is("Gemm"),
    "Gemm: transA": lambda s: s.op == "Gemm" and bool(s.attribute("transA", 0)),
    "Gemm: transB": lambda s: s.op == "Gemm" and bool(s.attribute("transB", 0)),
    "Gemm: factors": lambda s: s.op == "Gemm" and (s.attribute("alpha", 1.0) != 1 or s.attribute("beta", 1.0) != 1),
    "MatMul: weight on the right": lambda s: s.op == "MatMul" and s.constant(1) is not None and s.computed(0),
    "MatMul: weight on the left": lambda s: s.op == "MatMul" and s.constant(0) is not None and s.computed(1),
    "MatMul: two values": lambda s: s.op == "MatMul" and s.operands == 2 and not s.weight_is_computed,
    "MatMul: computed weight": lambda s: s.op == "MatMul" and s.computed(0) and s.weight_is_computed,
    "Einsum: weight": lambda s: s.op == "Einsum" and s.operands == 1,
    "Einsum: two values": lambda s: s.op == "Einsum" and s.operands == 2,
    "Attention: four axes": lambda s: s.op == "Attention" and len(s.shape(0)) == 4,
    "Attention: three axes": lambda s: s.op == "Attention" and len(s.shape(0)) == 3,
    "Attention: no scale": lambda s: s.op == "Attention" and s.attribute("scale") is None,
    "Attention: MultiHeadAttention": _is("com.microsoft::MultiHeadAttention"),
    "Reshape: an axis in parts": lambda s: s.op == "Reshape" and _rank(s)[0] < _rank(s)[1],
    "Reshape: axes merged": lambda s: s.op == "Reshape" and _rank(s)[0] > _rank(s)[1],
    "Reshape: computed sizes": lambda s: s.op == "Reshape" and s.computed(1),
    "Reshape: heads in parts": lambda s: s.op == "Reshape" and _rank(s) == (3, 4),
    "Reshape: heads merged": lambda s: s.op == "Reshape" and _rank(s) == (4, 3),
    "Reshape: shuffle": lambda s: (
        s.op == "Reshape"
        and s.producer(0) == "Transpose"
        and s.node.inputs[0] is not None
        and (turned := s.before(0)) is not None
        and turned.producer(0) == "Reshape"
    ),
    "Flatten": _is("Flatten"),
    "Squeeze": lambda s: s.op == "Squeeze" and len(s.shape(0)) > 1,
    "Unsqueeze": lambda s: s.op == "Unsqueeze" and len(s.shape(0)) > 1,
    "Transpose": _is("Transpose"),
    "Concat": lambda s: s.op == "Concat" and s.node.outputs[0].dtype == ir.DataType.FLOAT,
    "Concat: one value twice": lambda s: s.op == "Concat" and s.node.inputs[0] is s.node.inputs[1],
    "Concat: a graph input": lambda s: (
        s.op == "Concat" and any(v is not None and v.is_graph_input() for v in s.node.inputs)
    ),
    "Split: equal": lambda s: s.op == "Split" and len(_split_sizes(s)) == 1,
    "Split: unequal": lambda s: s.op == "Split" and len(_split_sizes(s)) > 1,
    "Split: of a Concat": lambda s: s.op == "Split" and s.producer(0) == "Concat",
    "Slice: range": _slice(lambda s: _steps(s) == [1] and _on_channels(s)),
    "Slice: steps": _slice(lambda s: _steps(s)[0] > 1),
    "Slice: backwards": _slice(lambda s: _steps(s)[0] < 0),
    "Slice: bounds at run time": lambda s: s.op == "Slice" and (s.computed(1) or s.computed(2)),
    "Gather: constant indices": lambda s: _indices(s, 1) and s.node.outputs[0].dtype == ir.DataType.FLOAT,
    "Gather: one index": lambda s: _indices(s, 0) and s.node.outputs[0].dtype == ir.DataType.FLOAT,
    "Gather: embedding": lambda s: s.op == "Gather" and s.constant(0) is not None and s.computed(1),
    "Gather: embedding tied to a head": _tied,
    "Expand or Tile: one channel": lambda s: _widens(s) and _channels(s.shape(0)) == 1,
    "Expand or Tile: heads": _repeats_heads,
    "Tile: all channels": lambda s: _widens(s) and _channels(s.shape(0)) != 1,
    "Pad: channels": lambda s: _padded(s, True),
    "Pad: positions": lambda s: _padded(s, False),
    "Resize: scales": lambda s: s.op == "Resize" and s.value(2) is not None,
    "Resize: sizes": lambda s: s.op == "Resize" and s.value(3) is not None,
    "pool": _is("MaxPool", "AveragePool"),
    "pool: global": _is("GlobalAveragePool", "GlobalMaxPool"),
    "DepthToSpace": _is("DepthToSpace"),
    "SpaceToDepth": _is("SpaceToDepth"),
    "DepthToSpace or SpaceToDepth, decomposed": lambda s: s.op == "Transpose" and len(s.shape(0)) == 6,
    "LayerNorm: operator": _is("LayerNormalization"),
    "LayerNorm: decomposed": lambda s: _decomposed(s, True),
    "RMSNorm: operator": _is("RMSNormalization"),
    "RMSNorm: decomposed": lambda s: _decomposed(s, False),
    "LpNormalization": _is("LpNormalization"),
    "LRN": _is("LRN"),
    "BatchNorm": _is("BatchNormalization"),
    "InstanceNorm": lambda s: s.op == "InstanceNormalization" and s.producer(0) != "Reshape",
    "GroupNorm: operator": _is("GroupNormalization"),
    "GroupNorm: decomposed": lambda s: s.op == "InstanceNormalization" and s.producer(0) == "Reshape",
    "Softmax: positions": lambda s: s.op == "Softmax" and (len(s.shape(0)) not in CHANNEL_AXIS or not s.over_channels),
    "Softmax: channels": lambda s: s.op in ("Softmax", "LogSoftmax") and len(s.shape(0)) < 5 and s.over_channels,
    "reduction: positions": lambda s: _reduced(s, False),
    "reduction: channels, axis kept": lambda s: _reduced(s, True, 1),
    "reduction: channels, axis dropped": lambda s: _reduced(s, True, 0),
    "reduction: mean of channels": lambda s: s.op == "ReduceMean" and _reduced(s, True),
    "recurrent: LSTM": _is("LSTM"),
    "recurrent: GRU": _is("GRU"),
    "recurrent: RNN": _is("RNN"),
    "recurrent: both directions": lambda s: s.op in RECURRENT and s.attribute("direction") == "bidirectional",
    "recurrent: initial state": _initial_state,
    "recurrent: last state": lambda s: s.op in RECURRENT and not s.node.outputs[0].name,
    "shape: Shape": _is("Shape"),
    "shape: Size": _is("Size"),
    "shape: Range": _is("Range"),
    "shape: ConstantOfShape": _is("ConstantOfShape"),
    "shape: Expand of a number": lambda s: s.op == "Expand" and s.shape(0) == (),
    "pin: bounds or indices at run time": lambda s: (
        s.computed(0) and ((s.op == "Slice" and s.computed(2)) or (s.op == "Gather" and s.computed(1)))
    ),
    "pin: operator of another domain": _is(*(f"com.microsoft::{name}" for name in FOREIGN)),
    "pin: If": _is("If"),
    "pin: Scan": _is("Scan"),
    "pin: TopK": _is("TopK"),
    "pin: ArgMax": _is("ArgMax"),
    "pin: CumSum": _is("CumSum"),
    "pin: OneHot": _is("OneHot"),
    "pin: Scatter": _is("ScatterElements"),
}
"""Rule to whether it applies to a node; the names begin with the row of the table of rules they belong to."""


def occurrences(model: ir.Model) -> set[str]:
    """The rules that a model needs, of those in `RULES`.

    Args:
        model: In irc's normal form, shapes inferred.
    """
    sites = [Site(node) for node in model.graph]
    return {name for name, applies in RULES.items() if any(applies(site) for site in sites)}
