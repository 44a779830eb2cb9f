"""fold-pad: a Pad goes where the operator after it can pad the same, in every form and no further."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import apply, assert_equal_after, assert_untouched, feeds, op_types, parse, run

from irc.ir import size_on_disk
from irc.passes.simplification import FoldPad

PASS = FoldPad()
SPATIAL = np.array([0, 0, 1, 2, 0, 0, 3, 0])
HALF = np.array([0, 0, 1, 1, 0, 0, 1, 1])
ROUNDING = 1e-6


def pads_of(model: ir.Model) -> list[int]:
    (node,) = (n for n in model.graph.all_nodes() if "pads" in n.attributes)
    assert "auto_pad" not in node.attributes
    return list(node.attributes.get_ints("pads"))


FOLDS = {
    "no padding of its own": ("Conv(p, w)", [1, 2, 3, 0]),
    "its own padding": ("Conv<pads=[1,0,0,2]>(p, w)", [2, 2, 3, 2]),
    "strides and dilations": ("Conv<strides=[2,2], dilations=[2,1], pads=[1,1,1,1]>(p, w)", [2, 3, 4, 1]),
    "kernel given": ("Conv<kernel_shape=[3,3]>(p, w)", [1, 2, 3, 0]),
    "VALID": ('Conv<auto_pad="VALID">(p, w)', [1, 2, 3, 0]),
    "SAME_UPPER": ('Conv<auto_pad="SAME_UPPER", strides=[2,3]>(p, w)', [1, 2, 4, 1]),
    "SAME_LOWER": ('Conv<auto_pad="SAME_LOWER", strides=[2,3]>(p, w)', [2, 3, 3, 0]),
    "NOTSET": ('Conv<auto_pad="NOTSET">(p, w)', [1, 2, 3, 0]),
}


@pytest.mark.parametrize("case", FOLDS)
def test_folds_into_a_convolution(case: str) -> None:
    call, expected = FOLDS[case]
    model = parse(
        f"g (float[1,3,8,9] x) => (float[1,4,m,n] y) {{ p = Pad(x, pads)  y = {call} }}", pads=SPATIAL, w=(4, 3, 3, 3)
    )
    outcome = assert_equal_after(PASS, model, rtol=ROUNDING)
    assert op_types(outcome.model) == ["Conv"] and outcome.rewritten == ["p"] and outcome.skipped == {}
    assert pads_of(outcome.model) == expected
    assert set(outcome.model.graph.initializers) == {"w"}
    assert size_on_disk(outcome.model) < size_on_disk(model)


@pytest.mark.parametrize("size", range(5, 12))
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_automatic_padding_of_every_remainder(size: int, mode: str) -> None:
    for kernel, stride in ((1, 3), (2, 2), (3, 2), (4, 3)):
        model = parse(
            f'g (float[1,2,{size}] x) => (float[1,2,n] y) {{ p = Pad(x, pads)  y = Conv<auto_pad="{mode}", strides=[{stride}]>(p, w) }}',
            pads=np.array([0, 0, 2, 0, 0, 1]), w=(2, 2, kernel),
        )  # fmt: skip
        assert op_types(assert_equal_after(PASS, model, rtol=ROUNDING).model) == ["Conv"]


@pytest.mark.parametrize(
    ("opset", "pad", "weights"),
    [
        (2, "Pad<pads=[0,0,1,2,0,0,3,0]>(x)", {}),
        (10, "Pad<pads=[0,0,1,2,0,0,3,0], value=0.0>(x)", {}),
        (11, "Pad(x, pads)", {"pads": SPATIAL}),
        (13, "Pad(x, pads, zero)", {"pads": SPATIAL, "zero": np.float32(0)}),
        (17, 'Pad<mode="constant">(x, pads, zero)', {"pads": SPATIAL, "zero": np.float32(0)}),
        (18, "Pad(x, pads, , axes)", {"pads": np.array([1, 2, 3, 0]), "axes": np.array([2, 3])}),
        (21, "Pad(x, pads, zero, axes)", {"pads": np.array([2, 1, 0, 3]), "zero": np.float32(0), "axes": np.array([-1, -2])}),
    ],
)  # fmt: skip
def test_every_form_of_pad(opset: int, pad: str, weights: dict[str, np.ndarray]) -> None:
    model = parse(
        f"g (float[1,3,8,9] x) => (float[1,4,10,9] y) {{ p = {pad}  y = Conv(p, w) }}",
        weights,
        opset=opset,
        w=(4, 3, 3, 3),
    )
    outcome = assert_equal_after(PASS, model, rtol=ROUNDING)
    assert op_types(outcome.model) == ["Conv"] and pads_of(outcome.model) == [1, 2, 3, 0]
    assert set(outcome.model.graph.initializers) == {"w"}


def test_convolutions_of_other_ranks_and_unknown_sizes() -> None:
    one = parse(
        "g (float[n,2,l] x) => (float[n,3,m] y) { p = Pad(x, pads)  y = Conv<group=1>(p, w, b) }",
        pads=np.array([0, 0, 2, 0, 0, 1]),
        w=(3, 2, 3),
        b=(3,),
    )
    assert op_types(assert_equal_after(PASS, one, rtol=ROUNDING, symbols=(3, 5)).model) == ["Conv"]
    three = parse(
        "g (float[1,2,4,4,4] x) => (float[1,2,a,b,c] y) { p = Pad(x, pads)  y = Conv<group=2>(p, w) }",
        pads=np.array([0, 0, 1, 0, 2, 0, 0, 0, 1, 0]),
        w=(2, 1, 3, 3, 3),
    )
    assert op_types(assert_equal_after(PASS, three, rtol=ROUNDING).model) == ["Conv"]


def test_a_computed_weight_does_not_matter() -> None:
    model = parse(
        "g (float[1,2,6,6] x, float[2,2,3,3] w) => (float[1,2,6,6] y) { p = Pad(x, pads)  y = Conv(p, w) }", pads=HALF
    )
    assert op_types(assert_equal_after(PASS, model, rtol=ROUNDING).model) == ["Conv"]


def test_pads_in_a_row() -> None:
    model = parse(
        "g (float[1,3,8,9] x) => (float[1,4,m,n] y) { o = Pad(x, pads)  p = Pad(o, pads)  y = Conv(p, w) }",
        pads=SPATIAL,
        w=(4, 3, 3, 3),
    )
    outcome = assert_equal_after(PASS, model, rtol=ROUNDING)
    assert op_types(outcome.model) == ["Conv"] and pads_of(outcome.model) == [2, 4, 6, 0]


def test_shared_pads_and_weights() -> None:
    model = parse(
        """g (float[1,3,8,9] x) => (float[1,4,10,9] y, float[1,4,10,9] z) { p = Pad(x, pads)  y = Conv(p, w)
        n = Neg(x)  q = Pad(n, pads)  z = Conv(q, w) }""",
        pads=SPATIAL,
        w=(4, 3, 3, 3),
    )
    outcome = assert_equal_after(PASS, model, rtol=ROUNDING)
    assert op_types(outcome.model) == ["Conv", "Neg", "Conv"] and set(outcome.model.graph.initializers) == {"w"}


def test_inside_a_body() -> None:
    model = parse(
        """g (bool c, float[1,3,8,9] x) => (float[1,4,10,9] y) { y = If (c) <
        then_branch = t () => (float[1,4,10,9] r) { p = Pad(x, pads)  r = Conv(p, w) },
        else_branch = e () => (float[1,4,10,9] s) { q = Pad(x, pads)  k = Conv(q, w)  s = Neg(k) }> }""",
        pads=SPATIAL,
        w=(4, 3, 3, 3),
    )
    assert op_types(assert_equal_after(PASS, model, rtol=ROUNDING).model) == ["If", "Conv", "Conv", "Neg"]


POOLS = {
    "counts its padding": ("x", "AveragePool<kernel_shape=[3,3], pads=[1,0,0,1], count_include_pad=1>(p)", 0.0),
    "has no padding": ("x", "AveragePool<kernel_shape=[3,3], strides=[2,2]>(p)", 0.0),
    "automatic padding that is none": ("x", 'AveragePool<kernel_shape=[3,3], auto_pad="VALID">(p)', 0.0),
    "maximum, -inf": ("x", "MaxPool<kernel_shape=[3,3], strides=[2,2]>(p)", -np.inf),
    "maximum, 0 after Relu": ("r", "MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,0,1,0]>(p)", 0.0),
    "maximum, automatic padding": ("r", 'MaxPool<kernel_shape=[4,4], auto_pad="SAME_UPPER", strides=[2,2]>(p)', 0.0),
    "maximum, below 0 after Relu": ("r", "MaxPool<kernel_shape=[3,3], strides=[2,2]>(p)", -1.0),
    "maximum, after Clip": ("k", "MaxPool<kernel_shape=[3,3], strides=[2,2]>(p)", 0.25),
}


@pytest.mark.parametrize("case", POOLS)
def test_folds_into_a_pool(case: str) -> None:
    source, pool, value = POOLS[case]
    model = parse(
        f"g (float[1,3,8,9] x) => (float[1,3,m,n] y) {{ r = Relu(x)  k = Clip(x, low)  p = Pad({source}, pads, value)  y = {pool}  z = Add(r, k) }}",
        pads=HALF, value=np.float32(value), low=np.float32(0.25),
    )  # fmt: skip
    outcome = assert_equal_after(PASS, model, rtol=ROUNDING)
    assert "Pad" not in op_types(outcome.model)
    if "AveragePool" in pool:
        assert outcome.model.graph[-2].attributes.get_int("count_include_pad") == 1


@pytest.mark.parametrize(("dtype", "value", "folds"), [("uint8", 0, True), ("int8", -128, True), ("int8", 0, False)])
def test_integer_maxima(dtype: str, value: int, folds: bool) -> None:
    model = parse(
        f"g ({dtype}[1,3,8,9] x) => ({dtype}[1,3,m,n] y) {{ p = Pad(x, pads, value)  y = MaxPool<kernel_shape=[3,3]>(p) }}",
        pads=HALF, value=np.array(value, dtype),
    )  # fmt: skip
    assert apply(PASS, model).rewritten == (["p"] if folds else [])


def test_old_clips() -> None:
    source = "g (float[1,3,8,9] x) => (float[1,3,m,n] y) {{ k = Clip<{}>(x)  p = Pad<pads=[0,0,1,1,0,0,1,1]>(k)  y = MaxPool<kernel_shape=[3,3]>(p) }}"
    model = parse(source.format("min=0.0, max=6.0"), opset=10)
    assert op_types(assert_equal_after(PASS, model).model) == ["Clip", "MaxPool"]
    for limits in ("max=6.0", "min=0.0, max=-1.0"):
        assert "maximum" in assert_untouched(PASS, parse(source.format(limits), opset=10))["p"]


CONV = "g (float[1,3,8,9] x) => (float[1,4,m,n] y) {{ p = Pad{}  y = Conv(p, w) }}"
POOL = "g (float[1,3,8,9] x) => (float[1,3,m,n] y) {{ p = Pad(x, pads{})  y = {} }}"
REASONS = {
    "reflection": (CONV.format('<mode="reflect">(x, pads)'), "it pads with values of its input (reflect)"),
    "another value": (CONV.format("(x, pads, one)"), "it pads with 1, not 0"),
    "minus zero": (CONV.format("(x, pads, minus_zero)"), "it pads with -0, not 0"),
    "NaN": (CONV.format("(x, pads, nan)"), "it pads with nan, not 0"),
    "cropping": (CONV.format("(x, crop)"), "it crops: some of its pads are negative"),
    "channels": ("g (float[1,2,8,9] x) => (float[1,4,m,n] y) { p = Pad(x, channels)  y = Conv(p, w) }", "it pads the batch or the channels"),
    "batch": ("g (float[1,3,8,9] x) => (float[3,4,m,n] y) { p = Pad(x, batch)  y = Conv(p, w) }", "it pads the batch or the channels"),
    "graph output": (
        "g (float[1,3,8,9] x) => (float[1,4,m,n] y, float[1,3,a,b] p) { p = Pad(x, pads)  y = Conv(p, w) }", "its output has other users"
    ),
    "shared": (
        "g (float[1,3,8,9] x) => (float[1,4,m,n] y, float[1,3,a,b] z) { p = Pad(x, pads)  y = Conv(p, w)  z = Neg(p) }", "its output has other users"
    ),
    "in another graph": (
        """g (bool c, float[1,3,8,9] x) => (float[1,4,10,9] y) { p = Pad(x, pads)  y = If (c) <
        then_branch = t () => (float[1,4,10,9] r) { r = Conv(p, w) }, else_branch = e () => (float[1,4,10,9] s) { s = Conv(x, w4) }> }""",
        "it is in another graph than the Conv after it",
    ),
    "computed pads": ("g (float[1,3,8,9] x, int64[8] a) => (float[1,4,m,n] y) { p = Pad(x, a)  y = Conv(p, w) }", "its pads, value or axes are not constant"),
    "computed value": ("g (float[1,3,8,9] x, float a) => (float[1,4,m,n] y) { p = Pad(x, pads, a)  y = Conv(p, w) }", "its pads, value or axes are not constant"),
    "unknown size": (
        'g (float[1,3,h,h] x) => (float[1,4,m,n] y) { p = Pad(x, pads)  y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(p, w) }',
        "of the Conv after it: its own padding (auto_pad) depends on a shape that is not known",
    ),
    "automatic padding with gaps": (
        CONV.format("(x, pads)").replace("Conv(", 'Conv<auto_pad="SAME_UPPER", dilations=[2,1]>('),
        "of the Conv after it: runtimes disagree on automatic padding (auto_pad) of windows with gaps",
    ),
    "average that does not count its padding": (
        POOL.format("", "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(p)"),
        "the AveragePool after it has padding of its own that it does not count",
    ),
    "average, automatic padding it does not count": (
        POOL.format("", 'AveragePool<kernel_shape=[3,3], auto_pad="SAME_UPPER">(p)'),
        "the AveragePool after it has padding of its own that it does not count",
    ),
    "average of another value": (POOL.format(", one", "AveragePool<kernel_shape=[3,3]>(p)"), "it pads with 1, not 0"),
    "rounding up": (
        POOL.format("", "AveragePool<kernel_shape=[3,3], ceil_mode=1, strides=[2,2]>(p)"),
        "the AveragePool after it rounds its size up, which depends on whose the padding is",
    ),
    "padding as large as the kernel": (
        POOL.format("", "AveragePool<kernel_shape=[3,3]>(p)").replace("pads)", "wide)"),
        "the padding would be as large as the kernel of the AveragePool after it",
    ),
    "padding that becomes as large": (
        POOL.format("", "AveragePool<kernel_shape=[2,2], pads=[1,0,0,0], count_include_pad=1>(p)"),
        "the padding would be as large as the kernel of the AveragePool after it",
    ),
    "gaps": (POOL.format(", low", "MaxPool<kernel_shape=[3,3], dilations=[2,2]>(p)"), "the windows of the MaxPool after it have gaps"),
    "positions": (
        POOL.format(", low", "MaxPool<kernel_shape=[3,3]>(p)").replace("y = M", "y, i = M").replace(" y)", " y, int64[1,3,m,n] i)"),
        "the MaxPool after it returns positions in the padded input",
    ),
    "maximum with zeros": (POOL.format("", "MaxPool<kernel_shape=[3,3]>(p)"), "it pads with 0, which may be the maximum of the MaxPool after it"),
    "maximum with 1 after Relu": (
        "g (float[1,3,8,9] x) => (float[1,3,m,n] y) { r = Relu(x)  p = Pad(r, pads, one)  y = MaxPool<kernel_shape=[3,3]>(p) }",
        "it pads with 1, which may be the maximum of the MaxPool after it",
    ),
    "Clip whose upper limit is below": (
        "g (float[1,3,8,9] x) => (float[1,3,m,n] y) { r = Clip(x, one, minus_one)  p = Pad(r, pads)  y = MaxPool<kernel_shape=[3,3]>(p) }",
        "it pads with 0, which may be the maximum of the MaxPool after it",
    ),
    "Clip whose upper limit is computed": (
        "g (float[1,3,8,9] x, float a) => (float[1,3,m,n] y) { r = Clip(x, one, a)  p = Pad(r, pads)  y = MaxPool<kernel_shape=[3,3]>(p) }",
        "it pads with 0, which may be the maximum of the MaxPool after it",
    ),
}  # fmt: skip
CONSTANTS = {
    "pads": HALF,
    "crop": -HALF,
    "wide": 3 * HALF,
    "channels": np.array([0, 1, 1, 1, 0, 0, 1, 1]),
    "batch": np.array([0, 0, 1, 1, 2, 0, 1, 1]),
    "one": np.float32(1),
    "minus_one": np.float32(-1),
    "minus_zero": np.float32(-0.0),
    "nan": np.float32(np.nan),
    "low": np.float32(-np.inf),
    "w": (4, 3, 3, 3),
    "w4": (4, 3, 3, 3),
}


@pytest.mark.parametrize("case", REASONS)
def test_leaves(case: str) -> None:
    source, reason = REASONS[case]
    weights = CONSTANTS | ({"pads": SPATIAL, "w4": (4, 3, 1, 1)} if case == "in another graph" else {})
    if case == "in another graph":
        source = source.replace("Conv(x, w4)", "Conv<pads=[1,0,1,0]>(x, w4)")
    assert assert_untouched(PASS, parse(source, weights)) == {"p": reason}


def test_leaves_other_operators_in_silence() -> None:
    for source in (
        "g (float[1,3,8,9] x) => (float[1,3,a,b] y) { p = Pad(x, pads)  y = Relu(p) }",
        "g (float[1,3,8,9] x) => (float[1,4,a,b] y) { p = Pad(x, pads)  y = ConvTranspose(p, t) }",
        "g (uint8[1,3,8,9] x) => (int32[1,4,a,b] y) { p = Pad(x, pads)  y = ConvInteger(p, q) }",
        "g (float[1,3,8,9] x) => (float[1,3,a,b] y) { p = Pad(x, pads)  y = custom.Conv(p, t) }",
        "g (float[4,3,3,3] x, float[1,3,8,9] d) => (float[1,4,a,b] y) { p = Pad(x, pads)  y = Conv(d, p) }",
    ):
        model = parse(source, pads=HALF, t=(3, 4, 3, 3), q=np.ones((4, 3, 3, 3), np.uint8))
        assert assert_untouched(PASS, model) == {}


def test_leaves_pads_that_callers_may_override() -> None:
    model = parse(CONV.format("(x, pads)"), pads=HALF, w=(4, 3, 3, 3))
    model.graph.inputs.append(model.graph.initializers["pads"])
    assert assert_untouched(PASS, model) == {"p": "its pads, value or axes are not constant"}


def test_leaves_the_first_form_of_averages() -> None:
    model = parse(
        "g (float[1,3,8,9] x) => (float[1,3,8,9] y) { p = Pad<pads=[0,0,1,1,0,0,1,1]>(x)  y = AveragePool<kernel_shape=[3,3]>(p) }",
        opset=6,
    )
    assert assert_untouched(PASS, model) == {"p": "AveragePool of opset 6 cannot count padding"}


def test_leaves_the_first_form_of_pad() -> None:
    source = "g (float[1,3,8,9] x) => (float[1,4,8,9] y) { p = Pad<paddings=[0,0,1,1,0,0,1,1]>(x)  y = Conv(p, w) }"
    model = parse(source, opset=1, raw=True, w=(4, 3, 3, 3))
    assert apply(PASS, model).skipped == {"p": "Pad of opset 1 is not folded; convert the model to opset 2 or later"}


def test_infinities_at_the_border_stay_where_they_are() -> None:
    model = parse(
        "g (float[1,1,4,4] x) => (float[1,1,4,4] y) { p = Pad(x, pads, low)  y = MaxPool<kernel_shape=[3,3]>(p) }",
        pads=HALF,
        low=np.float32(-np.inf),
    )
    feed = feeds(model)
    feed["x"][0, 0, 0] = (np.inf, -np.inf, -0.0, -3e38)
    after = apply(PASS, model).model
    np.testing.assert_array_equal(run(after, feed)[0], run(model, feed)[0])
