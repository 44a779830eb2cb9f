"""What a node of the runtime's graph costs, as it crosses from the runtime process; imports nothing of the runtime."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class NodeTime:
    """A node of the runtime's optimized graph and what it costs.

    Attributes:
        name: Its name there.
        op_type: Its operator, which may be the runtime's own.
        inputs: Names of what it reads.
        outputs: Names of its outputs.
        elements: Elements of its first output; 0 if unknown.
        microseconds: Time of one run of the model: lower quartile over runs, mean over feeds.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    elements: int
    microseconds: float
