"""How much of every family goes for one common share: the same of each, or what ranks lowest among all, or among its like."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from irc.analysis.channels import Family
from irc.passes.pruning.candidate import Candidate

Scope = Literal["auto", "family", "global", "isomorphic", "measured"]
Widths = dict[Candidate, int]
EPSILON = 1e-9
"""Keeps products such as 0.7 * 10 from rounding to the wrong side."""


def allocation(candidates: Sequence[Candidate], scope: str) -> Callable[[float], Widths]:
    """Widths by the share of atoms that goes, counted from the original model.

    - "family": the same share of every family.
    - "global": the lowest of all atoms, scores in units of their family's mean (Torch-Pruning's normalization).
    - "isomorphic": likewise, families of like structure apart (Fang et al., Isomorphic Pruning, arXiv:2407.04616).

    Widths are then raised to what a candidate allows.
    """
    if scope == "family":
        return lambda share: {c: c.allowed(math.ceil(c.original * (1 - share) - EPSILON)) for c in candidates}
    peers: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        peers.setdefault(structure(candidate.family) if scope == "isomorphic" else "", []).append(candidate)
    rankings = [_Ranking(group) for group in peers.values()]
    return lambda share: {c: width for ranking in rankings for c, width in ranking.widths(share).items()}


class _Ranking:
    """All atoms of some candidates in one order. A rank of a candidate is an atom of each of its cells."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = candidates
        owners = [np.full(c.width, i) for i, c in enumerate(candidates)]
        ranks = [np.arange(c.width) for c in candidates]
        owner, rank = np.concatenate(owners), np.concatenate(ranks)
        # Of a removal path, an atom may be worth less than one that goes before it.
        worth = np.concatenate([np.maximum.accumulate(c.worth[::-1])[::-1] for c in candidates])
        # Of equal worth the last rank goes first, so that what goes of a candidate are always its last ranks.
        order = np.lexsort((owner, -rank, worth))
        self._owner = owner[order]
        atoms = np.array([c.family.cell_count for c in candidates])
        self._gone = np.cumsum(atoms[self._owner])
        self._original = sum(c.original * c.family.cell_count for c in candidates)
        self._gone_before = self._original - int(self._gone[-1])

    def widths(self, share: float) -> Widths:
        budget = share * self._original - self._gone_before + EPSILON
        cut = np.bincount(
            self._owner[: int(np.searchsorted(self._gone, budget, side="right"))], minlength=len(self._candidates)
        )
        return {c: c.allowed(c.width - int(n)) for c, n in zip(self._candidates, cut, strict=True)}


def structure(family: Family) -> str:
    """A hash of a family's parameters, the operators that read them and the axes it cuts, without sizes and names."""
    import networkx

    graph = networkx.Graph()
    graph.add_node("family", kind="family")
    for number, axis in enumerate(family.axes):
        slot = axis.slot
        uses = [slot.use] if slot.use is not None else [(use.node, use.idx) for use in slot.initializer.uses()]
        readers = sorted(f"{node.op_type}.{index}" for node, index in uses)
        name = f"{id(slot)}"
        graph.add_node(name, kind=f"{len(slot.view)}:{' '.join(readers)}")
        place = f"axis{number}"
        graph.add_node(place, kind=f"axis {axis.axis}")
        graph.add_edge("family", place)
        graph.add_edge(place, name)
    return str(networkx.weisfeiler_lehman_graph_hash(graph, node_attr="kind", iterations=3))


def cut_only(widths: Mapping[Candidate, int]) -> Widths:
    """The candidates that lose anything."""
    return {candidate: width for candidate, width in widths.items() if width < candidate.width}
