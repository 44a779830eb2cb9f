"""The cut with the weights that read it updated: the least squares solution on what stays, the mean of the outputs kept."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import model_of, random_weight, run
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_models import attention, cnn
from repair_kit import apart, chain, feeds, keeping, layer_of, layers_of, residual, without

from irc.calibration.compensation import DAMPING
from irc.ir import constant
from irc.passes.pruning.repair.input_moments import InputMoments
from irc.passes.pruning.repair.student import cut_student, updates
from irc.testing.integrity import model_bytes


def made(model, runner, alive_of, *sizes, count=8):
    """Layers, survivors, samples and moments of a model."""
    layers = layers_of(model)
    found = feeds(model, *sizes, count=count)
    return layers, alive_of(layers), found, InputMoments(model, runner, apart(found))


@pytest.mark.parametrize("build", [chain, residual, cnn])
def test_a_student_with_nothing_cut_is_the_teacher(runner, build):
    layers, alive, _found, moments = made(build(), runner, lambda layers: np.ones(layers.propagation.constraints.count, bool), {"n": 4})  # fmt: skip
    assert not updates(layers, alive, moments)
    assert model_bytes(cut_student(layers, alive, moments).model) == model_bytes(cut_student(layers, alive, None).model)
    feed = feeds(layers.propagation.model, {"n": 3}, count=1)
    for mine, theirs in zip(run(layers.propagation.model, feed)[0], run(cut_student(layers, alive, moments).model, feed)[0], strict=True):  # fmt: skip
        assert np.array_equal(mine, theirs)


def test_the_update_is_the_least_squares_solution_on_the_columns_that_stay(runner):
    model = chain()
    layers, alive, found, moments = made(model, runner, lambda layers: without(layers, "a", [1, 4, 5, 9]), {"n": 40})
    student = cut_student(layers, alive, moments)
    layer = layer_of(layers, "d")
    x = np.concatenate([np.maximum(f["x"] @ weight(model, "w0") + weight(model, "b0"), 0) for f in found])
    kept = np.delete(np.arange(12), [1, 4, 5, 9])
    # Damping stands for samples of its own: the square root of it, one column at a time.
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x))
    strength = DAMPING * np.mean(np.square(centred).sum(axis=0))
    augmented = np.concatenate([centred, np.sqrt(strength) * np.eye(12)])
    expected = np.linalg.lstsq(augmented[:, kept], augmented @ weight(model, "w1").T, rcond=None)[0].T
    node = student.node(layer)
    assert np.allclose(constant(node.inputs[1]), expected, atol=1e-3)
    y = x @ weight(model, "w1").T + weight(model, "b1")
    bias = y.mean(axis=0) - x[:, kept].mean(axis=0) @ constant(node.inputs[1]).T
    assert np.allclose(constant(node.inputs[2]), bias, atol=1e-4), "the mean of the output stays"


def weight(model, name):
    return model.graph.initializers[name].const_value.numpy()


def test_a_layer_without_bias_makes_up_for_means_too(runner):
    text = "agraph (float[n, 6] x) => (float[n, 3] y) { a = MatMul(x, w)  b = Sigmoid(a)  y = MatMul(b, v) }"
    model = model_of(text, {"w": random_weight(6, 10), "v": random_weight(10, 3)})
    layers, alive, found, moments = made(model, runner, lambda layers: keeping(layers, 0.6), {"n": 60})
    raw, updated = cut_student(layers, alive, None), cut_student(layers, alive, moments)
    assert updated.node(layer_of(layers, "y")).op_type == "MatMul" and len(list(updated.model.graph)) == 3
    error = {s: np.square(np.concatenate([m[0] - t[0] for m, t in zip(run(s.model, found), run(model, found), strict=True)])).mean() for s in (raw, updated)}  # fmt: skip
    assert error[updated] < 0.1 * error[raw], "a sigmoid's mean is most of it"


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([chain, residual]), st.floats(0.3, 0.9))
def test_what_an_update_costs_its_reader_is_never_more_than_without(runner, seed, build, share):
    """The outputs of a reader of the cut, on the samples of the update."""
    model = build(seed % 7)
    layers, alive, _found, moments = made(model, runner, lambda layers: keeping(layers, share, seed=seed), {"n": 10})
    for update in updates(layers, alive, moments):
        gone = ~alive[layers.labels_read(update.layer)][update.layer.layer.channel_of_input]
        teacher = update.layer.layer.matrices(update.layer.weight.values).astype(np.float64)
        raw = np.where(gone[:, :, None], 0.0, teacher)
        assert not update.matrices[gone].any()
        for group, gram in enumerate(moments[update.layer].gram.astype(np.float64)):
            if update.layer.adds_bias is None:
                gram = moments[update.layer].second(group)
            damped = gram + DAMPING * np.diagonal(gram).mean() * np.eye(len(gram))
            cost = [np.trace((teacher[group] - other[group]).T @ damped @ (teacher[group] - other[group])) for other in (update.matrices, raw)]  # fmt: skip
            assert cost[0] <= cost[1] * (1 + 1e-6) + 1e-9


def test_biases_that_layers_share_are_changed_for_each_alone(runner):
    text = """agraph (float[n, 6] x) => (float[n, 8] y) {
        a = Gemm(x, w0, b)  c = Relu(a)  d = Gemm(c, w1, b)  e = Relu(d)  y = Gemm(e, w2, b)
    }"""
    weights = {"w0": random_weight(6, 8), "w1": random_weight(8, 8), "w2": random_weight(8, 8, seed=1)}
    model = model_of(text, weights | {"b": random_weight(8)})
    layers, alive, found, moments = made(model, runner, lambda layers: without(layers, "d", [0, 3]), {"n": 30})
    student = cut_student(layers, alive, moments)
    assert np.array_equal(constant(student.named("a").inputs[2]), weight(model, "b"))
    assert np.array_equal(constant(student.named("d").inputs[2]), np.delete(weight(model, "b"), [0, 3]))
    shifted = constant(student.named("y").inputs[2])
    assert shifted.shape == (8,) and not np.allclose(shifted, weight(model, "b"))
    assert np.array_equal(weight(model, "b"), random_weight(8)), "the teacher is as it was"
    mean = [np.concatenate([outputs[0] for outputs in run(m, found)]).mean(axis=0) for m in (model, student.model)]
    assert np.allclose(*mean, atol=1e-4)


def test_a_weight_that_something_else_reads_too_is_cut_and_left_alone(runner):
    text = """agraph (float[n, 8] x) => (float[n, 3] y) {
        a = MatMul(x, w0)  b = Relu(a)  c = MatMul(b, w1)  d = Relu(a)  t = Transpose<perm=[1,0]>(w1)  e = Gemm<transB=1>(d, t)  n = Abs(w1)
        f = MatMul(d, n)  g = Add(c, f)  h = Add(g, e)  y = MatMul(h, w2)
    }"""
    weights = {"w0": random_weight(8, 10), "w1": random_weight(10, 6), "w2": random_weight(6, 3)}
    model = model_of(text, weights)
    layers, alive, _found, moments = made(model, runner, lambda layers: without(layers, "a", [2, 7]), {"n": 30})
    assert not updates(layers, alive, moments)
    student = cut_student(layers, alive, moments)
    assert np.array_equal(constant(student.named("c").inputs[1]), np.delete(weights["w1"], [2, 7], axis=0))


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_heads_and_groups(runner, mode):
    text = """agraph (float[n, 6, 5, 5] x) => (float[n, 4, 5, 5] y) {
        a = Conv(x, w0)  b = Relu(a)  y = Conv<group=2>(b, w1, b1)
    }"""
    grouped = model_of(
        text, {"w0": random_weight(12, 6, 1, 1), "w1": random_weight(4, 6, 1, 1), "b1": random_weight(4)}
    )
    for model in (grouped, attention()) if mode == "columns" else (attention(),):
        layers, alive, found, moments = made(
            model, runner, lambda layers: keeping(layers, 0.5, mode=mode), {"n": 3, "t": 5}, {"n": 2, "t": 7}
        )
        assert updates(layers, alive, moments) or model is grouped
        student = cut_student(layers, alive, moments)
        assert all(np.isfinite(outputs[0]).all() for outputs in run(student.model, found))


def test_half_precision_stays_half(runner):
    text = "agraph (float16[n, 6] x) => (float16[n, 3] y) { a = Gemm(x, w, b)  c = Relu(a)  y = Gemm(c, v, d) }"
    weights = {"w": random_weight(6, 10), "v": random_weight(10, 3), "b": random_weight(10), "d": random_weight(3)}
    model = model_of(text, {name: array.astype(np.float16) for name, array in weights.items()})
    layers, alive, found, moments = made(model, runner, lambda layers: keeping(layers, 0.6), {"n": 20})
    student = cut_student(layers, alive, moments)
    assert {value.const_value.dtype.name for value in student.model.graph.initializers.values()} == {"FLOAT16"}
    assert run(student.model, found)[0][0].dtype == np.float16


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_only_cut(runner, value):
    model = chain()
    weights = model.graph.initializers["w1"].const_value.numpy().copy()
    weights[2, 0] = value
    model = model_of(
        chain_text(), {**{n: v.const_value.numpy() for n, v in model.graph.initializers.items()}, "w1": weights}
    )
    layers, alive, _found, moments = made(model, runner, lambda layers: without(layers, "a", [3]), {"n": 10})
    student = cut_student(layers, alive, moments)
    assert np.array_equal(constant(student.named("d").inputs[1]), np.delete(weights, 3, axis=1), equal_nan=True)


def chain_text():
    from repair_kit import CHAIN

    return CHAIN


def test_a_stack_of_weights(runner):
    text = """agraph (float[n, 2, t, 6] x) => (float[n, 2, t, 3] y) {
        a = MatMul(x, w0)  b = Sigmoid(a)  y = MatMul(b, w1)
    }"""
    model = model_of(text, {"w0": random_weight(2, 6, 8), "w1": random_weight(2, 8, 3)})
    layers = layers_of(model)
    names = [family.name for family in __import__("irc.analysis.channels", fromlist=["x"]).ChannelGroups(layers.propagation, "columns").families]  # fmt: skip
    if not names:
        pytest.skip("the analysis cuts no stacks")
    layers, alive, found, moments = made(model, runner, lambda layers: keeping(layers, 0.5, mode="columns"), {"n": 3, "t": 9})  # fmt: skip
    error = []
    for using in (moments, None):
        small = cut_student(layers, alive, using).model
        error.append(
            sum(np.square(a[0] - b[0]).sum() for a, b in zip(run(small, found), run(model, found), strict=True))
        )
    assert error[0] < 0.5 * error[1]
