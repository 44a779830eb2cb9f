"""Blocks in which a value meets earlier ones: residual sums, concatenations, parts that are cut apart again."""

from __future__ import annotations

from irc.testing.channel_steps import Block, ChannelBuilder, Value
from irc.testing.channel_steps_activation import activation
from irc.testing.channel_steps_convolution import convolution
from irc.testing.channel_steps_forms import concat, linear, split, trimmed

MOST = 48
"""Channels after a concatenation that is not yet trimmed."""


def layer(graph: ChannelBuilder, value: Value, width: int) -> Value:
    """A convolution or a linear layer."""
    if value.layout != "image":
        return linear(graph, value, width)
    made = convolution(graph, value, width, kernel=graph.choices.pick((1, 3)))
    assert made is not None
    return made


def _residual(graph: ChannelBuilder, value: Value) -> Value | None:
    """A branch of one or two layers and the value it started from, or an earlier one of its shape."""
    branch = layer(graph, value, graph.other_width())
    if graph.chance(2):
        branch = activation(graph, branch)
    branch = layer(graph, branch, value.width)
    other = graph.earlier(lambda known: known.shape == value.shape and known.name != value.name)
    start = other if other is not None and graph.chance(2) else value
    return graph.binary("Add", *((start, branch) if graph.chance(2) else (branch, start)))


def _meeting(graph: ChannelBuilder, value: Value) -> Value | None:
    """The value and an earlier one of its shape."""
    other = graph.earlier(lambda known: known.shape == value.shape and known.name != value.name)
    if other is None:
        return None
    return graph.binary(graph.choices.pick(("Add", "Add", "Sub", "Mul", "Max")), value, other)


def _fits(value: Value, known: Value) -> bool:
    if len(known.shape) != len(value.shape) or known.width + value.width > MOST:
        return False
    return all(a == b for i, (a, b) in enumerate(zip(value.shape, known.shape, strict=True)) if i != value.axis)


def _concat(graph: ChannelBuilder, value: Value) -> Value | None:
    """Concat with one or two earlier values, graph inputs among them, and a layer or not."""
    parts = [value]
    first = graph.scope[0]
    if _fits(value, first) and first.name != value.name:
        parts.append(first)
    for _ in range(graph.choices.integer(1, 2)):
        other = graph.earlier(lambda known: _fits(value, known) and known.name not in {p.name for p in parts})
        if other is not None and sum(part.width for part in parts) + other.width <= MOST:
            parts.append(other)
    if len(parts) == 1:
        return None
    if graph.chance(2):
        parts.reverse()
    return _continued(graph, concat(graph, parts, value.axis))


def _concat_of_branches(graph: ChannelBuilder, value: Value) -> Value | None:
    """Layers side by side, as in an inception module or a dense block."""
    widths = [graph.other_width() // 2 + 1 for _ in range(graph.choices.integer(1, 2))]
    parts = [value] if graph.chance(2) else []
    parts += [layer(graph, value, width) for width in widths]
    if len(parts) == 1:
        parts.append(activation(graph, value))
    return _continued(graph, concat(graph, parts, graph.choices.pick((value.axis, value.axis - len(value.shape)))))


def _concat_of_one(graph: ChannelBuilder, value: Value) -> Value | None:
    """A value beside itself, or beside its negative."""
    other = value if graph.chance(2) else graph.unary("Neg", value)
    graph.note("Concat of the same value" if other is value else "Concat of a value and its negative")
    return _continued(graph, concat(graph, [value, other], value.axis))


def _continued(graph: ChannelBuilder, value: Value) -> Value:
    if graph.chance(2):
        return layer(graph, value, graph.other_width())
    return trimmed(graph, value)


def _misaligned(graph: ChannelBuilder, value: Value) -> Value | None:
    """Two values concatenated and cut at another place; the parts are made the same width and meet."""
    width = graph.choices.pick((4, 6, 8))
    one, other = layer(graph, value, width), layer(graph, value, width + 4)
    total, place = 2 * width + 4, width + graph.choices.pick((1, 2, 3))
    first, second = split(graph, concat(graph, [one, other], value.axis), [place, total - place], value.axis)
    size = graph.other_width()
    return graph.binary("Add", layer(graph, activation(graph, first), size), layer(graph, second, size))


def _halves_that_meet(graph: ChannelBuilder, value: Value) -> Value | None:
    """Concatenated, cut in two equal halves, and one added to the other."""
    width = graph.choices.pick((3, 5, 4))
    parts = [layer(graph, value, width), layer(graph, value, width + 2)]
    first, second = split(graph, concat(graph, parts, value.axis), [width + 1, width + 1], value.axis)
    return graph.binary("Add", activation(graph, first), second)


def _partial(graph: ChannelBuilder, value: Value) -> Value | None:
    """A C2f block: split, one half through layers that each add, everything concatenated, a layer."""
    if value.width % 2 or value.width < 4:
        return None
    half = value.width // 2
    first, last = split(graph, value, [half, half], value.axis)
    parts = [first, last]
    for _ in range(graph.choices.integer(1, 2)):
        last = graph.binary("Add", last, activation(graph, layer(graph, last, half)))
        parts.append(last)
    return layer(graph, concat(graph, parts, value.axis), graph.other_width())


EVERYWHERE: dict[str, Block] = {
    "residual": _residual,
    "meeting": _meeting,
    "Concat of earlier values": _concat,
    "Concat of branches": _concat_of_branches,
    "Concat of one value": _concat_of_one,
    "misaligned Split": _misaligned,
    "Split whose halves meet": _halves_that_meet,
    "C2f": _partial,
}
