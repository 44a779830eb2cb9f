import json

import numpy as np
import pytest
from analysis_graphs import floats, write

from irc.cli import main

NET = "g (float[batch,6] x) => (float[batch,4] scores) { h = MatMul(x, w) r = Relu(h) scores = MatMul(r, v) }"


@pytest.fixture
def models(tmp_path):
    a = write(tmp_path / "a.onnx", NET, w=floats(6, 50), v=floats(50, 4, seed=1))
    text = NET.replace("scores = MatMul(r, v)", "u = DequantizeLinear<axis=1>(q, s) scores = MatMul(r, u)")
    v = floats(50, 4, seed=1)
    scale = (np.abs(v).max(0) / 127).astype(np.float32)
    b = write(tmp_path / "b.onnx", text, w=floats(6, 50), q=np.round(v / scale).astype(np.int8), s=scale)
    data = tmp_path / "calib"
    data.mkdir()
    for i in range(5):
        np.savez(data / f"{i}.npz", x=floats(2, 6, seed=20 + i))
    return [str(a), str(b), "--data", str(data)]


def test_report(models, capsys):
    assert main(["compare", *models, "--per-layer", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    lines = [line.strip() for line in out.splitlines()]
    text = " ".join(out.split())
    assert not out.startswith("interface:")
    assert "operators +1 DequantizeLinear" in text
    assert "constants 1 equal, 1 only in A, 2 only in B" in text
    assert "Outputs on 5 samples of calib/" in text
    assert "float32 x int8 weight" in text
    assert any(line.startswith("latency (batch 2, 1 thread)") for line in lines)
    assert "100.0 % top-1 of 10" in text
    assert any(line.startswith("scores") and "dB" in line for line in lines)
    assert any(line.startswith("h ") and "exact" in line for line in lines)


def test_interface_differences_come_first(models, tmp_path, capsys):
    other = write(tmp_path / "c.onnx", "g (float[n] z) => (float[n] y) { y = Relu(z) }")
    assert main(["compare", models[0], str(other)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["interface: input 'x' is only in A", "interface: input 'z' is only in B"]
    assert any(line.startswith("note: nothing was run: B takes 'z'") for line in lines)


def test_made_up_inputs_are_said(models, capsys):
    main(["compare", *models[:2], "--no-measure"])
    assert "generated inputs; real inputs may differ more or less: give --data" in capsys.readouterr().out


def test_json(models, capsys):
    assert main(["compare", *models, "--json", "--no-measure", "--samples", "3"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["data"], document["latency"]) == ({"name": "calib/", "samples": 3, "generated": False}, None)
    assert document["outputs"][0]["sqnr_db"] > 30


def test_quiet(models, capsys):
    assert main(["compare", *models, "--quiet", "--no-measure"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--samples", "0"], 2, "--samples is 0"),
        (["--top", "-1"], 2, "--top is -1"),
        (["--data", "nowhere"], 4, "nowhere"),
    ],
)
def test_wrong_requests(models, capsys, arguments, code, message):
    assert main(["compare", *models, *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
