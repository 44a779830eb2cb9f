"""Static int8: what it places, what it leaves alone and why, and that every subset of its sites is a correct model."""

from __future__ import annotations

import itertools

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.errors import UsageError
from irc.ir import save
from irc.pass_base import Context
from irc.passes.quantization.quantize import Quantize

LIMIT = 5e-3
"""Relative energy; one wrong scale, axis or zero point gives more than ten times as much."""
TARGETS = [OrtTarget(), OrtTarget(cpu="avx2"), TensorRtTarget()]


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("build", [int8_kit.block, int8_kit.text])
def test_outputs_stay_close_and_the_file_lints_clean(build, target):
    model = build()
    outcome = int8_kit.quantize(model, target=target)
    limit = 2e-2 if target == OrtTarget(cpu="avx2") else LIMIT
    assert 0 < int8_kit.noise(model, outcome.model) < limit
    assert target.lint(outcome.model) == []


def test_ort_makes_every_operator_of_a_block_integer(tmp_path):
    outcome = int8_kit.quantize(int8_kit.block())
    assert outcome.skipped == {}
    found = int8_kit.runtime_operators(outcome.model, tmp_path)
    assert (
        found["QLinearConv"] == 3
        and found["QLinearAdd"] == 1
        and found["QLinearGlobalAveragePool"] == 1
        and found["QGemm"] == 1
    )
    assert not {"Conv", "FusedConv", "Add", "Gemm", "Relu", "Clip", "GlobalAveragePool", "MatMulNBits"} & set(found)
    assert found["QuantizeLinear"] == 1, "only the input of the model is quantized at run time"


def test_tied_head_and_lookup_share_one_int8_table(tmp_path):
    outcome = int8_kit.quantize(int8_kit.text())
    assert outcome.skipped == {}
    tables = [v for v in outcome.model.graph.initializers.values() if tuple(v.shape or ()) == (50, 32)]
    assert [v.dtype for v in tables] == [ir.DataType.INT8]
    assert int8_kit.runtime_operators(outcome.model, tmp_path)["MatMulIntegerToFloat"] == 3


_SITES = int8_kit.quantize(int8_kit.block()).rewritten
_TEXT_SITES = int8_kit.quantize(int8_kit.text()).rewritten


@pytest.mark.parametrize("target", [OrtTarget(), TensorRtTarget()], ids=str)
@given(denied=st.sets(st.sampled_from(_SITES)))
@settings(max_examples=25, deadline=None)
def test_any_subset_of_a_block_is_correct(target, denied):
    model = int8_kit.block()
    outcome = int8_kit.quantize(model, target=target, deny=lambda site: site in denied)
    assert not set(outcome.rewritten) & denied
    assert int8_kit.noise(model, outcome.model) < LIMIT
    assert target.lint(outcome.model) == []


@pytest.mark.parametrize("denied", [set(c) for n in range(4) for c in itertools.combinations(_TEXT_SITES, n)], ids=str)
def test_any_subset_of_a_tied_model_is_correct(denied):
    model = int8_kit.text()
    outcome = int8_kit.quantize(model, deny=lambda site: site in denied)
    assert set(outcome.rewritten) == set(_TEXT_SITES) - denied
    assert int8_kit.noise(model, outcome.model) < LIMIT


def test_denying_everything_changes_nothing():
    model = int8_kit.block()
    outcome = int8_kit.quantize(model, deny=lambda site: True)
    assert int8_kit.noise(model, outcome.model) == 0
    assert int8_kit.operators(outcome.model) == int8_kit.operators(model)


def test_site_ids_are_the_names_of_the_float_model():
    model = int8_kit.block()
    names = {value.name for node in model.graph for value in node.outputs}
    assert set(_SITES) <= names and len(_SITES) == 6


def test_graph_output_behind_a_quantized_conv_keeps_its_name():
    model = pass_kit.parse("g (float[1,8,6,6] x) => (float[1,8,4,4] y) { y = Conv(x, w) }", {"w": (8, 8, 3, 3)})
    outcome = int8_kit.quantize(model)
    assert outcome.rewritten == ["y"]
    assert outcome.model.graph.outputs[0].name == "y"
    assert int8_kit.noise(model, outcome.model) < LIMIT


def test_output_that_is_also_read_inside():
    graph = "g (float[1,8,6,6] x) => (float[1,8,4,4] y, float[1,8,4,4] z) { y = Conv(x, w) z = Sigmoid(y) }"
    model = pass_kit.parse(graph, {"w": (8, 8, 3, 3)})
    assert int8_kit.noise(model, int8_kit.quantize(model).model) < LIMIT


def test_operators_that_share_a_weight_share_the_int8_tensor():
    graph = "g (float[2,32] x) => (float[2,32] y) { a = MatMul(x, w) b = MatMul(a, w) y = Gemm<transB=1>(b, w) }"
    model = pass_kit.parse(graph, {"w": (32, 32)})
    outcome = int8_kit.quantize(model)
    assert outcome.rewritten == ["a", "b", "y"]
    stored = [
        v for v in outcome.model.graph.initializers.values() if v.dtype == ir.DataType.INT8 and len(v.shape or ()) == 2
    ]
    assert len(stored) == 2, "one per channel axis"
    assert "w" not in outcome.model.graph.initializers
    assert int8_kit.noise(model, outcome.model) < LIMIT


def test_readers_of_one_value_share_its_pair():
    graph = "g (float[2,32] x) => (float[2,16] y) { a = MatMul(x, q) b = MatMul(x, k) y = Mul(a, b) }"
    outcome = int8_kit.quantize(pass_kit.parse(graph, {"q": (32, 16), "k": (32, 16)}))
    assert int8_kit.operators(outcome.model)["QuantizeLinear"] == 1


@pytest.mark.parametrize(
    ("graph", "weights", "reason"),
    [
        ("g (float[2,32] x, float[32,8] v) => (float[2,8] y) { y = Gemm(x, v) }", {}, "its weight is not constant"),
        ("g (float[2,4] x) => (float[2,4] y) { y = MatMul(x, w) }", {"w": (4, 4)}, "has only 16 elements"),
        ("g (float[8,2] x) => (float[32,2] y) { y = MatMul(w, x) }", {"w": (32, 8)}, "its constant is on the left"),
        ("g (float[2,32] x) => (float[2,8] y) { y = MatMul(x, w) }", {"w": np.full((32, 8), np.inf, np.float32)}, "NaN or infinity"),
        ("g (float[2,32] x) => (float[2,8] y) { y = MatMul(x, w) }", {"w": np.full((32, 8), np.nan, np.float32)}, "NaN or infinity"),
        ("g (float[2,4,16] x) => (float[2,4,8] y) { y = MatMul(x, w) }", {"w": (2, 16, 8)}, "matmul-weight-is-a-matrix"),
        ("g (float[1,8,4,4] x) => (float[1,8,6,6] y) { y = ConvTranspose(x, w) }", {"w": (8, 8, 3, 3)}, "transposed-convolution-is-float"),
        ("g (float[2,32] x) => (float[2,8] y, float[32,8] z) { y = MatMul(x, w) z = Relu(w) }", {"w": (32, 8)}, "also used by Relu"),
        ("g (float16[2,32] x) => (float16[2,8] y) { y = MatMul(x, w) }", {"w": np.ones((32, 8), np.float16)}, "its weight is FLOAT16"),
        ("g (double[2,32] x) => (double[2,8] y) { y = MatMul(x, w) }", {"w": np.ones((32, 8))}, "its weight is DOUBLE"),
    ],
)  # fmt: skip
def test_near_misses_say_why(graph, weights, reason):
    outcome = int8_kit.quantize(pass_kit.parse(graph, weights))
    assert outcome.rewritten == []
    assert list(outcome.skipped) == ["y"] and reason in outcome.skipped["y"]


def test_attention_products_are_no_near_misses():
    graph = "g (float[2,8,32] x) => (float[2,8,8] y) { t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t) }"
    outcome = int8_kit.quantize(pass_kit.parse(graph))
    assert outcome.rewritten == [] and outcome.skipped == {}


def test_quantized_model_is_left_alone():
    once = int8_kit.quantize(int8_kit.block())
    twice = int8_kit.quantize(once.model)
    assert twice.rewritten == []
    assert set(twice.skipped.values()) == {"it is already quantized"}


def test_value_without_a_range_is_a_near_miss():
    model = int8_kit.block()
    outcome = int8_kit.quantize(model, feeds=[])
    assert outcome.rewritten == []
    assert "no calibrated range" in outcome.skipped["c1"]


@pytest.mark.parametrize("attributes", ["alpha=0.5", "beta=0.25", "alpha=0.5, beta=0.25", "transA=1", "transB=1"])
@pytest.mark.parametrize("bias", [(8,), (1, 8), (1,), (32, 8), ()])
def test_gemm_in_every_form(attributes, bias, tmp_path):
    graph = f"g (float[32,32] x) => (float[32,8] y) {{ y = Gemm<{attributes}>(x, w, b) }}"
    model = pass_kit.parse(graph, {"w": (8, 32) if "transB" in attributes else (32, 8), "b": bias})
    outcome = int8_kit.quantize(model)
    assert outcome.rewritten == ["y"]
    assert int8_kit.noise(model, outcome.model) < LIMIT
    assert int8_kit.runtime_operators(outcome.model, tmp_path)["QGemm"] == 1


def test_bias_too_large_for_int32_is_added_in_float():
    graph = "g (float[4,32] x) => (float[4,8] y) { y = Gemm(x, w, b) }"
    model = pass_kit.parse(
        graph, {"w": pass_kit.numbers("w", (32, 8)) * np.float32(1e-6), "b": np.full(8, 1e6, np.float32)}
    )
    outcome = int8_kit.quantize(model)
    assert int8_kit.operators(outcome.model)["Add"] == 1
    assert int8_kit.noise(model, outcome.model) < 1e-9


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-20, 1e20])
def test_extreme_weights_and_activations_stay_finite(scale):
    weights = pass_kit.numbers("w", (8, 8, 3, 3))
    weights[3] = 0
    weights[5] *= np.float32(scale)
    model = pass_kit.parse("g (float[1,8,6,6] x) => (float[1,8,4,4] y) { c = Conv(x, w) y = Relu(c) }", {"w": weights})
    outcome = int8_kit.quantize(model)
    (y,) = pass_kit.run(outcome.model, pass_kit.feeds(model))
    assert np.all(np.isfinite(y))
    assert int8_kit.noise(model, outcome.model) < 1e-2


def test_input_that_is_always_zero():
    model = int8_kit.block()
    feed = {"x": np.zeros((1, 16, 8, 8), np.float32)}
    outcome = int8_kit.quantize(model, feeds=[feed])
    assert int8_kit.noise(model, outcome.model, feed) < LIMIT


def test_moved_integers_keep_their_scale():
    outcome = int8_kit.quantize(int8_kit.block())
    pairs = {
        n.inputs[0].name: n for n in outcome.model.graph if n.op_type == "QuantizeLinear" and n.inputs[0] is not None
    }
    assert pairs["p"].inputs[1] is pairs["r2"].inputs[1] and pairs["p"].inputs[2] is pairs["r2"].inputs[2]


def test_tensorrt_quantizes_the_skip_branch_only():
    outcome = int8_kit.quantize(int8_kit.block(), target=TensorRtTarget())
    add = next(n for n in outcome.model.graph if n.op_type == "Add")
    makers = [value.producer().op_type for value in add.inputs]
    assert makers == ["Conv", "DequantizeLinear"]


def test_two_runs_write_the_same_bytes(tmp_path):
    files = []
    for name in "ab":
        save(int8_kit.quantize(int8_kit.text()).model, tmp_path / f"{name}.onnx")
        files.append((tmp_path / f"{name}.onnx").read_bytes())
    assert files[0] == files[1]


def test_new_nodes_carry_no_names_and_no_metadata():
    outcome = int8_kit.quantize(int8_kit.block())
    for node in outcome.model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not node.name and not node.metadata_props


def test_embeddings_can_be_left_in_float():
    outcome = int8_kit.quantize(int8_kit.text(), pass_=Quantize(embeddings=False))
    assert "e" not in outcome.rewritten and outcome.rewritten


def test_needs_target_and_data():
    with pytest.raises(UsageError, match="needs a target and data"):
        list(Quantize().sites(int8_kit.block(), Context()))


def test_old_opset_is_a_near_miss_that_names_the_cure():
    model = pass_kit.parse("g (float[2,32] x) => (float[2,8] y) { y = MatMul(x, w) }", {"w": (32, 8)}, opset=11)
    outcome = int8_kit.quantize(model)
    assert outcome.rewritten == [] and "run raise-opset first" in outcome.skipped["y"]


def test_result_that_no_integer_operator_reads_is_not_joined():
    graph = "g (float[1,16,8,8] x) => (float[1,16,8,8] y) { a = Conv<pads=[1,1,1,1]>(x, v) b = Conv<pads=[1,1,1,1]>(x, w) y = Add(a, b) }"
    outcome = int8_kit.quantize(pass_kit.parse(graph, {"v": (16, 16, 3, 3), "w": (16, 16, 3, 3)}))
    assert outcome.rewritten == ["a", "b"]


def test_wide_fan_out_is_looked_at_in_linear_time():
    lines = ["a0 = Conv<pads=[1,1,1,1]>(x, w)"]
    lines += [f"a{i} = Add(a{i - 1}, a{max(0, i - 2)})" for i in range(1, 300)]
    graph = f"g (float[1,16,4,4] x) => (float[1,16,4,4] y) {{ {' '.join(lines)} y = Tanh(a299) }}"
    outcome = int8_kit.quantize(pass_kit.parse(graph, {"w": (16, 16, 3, 3)}))
    assert outcome.rewritten == ["a0"]


@pytest.mark.parametrize("spatial", ["8", "8,8", "4,4,4"])
@pytest.mark.parametrize("group", [1, 4, 32])
def test_convolutions_of_every_kind(spatial, group, tmp_path):
    rank = spatial.count(",") + 1
    graph = f"g (float[2,32,{spatial}] x) => (float y) {{ c = Conv<group={group}>(x, w, b) r = Relu(c) y = Tanh(r) }}"
    model = pass_kit.parse(graph, {"w": (32, 32 // group, *[3] * rank), "b": (32,)})
    outcome = int8_kit.quantize(model)
    assert outcome.rewritten == ["c"] and int8_kit.noise(model, outcome.model) < LIMIT
    assert int8_kit.runtime_operators(outcome.model, tmp_path)["QLinearConv"] == 1


@pytest.mark.parametrize(
    "operator, weight",
    [("Conv<pads=[1,1,1,1]>", (16, 16, 3, 3)), ("Conv<group=16>", (16, 1, 3, 3)), ("ConvTranspose", (16, 16, 3, 3))],
)
def test_what_is_left_in_float_between_integers_stays_float(operator, weight, tmp_path):
    """ONNX Runtime quantizes a float weight itself, per tensor, where it finds it between a pair and a quantizer."""
    graph = f"""g (float[2,16,8,8] x) => (float y) {{
        a = Conv<pads=[1,1,1,1]>(x, w1) b = {operator}(a, w2, b2) c = Conv<pads=[1,1,1,1]>(b, w3) y = Tanh(c) }}"""
    rng = np.random.default_rng(0)
    uneven = (rng.standard_normal(weight) * np.exp(rng.uniform(-4, 4, (weight[0], 1, 1, 1)))).astype(np.float32)
    model = pass_kit.parse(graph, {"w1": (16, 16, 3, 3), "w2": uneven, "b2": (16,), "w3": (16, 16, 3, 3)})
    outcome = int8_kit.quantize(model, deny=lambda site: site == "b")
    assert outcome.rewritten == ["a", "c"]
    operators = int8_kit.runtime_operators(outcome.model, tmp_path)
    assert operators["QLinearConv"] == 2
    assert int8_kit.optimization_error(outcome.model) < 1e-5
    (kept,) = [n for n in outcome.model.graph if n.op_type == operator.split("<")[0] and n.inputs[1].name == "w2"]
    assert kept.inputs[0].producer().attributes.get_int("axis") == 1


def test_twins_for_float_readers_go_when_the_reader_becomes_integer():
    outcome = int8_kit.quantize(int8_kit.block())
    for node in outcome.model.graph:
        if node.op_type == "DequantizeLinear":
            assert node.outputs[0].uses() or node.outputs[0].is_graph_output()
            assert node.inputs[0].producer() is None or node.inputs[1].shape.rank() == 0


def test_what_only_the_second_part_of_a_split_reads_as_integers_joins(tmp_path):
    graph = """g (float[2,16,8,8] x) => (float p, float y) {
        a = Conv<pads=[1,1,1,1]>(x, w1) b = Conv<pads=[1,1,1,1]>(x, w2) s = Add(a, b)
        l, r = Split<axis=1>(s) p = Tanh(l) c = Conv(r, w3) y = Tanh(c) }"""
    weights = {"w1": (16, 16, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 8, 1, 1)}
    outcome = int8_kit.quantize(pass_kit.parse(graph, weights))
    assert outcome.rewritten == ["a", "b", "s", "c"]
    assert int8_kit.runtime_operators(outcome.model, tmp_path)["QLinearAdd"] == 1
