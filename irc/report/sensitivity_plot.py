"""A picture of the ranking of sites: one SVG, complete in itself, the same bytes for the same ranking.

Bars are local errors, diamonds the errors confirmed at the model's outputs, hatched bars sites that are left in float:
shapes and patterns say it, colour only repeats it.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from irc.application import SiteKey
from irc.report.sensitivity_table import error_percent
from irc.report.svg import Drawing
from irc.sensitivity import Left, Sensitivity

MOST_ROWS = 40
WIDTH = 1160
_NAME_LENGTH = 42
_OPERATOR_LENGTH = 12
_ROW, _BAR, _DIAMOND = 24, 12, 6
_MARGIN, _OPERATORS = 24, 382
_CHART_LEFT, _CHART_RIGHT = 486, 836
_LOCAL, _OUTPUT, _MARK = 932, 1024, 1042
_LEAST_DECADES, _MOST_DECADES = 2, 8
_HIGHEST = 2
"""The axis ends at 10 000 %: what is beyond is useless, and need not be told apart."""
_EXPORTER_SUFFIX = "_output_0"
_SANS = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
_MONO = "DejaVu Sans Mono, Menlo, Consolas, monospace"
_STYLE = f"""text {{ font: 12.5px {_SANS}; fill: #1f2933; }}
.title {{ font-size: 19px; font-weight: bold; }}
.name {{ font-family: {_MONO}; font-size: 12.5px; }}
.dim, .tick {{ fill: #52606d; }}
.head {{ font-weight: bold; }}
.end {{ text-anchor: end; }}
.middle {{ text-anchor: middle; }}
.grid {{ stroke: #d3d9df; stroke-width: 1; }}
.stripe {{ fill: #f4f6f8; }}
.local {{ fill: #3b6ea8; stroke: #3b6ea8; stroke-width: 1; }}
.float {{ fill: url(#hatch); }}
.confirmed {{ fill: #c2410c; stroke: #ffffff; stroke-width: 1.5; }}
.threshold {{ stroke: #1f2933; stroke-width: 1.5; stroke-dasharray: 6 4; }}
.order {{ stroke: #7b8794; stroke-width: 1; }}"""
_HATCH = """<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">\
<rect width="5" height="5" fill="#ffffff"/><rect width="1.6" height="5" fill="#3b6ea8"/></pattern>"""


def sensitivity_plot(
    ranking: Sequence[Sensitivity],
    *,
    title: str = "Sensitivity of sites",
    subtitle: str = "",
    left: Mapping[SiteKey, Left] | None = None,
    thresholds: Mapping[str, float] | None = None,
    factor: float | None = None,
    rows: int = MOST_ROWS,
) -> str:
    """The ranking as SVG.

    Args:
        ranking: Worst first.
        title: Above the picture.
        subtitle: Below the title: model, target, data.
        left: Sites left in float, and why; those that are not in the ranking are counted below.
        thresholds: Local errors above which sites of a pass are left in float, by its name; drawn as lines.
        factor: What the thresholds are times the median, for their labels.
        rows: At most this many sites; the others are counted below.
    """
    left = left or {}
    shown = [*ranking[:rows]]
    present = {item.pass_name for item in shown}
    lines = {name: limit for name, limit in sorted((thresholds or {}).items()) if name in present and limit > 0}
    errors = [item.local_error for item in shown]
    errors += [item.output_error for item in shown if item.output_error is not None]
    axis = _Axis.over([*errors, *lines.values()])
    drawing = Drawing()
    y = _header(drawing, title, subtitle, shown, left)
    if shown:
        y = _chart(drawing, y, shown, left, axis, _line_labels(lines, factor))
    else:
        drawing.text(_MARGIN, y + 6, "no site was ranked", "dim")
        y += 24
    for text in _footer(ranking, len(shown), left):
        drawing.text(_MARGIN, y + 6, text, "dim")
        y += 20
    return drawing.document(WIDTH, y + 12, title=title, style=_STYLE, definitions=_HATCH)


@dataclasses.dataclass(frozen=True)
class _Axis:
    """A logarithmic axis over whole decades.

    Attributes:
        low: Exponent of ten at its left end.
        high: Exponent at its right end.
    """

    low: int
    high: int

    @classmethod
    def over(cls, errors: Iterable[float]) -> _Axis:
        """The decades of all errors, cut off at 10 000 % and where there are too many."""
        found = [error for error in errors if error > 0]
        if not found:
            return cls(-4, 0)
        high = min(math.ceil(math.log10(max(found)) - 1e-9), _HIGHEST)
        # The smallest bar must not vanish on the axis.
        low = math.floor(math.log10(min(found)) - 0.1)
        return cls(max(min(low, high - _LEAST_DECADES), high - _MOST_DECADES), high)

    def x(self, error: float) -> float:
        """Where an error lies, in pixels; beyond the axis its nearest end."""
        share = (math.log10(error) - self.low) / (self.high - self.low) if error > 0 else 0.0
        return _CHART_LEFT + min(max(share, 0.0), 1.0) * (_CHART_RIGHT - _CHART_LEFT)

    def side(self, error: float) -> int:
        """-1 left of the axis, 1 right of it, 0 on it."""
        exponent = math.log10(error) if error > 0 else -math.inf
        return int(exponent > self.high + 1e-9) - int(exponent < self.low - 1e-9)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Position and label of each decade, labels only as many as there is room for."""
        every = 1 if self.high - self.low <= 5 else 2
        return [
            (self.x(10.0**exponent), _decade(exponent) if (self.high - exponent) % every == 0 else "")
            for exponent in range(self.low, self.high + 1)
        ]


def _decade(exponent: int) -> str:
    """A power of ten in per cent."""
    percent = exponent + 2
    return f"{10.0**percent:.{max(-percent, 0)}f} %" if percent >= -4 else f"1e{percent} %"


def _header(
    drawing: Drawing, title: str, subtitle: str, shown: Sequence[Sensitivity], left: Mapping[SiteKey, Left]
) -> float:
    """Title and legend; where the chart may start."""
    y = 36.0
    drawing.text(_MARGIN, y, title, "title")
    if subtitle:
        y += 22
        drawing.text(_MARGIN, y, subtitle, "dim")
    y += 28
    drawing.rect(_MARGIN, y - 10, 26, _BAR, "local")
    drawing.text(_MARGIN + 34, y, "local error, of the site's own output")
    if any(item.output_error is not None for item in shown):
        _diamond(drawing, _MARGIN + 348, y - 4)
        drawing.text(_MARGIN + 362, y, "confirmed: error of the model's outputs, this site alone rewritten")
    if any(item.key in left for item in shown):
        drawing.rect(_MARGIN + 820, y - 10, 26, _BAR, "local float")
        drawing.text(_MARGIN + 854, y, "left in float after all")
    return y + 24


def _chart(
    drawing: Drawing,
    top: float,
    shown: Sequence[Sensitivity],
    left: Mapping[SiteKey, Left],
    axis: _Axis,
    lines: Sequence[tuple[float, str]],
) -> float:
    """The bars with their axis; where what follows may start."""
    confirmed = sum(item.output_error is not None for item in shown)
    drawing.text(_MARGIN, top + 14, "site", "head")
    drawing.text(_OPERATORS, top + 14, "operator", "head")
    drawing.text(_LOCAL, top + 14, "local", "head end")
    if confirmed:
        drawing.text(_OUTPUT, top + 14, "outputs", "head end")
    if any(item.key in left for item in shown):
        drawing.text(_MARK, top + 14, "in float for", "head")
    start = top + 24
    end = start + _ROW * len(shown)
    for index in range(0, len(shown), 2):
        drawing.rect(_MARGIN - 8, start + _ROW * index, WIDTH - 2 * _MARGIN + 16, _ROW, "stripe")
    for x, label in axis.ticks:
        drawing.line(x, start, x, end + 5, "grid")
        drawing.text(x, end + 20, label, "tick middle")
        if len(shown) > 20:
            drawing.text(x, top + 14, label, "tick middle")
    for index, item in enumerate(shown):
        _row(drawing, start + _ROW * index, item, left.get(item.key), axis)
    for number, (limit, label) in enumerate(lines):
        x, below = axis.x(limit), end + 38 + 18 * number
        drawing.line(x, start, x, below, "threshold")
        drawing.text(x + 6, below, label)
    below = end + 20 * len(lines)
    drawing.text((_CHART_LEFT + _CHART_RIGHT) / 2, below + 40, "relative error energy, logarithmic", "middle")
    if confirmed and confirmed < len(shown):
        y = start + _ROW * confirmed
        drawing.line(_MARGIN - 8, y, WIDTH - _MARGIN + 8, y, "order")
    return below + 68


def _row(drawing: Drawing, top: float, item: Sensitivity, left: Left | None, axis: _Axis) -> None:
    middle, base = top + _ROW / 2, top + _ROW / 2 + 4.5
    drawing.text(_MARGIN, base, shortened(item.site, _NAME_LENGTH), "name", full=item.site)
    drawing.text(_OPERATORS, base, shortened(item.op_type, _OPERATOR_LENGTH), "dim")
    width = axis.x(item.local_error) - _CHART_LEFT
    if item.local_error > 0:
        classes = "local float" if left is not None else "local"
        drawing.rect(_CHART_LEFT, middle - _BAR / 2, max(width, 1.0), _BAR, classes)
        if axis.side(item.local_error) > 0:
            x, half = _CHART_RIGHT + 3, _BAR / 2
            drawing.polygon([(x, middle - half), (x + half, middle), (x, middle + half)], "local")
    drawing.text(_LOCAL, base, error_percent(item.local_error), "end")
    if item.output_error is not None:
        if item.output_error > 0:
            _diamond(drawing, axis.x(item.output_error), middle, axis.side(item.output_error))
        drawing.text(_OUTPUT, base, error_percent(item.output_error), "end")
    if left is not None:
        drawing.text(_MARK, base, left)


def shortened(name: str, length: int) -> str:
    """A name of at most `length` characters, a part in its middle left out, if possible none with a number.

    Numbers tell the layers of a network apart; the `_output_0` of exporters tells nothing and goes first.
    """
    if len(name) > length:
        name = name.removesuffix(_EXPORTER_SUFFIX)
    excess = len(name) - length + 1
    if excess <= 1:
        return name
    ends = min(4, length // 4)
    centre = (len(name) - excess) // 2

    def cost(start: int) -> tuple[int, int]:
        return sum(c.isdigit() for c in name[start : start + excess]), abs(start - centre)

    start = min(range(ends, len(name) - excess - ends + 1), key=cost)
    return f"{name[:start]}…{name[start + excess :]}"


def _diamond(drawing: Drawing, x: float, y: float, side: int = 0) -> None:
    """A diamond, or an arrowhead that points to where it would be."""
    r = _DIAMOND
    drawing.polygon([(x, y - r), (x + (side >= 0) * r, y), (x, y + r), (x - (side <= 0) * r, y)], "confirmed")


def _line_labels(lines: Mapping[str, float], factor: float | None) -> list[tuple[float, str]]:
    """Each threshold and its label, from right to left, so that no label is in the way of a line."""
    ordered = sorted(lines.items(), key=lambda line: -line[1])
    times = f"{factor:g} × median" if factor is not None else "threshold"
    several = len(lines) > 1
    return [(limit, f"{times}{f' of {name}' if several else ''}: {error_percent(limit)}") for name, limit in ordered]


def _footer(ranking: Sequence[Sensitivity], shown: int, left: Mapping[SiteKey, Left]) -> list[str]:
    texts = []
    if any(item.output_error is not None for item in ranking) and any(item.output_error is None for item in ranking):
        texts.append("in the order of the confirmed error above the grey line, of the local error below it")
    if rest := ranking[shown:]:
        largest = error_percent(max(item.local_error for item in rest))
        in_float = sum(item.key in left for item in rest)
        also = f", {in_float} of them left in float" if in_float else ""
        texts.append(f"and {len(rest)} more, with at most {largest} of local error{also}")
    ranked = {item.key for item in ranking}
    if others := collections.Counter(kind for key, kind in left.items() if key not in ranked):
        counts = ", ".join(f"{others[kind]} for {kind}" for kind in ("accuracy", "speed", "selection") if others[kind])
        texts.append(f"not measured, because left in float: {counts}")
    return texts
