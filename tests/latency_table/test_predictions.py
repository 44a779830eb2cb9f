"""Latency tables by a clock of their own: what the whole model and its cuts are said to take."""

from __future__ import annotations

import numpy as np
import pruning_models
import pytest
from channel_kit import model_of, random_weight
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_table.clocked_tables import (
    NODE,
    PROFILER,
    RUN,
    Clock,
    attention,
    feed_of,
    grouped,
    lstm,
    measured,
    narrowed,
    truth,
)

MODELS = {
    "cnn": (lambda: pruning_models.cnn(width=48), "rows", {}),
    "mlp": (lambda: pruning_models.mlp(8, 200, 90, 4), "rows", {}),
    "heads": (attention, "rows", {}),
    "dimensions": (attention, "columns", {}),
    "lstm": (lstm, "rows", {}),
    "groups": (grouped, "rows", {}),
    "members": (grouped, "columns", {}),
}


@pytest.fixture(scope="module")
def tables():
    found = {}
    for name, (build, mode, sizes) in MODELS.items():
        model = build()
        clock = Clock()
        found[name] = (model, clock, *measured(model, mode=mode, clock=clock, **sizes))
    return found


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_predictions_are_what_the_cut_model_takes(tables, name, data):
    model, clock, table, groups = tables[name]
    assert groups.families
    widths = [data.draw(st.integers(1, family.width)) for family in groups.families]
    alive = narrowed(groups, widths)
    assert table.milliseconds(alive) == pytest.approx(truth(model, groups, alive, clock), rel=0.03, abs=2e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_model_takes_what_was_measured(tables, name):
    model, clock, table, groups = tables[name]
    everything = np.ones(groups.propagation.constraints.count, dtype=bool)
    expected = clock.microseconds(model, feed_of(model)) / 1e3
    assert table.milliseconds() == pytest.approx(expected)
    assert table.milliseconds(everything) == pytest.approx(expected)


def test_a_machine_that_was_slower_when_the_model_was_timed_changes_no_ratio():
    """Latency and profile are measured one after the other; what lies between them is a factor."""
    model = pruning_models.mlp(64, 512, 64)
    ratios = []
    for slower in (1.0, 1.5):
        table, groups = measured(model, clock=Clock(slower=slower))
        alive = narrowed(groups, [128])
        fixed = table.baseline.fixed / 1e3
        ratios.append((table.milliseconds(alive) - fixed) / (table.milliseconds() - fixed))
    assert ratios[0] == pytest.approx(ratios[1], rel=0.02)
    assert ratios[0] < 0.5


def test_the_profilers_share_is_taken_off():
    table, _groups = measured(pruning_models.mlp(8, 16, 8))
    assert table.baseline.overhead == pytest.approx(PROFILER)
    assert table.baseline.fixed == pytest.approx(RUN)
    assert table.baseline.idle == pytest.approx(NODE, abs=0.1)


def test_times_of_nodes_add_up_to_the_model():
    model = pruning_models.cnn()
    table, groups = measured(model)
    for alive in (None, narrowed(groups, [family.width // 2 for family in groups.families])):
        conversions = 0.0 if alive is None else table.baseline.factor * table._conversion(alive)
        whole = table.milliseconds(alive) - (table.baseline.fixed + conversions) / 1e3
        found = table.node_milliseconds(alive)
        assert sum(found.values()) == pytest.approx(whole)
        assert set(found) <= set(groups.propagation.model.graph)


def test_survivors_may_be_changed_after_they_were_asked_about():
    model = pruning_models.mlp(8, 64, 4)
    table, groups = measured(model)
    alive = narrowed(groups, [32])
    first = table.milliseconds(alive)
    alive[:] = narrowed(groups, [64])
    assert table.milliseconds(alive) > first


def test_products_that_are_not_measured_take_the_share_of_their_macs():
    text = """agraph (float[n, 16] x) => (float[n, 4] y) {
        a = MatMul(x, w0)
        b = Relu(a)
        y = Einsum<equation="ni,io->no">(b, w1)
    }"""
    model = model_of(text, {"w0": random_weight(16, 32), "w1": random_weight(32, 4)})
    table, groups = measured(model)
    node = next(node for node in groups.propagation.model.graph if node.op_type == "Einsum")
    before, after = (table.node_milliseconds(alive)[node] for alive in (None, narrowed(groups, [8])))
    assert after == pytest.approx(before / 4)
