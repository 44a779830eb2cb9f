"""Agreement with the original where outputs are class scores: what would the changed decisions cost?

The original's own probabilities p say how likely each class is right, so without any label

    expected accuracy loss = mean(p(argmax original) - p(argmax candidate)) / mean(p(argmax original))

A decision that flips between two equally likely classes costs nothing; one that leaves a confident class costs that
confidence. For sequences of distributions (language models) the argmax is not the use, so also

    expected cross-entropy increase = sum KL(p || q) / sum H(p)

counts where the mean entropy H(p) is at least 0.5 nats; below, the output is a decision rather than a distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irc.judge.assessment import Score
from irc.judge.bounds import continuous_bound, counted_bound
from irc.judge.class_probabilities import chunks, decisions, defined, entropies, log_probabilities
from irc.judge.classifier import ClassScores
from irc.judge.units import Array, UnitTable

MIN_ENTROPY = 0.5
"""Mean entropy, in nats, from which on a sequence of distributions is judged as such."""
_MAX_DIVERGENCE = 50.0


class Agreement:
    """Sums up the agreement of a candidate with the original on one output."""

    def __init__(self, output: str, reading: ClassScores) -> None:
        self._output, self._reading = output, reading
        self._table = UnitTable(6)

    def add(self, key: str, reference: Sequence[Array], candidate: Sequence[Array] | None) -> None:
        """Adds one sample; None for a candidate whose output has another shape: every decision is then lost."""
        for row, original in enumerate(reference):
            matrix = decisions(original, self._reading)
            other = None if candidate is None else decisions(candidate[row], self._reading)
            self._table.set(key, row, *self._compare(matrix, other))

    def _compare(self, reference: Array, candidate: Array | None) -> tuple[float, ...]:
        count = flips = 0
        confidence = harm = divergence = entropy = 0.0
        for part in chunks(reference):
            kept = defined(reference[part])
            mine = reference[part][kept]
            if not len(mine):
                continue
            log_p = log_probabilities(mine, self._reading)
            best = log_p.argmax(axis=1)
            every = np.arange(len(mine))
            top = np.exp(log_p[every, best])
            count += len(mine)
            confidence += float(top.sum())
            if self._reading.sequence:
                entropy += float(entropies(log_p).sum())
            if candidate is None:
                flips += len(mine)
                harm += float(top.sum())
                divergence += _MAX_DIVERGENCE * len(mine)
                continue
            theirs = candidate[part][kept]
            chosen = theirs.argmax(axis=1)
            flips += int((chosen != best).sum())
            harm += float((top - np.exp(log_p[every, chosen])).sum())
            if self._reading.sequence:
                log_q = log_probabilities(theirs, self._reading)
                finite = np.isfinite(log_p)
                gap = np.where(finite, log_p, 0.0) - np.where(finite, np.maximum(log_q, -_MAX_DIVERGENCE), 0.0)
                divergence += max(0.0, float((np.exp(log_p) * gap).sum()))
        return count, flips, confidence, harm, divergence, entropy

    def scores(self) -> list[Score]:
        """The expected accuracy loss and, for sequences of distributions, the expected cross-entropy increase."""
        count, flips, confidence, harm, divergence, entropy = self._table.columns()
        trials = int(count.sum())
        if trials == 0:
            return []
        flipped = int(flips.sum())
        loss = float(harm.sum() / confidence.sum())
        mean = float(confidence.sum()) / trials
        found = [
            Score(
                name="expected accuracy",
                output=self._output,
                reference=mean,
                value=mean - float(harm.sum()) / trials,
                loss=loss,
                bound=counted_bound(harm, confidence, losses=flipped, gains=0, harm=float(harm.sum()), trials=trials),
                n=len(count),
                trials=trials,
                remarks=(f"same top-1 on {100 * (1 - flipped / trials):.4g} %",),
            )
        ]
        if self._reading.sequence and entropy.sum() >= MIN_ENTROPY * trials:
            mean = float(entropy.sum()) / trials
            found.append(
                Score(
                    name="expected cross-entropy",
                    output=self._output,
                    reference=mean,
                    value=mean + float(divergence.sum()) / trials,
                    loss=float(divergence.sum() / entropy.sum()),
                    bound=continuous_bound(divergence, entropy),
                    n=len(count),
                )
            )
        return found
