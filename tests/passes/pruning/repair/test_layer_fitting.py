"""Layers fitted to the teacher's: nothing changes where nothing was lost, errors fall where something was."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_weight, run
from pruning_models import attention, cnn
from repair_kit import CHAIN, apart, chain, feeds, keeping, layers_of, residual, without

from irc.ir import constant
from irc.passes.pruning.repair.input_moments import InputMoments
from irc.passes.pruning.repair.layer_fitting import Fit, fit
from irc.passes.pruning.repair.student import Student, cut_student
from irc.runner import Runner
from irc.testing.integrity import model_bytes

LEAST_SQUARES = Fit("least-squares", 1e-4)
STATISTICS = Fit("statistics")


def error(student: ir.Model, teacher: ir.Model, found: list) -> float:
    """Of the outputs, relative to the teacher's energy about its mean."""
    mine, theirs = (np.concatenate([outputs[0].ravel() for outputs in run(m, found)]) for m in (student, teacher))
    return float(np.square(mine - theirs).sum() / np.square(theirs - theirs.mean()).sum())


def fitted(
    runner: Runner, model: ir.Model, alive_of, how: Fit, found: list, *, updated: bool = True
) -> tuple[Student, float, float]:
    """A student, its error before and after."""
    layers = layers_of(model)
    alive = alive_of(layers)
    moments = InputMoments(model, runner, apart(found)) if updated else None
    student = cut_student(layers, alive, moments)
    before = error(student.model, model, found)
    fit(layers, [(student, how)], runner, apart(found))
    return student, before, error(student.model, model, found)


def dead_chain() -> ir.Model:
    """Channels 1, 4 and 7 of the first layer give nothing behind the Relu."""
    weights = {name: value.const_value.numpy().copy() for name, value in chain().graph.initializers.items()}
    weights["w0"][:, [1, 4, 7]], weights["b0"][[1, 4, 7]] = 0, -1
    return model_of(CHAIN, weights)


@pytest.mark.parametrize("how", [LEAST_SQUARES, Fit("least-squares", 0.1), STATISTICS])
def test_where_nothing_was_lost_nothing_changes(runner, how):
    model = dead_chain()
    _student, before, after = fitted(
        runner, model, lambda layers: without(layers, "a", [1, 4, 7]), how, feeds(model, {"n": 20})
    )
    assert before < 1e-4 and after < 1e-4


def test_a_shortcut_error_is_repaired_in_full_where_it_can_be(runner):
    """What the cut of one layer loses is what another, added to it, can make: both read the same."""
    text = """agraph (float[n, 5] x) => (float[n, 4] y) {
        a = MatMul(x, w0)  b = Relu(a)  c = MatMul(b, w1)  d = Gemm(x, w2, b2)  s = Add(c, d)  y = Relu(s)
    }"""
    weights = {"w0": random_weight(5, 9), "w1": random_weight(9, 4), "w2": random_weight(5, 4), "b2": random_weight(4)}
    model = model_of(text, weights)
    found = feeds(model, {"n": 50})
    errors = [
        fitted(runner, model, lambda layers: keeping(layers, 0.4), Fit("least-squares", 1e-4, shortcut), found)[2]
        for shortcut in (True, False)
    ]
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.parametrize("how", [LEAST_SQUARES, STATISTICS], ids=["least-squares", "statistics"])
@pytest.mark.parametrize("build", [chain, residual, cnn])
def test_the_error_of_the_outputs_falls(runner, build, how):
    model = build()
    found = feeds(model, {"n": 16}, {"n": 11})
    _student, before, after = fitted(
        runner, model, lambda layers: keeping(layers, 0.5), how, found, updated=how is LEAST_SQUARES
    )
    assert after < (0.95 if how is LEAST_SQUARES else 1.0) * before, (before, after)


def test_attention_with_samples_of_different_lengths(runner):
    model = attention()
    found = feeds(model, {"n": 2, "t": 9}, {"n": 1, "t": 16}, count=10)
    for mode in ("rows", "columns"):
        _student, before, after = fitted(
            runner, model, lambda layers, m=mode: keeping(layers, 0.5, mode=m), LEAST_SQUARES, found
        )
        assert after < before, mode


def test_a_weight_that_something_else_reads_is_left_alone_and_what_comes_after_is_fitted(runner):
    text = """agraph (float[n, 8] x) => (float[n, 3] y) {
        a = MatMul(x, w0)  b = Relu(a)  c = MatMul(b, w1)  d = Relu(a)  e = Abs(w1)  f = MatMul(d, e)  g = Mul(c, f)  y = Gemm(g, w2, b2)
    }"""
    weights = {
        "w0": random_weight(8, 10),
        "w1": random_weight(10, 6),
        "w2": random_weight(6, 3),
        "b2": random_weight(3),
    }
    model = model_of(text, weights)
    student, before, after = fitted(
        runner, model, lambda layers: without(layers, "a", [2, 7]), LEAST_SQUARES, feeds(model, {"n": 40})
    )
    assert np.array_equal(constant(student.named("c").inputs[1]), np.delete(weights["w1"], [2, 7], axis=0))
    assert not np.array_equal(constant(student.named("y").inputs[1]), weights["w2"]) and after < before


def test_a_weight_shared_behind_its_transpose_is_fitted_for_both(runner):
    """The second layer reads what comes of the first: the teacher's rows stand for those that it will read."""
    text = """agraph (float[n, 6] x) => (float[n, 6] y) {
        a = MatMul(x, w0)  b = Relu(a)  c = MatMul(b, w1)
        t = Transpose<perm=[1,0]>(w2)  d = MatMul(c, t)  e = Relu(d)  y = MatMul(e, t)
    }"""
    weights = {"w0": random_weight(6, 10), "w1": random_weight(10, 6), "w2": random_weight(6, 6)}
    model = model_of(text, weights)
    student, before, after = fitted(
        runner, model, lambda layers: without(layers, "a", [2, 7]), LEAST_SQUARES, feeds(model, {"n": 40})
    )
    assert not np.array_equal(student.model.graph.initializers["w2"].const_value.numpy(), weights["w2"])
    assert after < before


@pytest.mark.parametrize("bias", [(1, 3), (1,)], ids=["of two axes", "one for all"])
def test_a_bias_of_another_shape_is_not_made_up_for_by_the_weight(runner, bias):
    """The teacher's values hold the bias; were it to stay, a weight fitted to them would add it a second time."""
    text = "agraph (float[n, 6] x) => (float[n, 3] y) { a = Gemm(x, w0)  b = Relu(a)  y = Gemm(b, w1, b1) }"
    weights = {"w0": random_weight(6, 10), "w1": random_weight(10, 3), "b1": 5 + random_weight(*bias)}
    model = model_of(text, weights)
    _student, before, after = fitted(
        runner, model, lambda layers: keeping(layers, 0.6), LEAST_SQUARES, feeds(model, {"n": 40})
    )
    assert after <= before * 1.001


@pytest.mark.parametrize("attributes", ["alpha=0.25", "alpha=0.25, transB=1", "beta=0.5"])
def test_gemm_with_factors(runner, attributes):
    text = f"agraph (float[n, 6] x) => (float[n, 3] y) {{ a = Gemm(x, w0)  b = Relu(a)  y = Gemm<{attributes}>(b, w1, b1) }}"
    weights = {"w0": random_weight(6, 10), "w1": random_weight(10, 3), "b1": random_weight(3)}
    if "transB" in attributes:
        weights["w1"] = weights["w1"].T.copy()
    model = model_of(text, weights)
    _student, before, after = fitted(
        runner, model, lambda layers: keeping(layers, 0.6), LEAST_SQUARES, feeds(model, {"n": 40})
    )
    assert after <= before * 1.001 and after < 0.6


def test_gemm_without_a_bias_and_with_beta(runner):
    text = "agraph (float[n, 6] x) => (float[n, 3] y) { a = Gemm(x, w0)  b = Sigmoid(a)  y = Gemm<beta=0.5>(b, w1) }"
    model = model_of(text, {"w0": random_weight(6, 10), "w1": random_weight(10, 3)})
    _student, before, after = fitted(
        runner, model, lambda layers: keeping(layers, 0.6), LEAST_SQUARES, feeds(model, {"n": 40})
    )
    assert after <= before * 1.001


def test_a_transposed_input(runner):
    text = "agraph (float[6, n] x) => (float[n, 3] y) { a = Gemm<transA=1>(x, w0)  t = Transpose<perm=[1,0]>(a)  b = Relu(t)  y = Gemm<transA=1>(b, w1) }"
    model = model_of(text, {"w0": random_weight(6, 10), "w1": random_weight(10, 3)})
    _student, before, after = fitted(
        runner, model, lambda layers: keeping(layers, 0.6), LEAST_SQUARES, feeds(model, {"n": 60})
    )
    assert after <= before * 1.001


def test_rows_that_went_with_the_cut_fit_nothing_to_the_wrong_ones(runner):
    """Heads that one weight reads are rows of it: a student that lost some has rows that are others than the teacher's."""
    text = """agraph (float[n, 6] x) => (float[n, 32] y) {
        z = MatMul(x, wz)  r = Relu(z)  a = MatMul(r, w0)  b = Reshape(a, shape)  c = Relu(b)  d = MatMul(c, w1)
        e = Relu(d)  f = Reshape(e, flat)  g = MatMul(f, w2)  y = Relu(g)
    }"""
    shapes = {"wz": (6, 12), "w0": (12, 40), "w1": (5, 7), "w2": (56, 32)}
    weights = {name: random_weight(*size) for name, size in shapes.items()}
    model = model_of(text, weights | {"shape": np.array([0, 8, 5]), "flat": np.array([0, 56])})
    layers = layers_of(model)
    student, before, after = fitted(
        runner, model, lambda layers: keeping(layers, 0.5), LEAST_SQUARES, feeds(model, {"n": 40})
    )
    small = student.node(next(layer for layer in layers.all if layer.node.outputs[0].name == "d"))
    assert (
        run(student.model, feeds(model, {"n": 1}, count=1))
        and student.model.graph.initializers["w0"].const_value.numpy().shape[1] < 40
    )
    assert np.array_equal(constant(small.inputs[1]), weights["w1"]) and after < before


def test_a_single_output_with_a_bias(runner):
    text = "agraph (float[n, 6] x) => (float[n, 1] y) { a = Gemm(x, w0)  b = Relu(a)  y = Gemm(b, w1, b1) }"
    model = model_of(text, {"w0": random_weight(6, 10), "w1": random_weight(10, 1), "b1": np.float32([40.0])})
    _student, before, after = fitted(
        runner, model, lambda layers: keeping(layers, 0.6), LEAST_SQUARES, feeds(model, {"n": 40})
    )
    assert after <= before and after < 0.3


def test_several_students_in_one_sweep_are_as_each_alone(runner):
    model = residual()
    layers, found = layers_of(model), feeds(model, {"n": 4})
    alive = keeping(layers, 0.5)
    moments = InputMoments(model, runner, apart(found))
    ways = [LEAST_SQUARES, Fit("least-squares", 0.1, shortcut=False), STATISTICS]
    together = [(cut_student(layers, alive, moments), how) for how in ways]
    fit(layers, together, runner, apart(found))
    for student, how in together:
        alone = cut_student(layers, alive, moments)
        fit(layers, [(alone, how)], runner, apart(found))
        assert model_bytes(alone.model) == model_bytes(student.model)
    assert len({model_bytes(student.model) for student, _how in together}) == 3


def test_the_teacher_is_as_it_was(runner):
    model = residual()
    before = model_bytes(model)
    fitted(runner, model, lambda layers: keeping(layers, 0.5), LEAST_SQUARES, feeds(model, {"n": 4}))
    assert model_bytes(model) == before


def test_a_value_that_is_not_finite_leaves_its_layer_and_those_behind_as_they_are(runner):
    model = chain()
    found = feeds(model, {"n": 8})
    found[3]["x"][2] = np.nan
    layers = layers_of(model)
    student = cut_student(layers, keeping(layers, 0.5), None)
    before = model_bytes(student.model)
    fit(layers, [(student, LEAST_SQUARES)], runner, apart(found))
    assert model_bytes(student.model) == before


def test_half_precision(runner):
    text = "agraph (float16[n, 6] x) => (float16[n, 3] y) { a = Gemm(x, w, b)  c = Relu(a)  y = Gemm(c, v, d) }"
    weights = {"w": random_weight(6, 10), "v": random_weight(10, 3), "b": random_weight(10), "d": random_weight(3)}
    model = model_of(text, {name: array.astype(np.float16) for name, array in weights.items()})
    student, before, after = fitted(
        runner, model, lambda layers: keeping(layers, 0.6), LEAST_SQUARES, feeds(model, {"n": 40}), updated=False
    )
    assert {v.const_value.dtype.name for v in student.model.graph.initializers.values()} == {"FLOAT16"}
    assert after < 0.8 * before


def test_large_means_are_no_trouble(runner):
    model = chain()
    found = [{"x": feed["x"] + np.float32(500)} for feed in feeds(model, {"n": 40})]
    _student, before, after = fitted(runner, model, lambda layers: keeping(layers, 0.6), LEAST_SQUARES, found)
    assert after <= before * 1.01


def test_statistics_bring_back_means_and_deviations(runner):
    text = "agraph (float[n, 6] x) => (float[n, 3] y) { a = Gemm(x, w, b)  c = Relu(a)  y = Gemm(c, v, d) }"
    weights = {"w": random_weight(6, 16), "v": random_weight(16, 3), "b": random_weight(16), "d": random_weight(3)}
    model = model_of(text, weights)
    found = feeds(model, {"n": 50})
    student, _before, _after = fitted(
        runner, model, lambda layers: keeping(layers, 0.6), STATISTICS, found, updated=False
    )
    mine, theirs = (np.concatenate([outputs[0] for outputs in run(m, found)]) for m in (student.model, model))
    assert np.allclose(mine.mean(axis=0), theirs.mean(axis=0), atol=1e-4)
    assert np.allclose(mine.std(axis=0), theirs.std(axis=0), rtol=1e-3)


def test_a_dead_channel_is_not_blown_up_by_statistics(runner):
    model = dead_chain()
    student, _before, _after = fitted(
        runner,
        model,
        lambda layers: without(layers, "a", [0, 2, 3, 5, 6, 8, 9, 10]),
        STATISTICS,
        feeds(model, {"n": 30}),
        updated=False,
    )
    assert all(np.isfinite(v.const_value.numpy()).all() for v in student.model.graph.initializers.values())


def test_ways_in_words():
    assert Fit("least-squares", 0.01).describe() == "least-squares, damping 0.01"
    assert STATISTICS.describe() == "statistics"
