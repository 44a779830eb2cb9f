"""The latency table by a clock of its own: what is measured, remembered, interpolated and added up; no real time decides anything."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx_ir as ir
import pruning_models
import pytest
from channel_kit import model_of, random_weight
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.analysis.assumed_sizes import Sizes
from irc.analysis.channels import ChannelGroups, channel_groups
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.calibration.memory_packing import sizes_of
from irc.channel_surgery import cut
from irc.errors import UsageError
from irc.ir import snapshot
from irc.latency_table import LatencyTable
from irc.latency_table.interpolation import crossed, linear, odd, stairs
from irc.latency_table.kernels import Convolution, Operator, kernel_of
from irc.latency_table.layouts import Layouts
from irc.latency_table.probes import Probes, probe_model
from irc.latency_table.runtime_parts import runtime_parts
from irc.latency_table.surviving_shapes import SurvivingShapes
from irc.runner import NodeTime, Runner

RUN, NODE, PROFILER = 5.0, 0.5, 1.5
BLOCK = 16


class Clock:
    """Stands for the runner, on a machine where a node takes what `cost` says; the profiler adds its share."""

    def __init__(self, block=BLOCK, slower=1.0):
        self.block, self.slower = block, slower
        self.profiled: list[ir.Model] = []

    def open(self, model):
        return Opened(model)

    def latency(self, models, feeds, *, seconds):
        return [[self.microseconds(opened.model, feeds[0]) / 1e3] * 8 for opened in models]

    def microseconds(self, model, feed):
        return RUN + self.slower * sum(cost for _node, cost in self.costs(model, feed))

    def profile(self, model, feeds, *, seconds):
        self.profiled.append(model)
        found = []
        for node, cost in self.costs(model, feeds[0]):
            if model.graph.name == "probes" and node.op_type == "Conv" and self.block > 1:
                channels = node.inputs[0].producer().inputs[1].const_value.numpy()[1]
                elements = 64 * -(-int(channels) // self.block) * self.block
                found.append(NodeTime("r", "ReorderInput", (), (f"{node.name}_token_0",), elements, PROFILER))
            names = [tuple(v.name for v in values if v is not None) for values in (node.inputs, node.outputs)]
            found.append(NodeTime(node.name, node.op_type, *names, 1, cost + PROFILER))
        return found

    def costs(self, model, feed):
        shapes = ConcreteShapes(model, sizes_of(model, feed) if feed else Sizes({}, {}))
        return [(node, NODE + self.work(node, shapes)) for node in model.graph]

    def work(self, node, shapes):
        made = shapes.static(node.outputs[0])
        if node.op_type == "Conv":
            groups = node.attributes.get_int("group", 1)
            outputs, inputs, *kernel = shapes.static(node.inputs[1])
            if groups == 1 and self.block > 1:
                if inputs >= self.block and inputs % 4:
                    return 1e-3 * 1.5 * math.prod(made) * inputs * math.prod(kernel)
                inputs = inputs if inputs < self.block else -(-inputs // self.block) * self.block
                outputs = -(-outputs // self.block) * self.block
            elif inputs == 1 and groups > 1 and groups % 4 == 0 and self.block > 1:
                outputs = -(-outputs // self.block) * self.block
            return 1e-3 * made[0] * outputs * math.prod(made[2:]) * inputs * math.prod(kernel)
        if node.op_type in ("MatMul", "Gemm"):
            left = shapes.static(node.inputs[0])
            return 1e-3 * math.prod(made) * left[-1]
        if node.op_type in ("LSTM", "GRU"):
            return (
                1e-3
                * math.prod(shapes.static(node.inputs[0])[:2])
                * sum(math.prod(shapes.static(node.inputs[i])) for i in (1, 2))
            )
        touched = [value for value in (*node.inputs, *node.outputs) if value is not None and not value.is_initializer()]
        return 1e-3 * sum(shapes.elements(value) or 0 for value in dict.fromkeys(touched))


class Opened:
    def __init__(self, model):
        self.model = model

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass


def feed_of(model, **sizes):
    dims = [(v.name, [d if isinstance(d, int) else sizes.get(d.value, 2) for d in v.shape]) for v in model.graph.inputs]
    return {name: np.zeros(shape, np.float32) for name, shape in dims}


def measured(model, *, mode="rows", clock=None, **sizes):
    groups = channel_groups(snapshot(model), mode=mode)
    return LatencyTable.measured(clock or Clock(), groups, feed_of(model, **sizes)), groups


def narrowed(groups: ChannelGroups, widths):
    """Survivors when of each family the first atoms of every cell stay."""
    return groups.survivors(
        {
            family: np.concatenate([family.members(cell)[:width] for cell in range(family.cell_count)])
            for family, width in zip(groups.families, widths, strict=True)
        }
    )


def truth(model, groups, alive, clock, **sizes):
    small = snapshot(model)
    cut(small, groups.propagation, alive)
    return clock.microseconds(small, feed_of(model, **sizes)) / 1e3


ATTENTION = """agraph (float[n, 8, 64] x) => (float[n, 8, 64] y) {
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    v = MatMul(x, wv)
    q4 = Reshape(q, split)
    k4 = Reshape(k, split)
    v4 = Reshape(v, split)
    qt = Transpose<perm=[0,2,1,3]>(q4)
    kt = Transpose<perm=[0,2,3,1]>(k4)
    vt = Transpose<perm=[0,2,1,3]>(v4)
    s = MatMul(qt, kt)
    p = Softmax<axis=-1>(s)
    o = MatMul(p, vt)
    ot = Transpose<perm=[0,2,1,3]>(o)
    m = Reshape(ot, joined)
    y = MatMul(m, wo)
}"""
LSTM = """agraph (float[6, n, 8] x) => (float[6, n, 5] y) {
    a = MatMul(x, w0)
    h, last, cell = LSTM<hidden_size=40>(a, w, r, b)
    s = Squeeze(h, axes)
    y = MatMul(s, w1)
}"""
GROUPED = """agraph (float[n, 3, 8, 8] x) => (float[n, 4] y) {
    a = Conv(x, w0)
    b = Conv<group=4, pads=[1,1,1,1]>(a, w1)
    c = Relu(b)
    d = Conv<group=64, pads=[1,1,1,1]>(c, w2)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    y = Gemm<transB=1>(f, w3, b3)
}"""


def attention():
    weights = {name: random_weight(64, 64, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    return model_of(ATTENTION, {**weights, "split": np.array([0, 8, 4, 16]), "joined": np.array([0, 8, -1])})


def lstm():
    shapes = {"w0": (8, 24), "w": (1, 160, 24), "r": (1, 160, 40), "b": (1, 320), "w1": (40, 5)}
    return model_of(LSTM, {**{n: random_weight(*s) for n, s in shapes.items()}, "axes": np.array([1])})


def grouped():
    shapes = {"w0": (64, 3, 1, 1), "w1": (64, 16, 3, 3), "w2": (64, 1, 3, 3), "w3": (4, 64), "b3": (4,)}
    return model_of(GROUPED, {name: random_weight(*shape) for name, shape in shapes.items()})


MODELS = {
    "cnn": (lambda: pruning_models.cnn(width=48), "rows", {}),
    "mlp": (lambda: pruning_models.mlp(8, 200, 90, 4), "rows", {}),
    "heads": (attention, "rows", {}),
    "dimensions": (attention, "columns", {}),
    "lstm": (lstm, "rows", {}),
    "groups": (grouped, "rows", {}),
    "members": (grouped, "columns", {}),
}


# -- predictions ------------------------------------------------------------------------------------------------------


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


# -- what is measured -------------------------------------------------------------------------------------------------


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


# -- steps ------------------------------------------------------------------------------------------------------------


def test_levels_are_the_right_edges_of_steps():
    table, groups = measured(pruning_models.cnn(width=48))
    levels = {family.width: table.levels(family) for family in groups.families}
    assert levels == {48: (48, 32, 16), 32: (32, 16)}


def test_without_blocks_or_convolutions_every_width_is_a_level():
    table, groups = measured(pruning_models.cnn(width=48), clock=Clock(block=1))
    assert table.baseline.block == 1
    assert all(table.levels(family) == tuple(range(family.width, 0, -1)) for family in groups.families)
    table, groups = measured(pruning_models.mlp(8, 20, 4))
    assert table.levels(groups.families[0]) == tuple(range(20, 0, -1))


def test_levels_of_blocks_of_eight():
    table, groups = measured(pruning_models.cnn(width=20), clock=Clock(block=8))
    assert {family.width: table.levels(family) for family in groups.families} == {20: (20, 16, 8), 32: (32, 24, 16, 8)}


def test_levels_of_groups_count_their_channels():
    """16 channels per group and 4 groups: a block is one member of 16 of 64 or four of each group."""
    table, groups = measured(grouped(), mode="columns")
    for family in groups.families:
        per_width = {64: 1, 16: 4, 4: 16}[family.width]
        assert all(per_width * width % 16 == 0 for width in table.levels(family))


def test_a_family_of_another_analysis_has_no_levels():
    table, _groups = measured(pruning_models.mlp(8, 16, 4))
    other = channel_groups(pruning_models.mlp(8, 16, 4)).families[0]
    with pytest.raises(UsageError, match="another analysis"):
        table.levels(other)


def test_modes_of_one_propagation_are_known_together():
    model = attention()
    rows = channel_groups(snapshot(model))
    columns = ChannelGroups(rows.propagation, "columns")
    table = LatencyTable.measured(Clock(), rows, feed_of(model), also=[columns])
    assert table.levels(columns.families[0])[0] == columns.families[0].width
    assert table.milliseconds(narrowed(columns, [4] * len(columns.families))) < table.milliseconds()


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_linear_grid_gives_back_what_is_linear(size, more):
    full = size + more
    points = linear(size, full)
    assert sum(share for _point, share in points) == pytest.approx(1)
    assert sum(point * share for point, share in points) == pytest.approx(size)
    assert all(0 < point <= full for point, _share in points)


@given(st.integers(1, 5000))
def test_points_between_blocks_are_odd(size):
    points = odd(size)
    assert sum(point * share for point, share in points) == pytest.approx(size)
    assert size <= 17 or all(point % 2 and point >= 17 for point, _share in points)


@given(st.integers(1, 5000), st.sampled_from([8, 16]))
def test_steps_are_rounded_up_and_then_interpolated(size, block):
    points = stairs(size, block)
    assert all(point % block == 0 for point, _share in points)
    assert sum(point * share for point, share in points) == pytest.approx(-(-size // block) * block)
    assert size > 8 * block or len(points) == 1


def test_few_points_per_octave():
    assert len({point for size in range(1, 4097) for point, _share in linear(size, 4096)}) < 60
    assert len({point for size in range(1, 4097) for point, _share in stairs(size, 16)}) < 35


def test_corners_of_a_cell():
    found = dict(crossed([[(1, 0.25), (2, 0.75)], [(5, 1.0)], [(7, 0.5), (9, 0.5)]]))
    assert found == {(1, 5, 7): 0.125, (1, 5, 9): 0.125, (2, 5, 7): 0.375, (2, 5, 9): 0.375}


# -- kernels ----------------------------------------------------------------------------------------------------------


def kernels(model, mode="rows"):
    groups = channel_groups(model, mode=mode)
    shapes = SurvivingShapes(groups.propagation, ConcreteShapes(model, sizes_of(model, feed_of(model))))
    found = {node.outputs[0].name: kernel_of(node, shapes) for node in groups.propagation.products}
    return groups, found


def test_operators_of_grouped_and_depthwise_convolutions():
    groups, found = kernels(grouped(), "columns")
    alive = narrowed(groups, [family.width // 2 for family in groups.families])
    b, d = found["b"], found["d"]
    assert b.at(b.whole).describe() == "Conv 2x64x8x8 *64x16x3x3 group=4 pads=(1, 1, 1, 1)"
    assert b.at(b.sizes(alive)).describe() == "Conv 2x32x8x8 *32x8x3x3 group=4 pads=(1, 1, 1, 1)"
    assert d.at(d.sizes(alive)).describe() == "Conv 2x32x8x8 *32x1x3x3 group=32 pads=(1, 1, 1, 1)"
    assert found["y"].at(found["y"].sizes(alive)).describe() == "Gemm 2x32 *4x32 *4 transB=1"


def test_operators_of_attention_are_products_of_two_activations():
    groups, found = kernels(attention())
    (family,) = [family for family in groups.families if family.width == 4]
    alive = groups.survivors({family: family.atoms[:3]})
    s, o = found["s"], found["o"]
    assert s.at(s.sizes(alive)).describe() == "MatMul 2x3x8x16 2x3x16x8"
    assert o.at(o.sizes(alive)).describe() == "MatMul 2x3x8x8 2x3x8x16"
    assert found["y"].at(found["y"].sizes(alive)).describe() == "MatMul 2x8x48 *48x64"


def test_operators_of_recurrent_layers():
    groups, found = kernels(lstm())
    h = found["h"]
    alive = narrowed(groups, [family.width // 2 for family in groups.families])
    assert h.at(h.whole).describe() == "LSTM 6x2x24 *1x160x24 *1x160x40 *1x320 hidden_size=40"
    assert h.at(h.sizes(alive)).describe() == "LSTM 6x2x12 *1x80x12 *1x80x20 *1x160 hidden_size=20"


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


def test_a_dynamic_axis_has_the_size_of_the_feed():
    _groups, found = kernels(pruning_models.mlp(8, 16, 4))
    assert [kernel.whole for kernel in found.values()] == [(2, 8, 16), (2, 16, 4)]


# -- parts and layouts ------------------------------------------------------------------------------------------------

CHAIN = """agraph (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y) {
    a = Conv(x, w0)
    b = Relu(a)
    c = Conv(b, w1)
    d = Add(c, b)
    e = Relu(d)
    f = Erf(e)
    y = Conv(f, w2)
}"""


def chain(inner=32):
    shapes = {"w0": (inner, 16, 1, 1), "w1": (inner, inner, 1, 1), "w2": (16, inner, 1, 1)}
    return model_of(CHAIN, {name: random_weight(*shape) for name, shape in shapes.items()})


def test_fused_and_renamed_nodes_carry_out_what_lies_between_known_names():
    model = chain()
    profile = [
        NodeTime("ReorderInput", "ReorderInput", ("x",), ("reorder_token_0",), 1, 1.0),
        NodeTime("b_nchwc", "Conv", ("reorder_token_0",), ("reorder_token_1",), 1, 1.0),
        NodeTime("fused", "Conv", ("reorder_token_1",), ("e",), 1, 1.0),
        NodeTime("ReorderOutput", "ReorderOutput", ("reorder_token_2",), ("e",), 1, 1.0),
        NodeTime("added", "Custom", ("e",), ("unheard",), 1, 1.0),
        NodeTime("n_token_7", "Conv", ("f",), ("y",), 1, 1.0),
    ]
    parts = runtime_parts(model, profile)
    assert [[node.outputs[0].name for node in part.nodes] for part in parts] == [
        [],
        ["b", "a"],
        ["e", "d", "c"],
        ["e"],
        [],
        ["y", "f"],
    ]
    assert [part.reorders for part in parts] == [True, False, False, True, False, False]


def test_a_product_that_got_its_bias_and_another_shape_is_found_by_its_name():
    model = model_of(
        "agraph (float[1, 4, 8] x) => (float[1, 4, 8] y) { a = MatMul(x, w) y = Add(a, b) }",
        {"w": random_weight(8, 8), "b": random_weight(8)},
    )
    for name in ("", "layer/product"):
        model.graph[0].name = name
        profile = [
            NodeTime(f"{name or 'irc.node.a'}/MatMulAddFusion", "Gemm", (), ("gemm_output_reshape_arg",), 1, 1.0),
            NodeTime("gemm_output_reshape", "Reshape", (), ("y",), 1, 1.0),
        ]
        found = [[node.op_type for node in part.nodes] for part in runtime_parts(model, profile)]
        assert found == [["MatMul"], ["Add"]]


def layouts(model):
    groups = channel_groups(model)
    shapes = SurvivingShapes(groups.propagation, ConcreteShapes(model, sizes_of(model, feed_of(model))))
    nodes = [node for node in model.graph if node.op_type == "Conv"]
    convolutions = {node: Convolution(node, shapes) for node in nodes}
    return groups, Layouts(shapes, convolutions, BLOCK)


def test_conversions_stand_where_an_operator_wants_another_layout():
    _groups, found = layouts(chain())
    # x and f (Erf wants plain) into blocks; e and y out of them.
    assert found.converted(None) == ((16 + 32) * 64, (32 + 16) * 64, 4)


def test_a_width_off_the_blocks_moves_the_conversions():
    groups, found = layouts(chain())
    (family,) = groups.families
    alive = groups.survivors({family: family.atoms[:30]})
    # a still makes blocks, which c, now plain, does not read; nothing behind it is in blocks.
    assert found.converted(alive) == (16 * 64, 30 * 64, 2)
    assert Layouts(found._shapes, found._convolutions, 1).converted(None) == (0, 0, 0)


# -- the real runtime -------------------------------------------------------------------------------------------------


def test_with_the_runtime():
    model = pruning_models.cnn(width=32)
    groups = channel_groups(snapshot(model))
    shares = []
    with Runner(threads=1) as runner:
        table = LatencyTable.measured(runner, groups, feed_of(model), seconds=0.05, progress=shares.append)
        half = narrowed(groups, [family.width // 2 for family in groups.families])
        assert table.milliseconds(half) > 0
        assert set(table.node_milliseconds(half)) <= set(groups.propagation.model.graph)
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert {name.split()[0] for name in table.probes.times} == {"Conv", "Gemm"}
    assert all(spent > 0 for spent in table.probes.times.values())
    products = {kernel.node for one in table._timed for kernel in one.kernels}
    assert products == set(groups.propagation.products)


def test_every_kind_of_probe_runs():
    operators = [
        kernel.at(kernel.whole) for build in (attention, lstm, grouped) for kernel in kernels(build())[1].values()
    ]
    model, feed = probe_model(operators, 20, filler=64)
    with Runner(threads=1) as runner, runner.open(model) as opened:
        made = opened.run(feed)
    assert len(made) == len({operator.op_type for operator in operators}) + len(operators) + 1
    assert all(np.isfinite(array).all() for array in made.values())
