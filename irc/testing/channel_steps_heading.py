"""How random networks begin and end: tokens embedded, loose ends joined, heads, outputs from the middle."""

from __future__ import annotations

from irc.testing.channel_steps import ChannelBuilder, Value
from irc.testing.channel_steps_convolution import convolution
from irc.testing.channel_steps_forms import concat, dimension, linear, reduce, transpose, unsqueeze
from irc.testing.channel_steps_heads import LONGEST

TABLES = "token table"


def tokens_embedded(graph: ChannelBuilder, tokens: Value, vocabulary: int) -> Value:
    """Rows of a table by token, and positions added: a table, its first rows, or rows gathered by a Range.

    Args:
        graph: Where.
        tokens: [N, T] integers.
        vocabulary: How many tokens there are.
    """
    graph.note("embedding")
    width, length = graph.other_width(), tokens.shape[1]
    table = graph.weight((vocabulary, width), "fan:1")
    made = graph.op("Gather", [table, tokens], (*tokens.shape, width), dtype="float32")
    form = graph.choices.integer(0, 3)
    if form == 0:
        return made
    if isinstance(length, int) and form == 1:
        return graph.binary("Add", made, graph.weight((1, length, width), "bias"))
    positions, shape = graph.weight((LONGEST, width), "bias"), (length, width)
    if form == 2:
        graph.note("positions by Slice")
        bounds = [graph.constant([0]), dimension(graph, tokens, 1), graph.constant([0])]
        return graph.binary("Add", made, graph.op("Slice", [positions, *bounds], shape))
    graph.note("positions by Range")
    size = graph.op("Squeeze", [dimension(graph, tokens, 1), graph.constant([0])], (), dtype="int64")
    numbers = graph.op("Range", [graph.constant(0), size, graph.constant(1)], (length,), dtype="int64")
    if graph.chance(2):
        numbers = unsqueeze(graph, numbers, 0)
    rows = graph.op("Gather", [positions, numbers], (*numbers.shape, width), dtype="float32")
    return graph.binary("Add", made, rows)


def finish(graph: ChannelBuilder, inputs: list[Value]) -> list[Value]:
    """Every value that nothing reads ends in an output; heads after some; an output from the middle at times.

    Args:
        graph: Where.
        inputs: The graph inputs, each of which is read afterwards.

    Returns:
        The graph outputs, no two the same.
    """
    read = _read(graph)
    loose = [value for value in dict.fromkeys((*inputs, *graph.scope)) if value.name not in read]
    loose = [value for value in loose if value.dtype == "float32"] or [graph.scope[-1]]
    most = graph.choices.integer(1, graph.limits.outputs)
    if len(loose) > most:
        loose = [*loose[: most - 1], _joined(graph, loose[most - 1 :])]
    outputs = []
    for value in loose:
        ended = value if value not in inputs and graph.chance(3) else _head(graph, value)
        outputs.append(ended)
    if len(outputs) < graph.limits.outputs and graph.chance(4):
        middle = [value for value in graph.scope if value not in inputs and value not in outputs]
        if middle:
            graph.note("output from the middle")
            outputs.append(graph.choices.pick(middle))
    return outputs


def _read(graph: ChannelBuilder) -> set[str]:
    names = {name for node in graph.nodes for name in node.input}
    for node in graph.nodes:
        for attribute in node.attribute:
            names |= {name for inner in attribute.g.node for name in inner.input}
    return names


def _joined(graph: ChannelBuilder, values: list[Value]) -> Value:
    """The values as vectors, side by side, or the sum of what a layer makes of each."""
    graph.note("branches joined")
    vectors = [_vector(graph, value) for value in values]
    if graph.chance(2):
        return concat(graph, vectors, 1)
    width = graph.other_width()
    made = [linear(graph, vector, width) for vector in vectors]
    return graph.binary("Sum", *made)


def _vector(graph: ChannelBuilder, value: Value) -> Value:
    if value.layout == "vector":
        return value
    return reduce(graph, "ReduceMean", value, [2, 3] if value.layout == "image" else [1], keepdims=False)


def _head(graph: ChannelBuilder, value: Value) -> Value:
    """A layer to a few classes; for sequences the table of the tokens, turned, at times."""
    if value.layout == "image":
        made = convolution(graph, value, graph.choices.pick((3, 2)), kernel=1)
        assert made is not None
        return made
    tables = [
        node.input[0]
        for node in graph.nodes
        if node.op_type == "Gather"
        and node.input[0] in graph.weights
        and graph.weights[node.input[0]].ndim == 2
        and graph.weights[node.input[0]].shape[0] != LONGEST
    ]
    if value.layout == "sequence" and tables:
        graph.note("tied head")
        name = tables[0]
        vocabulary, width = graph.weights[name].shape
        hidden = value if value.width == width else linear(graph, value, width)
        turned = transpose(graph, Value(name, (vocabulary, width)), (1, 0))
        return graph.op("MatMul", [hidden, turned], (*value.shape[:-1], vocabulary))
    return linear(graph, value, graph.choices.pick((3, 5)))
