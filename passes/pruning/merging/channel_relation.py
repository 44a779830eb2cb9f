"""How the channels of a value are related, pairwise, and those of what is computed from it channel by channel.

    x_c ~ a x_k,    D[c, k] = E[(x_c - a x_k)^2],    E[c] = E[x_c^2]

Which a are possible is the law of a path: any where all of it is linear in the channel, positive ones behind Relu and the like,
f(a x) = a f(x) for a > 0, and a = 1, equal channels, behind anything else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]
Law = Literal["linear", "positive", "equal"]
ROUNDING = 1e-14
"""Share of its energy by which a channel may differ from an equal one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Relation:
    """The channels of one value, pairwise.

    Attributes:
        law: Which a are possible.
        scale: `[n, n]`: a.
        apart: `[n, n]`: D.
        energy: `[n]`: E; 0 for channels that are not there.
    """

    law: Law
    scale: Array
    apart: Array
    energy: Array

    @classmethod
    def of(cls, law: Law, signature: Array) -> Relation:
        """Of channels that are linear in the same things.

        Args:
            law: Which a are possible.
            signature: `[n, K]`: by how much.
        """
        products, squares = signature @ signature.T, np.square(signature).sum(axis=1)
        scale = _best(law, products, squares)
        apart = squares[:, None] - 2 * scale * products + np.square(scale) * squares
        return cls(law, scale, _rounded(apart, squares), squares)

    @classmethod
    def summed(cls, parts: Sequence[Relation]) -> Relation:
        """Of a sum of values, as if they were independent."""
        squares = np.asarray(sum(part.energy for part in parts))
        products = np.asarray(sum(part.scale * part.energy for part in parts))
        scale = _best(parts[0].law, products, squares)
        apart = np.asarray(sum(part.apart + np.square(part.scale - scale) * part.energy for part in parts))
        return cls(parts[0].law, scale, _rounded(apart, squares), squares)

    @classmethod
    def multiplied(cls, parts: Sequence[Relation]) -> Relation:
        """Of a product of values, of equal channels, as if they were independent."""
        apart, energy = parts[0].apart, parts[0].energy
        for part in parts[1:]:
            apart = apart * part.energy[:, None] + energy * part.apart
            energy = energy * part.energy
        return cls(parts[0].law, np.ones_like(apart), apart, energy)

    @classmethod
    def joined(cls, parts: Sequence[Relation]) -> Relation:
        """Of values one behind the other that have no channel in common."""
        energy = np.asarray(sum(part.energy for part in parts))
        scale, apart = np.zeros_like(parts[0].scale), np.repeat(energy[:, None], len(energy), axis=1)
        for part in parts:
            square = np.ix_(part.energy > 0, part.energy > 0)
            scale[square], apart[square] = part.scale[square], part.apart[square]
        return cls(parts[0].law, scale, apart, energy)

    def affine(self, factors: Array, shifts: Array) -> Relation:
        """Of y = d x + e with d `[n, P]` and e `[n, Q]` by channel."""
        scale, energy = self.scale, self.energy
        sizes, offsets = np.square(factors).sum(axis=1), np.square(shifts).sum(axis=1)
        alike = factors @ factors.T
        squares = sizes * energy + offsets
        after = _best(self.law, scale * alike * energy + shifts @ shifts.T, squares)
        filtered = np.square(scale) * sizes[:, None] - 2 * scale * after * alike + np.square(after) * sizes
        shifted = offsets[:, None] - 2 * after * (shifts @ shifts.T) + np.square(after) * offsets
        apart = sizes[:, None] * self.apart + energy * np.maximum(filtered, 0.0) + np.maximum(shifted, 0.0)
        return Relation(self.law, after, _rounded(apart, squares), squares)

    def lawful(self) -> Relation:
        """What the law forbids is not alike at all."""
        if self.law != "positive":
            return self
        forbidden = self.scale < 0
        apart = np.where(forbidden, self.energy[:, None], self.apart)
        return dataclasses.replace(self, scale=np.where(forbidden, 0.0, self.scale), apart=apart)


def _best(law: Law, products: Array, squares: Array) -> Array:
    """a, from E[x_c x_k] and E[x_k^2]."""
    if law == "equal":
        return np.ones_like(products)
    return np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)


def _rounded(apart: Array, squares: Array) -> Array:
    """What is left of equal numbers is rounding."""
    return np.where(apart <= ROUNDING * squares[:, None], 0.0, apart)
