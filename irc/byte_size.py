"""Sizes as people write them: "5MB", "300KiB", "5000"."""

from __future__ import annotations

import re

from irc.errors import UsageError

_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(?:([kKMGT]?)(i?)B?)\s*\Z")
_PREFIXES = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_bytes(text: str | int, what: str) -> int:
    """A size in bytes: "5MB" = 5 000 000, "5MiB" = 5 242 880, "5000".

    Args:
        text: As written.
        what: What it is the size of, for the message.

    Raises:
        UsageError: If the text has another form or is zero.
    """
    match = _SIZE.match(str(text))
    size = 0
    if match is not None:
        size = int(float(match[1]) * (1024 if match[3] else 1000) ** _PREFIXES[match[2]])
    if size <= 0:
        raise UsageError(f"{what} is {text!r}; write bytes with a unit such as 5MB or 300KiB")
    return size
