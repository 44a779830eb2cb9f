"""What the judge says of a candidate: one number, its bound, and what it rests on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from irc.judge.bounds import samples_needed
from irc.judge.budget import Budget
from irc.judge.halves import Half

Kind = Literal["metric", "labels", "agreement", "error"]


@dataclasses.dataclass(frozen=True)
class Score:
    """One quality of the candidate against the original.

    Attributes:
        name: What was measured: "accuracy", "expected accuracy".
        output: The output it was measured on; "" for a metric function.
        reference: Value of the original.
        value: Value of the candidate.
        loss: Relative loss, (reference - value) / |reference| or its negative where lower is better; negative = better.
        bound: One-sided 95 % upper bound of the loss; None if the metric does not say how it varies.
        n: Number of independent samples; rows of a batch count each, equal samples once.
        trials: Number of decisions that could get worse (samples, tokens, pixels); 0 where every sample shows any loss,
            None if not known.
        least: One-sided 95 % lower bound of the loss: what is certainly lost; None where it is not needed.
        remarks: More figures in words ("same top-1 on 98.4 %").
    """

    name: str
    output: str
    reference: float
    value: float
    loss: float
    bound: float | None
    n: int
    trials: int | None = 0
    least: float | None = None
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Assessment:
    """The judge's word on one candidate.

    `reference` and `value` are those of the reported quality `name`; `loss` is the number to decide by. The two differ
    only where labels are too few to decide: then `criterion` names what the loss is of, and `notes` say so.

    Attributes:
        kind: The evidence: the user's metric, labels, agreement with the original, or relative output error.
        name: The reported quality.
        reference: Its value for the original.
        value: Its value for the candidate.
        criterion: The quality `loss` is taken from.
        loss: Relative loss; 0.01 is 1 %, negative is better than the original, 1.0 for a rejected candidate.
        drop_points: The loss as a difference of values, in points (1 pt = 0.01).
        bound: One-sided 95 % upper bound of `loss`; None if it cannot be given.
        n: Number of independent samples behind `loss`.
        trials: See `Score.trials`.
        half: The half it was measured on.
        rejected: Why the candidate is not fit at all (NaN, crash), or None.
        synthetic: Whether the samples were generated: such numbers are indications, not evidence.
        base: Value of the original in the quality `criterion`, which `loss` is relative to.
        scores: All qualities measured, per output, the deciding one first.
        notes: What the user should know about this measurement.
    """

    kind: Kind
    name: str
    reference: float
    value: float
    criterion: str
    loss: float
    bound: float | None
    n: int
    trials: int | None
    half: Half
    rejected: str | None = None
    synthetic: bool = False
    base: float = 1.0
    scores: tuple[Score, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def drop_points(self) -> float:
        """The loss as a difference of values, in points (1 pt = 0.01)."""
        return 100.0 * self.loss * abs(self.base)

    @property
    def resolution(self) -> float | None:
        """The smallest relative loss these samples can show: one flipped decision; None if not known."""
        if self.trials is None:
            return None
        return 1.0 / self.trials if self.trials else 0.0

    def can_prove(self, budget: Budget) -> bool:
        """Whether this many samples could prove the budget at all, with a candidate that loses nothing."""
        if budget.max_drop is None:
            return True
        if self.synthetic or self.trials is None or self.n < 2:
            return False
        return self.trials == 0 or self.trials >= self._trials_needed(budget)

    def samples_needed(self, budget: Budget) -> int:
        """How many samples like these could prove the budget if nothing is lost, rounded up to two figures."""
        if not self.trials or budget.max_drop is None:
            return 2
        return max(2, _round_up(math.ceil(self._trials_needed(budget) * self.n / self.trials)))

    def _trials_needed(self, budget: Budget) -> int:
        assert budget.max_drop is not None
        return samples_needed(budget.max_drop / (1.0 if budget.relative else abs(self.base) or 1.0))

    def proves(self, budget: Budget) -> bool:
        """Whether the 95 % bound of the loss is within the budget."""
        if budget.max_drop is None:
            return True
        if self.rejected is not None or self.bound is None or self.synthetic:
            return False
        return budget.measure(self.bound, self.base) <= budget.max_drop

    def lines(self, budget: Budget | None = None) -> list[str]:
        """The assessment in one to a few lines for a person.

        Args:
            budget: Adds what the samples can prove about it.
        """
        if self.rejected is not None:
            return [f"rejected: {self.rejected}", *self.notes]
        lines = []
        for score in self.scores[:1] if self.criterion == self.name else self.scores:
            lines.append(describe_score(score))
        lines += self.notes
        if budget is not None and budget.max_drop is not None:
            lines += self._proof(budget)
        return lines

    def _proof(self, budget: Budget) -> list[str]:
        asked = f"{100 * budget.max_drop:g} {'%' if budget.relative else 'pt'}" if budget.max_drop is not None else ""
        if self.synthetic:
            return ["the samples are generated: they cannot prove that the model is still good on real ones"]
        if self.resolution is None:
            return []
        if not self.can_prove(budget):
            halves = " in each half" if self.half != "all" else ""
            return [
                f"{self.n} samples resolve {_percent(self.resolution)}; "
                f"give at least {self.samples_needed(budget)}{halves} to prove {asked}"
            ]
        if self.proves(budget):
            return [f"with 95 % confidence at most {asked} is lost"]
        return []

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values, with `drop_points` and `resolution`, for `--json` and the manifest."""
        document = dataclasses.asdict(self)
        return {**document, "drop_points": self.drop_points, "resolution": self.resolution}


def relative_loss(reference: float, value: float, *, higher_is_better: bool = True) -> float:
    """How much worse `value` is than `reference`, relative to it; the plain difference where the reference is 0."""
    drop = reference - value if higher_is_better else value - reference
    return drop / abs(reference) if reference else drop


def describe_score(score: Score) -> str:
    """One score in one line."""
    where = f" of {score.output!r}" if score.output else ""
    bound = f", at most {_percent(score.bound)} with 95 % confidence" if score.bound is not None else ""
    remarks = "".join(f"; {remark}" for remark in score.remarks)
    samples = f" on {score.n} sample{'s' if score.n != 1 else ''}" if score.n else ""
    return (
        f"{score.name}{where} {score.reference:.4g} -> {score.value:.4g}{samples}: "
        f"loss {_percent(score.loss)}{bound}{remarks}"
    )


def _percent(fraction: float | None) -> str:
    if fraction is None or not math.isfinite(fraction):
        return "unknown"
    percent = 100 * fraction
    return f"{percent:.2f} %" if abs(percent) < 1 else f"{percent:.1f} %"


def _round_up(count: int) -> int:
    """Two significant figures, upwards: 299 -> 300."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step
