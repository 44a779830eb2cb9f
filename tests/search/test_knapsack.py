"""The search against every selection there is, and the laws of an optimum."""

import itertools
import math
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from search.search_instances import brute_force, chain, measured, sites, tree

from irc.errors import IrcError
from irc.search import Coupling, Infeasible, Variant, frontier, select, stored_bytes
from irc.search import partial_selections as engine


def budgets(rng, offered):
    return rng.random() * sum(max(v.error for v in of_site) for of_site in offered.values())


def byte_limit(rng, offered):
    least, most = (sum(pick(v.bytes for v in of_site) for of_site in offered.values()) for pick in (min, max))
    return least + rng.random() ** 2 * (most - least)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("whole", [False, True])
def test_no_selection_is_better(seed, whole):
    rng = random.Random(seed)
    offered = sites(rng, rng.randint(1, 6), whole=whole)
    budget = budgets(rng, offered)
    objective = rng.choice([lambda v: v.microseconds, stored_bytes])
    found = select(offered, budget=budget, objective=objective)
    assert found.choices == brute_force(offered, budget, objective=objective)
    assert found.gap == 0 and found.error <= budget


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("whole", [False, True])
def test_no_selection_within_both_budgets_is_better(seed, whole):
    rng = random.Random(1000 + seed)
    offered = sites(rng, rng.randint(1, 6), whole=whole)
    budget, stored = budgets(rng, offered), byte_limit(rng, offered)
    expected = brute_force(offered, budget, stored)
    if expected is None:
        with pytest.raises(Infeasible):
            select(offered, budget=budget, byte_budget=stored)
    else:
        found = select(offered, budget=budget, byte_budget=stored)
        assert found.choices == expected and found.gap == 0 and found.bytes <= stored


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("bytes_matter", [False, True])
def test_better_bounds_lose_nothing(seed, bytes_matter, monkeypatch):
    monkeypatch.setattr(engine, "EASY", 0)
    rng = random.Random(2000 + seed)
    offered = sites(rng, rng.randint(3, 6), whole=seed % 2 == 0)
    budget = budgets(rng, offered) / 2
    stored = byte_limit(rng, offered) if bytes_matter else math.inf
    expected = brute_force(offered, budget, stored)
    if expected is not None:
        assert select(offered, budget=budget, byte_budget=stored).choices == expected


@st.composite
def choices(draw):
    number = st.one_of(st.integers(0, 6), st.floats(0, 1e3))
    variant = st.builds(lambda e, t, b, d: (e, t, b, d), number, number, number, st.sampled_from(["float", "int8"]))
    offered = draw(st.lists(st.lists(variant, min_size=1, max_size=4), min_size=1, max_size=6))
    made = {
        f"s{i}": [Variant(f"v{j}", *figures) for j, figures in enumerate(of_site)] for i, of_site in enumerate(offered)
    }
    return made, draw(st.floats(0, 20))


@settings(max_examples=100, deadline=None)
@given(choices())
def test_the_answer_is_the_optimum_of_any_choice(case):
    offered, budget = case
    expected = brute_force(offered, budget)
    assume(expected is not None)
    found = select(offered, budget=budget)
    assert found.choices == expected
    positions = [of_site.index(found.choices[key]) for key, of_site in offered.items()]
    cost, error, stored = measured(offered, positions)
    assert (found.cost, found.error, found.bytes) == (float(cost), error, stored)
    assert error <= budget


def cost_or_infinite(offered, **options):
    try:
        return select(offered, **options).cost
    except Infeasible:
        return math.inf


@settings(max_examples=50, deadline=None)
@given(choices(), st.floats(0, 20), st.data())
def test_more_budget_never_costs_more_and_fewer_options_never_less(case, more, data):
    offered, budget = case
    cost = cost_or_infinite(offered, budget=budget)
    assert cost_or_infinite(offered, budget=budget + more) <= cost
    removable = [(key, i) for key, of_site in offered.items() if len(of_site) > 1 for i in range(len(of_site))]
    assume(removable)
    key, i = data.draw(st.sampled_from(removable))
    fewer = offered | {key: offered[key][:i] + offered[key][i + 1 :]}
    assert cost_or_infinite(fewer, budget=budget) >= cost


@settings(max_examples=50, deadline=None)
@given(choices(), st.randoms(use_true_random=False))
def test_the_order_of_the_sites_changes_no_figure(case, rng):
    offered, budget = case
    assume(cost_or_infinite(offered, budget=budget) < math.inf)
    keys = list(offered)
    rng.shuffle(keys)
    found, other = select(offered, budget=budget), select({key: offered[key] for key in keys}, budget=budget)
    assert (found.cost, found.error, found.gap) == (other.cost, other.error, other.gap)


def test_ties_go_to_less_error_and_then_to_the_variant_named_first():
    a, b, c = Variant("a", 1, 5, 3), Variant("b", 0, 5, 9), Variant("c", 0, 5, 1)
    assert select({"s": [a, b, c]}, budget=9).choices == {"s": b}
    two = [Variant("float", 0, 5), Variant("int8", 1, 3)]
    assert [v.name for v in select({"s": two, "t": two}, budget=1).choices.values()] == ["float", "int8"]


def test_a_sum_is_compared_with_the_budget_as_fsum_rounds_it():
    third = [Variant("float", 0, 1), Variant("int8", 0.1, 0)]
    offered = {i: third for i in range(3)}
    total = math.fsum([0.1] * 3)
    assert select(offered, budget=total).cost == 0
    assert select(offered, budget=math.nextafter(total, 0)).cost == 1


def test_figures_of_very_different_size_are_not_lost():
    offered = {
        0: [Variant("a", 0, 1e18), Variant("b", 1, 1e18 - 128)],
        1: [Variant("a", 0, 1e-9), Variant("b", 1e-300, 0)],
    }
    assert [v.name for v in select(offered, budget=1e-300).choices.values()] == ["a", "b"]
    assert [v.name for v in select(offered, budget=1).choices.values()] == ["b", "b"]  # 1 + 1e-300 is 1
    assert [v.name for v in select(offered, budget=0).choices.values()] == ["a", "a"]


def large(count, variants, seed):
    rng = random.Random(seed)
    made = {}
    for i in range(count):
        time, sensitivity = rng.lognormvariate(3, 1), rng.lognormvariate(-8, 2)
        made[i] = [Variant("float", 0.0, time, 4 * time)]
        for j in range(1, variants):
            factor = rng.uniform(0.2, 1.1)
            error = sensitivity * rng.lognormvariate(0, 1) / factor**2
            made[i].append(
                Variant(f"v{j}", error, time * factor, rng.choice([0.5, 1, 2]) * time, rng.choice(["float", "int8"]))
            )
    return made


@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_sites_are_solved_within_the_limit(seed):
    offered = large(200, 6, seed)
    found = select(offered, budget=0.01 * sum(max(v.error for v in of_site) for of_site in offered.values()))
    assert found.gap == 0 and len(found.choices) == 200


@pytest.mark.parametrize("seed", range(6))
def test_a_table_over_all_sums_of_errors_agrees(seed):
    rng = random.Random(seed)
    offered = {
        i: [Variant(f"v{j}", rng.randint(0, 20) * bool(j), rng.randint(1, 10**6)) for j in range(6)] for i in range(60)
    }
    budget = rng.randint(50, 400)
    cheapest = [0] * (budget + 1)  # for every budget up to this one
    for of_site in offered.values():
        cheapest = [
            min(cheapest[left - v.error] + v.microseconds for v in of_site if v.error <= left)
            for left in range(budget + 1)
        ]
    found = select(offered, budget=budget)
    assert found.cost == cheapest[budget] and found.gap == 0


@pytest.mark.parametrize("seed", range(12))
def test_a_table_over_all_sums_of_errors_and_bytes_agrees(seed, monkeypatch):
    monkeypatch.setattr(engine, "EASY", 0)
    rng = random.Random(seed)
    offered = {
        i: [Variant(f"v{j}", rng.randint(0, 6), rng.randint(1, 10**6), rng.randint(0, 6)) for j in range(4)]
        for i in range(16)
    }
    least = [sum(min(getattr(v, what) for v in of_site) for of_site in offered.values()) for what in ("error", "bytes")]
    budget, stored = least[0] + rng.randint(8, 30), least[1] + rng.randint(8, 30)
    cheapest = {(0, 0): 0}  # by error and bytes
    for of_site in offered.values():
        following = {}
        for (error, used), cost in cheapest.items():
            for v in of_site:
                key, total = (error + v.error, used + v.bytes), cost + v.microseconds
                if key[0] <= budget and key[1] <= stored and total < following.get(key, math.inf):
                    following[key] = total
        cheapest = following
    if not cheapest:
        with pytest.raises(Infeasible):
            select(offered, budget=budget, byte_budget=stored)
        return
    found = select(offered, budget=budget, byte_budget=stored)
    assert found.cost == min(cheapest.values()) and found.gap == 0


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("limit", [0, 1, 20])
def test_the_gap_is_true_when_the_limit_is_tiny(seed, limit, monkeypatch):
    monkeypatch.setattr(engine, "BEAM", 1)
    rng = random.Random(seed)
    offered = sites(rng, 6, 5)
    couplings = chain(rng, 6) if seed % 2 else []
    budget = budgets(rng, offered) / 3
    best = select(offered, budget=budget, couplings=couplings)
    found = select(offered, budget=budget, couplings=couplings, limit=limit)
    assert best.gap == 0 and found.error <= budget
    assert best.cost <= found.cost and found.cost - found.gap <= best.cost


def test_a_tiny_limit_leaves_a_gap_and_says_so(monkeypatch):
    monkeypatch.setattr(engine, "BEAM", 1)
    offered = large(60, 6, 1)
    budget = 0.01 * sum(max(v.error for v in of_site) for of_site in offered.values())
    found, best = select(offered, budget=budget, limit=1), select(offered, budget=budget)
    assert best.gap == 0 and found.gap > 0 and found.cost - found.gap <= best.cost <= found.cost


@pytest.mark.parametrize("seed", range(60))
def test_no_selection_of_a_chain_is_better(seed):
    rng = random.Random(seed)
    count = rng.randint(2, 8)
    offered = sites(rng, count, 3, whole=seed % 2 == 0)
    couplings, budget = chain(rng, count, whole=seed % 2 == 0), budgets(rng, offered)
    found = select(offered, budget=budget, couplings=couplings)
    assert found.choices == brute_force(offered, budget, couplings=couplings) and found.gap == 0
    alone = select(offered, budget=budget)
    positions = [of_site.index(alone.choices[key]) for key, of_site in offered.items()]
    assert found.cost <= float(measured(offered, positions, couplings)[0])


@pytest.mark.parametrize("seed", range(30))
def test_no_selection_of_a_tree_is_better(seed):
    rng = random.Random(seed)
    count = rng.randint(2, 7)
    offered, couplings = sites(rng, count, 3, whole=True), tree(rng, count)
    rng.shuffle(couplings)
    budget, stored = budgets(rng, offered), byte_limit(rng, offered) if seed % 2 else math.inf
    expected = brute_force(offered, budget, stored, couplings)
    if expected is not None:
        assert select(offered, budget=budget, byte_budget=stored, couplings=couplings).choices == expected


@pytest.mark.parametrize("seed", range(12))
def test_a_tangle_is_never_worse_than_without_its_couplings(seed, monkeypatch):
    monkeypatch.setattr("irc.search.stages.WIDEST", 1)
    rng = random.Random(seed)
    offered = sites(rng, 7, 3)
    couplings = [Coupling(f"s{i}", f"s{j}", rng.random()) for i in range(7) for j in range(i)]
    budget = budgets(rng, offered)
    found = select(offered, budget=budget, couplings=couplings)
    alone = select(offered, budget=budget)
    positions = [of_site.index(alone.choices[key]) for key, of_site in offered.items()]
    assert found.error <= budget and found.cost <= float(measured(offered, positions, couplings)[0])
    best = brute_force(offered, budget, couplings=couplings)
    positions = [of_site.index(best[key]) for key, of_site in offered.items()]
    optimum = float(measured(offered, positions, couplings)[0])
    assert optimum <= found.cost and found.cost - found.gap <= optimum


def test_a_region_changes_its_domain_together(monkeypatch):
    monkeypatch.setattr("irc.search.stages.WIDEST", 1)
    monkeypatch.setattr("irc.search.knapsack._begins", lambda whole, limit: [])
    pair = [
        Variant("float", 0, 10),
        Variant("int8", 0.1, 9, domain="int8"),
        Variant("slow int8", 0, 10.5, domain="int8"),
    ]
    offered = {f"s{i}": pair for i in range(5)}
    couplings = [Coupling(f"s{i}", f"s{j}", 4.0) for i in range(5) for j in range(i)]
    found = select(offered, budget=0.35, couplings=couplings)
    assert {v.domain for v in found.choices.values()} == {"int8"} and found.cost == 3 * 9 + 2 * 10.5


@pytest.mark.parametrize("seed", range(20))
def test_the_frontier_falls_and_each_of_its_points_is_the_cheapest_for_its_error(seed):
    rng = random.Random(seed)
    count = rng.randint(1, 6)
    offered = sites(rng, count, 5, whole=seed % 3 == 0)
    couplings = chain(rng, count) if seed % 2 else []
    found = frontier(offered, couplings=couplings, points=6)
    assert 1 <= len(found) <= 6
    for cheap, dear in itertools.pairwise(found):
        assert cheap.cost < dear.cost and cheap.error > dear.error
    for point in found:
        assert select(offered, budget=point.error, couplings=couplings) == point
    assert found[0] == select(offered, budget=math.inf, couplings=couplings)
    assert found[-1].error == math.fsum(min(v.error for v in of_site) for of_site in offered.values())


def test_the_frontier_is_spread_over_the_orders_of_magnitude():
    offered = {i: [Variant("float", 0, 2), Variant("int8", 2.0**i, 1)] for i in range(40)}
    errors = [point.error for point in frontier(offered, points=10)]
    assert len(errors) == 10 and errors[-1] == 0 and errors[-2] == 1
    steps = [math.log2(a / b) for a, b in itertools.pairwise(errors[:-1])]
    assert max(steps) - min(steps) < 2.1


def test_no_sites_are_no_choice():
    assert select({}, budget=0).choices == {} and frontier({})[0].cost == 0


@pytest.mark.parametrize(
    "offered, options, said",
    [
        ({"s": []}, {}, "no variant"),
        ({"s": [Variant("a"), Variant("a")]}, {}, "same name"),
        ({"s": [Variant("a", microseconds=math.inf)]}, {}, "objective of 'a' at site 's' is inf"),
        ({"s": [Variant("a", error=math.nan)]}, {}, "error of 'a' at site 's' is nan"),
        ({"s": [Variant("a", bytes=math.nan)]}, {}, "bytes of 'a'"),
        ({"s": [Variant("a", error=-1)]}, {}, "negative"),
        ({"s": [Variant("a")]}, {"budget": math.nan}, "error budget"),
        ({"s": [Variant("a")]}, {"byte_budget": math.nan}, "byte budget"),
        ({"s": [Variant("a")]}, {"budget": -1}, "budget is -1"),
        ({"s": [Variant("a", 2)]}, {"budget": 1}, "below the least error"),
        ({"s": [Variant("a")]}, {"limit": -1}, "limit"),
        ({"s": [Variant("a")]}, {"couplings": [Coupling("s", "t", 1)]}, "'t'"),
        ({"s": [Variant("a")]}, {"couplings": [Coupling("s", "s", 1)]}, "itself"),
        ({"s": [Variant("a")], "t": [Variant("a")]}, {"couplings": [Coupling("s", "t", math.inf)]}, "inf"),
    ],
)
def test_what_makes_no_sense_is_refused(offered, options, said):
    with pytest.raises(IrcError, match=said):
        select(offered, **{"budget": 1.0} | options)


def test_a_frontier_needs_its_ends():
    with pytest.raises(IrcError, match="1 points"):
        frontier({}, points=1)
