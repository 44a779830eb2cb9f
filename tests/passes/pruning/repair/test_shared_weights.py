"""A weight that several layers read, such as that of siamese towers: one layer with the rows of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_weight, run
from hypothesis import given, settings
from hypothesis import strategies as st
from repair_kit import apart, feeds, keeping, layer_of, layers_of, source, without

from irc.calibration.compensation import DAMPING
from irc.channel_surgery import cut
from irc.ir import constant, snapshot
from irc.pass_base import Context
from irc.passes.pruning.repair.batches import Batch
from irc.passes.pruning.repair.input_moments import InputMoments
from irc.passes.pruning.repair.layer_fitting import Fit, fit
from irc.passes.pruning.repair.repairer import Repairer, apply_weights
from irc.passes.pruning.repair.student import cut_student, updates
from irc.testing.integrity import model_bytes

Array = np.ndarray[Any, Any]
LEAST_SQUARES = Fit("least-squares", 1e-4)
STATISTICS = Fit("statistics")


def towers(head: str, tower: str, join: str, *, output: str = "float[n, 3] y") -> str:
    """Two towers of the same text: "$" is 1 in the first and 2 in the second; they read x1 and x2 and make d1 and d2."""
    kind = head.replace("$", "")
    lines = "\n".join(tower.replace("$", str(i)) for i in (1, 2))
    return f"agraph ({kind} x1, {kind} x2) => ({output}) {{ {lines} {join} }}"


JOIN = "s = Sub(d1, d2)  y = MatMul(s, w2)"
PRODUCTS = towers("float[n, 6]", "a$ = MatMul(x$, w0)  h$ = Sigmoid(a$)  c$ = MatMul(h$, w1)  d$ = Sigmoid(c$)", JOIN)
GEMMS = towers("float[n, 6]", "a$ = Gemm(x$, w0, b0)  h$ = Relu(a$)  c$ = Gemm(h$, w1, b1)  d$ = Relu(c$)", JOIN)
OWN = GEMMS.replace("a2 = Gemm(x2, w0, b0)", "a2 = Gemm(x2, w0, b0x)").replace("(h2, w1, b1)", "(h2, w1, b1x)")
ADDS = towers("float[n, 6]", "a$ = MatMul(x$, w0)  h$ = Relu(a$)  m$ = MatMul(h$, w1)  c$ = Add(m$, b1)  d$ = Relu(c$)", JOIN)  # fmt: skip
CONVS = towers(
    "float[n, 3, 7, 7]",
    "a$ = Conv<pads=[1,1,1,1]>(x$, k0, b0)  h$ = Relu(a$)  c$ = Conv<strides=[$,$]>(h$, k1, b1)  r$ = Relu(c$)  g$ = GlobalAveragePool(r$)  d$ = Flatten(g$)",
    JOIN,
)
TRANSPOSED = PRODUCTS.replace("c1 =", "t = Transpose<perm=[1,0]>(w1t)  c1 =").replace(", w1)", ", t)")
SHAPES = {
    "w0": (6, 12), "b0": (12,), "b0x": (12,), "w1": (12, 8), "w1t": (8, 12), "b1": (8,), "b1x": (8,), "w2": (8, 3),
    "k0": (12, 3, 3, 3), "k1": (8, 12, 3, 3),
}  # fmt: skip
MODELS = {
    "MatMul": PRODUCTS,
    "Gemm": GEMMS,
    "own biases": OWN,
    "Add": ADDS,
    "Conv": CONVS,
    "behind a Transpose": TRANSPOSED,
}


def built(text: str) -> ir.Model:
    names = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return model_of(text, {n: random_weight(*s, seed=i) for i, (n, s) in enumerate(SHAPES.items()) if n in names})


def integers(text: str, *, each: bool) -> ir.Model:
    """The weights w0 and w1 as int8, behind a DequantizeLinear each, or behind one for all that read them."""
    lines = []
    weights: dict[str, Array] = {"w2": random_weight(8, 3)}
    for name, shape in (("w0", (6, 12)), ("w1", (12, 8))):
        weight = random_weight(*shape)
        weights[f"{name}s"] = np.abs(weight).max(axis=0) / np.float32(127)
        weights[f"{name}q"] = np.rint(weight / weights[f"{name}s"]).astype(np.int8)
        for i in (1, 2) if each else (1,):
            lines.append(f"{name}d{i} = DequantizeLinear<axis=1>({name}q, {name}s)")
        for i in (1, 2):
            text = text.replace(f"{i}, {name})", f"{i}, {name}d{i if each else 1})")
    return model_of(text.replace("{", "{ " + "  ".join(lines) + "  ", 1), weights)


QUANTIZED = {
    "one DequantizeLinear": integers(PRODUCTS, each=False),
    "a DequantizeLinear each": integers(PRODUCTS, each=True),
}


def samples(model: ir.Model, *, count: int = 12, seed: int = 0) -> list[dict[str, Array]]:
    """What the second tower reads is half as large, and shifted."""
    found = feeds(model, {"n": 12}, count=count, seed=seed)
    for feed in found:
        feed["x2"] = (feed["x2"] * np.float32(0.5) + np.float32(0.3)).astype(np.float32)
    return found


def error(student: ir.Model, teacher: ir.Model, held: Sequence[Mapping[str, Array]]) -> float:
    """Of the outputs, on samples that nothing was fitted to."""
    mine, theirs = (np.concatenate([outputs[0].ravel() for outputs in run(m, held)]) for m in (student, teacher))
    return float(np.square(mine - theirs).mean() / np.square(theirs - theirs.mean()).mean())


@pytest.mark.parametrize("how", [None, LEAST_SQUARES, STATISTICS], ids=["update", "least-squares", "statistics"])
@pytest.mark.parametrize("name", [*MODELS, *QUANTIZED])
def test_the_error_on_held_samples_falls_and_the_weight_stays_one(runner, name, how):
    model = built(MODELS[name]) if name in MODELS else snapshot(QUANTIZED[name])
    layers, found, held = layers_of(model), samples(model), samples(model, seed=1)
    alive = keeping(layers, 0.6)
    raw, student = cut_student(layers, alive, None), cut_student(layers, alive, InputMoments(model, runner, apart(found)))  # fmt: skip
    if how is not None:
        fit(layers, [(student, how)], runner, apart(found))
    before, after = error(raw.model, model, held), error(student.model, model, held)
    assert after < (0.8 if how is STATISTICS or name in QUANTIZED else 0.6) * before, (before, after)
    for uses in layers.weights:
        assert student.weight_of(uses) is not None
    assert len(student.model.graph.initializers) == len(raw.model.graph.initializers), "no constant is there twice"


GAUSSIAN = st.integers(0, 10_000)


def one_and_two(seed: int, few: int, *, bias: bool) -> tuple[ir.Model, ir.Model, list, list]:
    """A layer that reads the rows of two, and those two; with their samples."""
    last = ", b1" if bias else ""
    two = towers("float[n, 6]", f"a$ = Gemm(x$, w0, b0)  h$ = Relu(a$)  d$ = Gemm<beta={1.0 if bias else 0.5}>(h$, w1{last})", "y = Identity(d1)", output="float[n, 8] y, float[m, 8] d2")  # fmt: skip
    two = two.replace("float[n, 6] x2", "float[m, 6] x2")
    one = f"agraph (float[n, 6] x) => (float[n, 8] y) {{ a = Gemm(x, w0, b0)  b = Relu(a)  y = Gemm<beta={1.0 if bias else 0.5}>(b, w1{last}) }}"
    weights = {n: random_weight(*SHAPES[n], seed=seed + i) for i, n in enumerate(("w0", "b0", "w1", *(["b1"] if bias else [])))}  # fmt: skip
    models = model_of(one, weights), model_of(two, weights)
    apart_ = feeds(models[1], {"n": 30, "m": few}, count=4, seed=seed)
    for feed in apart_:
        feed["x2"] = feed["x2"] * np.float32(0.4) + np.float32(0.5)
    return *models, [{"x": np.concatenate([feed["x1"], feed["x2"]])} for feed in apart_], apart_


@settings(max_examples=12, deadline=None)
@given(GAUSSIAN, st.integers(5, 60), st.booleans())
def test_the_update_is_that_of_one_layer_that_reads_the_rows_of_all(runner, seed, few, bias):
    one, two, joined, found = one_and_two(seed, few, bias=bias)
    alone, pair = layers_of(one), layers_of(two)
    (expected,) = updates(alone, without(alone, "a", [1, 4, 7, 9]), InputMoments(one, runner, apart(joined)))
    (update,) = updates(pair, without(pair, "a1", [1, 4, 7, 9]), InputMoments(two, runner, apart(found)))
    assert np.allclose(update.matrices, expected.matrices, atol=1e-4)
    assert np.allclose(update.shift, expected.shift, atol=1e-4)
    ((other, shift),) = update.others
    assert other is layer_of(pair, "d2") and update.layer is layer_of(pair, "d1")
    assert np.array_equal(shift, update.shift), "one bias stays one"


@settings(max_examples=8, deadline=None)
@given(GAUSSIAN, st.integers(5, 60), st.sampled_from([LEAST_SQUARES, STATISTICS, Fit("least-squares", 1.0)]))
def test_a_fit_is_that_of_one_layer_that_reads_the_rows_of_all(runner, seed, few, how):
    one, two, joined, found = one_and_two(seed, few, bias=True)
    results = []
    for model, data, names in ((one, joined, ("a", "y")), (two, found, ("a1", "d1"))):
        layers = layers_of(model)
        student = cut_student(layers, without(layers, names[0], [1, 4, 7, 9]), None)
        fit(layers, [(student, how)], runner, apart(data))
        node = student.named(names[1])
        results.append([constant(value) for value in node.inputs[1:]])
        if names[1] == "d1":
            assert list(student.named("d2").inputs[1:]) == list(node.inputs[1:])
    for mine, theirs in zip(*results, strict=True):
        assert np.allclose(mine, theirs, atol=1e-4)


@settings(max_examples=8, deadline=None)
@given(GAUSSIAN, st.integers(5, 60), st.sampled_from([None, Fit("least-squares", 1e-3)]))
def test_with_biases_of_their_own_rows_count_about_the_mean_of_each(runner, seed, few, how):
    """Against numpy: the least squares solution of rows that have lost their means, each tower's its own."""
    _one, two, _joined, found = one_and_two(seed, few, bias=True)
    second = next(node for node in two.graph if node.outputs[0].name == "d2")
    own = two.graph.initializers["b1"].const_value.numpy() * 2
    two.graph.register_initializer(ir.Value(name="b1x", const_value=ir.tensor(own, name="b1x"), shape=ir.Shape([8]), type=ir.TensorType(ir.DataType.FLOAT)))  # fmt: skip
    second.replace_input_with(2, two.graph.initializers["b1x"])
    layers, gone = layers_of(two), [1, 4, 7, 9]
    alive, kept = without(layers, "a1", gone), np.delete(np.arange(12), gone)
    student = cut_student(layers, alive, InputMoments(two, runner, apart(found)) if how is None else None)
    if how is not None:
        fit(layers, [(student, how)], runner, apart(found))
    first, bias, weight = (two.graph.initializers[n].const_value.numpy().astype(np.float64) for n in ("w0", "b0", "w1"))
    rows = [np.maximum(np.concatenate([feed[x] for feed in found]) @ first + bias, 0) for x in ("x1", "x2")]
    centred = np.concatenate([part - part.mean(axis=0) for part in rows])
    # Damping draws the weight towards none of its change, or stands for samples of all channels.
    read = centred if how is None else centred[:, kept]
    strength = np.sqrt((DAMPING if how is None else how.damping) * np.square(read).sum(axis=0).mean())
    extended = np.concatenate([centred, strength * np.eye(12)])
    expected = np.linalg.lstsq(extended[:, kept], extended @ weight, rcond=None)[0]
    assert np.allclose(constant(student.named("d1").inputs[1]), expected, atol=2e-3)
    for part, name, before in zip(rows, ("d1", "d2"), ("b1", "b1x"), strict=True):
        old = two.graph.initializers[before].const_value.numpy()
        assert np.allclose(constant(student.named(name).inputs[2]), old + part.mean(axis=0) @ weight - part[:, kept].mean(axis=0) @ expected, atol=5e-3)  # fmt: skip


@pytest.mark.parametrize("how", [None, LEAST_SQUARES], ids=["update", "least-squares"])
def test_biases_of_their_own_keep_the_mean_of_each(runner, how):
    """The towers read other means: with one bias for both neither keeps its own."""
    outputs = "float[n, 8] c1, float[n, 8] c2"
    means = {}
    for text in (OWN, GEMMS):
        model = built(text.replace("float[n, 3] y", f"{outputs}, float[n, 3] y"))
        layers, found = layers_of(model), samples(model)
        student = cut_student(layers, without(layers, "a1", [0, 3, 5, 8]), InputMoments(model, runner, apart(found)))
        if how is not None:
            fit(layers, [(student, how)], runner, apart(found))
        theirs, mine = ([np.concatenate([o[i] for o in run(m, found)]).mean(axis=0) for i in (0, 1)] for m in (model, student.model))  # fmt: skip
        means[text] = [float(np.abs(m - t).max()) for m, t in zip(mine, theirs, strict=True)]
        assert (student.named("c1").inputs[2] is student.named("c2").inputs[2]) is (text == GEMMS)
    assert max(means[OWN]) < 1e-4 < 1e-3 < min(means[GEMMS])


def test_a_use_that_reads_what_is_whole_fits_the_weight_too(runner):
    """f reads the input of the model by the weight of d, whose rows lost something upstream."""
    text = """agraph (float[n, 8] x) => (float[n, 3] y) {
        a = Gemm(x, w0)  b = Relu(a)  c = Gemm(b, w1)  e = Relu(x)  d = MatMul(c, v)  f = MatMul(e, v)  g = Mul(d, f)  y = MatMul(g, w2)
    }"""
    shapes = {"w0": (8, 12), "w1": (12, 8), "v": (8, 8), "w2": (8, 3)}
    model = model_of(text, {name: random_weight(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())})
    layers, found, held = layers_of(model), feeds(model, {"n": 20}), feeds(model, {"n": 20}, seed=1)
    alive = without(layers, "a", [2, 7, 9])
    raw, student = cut_student(layers, alive, None), cut_student(layers, alive, None)
    fit(layers, [(student, LEAST_SQUARES)], runner, apart(found))
    weight = constant(student.named("d").inputs[1])
    assert student.named("d").inputs[1] is student.named("f").inputs[1]
    assert not np.array_equal(weight, constant(raw.named("d").inputs[1]))
    assert error(student.model, model, held) < 0.8 * error(raw.model, model, held)


def test_uses_that_lose_other_channels_keep_what_they_have_each(runner):
    """A vector has labels for every use of its own: one use reads the model's input, which stays whole."""
    text = """agraph (float[n, 8] x) => (float[n, 1] y, float[n, 1] z) { a = MatMul(x, w0)  b = Relu(a)  y = MatMul(b, v)  z = MatMul(x, v) }"""
    model = model_of(text, {"w0": random_weight(8, 8), "v": random_weight(8, 1)})
    layers, found = layers_of(model), feeds(model, {"n": 20})
    alive, moments = without(layers, "a", [2, 7]), InputMoments(model, runner, apart(found))
    assert not updates(layers, alive, moments)
    student = cut_student(layers, alive, moments)
    fit(layers, [(student, LEAST_SQUARES)], runner, apart(found))
    assert np.array_equal(constant(student.named("z").inputs[1]), random_weight(8, 1))
    assert np.array_equal(constant(student.named("y").inputs[1]), np.delete(random_weight(8, 1), [2, 7], axis=0))


ALONE = {
    "read along the other axis": "y = MatMul(b, w)  z = Gemm<transB=1>(y, w)",
    "by other factors": "c = Gemm(b, w)  z = Gemm<alpha=0.5>(c, w)",
    "read by something else": "c = MatMul(b, w)  e = Abs(w)  z = MatMul(c, e)",
    "transposed by one": "c = MatMul(b, w)  t = Transpose<perm=[1,0]>(w)  z = MatMul(c, t)",
    "read in a body": "c = MatMul(b, w)  z = If(p) <then_branch = t () => (float[n, 8] u) { u = MatMul(c, w) }, else_branch = e () => (float[n, 8] o) { o = Neg(c) }>",
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_weights_that_one_change_does_not_serve(runner, name):
    head = "float[n, 8] x" + (", bool p" if "(p)" in ALONE[name] else "")
    text = f"agraph ({head}) => (float[n, 8] z) {{ a = MatMul(x, w0)  b = Relu(a)  {ALONE[name]} }}"
    model = model_of(text, {"w0": random_weight(8, 8), "w": random_weight(8, 8, seed=1)})
    layers = layers_of(model)
    assert [[layer.node.outputs[0].name for layer in uses] for uses in layers.weights][:1] == [["a"]]
    assert all(layer.weight.origin.name != "w" for uses in layers.weights for layer in uses)
    assert layer_of(layers, "a").shared_by == 1 and any(layer.shared_by > 1 for layer in layers.all)


def test_integers_that_are_dequantized_in_two_ways_are_two_weights(runner):
    model = integers(PRODUCTS, each=True)
    second = next(node for node in model.graph if node.outputs[0].name == "w1d2")
    scale = model.graph.initializers["w1s"]
    other = ir.Value(name="w1t", const_value=ir.tensor(scale.const_value.numpy() * 2), shape=scale.shape, type=scale.type)  # fmt: skip
    model.graph.register_initializer(other)
    second.replace_input_with(1, other)
    assert [len(uses) for uses in layers_of(model).weights] == [2, 1]


def test_integers_get_one_scale_however_often_they_are_dequantized(runner):
    for name, model in QUANTIZED.items():
        layers = layers_of(model)
        assert [len(uses) for uses in layers.weights] == [2, 2, 1], name
        student = cut_student(layers, keeping(layers, 0.6), InputMoments(model, runner, apart(samples(model))))
        (first, other) = (student.named(value).inputs[1].producer() for value in ("c1", "c2"))
        assert first.inputs[:2] == other.inputs[:2] and (first is other) is ("one" in name)
        assert not np.array_equal(constant(first.inputs[1]), constant(model.graph.initializers["w1s"]))
        assert np.abs(constant(first.inputs[0])).max() == 127


@pytest.mark.parametrize("method", ["update", "least-squares", "auto"])
@pytest.mark.parametrize("name", [*MODELS, *QUANTIZED])
def test_what_was_written_down_gives_the_same_bytes(runner, name, method):
    model = built(MODELS[name]) if name in MODELS else snapshot(QUANTIZED[name])
    layers = layers_of(model)
    mine = Repairer(layers.propagation, Context(data=source(samples(model)), runner=runner), layers)
    result = mine.repaired(keeping(layers, 0.5), method)
    assert result.how != "cut alone"
    written = mine.written(result)
    copies = []
    for _time in range(2):
        copy = snapshot(model)
        cut(copy, layers.propagation, result.student.alive)
        assert apply_weights(copy, layers, written) > 0
        copies.append(copy)
    assert model_bytes(copies[0]) == model_bytes(copies[1])
    told = [key for key in written if key.startswith("weight ")]
    assert len(told) <= len(layers.weights), "a weight is told once"
    references = {key: value for key, value in written.items() if isinstance(value, str)}
    assert (references == {}) is (name in ("MatMul", "own biases", "behind a Transpose", *QUANTIZED))
    assert all(f"bias {value}" in written for value in references.values())
    for a, b in zip(run(copies[0], samples(model)), run(result.student.model, samples(model)), strict=True):
        assert np.array_equal(a[0], b[0]) if name in MODELS else np.allclose(a[0], b[0], atol=1e-6)


def test_rows_of_one_use_that_is_not_finite_leave_the_weight(runner):
    model = built(GEMMS)
    found = samples(model)
    found[3]["x2"][1] = np.nan
    layers = layers_of(model)
    alive, moments = without(layers, "a1", [2, 7]), InputMoments(model, runner, apart(found))
    assert not updates(layers, alive, moments)
    student = cut_student(layers, alive, None)
    before = model_bytes(student.model)
    fit(layers, [(student, LEAST_SQUARES)], runner, apart(found))
    assert model_bytes(student.model) == before


UNROLLED = """agraph (float[n, 4] x) => (float[n, 3] y) {
    h0 = MatMul(x, w0)  r0 = Tanh(h0)  h1 = Gemm(r0, v, b)  r1 = Tanh(h1)  h2 = Gemm(r1, v, b)  r2 = Tanh(h2)  h3 = Gemm(r2, v, b)
    r3 = Tanh(h3)  y = MatMul(r3, w2)
}"""


@pytest.mark.parametrize("how", [None, LEAST_SQUARES, STATISTICS], ids=["update", "least-squares", "statistics"])
def test_an_unrolled_loop(runner, how):
    shapes = {"w0": (4, 24), "v": (24, 24), "b": (24,), "w2": (24, 3)}
    model = model_of(UNROLLED, {name: random_weight(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())})
    layers, found, held = layers_of(model), feeds(model, {"n": 40}), feeds(model, {"n": 40}, seed=1)
    alive = keeping(layers, 0.7)
    raw, student = cut_student(layers, alive, None), cut_student(layers, alive, InputMoments(model, runner, apart(found)))  # fmt: skip
    if how is not None:
        fit(layers, [(student, how)], runner, apart(found))
    updated = cut_student(layers, alive, InputMoments(model, runner, apart(found)))
    bound = 0.5 * error((updated if how is LEAST_SQUARES else raw).model, model, held)
    assert error(student.model, model, held) < bound
    mine, before = (constant(each.named("h2").inputs[1]) for each in (student, updated))
    assert mine.shape == (17, 17) and np.array_equal(mine, before) is (how is None)
    assert len({student.named(name).inputs[i] for name in ("h1", "h2", "h3") for i in (1, 2)}) == 2


def test_samples_in_batches_are_as_one_by_one(runner):
    """The quota of rows goes by samples, whichever use they are of."""
    model = built(GEMMS)
    layers, found = layers_of(model), samples(model)
    alive = keeping(layers, 0.6)
    joined = {name: np.concatenate([feed[name] for feed in found]) for name in found[0]}
    fitted = []
    for batches in (apart(found), [Batch(joined, len(found), 0)]):
        student = cut_student(layers, alive, InputMoments(model, runner, batches))
        fit(layers, [(student, LEAST_SQUARES)], runner, batches)
        fitted.append(student)
    outputs = [np.concatenate([o[0] for o in run(student.model, found)]) for student in fitted]
    assert np.allclose(*outputs, atol=1e-4)
