"""A picture of channel groups: one SVG, complete in itself, the same bytes for the same document.

Operators are rows in the order of the graph. Families are bars beside them, from the operator that makes them to the last that reads them,
streams on the left: what an operator reads and what it makes is an arrow across its row. Marks and labels say it, colour only repeats it;
whatever is cut short is told in full where it is pointed at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irc.report.channel_lanes import COLOURS, STREAM, Bar, bars_of, family_text, label_text
from irc.report.channel_rows import Document, Rows, rows_of, touches
from irc.report.console import human_count, human_percent
from irc.report.sensitivity_plot import shortened
from irc.report.svg import Drawing, clean, number

_NAME_LENGTH = 35
_ROW = 26
_MARGIN, _FOLD = 24, 40
_OPERATOR, _SIZES, _PIN, _LANES = 300, 436, 556, 628
_MOST_LANES_WIDTH, _PITCHES = 900, (36, 132)
_WORDS_FROM = 104
"""The least distance of lanes at which labels of families have words."""
_BAR, _SHARE = 110, 66
_SANS = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
_MONO = "DejaVu Sans Mono, Menlo, Consolas, monospace"
_STYLE = f"""text {{ font: 12px {_SANS}; fill: #1f2933; }}
.title {{ font-size: 19px; font-weight: bold; }}
.name {{ font-family: {_MONO}; font-size: 11.5px; }}
.dim {{ fill: #52606d; }}
.head, .times {{ font-weight: bold; }}
.times {{ font-size: 15px; }}
.end {{ text-anchor: end; }}
.middle {{ text-anchor: middle; }}
.stripe {{ fill: #f4f6f8; }}
.fold {{ fill: none; stroke: #7b8794; stroke-width: 1.5; stroke-dasharray: 5 4; }}
.flow {{ stroke: #3e4c59; stroke-width: 1.3; fill: none; }}
.arrow {{ fill: #3e4c59; }}
.reads {{ fill: #ffffff; stroke-width: 2.2; }}
.makes {{ stroke: #ffffff; stroke-width: 1.2; }}
.passes {{ fill: #ffffff; stroke-width: 2; }}
.pin {{ fill: #9aa5b1; stroke: #616e7c; stroke-width: 1; }}
.pinned {{ stroke: #cbd2d9; stroke-width: 1; stroke-dasharray: 2 4; }}
.label {{ font-size: 11px; fill: #ffffff; text-anchor: middle; }}
.macs {{ fill: #9fb3c8; }}
.inexact {{ fill: url(#waves); }}"""
_WAVES = """<pattern id="waves" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">\
<rect width="2.2" height="6" fill="#ffffff" fill-opacity="0.75"/></pattern>"""


def channel_drawing(document: Document, *, title: str = "") -> str:
    """Channel groups as SVG.

    Args:
        document: As `irc.analysis.channels.report.describe_channels` makes it.
        title: Above the picture; by default the name of the model.
    """
    picture = _Picture(document)
    return picture.drawn(title or f"Channel groups of {document['model'] or 'a model'}")


class _Picture:
    """Where everything lies, and the drawing of it."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._rows: Rows = rows_of(document)
        self._bars = bars_of(document, self._rows)
        lanes = 1 + max((bar.lane for bar in self._bars.values()), default=0)
        low, high = _PITCHES
        self._pitch = min(high, max(low, _MOST_LANES_WIDTH / lanes))
        self._left = _MARGIN + (_FOLD if self._rows.folds else 0)
        self._shift = self._left - _MARGIN
        self._macs = self._x(lanes) - self._pitch / 2 + 20
        self._width = max(self._macs + _BAR + _SHARE + _MARGIN, 1080)
        self._top = 0.0
        self._drawing = Drawing()

    def _x(self, lane: float) -> float:
        return self._shift + _LANES + self._pitch * (lane + 0.5)

    def _y(self, row: float) -> float:
        return self._top + _ROW * (row + 0.5)

    # -- the picture --------------------------------------------------------------------------------------------------

    def drawn(self, title: str) -> str:
        """The whole SVG."""
        drawing, count = self._drawing, len(self._rows.shown)
        y = self._header(title)
        for x, text, classes in (
            (self._left, "operator", "head"),
            (self._shift + _SIZES, "in → out", "head"),
            (self._shift + _PIN, "kept", "head middle"),
            (self._x(0) - 12, "families", "head"),
            (self._macs, "MACs", "head"),
        ):
            drawing.text(x, y, text, classes)
        self._top = y + 12
        for row in range(0, count, 2):
            drawing.rect(self._left - 8, self._y(row - 0.5), self._width - self._left - _MARGIN + 16, _ROW, "stripe")
        x = self._shift + _PIN
        drawing.line(x, self._y(-0.3), x, self._y(count - 0.7), "pinned")
        for bar in sorted(self._bars.values(), key=lambda bar: (bar.lane, bar.first)):
            self._bar(bar)
        most = max((operator["macs"] or 0 for operator in self._document["operators"]), default=0)
        for row, index in enumerate(self._rows.shown):
            self._row(row, self._document["operators"][index], most)
        for bar in self._bars.values():
            self._label(bar)
        self._folds()
        y = self._y(count) + 12
        for text in self._footer():
            drawing.text(self._left, y, text, "dim")
            y += 19
        return drawing.document(self._width, y + 8, title=title, style=_STYLE, definitions=_WAVES)

    def _header(self, title: str) -> float:
        document, drawing = self._document, self._drawing
        macs, parameters = document["macs"], document["parameters"]
        drawing.text(_MARGIN, 36, title, "title")
        atoms = sum(family["width"] * family["cells"] for family in document["families"])
        text = f"{len(document['families'])} families of {human_count(atoms)} channels, cut by {document['mode']}"
        if document["families"] and macs["total"] and parameters["total"]:
            text += (
                f"; with half of each: MACs {macs['at_half'] / macs['total']:.2f}x of {human_count(macs['total'])}, "
                f"parameters {parameters['at_half'] / parameters['total']:.2f}x of {human_count(parameters['total'])}"
            )
        drawing.text(_MARGIN, 58, text, "dim")
        x, y = float(_MARGIN), 84.0
        for relation, words in (
            ("makes", "makes it"), ("reads", "sums over it"), ("passes", "works on each alone"),
        ):  # fmt: skip
            self._mark(x + 6, y - 4, relation, "#3e4c59")
            drawing.text(x + 18, y, words)
            x += 34 + 7.2 * len(words)
        self._square(x + 6, y - 4, "")
        drawing.text(x + 18, y, "never cut; point at it for the reason")
        x += 270
        if any(not family["exact"] for family in document["families"]):
            self._swatch(x, y - 10, COLOURS[STREAM], inexact=True)
            drawing.text(x + 32, y, "cutting one changes a statistic of all")
        x, y = float(_MARGIN), y + 24
        for kind in dict.fromkeys(bar.family["kind"] for bar in self._bars.values()):
            self._swatch(x, y - 10, COLOURS.get(kind, "#52606d"))
            drawing.text(x + 32, y, kind)
            x += 48 + 7.2 * len(kind)
        return y + 34

    def _footer(self) -> list[str]:
        found = []
        touched = {name for operator in self._document["operators"] for name, _relation in touches(operator)}
        if absent := [family["name"] for family in self._document["families"] if family["name"] not in touched]:
            names = ", ".join(absent[:4]) + (", ..." if len(absent) > 4 else "")
            found.append(f"families that no operator above reads or makes: {names}")
        hidden = sum(fold.period * (fold.times - 1) for fold in self._rows.folds)
        if hidden:
            found.append(f"{hidden} operators of layers that equal the one shown are folded away")
        reasons = [f"{pin['kind']} ({pin['axes']})" for pin in self._document["pinned"] if not pin["trivial"]]
        if reasons:
            found.append(f"axes that are never cut, by reason: {', '.join(reasons)}")
        return found

    # -- rows ---------------------------------------------------------------------------------------------------------

    def _row(self, row: int, operator: Mapping[str, Any], most: int) -> None:
        drawing, y = self._drawing, self._y(row)
        base = y + 4
        full = f"{operator['operator']} {operator['node']}"
        drawing.text(
            self._left, base, shortened(operator["title"], _NAME_LENGTH), "name", full=f"{operator['title']}: {full}"
        )
        drawing.text(self._shift + _OPERATOR, base, shortened(operator["label"], 20), "dim", full=operator["label"])
        if operator["inputs"] is not None:
            drawing.text(self._shift + _SIZES, base, f"{operator['inputs']} → {operator['outputs']}", "dim")
        self._flow(y, operator)
        macs = operator["macs"] or 0
        if macs and most:
            total = self._document["macs"]["total"]
            drawing.rect(self._macs, y - 5, max(_BAR * macs / most, 0.8), 10, "macs")
            drawing.text(
                self._macs + _BAR + _SHARE, base, human_percent(macs / total), "dim end", full=human_count(macs)
            )

    def _flow(self, y: float, operator: Mapping[str, Any]) -> None:
        """What the operator reads and makes: an arrow from the one to the other, and marks on the bars."""
        done = [(self._bars[name], relation) for name, relation in touches(operator) if name in self._bars]
        sources = [self._x(bar.lane) for bar, relation in done if relation == "reads"]
        targets = [self._x(bar.lane) for bar, relation in done if relation == "makes"]
        pin = self._shift + _PIN
        alone: dict[str, list[str]] = {"in": [], "out": []}
        for row in operator["pinned"]:
            if row["group"] not in self._bars:
                part = f"{row['pinned']} of {row['size']}" if row["pinned"] < row["size"] else f"{row['size']}"
                alone[row["side"]].append(f"{part} on {row['initializer']}: {row['text']}")
        if alone["in"] and not sources:
            sources.append(pin)
        if alone["out"] and not targets:
            targets.append(pin)
        if sources and targets and set(sources) != set(targets):
            ends = sorted((*sources, *targets))
            self._drawing.line(ends[0], y, ends[-1], y, "flow")
            for x in dict.fromkeys(targets):
                for side in sorted({-1 if source < x else 1 for source in sources if source != x}):
                    tip, back = x + side * 7, x + side * 14
                    self._drawing.polygon([(tip, y), (back, y - 4), (back, y + 4)], "arrow")
        for bar, relation in done:
            both = relation == "makes" and (bar, "reads") in done
            self._mark(self._x(bar.lane) + (5 if both else 0), y, relation, bar.colour)
        if alone["in"] or alone["out"]:
            self._square(pin, y, "; ".join((*alone["in"], *alone["out"])))

    def _mark(self, x: float, y: float, relation: str, colour: str) -> None:
        if relation == "passes":
            corners = " ".join(f"{number(x + a)},{number(y + b)}" for a, b in ((0, -6), (6, 0), (0, 6), (-6, 0)))
            self._drawing.add(f'<polygon points="{corners}" class="passes" stroke="{colour}"/>')
            return
        paint = f'stroke="{colour}"' if relation == "reads" else f'fill="{colour}"'
        radius = 4.8 if relation == "reads" else 6
        self._drawing.add(
            f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" class="{relation}" {paint}/>'
        )

    def _square(self, x: float, y: float, why: str) -> None:
        hint = f"<title>{clean(why)}</title>" if why else ""
        box = f'x="{number(x - 5)}" y="{number(y - 5)}" width="10" height="10"'
        self._drawing.add(f'<rect {box} class="pin">{hint}</rect>')

    # -- families -----------------------------------------------------------------------------------------------------

    def _bar(self, bar: Bar) -> None:
        x, top = self._x(bar.lane) - bar.width / 2, self._y(bar.first)
        bottom = self._y(max(bar.last, bar.first + 0.8))
        box = f'x="{number(x)}" y="{number(top)}" width="{number(bar.width)}" height="{number(bottom - top)}" rx="3"'
        hint = f"<title>{clean(family_text(bar.family))}</title>"
        self._drawing.add(f'<rect {box} class="family" fill="{bar.colour}">{hint}</rect>')
        if not bar.family["exact"]:
            self._drawing.add(f'<rect {box} class="inexact">{hint}</rect>')

    def _label(self, bar: Bar) -> None:
        """How many channels, on the bar below the operator that comes first."""
        text = label_text(bar.family, words=self._pitch >= _WORDS_FROM)
        x, y = self._x(bar.lane), self._y(bar.first + 0.5)
        width = 6.6 * len(text) + 10
        box = f'x="{number(x - width / 2)}" y="{number(y - 7.5)}" width="{number(width)}" height="15" rx="7.5"'
        self._drawing.add(f'<rect {box} fill="{bar.colour}"/>')
        self._drawing.text(x, y + 4, text, "label", full=family_text(bar.family))

    def _swatch(self, x: float, y: float, colour: str, *, inexact: bool = False) -> None:
        for paint in (f'fill="{colour}"', *(['class="inexact"'] if inexact else [])):
            self._drawing.add(f'<rect x="{number(x)}" y="{number(y)}" width="26" height="12" rx="3" {paint}/>')

    def _folds(self) -> None:
        for fold in self._rows.folds:
            first = self._rows.row_of[fold.start]
            top, height = self._y(first - 0.5) + 1, _ROW * fold.period - 2
            self._drawing.rect(self._left - 8, top, self._width - self._left - _MARGIN + 16, height, "fold")
            middle = self._y(first + (fold.period - 1) / 2) + 5
            self._drawing.text(self._left - 16, middle, f"×{fold.times}", "times end")
