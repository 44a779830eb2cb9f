"""Expand, Tile, Pad, Resize and what else makes coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import model_of
from movement_kit import check, families, flat, image, ints, reasons, scalar, tokens, weights

from irc.analysis.channels import channel_groups

REPEATED_HEADS = (
    "q0 = MatMul(x, wq) q1 = Reshape(q0, sq) q = Transpose<perm=[0,2,1,3]>(q1) k0 = MatMul(x, wk) k1 = Reshape(k0, sk) "
    "k2 = Transpose<perm=[0,2,1,3]>(k1) k3 = Unsqueeze(k2, two) sh = Shape(k2) b = Slice(sh, zero, one) t = Slice(sh, two, three) "
    "{expand} rs = Concat<axis=0>(b, six, t, eight) k = Reshape(k4, rs) kt = Transpose<perm=[0,1,3,2]>(k) qk = MatMul(q, kt) "
    "m = MatMul(qk, k) mt = Transpose<perm=[0,2,1,3]>(m) o = Reshape(mt, join) y = MatMul(o, w2)"
)
EXPANDS = {
    "sizes": "es = Concat<axis=0>(b, two, three, t, eight) k4 = Expand(k3, es)",
    "ones": "k4 = Expand(k3, ones)",
    "tile": "k4 = Tile(k3, ones)",
}


@pytest.mark.parametrize("how", sorted(EXPANDS))
def test_heads_that_several_queries_share(how: str) -> None:
    initializers = weights(
        wq=(4, 48), wk=(4, 16), w2=(48, 3), sq=ints(0, 0, 6, 8), sk=ints(0, 0, 2, 8), join=ints(0, 0, 48), zero=ints(0), one=ints(1),
        two=ints(2), three=ints(3), six=ints(6), eight=ints(8), ones=ints(1, 1, 3, 1, 1),
    )  # fmt: skip
    text = tokens(REPEATED_HEADS.format(expand=EXPANDS[how]))
    check(text, initializers, ["2 on wq.1x24 wk.1x8 w2.0x24"], ["16 on wq.1x3 wk.1x1 w2.0x3"])


def test_one_head_that_all_queries_share() -> None:
    initializers = weights(
        wq=(4, 48), wk=(4, 8), w2=(48, 3), sq=ints(0, 0, 6, 8), sk=ints(0, 0, 1, 8), join=ints(0, 0, 48), zero=ints(0), one=ints(1),
        two=ints(2), three=ints(3), six=ints(6), eight=ints(8), ones=ints(1, 1, 6, 1, 1),
    )  # fmt: skip
    text = tokens(REPEATED_HEADS.format(expand=EXPANDS["ones"]))
    groups = channel_groups(model_of(text, initializers))
    check(
        text, initializers, families(groups), families(channel_groups(groups.propagation.model, mode="columns")),
    )  # fmt: skip
    assert families(channel_groups(groups.propagation.model, mode="columns")) == ["8 on wq.1x6 wk.1x1 w2.0x6"]


def test_an_expanded_number_takes_any_width() -> None:
    body = "a = MatMul(x, w1) sh = Shape(a) c = ConstantOfShape<value=float[1]{0.5}>(sh) f = Expand(half, twelve) d = Add(a, c) e = Mul(d, f) y = MatMul(e, w2)"
    initializers = weights(w1=(4, 12), w2=(12, 3), twelve=ints(12), half=np.array(0.7, np.float32))
    check(flat(body), initializers, ["12 on w1.1x1 w2.0x1"])


def test_expanding_to_the_own_shape_changes_nothing() -> None:
    body = "a = MatMul(x, w1) sh = Shape(a) e = Expand(a, sh) f = Expand(e, one) y = MatMul(f, w2)"
    check(flat(body), weights(w1=(4, 12), w2=(12, 3), one=ints(1, 1)), ["12 on w1.1x1 w2.0x1"])


def test_an_expanded_row_has_its_labels_and_more_axes() -> None:
    body = "sh = Shape(x) b = Slice(sh, zero, one) s = Concat<axis=0>(b, one, six) c = Expand(cls, s) a = MatMul(x, w1) d = Concat<axis=1>(c, a) y = MatMul(d, w2)"
    text = flat(body, given="float[N,S,4] x", made="float[N,T,3] y")
    initializers = weights(cls=(1, 1, 6), w1=(4, 6), w2=(6, 3), zero=ints(0), one=ints(1), six=ints(6))
    check(text, initializers, ["6 on cls.2x1 w1.1x1 w2.0x1"])


def test_expand_to_sizes_that_are_fed_pins() -> None:
    text = flat("a = MatMul(x, w1) b = Expand(a, s) y = MatMul(b, w2)", given="float[N,4] x, int64[2] s")
    assert not channel_groups(model_of(text, weights(w1=(4, 12), w2=(12, 3)))).families


def test_tiles_of_channels_are_cut_together() -> None:
    body = "a = MatMul(x, w1) b = Tile(a, r) y = MatMul(b, w2)"
    check(flat(body), weights(w1=(4, 12), w2=(24, 3), r=ints(1, 2)), ["12 on w1.1x1 w2.0x2"])


def test_a_tiled_column_takes_any_width() -> None:
    body = "a = MatMul(x, w1) u = MatMul(x, w3) b = Tile(u, r) c = Mul(a, b) y = MatMul(c, w2)"
    check(flat(body), weights(w1=(4, 12), w3=(4, 1), w2=(12, 3), r=ints(1, 12)), ["12 on w1.1x1 w2.0x1"])


def test_tiles_of_heads() -> None:
    body = "a = MatMul(x, w1) h = Reshape(a, s) b = Tile(h, r) o = Reshape(b, join) y = MatMul(o, w2)"
    initializers = weights(w1=(4, 24), w2=(96, 3), s=ints(0, 0, 3, 8), r=ints(1, 1, 2, 2), join=ints(0, 0, -1))
    check(tokens(body), initializers, ["3 on w1.1x8 w2.0x32"], ["24 on w1.1x1 w2.0x4"])


@pytest.mark.parametrize("opset", [10, 13, 18])
def test_padded_channels_adopt_what_they_meet(opset: int) -> None:
    pads = "0, 2, 0, 0, 0, 3, 0, 0"
    spelled = (
        f"p = Pad<pads=[{pads}]>(a)"
        if opset == 10
        else "p = Pad(a, pads)"
        if opset == 13
        else "p = Pad(a, two, , axes)"
    )
    initializers = weights(w1=(6, 4, 1, 1), w2=(11, 4, 1, 1), w3=(3, 11, 1, 1))
    initializers |= {10: {}, 13: {"pads": ints(0, 2, 0, 0, 0, 3, 0, 0)}, 18: {"two": ints(2, 3), "axes": ints(-3)}}[
        opset
    ]
    body = f"a = Conv(x, w1) {spelled} b = Conv(x, w2) c = Add(b, p) y = Conv(c, w3)"
    check(image(body), initializers, ["5 on w2.0x1 w3.1x1", "6 on w1.0x1 w2.0x1 w3.1x1"], opset=opset)


def test_channels_cropped_by_negative_pads() -> None:
    body = "a = Conv(x, w1) p = Pad(a, pads) y = Conv(p, w3)"
    initializers = weights(w1=(12, 4, 1, 1), w3=(3, 9, 1, 1), pads=ints(0, -2, 1, 0, 0, -1, 0, 1))
    check(image(body), initializers, ["3 on w1.0x1", "9 on w1.0x1 w3.1x1"])


def test_channels_cropped_in_front_and_padded_behind() -> None:
    body = "a = Conv(x, w1) p = Pad(a, pads, number) y = Conv(p, w3)"
    initializers = weights(
        w1=(12, 4, 1, 1), w3=(3, 12, 1, 1), pads=ints(0, -2, 0, 0, 0, 2, 0, 0), number=np.array(0.5, np.float32)
    )
    check(image(body), initializers, ["10 on w1.0x1 w3.1x1", "2 on w1.0x1", "2 on w3.1x1"])


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_pads_that_copy_pin_their_axis_and_no_other(mode: str) -> None:
    body = f'a = Conv(x, w1) p = Pad<mode="{mode}">(a, pads) y = Conv(p, w3)'
    made = check(image(body), weights(w1=(6, 4, 1, 1), w3=(3, 8, 1, 1), pads=ints(0, 1, 0, 0, 0, 1, 0, 0)), [])
    assert "padded axis" in reasons(made, "w1")
    space = weights(w1=(6, 4, 1, 1), w3=(3, 6, 1, 1), pads=ints(0, 0, 1, 1, 0, 0, 1, 1))
    check(image(body), space, ["6 on w1.0x1 w3.1x1"])


def test_pads_of_head_dimensions_may_differ_by_head() -> None:
    body = "a = MatMul(x, w1) h = Reshape(a, s) b = Pad(h, pads) o = Reshape(b, join) y = MatMul(o, w2)"
    initializers = weights(
        w1=(4, 24), w2=(30, 3), s=ints(0, 0, 3, 8), pads=ints(0, 0, 0, 1, 0, 0, 0, 1), join=ints(0, 0, 30)
    )
    groups = channel_groups(model_of(tokens(body), initializers), mode="columns")
    assert "24 on w1.1x1 w2.0x1" in families(groups)
    check(tokens(body), initializers, ["3 on w1.1x8 w2.0x10"], families(groups))


@pytest.mark.parametrize(
    ("opset", "spelled", "given"),
    [(9, 'Upsample<mode="nearest">(a, scales)', {"scales": np.array([1, 1, 2, 2], np.float32)}),
     (10, 'Resize<mode="nearest">(a, scales)', {"scales": np.array([1, 1, 2, 2], np.float32)}),
     (13, 'Resize<mode="linear">(a, , scales)', {"scales": np.array([1, 1, 2, 2], np.float32)}),
     (18, 'Resize<mode="nearest", axes=[2, 3]>(a, , two)', {"two": np.array([2, 2], np.float32)}),
     (18, 'Resize<mode="nearest", axes=[-1, -3]>(a, , , sizes)', {"sizes": ints(8, 6)})],
)  # fmt: skip
def test_resized_images_keep_their_channels(opset: int, spelled: str, given: dict[str, np.ndarray]) -> None:
    body = f"a = Conv(x, w1) p = {spelled} y = Conv(p, w3)"
    check(image(body), weights(w1=(6, 4, 1, 1), w3=(3, 6, 1, 1)) | given, ["6 on w1.0x1 w3.1x1"], opset=opset)


def test_sizes_computed_from_the_shape_are_cut() -> None:
    body = (
        'a = Conv(x, w1) sh = Shape(a) nc = Slice(sh, zero, two) hw = Slice(sh, two, four) h2 = Mul(hw, two) '
        's = Concat<axis=0>(nc, h2) p = Resize<mode="linear">(a, , , s) y = Conv(p, w3)'
    )  # fmt: skip
    initializers = weights(w1=(6, 4, 1, 1), w3=(3, 6, 1, 1), zero=ints(0), two=ints(2), four=ints(4))
    check(image(body), initializers, ["6 on w1.0x1 w3.1x1"])


@pytest.mark.parametrize("attributes", ['mode="nearest"', 'mode="nearest", keep_aspect_ratio_policy="not_larger"'])
def test_channels_that_are_resized_stay(attributes: str) -> None:
    sizes = ints(2, 12, 4, 4) if "policy" not in attributes else ints(2, 6, 8, 8)
    body = f"a = Conv(x, w1) p = Resize<{attributes}>(a, , , sizes) y = Conv(p, w3)"
    made = check(
        flat(body, given="float[2,4,4,4] x", made="float[2,3,h,w] y"),
        weights(w1=(6, 4, 1, 1), w3=(3, int(sizes[1]), 1, 1), sizes=sizes), [],
    )  # fmt: skip
    assert "resized axis" in reasons(made, "w1")


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_channels_that_become_places_are_cut_together(mode: str) -> None:
    body = f'a = Conv(x, w1) p = DepthToSpace<blocksize=2, mode="{mode}">(a) y = Conv(p, w3)'
    check(image(body), weights(w1=(24, 4, 1, 1), w3=(3, 6, 1, 1)), ["6 on w1.0x4 w3.1x1"])


def test_a_block_that_becomes_one_channel_stays() -> None:
    body = "a = Conv(x, w1) p = DepthToSpace<blocksize=2>(a) y = Conv(p, w3)"
    check(image(body), weights(w1=(4, 4, 1, 1), w3=(3, 1, 1, 1)), [])


def test_groups_that_become_places() -> None:
    body = "a = Conv(x, w1) b = Conv<group=2>(a, w2) p = DepthToSpace<blocksize=2>(b) y = Conv(p, w3)"
    groups = channel_groups(model_of(image(body), weights(w1=(8, 4, 1, 1), w2=(24, 4, 1, 1), w3=(3, 6, 1, 1))))
    check(
        image(body), weights(w1=(8, 4, 1, 1), w2=(24, 4, 1, 1), w3=(3, 6, 1, 1)), families(groups),
        families(channel_groups(groups.propagation.model, mode="columns")),
    )  # fmt: skip


def test_places_that_become_channels() -> None:
    body = "a = Conv(x, w1) p = SpaceToDepth<blocksize=2>(a) y = Conv(p, w3)"
    check(image(body), weights(w1=(6, 4, 1, 1), w3=(3, 24, 1, 1)), ["6 on w1.0x1 w3.1x4"])


def test_sizes_that_are_outputs_stay_what_they_were() -> None:
    body = "a = MatMul(x, w1) s = Shape(a) n = Size(a) one = Shape<start=1, end=2>(a) y = MatMul(a, w2)"
    text = flat(body, made="float[N,3] y, int64[2] s, int64 n, int64[1] one")
    check(text, weights(w1=(4, 12), w2=(12, 3)), ["12 on w1.1x1 w2.0x1"])


def test_a_scale_computed_from_a_size_stays() -> None:
    body = "a = MatMul(x, w1) s = Shape(a) d = Gather(s, last) f = Cast<to=1>(d) r = Sqrt(f) b = Div(a, r) y = MatMul(b, w2)"
    check(flat(body), weights(w1=(4, 12), w2=(12, 3), last=scalar(-1)), ["12 on w1.1x1 w2.0x1"])


def test_a_range_as_long_as_the_channels_pins_them() -> None:
    body = "a = MatMul(x, w1) s = Shape(a) d = Gather(s, last) r = Range(zero, d, one) f = Cast<to=1>(r) b = Mul(a, f) y = MatMul(b, w2)"
    made = check(flat(body), weights(w1=(4, 12), w2=(12, 3), last=scalar(-1), zero=scalar(0), one=scalar(1)), [])
    assert "free axis" in reasons(made, "w1")
