"""Where the families of a drawing of channel groups stand: a bar each, in lanes, streams in the first ones.

A bar reaches from the first row that touches the family to the last. Longer bars choose their lane first; bars of one lane never overlap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from irc.report.channel_rows import Document, Rows, touches
from irc.report.console import human_count

STREAM = "residual stream"
PINNED = "never cut"
COLOURS = {
    STREAM: "#2b5f9e",
    PINNED: "#7b8794",
    "channels": "#1f8a70",
    "convolution groups": "#0e7490",
    "neurons": "#5a8f29",
    "gated neurons": "#8a8f29",
    "heads": "#c2410c",
    "query/key dimensions": "#c2410c",
    "value dimensions": "#b7791f",
    "hidden units": "#7c3aad",
    "features": "#8c564b",
}
_WORDS = {
    STREAM: "stream",
    "convolution groups": "groups",
    "gated neurons": "gated",
    "query/key dimensions": "q/k dims",
    "value dimensions": "value dims",
    "hidden units": "hidden",
}


@dataclasses.dataclass(frozen=True)
class Bar:
    """A family, or what is pinned, in the picture.

    Attributes:
        family: Its row of the document.
        lane: Lane from the left.
        first: The first row that touches it.
        last: The last one.
    """

    family: Mapping[str, Any]
    lane: int
    first: int
    last: int

    @property
    def colour(self) -> str:
        """Of its kind."""
        return COLOURS.get(self.family["kind"], "#52606d")

    @property
    def width(self) -> float:
        """Wider for more channels, a stream at least as wide as the widest."""
        return 5 + 0.8 * math.log2(self.family["atoms"]) + (4 if self.family["kind"] == STREAM else 0)


def bars_of(document: Document, rows: Rows) -> dict[str, Bar]:
    """A bar per family and pinned group that a shown operator touches, by name."""
    spans: dict[str, list[int]] = {}
    seen: set[str] = set()
    shown = set(rows.shown)
    for index, operator in enumerate(document["operators"]):
        for name, _relation in touches(operator):
            spans.setdefault(name, []).append(rows.row_of[index])
            if index in shown:
                seen.add(name)
    families = {family["name"]: family for family in document["families"]}
    families |= {group["name"]: _as_family(group) for group in document["pinned_groups"]}
    order = sorted(seen, key=lambda n: (min(spans[n]) - max(spans[n]), min(spans[n]), n))
    lanes: list[list[tuple[int, int]]] = []
    bars: dict[str, Bar] = {}
    for stream in (True, False):
        base = 0 if stream else len(lanes)
        for name in order:
            if (families[name]["kind"] in (STREAM, PINNED)) is stream:
                first, last = min(spans[name]), max(spans[name])
                end = max(last, first + 1)  # room for the label
                free = (i for i in range(base, len(lanes)) if all(end < a or first > b for a, b in lanes[i]))
                lane = next(free, len(lanes))
                if lane == len(lanes):
                    lanes.append([])
                lanes[lane].append((first, end))
                bars[name] = Bar(families[name], lane, first, last)
    return bars


def label_text(family: Mapping[str, Any], *, words: bool) -> str:
    """What stands on a bar: the number of channels, and what they are if there is room for words."""
    return f"{size_text(family)} {_WORDS.get(family['kind'], family['kind'])}" if words else size_text(family)


def _as_family(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """A pinned group with what a bar needs of a family."""
    return {**group, "kind": PINNED, "width": group["size"], "cells": 1, "atoms": group["size"], "exact": True}


def size_text(family: Mapping[str, Any]) -> str:
    """The number of a family's channels: "96", "12×64" in cells."""
    if family["cells"] > 1:
        return f"{family['cells']}×{family['width']}"
    return str(family["width"])


def family_text(family: Mapping[str, Any]) -> str:
    """A family, or what is pinned, in a few lines: for tooltips."""
    if family["kind"] == PINNED:
        return f"{family['size']} channels on {family['axes']} axes, never cut: {family['text']}"
    lines = [f"{family['name']}: {size_text(family)} {family['kind']}"]
    if family["features"] > 1:
        lines.append(f"{family['features']} features each")
    lines.append(f"on {family['initializers']} initializers, {human_count(family['macs'])} MACs")
    lines += [f"not exact: {reason['text']}" for reason in family["statistics"][:3]]
    return "\n".join(lines)
