"""What is measured for a latency table, what is not measured again, and the record of it."""

from __future__ import annotations

import json

import pruning_models
import pytest
from latency_table.clocked_tables import Clock, feed_of, measured, narrowed, truth

from irc.analysis.channels import channel_groups
from irc.ir import snapshot
from irc.latency_table import LatencyTable
from irc.latency_table.kernels import Operator
from irc.latency_table.probes import Probes


def test_nothing_is_measured_twice():
    model = pruning_models.cnn(width=48)
    clock = Clock()
    table, groups = measured(model, clock=clock)
    alive = narrowed(groups, [7 * family.width // 8 for family in groups.families])
    table.milliseconds(alive)
    count, known = len(clock.profiled), len(table.probes.times)
    table.milliseconds(alive)
    table.milliseconds(narrowed(groups, [family.width for family in groups.families]))
    assert (len(clock.profiled), len(table.probes.times)) == (count, known)


def test_equal_layers_share_a_measurement_and_one_model_holds_many():
    model = pruning_models.mlp(32, 32, 32, 32, 32)
    clock = Clock()
    table, groups = measured(model, clock=clock)
    probes = [model for model in clock.profiled if model.graph.name == "probes"]
    assert len(probes) == 2  # what holds for all operators, then all of them
    assert sum(name.startswith("MatMul 2x32 *32x32") for name in table.probes.times) == 1
    table.prepare([narrowed(groups, [width] * len(groups.families)) for width in range(1, 32)])
    assert len([model for model in clock.profiled if model.graph.name == "probes"]) == 3


def test_a_search_over_all_widths_measures_a_bounded_number_of_operators():
    model = pruning_models.mlp(16, 2048, 16)
    table, groups = measured(model)
    for width in range(1, 2049, 7):
        table.milliseconds(narrowed(groups, [width]))
    assert len(table.probes.times) <= 2 * (15 + 4 * 8)


def test_when_the_time_for_measuring_is_over_sizes_are_estimated_from_the_nearest():
    model = pruning_models.mlp(16, 2048, 16)
    groups = channel_groups(snapshot(model))
    clock = Clock()
    table = LatencyTable.measured(clock, groups, feed_of(model), probe_seconds=1e-9)
    count = len(clock.profiled)
    assert table.estimated == 0 or "MatMul 2x16 *16x2048" in table.probes.times
    for width in (1900, 700, 100):
        alive = narrowed(groups, [width])
        assert table.milliseconds(alive) == pytest.approx(truth(model, groups, alive, clock), rel=0.1)
    assert table.estimated and len(clock.profiled) == count


def test_probes_beyond_the_size_of_a_model_are_split():
    clock = Clock()
    probes = Probes(clock, opset=17)
    probes.measure([Operator("MatMul", ((1, 8), (8, width)), (False, True)) for width in range(1, 101)])
    assert [len(model.graph.outputs) for model in clock.profiled] == [48 + 1, 48 + 1, 4 + 1]
    assert len(probes.times) == 100


def test_a_filler_is_as_large_as_what_lacks_of_the_working_set():
    clock = Clock()
    probes = Probes(clock, opset=17)
    probes.working_set = 1 << 20
    probes.measure([Operator("MatMul", ((1, 64), (64, 64)), (False, True))])
    (model,) = clock.profiled
    (filler,) = [node for node in model.graph if node.name == "filler"]
    shape = filler.inputs[0].producer().inputs[1].const_value.numpy()
    assert shape.tolist() == [1, 1, (1 << 18) - 64 - 64 * 64]


def test_the_record_says_what_was_measured_and_predicts_the_same():
    model = pruning_models.cnn(width=48)
    table, groups = measured(model)
    half = narrowed(groups, [family.width // 2 for family in groups.families])
    expected = table.milliseconds(half)
    record = json.loads(json.dumps(table.to_dict()))
    again = LatencyTable.from_dict(record, groups, feed_of(model))
    assert again.milliseconds(half) == pytest.approx(expected, rel=1e-3)
    assert again.milliseconds() == table.milliseconds()
    with pytest.raises(LookupError, match=r"Conv .* was not measured"):
        again.milliseconds(narrowed(groups, [family.width - 5 for family in groups.families]))
