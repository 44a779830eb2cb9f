"""merge-pads: one Pad for two with the same value."""

from __future__ import annotations

import numpy as np
import pytest
from exactness_kit import assert_exact_after
from pass_kit import assert_untouched, op_types, parse

from irc.passes.simplification.merge_pads import MergePads
from irc.testing import assert_conforms

PASS = MergePads()
SIZES = ({"n": 3, "k": 2, "?": 3}, {"n": 1, "k": 1, "?": 3})
TEXT = "g (float[n,k] x) => (float y) {{ p = Pad{mode}(x, a{first})  q = Pad{mode}(p, b{second})  y = Neg(q) }}"


def _model(first: str = "", second: str = "", mode: str = "", a=(1, 0, 0, 2), b=(0, 3, 1, 0), **more):
    weights = {"a": np.array(a, np.int64), "b": np.array(b, np.int64), **more.pop("weights", {})}
    return parse(TEXT.format(first=first, second=second, mode=mode), weights, **more)


def _scalars(**values: float) -> dict[str, np.ndarray]:
    return {name: np.array(value, np.float32) for name, value in values.items()}


@pytest.mark.parametrize(
    ("first", "second"), [("", ""), (", v", ", v"), (", v", ", w"), (", z", ""), ("", ", z"), (", nan", ", nan")]
)
def test_adds_the_pads(first: str, second: str) -> None:
    used = {
        name: value
        for name, value in (("v", 1.5), ("w", 1.5), ("z", 0.0), ("nan", np.nan))
        if f", {name}" in (first, second)
    }
    outcome = assert_exact_after(PASS, _model(first, second, weights=_scalars(**used)), sizes=SIZES)
    assert op_types(outcome.model) == ["Pad", "Neg"]
    (pads,) = [t.const_value.numpy() for n, t in outcome.model.graph.initializers.items() if "pads" in n]
    assert pads.tolist() == [1, 3, 1, 2]


def test_edges() -> None:
    outcome = assert_exact_after(PASS, _model(mode='<mode = "edge">'), sizes=SIZES)
    assert op_types(outcome.model) == ["Pad", "Neg"]


def test_axes() -> None:
    weights = {"c": np.array([1], np.int64), "d": np.array([0], np.int64), **_scalars(v=2.0)}
    options = {"a": (1, 2), "b": (0, 3), "opset": 18}
    same = _model(", v, c", ", v, c", weights={k: v for k, v in weights.items() if k != "d"}, **options)
    outcome = assert_exact_after(PASS, same, sizes=SIZES)
    assert op_types(outcome.model) == ["Pad", "Neg"]
    assert "other axes" in assert_untouched(PASS, _model(", v, c", ", v, d", weights=weights, **options))["q"]


def test_before_opset_11_pads_are_attributes() -> None:
    text = "g (float[n,k] x) => (float y) {{ p = Pad<pads=[1,0,0,2]{first}>(x)  q = Pad<pads=[0,3,1,0]{second}>(p)  y = Neg(q) }}"
    for first, second in (("", ", value=0.0"), (", value=2.0", ", value=2.0")):
        outcome = assert_exact_after(PASS, parse(text.format(first=first, second=second), opset=10), sizes=SIZES)
        (node,) = [n for n in outcome.model.graph if n.op_type == "Pad"]
        assert list(node.attributes.get_ints("pads")) == [1, 3, 1, 2]
    assert "another value" in assert_untouched(PASS, parse(text.format(first="", second=", value=2.0"), opset=10))["q"]


@pytest.mark.parametrize(
    ("first", "second", "scalars"),
    [(", v", ", w", {"v": 1.0, "w": 2.0}), ("", ", w", {"w": 2.0}), (", v", ", w", {"v": 0.0, "w": -0.0})],
)
def test_another_value(first: str, second: str, scalars: dict[str, float]) -> None:
    assert "another value" in assert_untouched(PASS, _model(first, second, weights=_scalars(**scalars)))["q"]


def test_a_value_that_is_not_constant_is_the_same_only_as_itself() -> None:
    text = TEXT.replace("x)", "x, float v, float w)", 1).format(first=", v", second=", {}", mode="")
    weights = {"a": np.array([1, 0, 0, 2]), "b": np.array([0, 3, 1, 0])}
    assert op_types(assert_exact_after(PASS, parse(text.replace("{}", "v"), weights), sizes=SIZES).model) == [
        "Pad",
        "Neg",
    ]
    assert "another value" in assert_untouched(PASS, parse(text.replace("{}", "w"), weights))["q"]
    overridable = parse(text.replace("{}", "w"), {**weights, **_scalars(v=1.0, w=1.0)})
    assert "another value" in assert_untouched(PASS, overridable)["q"]


def test_what_crops_reflects_or_mixes_stays() -> None:
    assert "crops" in assert_untouched(PASS, _model(b=(0, -1, 1, 0)))["q"]
    assert "crops" in assert_untouched(PASS, _model(a=(0, -1, 1, 0)))["q"]
    assert (
        "mode reflect" in assert_untouched(PASS, _model(mode='<mode = "reflect">', a=(0, 1, 0, 1), b=(0, 1, 0, 1)))["q"]
    )
    mixed = 'g (float[n,k] x) => (float y) { p = Pad<mode = "edge">(x, a)  q = Pad(p, b)  y = Neg(q) }'
    weights = {"a": np.array([1, 0, 0, 2]), "b": np.array([0, 3, 1, 0])}
    assert "after one of mode edge" in assert_untouched(PASS, parse(mixed, weights))["q"]


def test_pads_that_callers_may_override() -> None:
    text = TEXT.replace("x)", "x, int64[4] b)", 1).format(first="", second="", mode="")
    model = parse(text, a=np.array([1, 0, 0, 2]), b=np.array([0, 3, 1, 0]))
    assert "not constant" in assert_untouched(PASS, model)["q"]


def test_conforms_also_where_others_use_what_is_between() -> None:
    assert_conforms(PASS, _model(), must_fire=True, sharing="refuse")


def test_shared_pads_are_not_stored_anew() -> None:
    dims = ",".join(["1"] * 30)
    text = f"g (float[{dims}] x) => (float y, float u, float v) {{ p = Pad(x, a)  y = Pad(p, a)  u = Pad(x, a)  v = Abs(u) }}"
    assert "larger" in assert_untouched(PASS, parse(text, a=np.array([0] * 59 + [1])))["y"]


def test_works_in_bodies() -> None:
    model = parse(
        """g (bool c, float[n,k] x) => (float y) { p = Pad(x, a)  y = If (c) <
        then_branch = t () => (float q) { q = Pad(p, b) }, else_branch = e () => (float r) { r = Neg(x) }> }""",
        a=np.array([1, 0, 0, 2]),
        b=np.array([0, 3, 1, 0]),
    )
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["If", "Pad", "Neg"]


def test_leaves_other_domains() -> None:
    for text in ("p = custom.Pad(x, a)  y = Pad(p, a)", "p = Pad(x, a)  y = custom.Pad(p, a)"):
        assert (
            assert_untouched(PASS, parse(f"g (float[n,k] x) => (float y) {{ {text} }}", a=np.array([1, 0, 0, 2]))) == {}
        )
