"""What tests of repairs after pruning share: a teacher with its layers, samples, batches, and survivors by family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from channel_kit import model_of, random_weight

from irc.analysis.channels import ChannelGroups, Mode, propagate
from irc.calibration import FeedList, Sample
from irc.passes.pruning.repair.batches import Batch
from irc.passes.pruning.repair.weighted_layers import WeightedLayer, WeightedLayers

Array = np.ndarray[Any, Any]


def layers_of(model: ir.Model) -> WeightedLayers:
    """The weighted layers of a model."""
    return WeightedLayers(propagate(model))


def layer_of(layers: WeightedLayers, name: str) -> WeightedLayer:
    """The layer that makes a value."""
    return next(layer for layer in layers.all if layer.node.outputs[0].name == name)


def feeds(model: ir.Model, *sizes: Mapping[str, int], count: int = 12, seed: int = 0) -> list[dict[str, Array]]:
    """Random feeds, the sizes of symbols in turn; values of neighbouring channels go together, as those of real data do."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        mine = (sizes or ({},))[i % max(len(sizes), 1)]
        feed = {}
        for value in model.graph.inputs:
            dims = [d if isinstance(d, int) else mine.get(str(d.value), 2) for d in value.shape or ()]
            dtype = (value.dtype or ir.DataType.FLOAT).numpy()
            if dtype.kind == "f":
                noise = rng.standard_normal(dims)
                feed[str(value.name)] = (noise + np.roll(noise, 1, -1)).astype(dtype) if dims else noise.astype(dtype)
            else:
                feed[str(value.name)] = rng.integers(0, 3, dims).astype(dtype)
        found.append(feed)
    return found


def apart(found: Sequence[Mapping[str, Array]]) -> list[Batch]:
    """Every feed as a batch of its own."""
    return [Batch(dict(feed), 1, seed) for seed, feed in enumerate(found)]


def source(found: Sequence[Mapping[str, Array]]) -> FeedList:
    """Feeds as data."""
    return FeedList([Sample(dict(feed)) for feed in found])


def keeping(layers: WeightedLayers, share: float, *names: str, mode: Mode = "rows", seed: int = 0) -> Array:
    """A boolean per label: of the families of some values, by default of all, a random share of the atoms of every cell stays."""
    groups = ChannelGroups(layers.propagation, mode)
    rng = np.random.default_rng(seed)
    kept = {}
    for family in groups.families:
        if names and family.name not in names:
            continue
        count = max(1, round(share * family.width))
        stay = [rng.permutation(family.atoms[family.cells == cell])[:count] for cell in range(family.cell_count)]
        kept[family] = np.sort(np.concatenate(stay))
    assert kept, [family.name for family in groups.families]
    return groups.survivors(kept)


def without(layers: WeightedLayers, name: str, gone: Sequence[int], mode: Mode = "rows") -> Array:
    """A boolean per label: some channels of one family go."""
    groups = ChannelGroups(layers.propagation, mode)
    family = next(family for family in groups.families if family.name == name)
    return groups.survivors({family: np.delete(family.atoms, list(gone))})


CHAIN = """agraph (float[n, 6] x) => (float[n, 4] y) {
    a = MatMul(x, w0)  b = Add(a, b0)  c = Relu(b)
    d = Gemm<transB=1>(c, w1, b1)  e = Relu(d)
    y = MatMul(e, w2)
}"""


def chain(seed: int = 0) -> ir.Model:
    """MatMul with an Add, Gemm with a bias, MatMul without any; 12 and 10 channels within."""
    shapes = {"w0": (6, 12), "b0": (12,), "w1": (10, 12), "b1": (10,), "w2": (10, 4)}
    return model_of(
        CHAIN, {name: random_weight(*shape, seed=seed + i) for i, (name, shape) in enumerate(shapes.items())}
    )


RESIDUAL = """agraph (float[n, 3, 6, 6] x) => (float[n, 4] y) {
    s0 = Conv<pads=[1,1,1,1]>(x, w0, b0)
    a = Conv<pads=[1,1,1,1]>(s0, w1, b1)  b = Relu(a)  c = Conv<pads=[1,1,1,1]>(b, w2, b2)  s1 = Add(s0, c)
    d = Conv<pads=[1,1,1,1], strides=[2,2]>(s1, w3, b3)  e = Relu(d)  f = Conv(e, w4)
    g = Conv<strides=[2,2]>(s1, w5)  s2 = Add(f, g)
    h = GlobalAveragePool(s2)  i = Flatten(h)  y = Gemm(i, w6, b6)
}"""


def residual(seed: int = 0) -> ir.Model:
    """A block with an identity, one with a projection."""
    shapes = {
        "w0": (8, 3, 3, 3), "b0": (8,), "w1": (12, 8, 3, 3), "b1": (12,), "w2": (8, 12, 3, 3), "b2": (8,),
        "w3": (10, 8, 3, 3), "b3": (10,), "w4": (8, 10, 1, 1), "w5": (8, 8, 1, 1), "w6": (8, 4), "b6": (4,),
    }  # fmt: skip
    return model_of(
        RESIDUAL, {name: random_weight(*shape, seed=seed + i) for i, (name, shape) in enumerate(shapes.items())}
    )
