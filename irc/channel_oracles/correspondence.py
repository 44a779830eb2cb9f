"""Which label of one atom plays the part that a label of another atom plays.

Labels are coloured by the values they occur in and by the relations they stand in, refined until colours are stable: two labels of
one colour can change places if their atoms do. Within a colour, position decides (the k-th feature of one channel for the k-th of
another).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irc.analysis.channels import ChannelGroups
from irc.analysis.channels.bundles import Labels, occurrences

_ROUNDS = 12


def colours(groups: ChannelGroups) -> Labels:
    """A colour per label, as a hash."""
    constraints = groups.propagation.constraints
    colour = np.zeros(constraints.count, dtype=np.uint64)
    number = 1
    for slot in groups.propagation.slots:
        for bundle in slot.bundles:
            colour[bundle.labels.ravel()] = _mixed(np.uint64(number))
            number += 1
    with np.errstate(over="ignore"):
        for _value, tensor in groups.propagation.values():
            number += 1
            for bundle in tensor.bundles:
                np.add.at(colour, bundle.labels.ravel(), _mixed(np.uint64(number)))
    pairs = groups.solution.pairs
    if not pairs:
        return colour.view(np.int64)
    left = np.concatenate([one for one, _other, _group in pairs])
    right = np.concatenate([other for _one, other, _group in pairs])
    # The k-th feature of a channel stands in another relation to it than the first.
    turns = [(occurrences(one), occurrences(other)) for one, other, _group in pairs]
    turn = np.concatenate([one for one, _ in turns]) + (np.concatenate([other for _, other in turns]) << 20)
    group = np.concatenate([kind for _one, _other, kind in pairs]).astype(np.uint64)
    with np.errstate(over="ignore"):
        tag = _mixed(group * np.uint64(2) + _mixed(turn.astype(np.uint64)))
    for _ in range(_ROUNDS):
        new = _mixed(colour)
        with np.errstate(over="ignore"):
            np.add.at(new, left, _mixed(colour[right] ^ tag))
            np.add.at(new, right, _mixed(colour[left] ^ (tag + np.uint64(1))))
        colour = new
    return colour.view(np.int64)


def correspondence(groups: ChannelGroups, rng: np.random.Generator) -> tuple[Labels, int]:
    """A random exchange of atoms within families and rows, as the label that takes every label's place.

    Args:
        groups: Solved groups.
        rng: Source of the random order.

    Returns:
        For every label the one that takes its place, and how many atoms move.
    """
    class_of = groups.class_of
    colour = colours(groups)
    count = len(class_of)
    signature = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        np.add.at(signature, class_of, _mixed(colour.view(np.uint64)))
    order = np.lexsort((np.arange(count), colour, class_of))
    starts = np.searchsorted(class_of[order], np.arange(count))
    sizes = np.bincount(class_of, minlength=count)
    target = np.arange(count, dtype=np.int64)
    moved = 0
    for family in groups.families:
        kinds: dict[Any, list[int]] = {}
        for atom, cell in zip(family.atoms.tolist(), family.cells.tolist(), strict=True):
            kinds.setdefault((cell, int(signature[atom]), int(sizes[atom])), []).append(atom)
        for atoms in kinds.values():
            if len(atoms) < 2:
                continue
            cycle = rng.permutation(len(atoms))
            for here, there in zip(cycle, np.roll(cycle, 1), strict=True):
                one, other = atoms[here], atoms[there]
                size = sizes[one]
                target[order[starts[one] : starts[one] + size]] = order[starts[other] : starts[other] + size]
            moved += len(atoms)
    return target, moved


def _mixed(x: Any) -> Any:
    with np.errstate(over="ignore"):
        x = np.asarray(x, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
        x = x ^ (x >> np.uint64(29))
        x = x * np.uint64(0xBF58476D1CE4E5B9)
        return x ^ (x >> np.uint64(32))
