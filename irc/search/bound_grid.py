"""Bounds that follow how much of the error budget is left, for choices in which few sites have most of the error.

One pair of multipliers fits one share of the budget. A partial selection that has used much more or less of it than others is
bounded better by the multiplier of the error that fits what is left for the rest; a grid of them is kept, and the two that
bracket the rest of the budget are asked.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from irc.search.instance import Instance
from irc.search.relaxation import Multipliers, rest
from irc.search.stages import Stage

# Multipliers of the error: from 1 / 16 to 16 times the best of the whole, denser the closer to it.
STEPS = 16
OCTAVES = 4
FRACTION_BITS = 32


class BoundGrid:
    """Bounds of partial selections under several multipliers.

    Args:
        instance: The choice.
        stages: Its sites.
        weights: The best multipliers for the whole.
    """

    def __init__(self, instance: Instance, stages: Sequence[Stage], weights: Multipliers) -> None:
        self._instance = instance
        self._weights = [_scaled(weights, step) for step in range(-STEPS, STEPS + 1)]
        self._rests = [rest(stages, weights) for weights in self._weights]
        # Errors fall with the multiplier; negated they rise, for bisection.
        self._spared = [
            [[-ahead.totals[stage][state].error for ahead in self._rests] for state in range(len(totals))]
            for stage, totals in enumerate(self._rests[0].totals)
        ]

    def bound(self, stage: int, state: int, cost: int, error: int, stored: int) -> tuple[int, int | None]:
        """What a partial selection can become.

        Args:
            stage: How many sites are chosen.
            state: Where they lead.
            cost: The sum of their costs.
            error: Of their errors.
            stored: Of their bytes.

        Returns:
            A cost below which no allowed selection begins so, and the cost of an allowed one, if one was met.
        """
        error_left, bytes_left = self._instance.error_budget - error, self._instance.byte_budget - stored
        fitting = bisect.bisect_left(self._spared[stage][state], -error_left)
        least, whole = None, None
        for index in (fitting - 1, fitting):
            if not 0 <= index < len(self._rests):
                continue
            q, p, r = self._weights[index]
            score = self._rests[index].scores[stage][state] - p * error_left - r * bytes_left
            below = cost - (-score // q)
            least = below if least is None else max(least, below)
            after = self._rests[index].totals[stage][state]
            if after.error <= error_left and after.bytes <= bytes_left:
                whole = cost + after.cost if whole is None else min(whole, cost + after.cost)
        assert least is not None  # one of two neighbouring places is within the grid
        return least, whole


def _scaled(weights: Multipliers, step: int) -> Multipliers:
    octaves = math.copysign((step / STEPS) ** 2 * OCTAVES, step)
    factor = int(2**octaves * (1 << FRACTION_BITS))
    return Multipliers(weights.cost << FRACTION_BITS, weights.error * factor, weights.bytes << FRACTION_BITS)
