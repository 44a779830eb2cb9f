"""Blame finds every culprit, also those that fail only together, within its bound, and ends whatever it is told."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.blame import find_culprits


class Trial:
    """Unsound as soon as one of the groups is complete; counts questions and checks that they are well formed."""

    def __init__(self, count: int, groups: Sequence[frozenset[int]]) -> None:
        self.count, self.groups = count, groups
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, indices: Sequence[int]) -> bool:
        assert 0 < len(indices) < self.count, "asked about all or none"
        assert list(indices) == sorted(set(indices))
        assert tuple(indices) not in self.asked, "asked twice"
        self.asked.append(tuple(indices))
        return any(group <= set(indices) for group in self.groups)


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    count = draw(st.integers(1, 300))
    sizes = draw(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=6))
    order = (
        draw(st.permutations(range(count))) if count <= 40 else draw(st.randoms()).sample(range(count), min(count, 30))
    )
    groups, start = [], 0
    for size in sizes:
        if start + size <= len(order):
            groups.append(frozenset(order[start : start + size]))
            start += size
    return Trial(count, groups or [frozenset([0])])


@settings(max_examples=150, deadline=None)
@given(trials())
def test_disjoint_groups_are_found_exactly(trial: Trial) -> None:
    assert find_culprits(trial.count, trial) == sorted(set().union(*trial.groups))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(
            st.just(n), st.lists(st.frozensets(st.integers(0, n - 1), min_size=1, max_size=4), min_size=1, max_size=6)
        )
    )
)
def test_overlapping_groups_leave_a_sound_rest_and_no_bystander(case: tuple[int, list[frozenset[int]]]) -> None:
    count, groups = case
    culprits = set(find_culprits(count, Trial(count, groups)))
    assert all(group & culprits for group in groups)
    assert culprits <= set().union(*groups)


def test_the_last_question_confirms_the_rest() -> None:
    trial = Trial(50, [frozenset([7]), frozenset([3, 30])])
    culprits = find_culprits(50, trial)
    rest = tuple(i for i in range(50) if i not in culprits)
    assert rest in trial.asked


def test_a_single_and_a_pair_among_200_stay_within_the_bound() -> None:
    bound = 3 * math.log2(200) + 10
    generator = random.Random(0)
    cases = [(0, 1, 2), (199, 198, 197), (0, 198, 199), (199, 0, 1), (100, 0, 199), (198, 0, 199)]
    cases += [tuple(generator.sample(range(200), 3)) for _ in range(600)]
    worst = 0
    for single, *pair in cases:
        trial = Trial(200, [frozenset([single]), frozenset(pair)])
        assert find_culprits(200, trial) == sorted([single, *pair])
        worst = max(worst, len(trial.asked) + 1)  # and the check that started the search
    assert worst <= bound


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 80), st.integers(0, 2**32), st.integers(1, 60), st.floats(0, 1))
def test_answers_without_reason_end_within_the_limit(count: int, seed: int, limit: int, share: float) -> None:
    answers: dict[tuple[int, ...], bool] = {}

    def fails(indices: Sequence[int]) -> bool:
        key = tuple(indices)
        return answers.setdefault(key, random.Random(f"{seed} {key}").random() < share)

    culprits = find_culprits(count, fails, limit=limit)
    rest = tuple(i for i in range(count) if i not in culprits)
    assert len(answers) <= limit
    assert not rest or answers[rest] is False


def test_a_rewrite_that_repairs_another_is_kept_with_it() -> None:
    # 5 breaks the model, 8 mends it, 20 breaks it for good: prefixes are not monotone.
    def fails(indices: Sequence[int]) -> bool:
        return (5 in indices and 8 not in indices) or 20 in indices

    culprits = find_culprits(30, fails)
    assert 20 in culprits
    assert not fails([i for i in range(30) if i not in culprits])


def test_at_the_limit_the_prefix_known_to_be_sound_is_kept() -> None:
    groups = [frozenset([i]) for i in range(100, 1000, 10)]
    trial = Trial(1000, groups)
    culprits = find_culprits(1000, trial, limit=60)
    assert len(trial.asked) <= 60
    assert not set(range(100)) & set(culprits)
    assert not trial.groups[0] <= set(range(1000)) - set(culprits)
    assert tuple(i for i in range(1000) if i not in culprits) in trial.asked


@pytest.mark.parametrize("count", [1, 2, 3])
def test_everything_wrong(count: int) -> None:
    assert find_culprits(count, lambda indices: True) == list(range(count))
