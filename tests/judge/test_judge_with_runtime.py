"""The judge on real models in the real runtime."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from judge_cases import graph, source

from irc.calibration.data import Sample
from irc.judge import Budget, Judge
from irc.runner import Runner

TEXT = """g (float[N,16] x) => (float[N,10] logits) <float[16,32] w1, float[32] b1, float[32,10] w2, float[10] b2> {
    h = Gemm(x, w1, b1) r = Relu(h) logits = Gemm(r, w2, b2) }"""


def weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    shapes = {"w1": (16, 32), "b1": (32,), "w2": (32, 10), "b2": (10,)}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def rounded(arrays: dict[str, np.ndarray], levels: int) -> dict[str, np.ndarray]:
    result = dict(arrays)
    for name in ("w1", "w2"):
        scale = np.abs(arrays[name]).max() / levels
        result[name] = (np.round(arrays[name] / scale) * scale).astype(np.float32)
    return result


def test_eight_bit_weights_pass_and_two_bit_weights_fail(tmp_path: Path) -> None:
    generator = np.random.default_rng(6)
    xs = generator.normal(size=(700, 1, 16)).astype(np.float32)
    exact = graph(TEXT, **weights())
    ir.save(exact, tmp_path / "model.onnx")
    with Runner(threads=1) as runner:
        judge = Judge(exact, runner.open(tmp_path / "model.onnx"), source([Sample({"x": x}) for x in xs]))
        assert judge.kind == "agreement"
        same, good, bad = (
            judge.assess(runner.open(model), half="acceptance")
            for model in (exact, graph(TEXT, **rounded(weights(), 127)), graph(TEXT, **rounded(weights(), 1)))
        )
    assert same.loss == 0.0 and same.proves(Budget())
    assert 0.0 <= good.loss < 0.005 and Budget().allows(good)
    assert bad.loss > 0.05 and not Budget().allows(bad) and bad.bound > bad.loss  # type: ignore[operator]


def test_a_candidate_the_runtime_refuses_is_rejected() -> None:
    exact = graph(TEXT, **weights())
    smaller = graph(TEXT.replace("float[N,16] x", "float[N,15] x").replace("float[16,32]", "float[15,32]"))
    samples = source([Sample({"x": np.zeros((1, 16), np.float32)})])
    with Runner(threads=1) as runner:
        judge = Judge(exact, runner.open(exact), samples)
        found = judge.assess(runner.open(smaller))
    assert found.rejected is not None and found.rejected.startswith("the candidate does not run: ")
