"""`irc passes`: what is registered, by whom, and with which options."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = subparsers.add_parser(
        "passes",
        help="list the registered passes and their options",
        description="Lists every registered pass, ours and those of installed packages, with contract and options.",
    )
    parser.add_argument("name", nargs="?", help="show one pass")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Carries out the command and returns the exit code."""
    from irc import registry

    entries = registry.installed_passes()
    if args.name is not None:
        registry.pass_class(args.name)
        entries = {args.name: entries[args.name]}
    rows = [_describe(entry) for entry in entries.values()]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(f"{row['name']:30s} {row['contract']:12s} {row['summary']}")
        if args.name is not None:
            _print_details(row)
    return 0


def _print_details(row: dict[str, Any]) -> None:
    print(f"  from {row['from']}")
    for key in ("requires", "establishes"):
        if row[key]:
            print(f"  {key} {', '.join(row[key])}")
    for option in row["options"]:
        print(f"  {option['name']} = {option['default']}   ({option['type']}) {option['help']}")


def _describe(entry: Any) -> dict[str, Any]:
    import inspect

    from irc.options import format_value, option_types

    cls = entry.load()
    text = inspect.getdoc(cls) or ""
    defaults = {f.name: f.default for f in getattr(cls, "__dataclass_fields__", {}).values()}
    helps = _attribute_help(text)
    return {
        "name": entry.name,
        "contract": cls.contract.value,
        "summary": text.splitlines()[0] if text else "",
        "from": f"{entry.distribution}: {entry.target}",
        "requires": list(cls.requires),
        "establishes": list(cls.establishes),
        "options": [
            {
                "name": name,
                "type": getattr(kind, "__name__", str(kind)).replace("typing.", ""),
                "default": format_value(defaults.get(name)),
                "help": helps.get(name, ""),
            }
            for name, kind in option_types(cls).items()
        ],
    }


def _attribute_help(docstring: str) -> dict[str, str]:
    """The lines of the Attributes section of a Google docstring."""
    found: dict[str, str] = {}
    lines = docstring.splitlines()
    if "Attributes:" not in lines:
        return found
    current = ""
    for line in lines[lines.index("Attributes:") + 1 :]:
        if not line.startswith("    "):
            break
        name, colon, rest = line.strip().partition(": ")
        if colon and name.isidentifier() and not line.startswith("        "):
            current = name
            found[name] = rest
        elif current:
            found[current] += " " + line.strip()
    return found
