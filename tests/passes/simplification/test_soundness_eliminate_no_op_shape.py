"""eliminate-no-op-shape: arguments that are not known, and forms of other versions."""

from __future__ import annotations

import numpy as np
import pytest
from exactness_kit import assert_exact_after, constants
from pass_kit import assert_untouched, op_types, parse

from irc.passes.simplification import EliminateNoOpShape

PASS = EliminateNoOpShape()
TO_END = 2**63 - 1
STAY = {
    "zeros that are meant": ("Reshape<allowzero=1>(x, s)", "float[n,3]", {"s": [0, 3]}, 17),
    "numbers regrouped with -1": ("Reshape(x, s)", "float[2,6]", {"s": [3, -1]}, 17),
    "one row, split behind it": ("Flatten<axis=2>(x)", "float[1,m]", {}, 17),
    "one column, split before it": ("Flatten<axis=0>(x)", "float[n,1]", {}, 17),
    "flatten into one column": ("Flatten<axis=2>(x)", "float[n,m]", {}, 17),
    "flatten from behind into one row": ("Flatten<axis=-2>(x)", "float[n,m]", {}, 17),
    "tile of opset 5": ("Tile(x, r, a)", "float[n,m]", {"r": np.float32(1), "a": np.float32(0)}, 5),
    "transpose of what may be of size 1": ("Transpose<perm=[1,0]>(x)", "float[n,1]", {}, 17),
    "split into two": ("Split<axis=0>(x)", "float[4]", {}, 17),
    "split into the first of two": ("Split<axis=0, num_outputs=2>(x)", "float[4]", {}, 18),
    "slice of an axis that is not there": ("Slice(x, b, e, a)", "float[n,4]", {"b": [0], "e": [9], "a": [5]}, 17),
    "concat of nothing": ('Concat<axis=0>("")', "float[n]", {}, 17),
    "resize by no scales": ("Resize(x, , s)", "float[1,2,3,4]", {"s": np.zeros(0, np.float32)}, 17),
    "mean of all": ("ReduceMean<noop_with_empty_axes=0>(x)", "float[n,m]", {}, 18),
    "resize some axes to another size": (
        'Resize<mode="nearest", axes=[3,2]>(x, , , s)',
        "float[1,1,3,4]",
        {"s": [3, 4]},
        18,
    ),
    "depth to space": ("DepthToSpace<blocksize=2>(x)", "float[n,4,3,4]", {}, 17),
    "resize of opset 12": (
        'Resize<mode="nearest">(x, r, e, s)',
        "float[1,2,3,4]",
        {"r": np.zeros(0, np.float32), "e": np.zeros(0, np.float32), "s": [1, 2, 6, 4]},
        12,
    ),
    "resize elsewhere to another size": (
        'Resize<coordinate_transformation_mode="tf_crop_and_resize">(x, r, s)',
        "float[1,1,3,4]",
        {"r": np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
        17,
    ),
    "upsample of opset 7": ("Upsample<scales=[1.0,1.0,2.0,1.0]>(x)", "float[1,2,3,4]", {}, 7),
}
GO = {
    "upsample of opset 9": ("Upsample(x, s)", "float[1,2,3,4]", {"s": np.ones(4, np.float32)}, 9),
    "upsample of opset 7": ("Upsample<scales=[1.0,1.0,1.0,1.0]>(x)", "float[1,2,3,4]", {}, 7),
    "resize of opset 12": (
        "Resize(x, r, e, s)",
        "float[1,2,3,4]",
        {"r": np.zeros(0, np.float32), "e": np.zeros(0, np.float32), "s": [1, 2, 3, 4]},
        12,
    ),
    "resize from behind": ('Resize<mode="linear", axes=[-1]>(x, , , s)', "float[1,1,3,4]", {"s": [4]}, 18),
    "pad of some axes": ("Pad(x, p, , a)", "float[n,m]", {"p": [0, 0], "a": [1]}, 18),
    "slice of nothing": ("Slice(x, b, e, a)", "float[n,0]", {"b": [0], "e": [0], "a": [1]}, 17),
    "slice without axes, with steps": ("Slice(x, b, e, , t)", "float[n,m]", {"b": [0], "e": [TO_END], "t": [1]}, 17),
    "slice of some by attributes": ("Slice<starts=[0], ends=[9], axes=[1]>(x)", "float[n,4]", {}, 9),
}


def _between(case: tuple):
    operator, type_, weights, opset = case
    text = f"g ({type_} x0) => (float y) {{ x = Identity(x0)  z = {operator}  y = Identity(z) }}"
    if "Split<axis=0>" in operator:
        text = text.replace("z = S", "z, z2 = S").replace("Identity(z)", "Add(z, z2)")
    return parse(text, constants(**weights), opset=opset)


@pytest.mark.parametrize("case", STAY)
def test_stays(case: str) -> None:
    assert assert_untouched(PASS, _between(STAY[case])) == {}


@pytest.mark.parametrize("case", GO)
def test_goes(case: str) -> None:
    assert op_types(assert_exact_after(PASS, _between(GO[case])).model) == ["Identity", "Identity"]


def test_pads_of_opset_1_have_another_name() -> None:
    text = "g (float[n] x) => (float y) { z = Pad<paddings=[1,0]>(x)  y = Neg(z) }"
    assert assert_untouched(PASS, parse(text, opset=1, raw=True)) == {}


def test_what_is_asked_of_a_reshape_may_be_known_only_when_it_runs() -> None:
    text = "g (float[{}] x, float[n] z) => (float y) {{ s = Shape(z)  t = Concat<axis=0>(s, k)  a = Reshape(x, t)  y = Neg(a) }}"
    assert "not all dimensions" in assert_untouched(PASS, parse(text.format("2,6"), constants(k=[-1])))["a"]
    assert assert_untouched(PASS, parse(text.format("n,2,6"), constants(k=[3, -1]))) == {}


UNKNOWN = {
    "axes of a squeeze": ("Squeeze(x, a)", "float[2,3]", "int64[k]"),
    "axes of an unsqueeze": ("Unsqueeze(x, a)", "float[2,3]", "int64[k]"),
    "repeats": ("Tile(x, a)", "float[n,m]", "int64[2]"),
    "pads": ("Pad(x, a)", "float[n,m]", "int64[4]"),
    "starts": ("Slice(x, a, one)", "float[1,m]", "int64[1]"),
    "ends": ("Slice(x, zero, a)", "float[1,m]", "int64[1]"),
    "axes of a slice": ("Slice(x, zero, one, a)", "float[1,m]", "int64[1]"),
    "steps": ("Slice(x, zero, one, zero, a)", "float[1,m]", "int64[1]"),
    "axes of a sum": ("ReduceSum<noop_with_empty_axes=1>(x, a)", "float[n,m]", "int64[k]"),
    "sizes": ("Resize(x, , , a)", "float[1,1,2,2]", "int64[4]"),
    "scales": ("Resize(x, , a)", "float[1,1,2,2]", "float[4]"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_arguments_that_are_not_constant(case: str) -> None:
    operator, type_, argument = UNKNOWN[case]
    used = {name: value for name, value in (("zero", [0]), ("one", [1])) if name in operator}
    model = parse(f"g ({type_} x, {argument} a) => (float y) {{ z = {operator}  y = Neg(z) }}", constants(**used))
    assert assert_untouched(PASS, model) == {}


RANKLESS = "g (float[n] x, int64[k] s, int64[j] q) => (float y) {{ r = Reshape(x, s)  z = {}  y = Neg(z) }}"


def test_inputs_of_unknown_rank() -> None:
    weights = {"zero": [0], "four": [4], "end": [TO_END], "one": [1], "negative": [-9]}
    for operator in (
        "Transpose(r)",
        "Transpose<perm=[1,0]>(r)",
        "Flatten(r)",
        "Squeeze(r)",
        "Expand(r, one)",
        "Reshape(r, four)",
        "Slice(r, zero, four)",
        "Slice(r, negative, end)",
        "Resize(r, , , four)",
        "Resize(r, , , q)",
    ):
        used = {name: value for name, value in weights.items() if name in operator}
        assert assert_untouched(PASS, parse(RANKLESS.format(operator), constants(**used))) == {}
    weights["nothing"] = []
    for operator in ("Transpose<perm=[0,1]>(r)", "Slice(r, zero, end)", "Expand(r, nothing)"):
        used = {name: value for name, value in weights.items() if name in operator}
        feed = {"x": np.arange(4, dtype=np.float32), "s": np.array([2, 2]), "q": np.array([0])}
        outcome = assert_exact_after(PASS, parse(RANKLESS.format(operator), constants(**used)), feeds=(feed,))
        assert op_types(outcome.model) == ["Reshape", "Neg"]


SIZED = "g (float[m,4] x, float[n] v) => (float y) {{ s = Shape(v)  z = {}  y = Neg(z) }}"


def test_bounds_of_a_slice_that_are_dimensions() -> None:
    for operator, used in (
        ("Slice(x, s, end)", {"end": [TO_END]}),
        ("Slice(x, s, end, one)", {"end": [TO_END], "one": [1]}),
        ("Slice(x, negative, end)", {"negative": [-3], "end": [TO_END]}),
        ("Slice(x, zero, s, s)", {"zero": [0]}),
        ("Slice(x, zero, end, zero, s)", {"zero": [0], "end": [TO_END]}),
    ):
        assert assert_untouched(PASS, parse(SIZED.format(operator), constants(**used))) == {}
    whichever = parse(SIZED.format("Slice(x, zero, end, s)"), constants(zero=[0], end=[TO_END]))
    feed = {"x": np.ones((2, 4), np.float32), "v": np.ones(1, np.float32)}
    assert op_types(assert_exact_after(PASS, whichever, feeds=(feed,)).model) == ["Neg"]


def test_an_expand_whose_output_is_known_to_be_as_large() -> None:
    text = "g (float[2,{}] x, int64[2] s) => (float y) {{ z = Expand(x, s)  y = Neg(z) }}"
    for size in ("1", "n"):
        assert assert_untouched(PASS, parse(text.format(size))) == {}
    model = parse(text.format(3))
    feed = {"x": np.ones((2, 3), np.float32), "s": np.array([2, 1])}
    assert op_types(assert_exact_after(PASS, model, feeds=(feed,)).model) == ["Neg"]
