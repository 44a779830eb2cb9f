"""Where an exporter stopped, in one line: the module, the line of the user's source, why, and what to try."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from irc.errors import ModelError
from irc.trace.module_source import is_foreign

if TYPE_CHECKING:
    import torch

_FALLBACK = "or try --exporter torchscript"
_OPERATION = re.compile(r"OpOverload\(op='(?P<operation>[\w.:]+)'")
_STACK_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def explain(error: BaseException, module: torch.nn.Module | None, *, what: str) -> ModelError:
    """An error of the exporter as one of ours.

    Args:
        error: What it raised.
        module: What was traced, to name its parts.
        what: What could not be done: "traced", "lowered to ONNX".
    """
    chain = list(_chain(error))
    reason, advice = _reason(chain)
    place, line = _place(chain, module)
    if (node := _failing_node(chain)) is not None:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        lines = _stack_lines(node.meta.get("stack_trace") or "")
        place, line = (str(stack[-1][0]) if stack else place, lines[-1] if lines else line)
    name = f"module {place!r}" if place else "the module"
    where = f" at {line}" if line else ""
    return ModelError(f"{name} cannot be {what}{where}: {reason}; {advice}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those it came from, innermost last."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _reason(chain: list[BaseException]) -> tuple[str, str]:
    """Why, and what to try."""
    texts = [f"{type(error).__name__}: {error}" for error in chain]
    everything = "\n".join(texts)
    match = _OPERATION.search(everything)
    if match is not None and ("No ONNX function found" in everything or "DispatchError" in everything):
        return (
            f"operation {match['operation'].replace('::', '.')} has no ONNX form in this exporter",
            f"compute it with other operations, try a newer --opset, {_FALLBACK}",
        )
    if re.search(
        r"data-dependent|GuardOnDataDependent|unbacked symbol|Dynamic control flow|is_nonzero",
        everything,
        re.IGNORECASE,
    ):
        expression = re.search(
            r"Could not (?:guard on|extract specialized integer from) data-dependent expression (.+?)(?: \(|\n|$)",
            everything,
        )
        of = f" ({expression.group(1).strip()})" if expression else ""
        return (
            f"its control flow depends on the values of tensors{of}",
            f"write the branch with torch.where or torch.cond, {_FALLBACK}, which keeps the branch that the example takes",
        )
    if re.search(
        r"Constraints violated|ConstraintViolation|marked as dynamic|DYNAMIC.*specialized|specialized .* constant",
        everything,
        re.IGNORECASE | re.DOTALL,
    ):
        return (
            _first_line(texts[0], "Constraints violated"),
            "give examples that agree in this dimension, or leave it out of --dynamic",
        )
    if re.search(r"pytree-flattenable|Unsupported (?:input|output) type", everything):
        return (
            _first_line(texts[0], ""),
            "return tensors, tuples or dicts (transformers: use_cache=False), or register the type with torch.utils.pytree",
        )
    return _first_line(
        texts[-1] if len(texts) > 1 and "torch.onnx" in type(chain[0]).__module__ else texts[0], ""
    ), f"change that line, {_FALLBACK}"


def _first_line(text: str, wanted: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    for line in lines:
        if wanted and wanted in line:
            rest = [other for other in lines[lines.index(line) + 1 :] if other.startswith("-")]
            return f"{line} {rest[0].lstrip('- ')}"[:400] if rest else line[:400]
    return lines[0][:400] if lines else "no reason given"


def _place(chain: list[BaseException], module: torch.nn.Module | None) -> tuple[str, str]:
    """Path of the innermost module that was running, and the innermost line of the user's source."""
    names = {id(inner): name for name, inner in module.named_modules()} if module is not None else {}
    best: tuple[str, str] = ("", "")
    for error in chain:
        path, line = "", ""
        for frame, number in _frames(error.__traceback__):
            inner = frame.f_locals.get("self")
            if id(inner) in names and names[id(inner)]:
                path = names[id(inner)]
            if not is_foreign(frame.f_code.co_filename):
                line = f"{Path(frame.f_code.co_filename).name}:{number}"
        inside = _stack_lines(str(error))
        if not line and inside:
            line = inside[-1]
        if line:
            best = (path or best[0], line)
        elif path and not best[0]:
            best = (path, best[1])
    return best


def _frames(traceback: TracebackType | None) -> Iterator[tuple[Any, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _stack_lines(text: str) -> list[str]:
    """Lines of the user's source that a message quotes, outermost first."""
    return [
        f"{Path(match['file']).name}:{match['line']}"
        for match in _STACK_LINE.finditer(text)
        if not is_foreign(match["file"])
    ]


def _failing_node(chain: list[BaseException]) -> Any:
    """The node of the program that the exporter was at, found among the variables of its frames."""
    for error in reversed(chain):
        for frame, _ in reversed(list(_frames(error.__traceback__))):
            node = frame.f_locals.get("node")
            if (
                "torch" in Path(frame.f_code.co_filename).parts
                and type(node).__name__ == "Node"
                and hasattr(node, "meta")
            ):
                return node
    return None
