"""Random models hold what each pass of `-O1` looks for, often enough that a few hundred of them test it."""

from __future__ import annotations

import collections

import pytest

from irc.expansion import as_steps
from irc.pass_base import Context
from irc.pass_manager import PassManager
from irc.recipe import LOSSLESS
from irc.testing.choices import SeededChoices
from irc.testing.graphs import random_model
from irc.testing.random_graph import GraphBuilder, Limits, Value
from irc.testing.random_patterns import MISSES, Pattern, whole

SEEDS = 300
LEAST = 0.005
STEPS = as_steps([LOSSLESS])


@pytest.mark.slow
def test_every_pass_fires_on_some_models() -> None:
    fired: collections.Counter[str] = collections.Counter()
    for seed in range(SEEDS):
        result = PassManager(STEPS, verify=False).run(random_model(seed), Context(target="ort"))
        fired.update({record.name for record in result.ledger if record.changed})
    names = {step.pass_.name for step in STEPS}
    assert {name: fired[name] for name in sorted(names) if fired[name] < LEAST * SEEDS} == {}


def test_near_misses_are_seldom_but_there() -> None:
    graph = GraphBuilder(SeededChoices(0), Limits(), 21, "float32")
    drawn = [Pattern(graph).nearly("right", "wrong", "worse") for _ in range(400)]
    assert drawn.count("right") == pytest.approx(400 * (1 - 1 / MISSES), abs=25)
    assert {"wrong", "worse"} < set(drawn)


def test_what_is_hidden_is_not_used_by_later_steps() -> None:
    hidden = 0
    for seed in range(40):
        graph = GraphBuilder(SeededChoices(seed), Limits(), 21, "float32")
        graph.scope.append(value := Value("x", "float32", (2, 3), True))
        pattern = Pattern(graph)
        inner = pattern.node("Neg", [value])
        last = pattern.joined("Add", inner, value, last=True)
        assert last in graph.scope and last.shape == (2, 3) and not last.exact
        hidden += inner not in graph.scope
    assert 20 <= hidden < 40


def test_sizes_are_whole_if_all_are_known_and_none_is_zero() -> None:
    assert whole((2, 3)) == (2, 3)
    assert whole(()) == ()
    assert whole((2, 0)) is None and whole(("N", 2)) is None
