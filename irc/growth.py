"""Lossless passes must not make a model larger: which of a pipeline's passes to leave out so that they do not.

A pass alone may add nodes or bytes if another takes more away; only the whole counts, without what only prepares an
approximate pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from irc.application import SiteKey, count_nodes
from irc.ir import size_on_disk
from irc.pass_base import MODEL_SITE, Context
from irc.pass_manager import PassManager
from irc.pipeline import Step


@dataclasses.dataclass(frozen=True)
class Extent:
    """How large a model is.

    Attributes:
        nodes: Number of nodes, those of bodies included.
        bytes: Size in one file.
    """

    nodes: int
    bytes: int

    @classmethod
    def of(cls, model: ir.Model) -> Extent:
        """Measures a model; weights are not read."""
        return cls(count_nodes(model), size_on_disk(model))

    def exceeds(self, other: Extent) -> bool:
        """Whether it has more nodes or more bytes than another."""
        return self.nodes > other.nodes or self.bytes > other.bytes


def growing_steps(
    model: ir.Model, rewritten: ir.Model, steps: Sequence[Step], undone: Mapping[SiteKey, str], context: Context
) -> dict[SiteKey, str]:
    """The passes to leave out of a lossless pipeline for it not to make the model larger.

    One pass at a time is left out, the one that adds most, until what is left adds nothing.

    Args:
        model: What the pipeline starts from.
        rewritten: What it made of it.
        steps: The pipeline.
        undone: Rewrites it did not make or took back.
        context: For the passes.

    Returns:
        Keys of whole passes with the reason; empty if the model did not grow.
    """
    before, after = Extent.of(model), Extent.of(rewritten)
    preparing = {SiteKey(i, MODEL_SITE): "" for i, step in enumerate(steps) if getattr(step.pass_, "prepares", False)}
    denied: dict[SiteKey, str] = {}
    while after.exceeds(before) and len(denied) < len(steps) - len(preparing):
        extents = [before]
        manager = PassManager(
            steps,
            verify=False,
            denied={**undone, **preparing, **denied},
            on_failure="undo",
            after_pass=lambda index, step, found: extents.append(Extent.of(found)),  # noqa: B023
            insert_required=False,
        )
        after = Extent.of(manager.run(model, context).model)
        if not after.exceeds(before):
            break
        left = [index for index in range(len(steps)) if SiteKey(index, MODEL_SITE) not in {**preparing, **denied}]
        added = {i: (extents[i + 1].nodes - extents[i].nodes, extents[i + 1].bytes - extents[i].bytes) for i in left}
        worst = max(left, key=lambda i: added[i] if after.nodes > before.nodes else added[i][::-1])
        nodes, size = added[worst]
        denied[SiteKey(worst, MODEL_SITE)] = f"left out: it would make the model larger by {nodes} nodes, {size} bytes"
    return denied
