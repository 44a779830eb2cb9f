"""The shipped networks do what examples/README.md says, and irc makes them smaller, faster and no worse."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from irc.cli import main

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DIGITS, STROKES = EXAMPLES / "digits", EXAMPLES / "strokes"
LABEL = "label"


def npz_feeds(path: Path) -> Iterator[dict[str, np.ndarray]]:
    with np.load(path) as arrays:
        pictures, labels = arrays["pictures"], arrays[LABEL]
    for picture, label in zip(pictures, labels, strict=True):
        yield {"pictures": picture[None], LABEL: label[None]}


def stroke_feeds(part: str) -> Iterator[dict[str, np.ndarray]]:
    spec = importlib.util.spec_from_file_location("stroke_feeds", STROKES / "feeds.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield from getattr(module, part)()


def accuracy(model: Path, feeds: Iterator[dict[str, np.ndarray]]) -> tuple[float, int]:
    """Share of right answers of stock ONNX Runtime, and how many samples there were."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    right = []
    for feed in feeds:
        label = feed.pop(LABEL)
        (logits,) = session.run(["logits"], feed)
        right.append(bool((np.argmax(logits, axis=1) == label).all()))
    return float(np.mean(right)), len(right)


def arguments(model: Path, output: Path, *options: str) -> list[str]:
    """The arguments of `irc optimize`, as a person would give them."""
    return ["optimize", str(model), "-o", str(output), "--json", *options]


@pytest.mark.parametrize(
    ("model", "feeds", "samples", "at_least"),
    [
        (DIGITS / "digits.onnx", lambda: npz_feeds(DIGITS / "calib.npz"), 640, 0.98),
        (DIGITS / "digits.onnx", lambda: npz_feeds(DIGITS / "test.npz"), 360, 0.98),
        (STROKES / "strokes.onnx", lambda: stroke_feeds("calibration"), 640, 0.93),
        (STROKES / "strokes.onnx", lambda: stroke_feeds("test"), 360, 0.93),
    ],
    ids=["digits calibration", "digits test", "strokes calibration", "strokes test"],
)
def test_networks_are_trained(model: Path, feeds: Any, samples: int, at_least: float) -> None:
    found, count = accuracy(model, feeds())
    assert count == samples
    assert found >= at_least


def test_no_sample_is_in_two_parts() -> None:
    parts = [{feed["pictures"].tobytes() for feed in npz_feeds(DIGITS / name)} for name in ("calib.npz", "test.npz")]
    assert not parts[0] & parts[1]


def test_digits_leaves_batch_normalization_to_us() -> None:
    operators = [node.op_type for node in onnx.load(DIGITS / "digits.onnx").graph.node]
    assert operators.count("BatchNormalization") == operators.count("Conv") > 10


def test_examples_are_light() -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < 4e6


def test_digits_as_in_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a quarter of the samples of the demo."""
    artifact, some = tmp_path / "digits.irc.onnx", tmp_path / "calib.npz"
    with np.load(DIGITS / "calib.npz") as data:
        np.savez(some, **{name: array[::4] for name, array in data.items()})
    assert main(arguments(DIGITS / "digits.onnx", artifact, "--data", str(some))) == 0
    assert json.loads(capsys.readouterr().out)
    operators = {node.op_type for node in onnx.load(artifact).graph.node}
    assert "BatchNormalization" not in operators
    assert "DequantizeLinear" in operators
    assert artifact.stat().st_size < 0.33 * (DIGITS / "digits.onnx").stat().st_size
    before, _ = accuracy(DIGITS / "digits.onnx", npz_feeds(DIGITS / "test.npz"))
    after, _ = accuracy(artifact, npz_feeds(DIGITS / "test.npz"))
    assert after >= 0.99 * before


def test_strokes_with_samples_from_a_function(tmp_path: Path) -> None:
    """With a quarter of the samples that are shipped."""
    artifact = tmp_path / "strokes.irc.onnx"
    some = tmp_path / "feeds.py"
    some.write_text(
        f"import itertools, runpy\nwhole = runpy.run_path({str(STROKES / 'feeds.py')!r})['calibration']\n"
        "def calibration():\n    return itertools.islice(whole(), 0, None, 4)\n"
    )
    data = f"{some}:calibration"
    # Attention over thirty tokens is too small for a clock in a test: the size is what is asked for.
    command = arguments(STROKES / "strokes.onnx", artifact, "--data", data, "--no-measure")
    done = subprocess.run([sys.executable, "-m", "irc", *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert artifact.stat().st_size < 0.4 * (STROKES / "strokes.onnx").stat().st_size
    before, _ = accuracy(STROKES / "strokes.onnx", stroke_feeds("test"))
    after, _ = accuracy(artifact, stroke_feeds("test"))
    assert after >= 0.99 * before
