"""What the user allows: the largest loss, the smallest speed-up, the largest file."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING

from irc.byte_size import parse_bytes
from irc.errors import UsageError
from irc.report.console import human_bytes

if TYPE_CHECKING:
    from irc.judge.assessment import Assessment
    from irc.latency import LatencyComparison

_DROP = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%|pts?|)\s*\Z")


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a build must stay within; the default is at most 1 % relative loss.

    Attributes:
        max_drop: Largest loss as a fraction, in [0, 1]; None means no accuracy budget.
        relative: Whether `max_drop` is a fraction of the original's value; else it is a difference of the values
            themselves (1 pt = 0.01).
        min_speedup: Smallest original/artifact latency ratio; None means no speed budget.
        target_size: Largest artifact, in bytes; None means no size budget.
    """

    max_drop: float | None = 0.01
    relative: bool = True
    min_speedup: float | None = None
    target_size: int | None = None

    @classmethod
    def parse(
        cls,
        *,
        max_drop: str | float | None = None,
        min_speedup: str | float | None = None,
        target_size: str | int | None = None,
    ) -> Budget:
        """Reads a budget as written on the command line.

        Args:
            max_drop: "0.5%" (relative), "0.5pt" (absolute), or a relative fraction as a number; None for none.
            min_speedup: "1.3" or "1.3x"; None for none.
            target_size: "5MB" (10^6 bytes), "5MiB" (2^20 bytes), or a number of bytes; None for none.

        Raises:
            UsageError: If a text has another form or is out of range.
        """
        drop, relative = parse_drop(max_drop) if max_drop is not None else (None, True)
        return cls(
            drop,
            relative,
            parse_speedup(min_speedup) if min_speedup is not None else None,
            parse_size(target_size) if target_size is not None else None,
        )

    def allows(self, assessment: Assessment) -> bool:
        """Whether the loss of an assessment is within `max_drop`; a rejected candidate never is."""
        if assessment.rejected is not None:
            return False
        return self.max_drop is None or self.measure(assessment.loss, assessment.base) <= self.max_drop

    def measure(self, loss: float, reference: float) -> float:
        """A relative loss in the unit of `max_drop`: itself, or times the original's value for points."""
        return loss if self.relative or loss == 0 else loss * abs(reference)

    def missed(self, assessment: Assessment | None, latency: LatencyComparison | None, size: int | None) -> list[str]:
        """The clauses that do not hold, in words with the figures; what was not measured is not missed.

        Args:
            assessment: The judge's word on the artifact.
            latency: Original against artifact.
            size: Size of the artifact in bytes.
        """
        clauses = []
        if assessment is not None and not self.allows(assessment):
            found = assessment.rejected or f"{assessment.criterion} loses {self.format_loss(assessment)}"
            clauses.append(f"{found}; the budget is {self.describe_drop()}")
        if latency is not None and self.min_speedup is not None and latency.slower_than(self.min_speedup):
            clauses.append(f"{latency.describe()}; the budget is at least {self.min_speedup:g}x")
        if size is not None and self.target_size is not None and size > self.target_size:
            clauses.append(f"the artifact has {human_bytes(size)}; the budget is {human_bytes(self.target_size)}")
        return clauses

    def format_loss(self, assessment: Assessment) -> str:
        """The loss of an assessment in the unit of the budget: "0.42 %" or "0.36 pt"."""
        return f"{100 * self.measure(assessment.loss, assessment.base):.2f} {'%' if self.relative else 'pt'}"

    def describe_drop(self) -> str:
        """The accuracy clause in words."""
        if self.max_drop is None:
            return "no accuracy budget"
        return f"at most {100 * self.max_drop:g} {'% relative loss' if self.relative else 'pt loss'}"

    def describe(self) -> str:
        """All clauses in words; "" for none."""
        clauses = [self.describe_drop()] if self.max_drop is not None else []
        if self.min_speedup is not None:
            clauses.append(f"at least {self.min_speedup:g}x the original's speed")
        if self.target_size is not None:
            clauses.append(f"at most {human_bytes(self.target_size)}")
        return ", ".join(clauses)


def parse_drop(text: str | float) -> tuple[float, bool]:
    """`--max-drop` as (fraction, relative): "0.5%" -> (0.005, True), "0.5pt" -> (0.005, False).

    Raises:
        UsageError: If the text has another form, is above 100, or is a bare number above 1.
    """
    match = _DROP.match(str(text))
    advice = "write a relative loss such as 0.5%, or points such as 0.5pt"
    if match is None:
        raise UsageError(f"--max-drop is {text!r}; {advice}")
    number, unit = float(match[1]), match[2]
    # A bare "1" could mean 1 % or everything; a fraction below 1 from Python cannot be misread.
    if not unit and (isinstance(text, str) or number >= 1) and number != 0:
        raise UsageError(f"--max-drop is {text!r}, without a unit; {advice}")
    fraction = number / 100 if unit else number
    if fraction > 1:
        raise UsageError(f"--max-drop is {text!r}; it must be at most 100%")
    return fraction, not unit.startswith("pt")


def parse_speedup(text: str | float) -> float:
    """`--min-speedup`: "1.3" or "1.3x".

    Raises:
        UsageError: If it is not a positive number.
    """
    try:
        value = float(str(text).strip().removesuffix("x"))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"--min-speedup is {text!r}; it must be a positive number such as 1.3")
    return value


def parse_size(text: str | int) -> int:
    """`--target-size` in bytes: "5MB" = 5 000 000, "5MiB" = 5 242 880, "5000".

    Raises:
        UsageError: If the text has another form or is zero.
    """
    return parse_bytes(text, "--target-size")
