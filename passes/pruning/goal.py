"""What a cut has to come down to: a share of every family, or of the model's MACs, parameters or measured time."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irc.analysis.channels import ChannelGroups
from irc.analysis.channels.costs import ChannelCosts
from irc.errors import UsageError

if TYPE_CHECKING:
    from irc.passes.pruning.merging.merge_channels import MergeChannels
    from irc.passes.pruning.prune_channels import PruneChannels

Array = np.ndarray[Any, Any]
ROUNDING = 1 + 1e-9
"""Shares of sums of times are not exact."""
LEAST_MILLISECONDS = 0.03
"""Of an inference, for parts of it to be told from noise: any run takes some microseconds."""
NOTHING_SAVED = 0.95
"""Of the time; what cuts save beyond it is no more than noise."""


class Goal:
    """A budget, and what survivors cost in its terms.

    Args:
        options: The pass.
        modes: Solved groups, one or two.
        original: What the model was before it was pruned first; see `history`.
        milliseconds: Predicted time of survivors, of the whole model for None; needed where the budget is a latency.
        timed: Whether times can be measured: a loss then buys time, else MACs.
    """

    def __init__(
        self,
        options: PruneChannels | MergeChannels,
        modes: Sequence[ChannelGroups],
        original: Mapping[str, Any],
        milliseconds: Callable[[Array | None], float] | None = None,
        *,
        timed: bool = True,
    ) -> None:
        self._options, self._modes, self._original = options, modes, original
        self._milliseconds = milliseconds
        self._currency = "latency" if timed else "macs"
        self._known: dict[tuple[str, bytes | None], float] = {}
        self.ratio: float | None = options.ratio
        self.loss: float | None = getattr(options, "loss", None)
        given = {name: getattr(options, name, None) for name in ("macs", "parameters", "latency")}
        self.name = next((name for name, share in given.items() if share is not None), "ratio")
        self.share = float(given.get(self.name) or 1.0)

    @functools.cached_property
    def costs(self) -> ChannelCosts:
        """MACs and parameters of survivors."""
        return ChannelCosts(self._modes[0], also=self._modes[1:])

    def at(self, share: float) -> Goal:
        """A share of the measured time, or of the MACs, for a goal that is a loss; of the MACs too where it takes next to no time."""
        found = copy.copy(self)
        found.name, found.share = self._currency, share
        if found.name == "latency" and found.whole < LEAST_MILLISECONDS:
            found.name = "macs"
        return found

    def cost(self, alive: Array | None) -> float:
        """What the budget counts, of survivors: MACs, parameters or milliseconds."""
        key = (self.name, None if alive is None else alive.tobytes())
        if key not in self._known:
            if self.name == "latency":
                assert self._milliseconds is not None
                self._known[key] = self._milliseconds(alive)
            else:
                self._known[key] = self.costs.macs(alive) if self.name == "macs" else self.costs.parameters(alive)
        return self._known[key]

    @property
    def whole(self) -> float:
        """What the budget is a share of: counts of the model before it was pruned first, the time of the model as it is."""
        return float(self._original.get(self.name) or self.cost(None))

    @property
    def limit(self) -> float:
        """Largest cost."""
        return self.share * self.whole * (ROUNDING if self.name == "latency" else 1.0)

    @property
    def text(self) -> str:
        """The budget as it was spelled."""
        given = self.ratio if self.ratio is not None else self.share if self.loss is None else self.loss
        return f"{self.name if self.loss is None else 'loss'}={given:g}"

    @property
    def budgeted(self) -> bool:
        """Whether survivors can miss it: it is neither a ratio nor a loss."""
        return self.name != "ratio" and self.loss is None

    def is_met(self, alive: Array | None) -> bool:
        """Whether survivors are within it."""
        return not self.budgeted or self.cost(alive) <= self.limit

    def unreachable(self, least: float, *, cuttable: bool, statistics: bool = False, nothing: str) -> UsageError:
        """The error where it cannot be met.

        Args:
            least: What can be reached.
            cuttable: Whether there is any family that may be cut.
            statistics: Whether `statistics=true` would allow more.
            nothing: What there is to say where nothing may be cut.
        """
        options = self._options
        if self.name == "latency" and least > NOTHING_SAVED * self.whole:
            return UsageError(
                f"{options.name}: {self.text} cannot be reached: narrower channels save nothing of the {self.whole:.3g} ms that an "
                "inference takes here; give macs instead"
            )
        helping = {
            "statistics=true": statistics,
            "round_to=1": cuttable and options.round_to != 1,
            "a larger largest_cut": cuttable,
        }
        advice = ", ".join(text for text, helps in helping.items() if helps)
        what = f"ask for less, or allow more: {advice}" if advice else nothing
        return UsageError(
            f"{options.name}: {self.text} cannot be reached, only {least / max(1e-9, self.whole):.3g}; {what}"
        )
