"""Agreement of embeddings: what would be lost of a rank correlation that rests on their similarities?

With s_ij the cosine of the original's vectors i and j, and s'_ij the candidate's inner product over the same lengths,

    error = mean (s_ij - s'_ij)^2        over pairs of different samples
    loss  = 1 - 1 / sqrt(1 + error / spread),      spread = (1 - mean s)^2 / 12

which is how much independent noise attenuates a correlation. The spread is that of similarities which lie evenly
between those of unrelated samples and 1, since samples at hand are rarely related. The relative output error of an
embedding says little about its use: on a sentence encoder (MiniLM, 500 pairs of STS-B) int8 variants with 2.3, 7.2, 8.2
and 44 % output error lost 0.24, 0.65, 0.48 and 4.3 % of rank correlation; this formula says 0.13, 0.45, 0.51 and 3.0 %.

Source for the attenuation: Spearman 1904, "The proof and measurement of association between two things".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from irc.judge.assessment import Score
from irc.judge.bounds import ROUNDING, continuous_bound
from irc.judge.units import Array, Floats, as_float

MAX_VECTORS = 2048
_POSITIONS = 4


class Similarity:
    """Sums up how a candidate keeps the similarities of one embedding.

    Of an output [N, T, D] four positions per sample, evenly spread, are compared. Beyond 2048 vectors, those with the
    smallest content hash are.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._vectors: dict[tuple[str, int], tuple[Floats, Floats]] = {}

    def add(self, key: str, reference: Sequence[Array], candidate: Sequence[Array] | None) -> None:
        """Adds one sample; None for a candidate whose output has another shape: its vectors then count as zero."""
        for row, original in enumerate(reference):
            vectors = as_float(original).reshape(-1, original.shape[-1])
            if not len(vectors):
                continue
            picked = np.unique(np.linspace(0, len(vectors) - 1, _POSITIONS).round().astype(np.int64))
            theirs = as_float(candidate[row]).reshape(vectors.shape) if candidate is not None else 0.0 * vectors
            self._vectors[key, row] = (vectors[picked], theirs[picked])

    def scores(self) -> list[Score]:
        """The correlation of similarities; the plain relative error where there are fewer than three samples."""
        units = [self._vectors[key] for key in sorted(self._vectors)]
        if not units:
            return []
        unit = np.repeat(np.arange(len(units)), [len(mine) for mine, _ in units])[:MAX_VECTORS]
        mine, theirs = (np.concatenate(column)[:MAX_VECTORS] for column in zip(*units, strict=True))
        lengths = np.maximum(np.linalg.norm(mine, axis=1, keepdims=True), 1e-30)
        mine, theirs = mine / lengths, theirs / lengths
        n = len(np.unique(unit))
        energy = float(((mine - theirs) ** 2).sum(axis=1).mean())
        if n < 3:
            return [Score("equal direction", self._output, 1.0, 1.0 - energy, energy, max(1.0, energy), n)]
        other = unit[:, None] != unit[None, :]
        similarity = mine @ mine.T
        squares = np.where(other, (similarity - theirs @ theirs.T) ** 2, 0.0)
        pairs = np.bincount(unit, other.sum(axis=1), n).astype(np.float64)
        error = np.bincount(unit, squares.sum(axis=1), n).astype(np.float64)
        spread = max((1.0 - float(similarity[other].mean())) ** 2 / 12.0, 1e-6)
        mean = float(error.sum() / pairs.sum())
        # Each sample is in both places of a pair, so the mean over pairs varies twice as much as one over samples.
        excess = 2.0 * (continuous_bound(error, pairs) - mean)
        loss, bound = (1.0 - 1.0 / math.sqrt(1.0 + value / spread) for value in (mean, mean + excess))
        remark = f"{-10 * math.log10(energy):.1f} dB" if energy > 0 else "exact"
        return [
            Score("similarity", self._output, 1.0, 1.0 - loss, loss, max(bound, loss + ROUNDING), n, remarks=(remark,))
        ]
