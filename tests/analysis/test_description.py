import json
import re

import numpy as np
import onnx
from analysis_graphs import floats, graph, proto, write

from irc.analysis import describe, description
from irc.ir import load

TEXT = "g (float[batch,4] x) => (float[batch,3] y) { h = MatMul(x, w) y = Add(h, b) }"
WEIGHTS = {"w": floats(4, 3), "b": floats(3)}


def test_document_has_exactly_the_fields_that_are_documented():
    documented = re.findall(r"^    ([a-z_]+(?:, [a-z_]+)*) {2,}", description.__doc__, re.MULTILINE)
    names = [name for line in documented for name in line.split(", ")]
    document = describe(graph(TEXT, **WEIGHTS))
    assert sorted(names) == sorted(document)
    assert json.loads(json.dumps(document)) == document


def test_facts_of_a_small_model(tmp_path):
    path = write(tmp_path / "small.onnx", TEXT, **WEIGHTS)
    document = describe(load(path), path=path, sizes={"batch": 10})
    assert document["model"] == "small.onnx"
    assert document["size_bytes"] == path.stat().st_size
    assert document["weight_bytes"] == 60
    assert document["parameters"] == 15
    assert document["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}]
    assert document["outputs"] == [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}]
    assert document["dynamic_axes"] == [{"name": "batch", "size": 10, "assumed": False, "inputs": [["x", 0]]}]
    assert document["macs"] == {"total": 120, "by_operands": {"float32": 120}, "uncounted": []}
    assert document["weights_by_dtype"] == [{"dtype": "float32", "tensors": 2, "elements": 15, "bytes": 60}]
    assert [(row["operator"], row["nodes"], row["macs"]) for row in document["operators"]] == [
        ("MatMul", 1, 120),
        ("Add", 1, 0),
    ]
    assert [row["name"] for row in document["tensors"]] == ["w", "b"]
    assert document["tensors"][0]["users"] == ["MatMul"]


def test_exporter_traces_are_weighed(tmp_path):
    model = proto(TEXT, **WEIGHTS)
    for node in model.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/me/model.py, line 1 " * 100)
    onnx.save(model, tmp_path / "m.onnx")
    document = describe(load(tmp_path / "m.onnx"), path=tmp_path / "m.onnx")
    assert document["metadata_bytes"] > 2 * 3000
    assert document["graph_bytes"] < 1000


def test_external_data_counts_in_the_size(tmp_path):
    model = proto(TEXT.replace("4]", "400]"), w=floats(400, 3), b=floats(3))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=100)
    document = describe(load(tmp_path / "m.onnx"), path=tmp_path / "m.onnx")
    data = (tmp_path / "m.data").stat().st_size
    assert document["external_data"] == [{"file": "m.data", "tensors": 1, "bytes": 4800}]
    assert document["size_bytes"] == (tmp_path / "m.onnx").stat().st_size + data
    assert [row["external"] for row in document["tensors"]] == [True, False]


def test_foreign_and_runtime_operators():
    model = graph(
        "g (float[4] x) => (float[4] y) { a = com.microsoft.Gelu(x) b = my.domain.Magic(a) y = Relu(b) }",
        domains='"com.microsoft": 1, "my.domain": 3',
    )
    document = describe(model)
    assert document["custom_operators"] == [
        {"operator": "com.microsoft::Gelu", "nodes": 1, "runtime": True},
        {"operator": "my.domain::Magic", "nodes": 1, "runtime": False},
    ]
    assert document["opsets"] == {"ai.onnx": 20, "com.microsoft": 1, "my.domain": 3}


def test_top_limits_lists_not_totals():
    document = describe(graph(TEXT, **WEIGHTS), top=1)
    assert len(document["tensors"]) == len(document["heaviest_nodes"]) == 1
    assert document["parameters"] == 15


def test_defaults_of_inputs_are_weights_not_inputs():
    """Before IR version 4 every initializer was an input too."""
    document = describe(graph(TEXT.replace("x)", "x, float[3] b)"), **WEIGHTS))
    assert [row["name"] for row in document["inputs"]] == ["x"]
    assert document["parameters"] == 15


def test_unusual_interfaces():
    """Text, unknown rank and sequences."""
    model = graph(
        """g (string[n] words, float[k] row) => (string[n] same, seq(float[k]) list) {
        same = Identity(words) list = SequenceConstruct(row) }"""
    )
    model.graph.outputs[0].shape = None
    document = describe(model)
    assert document["inputs"][0] == {"name": "words", "dtype": "string", "shape": ["n"]}
    assert document["outputs"][0]["shape"] is None
    assert document["outputs"][1]["dtype"] == "sequence of float32"
    assert document["peak_memory"] is None


def test_small_integers():
    document = describe(
        graph(
            "g (float[2] x) => (float[2] y) { d = DequantizeLinear(q, s) y = Add(x, d) }",
            opset=21,
            q=np.zeros(2, np.int8),
            s=np.float32(1),
        )
    )
    assert document["quantization"] == {"quantize": 0, "dequantize": 1, "dynamic": 0}
    assert document["weights_by_dtype"][0]["dtype"] == "float32"
