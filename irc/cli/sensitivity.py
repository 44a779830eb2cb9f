"""`irc sensitivity model.onnx --data DIR`: which layers quantization hurts most, without building anything."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from irc.report.sensitivity_report import SensitivityReport

TOP = 10


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = subparsers.add_parser(
        "sensitivity",
        help="rank the sites of a model by what quantizing them costs",
        description="Ranks the sites that a pipeline would rewrite approximately: each by the error of its own output, the worst "
        "also by the error of the model's outputs with it alone rewritten. No artifact is written.",
    )
    parser.add_argument("model", help="an ONNX file")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="folder of .npz (one feed each), x.npz (axis 0 indexes samples), f.py:function, random",
    )
    parser.add_argument(
        "--passes", metavar="TEXT", help='pipeline, for example "fold-batch-norm,quantize"; default -O2'
    )
    parser.add_argument("--target", metavar="TARGET", help="ort (default), ort{cpu=avx2}, tensorrt{sm=86+89}")
    parser.add_argument(
        "--include", metavar="SEL", action="append", default=[], help="name:, re:, op: or module: selector"
    )
    parser.add_argument("--exclude", metavar="SEL", action="append", default=[], help="sites to leave alone")
    parser.add_argument(
        "--confirm",
        metavar="SHARE",
        default="25%",
        help="how much of the ranking to confirm at the model's outputs, at most 32 sites; 0 for none (25%%)",
    )
    parser.add_argument(
        "--above",
        type=float,
        metavar="FACTOR",
        help="list the sites above FACTOR times the median error, for example 5",
    )
    parser.add_argument(
        "--top", type=int, default=TOP, metavar="N", help=f"how many sites to list, worst first ({TOP})"
    )
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the ranking")
    parser.add_argument("--label", metavar="KEY", help="which array of the data is the label")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the runtime")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of random choices (0)")
    parser.add_argument("--no-cache", action="store_true", help="calibrate anew, and keep no statistics for later")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def run(args: argparse.Namespace) -> int:
    """Prints the ranking.

    Raises:
        IrcError: If the model cannot be loaded, the data does not fit it, or an option is wrong.
    """
    import json
    from pathlib import Path

    from irc.cli.picture_file import check_picture, write_picture
    from irc.errors import UsageError
    from irc.report.console import console
    from irc.report.progress import progress
    from irc.sensitivity_run import sensitivity_of

    if args.top < 0:
        raise UsageError(f"--top is {args.top}; it must be 0 or more")
    plot = Path(args.plot) if args.plot is not None else None
    if plot is not None:
        check_picture(plot, "--plot")
    share = _share(args.confirm)
    with progress(quiet=args.quiet or args.json) as callback:
        found = sensitivity_of(
            args.model,
            data=args.data,
            passes=args.passes,
            target=args.target,
            share=share,
            factor=args.above,
            include=args.include,
            exclude=args.exclude,
            label=args.label,
            cache=not args.no_cache,
            threads=args.threads,
            seed=args.seed,
            progress=callback,
        )
    if plot is not None:
        write_picture(plot, _drawn(found), "--plot")
    if args.json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        show(found, console(quiet=args.quiet), top=args.top, plot=plot)
    return 0


def show(found: SensitivityReport, out: Console, *, top: int = TOP, plot: Path | None = None) -> None:
    """Prints a ranking for people."""
    from irc.report.sensitivity_table import error_percent, more_text, ranking_table

    out.print(f"{found.model}   {found.describe()}", style="bold")
    out.print(found.describe_confirmed())
    if found.ranking and top:
        out.print()
        out.print(ranking_table(found.ranking, top=top, left=found.left))
    if found.ranking and (more := more_text(found.ranking, top)):
        out.print(more, style="dim")
    for name, limit in found.limits.items():
        names = [item.site for item in found.above if item.pass_name == name]
        what = f": {', '.join(names)}" if names else ""
        out.print()
        out.print(
            f"{len(names)} {'site' if len(names) == 1 else 'sites'} of {name} above {found.factor:g} times the median "
            f"({error_percent(limit)}){what}"
        )
    for note in found.notes:
        out.print()
        out.print(f"note: {note}", style="yellow")
    if plot is not None:
        out.print()
        out.print(str(plot), style="bold")


def _drawn(found: SensitivityReport) -> str:
    from irc.report.sensitivity_plot import sensitivity_plot

    return sensitivity_plot(
        found.ranking,
        title=f"Sensitivity of {found.model}",
        subtitle=f"{found.describe()}; {found.describe_confirmed()}",
        left=found.left,
        thresholds=found.limits,
        factor=found.factor,
    )


def _share(text: str) -> float:
    from irc.errors import UsageError

    try:
        share = float(text.strip().removesuffix("%")) / (100 if "%" in text else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--confirm is {text!r}; write a share such as 25% or 0.25")
    return share
