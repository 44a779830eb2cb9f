"""fuse-attention: with heads in the last axis and as an axis, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from fusion_kit import PlainTarget, reasons
from pass_kit import apply, op_types, parse

from irc.backends.tensorrt import TensorRtTarget
from irc.passes.fusion import FuseAttention
from irc.testing import assert_conforms, assert_rewrites

PASS = FuseAttention()
HEAD = "g (float[n,3,8] q, float[n,5,8] k, float[n,5,8] v) => (float[n,3,8] y) {{ {} }}"
SPLIT = """qs = Reshape(q, heads) ks = Reshape(k, heads) vs = Reshape(v, heads)
    qt = Transpose<perm=[0,2,1,3]>(qs) kt = Transpose<perm=[0,2,3,1]>(ks) vt = Transpose<perm=[0,2,1,3]>(vs) """
CORE = "s = MatMul(qt, kt) c = Mul(s, scale) p = Softmax<axis=-1>(c) o = MatMul(p, vt) "
MASKED = CORE.replace("p = Softmax<axis=-1>(c)", "a = Add(c, mask) p = Softmax<axis=-1>(a)")
JOIN = "j = Transpose<perm=[0,2,1,3]>(o) y = Reshape(j, flat)"
USUAL = SPLIT + CORE + JOIN
WEIGHTS = {
    "heads": np.array([0, 0, 2, 4]),
    "flat": np.array([0, 0, 8]),
    "scale": np.array(0.25, np.float32),
    "mask": np.tril(np.ones((3, 5), np.float32)) - 1,
}
FUSED = HEAD.format("y = Attention<scale=0.25, q_num_heads=2, kv_num_heads=2>(q, k, v)")
SPELLINGS = {
    "usual": USUAL,
    "default axis": USUAL.replace("<axis=-1>", ""),
    "last axis by number": USUAL.replace("axis=-1", "axis=3"),
    "scale on the left": USUAL.replace("Mul(s, scale)", "Mul(scale, s)"),
    "keys turned twice": USUAL.replace(
        "kt = Transpose<perm=[0,2,3,1]>(ks)", "ku = Transpose<perm=[0,2,1,3]>(ks) kt = Transpose<perm=[0,1,3,2]>(ku)"
    ),
    "queries and keys scaled": USUAL.replace("MatMul(qt, kt) c = Mul(s, scale)", "MatMul(q2, k2)")
    .replace("s = MatMul", "q2 = Mul(qt, half) k2 = Mul(half, kt) s = MatMul")
    .replace("(c)", "(s)"),
    "divided": USUAL.replace("Mul(s, scale)", "Div(s, four)"),
}
MORE = {"half": np.array(0.5, np.float32), "four": np.array(4, np.float32)}


@pytest.mark.parametrize("nodes", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(nodes: str) -> None:
    used = {name: value for name, value in {**WEIGHTS, **MORE}.items() if name in nodes}
    assert_rewrites(PASS, HEAD.format(nodes), FUSED, used, opset=23)


def test_without_a_scale_it_is_one() -> None:
    nodes = USUAL.replace("c = Mul(s, scale)", "c = Identity(s)").replace("c = Identity(s)", "").replace("(c)", "(s)")
    assert_rewrites(PASS, HEAD.format(nodes), FUSED.replace("0.25", "1.0"), WEIGHTS, opset=23)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1, 3, 5), (1, 2, 3, 5)])
@pytest.mark.parametrize("order", ["c, mask", "mask, c"])
def test_constant_mask(shape: tuple[int, ...], order: str) -> None:
    weights = {**WEIGHTS, "mask": np.broadcast_to(WEIGHTS["mask"], shape).copy()}
    nodes = (SPLIT + MASKED + JOIN).replace("c, mask", order)
    assert_rewrites(
        PASS,
        HEAD.format(nodes),
        FUSED.replace("k, v)\n", "k, v, mask)").replace("(q, k, v) }", "(q, k, v, mask) }"),
        weights,
        opset=23,
    )


def test_a_mask_that_hides_some_but_never_a_whole_row() -> None:
    weights = {**WEIGHTS, "mask": np.where(WEIGHTS["mask"] < 0, -np.inf, 0).astype(np.float32)}
    assert_conforms(PASS, parse(HEAD.format(SPLIT + MASKED + JOIN), weights, opset=23), must_fire=True)


MASKS = {
    "hides a row": np.array([[0] * 5, [-np.inf] * 5, [0] * 5], np.float32),
    "one row": np.zeros((1, 5), np.float32),
    "one column": np.zeros((3, 1), np.float32),
    "scalar": np.zeros((), np.float32),
    "NaN": np.array([[0] * 5, [np.nan] + [0] * 4, [0] * 5], np.float32),
    "three axes": np.zeros((1, 3, 5), np.float32),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masks_that_stay(mask: np.ndarray) -> None:
    said = reasons(PASS, HEAD.format(SPLIT + MASKED + JOIN), {**WEIGHTS, "mask": mask}, opset=23)
    assert len(said) == 1 and "mask" in said[0]


def test_a_mask_that_is_fed_or_enlarges_stays() -> None:
    text = HEAD.format(SPLIT + MASKED + JOIN).replace("v)", "v, float[3,5] mask)", 1)
    weights = {name: value for name, value in WEIGHTS.items() if name != "mask"}
    assert "not constant" in reasons(PASS, text, weights, opset=23)[0]
    text = HEAD.format(SPLIT + MASKED + JOIN).replace("float[n,", "float[1,", 3).replace("[n,3,8] y", "[2,3,8] y")
    assert "enlarges" in reasons(PASS, text, {**WEIGHTS, "mask": np.zeros((2, 1, 3, 5), np.float32)}, opset=23)[0]


AXES_HEAD = "g (float[n,2,3,4] q, float[n,2,5,4] k, float[n,2,5,4] v) => (float[n,2,3,4] y) {{ {} }}"
AXES = "kt = Transpose<perm=[0,1,3,2]>(k) " + MASKED.replace("qt", "q").replace("vt", "v").replace("o =", "y =")


def test_heads_as_an_axis_with_a_mask() -> None:
    fused = AXES_HEAD.format("y = Attention<scale=0.25>(q, k, v, mask)")
    assert_rewrites(PASS, AXES_HEAD.format(AXES), fused, WEIGHTS, opset=23)
    assert_rewrites(PASS, AXES_HEAD.format(AXES), fused, WEIGHTS, opset=24)


def test_heads_as_an_axis_without_a_mask_are_no_faster() -> None:
    nodes = AXES.replace("a = Add(c, mask) ", "").replace("(a)", "(c)")
    assert reasons(PASS, AXES_HEAD.format(nodes), WEIGHTS, opset=23) == []


LOOKALIKES = {
    "softmax over queries": USUAL.replace("axis=-1", "axis=2"),
    "no softmax": USUAL.replace("Softmax<axis=-1>", "Sigmoid"),
    "negative scale": USUAL.replace("Mul(s, scale)", "Mul(s, negative)"),
    "scale over scores": USUAL.replace("Mul(s, scale)", "Div(scale, s)"),
    "scale per query": USUAL.replace("Mul(s, scale)", "Mul(s, column)"),
    "heads joined otherwise": USUAL.replace("j = Transpose<perm=[0,2,1,3]>", "j = Transpose<perm=[0,2,3,1]>"),
    "queries split otherwise": USUAL.replace("qt = Transpose<perm=[0,2,1,3]>(qs)", "qt = Reshape(qs, swapped)"),
    "values not split": USUAL.replace("vt = Transpose<perm=[0,2,1,3]>(vs)", "vt = Reshape(vs, swapped5)"),
    "weights on the right": USUAL.replace("kt = Transpose<perm=[0,2,3,1]>(ks)", "kt = Reshape(ks, turned)"),
}


@pytest.mark.parametrize("nodes", LOOKALIKES.values(), ids=LOOKALIKES)
def test_lookalikes(nodes: str) -> None:
    more = {
        "negative": np.array(-0.25, np.float32),
        "column": np.ones((3, 1), np.float32),
        "swapped": np.array([0, 2, 3, 4]),
        "swapped5": np.array([0, 2, 5, 4]),
        "turned": np.array([0, 2, 4, 5]),
    }
    assert reasons(PASS, HEAD.format(nodes), {**WEIGHTS, **more}, opset=23) == []


def test_heads_must_be_split_off_the_last_axis() -> None:
    """Where nothing is known of batch and length, a Reshape may take the numbers apart in another way."""
    text = "g (float[n,m,8] q, float[n,m,8] k, float[n,m,8] v, int64[4] heads) => (float[a,b,c] y) {{ {} }}"
    weights = {name: value for name, value in WEIGHTS.items() if name != "heads"}
    assert reasons(PASS, text.format(USUAL), weights, opset=23) == []
    regrouped = (
        HEAD.format(USUAL)
        .replace("[n,3,8] q", "[6,2,8] q")
        .replace("[n,5,8]", "[4,3,8]")
        .replace("[n,3,8] y", "[2,6,8] y")
    )
    weights = {**WEIGHTS, "heads": np.array([2, -1, 2, 4])}
    assert reasons(PASS, regrouped, weights, opset=23) == []


def test_nothing_is_broadcast() -> None:
    one_key = HEAD.format(USUAL).replace("[n,5,8]", "[1,5,8]")
    assert reasons(PASS, one_key, WEIGHTS, opset=23) == []
    text = "g (float[n,2,3,4] q, float[n,1,5,4] k, float[n,1,5,4] v) => (float[n,2,3,4] y) {{ {} }}"
    assert reasons(PASS, text.format(AXES), WEIGHTS, opset=23) == []


@pytest.mark.parametrize(
    "value, shape", [("s", "n,2,3,5"), ("p", "n,2,3,5"), ("kt", "n,2,4,5"), ("vt", "n,2,5,4"), ("o", "n,2,3,4")]
)
def test_what_is_inside_may_not_be_needed_elsewhere(value: str, shape: str) -> None:
    text = HEAD.format(f"{USUAL} z = Neg({value})").replace("float[n,3,8] y)", f"float[n,3,8] y, float[{shape}] z)")
    assert any("other users" in reason for reason in reasons(PASS, text, WEIGHTS, opset=23))


def test_needs_the_opset_and_the_target() -> None:
    assert reasons(PASS, HEAD.format(USUAL), WEIGHTS, opset=22) == []
    for target in (PlainTarget(), TensorRtTarget()):
        assert "has no Attention" in reasons(PASS, HEAD.format(USUAL), WEIGHTS, opset=23, target=target)[0]
    half = HEAD.format(USUAL).replace("float[", "float16[")
    weights = {**WEIGHTS, "scale": np.array(0.25, np.float16)}
    assert "of FLOAT16" in reasons(PASS, half, weights, opset=23)[0]


def test_self_attention_in_a_body() -> None:
    inner = USUAL.replace("(q,", "(x,").replace("(k,", "(x,").replace("(v,", "(x,").replace("y =", "y1 =")
    shapes = "heads = Constant<value_ints=[0,0,2,4]>() flat = Constant<value_ints=[0,0,8]>() "
    text = f"""g (bool c0, float[2,3,8] x) => (float[2,3,8] r) {{ r = If (c0) <
        then_branch = t () => (float[2,3,8] p1) {{ {shapes} {inner} p1 = Identity(y1) }},
        else_branch = f () => (float[2,3,8] q1) {{ q1 = Neg(x) }}> }}"""
    model = parse(text, {"scale": WEIGHTS["scale"]}, opset=23)
    assert_conforms(PASS, model, must_fire=True)
    assert "Attention" in op_types(apply(PASS, model).model)
