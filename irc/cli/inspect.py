"""`irc inspect model.onnx`: what is in a model and what it costs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

TOP = 10


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    from irc.cli.inspect_channels import add_options

    parser = subparsers.add_parser(
        "inspect",
        help="show what is in a model and what it costs",
        description="Operators, multiply-accumulates (MACs), weights, element types and dynamic axes of an ONNX model. "
        "Nothing is run. With --channel-groups: what structured pruning may cut.",
    )
    parser.add_argument("model", help="an ONNX file")
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar="NAME=SIZE",
        help="size of a dynamic dimension by its symbol, or INPUT:AXIS=SIZE where it has none; "
        "default 1 for batches, 224 for image sides, 128 for the rest",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=None,
        metavar="N",
        help=f"how many nodes and tensors to list; default {TOP}, all with --json and of channel groups",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the description of a model.

    Raises:
        IrcError: If the model cannot be loaded or `--dim` does not fit it.
    """
    import json
    from pathlib import Path

    from irc.analysis import describe, parse_sizes
    from irc.cli import inspect_channels
    from irc.errors import UsageError
    from irc.ir import load
    from irc.report.console import console

    if args.top is not None and args.top < 0:
        raise UsageError(f"--top is {args.top}; it must be 0 or more")
    if args.channel_groups:
        return inspect_channels.run(args)
    inspect_channels.refuse_alone(args)
    path = Path(args.model)
    sizes = parse_sizes(args.dim)
    model = load(path)
    if args.json:
        document = describe(model, path=path, sizes=sizes, top=args.top)
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    top = TOP if args.top is None else args.top
    _show(describe(model, path=path, sizes=sizes, top=top), console(quiet=getattr(args, "quiet", False)))
    return 0


def _show(document: dict[str, Any], out: Console) -> None:
    from irc.report.console import facts, human_bytes, table

    out.print(f"{document['model']}  {human_bytes(document['size_bytes'])}", style="bold")
    out.print()
    out.print(facts(_facts(document)))
    out.print()
    out.print(table(*_operators(document)))
    if rest := [row for row in document["operators"] if not _costs(row, document)]:
        rest.sort(key=lambda row: -row["nodes"])
        names = [f"{row['nodes']} {row['operator']}" for row in rest]
        out.print(f"and {', '.join(names)}", style="dim")
    if document["heaviest_nodes"] and document["heaviest_nodes"][0]["macs"]:
        out.print()
        out.print("Nodes with the most MACs", style="bold")
        out.print(table(*_nodes(document)))
    if document["tensors"]:
        out.print()
        out.print("Largest constants", style="bold")
        out.print(table(*_tensors(document)))
    for note in _notes(document):
        out.print()
        out.print(f"note: {note}")


def _facts(document: dict[str, Any]) -> list[tuple[str, object]]:
    from irc.report.console import human_bytes, human_count

    macs, peak = document["macs"], document["peak_memory"]
    operands = macs["by_operands"]
    if len(operands) > 1:
        kinds = ": " + ", ".join(f"{human_count(count)} {types}" for types, count in operands.items())
    else:
        kinds = " " + next(iter(operands), "")
    missing = len(macs["uncounted"])
    uncounted = f", and {missing} {'node' if missing == 1 else 'nodes'} of unknown cost" if missing else ""
    used = {"ai.onnx", *(row["operator"].rpartition("::")[0] for row in document["operators"])}
    opsets = ", ".join(f"{domain} {version}" for domain, version in document["opsets"].items() if domain in used)
    quantized = ", ".join(
        f"{count} {name}"
        for name, count in zip(
            ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
            document["quantization"].values(),
            strict=True,
        )
        if count
    )
    inner = f", {document['nodes_in_bodies']} of them in bodies" if document["nodes_in_bodies"] else ""
    stored = ", ".join(
        f"{row['dtype']} {human_bytes(row['bytes'])}" for row in document["weights_by_dtype"] if row["bytes"] >= 1000
    )
    return [
        *(("input" if i == 0 else " ", _interface(value)) for i, value in enumerate(document["inputs"])),
        *(("output" if i == 0 else " ", _interface(value)) for i, value in enumerate(document["outputs"])),
        ("dynamic", _dynamic(document["dynamic_axes"])),
        (
            "opset",
            f"{opsets}; IR version {document['ir_version']}"
            + (f"; written by {document['producer']}" if document["producer"] else ""),
        ),
        ("nodes", f"{document['nodes']} of {len(document['operators'])} operators{inner}"),
        ("MACs", f"{human_count(macs['total'])}{kinds}{uncounted}".rstrip()),
        ("parameters", human_count(document["parameters"])),
        ("constants", f"{human_bytes(document['weight_bytes'])}" + (f" ({stored})" if stored else "")),
        ("graph", _graph(document)),
        ("quantized", quantized),
        (
            "data files",
            ", ".join(
                f"{row['file']} ({human_bytes(row['bytes'])}, {row['tensors']} tensors)"
                for row in document["external_data"]
            ),
        ),
        (
            "activations",
            f"{human_bytes(peak['bytes'])} alive at the peak ({peak['operator']} {peak['node']!r}) in graph order"
            if peak is not None
            else "unknown, because some shapes are",
        ),
        (
            "traffic",
            f"{human_bytes(document['moved_bytes'])} read and written if every node ran on its own"
            if document["moved_bytes"] is not None
            else "",
        ),
    ]


def _graph(document: dict[str, Any]) -> str:
    from irc.report.console import human_bytes

    dropped = document["metadata_bytes"] or 0
    text = human_bytes(document["graph_bytes"])
    return f"{text}, and {human_bytes(dropped)} of exporter traces that irc drops" if dropped > 1000 else text


def _interface(value: dict[str, Any]) -> str:
    if value["shape"] is None:
        return f"{value['name']}: {value['dtype']} of unknown rank"
    dims = ", ".join("?" if dim is None else str(dim) for dim in value["shape"])
    return f"{value['name']}: {value['dtype']} [{dims}]"


def _dynamic(axes: list[dict[str, Any]]) -> str:
    if not axes:
        return "no axis"
    given = ", ".join(f"{axis['name']}={axis['size']}" for axis in axes if not axis["assumed"])
    assumed = [axis for axis in axes if axis["assumed"]]
    if not assumed:
        return f"costs are for {given}"
    sizes = ", ".join(f"{axis['name']}={axis['size']}" for axis in assumed)
    return f"costs are for {f'{given} and ' if given else ''}assumed {sizes}; set with --dim {assumed[-1]['name']}=N"


def _operators(document: dict[str, Any]) -> tuple[list[Any], list[list[Any]]]:
    from irc.report.console import human_bytes, human_count, human_percent

    total = document["macs"]["total"]
    unknown = _unknown(document)
    rows = []
    for row in document["operators"]:
        if not _costs(row, document):
            continue
        macs = human_count(row["macs"]) if row["macs"] else ("?" if row["operator"] in unknown else "")
        share = human_percent(row["macs"] / total) if total and row["macs"] else ""
        kinds = row["operands"]
        operands = (
            ", ".join(f"{count} {types}" for types, count in kinds.items()) if len(kinds) > 1 else next(iter(kinds), "")
        )
        size = human_bytes(row["weight_bytes"]) if row["weight_bytes"] else ""
        rows.append([row["operator"], row["nodes"], macs, share, size, operands])
    share = "of known" if unknown else "share"
    return [
        "operator",
        ("nodes", "right"),
        ("MACs", "right"),
        (share, "right"),
        ("constants", "right"),
        "operands",
    ], rows


def _unknown(document: dict[str, Any]) -> set[str]:
    return {entry["operator"] for entry in document["macs"]["uncounted"]}


def _costs(row: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether an operator deserves a line of its own."""
    small = row["weight_bytes"] < max(1000, document["weight_bytes"] / 1000)
    return bool(row["macs"]) or row["operator"] in _unknown(document) or not small


def _nodes(document: dict[str, Any]) -> tuple[list[Any], list[list[Any]]]:
    from irc.report.console import human_bytes, human_count, human_percent

    total = document["macs"]["total"] or 1
    rows = [
        [
            row["node"],
            row["operator"],
            human_count(row["macs"]),
            human_percent(row["macs"] / total),
            human_bytes(row["weight_bytes"]) if row["weight_bytes"] else "",
            row["operands"],
            row["module"],
        ]
        for row in document["heaviest_nodes"]
        if row["macs"]
    ]
    named = any(row[-1] for row in rows)
    share = "of known" if document["macs"]["uncounted"] else "share"
    columns: list[Any] = ["node", "operator", ("MACs", "right"), (share, "right"), ("constants", "right"), "operands"]
    return ([*columns, "module"], rows) if named else (columns, [row[:-1] for row in rows])


def _tensors(document: dict[str, Any]) -> tuple[list[Any], list[list[Any]]]:
    from irc.report.console import human_bytes, human_percent

    total = document["weight_bytes"] or 1
    rows = [
        [
            row["name"],
            row["dtype"],
            "x".join(map(str, row["shape"])) or "scalar",
            human_bytes(row["bytes"]),
            human_percent(row["bytes"] / total),
            ", ".join(row["users"]) or "nothing",
        ]
        for row in document["tensors"]
    ]
    return ["constant", "type", "shape", ("size", "right"), ("share", "right"), "read by"], rows


def _notes(document: dict[str, Any]) -> list[str]:
    notes = list(document["notes"])
    custom = document["custom_operators"]
    foreign = [row for row in custom if not row["runtime"]]
    runtime = [row for row in custom if row["runtime"]]
    if foreign:
        names = ", ".join(f"{row['operator']} ({row['nodes']})" for row in foreign)
        notes.append(f"custom operators, which stock runtimes do not have: {names}")
    if runtime:
        names = ", ".join(f"{row['operator'].rpartition('::')[2]} ({row['nodes']})" for row in runtime)
        notes.append(f"operators of ONNX Runtime, which other runtimes may lack: {names}")
    if uncounted := document["macs"]["uncounted"]:
        first = uncounted[0]
        more = f", and {len(uncounted) - 1} more" if len(uncounted) > 1 else ""
        notes.append(f"MACs are not complete: {first['operator']} {first['node']!r}: {first['reason']}{more}")
    return notes
