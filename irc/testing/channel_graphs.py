"""Random networks whose channels can be told apart: by seed, and as a hypothesis strategy.

A network is a row of blocks that branches, meets earlier values and ends in heads. Its blocks
(`irc.testing.channel_steps_*`) are the spellings in which exporters write convolutions, attention, recurrent layers,
normalizations, quantization and the movement of channels, among them those no channel can be cut from.

    from irc.testing.channel_graphs import channel_models

    for network in channel_models(100, seed=0):
        groups = analyse(network.model)
        outputs = run(network.model, network.feeds(0)), run(network.model, network.feeds(1))
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from irc.errors import UsageError
from irc.ir import normalize, refresh_shapes
from irc.testing import (
    channel_steps_activation,
    channel_steps_attention,
    channel_steps_conversion,
    channel_steps_convolution,
    channel_steps_gating,
    channel_steps_joining,
    channel_steps_movement,
    channel_steps_normalization,
    channel_steps_pinning,
    channel_steps_product,
    channel_steps_quantization,
    channel_steps_recurrence,
    channel_steps_resolution,
)
from irc.testing.channel_steps import ONNX_TYPES, Block, ChannelBuilder, ChannelLimits, Shape, Size, Value
from irc.testing.channel_steps_forms import trimmed
from irc.testing.channel_steps_heading import finish, tokens_embedded
from irc.testing.channel_steps_occurrence import RULES, occurrences
from irc.testing.channel_steps_steadiness import is_steady, outputs_vary, unsteady_values
from irc.testing.choices import Choices, DrawnChoices, SeededChoices

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "RULES",
    "ChannelLimits",
    "ChannelModel",
    "channel_model",
    "channel_models",
    "channel_networks",
    "occurrences",
]

Array = np.ndarray[Any, Any]
_ROOMS = (
    channel_steps_convolution,
    channel_steps_normalization,
    channel_steps_activation,
    channel_steps_gating,
    channel_steps_product,
    channel_steps_attention,
    channel_steps_joining,
    channel_steps_movement,
    channel_steps_resolution,
    channel_steps_recurrence,
    channel_steps_quantization,
    channel_steps_pinning,
    channel_steps_conversion,
)


_TIMES: tuple[tuple[int, tuple[str, ...]], ...] = (
    (2, ("scale by size", "Identity", "generator", "ArgMax", "If", "Cast", "operator of ONNX Runtime", "CumSum")),
    (2, ("Gather of channels", "Pad of channels", "LpNorm", "Concat of one value", "PRelu", "TopK", "channels tiled")),
    (3, ("LSTM", "GRU", "RNN", "last state", "MatMul from the left", "Scan", "channels by number", "conv shared")),
    (3, ("channels from the end", "integer linear", "integer convolution", "integer linear on a vector")),
    (3, ("Slice with steps", "LayerNorm of a vector", "Gelu written out")),
    (5, ("conv", "conv strided", "conv grouped", "squeeze-excite", "InstanceNorm", "GroupNorm decomposed", "shuffle")),
    (5, ("image pooled", "pool", "LRN", "Resize to computed sizes", "RMSNorm", "RMSNorm of a vector", "LayerNorm")),
    (5, ("conv on a sequence", "attention, fewer keys", "attention of ONNX Runtime")),
    (5, ("sequence flattened", "sequence summarized", "attention, flat heads", "Gemm with transA")),
    (7, ("conv depthwise", "image flattened", "Pad of positions")),
    (11, ("conv transposed", "DepthToSpace", "GroupNorm operator")),
    (15, ("Resize", "SpaceToDepth", "ScatterElements", "attention, 3-D operator")),
)
OFTEN = {name: times for times, names in _TIMES for name in names}
"""Blocks that are drawn more often than once or twice as often as others, since they seldom fit or are seldom reached."""


def _pool(layout: str) -> tuple[tuple[str, Block], ...]:
    drawn: list[tuple[str, Block]] = []
    for room in _ROOMS:
        blocks = {name: (block, 1) for name, block in getattr(room, "EVERYWHERE", {}).items()}
        blocks |= {name: (block, 2) for name, block in getattr(room, layout.upper(), {}).items()}
        for name, (block, times) in blocks.items():
            drawn += [(name, block)] * OFTEN.get(name, times)
    return tuple(drawn)


BLOCKS: dict[str, tuple[tuple[str, Block], ...]] = {layout: _pool(layout) for layout in ("image", "sequence", "vector")}
"""The blocks that follow a value of each layout, as often as they are drawn."""
SIZES: dict[str, tuple[int, ...]] = {"N": (2, 3, 1), "T": (5, 7, 4), "S": (6, 3, 8), "H": (8, 11, 7), "W": (9, 7, 10)}
"""What each symbol stands for, by the number of the feeds."""
VOCABULARY = 13
TRIES = 30
"""Draws of inputs, and of blocks that fit, before what there is must do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelModel:
    """A random network and what is known about it.

    Attributes:
        model: In irc's normal form, shapes inferred.
        steps: How often each block and each spelling occurs.
        seed: Of the inputs.
    """

    model: ir.Model
    steps: Counter[str]
    seed: int

    def feeds(self, sizes_seed: int = 0) -> dict[str, Array]:
        """Inputs for one run.

        Args:
            sizes_seed: 0, 1 and 2 give different batches, lengths and image sizes, where those are symbols; equal
                numbers give equal inputs. They are drawn such that no rounding and no comparison in the network is
                decided by the last bits of a float.
        """
        feeds: dict[str, Array] = {}
        for attempt in range(TRIES):
            generator = np.random.default_rng((self.seed, sizes_seed, attempt))
            feeds = {str(value.name): _drawn(value, sizes_seed, generator) for value in self.model.graph.inputs}
            if not self._unsteady or is_steady(self._unsteady, feeds):
                break
        return feeds

    @functools.cached_property
    def _unsteady(self) -> Any:
        return unsteady_values(self.model)


def _drawn(value: ir.Value, sizes_seed: int, generator: np.random.Generator) -> Array:
    assert value.shape is not None
    sizes = [
        size if isinstance(size, int) else SIZES[str(size.value)][sizes_seed % len(SIZES["N"])] for size in value.shape
    ]
    if value.dtype == ir.DataType.INT64:
        return generator.integers(0, VOCABULARY, sizes)
    return generator.standard_normal(sizes).astype("float32")


def channel_model(choices: Choices, limits: ChannelLimits | None = None) -> ChannelModel:
    """A random network, drawn again if an output says nothing, as behind a Relu that is always zero, or is decided by last bits.

    Args:
        choices: Where decisions come from.
        limits: What the network may hold.
    """
    for _ in range(TRIES):
        network = _network(choices, limits or ChannelLimits())
        if outputs_vary(network.model, [network.feeds(number) for number in (0, 1)]):
            break
    return network


def _network(choices: Choices, limits: ChannelLimits) -> ChannelModel:
    opset = limits.opsets[1] if choices.integer(1, 3) == 3 else choices.integer(*limits.opsets)
    graph = ChannelBuilder(choices, limits, opset)
    inputs, starts = _inputs(graph)
    graph.scope += starts
    value, waiting = starts[0], starts[1:]
    for _ in range(choices.integer(*limits.blocks)):
        if waiting and graph.chance(2):
            value = waiting.pop()
        elif graph.chance(12):
            value = choices.pick(graph.scope)
        value = _block(graph, value)
        graph.scope.append(value)
    outputs = finish(graph, inputs)
    proto = helper.make_model(
        _graph(graph, inputs, outputs),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
        ir_version=11 if opset > 22 else 10 if opset > 20 else 9 if opset > 18 else 8,
    )
    model = normalize(ir.from_proto(proto))
    refresh_shapes(model, strict=False)
    return ChannelModel(model=model, steps=graph.steps, seed=choices.integer(0, 2**31 - 1))


def channel_models(count: int, seed: int = 0, limits: ChannelLimits | None = None) -> Iterator[ChannelModel]:
    """Random networks by seed.

    Args:
        count: How many.
        seed: Equal seeds give equal networks.
        limits: What the networks may hold.
    """
    for number in range(count):
        yield channel_model(SeededChoices(seed * 1_000_003 + number), limits)


def channel_networks(limits: ChannelLimits | None = None) -> SearchStrategy[ChannelModel]:
    """A hypothesis strategy of random networks.

    Args:
        limits: What the networks may hold.

    Raises:
        UsageError: If hypothesis is not installed.
    """
    try:
        from hypothesis import strategies
    except ModuleNotFoundError as error:
        raise UsageError(
            "random networks as a strategy need hypothesis; pip install hypothesis, or use channel_models(count, seed)"
        ) from error

    @strategies.composite
    def drawn(draw: strategies.DrawFn) -> ChannelModel:
        return channel_model(DrawnChoices(draw), limits)

    return drawn()


def _inputs(graph: ChannelBuilder) -> tuple[list[Value], list[Value]]:
    """The graph inputs, and the values that networks start from: those inputs, or embeddings of them."""
    choices, symbolic = graph.choices, graph.limits.symbolic
    batch: Size = "N" if symbolic and not graph.chance(3) else choices.integer(1, 3)
    inputs: list[Value] = []
    starts: list[Value] = []
    for number in range(choices.pick((1, 1, *range(1, graph.limits.inputs + 1)))):
        layout = choices.pick(("image", "sequence", "image", "tokens", "sequence", "vector"))
        symbols = symbolic and graph.chance(2 if layout in ("sequence", "tokens") else 3)
        name = f"{layout}_{number}"
        if layout == "image":
            spatial: Shape = ("H", "W") if symbols else choices.pick(((4, 4), (6, 6), (8, 8), (6, 4), (5, 7)))
            inputs.append(Value(name, (batch, choices.pick((3, 4, 8)), *spatial)))
            starts.append(inputs[-1])
            continue
        length: Size = choices.pick(("T", "S")) if symbols else choices.pick((4, 5, 6, 8, 9))
        if layout == "tokens":
            inputs.append(Value(name, (batch, length), "int64"))
            starts.append(tokens_embedded(graph, inputs[-1], VOCABULARY))
            continue
        shape = (batch, length, choices.pick((5, 8, 12))) if layout == "sequence" else (batch, choices.pick((7, 8, 12)))
        inputs.append(Value(name, shape))
        starts.append(inputs[-1])
    return inputs, starts


def _block(graph: ChannelBuilder, value: Value) -> Value:
    pool = BLOCKS[value.layout]
    for _ in range(TRIES):
        name, block = graph.choices.pick(pool)
        made = block(graph, value)
        if made is not None:
            graph.note(name)
            return trimmed(graph, made)
    return graph.unary("Relu", value)


def _graph(graph: ChannelBuilder, inputs: list[Value], outputs: list[Value]) -> onnx.GraphProto:
    used = {name for node in graph.nodes for name in node.input}
    for node in graph.nodes:
        for attribute in node.attribute:
            used |= {name for inner in attribute.g.node for name in inner.input}
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in graph.weights.items() if name in used]
    return helper.make_graph(
        graph.nodes, "network", [_declared(value) for value in inputs], [_declared(value) for value in outputs], weights
    )


def _declared(value: Value) -> onnx.ValueInfoProto:
    """A declaration, in which only symbols of inputs have names."""
    sizes = [size if isinstance(size, int) or size in SIZES else None for size in value.shape]
    return helper.make_tensor_value_info(value.name, ONNX_TYPES[value.dtype], sizes)
