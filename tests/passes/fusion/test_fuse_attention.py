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
TURNED_TWICE = (
    SPELLINGS["keys turned twice"]
    .removesuffix(JOIN)
    .replace("p = Softmax<axis=-1>(c)", "a = Add(c, mask) p = Softmax(a)")
)


@pytest.mark.parametrize("nodes", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(nodes: str) -> None:
    used = {name: value for name, value in {**WEIGHTS, **MORE}.items() if name in nodes}
    assert_rewrites(PASS, HEAD.format(nodes), FUSED, used, opset=23)


def test_without_a_scale_it_is_one() -> None:
    nodes = USUAL.replace("c = Mul(s, scale)", "c = Identity(s)").replace("c = Identity(s)", "").replace("(c)", "(s)")
    assert_rewrites(PASS, HEAD.format(nodes), FUSED.replace("0.25", "1.0"), WEIGHTS, opset=23)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1, 3, 5), (1, 2, 3, 5)])
@pytest.mark.parametrize("order", ["c, mask", "mask, c"])
@pytest.mark.parametrize("nodes", [SPLIT + MASKED + JOIN, TURNED_TWICE + JOIN], ids=["turned once", "turned twice"])
def test_constant_mask(nodes: str, order: str, shape: tuple[int, ...]) -> None:
    weights = {**WEIGHTS, "mask": np.broadcast_to(WEIGHTS["mask"], shape).copy()}
    nodes = nodes.replace("c, mask", order)
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
    text = AXES_HEAD.format(AXES).replace("[n,2,", "[n,1,", 3)
    assert "enlarges" in reasons(PASS, text, {**WEIGHTS, "mask": np.zeros((1, 2, 3, 5), np.float32)}, opset=23)[0]


AXES_HEAD = "g (float[n,2,3,4] q, float[n,2,5,4] k, float[n,2,5,4] v) => (float[n,2,3,4] y) {{ {} }}"
AXES = "kt = Transpose<perm=[0,1,3,2]>(k) " + MASKED.replace("qt", "q").replace("vt", "v").replace("o =", "y =")


def test_heads_as_an_axis_with_a_mask() -> None:
    fused = AXES_HEAD.format("y = Attention<scale=0.25>(q, k, v, mask)")
    assert_rewrites(PASS, AXES_HEAD.format(AXES), fused, WEIGHTS, opset=23)
    assert_rewrites(PASS, AXES_HEAD.format(AXES), fused, WEIGHTS, opset=24)


def test_heads_as_an_axis_without_a_mask_are_no_faster() -> None:
    nodes = AXES.replace("a = Add(c, mask) ", "").replace("(a)", "(c)")
    assert reasons(PASS, AXES_HEAD.format(nodes), WEIGHTS, opset=23) == []


def test_heads_that_are_joined_by_something_else() -> None:
    text = HEAD.format(TURNED_TWICE + JOIN.replace("Reshape(j, flat)", "custom.Join(j, flat)"))
    outcome = apply(PASS, parse(text, WEIGHTS, opset=23))
    assert op_types(outcome.model) == ["Reshape"] * 3 + ["Transpose"] * 3 + ["Attention", "Transpose", "Join"]


HEADS_AS_AXIS = {
    "keys turned otherwise": (
        "n,2,3,4",
        "n,2,2,4",
        "n,2,2,4",
        AXES.replace("[0,1,3,2]", "[0,2,3,1]"),
        "n,2,3,4",
        (3, 2),
    ),
    "queries without a batch": ("2,2,2", "2,2,5,2", "2,2,5,2", AXES, "2,2,2,2", (2, 5)),
    "values for all heads": ("5,2,3,4", "5,2,5,4", "5,2", AXES, "5,2,3,2", (3, 5)),
    "heads not known": ("n,h,3,4", "n,i,5,4", "n,i,5,4", AXES, "n,j,3,4", (3, 5)),
    "batches not known": ("?,2,3,4", "?,2,5,4", "?,2,5,4", AXES, "?,2,3,4", (3, 5)),
    "no keys": ("n,2,3,4", "n,2,0,4", "n,2,0,4", AXES, "n,2,3,4", (1, 1, 3, 0)),
    "no size": ("n,2,3,0", "n,2,5,0", "n,2,5,4", AXES, "n,2,3,4", (3, 5)),
    "values of no size": ("n,2,3,4", "n,2,5,4", "n,2,5,0", AXES, "n,2,3,0", (3, 5)),
    "no heads": ("n,0,3,4", "n,0,5,4", "n,0,5,4", AXES, "n,0,3,4", (3, 5)),
}


@pytest.mark.parametrize("q, k, v, nodes, y, mask", HEADS_AS_AXIS.values(), ids=HEADS_AS_AXIS)
def test_heads_as_an_axis_that_stay(q: str, k: str, v: str, nodes: str, y: str, mask: tuple[int, ...]) -> None:
    text = f"g (float[{q}] q, float[{k}] k, float[{v}] v) => (float[{y}] y) {{ {nodes} }}"
    assert reasons(PASS, text, {**WEIGHTS, "mask": np.zeros(mask, np.float32)}, opset=23) == []


def test_lengths_are_copied_or_known() -> None:
    dynamic = HEAD.format(USUAL).replace("[n,3,", "[n,l,").replace("[n,5,", "[n,m,")
    fused = FUSED.replace("[n,3,", "[n,l,").replace("[n,5,", "[n,m,")
    assert_rewrites(PASS, dynamic, fused, WEIGHTS, opset=23)
    weights = {
        **WEIGHTS,
        "flat": np.array([-1, 3, 8]),
        "three": np.array([-1, 3, 2, 4]),
        "five": np.array([-1, 5, 2, 4]),
    }
    known = HEAD.format(USUAL.replace("k, heads", "k, five").replace("v, heads", "v, five").replace("heads", "three"))
    assert_rewrites(PASS, known.replace("[n,", "[2,"), FUSED.replace("[n,", "[2,"), weights, opset=23)
    text = HEAD.format(USUAL).replace("] v)", "] v, int64[3] flat)")
    assert apply(PASS, parse(text, {n: w for n, w in WEIGHTS.items() if n != "flat"}, opset=23)).rewritten == ["y"]


OTHER_SHAPES = {
    "heads not joined": ({"n,3,8] y": "n,6,4] y"}, {"flat": [0, -1, 4]}),
    "joined with an axis more": ({"n,3,8] y": "n,3,8,1] y"}, {"flat": [0, 0, 8, 1]}),
    "queries without a batch": ({"n,3,8] q": "6,8] q", "n,": "2,"}, {"heads": [2, -1, 2, 4]}),
    "queries with an axis more": ({"n,3,8] q": "n,3,8,1] q"}, {}),
    "keys not split": ({"n,5,8] k": "n,5,2,4] k", "ks = Reshape(k, heads)": "", "(ks)": "(k)"}, {}),
    "keys without a batch": (
        {"n,5,8] k": "1,5,8] k", "k, heads": "k, no_batch", "[0,2,3,1]": "[1,2,0]"},
        {"no_batch": [5, 2, 4]},
    ),
    "keys turned otherwise": ({"n,5,8]": "n,4,8]", "[0,2,3,1]": "[0,2,1,3]"}, {}),
    "queries not turned": (
        {"n,3,8]": "n,2,8]", "qt = Transpose<perm=[0,2,1,3]>": "qt = Transpose<perm=[0,1,2,3]>"},
        {},
    ),
    "heads not known": ({"8] ": "c] "}, {"heads": [0, 0, -1, 4]}),
    "size not known": ({"8] ": "c] "}, {"heads": [0, 0, 2, -1]}),
    "other batch of queries": ({"n,3,8]": "2,3,8]"}, {}),
    "other batch of keys and values": ({"n,3,8]": "m,3,8]"}, {}),
    "batches not known": ({"n,": "?,"}, {}),
    "batch of 0": (
        {"n,3,8] y": "0,3,8] y", "n,3,8]": "2,0,8]", "n,5,8]": "2,0,8]", "Reshape(": "Reshape<allowzero=1>("},
        {"heads": [0, 3, 2, 4], "flat": [0, 3, 8]},
    ),
    "joined to a batch of 0": (
        {"n,3,8] y": "0,3,8] y", "n,3,8]": "n,l,8]", "Reshape(j": "Reshape<allowzero=1>(j"},
        {"flat": [0, 3, 8]},
    ),
    "no keys": ({"n,5,8]": "2,0,8]", "n,": "2,"}, {}),
    "no queries": ({"n,3,8]": "n,0,8]"}, {}),
}


@pytest.mark.parametrize("changes, shapes", OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_other_shapes(changes: dict[str, str], shapes: dict[str, list[int]]) -> None:
    text = HEAD.format(USUAL)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    weights = {**WEIGHTS, **{name: np.array(shape) for name, shape in shapes.items()}}
    assert reasons(PASS, text, weights, opset=23) == []


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


@pytest.mark.parametrize("carried, captured", [("q", "k"), ("k", "q"), ("v", "q")])
def test_a_symbol_in_a_body_may_be_another_size(carried: str, captured: str) -> None:
    """What a Loop carries may be broadcast against what it captures."""
    shapes = {"q": "float[n,2,5,4]", "k": "float[n,2,5,4]", "v": "float[n,2,5,4]"}
    inner = AXES.replace("y =", "y1 =")
    text = f"""g ({", ".join(f"{shape} {name}" for name, shape in shapes.items() if name != carried)}, float[m,2,5,4] s)
        => (float[a,2,5,4] y) {{ y = Loop (three, , s) <body = b (int64 i, bool go, float[n,2,5,4] {carried})
        => (bool on, float[n,2,5,4] y1) {{ on = Identity(go) {inner} }}> }}"""
    weights = {**WEIGHTS, "three": np.array(3), "mask": np.zeros((5, 5), np.float32)}
    assert reasons(PASS, text, weights, opset=23) == []
