"""Weighted operators as products of matrices, and rows of their inputs from the data: what a layer's output error is measured on.

A Conv, Gemm or MatMul becomes `y[g] = x[g] @ w[g]` per group, its bias left out. Some of the rows of x are taken from the float model,
half of the samples for fitting, the other half for checking what was fitted.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from irc.analysis.concrete_shapes import ConcreteShapes
from irc.analysis.model_cost import value_bytes
from irc.calibration import DataSource
from irc.calibration.data import Feed
from irc.calibration.memory_packing import sizes_of
from irc.errors import DataError
from irc.judge.halves import split
from irc.memory_groups import groups_within
from irc.pass_base import Context, node_id
from irc.passes.quantization import placement
from irc.passes.quantization.layer_geometry import Array, Geometry, geometry_of

ROWS = 1024
SAMPLES = 64
BUDGET_BYTES = 256 << 20
_UNKNOWN_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A weighted operator as products of matrices, one per group: `y[g] = factor * x[g] @ w[g]`, without bias.

    Attributes:
        site: Its site id.
        source: Name of the value it reads.
        geometry: How rows and matrices lie in the tensors.
        factor: What the products are multiplied by: the alpha of a Gemm.
        node: The operator.
    """

    site: str
    source: str
    geometry: Geometry
    factor: float
    node: ir.Node

    @classmethod
    def of(cls, node: ir.Node) -> Layer | None:
        """The layer that an operator is; None if it is no Conv, Gemm or MatMul with a constant weight."""
        weight = placement.weight_of(node) if node.domain == "" and node.op_type in placement.WEIGHTED else None
        source = node.inputs[0] if node.inputs else None
        if weight is None or source is None or not source.name:
            return None
        geometry = geometry_of(node, tuple(weight.tensor.shape.numpy()), transposed=weight.transposed)
        if geometry is None:
            return None
        factor = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
        return cls(node_id(node), source.name, geometry, factor, node)

    @property
    def groups(self) -> int:
        """G, the number of groups."""
        return self.geometry.groups

    @property
    def inputs(self) -> int:
        """K, what one row of a group holds."""
        return self.geometry.inputs

    @property
    def outputs(self) -> int:
        """N, the output channels of a group."""
        return self.geometry.outputs

    @property
    def channel_of_input(self) -> Array:
        """`[G, K]` int64: the channel of the input that each element of a row comes from."""
        return self.geometry.channel_of_input()

    def matrices(self, weight: Array) -> Array:
        """`[G, K, N]`: the weight, in the layout of its constant, as matrices."""
        return self.geometry.matrices(weight)

    def tensor(self, matrices: Array) -> Array:
        """The weight in the layout of its constant: the inverse of `matrices`."""
        return self.geometry.tensor(matrices)

    def by_output(self, channels: Array) -> Array:
        """`[G, N]`: one number per output channel of the weight, `[channels]`, in the order of the matrices."""
        return self.geometry.by_output(channels)

    def of_channels(self, outputs: Array) -> Array:
        """`[channels]`: the inverse of `by_output`, the mean where several outputs are of one channel."""
        return self.geometry.of_channels(outputs)

    def row_count(self, shape: Sequence[int]) -> int:
        """How many rows an input of some shape has."""
        return self.geometry.row_count(tuple(shape))

    def rows(self, x: Array, positions: Array | None = None) -> Array:
        """`[G, R, K]` float32: rows of an input.

        Args:
            x: The input, as the operator takes it.
            positions: Which rows, `[R]` in [0, row_count); None for all.
        """
        chosen = np.arange(self.row_count(x.shape)) if positions is None else np.asarray(positions, np.int64)
        return np.ascontiguousarray(self.geometry.rows(x, chosen), np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class LayerRows:
    """Rows of a layer's input in the float model. Layers that read the same value the same way share the arrays.

    Attributes:
        fit: `[G, R1, K]` float32, from one half of the samples.
        held: `[G, R2, K]` float32, from the other half.
    """

    fit: Array
    held: Array


def sampled(
    model: ir.Model,
    layers: Sequence[Layer],
    ctx: Context,
    *,
    rows: int | Callable[[Layer], int] = ROWS,
    held_rows: int | None = None,
    samples: int = SAMPLES,
    budget_bytes: int = BUDGET_BYTES,
) -> Iterator[tuple[Layer, LayerRows]]:
    """Rows of the layers' inputs over the data, layer by layer in the order given; few layers are in memory at a time.

    Positions are drawn by the seed and the content of a sample, so neither order nor other layers matter.

    Args:
        model: The float model; unchanged.
        layers: Of this model. Those that read a value of a body, or one without elements, are left out.
        ctx: Data, runner and seed.
        rows: At most about this many for fitting, for every layer or by layer; fewer where the samples are small.
        held_rows: At most about this many held out; by default as many.
        samples: At most this many are run, half of them for each.
        budget_bytes: What the values of one sample and the rows may take together.

    Raises:
        DataError: If the samples are not the same at every sweep.
        RunnerError: If the model does not run.
    """
    if ctx.data is None or ctx.runner is None or not layers:
        return
    chosen = _Halves.of(ctx.data, samples)
    sources = _sources(model)
    known = [layer for layer in layers if layer.source in sources]
    if not known or chosen.example is None:
        return
    wanted = rows if callable(rows) else lambda layer: rows
    held = wanted if held_rows is None else lambda layer: held_rows
    shapes = ConcreteShapes(model, sizes_of(model, chosen.example))
    sized: list[tuple[list[Layer], int]] = []
    for source, reading in _by_source(known).items():
        size = value_bytes(sources[source], shapes)
        kept = {layer.geometry: 4 * (wanted(layer) + held(layer)) * layer.groups * layer.inputs for layer in reading}
        sized.append((reading, (_UNKNOWN_BYTES if size is None else size) + sum(kept.values())))
    groups = groups_within(sized, budget_bytes)
    for index, group in enumerate(groups):
        members = list(itertools.chain.from_iterable(group))
        ctx.progress(index / len(groups), f"sampling the inputs of {len(members)} layers")
        found = _gathered(model, members, ctx, chosen, wanted, held)
        for layer in members:
            part = found.get((layer.source, layer.geometry))
            if part is not None:
                yield layer, part
        found.clear()


def simulated(x: Array, scale: Array | float, zero_point: Array | int, low: int, high: int) -> Array:
    """What is left of numbers behind QuantizeLinear and DequantizeLinear, float32 of the same shape.

    Args:
        x: Any shape.
        scale: Positive; a number, or an array that broadcasts against x.
        zero_point: Likewise.
        low: Smallest integer.
        high: Largest integer.
    """
    step, zero = np.asarray(scale, np.float32), np.asarray(zero_point, np.float32)
    work = np.divide(x, step, dtype=np.float32)
    np.rint(work, out=work)
    np.clip(work, np.float32(low) - zero, np.float32(high) - zero, out=work)
    work *= step
    return work


@dataclasses.dataclass(frozen=True, eq=False)
class _Halves:
    """Which samples are run.

    Attributes:
        fit: Keys of the samples to fit on.
        held: Keys of the samples to check on.
        example: A feed.
    """

    fit: frozenset[str]
    held: frozenset[str]
    example: Feed | None

    @classmethod
    def of(cls, source: DataSource, limit: int) -> _Halves:
        example, keys = None, []
        for sample in source.samples():
            example = sample.feed if example is None else example
            keys.append(sample.key)
        half = max(1, limit // 2)
        fit, held = (frozenset(sorted(part)[:half]) for part in split(keys))
        return cls(fit, held, example)


def _sources(model: ir.Model) -> dict[str, ir.Value]:
    """The values of the main graph that rows can be taken from."""
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    return {value.name: value for value in values if value.name}


def _by_source(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        found.setdefault(layer.source, []).append(layer)
    return found


def _gathered(
    model: ir.Model,
    layers: Sequence[Layer],
    ctx: Context,
    chosen: _Halves,
    wanted: Callable[[Layer], int],
    held: Callable[[Layer], int],
) -> dict[tuple[str, Geometry], LayerRows]:
    """The rows of some layers, in one sweep."""
    kinds = {(layer.source, layer.geometry): layer for layer in layers}
    inputs = {value.name for value in model.graph.inputs}
    names = list(dict.fromkeys(source for source, _ in kinds if source not in inputs))
    parts: dict[tuple[str, Geometry], dict[str, Array]] = {kind: {} for kind in kinds}
    pending = chosen.fit | chosen.held
    assert ctx.runner is not None
    with ctx.runner.open(model, extra_outputs=names) as opened:
        for sample in ctx.data.samples():
            if (key := sample.key) not in pending:
                continue
            pending -= {key}
            values = opened.run(sample.feed, names) if names else {}
            for kind, layer in kinds.items():
                x = np.asarray(values[kind[0]] if kind[0] in values else sample.feed[kind[0]])
                share = -(-wanted(layer) // len(chosen.fit)) if key in chosen.fit else 0
                share = max(share, -(-held(layer) // len(chosen.held)) if key in chosen.held else 0)
                parts[kind][key] = layer.rows(x, _positions(layer.row_count(x.shape), share, ctx.seed, key))
            if not pending:
                break
    if pending:
        raise DataError(
            f"{ctx.data.name}: the samples differ from one sweep to the next; seed whatever is random in it"
        )
    found = {}
    for kind, part in parts.items():
        fitted, kept = (
            np.concatenate([part[key] for key in sorted(half)], axis=1) for half in (chosen.fit, chosen.held)
        )
        if fitted.shape[1] and kept.shape[1]:
            found[kind] = LayerRows(fitted, kept)
    return found


def _positions(count: int, quota: int, seed: int, key: str) -> Array:
    """Which rows of a sample to take, ascending."""
    if count <= quota:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, int(key[:16], 16)]).choice(count, quota, replace=False))
