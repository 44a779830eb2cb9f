import json

import numpy as np
import pytest
from analysis_graphs import floats, write

from irc.cli import main


@pytest.fixture
def model(tmp_path):
    text = """g (float[batch,3,8,8] image) => (float[batch,5] logits) {
      c = Conv<pads=[1,1,1,1]>(image, kernel) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) logits = Gemm(f, head) }"""
    return write(tmp_path / "net.onnx", text, kernel=floats(4, 3, 3, 3), head=floats(4, 5))


def test_report(model, capsys):
    assert main(["inspect", str(model), "--dim", "batch=10"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "image: float32 [batch, 3, 8, 8]" in lines["input"]
    assert "costs are for batch=10" in lines["dynamic"]
    assert "69.3 k float32" in lines["MACs"]  # 10 * (64 * 4 * 27 + 4 * 5)
    assert lines["Conv"].split()[1:4] == ["1", "69.1", "k"]
    assert lines["kernel"].split()[1:3] == ["float32", "4x3x3x3"]
    assert "1 Relu" in lines["and"]


def test_assumed_sizes_are_said(model, capsys):
    main(["inspect", str(model)])
    assert "assumed batch=1; set with --dim batch=N" in capsys.readouterr().out


def test_json_is_one_document_with_everything(model, capsys):
    assert main(["inspect", str(model), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert document["macs"]["total"] == 64 * 4 * 27 + 20
    assert [row["name"] for row in document["tensors"]] == ["kernel", "head"]


def test_top(model, capsys):
    main(["inspect", str(model), "--top", "1", "--json"])
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["tensors"]] == ["kernel"]
    main(["inspect", str(model), "--top", "0"])
    assert "Largest constants" not in capsys.readouterr().out


def test_unknown_costs_are_said(tmp_path, capsys):
    path = write(
        tmp_path / "m.onnx", "g (float[4] x) => (float[4] y) { y = my.domain.Magic(x) }", domains='"my.domain": 1'
    )
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "1 node of unknown cost" in out
    assert "custom operators, which stock runtimes do not have: my.domain::Magic (1)" in out
    assert "the cost of operator my.domain::Magic is not known" in out


def test_a_model_without_nodes(tmp_path, capsys):
    path = write(tmp_path / "m.onnx", "g (float[4] x) => (float[4] x) { }")
    assert main(["inspect", str(path)]) == 0
    assert "float32 [4]" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--dim", "batsh=2"], 2, "did you mean 'batch'?"),
        (["--dim", "batch"], 2, "NAME=SIZE"),
        (["--top", "-1"], 2, "--top is -1"),
    ],
)
def test_wrong_requests(model, capsys, arguments, code, message):
    assert main(["inspect", str(model), *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_damaged_model(tmp_path, capsys):
    path = tmp_path / "m.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    assert main(["inspect", str(path)]) == 4
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "m.onnx" in captured.err
