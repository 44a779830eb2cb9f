import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from sensitivity_models import feeds, planted

from irc.cli import main


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    path = planted(folder / "net.onnx")
    data = folder / "calib"
    data.mkdir()
    for i, feed in enumerate(feeds(12)):
        np.savez(data / f"{i:02}.npz", **feed)
    return [str(path), "--data", str(data)]


def test_report_and_picture(net, tmp_path, capsys):
    plot = tmp_path / "s.svg"
    before = sorted(p.name for p in tmp_path.iterdir())
    assert main(["sensitivity", *net, "--plot", str(plot), "--above", "5", "--top", "2"]) == 0
    out = capsys.readouterr().out
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "net.onnx   -O2, target ort, calib/ (12 samples)"
    assert lines[1] == "4 sites, 1 of them confirmed at the model's outputs on 12 samples"
    rows = [line.split() for line in lines if "Gemm" in line]
    assert rows[0][0] == "bad" and rows[0].count("%") == 2 and len(rows) == 2
    assert any(line.startswith("and 2 more") for line in lines)
    assert any(
        line.startswith("1 site of quantize above 5 times the median (") and line.endswith(": bad") for line in lines
    )
    assert lines[-1] == str(plot)
    assert "5 × median" in "".join(ET.parse(plot).getroot().itertext())
    assert sorted(p.name for p in tmp_path.iterdir()) == [*before, "s.svg"]


def test_json(net, capsys):
    assert main(["sensitivity", *net, "--json", "--confirm", "0", "--passes", "quantize", "--exclude", "third"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sites"][0]["site"] == "bad" and len(document["sites"]) == 3
    assert all(site["output_error"] is None for site in document["sites"])
    assert (document["thresholds"], document["recipe"]) == (None, "passes")
    assert [left["site"] for left in document["left"]] == ["third"]


def test_quiet(net, capsys):
    assert main(["sensitivity", *net, "--quiet", "--confirm", "0", "--passes", "quantize"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--top", "-1"], 2, "--top is -1"),
        (["--confirm", "a quarter"], 2, "--confirm is 'a quarter'"),
        (["--confirm", "nan"], 2, "--confirm is 'nan'"),
        (["--confirm", "250%"], 2, "--confirm is '250%'"),
        (["--above", "0"], 2, "the factor of the threshold is 0"),
        (["--plot", "s.png"], 2, "ends in .svg"),
        (["--plot", "no/where/s.svg"], 2, "there is no directory"),
        (["--passes", "O1"], 2, "no approximate pass"),
        (["--passes", "quantise"], 2, "quantise"),
        (["--target", "abacus"], 2, "abacus"),
        (["--exclude", "name:nothing"], 2, "matches none"),
        (["--data", "nowhere"], 4, "nowhere"),
    ],
)
def test_wrong_requests(net, capsys, arguments, code, message):
    assert main(["sensitivity", *net, *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_without_data_nothing_is_done(net, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["sensitivity", net[0]])
    assert exit_.value.code == 2 and "--data" in capsys.readouterr().err


def test_a_model_that_is_none(net, tmp_path, capsys):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    assert main(["sensitivity", str(path), *net[1:]]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_line_imports_nothing_heavy():
    script = (
        "import sys\nfrom irc.cli import build_parser\nbuild_parser()\n"
        "print([m for m in ('numpy', 'onnx', 'onnx_ir', 'rich', 'torch', 'irc.sensitivity') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
