"""Project the columns of a weight one after another, each column's error compensated in those that are still free.

    minimise trace((W - V) H (W - V)^T) over V with V[:, j] = project(...)          H = sum x x^T, the gram of the inputs

`project` alone says what V may be: levels of a grid (rounding), zeros (pruning, N:M sparsity), entries of a codebook. With
U upper triangular and U^T U = H^-1, both in the order in which columns are fixed, column j becomes v = project(w_j), and the
columns after it take over its error by `w_k -= (w_j - v) / U[j, j] * U[j, k]`. The columns are halved again and again, so that
nearly all of that is products of large matrices.

Source: OBS, Hassibi and Stork 1993; GPTQ, arXiv:2210.17323 (Cholesky form, order by diagonal, damping), SparseGPT, arXiv:2301.00774
(masks per block); coordinate descent: QuantEase, arXiv:2309.01885.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DAMPING = 0.01
_RAISE = 10.0
_SMALL_INVERSE = 64
_DESCENT_COLUMNS = 32
"""Columns between two products that bring the others up to date."""
_ROWS_BYTES = 64 << 20


class Projection(abc.ABC):
    """What the columns of a weight may become.

    Attributes:
        group_width: Consecutive columns that are fixed together, one after another; the last group may be narrower.
    """

    group_width: int = 1

    def enter(self, weights: Array, columns: Array, stiffness: Array) -> None:  # noqa: B027
        """Called before the first column of a group is projected: the time to choose masks or scales.

        Args:
            weights: `[C_out, g]` float32, as they are by then; not to be written to.
            columns: `[g]`, their positions in the weight, in the order in which they will be projected.
            stiffness: `[g, g]` float64; changing the group by D costs `trace(D S D^T)` once all later columns compensate.
        """

    @abc.abstractmethod
    def project(self, values: Array, column: int) -> Array:
        """The nearest values that a column may have.

        Args:
            values: `[C_out]` float32; not to be written to.
            column: Its position in the weight.
        """


class _Function(Projection):
    """A plain function as a projection."""

    def __init__(self, function: Callable[[Array, int], Array]) -> None:
        self._function = function

    def project(self, values: Array, column: int) -> Array:
        return self._function(values, column)


def compensate(
    weight: Array,
    gram: Array,
    project: Projection | Callable[[Array, int], Array],
    *,
    order: str = "descending",
    damping: float = DAMPING,
    sweeps: int = 0,
) -> Array:
    """Projects a weight so that the outputs of its layer change little.

    For a plain function the result is never worse on the gram than projection alone: every row takes the better of the two. A
    `Projection`, whose choices on entry differ between the two, is run once; compare with `row_errors`.

    Args:
        weight: `[C_out, K]`, finite; unchanged.
        gram: `[K, K]`, the sum of x x^T over positions; may be singular, any scale.
        project: What a column may become.
        order: "descending": groups by their mean diagonal of the gram, and columns within likewise, so that errors in what matters most
            find the most columns to compensate them; "given": as they stand.
        damping: Added to the diagonal, as a share of its mean; raised tenfold until the gram can be factorised.
        sweeps: Sweeps of coordinate descent afterwards: each column is projected again with all others as they are by then.

    Returns:
        `[C_out, K]` float32.

    Raises:
        ValueError: If the shapes do not fit, or the gram or the weight is not finite.
    """
    _check(weight, gram)
    projection = project if isinstance(project, Projection) else _Function(project)
    run = _Run(weight, gram, projection, order, damping)
    projected = run.projected()
    for _ in range(sweeps):
        if not run.descended(weight, projected):
            break
    if projection is not project:
        alone = np.stack([projection.project(weight[:, j].astype(np.float32), j) for j in range(weight.shape[1])], 1)
        worse = row_errors(weight, alone, gram) < row_errors(weight, projected, gram)
        projected[worse] = alone[worse]
    return projected


def row_errors(weight: Array, projected: Array, gram: Array) -> Array:
    """The error energy of every output channel, `diag(D H D^T)` with `D = W - V`.

    Args:
        weight: `[C_out, K]`.
        projected: Likewise.
        gram: `[K, K]`.

    Returns:
        `[C_out]` float64, in units of the square of the output, summed over positions.
    """
    unit = float(np.abs(gram).max(initial=0.0)) or 1.0
    narrow = (gram / unit).astype(np.float32)
    errors = np.zeros(len(weight))
    step = max(1, _ROWS_BYTES // (4 * max(1, weight.shape[1])))
    for start in range(0, len(weight), step):
        difference = weight[start : start + step].astype(np.float64) - projected[start : start + step]
        # Each row in units of its own, since squares of very large or small weights leave float32.
        scale = np.abs(difference).max(axis=1, initial=0.0)
        scale[scale == 0] = 1.0
        rows = (difference / scale[:, None]).astype(np.float32)
        energy = np.einsum("ij,ij->i", rows @ narrow, rows, dtype=np.float64)
        errors[start : start + step] = np.maximum(energy, 0.0) * scale * scale
    return errors * unit


def relative_error(weight: Array, projected: Array, gram: Array) -> float:
    """Error energy at the output of a layer relative to the energy of the output, `trace(D H D^T) / trace(W H W^T)`.

    Args:
        weight: `[C_out, K]`.
        projected: Likewise.
        gram: `[K, K]`.

    Returns:
        0 for no error; infinity for an error where the output is zero.
    """
    error = float(row_errors(weight, projected, gram).sum())
    signal = float(row_errors(weight, np.zeros((1, weight.shape[1]), np.float32).repeat(len(weight), 0), gram).sum())
    if not error:
        return 0.0
    return error / signal if signal else float("inf")


def _check(weight: Array, gram: Array) -> None:
    if weight.ndim != 2 or gram.shape != (weight.shape[1], weight.shape[1]):
        raise ValueError(
            f"a weight {list(weight.shape)} and a gram {list(gram.shape)} do not fit: [C_out, K] and [K, K]"
        )
    if not (np.isfinite(gram).all() and np.isfinite(weight).all()):
        raise ValueError("the weight or the gram contains NaN or infinity")


class _Run:
    """One weight on its way; rows of the working arrays are columns of the weight, in the order of projection."""

    def __init__(self, weight: Array, gram: Array, projection: Projection, order: str, damping: float) -> None:
        diagonal = np.diagonal(gram).astype(np.float64)
        self._groups = _grouped(diagonal, projection.group_width, order)
        self._columns = np.concatenate([np.zeros(0, np.intp), *self._groups])
        self._projection = projection
        mean = float(diagonal.mean()) if diagonal.size else 0.0
        ordered = gram[np.ix_(self._columns, self._columns)] / (mean or 1.0)
        self._gram, self._inverse_factor = factorised(ordered, damping)
        self._narrow = self._inverse_factor.astype(np.float32)
        self._weights = np.ascontiguousarray(weight.T[self._columns], np.float32)
        self._errors = np.empty_like(self._weights)

    def projected(self) -> Array:
        """The projected weight, `[C_out, K]` float32."""
        bounds = np.cumsum([0, *map(len, self._groups)]).tolist()
        self._halve(bounds, self._group)
        result = np.empty(self._weights.shape[::-1], np.float32)
        result[:, self._columns] = self._weights.T
        return result

    def _halve(self, bounds: list[int], fix: Callable[[int, int], None]) -> None:
        """Fixes what lies between the bounds, one interval after another, and compensates half by half."""
        if len(bounds) < 2:
            return
        if len(bounds) == 2:
            fix(bounds[0], bounds[1])
            return
        half = len(bounds) // 2
        start, middle, end = bounds[0], bounds[half], bounds[-1]
        self._halve(bounds[: half + 1], fix)
        self._weights[middle:end] -= self._narrow[start:middle, middle:end].T @ self._errors[start:middle]
        self._halve(bounds[half:], fix)

    def _group(self, start: int, end: int) -> None:
        factor = self._inverse_factor[start:end, start:end]
        if type(self._projection).enter is not Projection.enter:
            inverse = np.linalg.inv(factor)
            self._projection.enter(self._weights[start:end].T, self._columns[start:end], inverse @ inverse.T)
        self._halve(list(range(start, end + 1)), self._column)

    def _column(self, position: int, _: int) -> None:
        values = self._weights[position]
        fixed = self._projection.project(values, int(self._columns[position]))
        self._errors[position] = (values - fixed) / self._narrow[position, position]
        self._weights[position] = fixed

    def descended(self, weight: Array, projected: Array) -> bool:
        """One sweep of coordinate descent, in place; whether anything changed."""
        gram = self._gram.astype(np.float32)
        values = self._weights
        values[:] = projected.T[self._columns]
        pull = gram @ (weight.T[self._columns].astype(np.float32) - values)
        changed = False
        for start in range(0, len(gram), _DESCENT_COLUMNS):
            end = min(start + _DESCENT_COLUMNS, len(gram))
            before = values[start:end].copy()
            for j in range(start, end):
                wanted = values[j] + pull[j] / gram[j, j]
                fixed = self._projection.project(wanted, int(self._columns[j]))
                step = fixed - values[j]
                if step.any():
                    changed = True
                    values[j] = fixed
                    pull[j:end] -= gram[j:end, j, None] * step
            step = values[start:end] - before
            pull[end:] -= gram[end:, start:end] @ step
            pull[:start] -= gram[:start, start:end] @ step
        projected[:, self._columns] = values.T
        return changed


def _grouped(diagonal: Array, width: int, order: str) -> list[Array]:
    """Positions of the columns, by group, in the order of projection."""
    groups = [np.arange(start, min(start + width, len(diagonal))) for start in range(0, len(diagonal), width)]
    if order == "given":
        return groups
    if order != "descending":
        raise ValueError(f"order {order!r}: give 'descending' or 'given'")
    within = [group[np.argsort(-diagonal[group], kind="stable")] for group in groups]
    means = np.array([diagonal[group].mean() for group in within])
    return [within[i] for i in np.argsort(-means, kind="stable")]


def factorised(gram: Array, damping: float = DAMPING) -> tuple[Array, Array]:
    """A damped gram H and the upper triangular U with `U^T U = H^-1`.

    Args:
        gram: `[K, K]`, symmetric, positive semidefinite up to rounding.
        damping: Added to the diagonal as a share of its mean, raised tenfold until the factorisation succeeds.

    Returns:
        Both `[K, K]` float64.

    Source: H reversed = L L^T gives H = R R^T with R upper triangular, and U = R^-1.
    """
    matrix, factor = _damped(gram, damping)
    return matrix, _upper_inverse(np.ascontiguousarray(factor[::-1, ::-1]))


def damped(gram: Array, damping: float = DAMPING) -> Array:
    """The H of `factorised` alone, for a tenth of the time."""
    return _damped(gram, damping)[0]


def _damped(gram: Array, damping: float) -> tuple[Array, Array]:
    """H, and the lower triangular factor of H reversed."""
    mean = float(np.diagonal(gram).mean()) if gram.size else 0.0
    share = damping if damping > 0 else 0.0
    floor = np.finfo(np.float64).eps * max(1, len(gram))
    while True:
        matrix = gram.astype(np.float64)
        matrix[np.diag_indices_from(matrix)] += share * mean if mean > 0 else 1.0
        dead = np.diagonal(matrix) <= 0
        matrix[dead, dead] = mean if mean > 0 else 1.0
        try:
            return matrix, np.linalg.cholesky(matrix[::-1, ::-1])
        except np.linalg.LinAlgError:
            share = max(share * _RAISE, floor)


def _upper_inverse(factor: Array) -> Array:
    """The inverse of an upper triangular matrix, by halves."""
    size = len(factor)
    if size <= _SMALL_INVERSE:
        return np.triu(np.linalg.inv(factor))
    half = size // 2
    result = np.zeros_like(factor)
    first, last = _upper_inverse(factor[:half, :half]), _upper_inverse(factor[half:, half:])
    result[:half, :half], result[half:, half:] = first, last
    result[:half, half:] = -(first @ factor[:half, half:]) @ last
    return result
