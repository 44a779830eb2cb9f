"""Pipeline text: `fold-batch-norm,quantize{calibrator=mse,exclude=op:Gemm}` to passes and back.

Grammar: `item ("," item)*`, `item = name ["{" key "=" value ("," key "=" value)* "}"]`. A name is a registered pass or
`path/to/file.py:ClassName`. Two options belong to the manager and are accepted by every pass: `include` and `exclude`
(selectors, several joined by `;`). Within a value, `%2C`, `%3B`, `%7B`, `%7D` and `%25` stand for `,`, `;`, `{`, `}` and `%`:
`exclude=re:^a%2Cb`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from irc import options, registry
from irc.errors import UsageError
from irc.pass_base import Pass
from irc.selection import Selection

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_RESERVED = re.compile(r"[,;{}%]")
_ESCAPE = re.compile(r"%(2C|3B|7B|7D|25)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Step:
    """One pass of a pipeline and the sites it may touch.

    Attributes:
        pass_: The pass.
        selection: Sites it may touch; all of them by default.
        inserted_for: The pass that required it, when the manager inserted it; "" when the user wrote it.
        spelling: The name it was written with, so that text round-trips for passes loaded from a file.
    """

    pass_: Pass
    selection: Selection = dataclasses.field(default_factory=Selection)
    inserted_for: str = ""
    spelling: str = ""

    @property
    def text(self) -> str:
        """The step as pipeline text."""
        call = options.format_call(self.spelling or self.pass_.name, self.pass_)
        extra = [
            f"{key}={';'.join(_escaped(str(selector)) for selector in selectors)}"
            for key, selectors in (("include", self.selection.include), ("exclude", self.selection.exclude))
            if selectors
        ]
        if not extra:
            return call
        return call[:-1] + "," + ",".join(extra) + "}" if call.endswith("}") else f"{call}{{{','.join(extra)}}}"


def parse(text: str) -> list[Step]:
    """The steps a pipeline text spells.

    Raises:
        UsageError: For an unknown pass (with the closest name) or a malformed text.
        PassOptionError: For an option the pass does not have or accept.
    """
    return [_step(item) for item in _items(text)]


def step(name: str, given: dict[str, Any]) -> Step:
    """One step from a pass name and its options, as a YAML recipe writes them."""
    given = dict(given)
    selection = Selection.of(*(_selectors(given.pop(key, ())) for key in ("include", "exclude")))
    cls = registry.pass_class(name)
    return Step(options.build(cls, name, given), selection, spelling=name)


def render(steps: Sequence[Step]) -> str:
    """The pipeline text of the steps."""
    return ",".join(step.text for step in steps)


def parse_call(item: str, *, what: str) -> tuple[str, dict[str, str]]:
    """Splits `name{key=value,...}` into its name and options; `what` names the thing in messages.

    Raises:
        UsageError: If braces or key=value pairs are malformed.
    """
    name, brace, rest = item.partition("{")
    name = name.strip()
    if not brace:
        if "=" in name:
            raise UsageError(
                f"{what} {item!r} has an option outside braces; if you wrote {{a=1,b=2}}, the shell split it: "
                "put the whole text in quotes"
            )
        if not name:
            raise UsageError(f"{what}: an empty name; remove the extra comma")
        return name, {}
    if not rest.endswith("}") or not name:
        raise UsageError(f"{what} {item!r} is malformed; write name{{option=value,...}}")
    given: dict[str, str] = {}
    for pair in _split(rest[:-1]):
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not _KEY.match(key):
            raise UsageError(f"{what} {name}: {pair!r} is not option=value")
        if key in given:
            raise UsageError(f"{what} {name}: option {key!r} is given twice")
        given[key] = value.strip()
    return name, given


def split_calls(text: str, *, what: str) -> list[str]:
    """Splits `a,b{x=1,y=2},c` at the commas outside braces.

    Raises:
        UsageError: If a brace is not closed.
    """
    if text.count("{") != text.count("}"):
        raise UsageError(f"{what} {text!r}: a brace is not closed; put the whole text in quotes")
    return [item for item in _split(text) if item.strip()]


def _items(text: str) -> Iterator[str]:
    items = split_calls(text, what="pipeline")
    if not items:
        raise UsageError("the pipeline is empty; `irc passes` lists the passes")
    yield from items


def _step(item: str) -> Step:
    name, given = parse_call(item.strip(), what="pass")
    return step(name, dict(given))


def _selectors(value: Any) -> list[str]:
    return [_unescaped(v) for v in value.split(";") if v] if isinstance(value, str) else list(value)


def _escaped(text: str) -> str:
    """Text without the characters that have a meaning in pipeline text."""
    return _RESERVED.sub(lambda match: f"%{ord(match.group()):02X}", text)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), text)


def _split(text: str) -> list[str]:
    """Splits at commas that are not inside braces."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return parts
