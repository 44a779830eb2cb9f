"""Layers as matrices: rows times matrices are what the operator computes, and rows do not depend on order or company."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.calibration.data import FeedList, Sample
from irc.errors import DataError
from irc.pass_base import Context
from irc.passes.quantization.layer_sample import Layer, sampled, simulated
from irc.passes.quantization.output_error import output_error, row_energies, row_importance
from irc.runner import Runner


def only_layer(model: ir.Model) -> Layer:
    found = [layer for layer in map(Layer.of, model.graph) if layer is not None]
    assert len(found) == 1
    return found[0]


def check(model: ir.Model, x: np.ndarray, *, bias: bool = False) -> Layer:
    """Rows times matrices has the numbers of the operator's output, position by position."""
    layer = only_layer(model)
    tensor = pass_kit.weight(model, "w")
    matrices = layer.matrices(tensor)
    assert matrices.shape == (layer.groups, layer.inputs, layer.outputs)
    assert np.array_equal(layer.tensor(matrices), tensor)
    assert layer.channel_of_input.shape == (layer.groups, layer.inputs)
    found = layer.factor * (layer.rows(x) @ matrices)
    assert found.shape[1] == layer.row_count(x.shape)
    (expected,) = pass_kit.run(model, {"x": x})
    if layer.node.op_type == "Conv":
        expected = np.moveaxis(expected, 1, -1).reshape(-1, layer.groups, layer.outputs).swapaxes(0, 1)
    elif layer.groups > 1:
        expected = expected.reshape(-1, layer.groups, *expected.shape[-2:]).swapaxes(0, 1)
    np.testing.assert_allclose(found.reshape(-1), expected.reshape(-1), rtol=1e-4, atol=1e-4)
    return layer


@st.composite
def convolutions(draw):
    depth = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 2, 4]))
    inside, outside = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(depth)]
    attributes = [f"group={groups}"]
    attributes.append(f"strides={[draw(st.integers(1, 3)) for _ in range(depth)]}")
    padding = draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID", "none"]))
    if padding == "pads":
        attributes.append(f"pads={[draw(st.integers(0, 2)) for _ in range(2 * depth)]}")
    elif padding != "none":
        attributes.append(f'auto_pad="{padding}"')
    if padding in ("pads", "none"):
        attributes.append(f"dilations={[draw(st.integers(1, 2)) for _ in range(depth)]}")
    spatial = [draw(st.integers(5, 7)) for _ in range(depth)]
    return groups, (groups * outside, inside, *kernel), (2, groups * inside, *spatial), ", ".join(attributes)


@given(case=convolutions())
@settings(max_examples=30, deadline=None)
def test_any_convolution(case):
    groups, weight, shape, attributes = case
    dims = ",".join(map(str, shape))
    model = pass_kit.parse(f"b (float[{dims}] x) => (float y) {{ y = Conv<{attributes}>(x, w) }}", {"w": weight})
    layer = check(model, np.random.default_rng(0).normal(size=shape).astype(np.float32))
    assert (layer.groups, layer.outputs) == (groups, weight[0] // groups)
    assert layer.channel_of_input.max() == shape[1] - 1


@pytest.mark.parametrize(
    ("operator", "weight", "shape"),
    [
        ("MatMul(x, w)", (5, 3), (4, 5)),
        ("MatMul(x, w)", (5, 3), (5,)),
        ("MatMul(x, w)", (5, 3), (2, 3, 4, 5)),
        ("MatMul(x, w)", (5,), (4, 5)),
        ("MatMul(x, w)", (1, 5, 3), (2, 4, 5)),
        ("MatMul(x, w)", (3, 5, 2), (3, 4, 5)),
        ("MatMul(x, w)", (3, 5, 2), (2, 1, 4, 5)),
        ("MatMul(x, w)", (3, 5, 2), (4, 5)),
        ("MatMul(x, w)", (1, 3, 5, 2), (2, 3, 4, 5)),
        ("Gemm(x, w)", (5, 3), (4, 5)),
        ("Gemm<transB=1, alpha=0.5>(x, w)", (3, 5), (4, 5)),
        ("Gemm<transA=1>(x, w)", (5, 3), (5, 4)),
        ("Gemm<transA=1, transB=1>(x, w)", (3, 5), (5, 4)),
    ],
)
def test_any_product(operator, weight, shape):
    dims = ",".join(map(str, shape))
    model = pass_kit.parse(f"b (float[{dims}] x) => (float y) {{ y = {operator} }}", {"w": weight})
    check(model, np.random.default_rng(0).normal(size=shape).astype(np.float32))


def test_a_tied_weight_behind_a_transpose():
    text = "b (float[4,5] x) => (float y) { t = Transpose<perm=[1,0]>(w)  y = MatMul(x, t) }"
    model = pass_kit.parse(text, {"w": (3, 5)})
    assert check(model, np.ones((4, 5), np.float32)).outputs == 3


def test_what_is_no_layer():
    text = "b (float[4,4] x) => (float y) { a = Relu(x)  y = MatMul(x, a) }"
    assert [Layer.of(node) for node in pass_kit.parse(text, {}).graph] == [None, None]


CHAIN = """c (float[N,8] x) => (float[N,8] y, float[N,8] z) {
  a = Relu(x)
  y = MatMul(a, w1)
  z = MatMul(a, w2)
}"""


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as opened:
        yield opened


def samples(count: int = 8, rows: int = 20) -> list[Sample]:
    generator = np.random.default_rng(3)
    return [Sample({"x": generator.normal(size=(rows, 8)).astype(np.float32)}) for _ in range(count)]


def gather(runner, source, **options):
    model = pass_kit.parse(CHAIN, {"w1": (8, 8), "w2": (8, 8)})
    layers = [layer for layer in map(Layer.of, model.graph) if layer is not None]
    ctx = Context(data=FeedList(source), runner=runner, seed=7)
    return list(sampled(model, layers, ctx, **options))


def test_rows_come_from_two_halves_and_are_shared_between_readers(runner):
    source = samples()
    (first, rows), (second, again) = gather(runner, source, rows=40)
    assert [first.site, second.site] == ["y", "z"]
    assert rows.fit.shape == (1, 40, 8) and rows.held.shape == (1, 40, 8)
    assert rows.fit is again.fit
    of_sample = {row.tobytes(): i for i, s in enumerate(source) for row in np.maximum(s.feed["x"], 0)}
    fit, held = ({of_sample[row.tobytes()] for row in part[0]} for part in (rows.fit, rows.held))
    assert len(fit) == len(held) == 4 and not fit & held


def test_order_and_grouping_do_not_matter(runner):
    source = samples()
    (_, rows), _ = gather(runner, source, rows=40)
    (_, other), _ = gather(runner, source[::-1], rows=40, budget_bytes=1)
    for one, two in ((rows.fit, other.fit), (rows.held, other.held)):
        assert np.array_equal(one, two)


def test_few_samples_and_a_repeated_one(runner):
    (_, rows), _ = gather(runner, samples(1) * 2, rows=1000)
    assert np.array_equal(rows.fit, rows.held) and rows.fit.shape == (1, 20, 8)
    (_, rows), _ = gather(runner, samples(8), rows=1000, samples=4)
    assert rows.fit.shape == (1, 40, 8)


def test_samples_that_differ_at_every_sweep(runner):
    generator = np.random.default_rng(0)

    class Fickle(FeedList):
        def samples(self):
            return (Sample({"x": generator.normal(size=(4, 8)).astype(np.float32)}) for _ in range(4))

    model = pass_kit.parse(CHAIN, {"w1": (8, 8), "w2": (8, 8)})
    layers = [layer for layer in map(Layer.of, model.graph) if layer is not None]
    with pytest.raises(DataError, match="fickle: the samples differ from one sweep to the next"):
        list(sampled(model, layers, Context(data=Fickle([], name="fickle"), runner=runner)))


def test_quantization_that_runtimes_do():
    x = np.array([-1.0, 0.0, 0.24, 0.26, 300.0], np.float32)
    assert simulated(x, 0.5, 128, 0, 255).tolist() == [-1.0, 0.0, 0.0, 0.5, 63.5]
    y = simulated(x[:4].reshape(2, 2), np.array([[0.5], [0.25]]), 0, -127, 127)
    assert y.tolist() == [[-1.0, 0.0], [0.25, 0.25]]


def test_output_error_with_a_shift():
    rows, weight = np.ones((1, 4, 2), np.float32), np.ones((1, 2, 3), np.float32)
    assert output_error(rows, weight, rows, weight * 0.5) == (48.0, 12.0)
    assert output_error(rows, weight, rows, weight * 0.5, np.ones((1, 3))) == (48.0, 0.0)


def test_rows_with_large_outputs_count_less():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(2, 50, 6)).astype(np.float32)
    rows[:, 0] *= 100
    for outputs in (3, 20):
        weight = generator.normal(size=(2, 6, outputs)).astype(np.float32)
        energies = row_energies(rows, weight)
        np.testing.assert_allclose(energies, np.square(rows @ weight).sum(axis=(0, 2)), rtol=1e-3)
        importance = row_importance(energies)
        assert importance.argmin() == 0 and importance[0] < 0.01 < 0.2 < importance[1:].min() < importance.max() <= 1
        signal, error = output_error(rows, weight, rows, weight * 0.5, row_weights=importance)
        assert error == pytest.approx(signal / 4, rel=1e-5) and signal == pytest.approx(energies @ importance, rel=1e-3)
    assert row_importance(np.zeros(3)).tolist() == [1, 1, 1]
