"""What a node of the runtime's graph costs, as it crosses from the runtime process; imports nothing of the runtime."""

from __future__ import annotations

import dataclasses
import re

_SUFFIX = re.compile(r"(_token_\d+|_nhwc|_nchwc|/duplicated|_out\d+)+\Z")


@dataclasses.dataclass(frozen=True)
class NodeTime:
    """A node of the runtime's optimized graph and what it costs.

    Attributes:
        name: Its name there.
        op_type: Its operator, which may be the runtime's own.
        inputs: Names of what it reads.
        outputs: Names of its outputs.
        elements: Elements of its first output; 0 if unknown.
        microseconds: Time of one run of the model: mean of the fastest quarter of the runs, mean over feeds.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    elements: int
    microseconds: float


def original_name(name: str) -> str:
    """The name that a node or value had before the runtime's own rewriting put something behind it."""
    return _SUFFIX.sub("", name)
