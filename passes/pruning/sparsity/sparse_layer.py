"""One layer made sparse: by magnitude, by Wanda's scores, or so that its outputs change least (OBS), with the error on held-out rows.

y = x W is a layer's product; what is compared is `sum (x (W - V) - shift)^2 / sum (x W)^2` over rows of x that nothing was fitted to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np

from irc.calibration.compensation import compensate
from irc.passes.pruning.sparsity.masked_least_squares import ITERATIONS, MaskedLeastSquares
from irc.passes.pruning.sparsity.sparse_mask import Array, InputOrder, Pattern, best, best_of_rows
from irc.passes.pruning.sparsity.sparse_projection import OfPattern, OfShare
from irc.passes.quantization.layer_sample import LayerRows
from irc.passes.quantization.output_error import output_error, row_energies, row_importance

Criterion = Literal["obs", "magnitude", "wanda"]
DAMPINGS = (0.01, 0.1, 1.0)
TRIAL_ITERATIONS = 10
MOST_WORK = 1 << 34
"""Multiplications of one product with the gram; beyond, weights go block by block, once."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """How sparse a layer is to be.

    Attributes:
        zeros: How many of its weights are to be zero; without meaning for a pattern.
        pattern: What N:M asks for, if anything.
    """

    zeros: int
    pattern: Pattern | None = None

    def kept(self, scores: Array, *, by_row: bool = False) -> Array:
        """What stays by scores, `[G, N, K]`: the best of all, or of every row."""
        if self.pattern is not None:
            return self.pattern.best(scores)
        return best_of_rows(scores, self.zeros) if by_row else best(scores, self.zeros)


@dataclasses.dataclass(frozen=True)
class Sparse:
    """A sparse weight.

    Attributes:
        weight: `[G, N, K]` float32.
        error: Relative error energy of the outputs on held-out rows.
        adapted: Whether any weight that stays has another value.
        shift: `[G, N]`, what to add to the outputs; None for nothing.
    """

    weight: Array
    error: float
    adapted: bool = False
    shift: Array | None = None


def scores(weight: Array, norms: Array | None = None) -> Array:
    """What a weight is worth without its neighbours: its magnitude, times the norm of its input for Wanda.

    Args:
        weight: `[G, N, K]`.
        norms: `[G, K]`, of the inputs.
    """
    magnitude = np.abs(weight)
    return magnitude if norms is None else np.asarray(magnitude * norms[:, None, :])


def input_norms(rows: Array) -> Array:
    """The root mean square of every input, `[G, K]` float32.

    Args:
        rows: `[G, R, K]`.
    """
    energies = np.einsum("grk,grk->gk", rows, rows, dtype=np.float64)
    return np.asarray(np.sqrt(energies / max(1, rows.shape[1])), np.float32)


class SparseLayer:
    """A layer with rows of its input, in the order of a pattern.

    Args:
        weight: `[G, N, K]` float32.
        rows: `[G, R, K]` to fit on, and held out.
        order: Of the K inputs.
        biased: Whether a constant is added to its outputs, that a shift could go into.
    """

    def __init__(self, weight: Array, rows: LayerRows, order: InputOrder, *, biased: bool) -> None:
        self._order, self._biased = order, biased
        self._weight = order.ordered(weight)
        self._fit, self._held = order.ordered(rows.fit), order.ordered(rows.held)
        products = self._weight.swapaxes(1, 2)
        self._importance = row_importance(row_energies(self._fit, products))
        self._held_importance = row_importance(row_energies(self._held, products))

    def sparse(self, goal: Goal, criterion: Criterion) -> Sparse:
        """The layer made sparse.

        Args:
            goal: How sparse.
            criterion: "magnitude" and "wanda" leave what stays as it is; "obs" takes what has the least error on the held-out rows: the
                same by magnitude is among it.
        """
        wanda = criterion == "wanda"
        worth = scores(self._weight, input_norms(self._fit) if wanda else None)
        # Wanda compares the weights of one output, as its authors found best.
        plain = self._judged(self._weight * goal.kept(worth, by_row=wanda), adapted=False)
        found = plain if criterion != "obs" else min((plain, *self._repaired(goal)), key=lambda each: each.error)
        return dataclasses.replace(found, weight=self._order.restored(found.weight))

    def _repaired(self, goal: Goal) -> Iterator[Sparse]:
        """Candidates whose weights compensate each other."""
        mean = np.average(self._fit, axis=1, weights=self._importance)[:, None, :].astype(np.float32)
        # With a bias to take the mean over, only deviations from it need to be met.
        centred = (self._fit - mean if self._biased else self._fit) * np.sqrt(self._importance)[:, None]
        grams = centred.swapaxes(1, 2) @ centred
        trials: list[tuple[Sparse, MaskedLeastSquares]] = []
        for damping in DAMPINGS:
            problem = MaskedLeastSquares(self._weight, grams, damping)
            kept = self._mask(goal, grams, damping, problem)
            # What is only to tell which damping is best need not be exact.
            iterations = TRIAL_ITERATIONS if self._goes_in_steps(goal) else ITERATIONS
            trials.append((self._shifted(problem.adapted(kept, iterations=iterations), mean), problem))
        yield from (found for found, _ in trials)
        if self._goes_in_steps(goal):
            problem = min(trials, key=lambda trial: trial[0].error)[1]
            yield self._shifted(problem.reduced(goal.zeros), mean)

    def _goes_in_steps(self, goal: Goal) -> bool:
        """Whether weights go step by step; for patterns one pass over the columns is as good."""
        groups, outputs, inputs = self._weight.shape
        return goal.pattern is None and bool(groups * outputs * inputs * inputs <= MOST_WORK)

    def _mask(self, goal: Goal, grams: Array, damping: float, problem: MaskedLeastSquares) -> Array:
        if self._goes_in_steps(goal):
            return problem.best_at_once(goal.zeros)
        kept = np.empty(self._weight.shape, bool)
        first = 0
        for group, weight in enumerate(self._weight):
            # Groups share the zeros out evenly.
            last = goal.zeros * (group + 1) // len(kept)
            projection = OfPattern(weight, goal.pattern) if goal.pattern else OfShare(weight, last - first)
            compensate(weight, grams[group], projection, damping=damping)
            kept[group], first = projection.kept, last
        return kept

    def _shifted(self, weight: Array, mean: Array) -> Sparse:
        """The better of a weight with and without its mean error in the bias."""
        plain = self._judged(weight, adapted=True)
        if not self._biased:
            return plain
        shift = (mean @ (self._weight - weight).swapaxes(1, 2))[:, 0]
        return min((plain, self._judged(weight, adapted=True, shift=shift)), key=lambda each: each.error)

    def _judged(self, weight: Array, *, adapted: bool, shift: Array | None = None) -> Sparse:
        signal, error = output_error(
            self._held,
            self._weight.swapaxes(1, 2),
            self._held,
            weight.swapaxes(1, 2),
            shift,
            row_weights=self._held_importance,
        )
        return Sparse(weight, error / signal if signal > 0 else float(error > 0), adapted, shift)
