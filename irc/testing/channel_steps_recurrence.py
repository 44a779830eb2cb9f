"""Blocks of recurrent layers on [T, N, C]: LSTM, GRU and RNN, in one direction or both, with and without initial states."""

from __future__ import annotations

from typing import Any

from irc.testing.channel_steps import Block, ChannelBuilder, Size, Value
from irc.testing.channel_steps_forms import (
    computed_reshape,
    concat,
    dimension,
    reshape,
    split,
    squeeze,
    transpose,
    unsqueeze,
)

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(graph: ChannelBuilder, op_type: str, value: Value, *, last_only: bool = False) -> Value:
    """A recurrent layer over a sequence.

    Args:
        graph: Where.
        op_type: LSTM, GRU or RNN.
        value: [N, T, C].
        last_only: Gives the last state, a vector [N, H] or [N, 2H], in place of the sequence.
    """
    gates, inner, hidden = GATES[op_type], value.width, graph.choices.pick((4, 6, 8, 5))
    direction = graph.choices.pick(("forward", "bidirectional", "forward", "reverse"))
    ways = 2 if direction == "bidirectional" else 1
    steps = transpose(graph, value, (1, 0, 2))
    weights: list[Value | None] = [
        graph.matrix((ways, gates * hidden, inner), inner),
        graph.matrix((ways, gates * hidden, hidden), hidden),
    ]
    bias = graph.weight((ways, 2 * gates * hidden), "bias") if not graph.chance(3) else None
    states: list[Value | None] = []
    if graph.chance(2):
        graph.note("initial states")
        states = [_initial(graph, value, ways, hidden) for _ in range(2 if op_type == "LSTM" else 1)]
    inputs = [steps, *weights, bias, None, *states]
    if op_type == "LSTM" and len(states) == 2 and graph.chance(3):
        graph.note("peepholes")
        inputs.append(graph.weight((ways, 3 * hidden), "bias"))
    attributes: dict[str, Any] = {} if direction == "forward" and graph.chance(2) else {"direction": direction}
    if op_type == "GRU" and graph.chance(2):
        attributes["linear_before_reset"] = 1
    if op_type == "RNN" and graph.chance(2):
        attributes["activations"] = ["Relu"] * ways
    length, batch = value.shape[1], value.shape[0]
    whole: tuple[Size, ...] = (length, ways, batch, hidden)
    final: tuple[Size, ...] = (ways, batch, hidden)
    graph.note(f"{op_type}, {direction}")
    made = graph.node(op_type, inputs, [None, final] if last_only else [whole], hidden_size=hidden, **attributes)[0]
    return _last_state(graph, made) if last_only else _sequence(graph, made, value)


def _initial(graph: ChannelBuilder, value: Value, ways: int, hidden: int) -> Value:
    """A state to start from: learnt, the same for each of the batch, or filled at run time, or as wide as a known batch."""
    batch = value.sizes(0)
    if batch is not None and graph.chance(2):
        return graph.weight((ways, *batch, hidden), "bias")
    parts = [graph.constant([ways]), dimension(graph, value, 0), graph.constant([hidden])]
    shape = graph.op("Concat", parts, (3,), dtype="int64", axis=0)
    if graph.chance(2):
        return graph.op("Expand", [graph.weight((ways, 1, hidden), "bias"), shape], (ways, value.shape[0], hidden))
    return graph.op("ConstantOfShape", [shape], (ways, value.shape[0], hidden), dtype="float32")


def _sequence(graph: ChannelBuilder, made: Value, value: Value) -> Value:
    """[T, ways, N, H] as [N, T, ways * H]."""
    length, ways, batch, hidden = made.shape
    if ways == 1:
        if graph.chance(2):
            return transpose(graph, squeeze(graph, made, 1), (1, 0, 2))
        return squeeze(graph, transpose(graph, made, (2, 0, 1, 3)), 2)
    assert isinstance(hidden, int)
    if graph.chance(3):
        parts = [squeeze(graph, part, 1) for part in split(graph, made, [1, 1], 1)]
        return transpose(graph, graph.binary("Add", *parts), (1, 0, 2))
    turned = transpose(graph, made, (2, 0, 1, 3))
    if graph.chance(2):
        last = graph.choices.pick((2 * hidden, -1))
        sizes: list[int | Value] = [dimension(graph, value, 0), dimension(graph, value, 1), last]
        return computed_reshape(graph, turned, sizes, (batch, length, 2 * hidden))
    return reshape(graph, turned, [0, 0, graph.choices.pick((2 * hidden, -1))], (batch, length, 2 * hidden))


def _last_state(graph: ChannelBuilder, made: Value) -> Value:
    """[ways, N, H] as [N, ways * H]."""
    ways, batch, hidden = made.shape
    assert isinstance(hidden, int)
    if ways == 1:
        return squeeze(graph, made, 0)
    if graph.chance(2):
        return concat(graph, [squeeze(graph, part, 0) for part in split(graph, made, [1, 1], 0)], 1)
    turned = transpose(graph, made, (1, 0, 2))
    return reshape(graph, turned, [-1, 2 * hidden], (batch, 2 * hidden))


def _whole(op_type: str) -> Block:
    def block(graph: ChannelBuilder, value: Value) -> Value | None:
        return recurrent(graph, op_type, value)

    return block


def last_state(graph: ChannelBuilder, value: Value) -> Value:
    """The last state of a recurrent layer over a sequence."""
    return recurrent(graph, graph.choices.pick(("LSTM", "GRU", "RNN")), value, last_only=True)


def _state_repeated(graph: ChannelBuilder, value: Value) -> Value | None:
    """The last state, laid beside every position."""
    state = unsqueeze(graph, last_state(graph, value), 1)
    wide = graph.op("MatMul", [state, graph.matrix((state.known(2), value.width), state.known(2))], _single(value))
    return graph.binary("Add", value, wide)


def _single(value: Value) -> tuple[Size, ...]:
    return (value.shape[0], 1, value.shape[2])


SEQUENCE: dict[str, Block] = {
    "LSTM": _whole("LSTM"),
    "GRU": _whole("GRU"),
    "RNN": _whole("RNN"),
    "last state": _state_repeated,
}
