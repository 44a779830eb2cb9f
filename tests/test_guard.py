"""The guard takes back the fewest, worst sites, and its acceptance half has the last word."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from irc.application import SiteKey
from irc.guard import guard


@dataclasses.dataclass
class Loss:
    loss: float


def run(damage, *, budget, acceptance_factor=1.0):
    """A model whose loss is the sum of the damage of its remaining sites; ranking is by damage."""
    keys = [SiteKey(0, f"s{i}") for i in range(len(damage))]
    by_key = dict(zip(keys, damage, strict=True))
    ranked = []

    def build(denied):
        return [by_key[k] for k in keys if k not in denied]

    def ranking(full):
        ranked.append(full)
        return sorted(by_key.items(), key=lambda item: -item[1])

    result = guard(
        keys,
        build=build,
        assess=lambda model, half: Loss(sum(model) * (acceptance_factor if half == "acceptance" else 1.0)),
        within=lambda build, found: found.loss <= budget,
        ranking=ranking,
    )
    return result, ranked


def test_nothing_goes_back_when_the_budget_holds():
    result, ranked = run([0.001] * 5, budget=0.01)
    assert result.reverted == 0 and not result.candidate.denied and not ranked


def test_only_the_worst_sites_go_back():
    result, ranked = run([0.001, 0.5, 0.001, 0.7, 0.002], budget=0.01)
    assert {key.site for key in result.candidate.denied} == {"s1", "s3"}
    assert len(ranked) == 1
    assert "output error 70.00%" in result.candidate.denied[SiteKey(0, "s3")]


def test_acceptance_half_can_demand_more():
    lenient, _ = run([0.001] * 30, budget=0.02)
    strict, _ = run([0.001] * 30, budget=0.02, acceptance_factor=1.2)
    assert strict.reverted > lenient.reverted
    assert strict.candidate.acceptance is not None and strict.candidate.acceptance.loss <= 0.02


def test_everything_goes_back_when_nothing_fits():
    result, _ = run([1.0, 1.0, 1.0], budget=0.01)
    assert result.reverted == result.total == 3


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60), st.floats(0.0, 2.0))
def test_fewest_sites_and_few_assessments(damage, budget):
    result, _ = run(damage, budget=budget)
    ordered = sorted(damage, reverse=True)
    if result.reverted < result.total:
        assert sum(ordered[result.reverted :]) <= budget + 1e-9
    if result.reverted > 0:
        assert sum(ordered[result.reverted - 1 :]) > budget - 1e-9
    assert result.assessments <= 2 * len(damage).bit_length() + 2
