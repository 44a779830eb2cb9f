"""The picture of a ranking: valid, the same every time, and its lengths say what the numbers say."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from irc.application import SiteKey
from irc.report.sensitivity_plot import MOST_ROWS, WIDTH, sensitivity_plot, shortened
from irc.report.sensitivity_table import error_percent, more_text, ranking_table
from irc.sensitivity import LARGEST_ERROR, Sensitivity

SVG = "{http://www.w3.org/2000/svg}"


def ranking(errors, *, outputs=(), names="site{}"):
    made = [Sensitivity(SiteKey(1, names.format(i)), "Conv", "quantize", error) for i, error in enumerate(errors)]
    for i, error in enumerate(outputs):
        made[i] = dataclasses.replace(made[i], output_error=error)
    return made


def drawn(found, **options):
    text = sensitivity_plot(found, **options)
    root = ET.fromstring(text)
    assert not re.search(r"\bnan\b|\binf\b", text, re.IGNORECASE)
    for element in root.iter():
        for name in ("x", "y", "x1", "x2", "width", "height"):
            if (value := element.get(name)) is not None:
                assert float(value) >= 0, (name, value)
        if element.get("x") is not None and element.get("width") is not None:
            assert float(element.get("x")) + float(element.get("width")) <= WIDTH
    return root


def with_class(root, name):
    return [e for e in root.iter() if name in (e.get("class") or "").split()]


def bars(root):
    """Bars of the chart, the legend's left out."""
    legend = [e for e in with_class(root, "local") if e.tag == SVG + "rect"]
    return sorted(
        (e for e in legend if float(e.get("x")) > 100 and e.get("width") != "26"), key=lambda e: float(e.get("y"))
    )


def texts(root):
    return ["".join(e.itertext()) for e in root.iter(SVG + "text")]


@given(st.lists(st.floats(min_value=0, max_value=1e12, allow_nan=False), min_size=1, max_size=45))
def test_longer_bars_are_larger_errors(errors):
    found = ranking(sorted(errors, reverse=True))
    widths = [float(bar.get("width")) for bar in bars(drawn(found))]
    positive = [e for e in sorted(errors, reverse=True)[:MOST_ROWS] if e > 0]
    assert len(widths) == len(positive)
    assert widths == sorted(widths, reverse=True) and all(width >= 1 for width in widths)


@given(st.lists(st.floats(min_value=1e-5, max_value=10), min_size=2, max_size=30))
def test_equal_ratios_are_equal_distances(errors):
    """Lengths are logarithms: within the axis, a + b log(error) for one a and b."""
    errors = sorted(errors, reverse=True)
    widths = [float(bar.get("width")) for bar in bars(drawn(ranking(errors)))]
    logs = [math.log(error) for error in errors]
    spread = logs[0] - logs[-1]
    if spread < 0.5:
        return
    for width, log in zip(widths, logs, strict=True):
        expected = widths[-1] + (widths[0] - widths[-1]) * (log - logs[-1]) / spread
        assert width == pytest.approx(expected, abs=0.1)


def test_rows_stand_in_the_order_of_the_ranking():
    root = drawn(ranking([0.5, 0.1, 0.9], outputs=[0.4, 0.2]))
    names = [e for e in with_class(root, "name")]
    assert [e.text for e in sorted(names, key=lambda e: float(e.get("y")))] == ["site0", "site1", "site2"]


def test_confirmed_errors_are_other_shapes_on_the_same_axis():
    root = drawn(ranking([0.1, 0.01, 0.001], outputs=[0.01, 0.001]))
    diamonds = [e for e in with_class(root, "confirmed")][1:]  # the first is the legend's
    assert all(e.tag == SVG + "polygon" and e.get("points").count(",") == 4 for e in diamonds)
    tips = [float(e.get("points").split()[0].split(",")[0]) for e in diamonds]
    ends = [float(bar.get("x")) + float(bar.get("width")) for bar in bars(root)]
    assert tips == pytest.approx(ends[1:], abs=0.02)
    assert len(with_class(root, "order")) == 1


def test_a_ranking_without_confirmation_does_not_speak_of_it():
    root = drawn(ranking([0.1, 0.01]))
    assert not with_class(root, "confirmed") and not with_class(root, "order")
    assert not any("confirmed" in text for text in texts(root))


def test_sites_left_in_float_are_hatched_and_say_why():
    found = ranking([0.1, 0.01, 0.001])
    left = {found[0].key: "accuracy", found[2].key: "speed", SiteKey(1, "other"): "selection"}
    root = drawn(found, left=left)
    assert ["float" in bar.get("class") for bar in bars(root)] == [True, False, True]
    said = texts(root)
    assert said.count("accuracy") == 1 and said.count("speed") == 1
    assert "not measured, because left in float: 1 for selection" in said
    assert "#hatch" in root.find(SVG + "style").text and root.find(f"{SVG}defs/{SVG}pattern").get("id") == "hatch"


def test_thresholds_are_lines_at_their_place():
    found = ranking([0.1, 0.02, 0.001])
    root = drawn(found, thresholds={"quantize": 0.02, "not here": 0.5}, factor=5.0)
    [line] = with_class(root, "threshold")
    end = float(bars(root)[1].get("x")) + float(bars(root)[1].get("width"))
    assert float(line.get("x1")) == float(line.get("x2")) == pytest.approx(end, abs=0.02)
    assert "5 × median: 2.00 %" in texts(root)


def test_at_most_forty_rows():
    found = ranking([1 / (i + 1) for i in range(150)])
    root = drawn(found, left={found[100].key: "speed"})
    assert len(bars(root)) == MOST_ROWS
    assert "and 110 more, with at most 2.44 % of local error, 1 of them left in float" in texts(root)
    assert not any("more" in text for text in texts(drawn(found[:40])))


@pytest.mark.parametrize("name", ["<b>&\"'</b>", "]]>", "a\x00b\x07c\ud800", "{0}", "ünï→cödé 日本"])
def test_any_name_is_valid_xml(name):
    found = [Sensitivity(SiteKey(1, name), name, name, 0.1)]
    root = drawn(found, title=name, subtitle=name, thresholds={name: 0.01})
    if name.isprintable():
        assert name in [e.text for e in root.iter(SVG + "title")]


def test_the_same_text_every_time():
    found = ranking([0.3, 0.1, 0.05], outputs=[0.2])
    left = {found[1].key: "speed", found[0].key: "accuracy"}
    one = sensitivity_plot(found, left=left, thresholds={"quantize": 0.1})
    assert one == sensitivity_plot(list(found), left=dict(reversed(left.items())), thresholds={"quantize": 0.1})
    assert "<script" not in one and "http" not in one.replace("http://www.w3.org/2000/svg", "")


def test_extremes():
    found = ranking([math.inf, 3e5, 1.0, 1e-20, 0.0, 0.0], outputs=[math.nan, 1e-30])
    root = drawn(found)
    assert len(bars(root)) == 4
    assert "no bound" in texts(root) and "0 %" in texts(root)
    drawn(ranking([0.0, 0.0]))
    assert "no site was ranked" in texts(drawn([]))


def test_the_axis_is_labelled_in_per_cent():
    said = texts(drawn(ranking([0.5, 0.004])))
    assert {"0.1 %", "1 %", "10 %", "100 %"} <= set(said)
    assert "relative error energy, logarithmic" in said


def test_long_names_keep_both_ends_and_their_numbers():
    name = "/encoder/transformer/layer.11/attention/self/query_key_value/dense/MatMul_output_0"
    short = shortened(name, 42)
    assert len(short) == 42 and short.count("…") == 1
    assert short.startswith("/encoder/") and short.endswith("MatMul") and "layer.11" in short
    assert name in {e.text for e in drawn(ranking([0.1], names=name)).iter(SVG + "title")}
    assert shortened("short_output_0", 42) == "short_output_0"


@given(st.text(max_size=80), st.integers(8, 40))
def test_shortened_names_fit(name, length):
    short = shortened(name, length)
    assert len(short) <= length
    assert short == name if len(name) <= length else short[:2] == name[:2]


# -- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, text",
    [
        (0.0, "0 %"), (1.0, "100 %"), (0.123456, "12.3 %"), (0.0312, "3.12 %"), (0.00312, "0.312 %"), (0.000312, "0.0312 %"),
        (0.0000312, "0.00312 %"), (3.12e-8, "3.12e-06 %"), (12.3, "1230 %"), (4.2e4, "4.20e+06 %"), (LARGEST_ERROR, "no bound"), (0.99996, "100 %"),
    ],
)  # fmt: skip
def test_errors_in_per_cent(error, text):
    assert error_percent(error) == text


def printed(table) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(table)
    return stream.getvalue()


def test_table_of_the_worst():
    found = ranking([0.5, 0.1, 0.05, 0.01], outputs=[0.2])
    text = printed(ranking_table(found, top=2, left={found[1].key: "speed"}))
    lines = [line.split() for line in text.splitlines()]
    assert lines[2] == ["site0", "Conv", "50.0", "%", "20.0", "%"]
    assert lines[3] == ["site1", "Conv", "10.0", "%", "speed"] and len(lines) == 4
    assert "pass" not in text
    assert more_text(found, 2) == "and 2 more, with at most 5.00 % of local error" and more_text(found, 4) == ""


def test_table_names_the_pass_where_there_are_several():
    found = [*ranking([0.5]), Sensitivity(SiteKey(2, "w"), "MatMul", "quantize-weights", 0.1)]
    text = printed(ranking_table(found))
    assert "quantize-weights" in text and "at the outputs" not in text and "in float" not in text
