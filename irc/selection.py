"""Selectors: which nodes a pass may touch.

A selector is `name:PATTERN` (site id or node name, shell wildcards), `re:REGEX` (searched in site id and node name),
`op:TYPE` (operator type, optionally `domain::TYPE`) or `module:PATH` (the PyTorch module and everything below it).
Without a prefix it is a name.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence

import onnx_ir as ir

from irc.errors import UsageError
from irc.ir.exporter_metadata import MODULE_KEY
from irc.pass_base import node_id

_KINDS = ("name", "re", "op", "module")


@dataclasses.dataclass(frozen=True)
class Selector:
    """One parsed selector.

    Attributes:
        kind: "name", "re", "op" or "module".
        pattern: What stands behind the prefix.
    """

    kind: str
    pattern: str

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Parses `name:conv1*`, `re:^layer[0-9]+`, `op:Conv`, `module:encoder.layer.3` or a bare name.

        Raises:
            UsageError: If the pattern is empty or the regular expression does not compile.
        """
        prefix, colon, rest = text.partition(":")
        kind, pattern = (prefix, rest) if colon and prefix in _KINDS else ("name", text)
        if not pattern:
            raise UsageError(f"selector {text!r} is empty; write one of name:, re:, op:, module: and a pattern")
        if kind == "re":
            try:
                re.compile(pattern)
            except re.error as error:
                raise UsageError(f"selector {text!r} is not a regular expression: {error}") from error
        return cls(kind, pattern)

    def __str__(self) -> str:
        return f"{self.kind}:{self.pattern}"

    def matches(self, node: ir.Node, site: str = "") -> bool:
        """Whether the node (or the site id it is known by) is selected."""
        if self.kind == "op":
            domain, separator, op_type = self.pattern.rpartition("::")
            return node.op_type == op_type and (not separator or node.domain == domain)
        if self.kind == "module":
            module = node.metadata_props.get(MODULE_KEY, "")
            return module == self.pattern or module.startswith(self.pattern + ".")
        names = [n for n in (site or node_id(node), node.name, *(o.name for o in node.outputs)) if n]
        if self.kind == "re":
            return any(re.search(self.pattern, n) for n in names)
        return any(n == self.pattern or fnmatch.fnmatchcase(n, self.pattern) for n in names)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which sites may be rewritten: all that some `include` selects (all, if there is none) and no `exclude` does."""

    include: tuple[Selector, ...] = ()
    exclude: tuple[Selector, ...] = ()

    @classmethod
    def of(cls, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> Selection:
        """Parses the texts of both lists; commas separate selectors except inside `re:`."""
        return cls(tuple(_parse_all(include)), tuple(_parse_all(exclude)))

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)

    def refuses(self, node: ir.Node | None, site: str) -> str | None:
        """Why this site is not to be touched, or None."""
        if node is None:
            return None
        for selector in self.exclude:
            if selector.matches(node, site):
                return f"excluded by {selector}"
        if self.include and not any(selector.matches(node, site) for selector in self.include):
            return "not selected by --include"
        return None

    def require_matches(self, model: ir.Model) -> None:
        """Raises UsageError for a selector that matches no node of the model: a typo would be a silent no-op."""
        nodes = list(model.graph.all_nodes()) if self else []
        for selector in (*self.include, *self.exclude):
            if not any(selector.matches(node) for node in nodes):
                raise UsageError(f"selector {selector} matches none of the {len(nodes)} nodes{_hint(selector, nodes)}")


def _parse_all(texts: Iterable[str]) -> list[Selector]:
    parts: list[str] = []
    for text in texts:
        if not text.strip():
            Selector.parse("")
        parts += [text] if text.startswith("re:") else [part for part in text.split(",") if part.strip()]
    return [Selector.parse(part.strip()) for part in parts]


def _hint(selector: Selector, nodes: Sequence[ir.Node]) -> str:
    """The closest existing name, as advice."""
    if selector.kind == "op":
        known = [node.op_type for node in nodes]
    elif selector.kind == "module":
        known = [node.metadata_props.get(MODULE_KEY, "") for node in nodes]
        if not any(known):
            return "; this model has no module names: use name: or re:"
    else:
        known = [node_id(node) for node in nodes]
    close = difflib.get_close_matches(selector.pattern, dict.fromkeys(k for k in known if k), n=3, cutoff=0.4)
    return f"; did you mean {', '.join(repr(c) for c in close)}?" if close else "; `irc inspect` lists them"
