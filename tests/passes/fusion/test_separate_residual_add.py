"""separate-residual-add: residual sums that the runtime would fuse badly, and everything that stays an Add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import int8_kit
import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import Outcome, feeds, op_types, parse, run

from irc.application import apply_pass
from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.ir import snapshot
from irc.pass_base import Context
from irc.passes.fusion import SeparateResidualAdd
from irc.pipeline import Step
from irc.recipe import level
from irc.testing import assert_conforms
from irc.testing.structure import structural_difference

PASS = SeparateResidualAdd()
SLOW = OrtTarget(version="1.31")
WEIGHTS = {"g": (8,), "b": (8,)}
HEAD = "t (float[n,6,8] x, float[n,6,8] z) => (float[n,6,8] y{}) {{ {} }}"
NORM = "s = Add(x, z) y = LayerNormalization(s, g, b)"
WRITTEN_OUT = """s = Add(x, z) m = ReduceMean<axes=[-1]>(s) d = Sub(s, m) p = Pow(d, two) v = ReduceMean<axes=[-1]>(p)
    e = Add(v, eps) r = Sqrt(e) q = Div(d, r) k = Mul(q, g) y = Add(k, b)"""
NUMBERS = {**WEIGHTS, "two": np.float32(2), "eps": np.float32(1e-5)}


def _apply(model: ir.Model, target: Any = SLOW) -> Outcome:
    copy = snapshot(model)
    return Outcome(copy, apply_pass(Step(PASS), copy, Context(target=target)).record)


def _stays(text: str, weights: dict[str, Any] | None = None, *, opset: int = 17, target: Any = SLOW) -> list[str]:
    outcome = _apply(parse(text, WEIGHTS if weights is None else weights, opset=opset), target)
    assert outcome.rewritten == [] and "Sum" not in op_types(outcome.model)
    return list(outcome.skipped.values())


def _becomes(text: str, sums: int = 1, weights: dict[str, Any] | None = None, *, opset: int = 17) -> ir.Model:
    """Asserts that every Add whose result is s or t becomes a Sum and nothing else changes, bit for bit."""
    model = parse(text, WEIGHTS if weights is None else weights, opset=opset)
    outcome = _apply(model)
    assert len(outcome.rewritten) == sums
    expected = text.replace("s = Add", "s = Sum").replace("t = Add", "t = Sum")
    wanted = parse(expected, WEIGHTS if weights is None else weights, opset=opset)
    assert structural_difference(outcome.model, wanted) is None
    assert_conforms(PASS, model, must_fire=True, context=Context(target=SLOW))
    feed = feeds(model)
    for before, after in zip(run(model, feed), run(outcome.model, feed), strict=True):
        np.testing.assert_array_equal(after, before)
    return outcome.model


@pytest.mark.parametrize("axis", ["", "<axis=-1>", "<axis=2>"])
@pytest.mark.parametrize("more", ["", ", b"])
def test_the_sum_before_a_normalization(axis: str, more: str) -> None:
    _becomes(HEAD.format("", f"s = Add(x, z) y = LayerNormalization{axis}(s, g{more})"))


def test_the_runtime_keeps_them_apart(tmp_path: Path) -> None:
    for nodes, weights, opset in ((NORM, WEIGHTS, 17), (WRITTEN_OUT, NUMBERS, 13)):
        model = parse(HEAD.format("", nodes), weights, opset=opset)
        assert set(int8_kit.runtime_operators(model, tmp_path)) == {"SkipLayerNormalization"}
        after = _apply(model).model
        assert set(int8_kit.runtime_operators(after, tmp_path)) == {"Sum", "LayerNormalization"}


def test_a_bias_before_the_sum_stays_an_add() -> None:
    _becomes(HEAD.format("", "p = Add(x, b) s = Add(p, z) y = LayerNormalization(s, g, b)"))


def test_several_blocks() -> None:
    body = "s = Add(x, z) u = LayerNormalization(s, g, b) v = Relu(u) t = Add(u, v) y = LayerNormalization(t, g, b)"
    _becomes(HEAD.format("", body), 2)


@pytest.mark.parametrize("opset", [13, 16])
def test_a_normalization_that_is_written_out(opset: int) -> None:
    _becomes(HEAD.format("", WRITTEN_OUT), weights=NUMBERS, opset=opset)


def test_up_to_opset_12_the_runtime_may_need_the_add() -> None:
    assert _stays(HEAD.format("", WRITTEN_OUT), NUMBERS, opset=12) == []


@pytest.mark.parametrize(
    "outputs, old, new",
    [
        ("", "Sub(s, m)", "Sub(x, m)"),
        ("", "Pow(d, two)", "Pow(d, eps)"),
        (", float[n,6,8] d", "", ""),
    ],
)
def test_half_of_a_normalization_is_none(outputs: str, old: str, new: str) -> None:
    assert _stays(HEAD.format(outputs, WRITTEN_OUT.replace(old, new)), NUMBERS, opset=13) == []


def test_a_written_out_normalization_of_two_axes_is_not_fused(tmp_path: Path) -> None:
    text, weights = HEAD.format("", WRITTEN_OUT.replace("[-1]", "[-2, -1]")), {**NUMBERS, "g": (6, 8), "b": (6, 8)}
    assert _stays(text, weights, opset=13) == []
    assert "SkipLayerNormalization" not in int8_kit.runtime_operators(parse(text, weights, opset=13), tmp_path)


def test_a_body_is_like_any_graph() -> None:
    text = """t (bool c, float[n,6,8] x, float[n,6,8] z) => (float[n,6,8] y) { y = If (c) <
        then_branch = a () => (float[n,6,8] p) { s = Add(x, z) p = LayerNormalization(s, g, b) },
        else_branch = e () => (float[n,6,8] q) { q = Neg(x) }> }"""
    _becomes(text)


OTHER_USERS = {
    "another reader": (", float[n,6,8] w", f"{NORM} w = Neg(s)"),
    "output of the model": (", float[n,6,8] s", NORM),
    "two normalizations": (", float[n,6,8] w", f"{NORM} w = LayerNormalization(s, g, b)"),
    "read in a body": (
        ", float[n,6,8] w",
        f"""{NORM} c = Cast<to=9>(one) w = If (c) <then_branch = a () => (float[n,6,8] p) {{ p = Neg(s) }},
        else_branch = e () => (float[n,6,8] q) {{ q = Neg(x) }}>""",
    ),
}


@pytest.mark.parametrize("outputs, nodes", OTHER_USERS.values(), ids=OTHER_USERS)
def test_what_others_read_stays(outputs: str, nodes: str, tmp_path: Path) -> None:
    text, weights = HEAD.format(outputs, nodes), {**WEIGHTS, "one": np.float32(1)}
    assert set(_stays(text, weights)) == {"its result has other users, so that nothing fuses it"}
    operators = int8_kit.runtime_operators(parse(text, weights), tmp_path)
    assert "SkipLayerNormalization" not in operators


def test_a_sum_outside_of_the_body_stays(tmp_path: Path) -> None:
    text = """t (bool c, float[n,6,8] x, float[n,6,8] z) => (float[n,6,8] y) { s = Add(x, z) y = If (c) <
        then_branch = a () => (float[n,6,8] p) { p = LayerNormalization(s, g, b) },
        else_branch = e () => (float[n,6,8] q) { q = Neg(x) }> }"""
    assert _stays(text) == ["the normalization of its result is in another graph"]
    assert "SkipLayerNormalization" not in int8_kit.runtime_operators(parse(text, WEIGHTS), tmp_path)


@pytest.mark.parametrize(
    "nodes",
    [
        NORM.replace("Add", "Sub"),
        NORM.replace("Add", "Sum").replace("Sum(x, z)", "Mul(x, z)"),
        NORM.replace("Add", "custom.Add"),
        NORM.replace("LayerNormalization", "custom.LayerNormalization"),
        "s = Add(x, b) y = LayerNormalization(s, g, b)",
        "s = Add(x, z) u = Relu(s) y = LayerNormalization(u, g, b)",
        "y = Add(x, z)",
        "y = LayerNormalization(x, g, b)",
    ],
)
def test_lookalikes(nodes: str) -> None:
    assert _stays(HEAD.format("", nodes)) == []


def test_more_than_the_last_axis_is_not_fused(tmp_path: Path) -> None:
    text, weights = HEAD.format("", NORM.replace("(s, g", "<axis=1>(s, g")), {"g": (6, 8), "b": (6, 8)}
    assert _stays(text, weights) == []
    assert "SkipLayerNormalization" not in int8_kit.runtime_operators(parse(text, weights), tmp_path)


def test_root_mean_squares_stay() -> None:
    assert _stays(HEAD.format("", "s = Add(x, z) y = RMSNormalization(s, g)"), {"g": (8,)}, opset=23) == []


@pytest.mark.parametrize(
    "target", [None, TensorRtTarget(), "tensorrt", OrtTarget(version="1.29"), OrtTarget(cpu="arm64")]
)
def test_targets_that_lose_nothing(target: Any) -> None:
    assert _stays(HEAD.format("", NORM), target=target) == []


def test_a_target_may_be_text() -> None:
    assert _apply(parse(HEAD.format("", NORM), WEIGHTS), "ort{version=1.31}").rewritten == ["s"]


def test_it_ends_the_lossless_level_once() -> None:
    for name, has_data in (("O1", False), ("O2", True), ("O2", False)):
        names = [step.pass_.name for step in level(name, has_data=has_data).steps]
        assert names.count(PASS.name) == 1 and names.index(PASS.name) > names.index("fuse-matmul-add")
