"""Random splits, transpositions and merges of the same channels: rows and members in every order, inside and outside of each other."""

from __future__ import annotations

import random

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import MODES, model_of, random_feeds, random_weight, run

from irc.analysis.channels import ChannelGroups, propagate
from irc.channel_oracles import prove

_WIDTHS = (12, 24)
_STEPS = 9


class Network:
    """A product, a walk of random steps over its channels, and a product that reads them all."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.arrays: dict[str, np.ndarray] = {}
        self.nodes: list[str] = []
        self.values: list[tuple[str, list[int]]] = []
        for _ in range(2):
            width = self.random.choice(_WIDTHS)
            self.made(f"MatMul(x, {self.constant(random_weight(5, width, seed=seed + len(self.nodes)))})", [width])
        steps = [self.split, self.transposed, self.merged, self.joined]
        for _ in range(_STEPS):
            self.random.choice(steps)(*self.random.choice(self.values[-3:]))
        name, sizes = self.values[-1]
        width = int(np.prod(sizes))
        self.made(f"Reshape({name}, {self.constant(np.array([0, width]))})", [width])
        self.nodes.append(f"y = MatMul({self.values[-1][0]}, {self.constant(random_weight(width, 3, seed=seed))})")

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def made(self, call: str, sizes: list[int]) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(f"{name} = {call}")
        self.values.append((name, sizes))

    def split(self, name: str, sizes: list[int]) -> None:
        found = [(i, f) for i, size in enumerate(sizes) for f in range(2, size) if size % f == 0]
        if found and len(sizes) < 4:
            i, factor = self.random.choice(found)
            new = [*sizes[:i], factor, sizes[i] // factor, *sizes[i + 1 :]]
            self.made(f"Reshape({name}, {self.constant(np.array([0, *new]))})", new)

    def transposed(self, name: str, sizes: list[int]) -> None:
        order = self.random.sample(range(len(sizes)), len(sizes))
        perm = ",".join(str(axis) for axis in (0, *(axis + 1 for axis in order)))
        self.made(f"Transpose<perm=[{perm}]>({name})", [sizes[axis] for axis in order])

    def merged(self, name: str, sizes: list[int]) -> None:
        if len(sizes) > 1:
            i = self.random.randrange(len(sizes) - 1)
            new = [*sizes[:i], sizes[i] * sizes[i + 1], *sizes[i + 2 :]]
            self.made(f"Reshape({name}, {self.constant(np.array([0, *new]))})", new)

    def joined(self, name: str, sizes: list[int]) -> None:
        like = [other for other, dims in self.values if dims == sizes]
        self.made(f"{self.random.choice(['Add', 'Mul'])}({name}, {self.random.choice(like)})", sizes)

    @property
    def model(self) -> ir.Model:
        """The network."""
        return model_of(f"g (float[N,5] x) => (float[N,3] y) {{ {' '.join(self.nodes)} }}", self.arrays)


@pytest.mark.parametrize("seed", range(30))
def test_every_order_is_cut_exactly(seed: int) -> None:
    model = Network(seed).model
    feeds = random_feeds(model, {"N": 1}, {"N": 3})
    propagation = propagate(model)
    for mode in MODES:
        proof = prove(ChannelGroups(propagation, mode), run, feeds, seed=seed)
        assert proof.holds(), f"{mode}: {proof}"


def test_what_lies_in_another_order_is_what_the_networks_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the demand that rows inside of members lose the same of these, some of the networks are cut wrongly."""
    monkeypatch.setattr("irc.analysis.channels.constraints.Constraints.flattened", lambda *_arguments: None)
    wrong = 0
    for seed in range(30):
        model = Network(seed).model
        proof = prove(ChannelGroups(propagate(model), "columns"), run, random_feeds(model, {"N": 3}), seed=seed)
        wrong += not proof.holds()
    assert wrong
