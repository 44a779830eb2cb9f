"""`irc optimize`: from a model file, or a PyTorch module, to a smaller, faster, checked one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = subparsers.add_parser(
        "optimize",
        help="rewrite a model, check it, measure it, write it",
        description="Rewrites a model until it is small and fast, proves what that cost, and writes plain ONNX.",
    )
    parser.add_argument(
        "model", help="an ONNX file; of PyTorch a package.module:factory, a file.py:factory or a saved program.pt2"
    )
    parser.add_argument("extra", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", metavar="FILE", help="artifact; default MODEL.irc.onnx beside the input")
    level = parser.add_mutually_exclusive_group()
    level.add_argument(
        "-O",
        dest="level",
        metavar="LEVEL",
        help="0 load and save, 1 lossless (default without data), 2 + int8 (default with --data), "
        "3 + channels cut and repaired (needs --data)",
    )
    level.add_argument("--recipe", metavar="FILE", help="YAML recipe: pipeline, objective, budget, target")
    level.add_argument("--plan", metavar="FILE", help="replay a plan byte for byte; needs no data")
    parser.add_argument(
        "--passes", metavar="TEXT", help='pipeline, for example "fold-batch-norm,quantize{embeddings=false}"'
    )
    parser.add_argument("--target", metavar="TARGET", help="ort (default), ort{cpu=avx2}, tensorrt{sm=86+89}")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="folder of .npz (one feed each), x.npz (axis 0 indexes samples), f.py:function, random",
    )
    module = parser.add_argument_group("PyTorch modules")
    module.add_argument(
        "--inputs", metavar="F.PY:NAME", help="what the module is called with; of several, differing sizes are dynamic"
    )
    module.add_argument("--dynamic", metavar="DIMS", help="dynamic dimensions: image:0=batch,ids:1=sequence")
    module.add_argument(
        "--exporter", metavar="NAME", default="export", help="export (torch.export, default) or torchscript"
    )
    module.add_argument("--opset", type=int, metavar="N", help="operators to export to; default the exporter's own")
    parser.add_argument("--label", metavar="KEY", help="which array of the data is the label")
    parser.add_argument("--metric", metavar="METRIC", help="accuracy, f1, cross-entropy, spearman or f.py:function")
    parser.add_argument("--max-drop", metavar="LOSS", help="accuracy budget: 0.5%% (relative) or 0.5pt (absolute)")
    parser.add_argument("--min-speedup", metavar="X", help="speed budget, for example 1.3")
    parser.add_argument("--target-size", metavar="SIZE", help="size budget, for example 5MB")
    parser.add_argument(
        "--include", metavar="SEL", action="append", default=[], help="name:, re:, op: or module: selector"
    )
    parser.add_argument("--exclude", metavar="SEL", action="append", default=[], help="sites to leave alone")
    parser.add_argument(
        "--require", metavar="CLAUSE", action="append", default=[], help='for example "int8:Conv>=90%%"'
    )
    parser.add_argument("--limit", metavar="PASS=N", action="append", default=[], help="at most N sites of a pass")
    parser.add_argument("--batch", type=int, metavar="N", help="batch size of the latency measurement")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the runtime")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of random choices (0)")
    parser.add_argument("--no-verify", action="store_true", help="do not verify lossless passes on real inputs")
    parser.add_argument(
        "--verify",
        choices=("lossless", "full"),
        default="lossless",
        help="full: passes that cut channels also prove on this model that nothing else changes",
    )
    parser.add_argument("--no-measure", action="store_true", help="do not measure latency")
    parser.add_argument(
        "--no-cache", action="store_true", help="calibrate anew, and keep no statistics for later builds"
    )
    parser.add_argument(
        "--early-stop",
        metavar="SHARE",
        help="calibrate on fewer samples once more of them widen no range by more than SHARE, for example 1%%",
    )
    parser.add_argument(
        "--no-search",
        action="store_true",
        help="where the accuracy budget is missed, take sites back, and try nothing else",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes of the search; the result is the same (1)"
    )
    parser.add_argument(
        "--keep-float-above",
        type=float,
        metavar="X",
        help="leave sites in float whose output error is above X times the median of their pass",
    )
    parser.add_argument(
        "--sensitivity", action="store_true", help="rank the sites by what they cost, and draw the ranking (.svg)"
    )
    parser.add_argument("--print-pipeline", action="store_true", help="print the pipeline as it would run, and stop")
    parser.add_argument(
        "--dump-after",
        metavar="PASS",
        action="append",
        default=[],
        help="write the model after this pass, or after all",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="list every site in the report")


def run(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit code."""
    from irc.errors import UsageError

    if args.extra:
        hint = ""
        if any("=" in text for text in args.extra):
            hint = "; if you wrote NAME{a=1,b=2}, the shell split it: put the whole text in quotes"
        raise UsageError(f"unexpected argument {args.extra[0]!r}{hint}")
    if args.print_pipeline:
        return _print_pipeline(args)
    from irc.report.progress import progress
    from irc.report.summary import print_report

    targets, outputs = _targets(args)
    reports = []
    with progress(quiet=args.quiet or args.json) as callback:
        for target, output in zip(targets, outputs, strict=True):
            reports.append(_optimize(args, target, output, callback))
    if args.json:
        documents = [report.to_dict() for report in reports]
        print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=2, ensure_ascii=False))
    for report in reports:
        if not args.quiet and not args.json:
            print_report(report, verbose=args.verbose)
        for text in report.missed:
            print(f"irc: budget missed: {text}", file=sys.stderr)
        for text in report.unmet:
            print(f"irc: requirement unmet: {text}", file=sys.stderr)
    return next((report.exit_code for report in reports if report.exit_code), 0)


def _optimize(args: argparse.Namespace, target: str | None, output: str | None, callback: Any) -> Any:
    from irc.driver import optimize

    return optimize(
        args.model,
        example_inputs=args.inputs,
        dynamic_shapes=args.dynamic,
        exporter=args.exporter,
        opset=args.opset,
        data=args.data,
        output=output,
        level=_level(args),
        passes=args.passes,
        recipe=args.recipe,
        plan=args.plan,
        target=target,
        max_drop=args.max_drop,
        min_speedup=_number(args.min_speedup),
        target_size=args.target_size,
        metric=args.metric,
        label=args.label,
        include=args.include,
        exclude=args.exclude,
        require=args.require,
        limits=_limits(args.limit),
        verify=_verify(args),
        measure=not args.no_measure,
        cache=not args.no_cache,
        early_stop=_share(args.early_stop),
        search=not args.no_search,
        workers=args.workers,
        keep_float_above=args.keep_float_above,
        sensitivity=args.sensitivity,
        batch=args.batch,
        threads=args.threads,
        seed=args.seed,
        dump_after=args.dump_after,
        progress=callback,
    )


def _targets(args: argparse.Namespace) -> tuple[list[str | None], list[str | None]]:
    """Targets and their outputs: one file, or for several targets one file each in the folder given with -o."""
    from irc.errors import UsageError
    from irc.pipeline import parse_call, split_calls

    texts = split_calls(args.target, what="target") if args.target is not None else []
    if len(texts) <= 1:
        return [args.target], [args.output]
    if args.output is None or not Path(args.output).is_dir():
        raise UsageError(f"several targets write several files: give an existing folder with -o, not {args.output!r}")
    names = [parse_call(text, what="target")[0] for text in texts]
    labels = [name if names.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(names)]
    stem = args.model.rpartition(":")[2] if ":" in args.model else Path(args.model).stem
    return [*texts], [str(Path(args.output) / f"{stem}.{label}.irc.onnx") for label in labels]


def _print_pipeline(args: argparse.Namespace) -> int:
    from irc.driver import Request, resolve
    from irc.expansion import expand
    from irc.plan import Plan
    from irc.selection import Selection

    request = Request(
        data=args.data,
        level=_level(args),
        passes=args.passes,
        recipe=Path(args.recipe) if args.recipe else None,
        plan=Path(args.plan) if args.plan else None,
    )
    plan = Plan.read(request.plan) if request.plan is not None else None
    recipe = resolve(request, plan)
    selection = Selection.of((*recipe.include, *args.include), (*recipe.exclude, *args.exclude))
    steps = list(recipe.steps) if plan is not None else expand(recipe.steps, selection=selection)
    for step in steps:
        inserted = f"   # inserted: {step.inserted_for} requires it" if step.inserted_for else ""
        print(f"{step.text:40s} {step.pass_.contract.value}{inserted}")
    return 0


def _level(args: argparse.Namespace) -> str | None:
    return None if args.level is None else f"O{args.level.removeprefix('O')}"


def _verify(args: argparse.Namespace) -> Any:
    from irc.errors import UsageError

    if args.no_verify and args.verify == "full":
        raise UsageError("--no-verify and --verify full contradict each other; give one of them")
    return False if args.no_verify else "full" if args.verify == "full" else True


def _limits(texts: list[str]) -> dict[str, int]:
    from irc.errors import UsageError

    limits = {}
    for text in texts:
        name, equals, count = text.rpartition("=")
        if not equals or not count.isdigit():
            raise UsageError(f"--limit {text!r} is malformed; write PASS=N")
        limits[name] = int(count)
    return limits


def _share(text: str | None) -> float | None:
    from irc.errors import UsageError

    if text is None:
        return None
    try:
        share = float(text.strip().removesuffix("%")) / (100 if "%" in text else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UsageError(f"--early-stop is {text!r}; write a share such as 1% or 0.01")
    return share


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    from irc.judge.budget import parse_speedup

    return parse_speedup(text)
