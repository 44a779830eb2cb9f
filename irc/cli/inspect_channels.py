"""`irc inspect model.onnx --channel-groups`: what may be cut from a model, what belongs together, and what pins the rest."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from irc.report.console import Column

OPTIONS = {"channel_mode": "--channel-mode", "allow_output": "--allow-output", "drawing": "--drawing"}
"""Options that mean nothing without `--channel-groups`."""
_NAME_LENGTHS = (40, 34, 30, 26, 22, 18, 14)
_GAP = 3
"""Characters between columns."""
_PARTS = re.compile(r"[./]")
_REASON_LENGTH = 92
_MUCH = 0.1


def add_options(parser: Any) -> None:
    """Adds the options of channel groups to those of `irc inspect`."""
    group = parser.add_argument_group("channel groups")
    group.add_argument(
        "--channel-groups",
        action="store_true",
        help="show what structured pruning may cut instead: families of channels, heads or neurons that belong together, their "
        "costs, and what pins the rest",
    )
    group.add_argument(
        "--channel-mode",
        choices=("rows", "columns"),
        help="rows (default) cuts whole heads and convolution groups; columns as many dimensions of every one",
    )
    group.add_argument(
        "--allow-output",
        action="append",
        default=[],
        metavar="NAME",
        help="an output of the model that may get narrower, as an embedding may; can be repeated",
    )
    group.add_argument("--drawing", metavar="FILE.svg", help="draw operators and families")


def refuse_alone(args: argparse.Namespace) -> None:
    """Says that an option needs `--channel-groups`.

    Raises:
        UsageError: If one is given without it.
    """
    from irc.errors import UsageError

    for name, option in OPTIONS.items():
        if getattr(args, name):
            raise UsageError(f"{option} is about channel groups; add --channel-groups")


def run(args: argparse.Namespace) -> int:
    """Prints the channel groups of a model, and draws them.

    Raises:
        IrcError: If the model cannot be loaded, an option does not fit it, or the drawing cannot be written.
    """
    import json
    from pathlib import Path

    from irc.analysis import parse_sizes
    from irc.analysis.channels.report import describe_channels
    from irc.cli.picture_file import check_picture, write_picture
    from irc.ir import load
    from irc.report.console import console

    drawing = Path(args.drawing) if args.drawing is not None else None
    if drawing is not None:
        check_picture(drawing, "--drawing")
    path, sizes = Path(args.model), parse_sizes(args.dim)
    document = describe_channels(
        load(path), path=path, mode=args.channel_mode or "rows", sizes=sizes, allow_outputs=args.allow_output
    )
    if drawing is not None:
        from irc.report.channel_drawing import channel_drawing

        write_picture(drawing, channel_drawing(document), "--drawing")
    if args.json:
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        show(document, console(quiet=args.quiet), top=args.top, drawing=drawing)
    return 0


def show(document: Mapping[str, Any], out: Console, *, top: int | None = None, drawing: Path | None = None) -> None:
    """Prints a document of channel groups: totals, families, what is not exact, pins."""
    from irc.report.console import facts, table

    out.print(f"{document['model']}  channel groups, cut by {document['mode']}", style="bold")
    out.print()
    out.print(facts(_facts(document)))
    if document["families"]:
        columns, rows = _families(document, out.width)
        shown = rows if top is None else rows[:top]
        if shown:
            out.print()
            out.print(table(columns, shown))
            if any("×" in row[0] for row in shown):
                out.print("×N: so many families are alike, and the line is about the first", style="dim")
        if rest := len(rows) - len(shown):
            out.print(f"and {rest} more {'line' if rest == 1 else 'lines'}", style="dim")
    if inexact := _inexact(document):
        out.print()
        out.print("Removal changes what survives", style="bold")
        out.print(facts(inexact))
    if document["pinned"]:
        out.print()
        out.print("Never cut", style="bold")
        if any(not row["trivial"] for row in document["pinned"]):
            out.print(table(*_pinned(document)))
        if trivial := [f"{row['axes']} of kind {row['kind']}" for row in document["pinned"] if row["trivial"]]:
            out.print(f"and, as in every network, axes of weights: {', '.join(trivial)}", style="dim")
    if outputs := _holding(document):
        out.print()
        out.print(f"hint: {outputs}")
    for note in document["notes"]:
        out.print()
        out.print(f"note: {note}")
    if drawing is not None:
        out.print()
        out.print(str(drawing), style="bold")


def _holding(document: Mapping[str, Any]) -> str:
    """What to do where an output of the model keeps a good part of it from being cut."""
    held = sum(row["out_of_reach"] for row in document["pinned"] if row["kind"] == "graph output")
    if held < _MUCH * max(document["parameters"]["total"], 1):
        return ""
    from irc.report.console import human_percent

    share = human_percent(held / document["parameters"]["total"])
    return f"an output of the model holds {share} of its parameters; --allow-output NAME lets it get narrower, if its reader does"


def _facts(document: Mapping[str, Any]) -> list[tuple[str, object]]:
    from irc.report.console import human_bytes, human_count

    kinds: dict[str, int] = {}
    for family in document["families"]:
        kinds[family["kind"]] = kinds.get(family["kind"], 0) + 1
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))
    macs, parameters, size = document["macs"], document["parameters"], document["bytes"]
    axes = document["dynamic_axes"]
    sizes = ", ".join(f"{axis['name']}={axis['size']}" for axis in axes)
    assumed = " (assumed; set with --dim)" if any(axis["assumed"] for axis in axes) else ""
    smaller = f"{human_bytes(size['total'])}, {_ratio(size['at_half'], size['total'])} at ratio 0.5"
    return [
        ("families", f"{len(document['families'])}{': ' if told else ''}{told}"),
        ("MACs", f"{human_count(macs['total'])}{_reach(macs)}{f'; for {sizes}{assumed}' if sizes else ''}"),
        ("parameters", f"{human_count(parameters['total'])}{_reach(parameters)}"),
        ("constants", smaller if document["families"] else human_bytes(size["total"])),
        ("allowed", ", ".join(document["allowed_outputs"])),
    ]


def _reach(total: Mapping[str, int]) -> str:
    from irc.report.console import human_percent

    if not total["total"]:
        return ""
    within = f", {human_percent(total['in_families'] / total['total'])} of them in families"
    half = f"; {_ratio(total['at_half'], total['total'])} at ratio 0.5"
    return f"{within}{half}, {_ratio(total['least'], total['total'])} at least" if total["in_families"] else within


def _ratio(after: float, before: float) -> str:
    share = after / before if before else 1.0
    return f"{share:.2f}x" if share >= 0.095 or share == 0 else f"{share:.1g}x"


def _families(document: Mapping[str, Any], width: int) -> tuple[list[Column], list[list[str]]]:
    """Families in order, those that are alike in one line, names as long as the lines allow."""
    columns: list[Column] = [
        "family", "what", ("size", "right"), "made by", "read by", ("weights", "right"), ("MACs", "right"), ("share", "right"),
        ("one: MACs", "right"), ("params", "right"),
    ]  # fmt: skip
    rows: list[list[str]] = []
    for length in _NAME_LENGTHS:
        rows = [_line(families, document, length) for families in _alike(document["families"])]
        heads = [column if isinstance(column, str) else column[0] for column in columns]
        widest = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
        if sum(widest) + _GAP * (len(heads) - 1) <= width:
            break
    return columns, rows


def _alike(families: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Families of the same kind, size and worth together."""
    found: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for family in families:
        key = [family[name] for name in ("kind", "width", "cells", "features", "exact", "initializers", "macs")]
        key += [*family["step"].values(), len(family["made_by"]), len(family["read_by"])]
        found.setdefault(tuple(key), []).append(family)
    return list(found.values())


def _line(families: Sequence[Mapping[str, Any]], document: Mapping[str, Any], length: int) -> list[str]:
    """One line of the table for families that are alike, told of the first."""
    from irc.report.channel_lanes import size_text
    from irc.report.console import human_count, human_percent

    first = families[0]
    titles = {operator["node"]: operator["title"] for operator in document["operators"]}
    makers = first["made_by"] or first["passed_by"][:1]
    kind = first["kind"].replace("query/key", "q/k")
    # Shares of layers' own families add up; those of a stream and of what it feeds overlap.
    share = sum(family["macs"] for family in families) / (document["macs"]["total"] or 1)
    return [
        _end_of(first["name"], length) + (f" ×{len(families)}" if len(families) > 1 else ""),
        f"{kind} of {first['features']}" if first["features"] > 1 else kind,
        size_text(first),
        _places(makers, titles, length),
        _places(first["read_by"], titles, length),
        str(first["initializers"]),
        human_count(first["macs"]),
        human_percent(share),
        human_count(first["step"]["macs"]),
        human_count(first["step"]["parameters"]),
    ]


def _places(nodes: Sequence[str], titles: Mapping[str, str], length: int) -> str:
    if not nodes:
        return ""
    first = _end_of(titles[nodes[0]], length)
    return first if len(nodes) == 1 else f"{first} +{len(nodes) - 1}"


def _end_of(name: str, length: int) -> str:
    """The last parts of a path, which tell more than the first ones, as many as there is room for."""
    name = name.removesuffix("_output_0")
    parts = _PARTS.split(name)
    while len(name) > length and len(parts) > 1:
        parts.pop(0)
        name = f"…{name[-len(''.join(parts)) - len(parts) + 1 :]}"
    return name


def _inexact(document: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Families whose removal changes a statistic, those of equal sentences (but for names) in one line."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for family in document["families"]:
        if not family["exact"]:
            found.setdefault(_without_name(family["statistics"][0]["text"]), []).append(family)
    rows: list[tuple[str, object]] = []
    for families in found.values():
        first = families[0]
        others = len(first["statistics"]) - 1
        more = f" (+{others})" if others else ""
        name = _end_of(first["name"], _NAME_LENGTHS[-2]) + (f" ×{len(families)}" if len(families) > 1 else "")
        rows.append((name, f"{first['kind']}: {first['statistics'][0]['text']}{more}"))
    return rows


def _without_name(text: str) -> str:
    """A sentence without the names it quotes."""
    return "'".join(part for i, part in enumerate(text.split("'")) if i % 2 == 0)


def _pinned(document: Mapping[str, Any]) -> tuple[list[Column], list[list[object]]]:
    from irc.report.console import human_count

    rows: list[list[object]] = []
    for row in document["pinned"]:
        if not row["trivial"]:
            example = row["examples"][0]
            if len(example) > _REASON_LENGTH:
                example = f"{example[: _REASON_LENGTH - 1]}…"
            counts = [human_count(row[key]) for key in ("coordinates", "parameters", "out_of_reach")]
            rows.append([row["kind"], row["axes"], *counts, example])
    return [
        "reason", ("axes", "right"), ("channels", "right"), ("parameters", "right"), ("out of reach", "right"), "for example",
    ], rows  # fmt: skip
