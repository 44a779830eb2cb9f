"""`irc inspect --channel-groups`: the report, the JSON, the drawing, and every wrong request in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import onnx_ir as ir
import pytest
from channel_graphs import convolutional, transformer
from channel_kit import model_of, random_weight

from irc.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def network(folder):
    ir.save(convolutional(2), folder / "net.onnx")
    return folder / "net.onnx"


@pytest.fixture(scope="module")
def attention(folder):
    ir.save(transformer(3), folder / "bert.onnx")
    return folder / "bert.onnx"


def printed(capsys, *arguments):
    assert main(["inspect", *map(str, arguments), "--channel-groups"]) == 0
    return capsys.readouterr().out


def test_report(network, capsys):
    out = printed(capsys, network)
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert out.startswith("net.onnx  channel groups, cut by rows")
    assert lines["families"] == ["families", "3:", "channels", "2,", "residual", "stream", "1"]
    assert "for batch=1 (assumed; set with --dim)" in " ".join(lines["MACs"])
    assert "0.35x at ratio 0.5" in " ".join(lines["parameters"])
    assert lines["s0"][1:4] == ["residual", "stream", "8"] and lines["s0"][4:8] == ["stem", "+2", "expand0", "+2"]
    assert lines["e0"][1:4] == ["×2", "channels", "24"]
    assert lines["graph"][-1] == "model" and "logits" in " ".join(lines["graph"])
    assert "axes of weights: 4 of kind kernel axis, 1 of kind model input" in out


def test_modes(attention, capsys):
    assert "heads of 4" in printed(capsys, attention)
    out = printed(capsys, attention, "--channel-mode", "columns")
    assert "q/k dimensions" in out and "value dimensions" in out and "4×4" in out and "heads of" not in out


def test_what_is_not_exact_is_said_once(attention, capsys):
    out = printed(capsys, attention)
    assert out.count("normalizes by all of them") == 1
    assert "Removal changes what survives" in out


def test_json_is_one_document_with_everything(attention, capsys):
    document = json.loads(printed(capsys, attention, "--json", "--top", "1", "--dim", "seq=64"))
    assert document["schema"] == 1 and document["model"] == "bert.onnx"
    assert len(document["families"]) == 7
    assert {axis["name"]: axis["size"] for axis in document["dynamic_axes"]} == {"batch": 1, "seq": 64}


def test_top(network, capsys):
    out = printed(capsys, network, "--top", "1")
    assert "residual stream" in out and "×2" not in out and "and 1 more line" in out


def test_quiet(network, capsys):
    assert printed(capsys, network, "-q") == ""


def test_drawing(attention, tmp_path, capsys):
    path = tmp_path / "groups.svg"
    out = printed(capsys, attention, "--drawing", path)
    assert out.rstrip().endswith(str(path)) or "groups.svg" in out
    assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    before = path.read_bytes()
    printed(capsys, attention, "--drawing", path, "-q")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["groups.svg"]


@pytest.fixture(scope="module")
def embedding(folder):
    text = (
        "g (float[batch,3] x) => (float[batch,6] embedding) { a = MatMul(x, w1) r = Relu(a) embedding = MatMul(r, w2) }"
    )
    ir.save(model_of(text, {"w1": random_weight(3, 10), "w2": random_weight(10, 6)}), folder / "embedding.onnx")
    return folder / "embedding.onnx"


def test_allowed_outputs(embedding, capsys):
    assert "families     1:" in printed(capsys, embedding)
    out = printed(capsys, embedding, "--allow-output", "embedding")
    assert "families     2:" in out and "allowed      embedding" in out


def test_an_output_that_holds_much_is_pointed_at(tmp_path, capsys):
    text = "g (float[batch,3] x) => (float[batch,50] y) { y = MatMul(x, w) }"
    ir.save(model_of(text, {"w": random_weight(3, 50)}), tmp_path / "m.onnx")
    out = printed(capsys, tmp_path / "m.onnx")
    assert "families     0" in out
    assert "hint: an output of the model holds 100.0 % of its parameters; --allow-output NAME" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--channel-groups", "--allow-output", "logit"], "--allow-output logit: the model has no such output; did you mean 'logits'?"),
        (["--channel-groups", "--allow-output", "zzz"], "it has logits"),
        (["--channel-groups", "--channel-mode", "heads"], "invalid choice: 'heads'"),
        (["--channel-groups", "--dim", "batsh=2"], "did you mean 'batch'?"),
        (["--channel-groups", "--top", "-1"], "--top is -1"),
        (["--channel-groups", "--drawing", "groups.png"], "give a name that ends in .svg"),
        (["--channel-groups", "--drawing", "nowhere/groups.svg"], "there is no directory nowhere"),
        (["--drawing", "groups.svg"], "--drawing is about channel groups; add --channel-groups"),
        (["--channel-mode", "rows"], "--channel-mode is about channel groups; add --channel-groups"),
        (["--allow-output", "logits"], "--allow-output is about channel groups; add --channel-groups"),
    ],
)  # fmt: skip
def test_wrong_requests(network, capsys, arguments, message):
    try:
        code = main(["inspect", str(network), *arguments])
    except SystemExit as end:  # argparse
        code = end.code
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert message in captured.err and captured.err.count("\n") == 1


def test_a_drawing_that_cannot_be_written(network, tmp_path, capsys):
    (tmp_path / "taken.svg").mkdir()
    assert main(["inspect", str(network), "--channel-groups", "--drawing", str(tmp_path / "taken.svg")]) == 2
    assert "there is a folder or a device of that name" in capsys.readouterr().err


def test_a_model_that_is_not_there(capsys):
    assert main(["inspect", "nothing.onnx", "--channel-groups"]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_help_imports_nothing_heavy():
    code = (
        "import sys, irc.cli; irc.cli.build_parser(); "
        "print([m for m in ('networkx', 'numpy', 'scipy', 'onnx', 'onnx_ir', 'rich') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
