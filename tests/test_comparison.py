import dataclasses
import json
import math
import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from analysis_graphs import floats, proto, write

from irc import comparison
from irc.comparison import compare
from irc.errors import DataError, ModelError, UsageError
from irc.ir import normalize
from irc.layer_comparison import common_values

NET = """g (float[batch,6] x) => (float[batch,4] scores) {
  h = MatMul(x, w) b = Add(h, bias) r = Relu(b) scores = MatMul(r, v) }"""
WEIGHTS = {"w": floats(6, 5), "bias": floats(5, seed=1) / 4, "v": floats(5, 4, seed=2)}
FEEDS = [{"x": 3 * floats(3, 6, seed=10 + i)} for i in range(4)]


def run(path, feeds=FEEDS):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


@pytest.fixture
def net(tmp_path):
    return write(tmp_path / "a.onnx", NET, **WEIGHTS)


@pytest.fixture
def rounded(tmp_path):
    weights = {name: (np.round(array * 4) / 4).astype(np.float32) for name, array in WEIGHTS.items()}
    return write(tmp_path / "b.onnx", NET, **weights)


def test_errors_are_those_of_the_runtime_s_outputs(net, rounded):
    found = compare(net, rounded, data=FEEDS, measure=False)
    a, b = run(net).astype(np.float64), run(rounded).astype(np.float64)
    [output] = found.outputs
    noise, signal = ((a - b) ** 2).sum(), (a**2).sum()
    assert output.sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)
    assert output.relative_error == pytest.approx(math.sqrt(noise / signal))
    assert output.largest_error == pytest.approx(np.abs(a - b).max())
    assert len(set(a.argmax(1))) > 1
    assert output.top1_agreement == np.mean(a.argmax(1) == b.argmax(1))
    assert (output.decisions, output.identical, found.samples) == (12, False, 4)
    assert found.constants == {"equal": 0, "changed": 3, "only_a": 0, "only_b": 0}
    assert (found.interface, found.operators, found.identical, found.generated) == ([], {}, False, False)


def test_a_model_and_its_copy(net, tmp_path):
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(net.read_bytes())
    found = compare(net, copy, measure=False)
    assert found.identical
    assert found.outputs[0].identical
    assert math.isinf(found.outputs[0].sqnr_db)
    assert (found.generated, found.samples) == (True, 8)
    assert found.constants["equal"] == 3


def test_json_has_exactly_the_documented_fields(net, rounded):
    document = compare(net, rounded, data=FEEDS[:1], per_layer=True, measure=False).to_dict()
    documented = re.findall(r"^    ([a-z]+(?:, [a-z]+)*) {2,}", comparison.__doc__, re.MULTILINE)
    assert sorted(name for line in documented for name in line.split(", ")) == sorted(document)
    for key in ("outputs", "layers"):
        listed = re.search(rf"^    {key} +\[{{(.*?)}}\]", comparison.__doc__, re.MULTILINE | re.DOTALL).group(1)
        assert [name.strip() for name in listed.split(",")] == list(document[key][0])
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_layers_show_where_the_error_enters(tmp_path, net):
    """Only `v` is wrong: everything before the last product is exact."""
    other = write(tmp_path / "b.onnx", NET, **{**WEIGHTS, "v": WEIGHTS["v"] + np.float32(0.1)})
    found = compare(net, other, data=FEEDS, per_layer=True, measure=False)
    layers = {layer.name: layer for layer in found.layers}
    assert list(layers) == ["h", "b", "r", "scores"]
    assert [math.isinf(layers[name].sqnr_db) for name in layers] == [True, True, True, False]
    assert math.isinf(layers["scores"].inputs_db)
    assert layers["h"].inputs_db is None
    assert layers["scores"].sqnr_db == pytest.approx(found.outputs[0].sqnr_db, abs=1e-3)


def test_a_value_that_is_only_read_quantized_counts_as_it_is_read(tmp_path, net):
    """Zero point 0 of an unsigned type is a Relu: quantizers drop the Relu and leave its name to the addition."""
    weights = {**WEIGHTS, "s": np.float32(0.1), "z": np.uint8(0)}
    text = """g (float[batch,6] x) => (float[batch,4] scores) {
      h = MatMul(x, w) r = Add(h, bias) q = QuantizeLinear(r, s, z) d = DequantizeLinear(q, s, z) scores = MatMul(d, v) }"""
    found = compare(net, write(tmp_path / "b.onnx", text, **weights), data=FEEDS, per_layer=True, measure=False)
    layers = {layer.name: layer for layer in found.layers}
    assert layers["r"].operator == "Relu -> Add"
    assert 30 < layers["r"].sqnr_db < 60  # against the Relu; the sum itself has negative values and is far off


def test_common_values_are_computed_floats_of_main_graphs():
    text = """g (float[n,6] x) => (float[n,6] y) { t = Transpose(c) s = Shape(x) e = Exp(x) y = Add(e, x) }"""
    model = normalize(proto(text, c=floats(2, 2)))
    assert common_values(model, model) == ["e", "y"]


def test_values_are_fetched_in_groups_that_fit(net, rounded, monkeypatch):
    whole = compare(net, rounded, data=FEEDS[:2], per_layer=True, measure=False).layers
    monkeypatch.setattr("irc.layer_comparison.GROUP_BYTES", 1)
    assert compare(net, rounded, data=FEEDS[:2], per_layer=True, measure=False).layers == whole


def test_other_names_are_paired_by_position_and_said(tmp_path, net):
    model = proto(
        NET.replace("x)", "input)").replace("x,", "input,").replace("(x", "(input").replace("scores", "out"), **WEIGHTS
    )
    model.graph.input[0].name = "input"
    onnx.save(model, tmp_path / "b.onnx")
    found = compare(net, tmp_path / "b.onnx", data=FEEDS, measure=False)
    assert found.interface[:2] == ["input 'x' is only in A", "input 'input' is only in B"]
    assert "inputs paired by position: 'x' and 'input'" in found.notes
    assert "outputs paired by position: 'scores' and 'out'" in found.notes
    assert (found.outputs[0].name_b, found.outputs[0].identical) == ("out", True)


def test_half_precision_inputs_are_fed_the_same_values(tmp_path, net):
    weights = {name: array.astype(np.float16) for name, array in WEIGHTS.items()}
    other = write(tmp_path / "b.onnx", NET.replace("float[", "float16["), **weights)
    found = compare(net, other, data=FEEDS, measure=True)
    assert "input 'x' is float32 in A and float16 in B" in found.interface
    assert "input 'x' of B is fed the same values as float16" in found.notes
    assert found.outputs[0].sqnr_db > 50
    assert found.latency is None
    assert "latency was not measured: the models do not take the same inputs" in found.notes


IMPOSSIBLE = {
    "another size": (NET.replace("x)", "x)").replace("batch,6", "batch,7"), {"w": floats(7, 5)}, "is [batch, 6] in A and [batch, 7] in B"),
    "one more input": (NET.replace("x)", "x, float[1] gain)").replace("r = Relu(b)", "r = Mul(b, gain)"), {}, "B takes 'gain', which A does not"),
    "another kind": (
        NET.replace("float[batch,6] x", "int64[batch,6] x").replace("h = MatMul(x, w)", "f = Cast<to=1>(x) h = MatMul(f, w)"),
        {},
        "is float32 in A and int64 in B",
    ),
    "unknown operator": (NET.replace("Relu(b)", "my.domain.Magic(b)"), {}, "the runtime does not open B, b.onnx"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_compared_is_said(tmp_path, net, name):
    text, weights, message = IMPOSSIBLE[name]
    other = write(tmp_path / "b.onnx", text, domains='"my.domain": 1', **{**WEIGHTS, **weights})
    found = compare(net, other, data=FEEDS, per_layer=True)
    assert (found.outputs, found.layers, found.latency, found.samples) == ([], None, None, 0)
    [note] = found.notes
    assert note.startswith("nothing was run: ")
    assert message in note
    assert found.a["nodes"] == 4  # the graphs are compared nevertheless


def test_outputs_of_other_shapes_are_said_not_compared(tmp_path, net):
    other = write(tmp_path / "b.onnx", NET.replace("batch,4", "batch,2"), **{**WEIGHTS, "v": floats(5, 2)})
    [output] = compare(net, other, data=FEEDS, measure=False).outputs
    assert output.shapes == "[3, 4] and [3, 2]"
    assert (output.sqnr_db, output.relative_error, output.top1_agreement, output.identical) == (None, None, None, False)


def test_a_sample_that_does_not_run_through_b_ends_the_comparison(tmp_path, net):
    """B has a fixed batch of 3; the third sample has 2 rows."""
    other = write(tmp_path / "b.onnx", NET.replace("batch", "3"), **WEIGHTS)
    found = compare(net, other, data=[*FEEDS[:2], {"x": floats(2, 6)}], measure=False)
    assert found.samples == 2
    assert found.outputs[0].identical
    assert any(note.startswith("only 2 samples were compared: sample 2 does not run through B") for note in found.notes)


def test_integer_outputs_agree_by_element(tmp_path):
    text = "g (float[n] x) => (int64[n] y) { s = Add(x, c) y = Cast<to=7>(s) }"
    a, b = (write(tmp_path / f"{i}.onnx", text, c=np.float32(c).reshape(1)) for i, c in enumerate((0.0, 0.5)))
    [output] = compare(a, b, data=[{"x": np.array([0.2, 0.6, 1.2, 1.6], np.float32)}], measure=False).outputs
    assert (output.agreement, output.sqnr_db, output.largest_error) == (0.5, None, None)


def test_nan_in_one_is_counted_and_left_out(tmp_path):
    text = "g (float[n] x) => (float[n] y) { s = Sqrt(x) y = Mul(s, c) }"
    feeds = [{"x": np.array([-1.0, 4.0, 9.0], np.float32)}]
    a = write(tmp_path / "a.onnx", text, c=np.ones(1, np.float32))
    other = write(
        tmp_path / "b.onnx",
        "g (float[n] x) => (float[n] y) { s = Abs(x) t = Sqrt(s) y = Mul(t, c) }",
        c=np.ones(1, np.float32),
    )
    [output] = compare(a, other, data=feeds, measure=False).outputs
    assert output.non_finite == 1
    assert math.isinf(output.sqnr_db)
    assert not output.identical
    assert compare(a, a, data=feeds, measure=False).outputs[0].identical  # NaN equals NaN


def test_latency_at_a_batch(net, rounded):
    found = compare(net, rounded, data=FEEDS, batch=16, threads=1)
    assert (found.latency.batch, found.latency.threads) == (16, 1)
    assert found.latency.low <= found.latency.speedup <= found.latency.high


def test_a_batch_the_model_cannot_run_is_said(tmp_path):
    fixed = write(tmp_path / "a.onnx", NET.replace("batch", "3"), **WEIGHTS)
    found = compare(fixed, fixed, data=FEEDS, batch=16)
    assert found.latency is None
    assert any(note.startswith("latency was not measured: the models do not run at batch 16") for note in found.notes)


def test_wrong_requests(tmp_path, net):
    with pytest.raises(ModelError, match="no such file"):
        compare(net, tmp_path / "missing.onnx")
    with pytest.raises(DataError, match="'x'"):
        compare(net, net, data=[{"y": floats(3, 6)}])
    with pytest.raises(UsageError, match="--samples is 0"):
        compare(net, net, samples=0)


def test_inputs_that_cannot_be_made_up(tmp_path):
    path = write(tmp_path / "a.onnx", "g (string[n] x) => (string[n] y) { y = Identity(x) }")
    found = compare(path, path)
    assert found.notes == ["nothing was run: input 'x' takes text, for which nothing can be generated; give --data"]
    assert dataclasses.asdict(found)["outputs"] == []
