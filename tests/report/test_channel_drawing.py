"""The picture of channel groups: valid, the same every time, every family a bar between what makes and what reads it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from channel_graphs import convolutional, gated, grouped, recurrent, transformer
from channel_kit import MODES, model_of, random_weight

from irc.analysis.channels.report import describe_channels
from irc.report.channel_drawing import channel_drawing
from irc.report.channel_lanes import family_text, size_text
from irc.report.channel_rows import Fold, rows_of

SVG = "{http://www.w3.org/2000/svg}"


def drawn(document):
    text = channel_drawing(document)
    root = ET.fromstring(text)
    assert not re.search(r"\bnan\b|\binf\b", text, re.IGNORECASE)
    width, height = float(root.get("width")), float(root.get("height"))
    for element in root.iter():
        for names, end in ((("x", "x1", "x2", "cx"), width), (("y", "y1", "y2", "cy"), height)):
            for name in names:
                value = element.get(name)
                assert value is None or 0 <= float(value) <= end, (element.tag, name, value)
        if element.get("x") is not None and element.get("width") is not None:
            assert float(element.get("x")) + float(element.get("width")) <= width + 0.01
        if element.get("height") is not None and element.get("y") is not None:
            assert float(element.get("y")) + float(element.get("height")) <= height + 0.01
    return root


def with_class(root, name):
    return [e for e in root.iter() if name in (e.get("class") or "").split()]


def marks(root, relation):
    """Centres of the marks of a relation, the legend's left out."""
    found = []
    for element in with_class(root, relation)[1:]:
        if element.get("points"):
            corners = [tuple(map(float, point.split(","))) for point in element.get("points").split()]
            found.append((sum(x for x, _ in corners) / 4, sum(y for _, y in corners) / 4))
        else:
            found.append((float(element.get("cx")), float(element.get("cy"))))
    return found


def bars(root):
    """Boxes of families: (centre, top, bottom, what it says)."""
    found = []
    for bar in with_class(root, "family"):
        x, y, width, height = (float(bar.get(name)) for name in ("x", "y", "width", "height"))
        found.append((x + width / 2, y, y + height, bar.find(SVG + "title").text))
    return found


MODELS = {
    "transformer": lambda: transformer(2), "convolutional": convolutional, "recurrent": recurrent, "gated": gated, "grouped": grouped,
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_every_relation_is_a_mark_on_a_bar(name, mode):
    document = describe_channels(MODELS[name](), mode=mode)
    root = drawn(document)
    assert len(bars(root)) == len(document["families"]) + len(document["pinned_groups"])
    for relation in ("makes", "reads", "passes"):
        expected = sum(len(row[relation]) for row in document["operators"])
        if relation != "passes":
            side = "out" if relation == "makes" else "in"
            groups = [{p["group"] for p in row["pinned"] if p["side"] == side} - {""} for row in document["operators"]]
            expected += sum(map(len, groups))
        assert len(marks(root, relation)) == expected
        for x, y in marks(root, relation):
            assert any(
                abs(x - centre) <= 5.01 and top - 0.1 <= y <= bottom + 0.1 for centre, top, bottom, _ in bars(root)
            )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_bars_do_not_overlap(name, mode):
    found = bars(drawn(describe_channels(MODELS[name](), mode=mode)))
    for i, (x, top, bottom, _) in enumerate(found):
        for other, first, last, _ in found[i + 1 :]:
            assert abs(x - other) > 20 or bottom < first or last < top


def test_bars_span_from_maker_to_last_reader():
    document = describe_channels(convolutional(1))
    rows = [row["node"] for row in document["operators"]]
    found = {text.split(":")[0]: (top, bottom) for _x, top, bottom, text in bars(drawn(document))}
    height = (found["s0"][1] - found["s0"][0]) / (rows.index("logits") - rows.index("s0"))
    assert found["e0"][1] - found["e0"][0] == pytest.approx(2 * height)
    assert found["e0"][0] - found["s0"][0] == pytest.approx(height)


def test_streams_are_on_the_left():
    found = bars(drawn(describe_channels(transformer(2))))
    stream = next(bar for bar in found if "residual stream" in bar[3])
    assert all(stream[0] < bar[0] for bar in found if bar is not stream)
    assert stream[2] - stream[1] == max(bottom - top for _x, top, bottom, _text in found)


def test_equal_layers_are_folded():
    document = describe_channels(transformer(5))
    rows = rows_of(document)
    assert rows.folds == (Fold(1, 8, 5),)
    assert rows.shown == (*range(9), 41)
    assert [rows.row_of[i] for i in (1, 9, 17, 40, 41)] == [1, 1, 1, 8, 9]
    root = drawn(document)
    assert [e.text for e in with_class(root, "times")] == ["×5"]
    assert len(bars(root)) == 3
    assert any(
        "32 operators of layers that equal the one shown are folded away" in "".join(e.itertext())
        for e in root.iter(SVG + "text")
    )


def test_a_layer_that_differs_is_not_folded():
    document = describe_channels(transformer(5))
    next(row for row in document["operators"] if row["node"] == "up2")["outputs"] = 33
    assert rows_of(document).folds == ()  # two equal layers on either side are too few


def test_few_equal_layers_are_shown():
    assert rows_of(describe_channels(transformer(3))).folds == ()
    assert rows_of(describe_channels(convolutional(3))).folds == ()


def test_chains_are_not_folded():
    """A chain of equal layers has another family between each two: none of them stands for the others."""
    text = "g (float[batch,6] x) => (float[batch,6] y) { " + " ".join(
        f"h{i + 1} = MatMul({'x' if i == 0 else f'r{i}'}, w{i}) r{i + 1} = Relu(h{i + 1})" for i in range(8)
    ) + " y = MatMul(r8, last) }"  # fmt: skip
    weights = {**{f"w{i}": random_weight(6, 6, seed=i) for i in range(8)}, "last": random_weight(6, 6)}
    document = describe_channels(model_of(text, weights))
    assert rows_of(document).folds == () and len(bars(drawn(document))) == len(document["families"]) == 8


def test_many_rows_fold_sooner():
    document = describe_channels(convolutional(3))
    row = dict(document["operators"][0], makes=[], reads=[], passes=[], pinned=[])
    document["operators"] = [*document["operators"], *(dict(row, inputs=i) for i in range(60))]
    folds = rows_of(document).folds
    assert folds == (Fold(1, 3, 3),)


def test_pinned_parts_are_grey_and_say_why():
    root = drawn(describe_channels(gated()))
    pins = [e for e in with_class(root, "pin") if e.find(SVG + "title") is not None]
    hints = [pin.find(SVG + "title").text for pin in pins]
    assert len(hints) == 3 and "it reaches the output 'y' of the model" in hints[2]
    assert "axes that are never cut, by reason: graph output (1)" in [
        "".join(e.itertext()) for e in root.iter(SVG + "text")
    ]


def test_inexact_families_are_hatched():
    [stream] = [
        e for e in with_class(drawn(describe_channels(transformer(1))), "inexact") if e.find(SVG + "title") is not None
    ]
    assert "not exact: LayerNormalization" in stream.find(SVG + "title").text
    assert not with_class(drawn(describe_channels(gated())), "inexact")


def test_wide_pictures_have_narrow_lanes():
    """Dense connections: as many families at once as there are layers."""
    lines, weights, joined = (
        ["c0 = Conv(x, w0)"],
        {"w0": random_weight(4, 3, 1, 1), "last": random_weight(2, 4 * 31, 1, 1)},
        ["c0"],
    )
    for i in range(1, 31):
        source = joined[0] if len(joined) == 1 else f"j{i}"
        if len(joined) > 1:
            lines.append(f"j{i} = Concat<axis=1>({', '.join(joined)})")
        lines.append(f"c{i} = Conv({source}, w{i})")
        weights[f"w{i}"] = random_weight(4, 4 * i, 1, 1)
        joined.append(f"c{i}")
    lines.append(f"all = Concat<axis=1>({', '.join(joined)}) y = Conv(all, last)")
    text = "g (float[batch,3,4,4] x) => (float[batch,2,4,4] y) { " + " ".join(lines) + " }"
    root = drawn(describe_channels(model_of(text, weights)))
    assert len(bars(root)) == 31 and len({x for x, *_ in bars(root)}) == 31
    assert [e.text for e in with_class(root, "label")] == ["4"] * 31
    assert float(root.get("width")) < 2200


def test_any_name_is_valid_xml():
    document = describe_channels(gated())
    for row in document["operators"]:
        row["title"] = row["node"] = "<b>&\"'</b> \x00 ]]> 日本"
    drawn({**document, "model": "<&>"})


def test_nothing_to_draw():
    root = drawn(describe_channels(model_of("g (float[4] x) => (float[4] y) { y = Relu(x) }", {})))
    assert not bars(root)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_text_every_time(mode):
    one, two = (channel_drawing(describe_channels(transformer(4), mode=mode)) for _ in range(2))
    assert one == two and "<script" not in one and "http" not in one.replace("http://www.w3.org/2000/svg", "")


def test_sizes_in_words():
    heads = describe_channels(transformer(1))["families"][1]
    assert size_text(heads) == "4" and "q0: 4 heads\n4 features each" in family_text(heads)
    [dims] = [f for f in describe_channels(transformer(1), mode="columns")["families"] if f["name"] == "q0"]
    assert size_text(dims) == "4×4"
