"""Widths by what they cost the model: every family is cut alone, and the distance of the outputs scales its own error.

    predicted distance of family f at width k  =  loss_f(k) * D_f / loss_f(probe)        D_f: measured, f alone cut to probe, updated

Probed are half and a quarter of the widths, which lead to two allocations: which is better depends on how deep the cut is.

From full widths on, the step goes next that costs least of that per unit of budget saved, steps of several sizes being looked at, so
that neither a staircase of the budget nor a bump of the error stops it. The distances are assumed to add up, which they do not
exactly: the result competes with uniform widths, and the better one by measurement is taken.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence

from irc.passes.pruning.allocation import Widths
from irc.passes.pruning.candidate import Candidate

STEPS = 16
"""A family is cut in about so many steps."""
LOOKAHEAD = (1, 2, 4)
"""How many steps at once; more only where these save nothing."""


PROBED = (0.5, 0.25)
"""Shares of the width at which every family is tried alone."""


def sensitivities(
    candidates: Sequence[Candidate], probe: Callable[[Widths], float], *, share: float = PROBED[0]
) -> dict[Candidate, float]:
    """The distance per unit of loss of every candidate.

    Args:
        candidates: All.
        probe: The distance when some of them are cut.
        share: Of the width, at which a candidate is tried.
    """
    found = {}
    for candidate in candidates:
        width = probed_width(candidate, share)
        loss = candidate.loss(width)
        if width < candidate.width and loss > 0:
            found[candidate] = max(probe({candidate: width}), 0.0) / loss
        else:
            found[candidate] = 0.0
    return found


def probed_width(candidate: Candidate, share: float = PROBED[0]) -> int:
    """The width at which a candidate is tried alone: a share of it, as far as it is allowed."""
    return candidate.allowed(int(candidate.width * share))


def widths_by_sensitivity(
    candidates: Sequence[Candidate],
    sensitivity: Mapping[Candidate, float],
    cost: Callable[[Widths], float],
    limit: float,
) -> Widths | None:
    """Widths whose cost is within a limit, at about the least predicted distance; None if no widths are.

    Args:
        candidates: All.
        sensitivity: Distance per unit of loss.
        cost: Of some widths; less of any never costs more.
        limit: Largest cost.
    """
    widths = {candidate: candidate.width for candidate in candidates}
    now = cost(widths)
    serial = itertools.count()
    queue: list[tuple[float, int, Candidate, int, int]] = []

    def price(candidate: Candidate) -> None:
        """Puts the best step of a candidate into the queue."""
        best: tuple[float, int] | None = None
        here = widths[candidate]
        for width, is_near in _lower(candidate, here):
            if best is not None and not is_near:
                break
            saved = now - cost({**widths, candidate: width})
            if saved <= 0:
                continue
            lost = _price(candidate, here, width, sensitivity)
            if best is None or lost / saved < best[0]:
                best = lost / saved, width
        if best is not None:
            heapq.heappush(queue, (best[0], next(serial), candidate, best[1], here))

    for candidate in candidates:
        price(candidate)
    while now > limit and queue:
        rate, _serial, candidate, width, here = heapq.heappop(queue)
        if widths[candidate] != here:
            continue
        # What a step saves falls as others are cut: it is looked at again, and taken if it still is the best.
        saved = now - cost({**widths, candidate: width})
        if saved <= 0:
            price(candidate)
            continue
        rate = _price(candidate, here, width, sensitivity) / saved
        if queue and rate > queue[0][0]:
            heapq.heappush(queue, (rate, next(serial), candidate, width, here))
            continue
        widths[candidate] = width
        now -= saved
        price(candidate)
    if now > limit:
        return None
    return _filled(widths, sensitivity, cost, limit)


def _price(candidate: Candidate, wide: int, narrow: int, sensitivity: Mapping[Candidate, float]) -> float:
    """What a step loses; nothing where no worth goes, however sensitive the model is to it."""
    loss = candidate.loss(narrow) - candidate.loss(wide)
    return sensitivity[candidate] * loss if loss > 0 else 0.0


def _lower(candidate: Candidate, width: int) -> list[tuple[int, bool]]:
    """Widths to go to from one, the widest first, and whether they are within the lookahead; others are twice as far, and so on."""
    step = max(candidate.step, -(-candidate.width // STEPS) // candidate.step * candidate.step)
    far = [LOOKAHEAD[-1] << power for power in range(1, candidate.width.bit_length() + 1)]
    found: dict[int, bool] = {}
    for count in (*LOOKAHEAD, *far):
        found.setdefault(candidate.allowed(max(width - count * step, candidate.least)), count in LOOKAHEAD)
    return sorted(((w, near) for w, near in found.items() if w < width), reverse=True)


def _filled(
    widths: Widths, sensitivity: Mapping[Candidate, float], cost: Callable[[Widths], float], limit: float
) -> Widths:
    """What is left of the budget given back in single steps, where it spares most."""
    widths = dict(widths)
    blocked: set[Candidate] = set()
    while True:
        best = None
        for candidate, width in widths.items():
            wider = min(width + candidate.step, candidate.width)
            if candidate in blocked or wider <= width:
                continue
            gain = _price(candidate, wider, width, sensitivity)
            if best is None or gain > best[0]:
                best = gain, candidate, wider
        if best is None:
            return widths
        _gain, candidate, wider = best
        trial = {**widths, candidate: wider}
        if cost(trial) <= limit:
            widths = trial
        else:
            blocked.add(candidate)
