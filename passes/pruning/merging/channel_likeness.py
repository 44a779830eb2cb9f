"""How well a channel can do the work of another one in a layer that reads both.

    x_c ~ a x_k + b      lost = min over a of tr(W_c^T E[e e^T] W_c),   e = x_c - a x_k - b,   b = E[x_c] - a E[x_k]

x_c holds all taps of channel c that a row of the input has, W_c the rows of the weight that read them: what counts is the energy that the
outputs of the layer lose, as in block-OBS, and a is what loses least. a = 0 is plain removal with its mean kept, so merging never loses
more. b goes into the bias, which is exact but where a convolution pads with zeros; without a bias it is zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from irc.passes.pruning.merging.family_readers import FamilyReader, NotMergeable
from irc.passes.pruning.repair.input_moments import InputMoments, Moments
from irc.passes.pruning.rotation.linear_operators import where

Array = np.ndarray[Any, Any]
NEGLIGIBLE = 1e-9
"""Share of a layer's output energy that a channel may lose whatever it is: dead channels are like any other."""

LEAST_ROWS = 16
"""Of an input: by few of them any channel seems to predict any other."""


@dataclasses.dataclass(frozen=True, eq=False)
class Likeness:
    """What it takes in one layer to replace channels by others, and what it costs.

    Attributes:
        scale: `[n, n]`: a, by which the one of the column stands for the one of the row.
        lost: `[n, n]`: share of the layer's output energy that is lost; infinite where it cannot be done, 0 where the layer does not
            read the channel.
        own: `[n]`: share that each channel has.
        moments: Of what the layer reads, for b; None where there are no data or there is no bias.
    """

    scale: Array
    lost: Array
    own: Array
    moments: Moments | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Replacements:
    """All readers of a family together.

    Attributes:
        readers: The layers.
        likenesses: One per reader.
        lost: `[n, n]`: sum over the layers; infinite on the diagonal.
        own: `[n]`: likewise.
    """

    readers: Sequence[FamilyReader]
    likenesses: Sequence[Likeness]
    lost: Array
    own: Array

    @classmethod
    def of(cls, readers: Sequence[FamilyReader], likenesses: Sequence[Likeness]) -> Replacements:
        """Adds them up."""
        lost = np.asarray(sum(found.lost for found in likenesses))
        np.fill_diagonal(lost, np.inf)
        return cls(readers, likenesses, lost, np.asarray(sum(found.own for found in likenesses)))

    def alike(self, similarity: float) -> Array:
        """`lost`, infinite where the one predicts less than a share of the energy of the other."""
        found: Array = np.where(self.lost <= (1 - similarity) * self.own[:, None] + NEGLIGIBLE, self.lost, np.inf)
        return found

    def share(self, gone: Array, into: Array) -> Array:
        """The share of its energy that each of some channels loses; 0 where it has none to speak of."""
        own, lost = self.own[gone], self.lost[gone, into]
        found: Array = np.where(own > NEGLIGIBLE, lost / np.maximum(own, NEGLIGIBLE), 0.0)
        return found


def measured(readers: Sequence[FamilyReader], moments: InputMoments) -> Replacements:
    """What data say.

    Raises:
        NotMergeable: If what a layer reads, or its weight, is not finite.
    """
    moments.gather([reader.layer for reader in readers])
    return Replacements.of(readers, [_regressed(reader, moments[reader.layer]) for reader in readers])


def matrix_of(reader: FamilyReader) -> Array:
    """`[K, N]` float64: the weight of a reader's group.

    Raises:
        NotMergeable: If it is not finite.
    """
    weight = reader.layer.weight.values
    if not np.isfinite(weight).all():
        raise NotMergeable(f"the weight of {where(reader.layer.node)} is not finite")
    found: Array = reader.layer.layer.matrices(weight)[reader.group].astype(np.float64)
    return found


def _regressed(reader: FamilyReader, moments: Moments | None) -> Likeness:
    if moments is None:
        raise NotMergeable(f"what {where(reader.layer.node)} reads is not finite, or there is nothing of it")
    if moments.count < LEAST_ROWS:
        raise NotMergeable(
            f"{where(reader.layer.node)} was seen to read {moments.count} rows, and {LEAST_ROWS} are needed; give more samples"
        )
    biased = reader.layer.adds_bias is not None
    gram = moments.gram[reader.group] if biased else moments.second(reader.group)
    weight = matrix_of(reader)
    energy = float((weight * (gram @ weight)).sum())
    mine = np.flatnonzero(reader.reads)
    places = reader.elements[mine]
    read = weight[places]
    metric = read @ read.transpose(0, 2, 1)  # [m, T, T]
    alone = gram[places[:, :, None], places[:, None, :]].astype(np.float64)
    count, taps = places.shape
    squares = metric.reshape(count, -1) @ alone.reshape(count, -1).T
    products = np.empty((count, count))
    for row in range(count):
        block = gram[places[row]][:, places.ravel()].astype(np.float64).reshape(taps, count, taps)
        products[row] = np.einsum("ts,tks->k", metric[row], block)
    own = np.diagonal(squares)
    scale = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
    lost = np.clip(own[:, None] - scale * products, 0.0, None)
    return spread_out(reader, scale, lost, own, energy, moments if biased else None)


def spread_out(
    reader: FamilyReader, scale: Array, lost: Array, own: Array, energy: float, moments: Moments | None
) -> Likeness:
    """A likeness of all atoms from that of those that a layer reads, in units of its energy."""
    count, mine = len(reader.elements), np.flatnonzero(reader.reads)
    unit = 1 / energy if energy > 0 else 0.0
    scales, losses, owns = np.zeros((count, count)), np.zeros((count, count)), np.zeros(count)
    losses[mine] = np.inf  # what a layer reads cannot be replaced by what it does not read
    scales[np.ix_(mine, mine)], losses[np.ix_(mine, mine)], owns[mine] = scale, lost * unit, own * unit
    return Likeness(scales, losses, owns, moments)
