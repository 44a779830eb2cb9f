"""The weights that stay, with the values that disturb the outputs least; and weights taken away step by step, the rest adapted each time.

    minimise over V with V[i, j] = 0 where not kept[i, j]:   trace((W - V) H (W - V)^T)          H = sum x x^T, damped

Every row is a problem of its own over the same H, with other columns. Conjugate gradients, preconditioned by the diagonal of H, solve
all rows at once by products of whole matrices; exact elimination would factorise H once per row.

One step that removes half of the weights judges each as if the others stayed. Removing a few, adapting the rest and judging again costs
some more products; measured on held-out rows it halves the error of one pass over the columns (SparseGPT) on the convolutions of a
ResNet-20, and takes a sixth off on a MiniLM.

Source: the masked problem and gradual masks, arXiv:2401.02938 (there by ADMM) and ALPS, arXiv:2406.07831 (conjugate gradients).
"""

from __future__ import annotations

import numpy as np

from irc.calibration.compensation import factorised
from irc.passes.pruning.sparsity.sparse_mask import Array, best

STEPS = 16
STEP_ITERATIONS = 5
ITERATIONS = 20
_TINY = np.float32(1e-30)
_TOLERANCE = 1e-4


class MaskedLeastSquares:
    """A weight, and the grams that its changes are measured by.

    Args:
        weight: `[G, N, K]` float32, finite; what is zero stays zero.
        grams: `[G, K, K]`, sums of x x^T over positions.
        damping: Added to each diagonal as a share of its mean; it draws the weights towards what they were.
    """

    def __init__(self, weight: Array, grams: Array, damping: float) -> None:
        self._unit = float(np.abs(weight).max(initial=0.0)) or 1.0
        self._weight = (weight / np.float32(self._unit)).astype(np.float32)
        self._present = weight != 0
        # One scale for all groups: weights of different groups are compared.
        mean = float(np.einsum("gkk->gk", grams).mean()) or 1.0
        self._gram = np.empty(grams.shape, np.float32)
        self._freedom = np.empty((len(grams), 1, grams.shape[1]))
        for group, gram in enumerate(grams):
            damped, inverse_factor = factorised(gram / mean, damping)
            self._gram[group] = damped
            self._freedom[group, 0] = np.square(inverse_factor).sum(axis=0)
        self._diagonal = np.einsum("gkk->gk", self._gram)[:, None, :].copy()

    def adapted(self, kept: Array, start: Array | None = None, iterations: int = ITERATIONS) -> Array:
        """The best values of what stays, `[G, N, K]` float32, zero elsewhere.

        Args:
            kept: `[G, N, K]` bool.
            start: Values to start from, in the units of the weight; by default its own.
            iterations: At most so many products.
        """
        first = self._weight if start is None else start / np.float32(self._unit)
        return self._solved(kept, first, iterations) * np.float32(self._unit)

    def best_at_once(self, zeros: int) -> Array:
        """What stays when a number of weights goes in one step, bool: by `w^2 / [H^-1]_jj`, as if all others adapted."""
        kept: Array = best(self._scores(self._weight, self._present), zeros) & self._present
        return kept

    def reduced(self, zeros: int, steps: int = STEPS) -> Array:
        """The weight with so many zeros, taken away in equal steps; `[G, N, K]` float32."""
        kept, values = self._present, self._weight
        before = kept.size - int(kept.sum())
        for step in range(1, steps + 1):
            wanted = before + (zeros - before) * step // steps
            kept = best(self._scores(values, kept), wanted) & self._present
            values = self._solved(kept, values, STEP_ITERATIONS if step < steps else ITERATIONS)
        return values * np.float32(self._unit)

    def _scores(self, values: Array, kept: Array) -> Array:
        return np.where(kept, np.square(values, dtype=np.float64) / self._freedom, -1.0)

    def _solved(self, kept: Array, start: Array, iterations: int) -> Array:
        mask = kept.astype(np.float32)
        values = start * mask
        residual = ((self._weight - values) @ self._gram) * mask
        direction = residual / self._diagonal
        energy = (residual * direction).sum(axis=2, keepdims=True)
        enough = np.square(self._weight * self._diagonal * _TOLERANCE, dtype=np.float32)
        limit = (enough / self._diagonal).sum(axis=2, keepdims=True)
        for _ in range(iterations):
            if (energy <= limit).all():
                break
            image = (direction @ self._gram) * mask
            length = energy / np.maximum((direction * image).sum(axis=2, keepdims=True), _TINY)
            values = values + length * direction
            residual = residual - length * image
            scaled = residual / self._diagonal
            new = (residual * scaled).sum(axis=2, keepdims=True)
            direction = scaled + new / np.maximum(energy, _TINY) * direction
            energy = new
        return values
