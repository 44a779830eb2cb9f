"""The minimum cut against every division there is."""

import math
import random

import pytest

from irc.precision_cut import Choice, Link, cheapest, total_cost


def instance(seed):
    rng = random.Random(seed)
    count = rng.randint(1, 9)
    choices = [
        Choice(i, rng.randint(0, 9), rng.choice([math.inf, rng.randint(0, 9), rng.randint(0, 9)]), rng.random() < 0.3)
        for i in range(count)
    ]
    links = []
    for maker in range(-1, count - 1):
        readers = rng.sample(range(maker + 1, count), rng.randint(1, min(3, count - maker - 1)))
        links.append(Link(None if maker < 0 else maker, tuple(readers), rng.randint(0, 5), rng.randint(0, 5)))
    return choices, links


@pytest.mark.parametrize("seed", range(120))
def test_no_division_is_cheaper(seed):
    choices, links = instance(seed)
    divisions = ({i for i in range(len(choices)) if mask >> i & 1} for mask in range(1 << len(choices)))
    best = min(total_cost(choices, links, division) for division in divisions)
    chosen, cost = cheapest(choices, links)
    assert cost == pytest.approx(best) and total_cost(choices, links, chosen) == pytest.approx(best)


def chain(*costs, conversion=3.0):
    choices = [Choice(i, *pair) for i, pair in enumerate(costs)]
    links = [Link(None, (0,), conversion, conversion)]
    links += [Link(i, (i + 1,), conversion, conversion) for i in range(len(costs) - 1)]
    return choices, [*links, Link(len(costs) - 1, ("out",), conversion, conversion)]


def test_a_slow_node_between_fast_ones_stays_integer():
    choices, links = chain((10, 4), (4, 5), (10, 4))
    assert cheapest([*choices, Choice("out", 0.0)], links)[0] == {0, 1, 2}


def test_a_fast_node_alone_does_not_pay_for_its_conversions():
    choices, links = chain((4, 20), (10, 6), (4, 20))
    assert cheapest([*choices, Choice("out", 0.0)], links)[0] == set()


def test_a_value_is_converted_once_for_all_its_readers():
    choices = [Choice("a", 10, 6), Choice("b", 10, 6)]
    assert cheapest(choices, [Link(None, ("a", "b"), 7.0, 0.0)])[0] == {"a", "b"}
    assert cheapest(choices, [Link(None, ("a",), 7.0, 0.0), Link(None, ("b",), 7.0, 0.0)])[0] == set()


def test_what_joins_needs_all_it_reads_as_integers():
    choices = [Choice("a", 1, 2), Choice("add", 9, 1, joins=True)]
    links = [Link(None, ("a",), 0.0, 0.0), Link("a", ("add",), 0.0, 0.0)]
    assert cheapest(choices, links)[0] == {"a", "add"}
    assert cheapest(choices, [*links, Link(None, ("add",), 0.0, 0.0)])[0] == set()
