"""Weights in blocks: what is stored, what ONNX Runtime fuses, what the data decides, and where the pass keeps away."""

from __future__ import annotations

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.application import apply_pass
from irc.backends.tensorrt import TensorRtTarget
from irc.calibration import open_data
from irc.decisions import Decisions
from irc.errors import UsageError
from irc.ir import check, constant, snapshot
from irc.pass_base import Context
from irc.passes.quantization.block_format import BlockFormat, BlockWeight, rounded
from irc.passes.quantization.block_rounding import compensated, decide
from irc.passes.quantization.quantize_weights_in_blocks import QuantizeWeightsInBlocks
from irc.passes.simplification.raise_opset_to_21 import RaiseOpsetTo21
from irc.pipeline import Step
from irc.runner import Runner
from irc.testing import assert_conforms

TWO = """m (float[N,64] x) => (float[N,32] y) {
  h = MatMul(x, w1)
  hb = Add(h, b1)
  a = Relu(hb)
  y = Gemm<transB=1>(a, w2, b2)
}"""
WEIGHTS = {"w1": (64, 48), "b1": (48,), "w2": (32, 48), "b2": (32,)}


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as started:
        yield started


def two(opset: int = 21) -> ir.Model:
    return pass_kit.parse(TWO, WEIGHTS, opset=opset)


def parse(text: str, weights, opset: int = 21, **options) -> ir.Model:
    return pass_kit.parse(text, weights, opset=opset, **options)


def correlated(count: int = 24, rows: int = 12) -> list[pass_kit.Feed]:
    generator = np.random.default_rng(5)
    mixed = generator.normal(size=(12, 64)) + 0.4
    feeds = []
    for _ in range(count):
        x = generator.normal(size=(rows, 12)) @ mixed + 0.05 * generator.normal(size=(rows, 64))
        feeds.append({"x": x.astype(np.float32)})
    return feeds


def with_data(pass_, model, runner, feeds, decisions=None, **context):
    copy = snapshot(model)
    ctx = Context(runner=runner, data=open_data(feeds, model), decisions=decisions or Decisions(), **context)
    record = apply_pass(Step(pass_), copy, ctx).record
    check(copy)
    return pass_kit.Outcome(copy, record)


def stored(model: ir.Model) -> dict[str, tuple[ir.DataType, tuple[int, ...]]]:
    return {
        node.outputs[0].uses()[0].node.outputs[0].name: (node.inputs[0].dtype, tuple(node.inputs[0].shape))
        for node in model.graph.all_nodes()
        if node.op_type == "DequantizeLinear"
    }


# -- storage and kernel -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "dtype", "most"),
    [
        ({}, ir.DataType.INT4, 2e-2),
        ({"symmetric": False}, ir.DataType.UINT4, 2e-2),
        ({"bits": 8}, ir.DataType.INT8, 1e-4),
        ({"bits": 8, "symmetric": False}, ir.DataType.UINT8, 1e-4),
        ({"block_size": 16}, ir.DataType.INT4, 2e-2),
        ({"block_size": 64}, ir.DataType.INT4, 2e-2),
        ({"bits": 2}, ir.DataType.INT4, 0.5),
        ({"bits": 3}, ir.DataType.INT4, 0.1),
        ({"bits": 6}, ir.DataType.INT8, 2e-3),
    ],
)
def test_what_is_stored_and_that_the_runtime_fuses_it(options, dtype, most, tmp_path):
    model = two()
    outcome = pass_kit.apply(QuantizeWeightsInBlocks(**options), model)
    assert outcome.rewritten == ["h", "y"] and outcome.skipped == {}
    assert stored(outcome.model) == {"h": (dtype, (64, 48)), "y": (dtype, (48, 32))}
    assert not {"w1", "w2"} & set(outcome.model.graph.initializers)
    assert 0 < int8_kit.noise(model, outcome.model) < most
    found = int8_kit.runtime_operators(outcome.model, tmp_path)
    assert found["MatMulNBits"] == 2 and not found["DequantizeLinear"] and not found["MatMul"] and not found["Gemm"]


@pytest.mark.parametrize("attributes", ["", "transB=1", "alpha=0.5", "beta=0.25", "alpha=2.0, beta=0.5, transB=1"])
@pytest.mark.parametrize("bias", [None, (40,), (1, 40), (1,)])
def test_every_gemm_becomes_one_that_is_fused(attributes, bias, tmp_path):
    inputs = "x, w" if bias is None else "x, w, b"
    weights = {"w": (40, 64) if "transB" in attributes else (64, 40)} | ({} if bias is None else {"b": bias})
    model = parse(
        f"g (float[3,64] x) => (float[3,40] y) {{ y = Gemm{attributes and f'<{attributes}>'}({inputs}) }}", weights
    )
    outcome = pass_kit.apply(QuantizeWeightsInBlocks(bits=8), model)
    assert outcome.rewritten == ["y"] and int8_kit.noise(model, outcome.model) < 1e-4
    assert int8_kit.runtime_operators(outcome.model, tmp_path)["MatMulNBits"] == 1


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        ("h = Gemm(x, w, b) y = Relu(h)", {"b": (48,)}),
        ("h = Gemm(x, w) y = Tanh(h)", {}),
        ("p = MatMul(x, w) h = Add(p, b) y = Sigmoid(h)", {"b": (48,)}),
    ],
)
def test_an_activation_behind_a_product_of_matrices_does_not_keep_it_float(body, extra, tmp_path):
    model = parse(f"g (float[3,64] x) => (float[3,48] y) {{ {body} }}", {"w": (64, 48), **extra})
    outcome = pass_kit.apply(QuantizeWeightsInBlocks(bits=8), model)
    assert len(outcome.rewritten) == 1 and int8_kit.noise(model, outcome.model) < 1e-3
    assert int8_kit.runtime_operators(outcome.model, tmp_path)["MatMulNBits"] == 1


@pytest.mark.parametrize("columns", [33, 47, 100, 20])
def test_blocks_need_not_fill_the_input(columns, tmp_path):
    model = parse(f"g (float[3,{columns}] x) => (float[3,31] y) {{ y = MatMul(x, w) }}", {"w": (columns, 31)})
    outcome = pass_kit.apply(QuantizeWeightsInBlocks(bits=8, min_elements=1), model)
    assert outcome.rewritten == ["y"] and int8_kit.noise(model, outcome.model) < 1e-4
    assert int8_kit.runtime_operators(outcome.model, tmp_path)["MatMulNBits"] == 1


def test_a_transposed_constant_is_stored_the_right_way_round(tmp_path):
    text = "g (float[2,3,64] x) => (float[2,3,48] y) { t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }"
    model = parse(text, {"w": (48, 64)})
    outcome = pass_kit.apply(QuantizeWeightsInBlocks(bits=8), model)
    assert stored(outcome.model) == {"y": (ir.DataType.INT8, (64, 48))}
    assert int8_kit.noise(model, outcome.model) < 1e-4
    assert int8_kit.operators(outcome.model) == {"DequantizeLinear": 1, "MatMul": 1}
    assert int8_kit.runtime_operators(outcome.model, tmp_path)["MatMulNBits"] == 1


def test_products_with_one_weight_have_a_copy_each_and_are_fused(tmp_path):
    text = "g (float[2,64] x) => (float[2,64] y) { a = MatMul(x, w) y = MatMul(a, w) }"
    model = parse(text, {"w": (64, 64)})
    outcome = pass_kit.apply(QuantizeWeightsInBlocks(), model)
    assert outcome.rewritten == ["a", "y"]
    assert "w" not in outcome.model.graph.initializers
    assert int8_kit.runtime_operators(outcome.model, tmp_path)["MatMulNBits"] == 2
    chain = " ".join(f"a{i + 1} = MatMul(a{i}, w)" for i in range(7))
    many = parse(f"g (float[2,64] a0) => (float[2,64] a7) {{ {chain} }}", {"w": (64, 64)})
    assert "7 readers" in pass_kit.assert_untouched(QuantizeWeightsInBlocks(), many)["a1"]


def test_a_product_in_a_body():
    text = """g (bool c, float[2,64] x) => (float[2,48] y) {
      y = If (c) <then_branch = t () => (float[2,48] p) { p = MatMul(x, w) },
                  else_branch = e () => (float[2,48] q) { n = Neg(x) q = MatMul(n, w) }>
    }"""
    model = parse(text, {"w": (64, 48)})
    outcome = pass_kit.apply(QuantizeWeightsInBlocks(bits=8), model)
    assert outcome.rewritten == ["p", "q"]
    for c in (True, False):
        feed = {"c": np.array(c), "x": pass_kit.numbers("x", (2, 64))}
        assert int8_kit.noise(model, outcome.model, feed) < 1e-4


@pytest.mark.parametrize("options", [{}, {"symmetric": False}, {"bits": 8}])
def test_the_runtime_takes_blocks_in_a_body_whose_constant_lies_outside(options, tmp_path):
    text = """g (bool c, float[2,64] x) => (float[2,48] y) {
      z = Neg(x)
      o = MatMul(z, w)
      i = If (c) <then_branch = t () => (float[2,48] p) { p = MatMul(x, w) },
                  else_branch = e () => (float[2,48] q) { q = MatMul(z, w) }>
      y = Add(i, o)
    }"""
    model = parse(text, {"w": (64, 48)})
    outcome = pass_kit.apply(QuantizeWeightsInBlocks(**options), model)
    assert outcome.rewritten == ["o", "p", "q"]
    # The runtime used to refuse the model: its kernel wants the constants in the graph of the product.
    int8_kit.runtime_operators(outcome.model, tmp_path)


def test_old_models_are_raised_and_new_ones_kept():
    old = pass_kit.apply(RaiseOpsetTo21(), two(17)).model
    assert old.graph.opset_imports[""] == 21 and old.ir_version >= 10
    assert pass_kit.apply(RaiseOpsetTo21(), two(22)).rewritten == []
    new = pass_kit.apply(QuantizeWeightsInBlocks(), two(22)).model
    assert new.graph.opset_imports[""] == 22
    assert pass_kit.apply(QuantizeWeightsInBlocks(), two(17)).rewritten == []
    assert "raise-opset-to-21" in pass_kit.apply(QuantizeWeightsInBlocks(), two(17)).skipped["y"]


def test_it_keeps_its_promises():
    models = {
        "two": two(),
        "shared": parse("g (float[2,64] x) => (float[2,64] y) { a = MatMul(x, w) y = MatMul(a, w) }", {"w": (64, 64)}),
    }
    assert_conforms(QuantizeWeightsInBlocks(), models, must_fire=True)
    assert_conforms(RaiseOpsetTo21(), {"two": two(17)}, must_fire=True)


# -- where it keeps away ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        ("g (float[2,64] x) => (float[2,48] y, float[64,48] z) { y = MatMul(x, w) z = Relu(w) }", {"w": (64, 48)}, "also used by Relu"),
        ("g (float[2,64] x) => (float[2,64] w2, float[2,48] y) { w2 = Relu(x) y = MatMul(x, w) }", {"w": np.full((64, 48), np.nan, np.float32)}, "NaN"),
        ("g (float[2,64] x) => (float[2,8] y) { y = MatMul(x, w) }", {"w": (64, 8)}, "fewer than 1024"),
        ("g (float[3,2,64] x) => (float[3,2,48] y) { y = MatMul(x, w) }", {"w": (3, 64, 48)}, "not a matrix"),
        ("g (float[64,2] x) => (float[2,48] y) { y = Gemm<transA=1>(x, w) }", {"w": (64, 48)}, "transposed"),
        ("g (float16[2,64] x) => (float16[2,48] y) { y = MatMul(x, w) }", {"w": np.ones((64, 48), np.float16)}, "FLOAT16"),
        ("g (float[2,64] x, float[64,48] w) => (float[2,48] y) { y = Gemm(x, w) }", {}, "not constant"),
    ],
)  # fmt: skip
def test_where_it_does_not_apply(text, weights, reason):
    model = parse(text, weights)
    assert reason in pass_kit.assert_untouched(QuantizeWeightsInBlocks(), model)["y"]


def test_weights_that_are_outputs_or_inputs_or_looked_up_stay():
    text = "g (float[2,64] x) => (float[2,48] y) { y = MatMul(x, w) }"
    model = parse(text, {"w": (64, 48)})
    model.graph.outputs.append(model.graph.initializers["w"])
    assert "output of the model" in pass_kit.apply(QuantizeWeightsInBlocks(), model).skipped["y"]
    model = parse(text, {"w": (64, 48)})
    model.graph.inputs.append(model.graph.initializers["w"])
    assert "y" not in pass_kit.apply(QuantizeWeightsInBlocks(), model).rewritten
    tied = pass_kit.apply(QuantizeWeightsInBlocks(), parse(int8_kit.TEXT, int8_kit.TEXT_WEIGHTS))
    assert "looked up" in tied.skipped["logits"] and {"h", "o"} <= set(tied.rewritten)


@pytest.mark.parametrize("options", [{"bits": 1}, {"bits": 9}, {"block_size": 1}, {"scales": "largest"}])
def test_impossible_options(options):
    with pytest.raises(ValueError):
        QuantizeWeightsInBlocks(**options)


# -- data -------------------------------------------------------------------------------------------------------------


def test_data_lowers_the_error_and_the_ledger_says_by_how_much(runner):
    model, feeds = two(), correlated()
    other = correlated(40)[24:]
    plain = pass_kit.apply(QuantizeWeightsInBlocks(rounding="nearest", scales="largest"), model)
    nearest = with_data(QuantizeWeightsInBlocks(rounding="nearest"), model, runner, feeds)
    outcome = with_data(QuantizeWeightsInBlocks(), model, runner, feeds)
    errors = [sum(int8_kit.noise(model, o.model, f) for f in other) for o in (plain, nearest, outcome)]
    assert errors[0] > errors[1] > 2 * errors[2]
    assert [entry.site for entry in outcome.record.rewritten] == ["h", "y"]
    for entry in outcome.record.rewritten:
        assert "compensated; output error on held-out samples" in entry.reason, entry.reason


def test_where_compensation_does_not_help_it_is_not_made(runner):
    generator = np.random.default_rng(0)
    # Two samples of one row each that have nothing in common.
    feeds = [{"x": generator.normal(size=(1, 64)).astype(np.float32)} for _ in range(2)]
    model = parse("g (float[N,64] x) => (float[N,48] y) { y = MatMul(x, w) }", {"w": (64, 48)})
    outcome = with_data(QuantizeWeightsInBlocks(), model, runner, feeds)
    assert "nearest; compensation would not help" in outcome.record.rewritten[0].reason
    single = with_data(QuantizeWeightsInBlocks(), model, runner, feeds[:1])
    assert "nothing to hold out" in single.record.rewritten[0].reason
    forced = with_data(QuantizeWeightsInBlocks(rounding="compensated"), model, runner, feeds)
    assert "; compensated" in forced.record.rewritten[0].reason


def test_decisions_do_not_depend_on_other_sites_and_are_replayed_without_data(runner):
    model, feeds = two(), correlated()
    decisions = Decisions()
    full = with_data(QuantizeWeightsInBlocks(), model, runner, feeds, decisions)
    kind = "4,32,symmetric,auto,searched"
    assert list(decisions) == [f"quantize-weights-in-blocks/{site}#{kind}" for site in "hy"]
    copy = snapshot(model)
    replay = Context(decisions=Decisions(decisions.kept))
    apply_pass(Step(QuantizeWeightsInBlocks()), copy, replay)
    assert pass_kit.text(copy) == pass_kit.text(full.model)
    alone = snapshot(model)
    ctx = Context(runner=runner, data=open_data(feeds, model))
    apply_pass(Step(QuantizeWeightsInBlocks()), alone, ctx, permit=lambda key: "denied" if key.site == "h" else None)
    for kind in "qs":
        np.testing.assert_array_equal(
            constant(alone.graph.initializers[f"w2_{kind}"]), constant(full.model.graph.initializers[f"w2_{kind}"])
        )


def test_compensation_needs_data():
    with pytest.raises(UsageError, match="give --data"):
        pass_kit.apply(QuantizeWeightsInBlocks(rounding="compensated"), two())


def test_site_errors_are_those_of_the_layers(runner):
    model, feeds = two(17), correlated(4)
    raised = pass_kit.apply(RaiseOpsetTo21(), model).model
    outcome = pass_kit.apply(QuantizeWeightsInBlocks(), raised)
    ctx = Context(runner=runner, data=open_data(feeds, model))
    errors = QuantizeWeightsInBlocks().site_errors(model, outcome.model, ["h", "y"], ctx)
    assert errors is not None and set(errors) == {"h", "y"} and all(1e-4 < e < 0.02 for e in errors.values())


def test_a_target_of_symmetric_integers_gets_positive_scales():
    model = two()
    free, positive = BlockFormat(), BlockFormat(signed_scales=False)
    weight = pass_kit.numbers("w", (48, 64))
    assert (rounded(weight, free).scales < 0).any() and (rounded(weight, positive).scales > 0).all()
    copy = snapshot(model)
    apply_pass(Step(QuantizeWeightsInBlocks()), copy, Context(target=TensorRtTarget()))
    assert (constant(copy.graph.initializers["w1_s"]) > 0).all()


# -- the grid ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    bits=st.integers(2, 8),
    block_size=st.sampled_from([2, 5, 16, 32]),
    symmetric=st.booleans(),
    rows=st.integers(1, 5),
    columns=st.integers(1, 40),
    power=st.sampled_from([-100, -20, 0, 20, 100]),
    seed=st.integers(0, 1000),
)
def test_searched_scales_are_no_worse_than_the_largest(bits, block_size, symmetric, rows, columns, power, seed):
    generator = np.random.default_rng(seed)
    weight = (generator.standard_t(3, (rows, columns)) * 2.0**power).astype(np.float32)
    format = BlockFormat(bits, block_size, symmetric)
    searched, widest = rounded(weight, format), rounded(weight, format, search=False)
    for found in (searched, widest):
        assert found.levels.min() >= format.low and found.levels.max() <= format.high
        assert np.isfinite(found.values).all() and (found.scales != 0).all()

    def energy(found: BlockWeight) -> float:
        return float(np.sum(np.square((found.values - weight).astype(np.float64) / 2.0**power)))

    assert energy(searched) <= energy(widest) * (1 + 1e-4) + 1e-10


@pytest.mark.parametrize("format", [BlockFormat(), BlockFormat(symmetric=False), BlockFormat(bits=3, block_size=16)])
def test_compensation_stays_on_the_grid_and_pays(format):
    generator = np.random.default_rng(1)
    weight = generator.normal(size=(24, 80)).astype(np.float32)
    x = generator.normal(size=(600, 12)) @ generator.normal(size=(12, 80)) + 0.1 * generator.normal(size=(600, 80))
    fit, held = x[:300].T @ x[:300], x[300:].T @ x[300:]
    found = decide(weight, fit, held, format)
    assert found.method == "compensated" and found.compensated_error < 0.5 * found.nearest_error
    values = compensated(weight, fit, format, damping=0.01)
    assert values.levels.min() >= format.low and values.levels.max() <= format.high
    np.testing.assert_array_equal(values.values, compensated(weight, fit, format, damping=0.01).values)
