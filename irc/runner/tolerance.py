"""How far values may be apart and still count as the same computation, rounded elsewhere."""

from __future__ import annotations

import dataclasses

INTEGER_AGREEMENT = 0.999
"""Share of elements of an integer output computed from floats that must be equal."""
EPSILONS = {"float16": 8.0, "float32": 64.0, "float64": 64.0}
"""Multiples of the unit roundoff for what accumulates over the depth of a network; half precision accumulates in float."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What a comparison allows.

    Attributes:
        multiple: Multiple of the measured noise.
        relative: Least relative error allowed, for models that compute in a coarser type than they return.
        exact_outputs: Integer outputs that no float reaches: always compared exactly.
    """

    multiple: float = 8.0
    relative: float = 0.0
    exact_outputs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The worst output of a comparison.

    Attributes:
        ok: Whether all outputs are within tolerance.
        output: Name of the worst one.
        error: Its largest absolute difference, or share of disagreeing elements for integers.
        tolerance: What was allowed.
        message: In words; "" if ok.
    """

    ok: bool
    output: str = ""
    error: float = 0.0
    tolerance: float = 0.0
    message: str = ""

    @property
    def severity(self) -> tuple[bool, float]:
        """Orders comparisons from harmless to worst."""
        return (not self.ok, self.error / self.tolerance if self.tolerance else self.error)
