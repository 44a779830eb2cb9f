"""Scores from weights alone: powers of absolute elements, added up over the coordinates of every atom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from irc.analysis.channels import ChannelGroups, Family, Slot
from irc.analysis.channels.bundles import Bundle
from irc.passes.pruning.weight_roles import elements, multiplies, produced_axes

Array = np.ndarray[Any, Any]


def magnitudes(
    groups: ChannelGroups, *, power: int, produced_only: bool, counts: Callable[[Slot], bool] = multiplies
) -> dict[Family, Array]:
    """score(atom) = sum of |element|^power over what multiplies at the atom's coordinates.

    Elements that are not finite score infinitely, so that they stay. Integer weights behind DequantizeLinear count by what they stand
    for.

    Args:
        groups: Solved groups.
        power: 1 or 2.
        produced_only: Only what makes the atoms (rows of a weight) counts, not what reads them; all of it does where
            nothing makes them.
        counts: Which initializers count.
    """
    count = groups.propagation.constraints.count
    open_ = np.zeros(count, dtype=bool)
    for family in groups.families:
        open_[family.atoms] = True
    whole, made = np.zeros(count), np.zeros(count)
    for slot in groups.propagation.slots:
        relevant = [bundle for bundle in slot.bundles if open_[groups.class_of[bundle.labels]].any()]
        if not relevant or not counts(slot):
            continue
        array = elements(slot)
        if array is None:
            continue
        powers = _powers(array, power).reshape(slot.view)
        produced = produced_axes(slot) if produced_only else frozenset()
        for bundle in relevant:
            classes, sums = groups.class_of[bundle.labels].ravel(), _along(powers, bundle).ravel()
            np.add.at(whole, classes, sums)
            if _cut_axis(groups, slot, bundle) in produced:
                np.add.at(made, classes, sums)
    found = {}
    for family in groups.families:
        score = made[family.atoms]
        found[family] = score if produced_only and score.any() else whole[family.atoms]
    return found


def _powers(array: Array, power: int) -> Array:
    """|element|^power, infinite where that is no number; in double precision where squares leave the range of single."""
    sizes = np.abs(array)
    if power == 2:
        largest = float(np.max(sizes, where=np.isfinite(sizes), initial=0.0))
        if sizes.dtype != np.float64 and not 1e-12 < largest < 1e18:
            sizes = sizes.astype(np.float64)
        with np.errstate(over="ignore", under="ignore"):
            sizes = np.square(sizes)
    return np.where(np.isfinite(sizes), sizes, np.inf)


def _along(powers: Array, bundle: Bundle) -> Array:
    """Sums over all axes but a bundle's, in the order of the bundle's."""
    others = tuple(axis for axis in range(powers.ndim) if axis not in bundle.axes)
    sums = powers.sum(axis=others, dtype=np.float64)
    physical = sorted(bundle.axes)
    result: Array = np.transpose(sums, [physical.index(axis) for axis in bundle.axes])
    return result


def _cut_axis(groups: ChannelGroups, slot: Slot, bundle: Bundle) -> int:
    position = groups.propagation.constraints.cut_position(bundle.factors, groups.mode)
    return slot.axis_of[bundle.axes[position]]
