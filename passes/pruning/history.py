"""What a model was before it was pruned first, kept in its metadata, so that shares mean the same the second time.

Asking a model that keeps half of its MACs for a quarter means a quarter of the original. Pruning it again by the same options changes
nothing: what ranks lowest among survivors is not what ranked next, so that it would otherwise lose a little more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import onnx_ir as ir

KEY = "irc.pruned_from"


def original(model: ir.Model) -> dict[str, Any]:
    """Costs and widths from before the first pruning: "macs", "parameters" and "widths" by site; empty if there was none."""
    try:
        found = json.loads(model.metadata_props.get(KEY, "{}"))
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def is_repeated(record: dict[str, Any], text: str, sites: Iterable[str]) -> bool:
    """Whether a model was pruned by the same options at the same sites before."""
    return any(done["by"] == text and set(sites) <= set(done["sites"]) for done in record.get("done", []))


def remember(
    model: ir.Model, *, macs: int, parameters: int, widths: dict[str, int], text: str, sites: Iterable[str]
) -> None:
    """Keeps what a model was, and by what it was pruned where; what is known from an earlier pruning stays."""
    known = original(model)
    record = {
        "macs": known.get("macs", macs),
        "parameters": known.get("parameters", parameters),
        "widths": {**widths, **known.get("widths", {})},
        "done": [*known.get("done", []), {"by": text, "sites": list(sites)}],
    }
    model.metadata_props[KEY] = json.dumps(record, sort_keys=True)


def remaining(record: dict[str, Any], *, macs: tuple[int, int], parameters: tuple[int, int]) -> str:
    """What is left of a model, in words: "MACs 200 -> 50 (0.250 of the original), parameters ...".

    Args:
        record: As `original` gave it before.
        macs: Before and after.
        parameters: Likewise.
    """
    return ", ".join(
        f"{title} {before:,} -> {after:,} ({after / max(1, int(record.get(name, before))):.3f} of the original)"
        for title, name, (before, after) in (("MACs", "macs", macs), ("parameters", "parameters", parameters))
    )
