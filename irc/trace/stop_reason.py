"""Where an exporter stopped, in one line: the module, the line of the user's source, why, and what to try."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from irc.errors import ModelError
from irc.trace.module_source import is_foreign

if TYPE_CHECKING:
    import torch

MOST_CHARACTERS = 400
_STACK_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_ELSEWHERE = re.compile(
    r"For more information, run with [^.]*\.| See https?://\S+[^.]*\.|If you don't need to .*", re.DOTALL
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclasses.dataclass(frozen=True)
class _Cause:
    """Something that stops exporters: how to tell it by their messages, and what to say.

    Attributes:
        signs: Found in the messages.
        reason: What is wrong; `{0}` is what the first group of `detail` holds. "" quotes the exporter.
        advice: What to do; `{other}` is the advice to try the other exporter.
        detail: Finds what the reason is about.
    """

    signs: str
    reason: str
    advice: str
    detail: str = ""


_CAUSES = (
    _Cause(
        r"No ONNX function found|DispatchError|Exporting the operator",
        "operation {0} has no ONNX form in this exporter",
        "compute it with other operations, try a newer --opset, or {other}",
        r"OpOverload\(op='([\w.:]+)'|Exporting the operator '([\w.:]+)'",
    ),
    _Cause(
        r"data-dependent|GuardOnDataDependent|unbacked symbol|Dynamic control flow|is_nonzero",
        "its control flow depends on the values of tensors{0}",
        "write the branch with torch.where or torch.cond, or {other}, which keeps the branch that the example takes",
        r"Could not (?:guard on|extract specialized integer from) data-dependent expression (.+?)(?: \(|\n|$)",
    ),
    _Cause(
        r"Constraints violated|ConstraintViolation|marked .{0,80} as dynamic|specialized .{0,80} constant|inferred a static shape",
        "",
        "give examples that agree in this dimension, or leave it out of --dynamic",
    ),
    _Cause(
        r"pytree-flattenable|Unsupported (?:in|out)put type|not a known type|register a pytree|Only tuples, lists and Variables",
        "",
        "return tensors, tuples or dicts (transformers: use_cache=False), or register the type with torch.utils.pytree",
    ),
)


def explain(
    error: BaseException, module: torch.nn.Module | None, *, what: str, other: str = "torchscript"
) -> ModelError:
    """An error of the exporter as one of ours.

    Args:
        error: What it raised.
        module: What was traced, to name its parts.
        what: What could not be done: "traced", "lowered to ONNX".
        other: The exporter to try instead.
    """
    chain = list(_chain(error))
    reason, advice = _reason(chain, f"try --exporter {other}")
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


def _reason(chain: list[BaseException], other: str) -> tuple[str, str]:
    """Why, and what to try."""
    texts = [_COLOURS.sub("", f"{type(error).__name__}: {error}") for error in chain]
    everything = "\n".join(texts)
    for cause in _CAUSES:
        sign = re.search(cause.signs, everything, re.IGNORECASE)
        if sign is None:
            continue
        found = re.search(cause.detail, everything) if cause.detail else None
        detail = next((text for text in found.groups() if text), "").strip() if found is not None else ""
        if not cause.reason or (not detail and "{0} " in cause.reason):
            reason = _quoted(everything, sign.start())
        elif "{0} " in cause.reason:
            reason = cause.reason.format(detail.replace("::", "."))
        else:
            reason = cause.reason.format(f" ({detail})" if detail else "")
        return reason, cause.advice.format(other=other)
    # The exporter for ONNX wraps what happened in an error of its own, which only says at which step.
    text = texts[-1] if "torch.onnx" in type(chain[0]).__module__ else texts[0]
    return _quoted(text, 0), f"change that line, or {other}"


def _quoted(text: str, position: int) -> str:
    """The line of a message at a position, and the first item of the list behind it, if there is one."""
    lines = [" ".join(line.split()) for line in text[text.rfind("\n", 0, position) + 1 :].splitlines()]
    first, *rest = [line for line in lines if line] or ["no reason given"]
    item = rest[0].lstrip("- ") if rest and rest[0].startswith("-") else ""
    said = _ELSEWHERE.sub("", f"{first.lstrip('- ')} {item}").strip().rstrip(".")
    return said if len(said) <= MOST_CHARACTERS else f"{said[:MOST_CHARACTERS]}..."


def _place(chain: list[BaseException], module: torch.nn.Module | None) -> tuple[str, str]:
    """Path of the innermost module that was running, and the innermost line of the user's source."""
    names = {id(inner): name for name, inner in module.named_modules()} if module is not None else {}
    best: tuple[str, str] = ("", "")
    for error in chain:
        path, line = "", ""
        for frame, number in _frames(error.__traceback__):
            inner = frame.f_locals.get("self")
            if names.get(id(inner)):
                path = names[id(inner)]
            if not is_foreign(frame.f_code.co_filename):
                line = f"{Path(frame.f_code.co_filename).name}:{number}"
        quoted = _stack_lines(str(error))
        line = line or (quoted[-1] if quoted else "")
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
            ours = "torch" in Path(frame.f_code.co_filename).parts
            if ours and type(node).__name__ == "Node" and hasattr(node, "meta"):
                return node
    return None
