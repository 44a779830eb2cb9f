"""What operators demand of labels: equality, pins, rows, boxes and statistics, gathered first and solved per mode.

- **equal**: two labels are cut together or not at all.
- **pin**: a label is never cut, with the reason.
- **box**: the labels of a joint bundle `[rows, members]` must leave a box: whole rows are cut, or as many members of every row.
- **subset**: a label `s` on some axes of a joint bundle stands for all its labels there (a head's scale for the head's dimensions).
- **statistic**: cutting a label changes a value that depends on all of them (LayerNorm, a mean over channels).

Which axis of a joint bundle is cut is the **mode**'s: in *row* mode the outermost index that nothing picks from, in *column* mode the
innermost. Boxes and subsets mean different equalities in the two modes; everything else is the same in both.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from irc.analysis.channels.bundles import Bundle, Labels

Mode = Literal["rows", "columns"]


@dataclasses.dataclass(frozen=True, eq=False)
class Reason:
    """Why a label is pinned, or what changes when it is cut.

    Attributes:
        kind: One word or two for tables: "graph output", "free axis", "softmax axis".
        text: The sentence, without a full stop, naming the node or value.
    """

    kind: str
    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Labels on some axes of a bundle, each of which stands for all labels of the bundle there.

    Attributes:
        labels: One dimension per axis of `whole`, of size 1 along those it does not have.
        own: Positions in `whole` of the axes it has.
        whole: The bundle.
        reason: What pins the labels where another axis is cut.
    """

    labels: Labels
    own: tuple[int, ...]
    whole: Bundle
    reason: Reason


_LAST = 1 << 60
"""Sorts behind every position within an index."""


class Constraints:
    """Constraints gathered during propagation.

    Attributes:
        count: How many labels there are.
        equalities: (left, right, group) arrays of equal length; pairs of one group stand in the same relation.
        pins: (labels, reason), first come first.
        statistics: (labels, reason).
        statistics_along: (bundle, positions, reason): a statistic where one of these axes of the bundle is cut.
        subsets: Relations between bundles of unlike axes.
        boxes: Joint bundles of some value.
        flat: (bundle, positions): axes of a joint bundle that lie one inside the other in an axis of some value.
        picked: Factors from which single coordinates are picked, so that the index as such is not what is cut.
    """

    def __init__(self) -> None:
        self.count = 0
        self.equalities: list[tuple[Labels, Labels, Labels]] = []
        self.pins: list[tuple[Labels, Reason]] = []
        self.statistics: list[tuple[Labels, Reason]] = []
        self.statistics_along: list[tuple[Bundle, tuple[int, ...], Reason]] = []
        self.subsets: list[Subset] = []
        self.boxes: dict[tuple[Any, ...], Bundle] = {}
        self.flat: list[tuple[Bundle, tuple[int, ...]]] = []
        self.picked: set[int] = set()
        self._groups = 0
        self._keys: list[tuple[int, ...]] = []
        self._parents: list[int] = []
        self._merges = 0
        self._ranked: tuple[tuple[int, int, int], dict[int, int]] = ((-1, 0, 0), {})

    # -- labels and factors -------------------------------------------------------------------------------------------

    def fresh(self, shape: Sequence[int]) -> Labels:
        """New labels in an array of some shape."""
        size = int(np.prod(shape, dtype=np.int64))
        labels = np.arange(self.count, self.count + size, dtype=np.int64).reshape(tuple(shape))
        self.count += size
        return labels

    def factor(self, *, within: int | None = None, position: int = 0, before: int | None = None) -> int:
        """A new factor; one that an index is split into sorts where that index did, or it sorts right before another."""
        key: tuple[int, ...] = (len(self._keys),)
        if within is not None:
            key = (*self._keys[self._root(within)], position)
        elif before is not None:
            *outer, last = self._keys[self._root(before)]
            key = (*outer, last - 1, _LAST)
        self._keys.append(key)
        self._parents.append(len(self._parents))
        return len(self._keys) - 1

    def fresh_bundle(self, axes: Sequence[int], sizes: Sequence[int]) -> Bundle:
        """A bundle of new labels with new factors."""
        return Bundle(tuple(axes), self.fresh(sizes), tuple(self.factor() for _ in axes))

    def same_factor(self, one: int, other: int) -> None:
        """Two indices run over the same thing."""
        one, other = self._root(one), self._root(other)
        if one != other:
            low, high = sorted((one, other), key=lambda f: self._keys[f])
            self._parents[high] = low
            self._merges += 1

    def _root(self, factor: int) -> int:
        while self._parents[factor] != factor:
            self._parents[factor] = self._parents[self._parents[factor]]
            factor = self._parents[factor]
        return factor

    def order(self, factors: Sequence[int]) -> list[int]:
        """Positions of factors from the outermost to the innermost."""
        ranks = self._ranks()
        return sorted(range(len(factors)), key=lambda i: (ranks[self._root(factors[i])], i))

    def _ranks(self) -> dict[int, int]:
        """Places of all factors in one order that puts rows before members in every joint bundle, as far as these agree."""
        state = (len(self.boxes), len(self._parents), self._merges)
        if self._ranked[0] == state:
            return self._ranked[1]
        roots = sorted({self._root(factor) for factor in range(len(self._parents))}, key=lambda f: self._keys[f])
        inside: dict[int, set[int]] = {root: set() for root in roots}
        outside = dict.fromkeys(roots, 0)
        for box in self.boxes.values():
            for outer, inner in itertools.pairwise(self._root(factor) for factor in box.factors):
                if outer != inner and inner not in inside[outer]:
                    inside[outer].add(inner)
                    outside[inner] += 1
        waiting = {root: place for place, root in enumerate(roots)}
        ready = [(place, root) for root, place in waiting.items() if not outside[root]]
        ranks: dict[int, int] = {}
        while waiting:
            if ready:
                _place, root = heapq.heappop(ready)
            else:  # bundles contradict each other
                root = next(iter(waiting))
            if waiting.pop(root, None) is None:
                continue
            ranks[root] = len(ranks)
            for inner in inside[root]:
                outside[inner] -= 1
                if not outside[inner] and inner in waiting:
                    heapq.heappush(ready, (waiting[inner], inner))
        self._ranked = state, ranks
        return ranks

    def cut_position(self, factors: Sequence[int], mode: Mode) -> int:
        """Position of the factor that a joint bundle is cut along."""
        order = self.order(factors)
        picked = {self._root(factor) for factor in self.picked}
        if mode == "columns":
            return next((i for i in reversed(order) if self._root(factors[i]) not in picked), order[-1])
        return next((i for i in order if self._root(factors[i]) not in picked), order[-1])

    # -- demands ------------------------------------------------------------------------------------------------------

    def equal(self, one: Labels, other: Labels, kinds: Labels | None = None) -> None:
        """Labels at like positions are cut together; arrays broadcast. Pairs stand in as many relations as there are kinds."""
        if one is other:
            return
        left, right, group = np.broadcast_arrays(one, other, np.int64(0) if kinds is None else kinds)
        self.equalities.append((left.ravel(), right.ravel(), group.ravel() + self._groups))
        self._groups += 1 + int(group.max(initial=0))

    def tie(self, bundle: Bundle, axis: int) -> Bundle:
        """Labels along an axis are cut together, so that it is not what is cut; the bundle without that axis."""
        first = bundle.without(axis)
        at = bundle.position(axis)
        self.picked.add(bundle.factors[at])
        lines = np.moveaxis(bundle.labels, at, 0)
        groups = np.broadcast_to(
            np.arange(self._groups, self._groups + len(lines), dtype=np.int64).reshape(-1, *[1] * first.labels.ndim),
            lines.shape,
        )
        self._groups += len(lines)
        left = np.broadcast_to(first.labels, lines.shape)
        self.equalities.append((left[1:].ravel(), lines[1:].ravel(), groups[1:].ravel()))
        return first

    def pin(self, labels: Labels, reason: Reason) -> None:
        """Labels are never cut."""
        self.pins.append((np.unique(labels), reason))

    def pin_all(self, bundles: Sequence[Bundle], reason: Reason) -> None:
        """All labels of some bundles are never cut."""
        for bundle in bundles:
            self.pin(bundle.labels, reason)

    def statistic(self, labels: Labels, reason: Reason) -> None:
        """Cutting one of the labels changes what depends on all of them."""
        self.statistics.append((np.unique(labels), reason))

    def statistic_along(self, bundle: Bundle, axes: Sequence[int], reason: Reason) -> None:
        """Cutting along one of some axes changes what depends on all coordinates there; cutting along another does not."""
        positions = tuple(i for i, axis in enumerate(bundle.axes) if axis in axes)
        if positions:
            self.box(bundle)
            self.statistics_along.append((bundle, positions, reason))

    def box(self, bundle: Bundle) -> None:
        """A value has this joint bundle, so what is left of it must be a box."""
        if len(bundle.axes) > 1:
            self.boxes.setdefault((id(bundle.labels), bundle.factors), bundle)

    def flattened(self, bundle: Bundle, axes: Sequence[int]) -> None:
        """Axes, outermost first, become one or were one: what survives keeps its order only if it is a box in this order."""
        positions = tuple(bundle.position(axis) for axis in axes if axis in bundle.axes)
        if len(positions) > 1:
            self.flat.append((bundle, positions))

    def subset(self, part: Bundle, whole: Bundle, reason: Reason) -> None:
        """Each label of `part` stands for all labels of `whole` at its coordinates.

        Args:
            part: Bundle on some of the axes of `whole`.
            whole: A joint bundle on the same tensor, or on the same letters.
            reason: Why `part` cannot be cut where an axis is cut that it does not have.
        """
        own = tuple(whole.position(axis) for axis in part.axes)
        for axis, factor in zip(part.axes, part.factors, strict=True):
            self.same_factor(factor, whole.factors[whole.position(axis)])
        order = sorted(range(len(own)), key=lambda i: own[i])
        shape = [whole.labels.shape[i] if i in own else 1 for i in range(len(whole.axes))]
        labels = np.transpose(part.labels, order).reshape(shape)
        self.subsets.append(Subset(labels, tuple(sorted(own)), whole, reason))

    def representatives(self, bundle: Bundle, axes: Sequence[int], reason: Reason) -> Bundle:
        """New labels on some axes of a bundle, each of which stands for all labels there."""
        positions = [bundle.position(axis) for axis in axes]
        shape = [bundle.labels.shape[i] for i in positions]
        lines = np.moveaxis(bundle.labels, positions, range(len(positions))).reshape(int(np.prod(shape)), -1)
        # What repeats itself (heads, once per element of a merged batch) is represented alike.
        found, places = np.unique(lines, axis=0, return_inverse=True)
        part = Bundle(
            tuple(axes),
            self.fresh([len(found)])[places.reshape(shape)],
            tuple(bundle.factors[i] for i in positions),
        )
        self.subset(part, bundle, reason)
        return part

    def free(self, bundle: Bundle, axis: int, reason: Reason) -> Bundle | None:
        """An axis must stay as it is: labels along it are tied, or pinned where it is the bundle's only axis."""
        if len(bundle.axes) > 1:
            return self.tie(bundle, axis)
        self.pin(bundle.labels, reason)
        return None
