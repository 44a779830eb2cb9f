"""Reference outputs of a model, kept in files of the runtime process, and the comparison of rewritten models with them.

The tolerance of a rounding pass is the model's own rounding noise: how far its outputs move between two optimization
levels of the runtime. For each float output,

    |candidate - reference| <= MULTIPLE * max|optimized - unoptimized| + relative * max|reference|

with NaN and infinities in the same places; integer outputs by agreement. Being in files, the reference survives a
candidate that brings the process down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from irc.runner import difference
from irc.runner.protocol import mapped, store
from irc.runner.session import Feed, OpenSession
from irc.runner.tolerance import EPSILONS, INTEGER_AGREEMENT, Comparison, Rules


@dataclasses.dataclass
class Facts:
    """What is known of the outputs by label.

    Attributes:
        noise: Largest difference between optimized and unoptimized runs (share of elements for integers).
        wobble: Largest difference between two unoptimized runs, where it is of the size of rounding.
        unstable: Outputs that cannot be compared, with the reason.
    """

    noise: dict[str, float] = dataclasses.field(default_factory=dict)
    wobble: dict[str, float] = dataclasses.field(default_factory=dict)
    unstable: dict[str, str] = dataclasses.field(default_factory=dict)


class Reference:
    """Feeds, outputs and facts of one model, in a folder.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.feeds: list[Feed]
        self.rules: Rules
        self.feeds, self.rules = mapped(folder / "feeds.bin")
        self.facts: Facts = mapped(folder / "facts.bin")

    @classmethod
    def compute(cls, folder: Path, session: OpenSession, feeds: list[Feed], rules: Rules) -> Reference:
        """Runs a model unoptimized on every feed, twice to see what is reproducible."""
        folder.mkdir()
        store(folder / "feeds.bin", (feeds, rules))
        for index, feed in enumerate(feeds):
            store(folder / f"outputs-{index}.bin", session.run(feed))
        store(folder / "facts.bin", Facts())
        reference = cls(folder)
        # The same session: random generators go on where they were. A new one would repeat its numbers for the same
        # graph, and draw others for a rewritten graph, as its seeds depend on the positions of nodes.
        reference._compare_with_itself(session)
        return reference

    def _compare_with_itself(self, session: OpenSession) -> None:
        for index, feed, expected in self._each():
            again = _arrays(session.run(feed, list(expected)))
            for label, value in _arrays(expected).items():
                other = again.get(label)
                if other is not None and difference.identical(value, other):
                    continue
                if other is not None and self._is_rounding(value, other):
                    wobble = difference.largest_difference(value, other)
                    self.facts.wobble[label] = max(wobble, self.facts.wobble.get(label, 0.0))
                else:
                    self.facts.unstable.setdefault(label, f"differs between two runs of the original on sample {index}")
        store(self._folder / "facts.bin", self.facts)

    def measure_noise(self, optimized: OpenSession) -> None:
        """Runs the model optimized on every feed and notes how far the outputs move."""
        for index, feed, expected in self._each():
            arrays = _arrays(optimized.run(feed, list(expected)))
            for label, value in _arrays(expected).items():
                other = arrays.get(label)
                if other is None or not difference.same_form(value, other):
                    reason = f"changes shape with the runtime's optimization level on sample {index}"
                    self.facts.unstable.setdefault(label, reason)
                    continue
                if difference.is_float(value):
                    moved = difference.largest_difference(value, other)
                else:
                    moved = difference.disagreement(value, other)
                self.facts.noise[label] = max(moved, self.facts.noise.get(label, 0.0))
        store(self._folder / "facts.bin", self.facts)

    def compare(self, session: OpenSession, *, exact: bool) -> Comparison:
        """Compares a model with the reference; returns the worst output of the first sample that fails, or of all."""
        worst = Comparison(True)
        for index, feed, expected in self._each():
            actual = _arrays(session.run(feed, list(expected)))
            for label, reference in _arrays(expected).items():
                if label in self.facts.unstable:
                    continue
                where = f"output {label!r} of sample {index}"
                if label not in actual:
                    found = Comparison(False, label, np.inf, 0.0, f"{where} is missing")
                else:
                    found = self._compare(label, where, actual[label], reference, exact)
                if found.severity > worst.severity or not worst.output:
                    worst = found
            if not worst.ok:
                break
        return worst

    def _compare(
        self, label: str, where: str, actual: difference.Array, reference: difference.Array, exact: bool
    ) -> Comparison:
        if not difference.same_form(actual, reference):
            before, after = (f"{a.dtype} {list(a.shape)}" for a in (reference, actual))
            return Comparison(False, label, np.inf, 0.0, f"{where} was {before} and is {after}")
        if not difference.is_float(reference):
            numeric = reference.dtype.kind in "iub"
            fixed = exact or not numeric or label.split("[")[0] in self.rules.exact_outputs
            tolerance = 0.0 if fixed else max(1 - INTEGER_AGREEMENT, 2 * self.facts.noise.get(label, 0.0))
            share = difference.disagreement(actual, reference)
            message = f"{where}: {share:.2%} of the elements differ; allowed {tolerance:.2%}"
            return Comparison(share <= tolerance, label, share, tolerance, "" if share <= tolerance else message)
        if not difference.same_exceptions(actual, reference):
            return Comparison(False, label, np.inf, 0.0, f"{where} has NaN or infinity in other places")
        error = difference.largest_difference(actual, reference)
        tolerance = self.rules.multiple * self.facts.wobble.get(label, 0.0)
        if exact:
            message = f"{where} is off by {error:.3g}; the pass promises identical bits"
        else:
            noise = max(self.facts.noise.get(label, 0.0), self.facts.wobble.get(label, 0.0))
            tolerance = self.rules.multiple * noise + self._relative(reference) * difference.scale(reference)
            message = f"{where} is off by {error:.3g}; rounding allows {tolerance:.3g}"
        return Comparison(error <= tolerance, label, error, tolerance, "" if error <= tolerance else message)

    def _relative(self, array: difference.Array) -> float:
        own = EPSILONS.get(array.dtype.name, 64.0) * float(np.finfo(array.dtype).eps)
        return max(own, self.rules.relative)

    def _is_rounding(self, a: difference.Array, b: difference.Array) -> bool:
        return (
            difference.same_form(a, b)
            and difference.is_float(a)
            and difference.same_exceptions(a, b)
            and difference.largest_difference(a, b) <= self._relative(a) * difference.scale(a)
        )

    def _each(self) -> Iterator[tuple[int, Feed, dict[str, Any]]]:
        for index, feed in enumerate(self.feeds):
            yield index, feed, mapped(self._folder / f"outputs-{index}.bin")


def _arrays(outputs: dict[str, Any]) -> dict[str, difference.Array]:
    return {label: array for name, value in outputs.items() for label, array in difference.leaves(name, value)}
