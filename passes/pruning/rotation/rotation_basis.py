"""Bases in which single channels are the directions that matter most; numbers in, numbers out.

    x' = R x,  w' = R^-T w      leaves every product  w^T x  as it is

A is the second moment of what turns by R, B of what turns by R^-T: columns of weights, or activations. With A = F F^T and B = H H^T,
the singular values s of H^T F are what all bases have in common, and to keep r channels loses at least the sum of s[r:]^2 (Eckart-Young).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irc.calibration.block_removal import Reader, removal_path

Array = np.ndarray[Any, Any]

FLOOR = 1e-8
"""What is added to the diagonals of moments, as a share of their means, so that directions without energy have a place too."""
LARGEST_SCALE = 30.0
"""How far apart a balanced basis may scale directions: its condition is about the square."""


def orthogonal(a: Array, b: Array) -> Array:
    """`[n, n]`: an orthogonal R whose first r channels tell, by least squares, as much of w^T x as any r directions do, for every r.

    The rows of R span, in order, the leading eigenvectors of H^T A H taken back by H^T. What is cut is then made up for by what stays.

    Args:
        a: `[n, n]`, second moments of what turns by R.
        b: `[n, n]`, of what turns by R^-T.
    """
    half = _half(b)
    _values, vectors = np.linalg.eigh(half.T @ _floored(a) @ half)
    found, corner = np.linalg.qr(half @ vectors[:, ::-1])
    signs = np.where(np.diag(corner) < 0, -1.0, 1.0)
    return _upright((found * signs).T)


def balanced(a: Array, b: Array) -> Array:
    """`[n, n]`: an R after which both moments are the same diagonal matrix, of descending singular values.

    To keep the first r channels and repair nothing loses no more than any approximation of rank r. Directions
    of hardly any energy are scaled no further than `LARGEST_SCALE`, so that R can be inverted in float32.

    Args:
        a: `[n, n]`, second moments of what turns by R.
        b: `[n, n]`, of what turns by R^-T.
    """
    left, right = _half(a), _half(b)
    u, values, _vt = np.linalg.svd(right.T @ left)
    scales = np.sqrt(np.maximum(values, values[0] / LARGEST_SCALE**2))
    return _upright((u / scales).T @ right.T)


def losses(a: Array, b: Array, *, repaired: bool) -> tuple[float, float, float]:
    """What is lost when half of the channels go: as they are, and in the best basis.

    Args:
        a: `[n, n]`, second moments of what turns by R.
        b: `[n, n]`, of what turns by R^-T.
        repaired: Whether what stays makes up for what goes, as weights that read the channels can.

    Returns:
        The energy lost by the best half found among the channels as they are, the least possible, and the energy of all.
    """
    kept = (len(a) + 1) // 2
    a, b = _floored(a), _floored(b)
    values = np.linalg.svd(_half(b) @ _half(a), compute_uv=False) ** 2
    if repaired:
        reader = Reader(_half(b), a, np.arange(len(a)), unit=1.0)
        before = float(removal_path([reader], until=len(a) - kept, damping=FLOOR).errors[-1])
    else:
        energy = a * b
        gone = np.argsort(np.diag(energy), kind="stable")[: len(a) - kept]
        before = float(energy[np.ix_(gone, gone)].sum())
    return before, float(values[kept:].sum()), float(values.sum())


def _half(moments: Array) -> Array:
    """A symmetric square root of moments."""
    values, vectors = np.linalg.eigh(_floored(moments))
    root: Array = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def _floored(moments: Array) -> Array:
    found = np.asarray(moments, np.float64)
    mean = float(np.trace(found)) / len(found)
    floored: Array = found + np.eye(len(found)) * (FLOOR * mean if mean > 0 else 1.0)
    return floored


def _upright(rows: Array) -> Array:
    """Rows with their largest elements positive, so that equal data give equal signs."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    return rows * np.where(largest < 0, -1.0, 1.0)
