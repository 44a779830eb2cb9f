"""`irc compare A B`: what differs, how far the outputs are apart, which is faster."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from irc.comparison import Comparison, LayerDifference, OutputDifference

TOP = 10


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = subparsers.add_parser(
        "compare",
        help="show how two models differ: graph, outputs, latency",
        description="Differences between two ONNX models; A is the reference. "
        "What cannot be compared is said; the exit code is 0.",
    )
    parser.add_argument("a", metavar="A", help="an ONNX file, the reference")
    parser.add_argument("b", metavar="B", help="another ONNX file")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="folder of .npz (one feed each), x.npz (axis 0 indexes samples) or f.py:function; default: made-up inputs",
    )
    parser.add_argument("--samples", type=int, metavar="N", help="use at most N samples")
    parser.add_argument(
        "--per-layer", action="store_true", help="compare values of the same name inside the models too"
    )
    parser.add_argument(
        "--top", type=int, default=TOP, metavar="N", help=f"how many layers to list, worst first ({TOP})"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="batch size of the latency measurement")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the runtime")
    parser.add_argument("--no-measure", action="store_true", help="do not measure latency")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of made-up inputs (0)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def run(args: argparse.Namespace) -> int:
    """Prints a comparison; the exit code is 0 whatever it says.

    Raises:
        IrcError: If a model cannot be loaded or the data does not fit A.
    """
    import json

    from irc.comparison import compare
    from irc.errors import UsageError
    from irc.report.console import console
    from irc.report.progress import progress

    if args.top < 0:
        raise UsageError(f"--top is {args.top}; it must be 0 or more")
    with progress(quiet=args.quiet or args.json) as callback:
        found = compare(
            args.a,
            args.b,
            data=args.data,
            samples=args.samples,
            per_layer=args.per_layer,
            measure=not args.no_measure,
            batch=args.batch,
            threads=args.threads,
            seed=args.seed,
            progress=callback,
        )
    if args.json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        show(found, console(quiet=args.quiet), top=args.top)
    return 0


def show(found: Comparison, out: Console, *, top: int = TOP) -> None:
    """Prints a comparison for people."""
    from irc.report.console import facts, table

    for text in found.interface:
        out.print(f"interface: {text}", style="bold yellow")
    if found.interface:
        out.print()
    out.print(table(["", ("A", "right"), ("B", "right"), ("B to A", "right")], _sides(found)))
    out.print()
    out.print(facts(_graph_facts(found)))
    if found.outputs:
        out.print()
        out.print(_sample_title(found), style="bold")
        out.print(_outputs(found))
    if found.layers:
        shown = f"the {top} worst of {len(found.layers)}" if top < len(found.layers) else f"all {len(found.layers)}"
        out.print()
        out.print(f"Values of the same name, {shown}", style="bold")
        out.print(_layers(found.layers, top))
    for note in found.notes:
        out.print()
        out.print(f"note: {note}", style="yellow")


def _sides(found: Comparison) -> list[list[str]]:
    from irc.report.console import human_bytes, human_count, human_ms

    a, b = found.a, found.b
    rows = [
        ["file", a["model"], b["model"], "identical" if found.identical else ""],
        ["size", human_bytes(a["size_bytes"]), human_bytes(b["size_bytes"]), _ratio(a["size_bytes"], b["size_bytes"])],
        [
            "constants",
            human_bytes(a["weight_bytes"]),
            human_bytes(b["weight_bytes"]),
            _ratio(a["weight_bytes"], b["weight_bytes"]),
        ],
        [
            "parameters",
            human_count(a["parameters"]),
            human_count(b["parameters"]),
            _ratio(a["parameters"], b["parameters"]),
        ],
        ["MACs", _macs(a), _macs(b), _ratio(a["macs"]["total"], b["macs"]["total"])],
        ["operands", _operands(a), _operands(b), ""],
        [
            "nodes",
            str(a["nodes"]),
            str(b["nodes"]),
            f"{b['nodes'] - a['nodes']:+d}" if a["nodes"] != b["nodes"] else "",
        ],
        ["opset", _opsets(a), _opsets(b), ""],
    ]
    latency = found.latency
    if latency is not None:
        size = f"batch {latency.batch}" if latency.batch is not None else ""
        threads = f"{latency.threads} {'thread' if latency.threads == 1 else 'threads'}" if latency.threads else ""
        setting = ", ".join(part for part in (size, threads) if part)
        rows.append(
            [
                f"latency ({setting})" if setting else "latency",
                human_ms(latency.original.median_ms),
                human_ms(latency.artifact.median_ms),
                _speed(latency.speedup, latency.low, latency.high),
            ]
        )
    return rows


def _macs(facts: dict[str, Any]) -> str:
    from irc.report.console import human_count

    return human_count(facts["macs"]["total"]) + (" + unknown" if facts["macs"]["uncounted"] else "")


def _operands(facts: dict[str, Any]) -> str:
    from irc.report.console import human_percent

    total = facts["macs"]["total"]
    kinds = list(facts["macs"]["by_operands"].items())
    if len(kinds) < 2:
        return kinds[0][0] if kinds else ""
    shown = "\n".join(f"{human_percent(macs / total)} {types}" for types, macs in kinds[:3])
    return shown + (f"\nand {len(kinds) - 3} more" if len(kinds) > 3 else "")


def _opsets(facts: dict[str, Any]) -> str:
    return ", ".join(
        str(version) if domain == "ai.onnx" else f"{domain} {version}" for domain, version in facts["opsets"].items()
    )


def _ratio(a: float, b: float) -> str:
    shown = f"{b / a:.3g}x" if a else ""
    return "" if shown == "1x" else shown


def _speed(speedup: float, low: float, high: float) -> str:
    """The speed-up of B with its 95 % interval; undecided where the interval holds 1."""
    if low <= 1 <= high:
        return f"no difference ({low:.2f} to {high:.2f}x)"
    if speedup >= 1:
        return f"{speedup:.2f}x faster ({low:.2f} to {high:.2f})"
    return f"{1 / speedup:.2f}x slower ({1 / high:.2f} to {1 / low:.2f})"


def _graph_facts(found: Comparison) -> list[tuple[str, object]]:
    changes = sorted(found.operators.items(), key=lambda item: -abs(item[1][1] - item[1][0]))
    operators = ", ".join(f"{b - a:+d} {name}" for name, (a, b) in changes)
    words = {"equal": "equal", "changed": "changed", "only_a": "only in A", "only_b": "only in B"}
    constants = ", ".join(f"{found.constants[key]} {text}" for key, text in words.items() if found.constants[key])
    return [
        ("interface", "" if found.interface else "the same"),
        ("operators", operators or "the same numbers of each"),
        ("constants", constants or "none"),
    ]


def _sample_title(found: Comparison) -> str:
    plural = "" if found.samples == 1 else "s"
    made_up = "; real inputs may differ more or less: give --data" if found.generated else ""
    return f"Outputs on {found.samples} sample{plural} of {found.data}{made_up}"


def _outputs(found: Comparison) -> Table:
    from irc.report.console import human_percent, table

    columns: list[Any] = ["output", "type", ("SQNR", "right"), ("relative error", "right"), ("largest", "right")]
    rows = []
    agreeing = any(output.agreement is not None or output.top1_agreement is not None for output in found.outputs)
    if agreeing:
        columns.append(("agreement", "right"))
    for output in found.outputs:
        name = output.name if output.name == output.name_b else f"{output.name} / {output.name_b}"
        row = [name, output.dtype, *_errors(output)]
        if output.top1_agreement is not None:
            row.append(f"{human_percent(output.top1_agreement)} top-1 of {output.decisions}")
        elif output.agreement is not None:
            row.append(f"{human_percent(output.agreement)} of elements")
        rows.append(row)
    return table(columns, rows)


def _errors(output: OutputDifference) -> list[str]:
    if output.shapes:
        return [f"shapes {output.shapes}", "", ""]
    if output.identical:
        return ["identical", "", ""]
    if output.sqnr_db is None or output.relative_error is None or output.largest_error is None:
        return ["", "", ""]
    wrong = f", {output.non_finite} NaN or infinite in one" if output.non_finite else ""
    return [_decibel(output.sqnr_db), _relative(output.relative_error), f"{output.largest_error:.3g}{wrong}"]


def _layers(layers: list[LayerDifference], top: int) -> Table:
    from irc.report.console import table

    ranked = sorted(layers, key=lambda layer: math.inf if layer.sqnr_db is None else layer.sqnr_db)
    named = any(layer.module for layer in ranked[:top])
    columns: list[Any] = [
        "value",
        "operator",
        ("SQNR", "right"),
        ("at its inputs", "right"),
        ("relative error", "right"),
    ]
    rows = []
    for layer in ranked[:top]:
        row = [
            layer.name,
            layer.operator,
            _decibel(layer.sqnr_db),
            _decibel(layer.inputs_db),
            _relative(layer.relative_error),
        ]
        if layer.shapes:
            row[2] = f"shapes {layer.shapes}"
        rows.append([*row, layer.module] if named else row)
    if named:
        columns.append("module")
    return table(columns, rows)


def _decibel(level: float | None) -> str:
    if level is None:
        return ""
    if math.isinf(level):
        return "exact" if level > 0 else "all noise"
    return f"{level:.1f} dB"


def _relative(error: float | None) -> str:
    if error is None:
        return ""
    if error == 0:
        return "0"
    return f"{100 * error:.3g} %" if error >= 1e-4 else f"{error:.1e}"
