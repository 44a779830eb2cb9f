"""Remove blocks of columns from weights that share them, and let what is left take over: the solver of structured pruning.

    minimise over V   sum_j 1 / u_j * trace((W_j - V_j) H_j (W_j - V_j)^T)   with V_j[:, removed] = 0     H_j = G_j + damping

G_j are grams of the inputs of several operators that read the same channels; a block is the columns of one channel in all of
them: a column of a MatMul, the kernel of a Conv, the features of a head. Blocks go one after another, always the one that costs
least by then, and one run gives the error for every number of removals:

    cost(c) = sum_j 1 / u_j * trace(W_c B_cc^-1 W_c^T)    W -= W_c B_cc^-1 B_c,    B -= B_,c B_cc^-1 B_c,    B = H_j^-1, W = W_j

That is a Cholesky factorisation of H^-1 by blocks, pivots chosen by cost. Weights are not kept along the way: `without` solves for
the columns that stay, for any set of them, as accurately as after the first step.

Source: OBS, Hassibi and Stork 1993; blocks: Optimal BERT Surgeon, arXiv:2203.07259, ZipLM, arXiv:2302.04089; several readers: the sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from irc.calibration.compensation import DAMPING, damped, factorised

Array = np.ndarray[Any, Any]
_STEP = 64
"""The columns left over those that leave together."""
_CANDIDATES = 4
"""Blocks looked at per block removed, where several leave together."""
_REBUILD = 0.75
"""Share of the columns left at which what remains is factorised anew: rounding starts over, and the arrays get smaller."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """A weight that reads blocks of columns.

    Attributes:
        weight: `[N, K]`, finite.
        gram: `[K, K]`, of the inputs, centred if a bias takes over their means; any scale.
        blocks: `[K]`, the block of every column, from 0; -1 for columns that stay.
        unit: What its error is divided by; None for the energy of its output, trace(W G W^T).
    """

    weight: Array
    gram: Array
    blocks: Array
    unit: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class RemovalPath:
    """Blocks in the order in which they go.

    Attributes:
        order: `[n]`, blocks.
        errors: `[n + 1]` float64: the sum of all readers' errors when the first k of `order` are gone; starts at 0, ascending.
        shares: `[readers, n + 1]` float64: the error of every reader.
    """

    order: Array
    errors: Array
    shares: Array

    def removed(self, count: int) -> Array:
        """The first blocks to go, ascending."""
        return np.sort(self.order[:count])


def removal_path(
    readers: Sequence[Reader],
    *,
    cells: Array | None = None,
    staying: Sequence[int] = (),
    until: int | None = None,
    together: int | None = None,
    damping: float = DAMPING,
) -> RemovalPath:
    """Orders blocks by what it costs to remove them, the rest compensating.

    Args:
        readers: All that read the blocks; not every block need be in every reader.
        cells: `[blocks]`, from 0: as many go from every cell, in turn; by default one cell. It may count blocks that nobody reads.
        staying: Blocks that never go.
        until: How many go; by default all.
        together: How many leave an inverse in one step: 1 is greedy to the letter, more is faster for many small blocks, chosen
            among four times as many that cost least; by default what makes a 64th of the columns of the widest reader.
        damping: Added to the diagonals of the grams, as a share of their means; errors include it. Raised until they can be factorised.

    Raises:
        ValueError: If shapes do not fit, anything is not finite, or there is no block.
    """
    count = max(_checked(readers), 0 if cells is None else len(cells))
    turns = _Turns(np.zeros(count, np.intp) if cells is None else np.asarray(cells, np.intp), staying)
    states = [_State.of(reader, damping) for reader in readers]
    limit = turns.most if until is None else min(until, turns.most)
    order: list[int] = []
    shares = [np.zeros(len(states))]
    while len(order) < limit:
        chosen = _chosen(states, turns, count, min(limit - len(order), together or _pace(states)))
        costs = np.array([state.remove(chosen) for state in states])
        shares.extend(shares[-1] + np.cumsum(costs, axis=1).T)
        order += chosen
        for state in states:
            state.tidy()
    found = np.array(shares).T
    return RemovalPath(np.array(order, np.intp), found.sum(axis=0), found)


def without(weight: Array, gram: Array, removed: Array, *, damping: float = DAMPING) -> Array:
    """The weight that is best when some columns are gone, `W H[:, S] H[S, S]^-1` for the columns S that stay.

    Args:
        weight: `[N, K]`.
        gram: `[K, K]`.
        removed: Columns, or a boolean per column.
        damping: As in `removal_path`.

    Returns:
        `[N, K]` float64, zero in the columns removed.
    """
    kept = np.ones(weight.shape[1], bool)
    kept[removed] = False
    result = np.zeros(weight.shape, np.float64)
    # The damping of all columns, so that the errors are those of the path.
    matrix = damped(_scaled(gram)[0], damping)
    gone = weight[:, ~kept].astype(np.float64) @ matrix[np.ix_(~kept, kept)]
    result[:, kept] = weight[:, kept] + np.linalg.solve(matrix[np.ix_(kept, kept)], gone.T).T
    return result


def least_squares(weight: Array, gram: Array, cross: Array, *, damping: float = DAMPING) -> Array:
    """The weight whose outputs are nearest to targets, drawn towards the one given.

        W' = W + (C - W G) (G + damping)^-1        minimises  E |y - W' x|^2 + damping |W' - W|^2

    With inputs of a pruned model and targets of the original, the errors of all that comes before are repaired too. A bias then is
    E[y] - W' E[x].

    Args:
        weight: `[N, K]`.
        gram: `[K, K]`, E[x x^T] of the inputs as they are, less the product of their means.
        cross: `[N, K]`, E[y x^T], likewise.
        damping: Added to the diagonal of the gram, as a share of its mean.

    Returns:
        `[N, K]` float64.
    """
    values = weight.astype(np.float64)
    scaled, unit = _scaled(gram)
    pull = (cross - values @ gram.astype(np.float64)) / unit
    return np.asarray(values + np.linalg.solve(damped(scaled, damping), pull.T).T)


class _Turns:
    """Whose turn it is: a cell goes again when all others have gone as often."""

    def __init__(self, cells: Array, staying: Sequence[int]) -> None:
        self.cells = cells
        self._here = np.ones(len(cells), bool)
        self._here[list(staying)] = False
        self._gone = np.zeros(int(cells.max(initial=0)) + 1, np.intp)
        self.most = int(np.bincount(cells[self._here], minlength=len(self._gone)).min()) * len(self._gone)

    def take(self, block: int) -> None:
        """Removes a block."""
        self._here[block] = False
        self._gone[self.cells[block]] += 1

    def open(self) -> Array:
        """The blocks that may go next."""
        found: Array = np.flatnonzero(self._here & (self._gone == self._gone.min())[self.cells])
        return found


class _State:
    """A reader whose columns are leaving.

    Attributes:
        inverse: `[k, k]`, of H over the columns left, those that left since it was built being zero.
        weight: `[N, k]`, compensated.
        blocks: `[k]`, the block of every column, -1 for one that stays or has left.
    """

    def __init__(self, inverse: Array, weight: Array, blocks: Array, unit: float) -> None:
        self.inverse, self.weight, self.blocks, self._unit = inverse, weight, blocks, unit
        self._whole: tuple[Array, Array] | None = None
        self._left = np.arange(len(blocks))
        self._gone = np.zeros(len(blocks), bool)

    @classmethod
    def of(cls, reader: Reader, damping: float) -> _State:
        weight = reader.weight.astype(np.float64)
        matrix, factor = _factors(reader.gram, damping)
        unit = float(np.vdot(weight @ reader.gram, weight)) if reader.unit is None else reader.unit
        state = cls(factor.T @ factor, weight.copy(), np.array(reader.blocks, np.intp), unit if unit > 0 else 1.0)
        state._whole = matrix, weight
        return state

    def scores(self, count: int) -> Array:
        """`[count]`: what every block costs."""
        found = np.zeros(count)
        for blocks, places in self._by_size():
            values = self.weight[:, places]
            if places.shape[1] == 1:
                energy = np.einsum("nb,nb->b", values[..., 0], values[..., 0])
                found[blocks] = energy / self.inverse[places[:, 0], places[:, 0]]
                continue
            squares = values.transpose(1, 2, 0) @ values.transpose(1, 0, 2)
            corners = self.inverse[places[:, :, None], places[:, None, :]]
            found[blocks] = np.trace(np.linalg.solve(corners, squares), axis1=1, axis2=2)
        return found / self._unit

    def _by_size(self) -> list[tuple[Array, Array]]:
        """Blocks with equally many columns, `[b]`, and where these are, `[b, size]`."""
        order = np.argsort(self.blocks, kind="stable")
        blocks, starts, sizes = np.unique(self.blocks[order], return_index=True, return_counts=True)
        found = []
        for size in np.unique(sizes[blocks >= 0]).tolist():
            mine = (sizes == size) & (blocks >= 0)
            found.append((blocks[mine], order[starts[mine][:, None] + np.arange(size)]))
        return found

    def restricted(self, blocks: Array) -> _State:
        """A copy that knows some of the blocks only; their costs are the same, whichever of them leave."""
        mine = np.flatnonzero(np.isin(self.blocks, blocks))
        return _State(self.inverse[np.ix_(mine, mine)], self.weight[:, mine], self.blocks[mine], self._unit)

    def remove(self, blocks: Sequence[int]) -> Array:
        """Removes blocks one after another; `[blocks]`, what each costs."""
        columns = [np.flatnonzero(self.blocks == block) for block in blocks]
        leaving = np.concatenate(columns)
        if not len(leaving):
            return np.zeros(len(blocks))
        factor = np.linalg.cholesky(self.inverse[np.ix_(leaving, leaving)])
        rows = np.linalg.solve(factor, self.inverse[leaving])
        share = np.linalg.solve(factor, self.weight[:, leaving].T)
        self.inverse -= rows.T @ rows
        self.weight -= share.T @ rows
        self.inverse[leaving] = self.inverse[:, leaving] = 0.0
        self.weight[:, leaving] = 0.0
        self.blocks[leaving] = -1
        self._gone[leaving] = True
        ends = np.cumsum([len(part) for part in columns])
        energy = np.concatenate([[0.0], np.cumsum(np.square(share).sum(axis=1))]) / self._unit
        return np.diff(energy[ends], prepend=0.0)

    def tidy(self) -> None:
        """Factorises what is left anew once enough columns have left."""
        left = ~self._gone
        if self._whole is None or np.count_nonzero(left) > _REBUILD * len(left) or not left.any():
            return
        matrix, weight = self._whole
        self._left = self._left[left]
        _damped_again, factor = factorised(matrix[np.ix_(self._left, self._left)], 0.0)
        gone = np.ones(weight.shape[1], bool)
        gone[self._left] = False
        self.inverse = factor.T @ factor
        pull = weight[:, gone] @ matrix[np.ix_(gone, self._left)]
        self.weight = weight[:, self._left] + pull @ self.inverse
        self.blocks = self.blocks[left]
        self._gone = np.zeros(len(self._left), bool)


def _chosen(states: Sequence[_State], turns: _Turns, count: int, together: int) -> list[int]:
    """The blocks that go next, in order."""
    if together > 1:
        scores = _total(states, count)
        open_ = turns.open()
        fewest = open_[np.argsort(scores[open_], kind="stable")[: _CANDIDATES * together]]
        states = [state.restricted(fewest) for state in states]
    else:
        fewest = turns.open()
    found: list[int] = []
    while len(found) < together:
        if together == 1 or found:
            scores = _total(states, count)
        able = np.intersect1d(turns.open(), fewest)
        if not len(able):
            break
        found.append(int(able[np.argmin(scores[able])]))
        turns.take(found[-1])
        if len(found) < together:
            for state in states:
                state.remove(found[-1:])
    return found


def _total(states: Sequence[_State], count: int) -> Array:
    total: Array = np.sum([state.scores(count) for state in states], axis=0)
    return total


def _pace(states: Sequence[_State]) -> int:
    """How many blocks leave together."""
    widest = max(states, key=lambda state: len(state.blocks))
    blocks = widest.blocks[widest.blocks >= 0]
    return max(1, len(np.unique(blocks)) // _STEP) if len(blocks) else 1


def _factors(gram: Array, damping: float) -> tuple[Array, Array]:
    """A damped gram and the factor of its inverse, in its own units."""
    scaled, unit = _scaled(gram)
    matrix, factor = factorised(scaled, damping)
    return matrix * unit, factor / np.sqrt(unit)


def _scaled(gram: Array) -> tuple[Array, float]:
    """A gram, symmetric and with a mean of 1 on its diagonal, and what it was divided by."""
    unit = float(np.diagonal(gram).mean()) if len(gram) else 0.0
    unit = unit if unit > 0 else 1.0
    return (gram.astype(np.float64) + gram.T) / (2 * unit), unit


def _checked(readers: Sequence[Reader]) -> int:
    """How many blocks there are."""
    for reader in readers:
        size = reader.weight.shape[-1]
        if reader.weight.ndim != 2 or reader.gram.shape != (size, size) or reader.blocks.shape != (size,):
            raise ValueError(
                f"a weight {list(reader.weight.shape)}, a gram {list(reader.gram.shape)} and blocks "
                f"{list(reader.blocks.shape)} do not fit: [N, K], [K, K] and [K]"
            )
        if not (np.isfinite(reader.gram).all() and np.isfinite(reader.weight).all()):
            raise ValueError("a weight or a gram contains NaN or infinity")
    count = max((int(reader.blocks.max(initial=-1)) + 1 for reader in readers), default=0)
    if not count:
        raise ValueError("no reader has a block to remove")
    return count
