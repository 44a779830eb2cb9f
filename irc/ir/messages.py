"""Pieces of messages: foreign exceptions in one line, the first of many names."""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST = 300


def some_of(names: Sequence[str]) -> str:
    """The first three names in quotes, and dots if there are more."""
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def first_line(error: BaseException) -> str:
    """The first line that says something in the innermost cause of a foreign error, at most 300 characters."""
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    if line.endswith(":") and len(lines) > 1:
        line = f"{line} {lines[1]}"
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
