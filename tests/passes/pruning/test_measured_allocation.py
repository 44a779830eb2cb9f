"""Widths by what they cost the model: within the limit, not worse than uniform ones, whatever the budget looks like."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.passes.pruning.allocation import allocation
from irc.passes.pruning.budget import meeting
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.measured_allocation import probed_width, sensitivities, widths_by_sensitivity


def candidate(name: str, worth: Any, *, least: int = 1, step: int = 1) -> Candidate:
    """A family of which only worth and widths count."""
    worth = np.asarray(worth, float)
    family: Any = SimpleNamespace(width=len(worth), cell_count=1)
    return Candidate(name, None, family, np.arange(len(worth))[None], worth, len(worth), least, step)  # type: ignore[arg-type]


def convex(rng: np.random.Generator, name: str, **options: Any) -> Candidate:
    """A family whose atoms are worth less and less."""
    return candidate(name, np.sort(rng.random(int(rng.integers(8, 48))) ** 2)[::-1], **options)


def chained(found: list[Candidate]):
    """Products of neighbouring widths, as of layers that read each other."""
    return lambda widths: float(sum(widths[a] * widths[b] for a, b in itertools.pairwise(found)) + sum(widths.values()))


def distance(sensitivity, widths) -> float:
    return sum(sensitivity[c] * c.loss(width) for c, width in widths.items())


def full(found: list[Candidate]) -> dict[Candidate, int]:
    return {c: c.width for c in found}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 5), st.floats(0.25, 0.95), st.sampled_from([1, 4, 8]))
def test_within_the_limit_and_not_worse_than_uniform(seed, count, share, step):
    rng = np.random.default_rng(seed)
    found = [convex(rng, f"f{i}", step=step) for i in range(count)]
    sensitivity = {c: float(rng.exponential()) for c in found}
    cost = chained(found)
    limit = share * cost(full(found))
    uniform = meeting(allocation(found, "family"), cost, limit)
    widths = widths_by_sensitivity(found, sensitivity, cost, limit)
    if uniform is not None:
        assert widths is not None
    if widths is None:
        return
    assert cost(widths) <= limit and all(1 <= width <= c.width for c, width in widths.items())
    assert all(width == c.width or width % step == 0 for c, width in widths.items())
    if uniform is not None and step == 1:
        # Greedy with products of widths and steps of a sixteenth: about, not to the letter.
        assert distance(sensitivity, widths) <= 1.1 * distance(sensitivity, uniform) + 0.02 * max(sensitivity.values())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.floats(0.2, 0.9), st.floats(0.01, 0.1))
def test_a_looser_limit_loses_no_more(seed, share, more):
    rng = np.random.default_rng(seed)
    found = [convex(rng, f"f{i}") for i in range(4)]
    sensitivity = {c: float(rng.exponential()) for c in found}
    weights = {c: float(rng.random() + 0.1) for c in found}

    def cost(widths):
        return sum(weights[c] * width for c, width in widths.items())

    tight, loose = (
        widths_by_sensitivity(found, sensitivity, cost, s * cost(full(found))) for s in (share, share + more)
    )
    assert tight is not None and loose is not None
    assert distance(sensitivity, loose) <= distance(sensitivity, tight) + 0.02 * max(sensitivity.values())


def test_the_insensitive_family_goes_first():
    found = [candidate("a", np.ones(32)), candidate("b", np.ones(32))]
    widths = widths_by_sensitivity(found, {found[0]: 1.0, found[1]: 1e-3}, lambda w: sum(w.values()), 40)
    assert widths == {found[0]: 32, found[1]: 8}


def test_what_is_left_of_the_budget_is_given_back_in_single_atoms():
    found = [candidate("a", np.ones(64)), candidate("b", np.ones(64))]
    widths = widths_by_sensitivity(found, {found[0]: 1.0, found[1]: 0.5}, lambda w: sum(w.values()), 101)
    assert widths == {found[0]: 64, found[1]: 37}


@pytest.mark.parametrize("stair", [2, 8, 16, 32, 60])
@pytest.mark.parametrize("width", [32, 64, 96])
def test_a_staircase_does_not_stop_it(stair, width):
    """Time of kernels for so many channels at a time: nothing is saved until a stair is reached."""
    found = [candidate(name, np.linspace(2, 0.1, width)) for name in "ab"]

    def cost(widths):
        return float(sum(math.ceil(w / stair) for w in widths.values()))

    limit = 0.6 * cost(full(found))
    if cost(dict.fromkeys(found, 1)) > limit:
        return
    widths = widths_by_sensitivity(found, {found[0]: 1.0, found[1]: 2.0}, cost, limit)
    assert widths is not None and cost(widths) <= limit
    assert all(w == c.width or cost({**widths, c: w + 1}) > limit for c, w in widths.items()), (
        "it stands on the edge of a stair"
    )


def test_a_bump_in_the_error_does_not_stop_it():
    """The first atoms that go cost most: of a removal path, later ones may cost less."""
    worth = np.concatenate([np.full(28, 0.01), [5.0, 5.0, 5.0, 5.0]])
    found = [candidate("bump", worth), candidate("flat", np.ones(32))]
    widths = widths_by_sensitivity(found, dict.fromkeys(found, 1.0), lambda w: sum(w.values()), 8)
    assert widths is not None and sum(widths.values()) <= 8


def test_unreachable():
    found = [candidate("a", np.ones(16), least=8), candidate("b", np.ones(16), step=16)]
    assert widths_by_sensitivity(found, dict.fromkeys(found, 1.0), lambda w: sum(w.values()), 23) is None
    assert widths_by_sensitivity(found, dict.fromkeys(found, 1.0), lambda w: sum(w.values()), 24) == {
        found[0]: 8,
        found[1]: 16,
    }
    assert (
        widths_by_sensitivity([], {}, lambda w: 5.0, 4) is None
        and widths_by_sensitivity([], {}, lambda w: 5.0, 5) == {}
    )


def test_a_budget_that_is_met_cuts_nothing():
    found = [candidate("a", np.ones(16)), candidate("b", np.ones(16))]
    assert widths_by_sensitivity(found, dict.fromkeys(found, 1.0), lambda w: sum(w.values()), 32) == full(found)


def test_families_that_cost_nothing_go_for_nothing():
    found = [candidate("dead", np.ones(20)), candidate("alive", np.ones(20))]
    widths = widths_by_sensitivity(found, {found[0]: 0.0, found[1]: 1.0}, lambda w: sum(w.values()), 25)
    assert widths == {found[0]: 5, found[1]: 20}


@pytest.mark.parametrize("worst", [math.inf, 1e300])
def test_a_family_that_breaks_the_model_goes_last(worst):
    """Half of its atoms are worth nothing: these may go, the others only once there is nothing else."""
    found = [candidate("a", np.concatenate([np.ones(8), np.zeros(8)])), candidate("b", np.ones(16))]
    sensitivity = {found[0]: worst, found[1]: 1.0}
    assert widths_by_sensitivity(found, sensitivity, lambda w: sum(w.values()), 9) == {found[0]: 8, found[1]: 1}
    widths = widths_by_sensitivity(found, sensitivity, lambda w: sum(w.values()), 5)
    assert widths is not None and widths[found[1]] == 1 and sum(widths.values()) <= 5


def test_what_is_worth_nothing_goes_first_however_sensitive_the_model_is():
    """Infinity times nothing is no number, and would leave the order to chance."""
    found = [candidate("b", np.ones(16)), candidate("a", np.concatenate([np.ones(2), np.zeros(14)]))]
    widths = widths_by_sensitivity(found, {found[0]: 1.0, found[1]: math.inf}, lambda w: sum(w.values()), 18)
    assert widths == {found[0]: 16, found[1]: 2}


def test_sensitivities_are_distances_per_loss_of_each_alone():
    found = [candidate("a", [3, 2, 1, 0]), candidate("b", np.ones(9), least=6), candidate("c", np.ones(4), step=4)]
    asked = []

    def probe(widths):
        asked.append({c.id: width for c, width in widths.items()})
        return 0.5 if "a" in asked[-1] else -1e-9

    result = sensitivities(found, probe)
    assert asked == [{"a": 2}, {"b": 6}], "what cannot be cut is not tried"
    assert result == {found[0]: pytest.approx(0.5 / (1 / 6)), found[1]: 0.0, found[2]: 0.0}
    assert [probed_width(c) for c in found] == [2, 6, 4]


def test_atoms_worth_nothing_are_not_tried():
    found = [candidate("a", [1, 1, 0, 0])]
    assert sensitivities(found, lambda widths: pytest.fail("it loses nothing")) == {found[0]: 0.0}


def test_the_result_repeats():
    rng = np.random.default_rng(3)
    found = [convex(rng, f"f{i}") for i in range(6)]
    sensitivity = {c: 1.0 for c in found}
    cost = chained(found)
    first, second = (widths_by_sensitivity(found, sensitivity, cost, 0.5 * cost(full(found))) for _ in range(2))
    assert first == second
