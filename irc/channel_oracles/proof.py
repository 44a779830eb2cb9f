"""All oracles on one model in one mode, with random survivors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family
from irc.channel_oracles.commutation import commuted
from irc.channel_oracles.masking import masked
from irc.channel_oracles.permutation import permuted
from irc.channel_oracles.relative_error import shapes_of, worst_error
from irc.channel_surgery import Cut, cut
from irc.errors import ModelError
from irc.ir import snapshot

Array = np.ndarray[Any, Any]
Feeds = Sequence[Mapping[str, Array]]
Run = Callable[[ir.Model, Feeds], Sequence[Sequence[Array]]]
"""Outputs of a model for every feed, computed without optimizations."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """What the oracles found.

    Attributes:
        families: How many families there are.
        moved: Labels that changed places in the permuted model.
        permutation_error: Relative error of the permuted model; 0 where nothing can move.
        cut: Families cut in the zero oracle: those that change no statistic.
        zero_error: Relative error of the cut model against the masked one.
        effect: Relative change of the outputs by the cut; a cut without effect would prove nothing.
        shapes_kept: Whether the outputs keep their shapes when every family is cut, statistics or not.
        commutation_error: Relative error of the cut model against the permuted one, cut alike, where a family changes a statistic.
    """

    families: int
    moved: int
    permutation_error: float
    cut: int
    zero_error: float
    effect: float
    shapes_kept: bool
    commutation_error: float = 0.0

    def holds(self, tolerance: float = 1e-5) -> bool:
        """Whether all oracles agree within a tolerance and no output changed its shape."""
        errors = (self.permutation_error, self.zero_error, self.commutation_error)
        return self.shapes_kept and all(error <= tolerance for error in errors)


def prove(groups: ChannelGroups, run: Run, feeds: Feeds, *, ratio: float = 0.5, seed: int = 0) -> Proof:
    """Runs the permutation oracle on all families at once, the zero oracle on random survivors of those that allow it.

    Where others are left, all are cut, and the commutation oracle is run.

    Args:
        groups: Solved groups of the model in question.
        run: Runs a model, best with the optimizations of the runtime off.
        feeds: Samples, preferably of other sizes than those analysed.
        ratio: Share of every family's atoms that is cut.
        seed: Of the random choices.
    """
    propagation = groups.propagation
    base = run(propagation.model, feeds)
    model, moved = permuted(groups, seed=seed)
    permutation_error = worst_error(base, run(model, feeds)) if moved else 0.0
    exact = [family for family in groups.families if not family.statistics]
    # Families of one width lose unlike numbers: what should have been one family would go unnoticed otherwise.
    kept = random_survivors(groups, exact, ratio=ratio, spread=1, seed=seed)
    zero_error = effect = commutation_error = 0.0
    found: Sequence[Sequence[Array]] = []
    if kept:
        alive = groups.survivors(kept)
        small = snapshot(propagation.model)
        cut(small, propagation, alive)
        found = run(small, feeds)
        zero_error = worst_error(run(masked(propagation, alive), feeds), found)
        effect = worst_error(base, found)
    shapes_kept = not kept or shapes_of(found) == shapes_of(base)
    if len(exact) < len(groups.families):
        small = snapshot(propagation.model)
        everything = random_survivors(groups, groups.families, ratio=ratio, spread=1, seed=seed)
        alive = groups.survivors(everything)
        cut(small, propagation, alive)
        found = run(small, feeds)
        shapes_kept = shapes_kept and shapes_of(found) == shapes_of(base)
        other = commuted(groups, alive, seed=seed)
        commutation_error = 0.0 if other is None else worst_error(found, run(other, feeds))
    return Proof(
        len(groups.families), moved, permutation_error, len(kept), zero_error, effect, shapes_kept, commutation_error
    )


def random_survivors(
    groups: ChannelGroups, families: Sequence[Family], *, ratio: float = 0.5, spread: int = 0, seed: int = 0
) -> dict[Family, Array]:
    """Atoms to keep of some families, as many of each cell, such that no value becomes empty.

    Args:
        groups: Solved groups.
        families: Those to cut; a family of one atom per cell is left as it is.
        ratio: Share of the atoms that is cut.
        spread: By how many atoms families of one width may differ at random, up and down; all stay cut.
        seed: Of the random choices.
    """
    rng = np.random.default_rng(seed)
    chosen: dict[Family, Array] = {}
    for family in families:
        count = max(1, round(family.width * (1 - ratio)))
        if spread and count < family.width:
            count = int(np.clip(count + rng.integers(-spread, spread + 1), 1, family.width - 1))
        if count < family.width:
            cells = [np.sort(rng.permutation(family.members(cell))[:count]) for cell in range(family.cell_count)]
            chosen[family] = np.concatenate(cells)
    if _legal(groups, chosen):
        return chosen
    legal: dict[Family, Array] = {}
    for family, atoms in chosen.items():
        if _legal(groups, {**legal, family: atoms}):
            legal[family] = atoms
    return legal


def _legal(groups: ChannelGroups, kept: Mapping[Family, Array]) -> bool:
    propagation = groups.propagation
    try:
        Cut(propagation.model, propagation, groups.survivors(kept)).check()
    except ModelError:
        return False
    return True
