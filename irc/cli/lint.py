"""`irc lint model.onnx --target T`: where a model breaks a rule of a runtime; nothing is run."""

from __future__ import annotations

import argparse
from typing import Any

MOST_NODES = 5


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = subparsers.add_parser(
        "lint",
        help="show where a model breaks a rule of a runtime",
        description="Reads a quantized (or float) model by the named rules of a target: what its parser refuses, what it reads "
        "wrongly, what it computes in float although it is quantized. Nothing is run, and no runtime is needed. "
        "Exit code 5 says that there are findings.",
    )
    parser.add_argument("model", nargs="?", help="an ONNX file")
    parser.add_argument(
        "--target", metavar="TARGET", default="ort", help="ort (default), ort{cpu=avx2}, tensorrt{sm=86+89}"
    )
    parser.add_argument("--rules", action="store_true", help="list the rules of the target instead")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="list every node")


def run(args: argparse.Namespace) -> int:
    """Prints the findings; returns 5 if there are any.

    Raises:
        IrcError: If the model cannot be loaded, or the target is unknown.
    """
    import json
    from pathlib import Path

    from irc import targets
    from irc.errors import UsageError

    target = targets.parse(args.target)
    if args.rules:
        return _print_rules(target, as_json=args.json)
    if args.model is None:
        raise UsageError("give the model to read, or --rules")
    from irc.ir import load

    found = target.lint(load(Path(args.model)))
    if args.json:
        document = {
            "model": Path(args.model).name,
            "target": targets.render(target),
            "findings": [{"rule": f.rule, "effect": f.effect, "node": f.node, "message": f.message} for f in found],
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
    elif not args.quiet:
        _show(Path(args.model).name, target, found, verbose=args.verbose)
    return 5 if found else 0


def _show(name: str, target: Any, found: list[Any], *, verbose: bool) -> None:
    from irc import targets
    from irc.target import EFFECTS

    spelled = targets.render(target)
    if not found:
        print(f"{name}: no rule of {spelled} is broken")
        return
    print(f"{name}: {len(found)} {'finding' if len(found) == 1 else 'findings'} for {spelled}")
    for effect, meaning in EFFECTS.items():
        mine = [finding for finding in found if finding.effect == effect]
        if not mine:
            continue
        print(f"\n{effect}: {meaning}")
        for rule in dict.fromkeys(finding.rule for finding in mine):
            here = [finding for finding in mine if finding.rule == rule]
            print(f"  {rule}  ({len(here)})")
            for finding in here if verbose else here[:MOST_NODES]:
                print(f"      {finding.node}: {finding.message}")
            if not verbose and len(here) > MOST_NODES:
                print(f"      and {len(here) - MOST_NODES} more (-v lists every node)")


def _print_rules(target: Any, *, as_json: bool) -> int:
    import json

    if as_json:
        print(json.dumps([{"rule": r.name, "effect": r.effect, "summary": r.summary} for r in target.rules], indent=2))
        return 0
    for rule in target.rules:
        print(f"{rule.name:40s} {rule.effect:8s} {rule.summary}")
    return 0
