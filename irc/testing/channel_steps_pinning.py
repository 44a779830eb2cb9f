"""Blocks that tie channels to what cannot be cut: order, positions among channels, bodies, arithmetic on shapes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from irc.testing.channel_steps import ONNX_TYPES, Block, ChannelBuilder, Shape, Value
from irc.testing.channel_steps_forms import dimension, reduce, replaced


def _softmax(graph: ChannelBuilder, value: Value) -> Value | None:
    """Softmax over the channels as a gate."""
    axis = graph.choices.pick((value.axis, value.axis - len(value.shape)))
    op_type = graph.choices.pick(("Softmax", "Softmax", "LogSoftmax"))
    return graph.binary("Mul", value, graph.op(op_type, [value], value.shape, axis=axis))


def _positions_softmax(graph: ChannelBuilder, value: Value) -> Value | None:
    """Softmax over the positions of a sequence, or over the rows of an image: channels stay free."""
    axis = 1 if value.layout == "sequence" else 2
    return graph.binary("Add", value, graph.op("Softmax", [value], value.shape, axis=axis))


def _largest(graph: ChannelBuilder, value: Value) -> Value | None:
    """The largest channels in order."""
    count = max(2, value.width // 2)
    shape = replaced(value.shape, value.axis, count)
    inputs = [value, graph.constant([count])]
    return graph.node("TopK", inputs, [shape, shape], dtype=("float32", "int64"), axis=value.axis)[0]


def _which(graph: ChannelBuilder, value: Value) -> Value | None:
    """The number of the largest channel, as a float beside the channels or as a one-hot factor."""
    axis = value.axis
    if graph.chance(2):
        found = graph.op("ArgMax", [value], replaced(value.shape, axis, 1), dtype="int64", axis=axis, keepdims=1)
        number = graph.op("Cast", [found], found.shape, dtype="float32", to=ONNX_TYPES["float32"])
        return graph.binary("Add", value, graph.binary("Mul", number, graph.scalar(0.05)))
    shape = tuple(size for place, size in enumerate(value.shape) if place != axis)
    found = graph.op("ArgMax", [value], shape, dtype="int64", axis=axis, keepdims=0)
    levels = graph.constant([0.3, 1.7], "float32")
    graph.note("OneHot")
    hot = graph.op("OneHot", [found, graph.constant(value.width), levels], value.shape, dtype="float32", axis=axis)
    return graph.binary("Mul", value, hot)


def _running_sum(graph: ChannelBuilder, value: Value) -> Value | None:
    """CumSum over the channels, or over the positions."""
    along = value.axis if graph.chance(2) or value.layout == "vector" else (1 if value.layout == "sequence" else 2)
    made = graph.op("CumSum", [value, graph.constant(along)], value.shape)
    return graph.unary("Tanh", graph.binary("Mul", made, graph.scalar(0.3)))


def _scattered(graph: ChannelBuilder, value: Value) -> Value | None:
    """A few channels of a vector replaced."""
    rows = value.sizes(0)
    if rows is None:
        return None
    places = np.random.default_rng(graph.choices.integer(0, 999)).permutation(value.width)[:2]
    shape = (*rows, *(1 for _ in value.shape[1:]))
    indices = graph.constant(np.broadcast_to(places, (*shape[:-1], 2)), "int64")
    updates = graph.weight((*shape[:-1], 2), "bias")
    return graph.op("ScatterElements", [value, indices, updates], value.shape, axis=len(value.shape) - 1)


def _branch(graph: ChannelBuilder, value: Value) -> Value | None:
    """An If on the size of the batch, both branches of which read the value from outside."""
    size = graph.op("Squeeze", [dimension(graph, value, 0), graph.constant([0])], (), dtype="int64")
    limit = graph.constant(graph.choices.pick((2, 1)))
    condition = graph.op("Greater", [size, limit], (), dtype="bool")
    factor = graph.channel_vector(value, "scale")
    bodies = {}
    for branch, op_type in (("then_branch", "Mul"), ("else_branch", graph.choices.pick(("Add", "Max")))):
        inside, out = graph.fresh("inside"), graph.fresh("out")
        nodes = [
            helper.make_node(op_type, [value.name, factor.name], [inside], name=graph.fresh("/inner")),
            helper.make_node("Tanh", [inside], [out], name=graph.fresh("/inner")),
        ]
        bodies[branch] = helper.make_graph(nodes, graph.fresh("body"), [], [_declared(out, value.shape)])
    return graph.op("If", [condition], value.shape, dtype="float32", **bodies)


def _declared(name: str, shape: Shape) -> onnx.ValueInfoProto:
    sizes = [size if isinstance(size, int) or size.isidentifier() else None for size in shape]
    return helper.make_tensor_value_info(name, ONNX_TYPES["float32"], sizes)


def _scan(graph: ChannelBuilder, value: Value) -> Value | None:
    """A Scan over the positions of a sequence, turned to the front: the state is a running mean of channels."""
    turned = graph.op("Transpose", [value], (value.shape[1], value.shape[0], value.shape[2]), perm=[1, 0, 2])
    first = graph.binary("Mul", reduce(graph, "ReduceMean", value, [1], keepdims=False), graph.scalar(0.5))
    state, step, after, out, half = (graph.fresh(name) for name in ("state", "step", "after", "out", "half"))
    factor = graph.constant(0.5, "float32")
    nodes = [
        helper.make_node("Mul", [state, factor.name], [half], name=graph.fresh("/inner")),
        helper.make_node("Add", [half, step], [after], name=graph.fresh("/inner")),
        helper.make_node("Tanh", [after], [out], name=graph.fresh("/inner")),
    ]
    shape = first.shape
    body = helper.make_graph(
        nodes,
        graph.fresh("body"),
        [_declared(state, shape), _declared(step, shape)],
        [_declared(after, shape), _declared(out, shape)],
    )
    made = graph.node("Scan", [first, turned], [shape, turned.shape], body=body, num_scan_inputs=1)[1]
    return graph.op("Transpose", [made], value.shape, perm=[1, 0, 2])


def _scale_by_size(graph: ChannelBuilder, value: Value) -> Value | None:
    """A factor computed from the number of channels, or from the number of all entries."""
    if graph.chance(2):
        size = dimension(graph, value, value.axis)
    else:
        size = graph.op("Size", [graph.weight((value.width, 2), "bias")], (), dtype="int64")
        graph.note("Size")
    number = graph.op("Cast", [size], size.shape, dtype="float32", to=ONNX_TYPES["float32"])
    op_type = graph.choices.pick(("Mul", "Div"))
    if op_type == "Mul":
        number = graph.unary("Reciprocal", number)
    scaled = graph.binary(op_type, value, graph.unary("Sqrt", number))
    return graph.binary("Mul", scaled, graph.scalar(2.0))


def _numbered(graph: ChannelBuilder, value: Value) -> Value | None:
    """Numbers of the channels, by Range up to their count, that are added to them."""
    if value.layout == "image":
        return None
    size = graph.op("Squeeze", [dimension(graph, value, value.axis), graph.constant([0])], (), dtype="int64")
    numbers = graph.op("Range", [graph.constant(0), size, graph.constant(1)], (value.width,), dtype="int64")
    floats = graph.op("Cast", [numbers], (value.width,), dtype="float32", to=ONNX_TYPES["float32"])
    return graph.binary("Add", value, graph.binary("Mul", floats, graph.scalar(0.05)))


def _filled(graph: ChannelBuilder, value: Value) -> Value | None:
    """A tensor of one number, of the shape of the value or as many channels, that is added."""
    fill = helper.make_tensor("value", ONNX_TYPES["float32"], [1], [0.25])
    rank = len(value.shape)
    if graph.chance(2):
        whole = graph.op("Shape", [value], (rank,), dtype="int64")
        made = graph.op("ConstantOfShape", [whole], value.shape, dtype="float32", value=fill)
        graph.note("ConstantOfShape")
    else:
        whole = graph.op("Shape", [value], (rank,), dtype="int64")
        made = graph.op("Expand", [graph.number(0.4), whole], value.shape)
        graph.note("Expand of a number")
    factor = graph.channel_vector(value, "scale")
    return graph.binary("Add", value, graph.binary("Mul", made, factor))


def _from_the_end(graph: ChannelBuilder, value: Value) -> Value | None:
    """All channels but one, the bound computed from how many there are."""
    one = graph.constant([1])
    end = graph.op("Sub", [dimension(graph, value, value.axis), one], (1,), dtype="int64")
    shape = replaced(value.shape, value.axis, value.width - 1)
    return graph.op("Slice", [value, graph.constant([0]), end, graph.constant([value.axis])], shape)


def _by_number(graph: ChannelBuilder, value: Value) -> Value | None:
    """Channels in reverse order, by numbers computed from how many there are."""
    size = graph.op("Squeeze", [dimension(graph, value, value.axis), graph.constant([0])], (), dtype="int64")
    numbers = graph.op("Range", [graph.constant(0), size, graph.constant(1)], (value.width,), dtype="int64")
    last = graph.op("Sub", [size, graph.constant(1)], (), dtype="int64")
    indices = graph.op("Sub", [last, numbers], (value.width,), dtype="int64")
    return graph.op("Gather", [value, indices], value.shape, axis=value.axis)


def _foreign(graph: ChannelBuilder, value: Value) -> Value | None:
    """An operator of ONNX Runtime of which the standard knows nothing."""
    form, domain = graph.choices.integer(0, 2), "com.microsoft"
    if form == 0:
        return graph.unary("QuickGelu", value, domain=domain)
    if form == 1 and value.layout != "image":
        return graph.op("BiasGelu", [value, graph.weight((value.width,), "bias")], value.shape, domain=domain)
    if form == 2 and value.layout == "sequence":
        parameters = [graph.weight((value.width,), kind) for kind in ("scale", "bias")]
        other = graph.unary("Tanh", value)
        return graph.op("SkipLayerNormalization", [value, other, *parameters], value.shape, domain=domain)
    return None


EVERYWHERE: dict[str, Block] = {
    "Softmax over channels": _softmax,
    "TopK": _largest,
    "ArgMax": _which,
    "CumSum": _running_sum,
    "If": _branch,
    "scale by size": _scale_by_size,
    "Range": _numbered,
    "generator": _filled,
    "channels from the end": _from_the_end,
    "channels by number": _by_number,
    "operator of ONNX Runtime": _foreign,
}
SEQUENCE: dict[str, Block] = {"Scan": _scan, "Softmax over positions": _positions_softmax}
IMAGE: dict[str, Block] = {"Softmax over rows": _positions_softmax}
VECTOR: dict[str, Block] = {"ScatterElements": _scattered}
