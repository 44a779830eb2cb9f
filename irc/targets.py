"""Target text: `ort`, `ort{cpu=avx2}`, `tensorrt{sm=86+89}` to a target and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irc import options, registry
from irc.errors import UsageError
from irc.pipeline import parse_call, split_calls

if TYPE_CHECKING:
    from irc.target import Target


def parse(text: str) -> Target:
    """The target a text spells.

    Raises:
        UsageError: If the target is unknown or the text names several.
        PassOptionError: If an option is unknown or out of range.
    """
    calls = split_calls(text, what="target")
    if len(calls) != 1:
        raise UsageError(f"target {text!r} must name one target")
    name, given = parse_call(calls[0], what="target")
    target: Target = options.build(registry.target_class(name), name, given)
    return target


def render(target: Target) -> str:
    """The target as text, with the options that differ from their defaults."""
    return options.format_call(target.name, target)
