"""Apply one pass to a model: the loop that passes do not write themselves.

Sites are rewritten as soon as the pass yields them; a lossless pass is swept again until a sweep finds nothing, so one
rewrite may open the next. Selection, the permission to touch a site (plan, bisection, guard), the count limit and the
ledger are decided here, once, for all passes.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx_ir as ir

from irc.errors import IrcError, PassFailed
from irc.ir import bodies
from irc.ledger import Entry, PassRecord
from irc.pass_base import MODEL_SITE, Context, Remark, Site, Skip
from irc.pipeline import Step

MAX_SWEEPS = 64
"""A lossless pass that still finds sites after this many sweeps undoes its own work; it is stopped and said so."""


@dataclasses.dataclass(frozen=True)
class SiteKey:
    """Names one rewrite of a build: which step, which site, and for the how-manieth time."""

    step: int
    site: str
    occurrence: int = 0


Permit = Callable[[SiteKey], str | None]
"""Answers why a site must not be rewritten, or None when it may."""


def permit_all(key: SiteKey) -> str | None:
    """Allows every site."""
    return None


@dataclasses.dataclass
class Applied:
    """What applying one pass gave.

    Attributes:
        record: The ledger record.
        keys: The rewrites made, in order.
        refused: The rewrites that `permit` or the limit refused, as they stand in the ledger.
        offered: How many rewrites counted towards the limit.
    """

    record: PassRecord
    keys: list[SiteKey] = dataclasses.field(default_factory=list)
    refused: dict[SiteKey, Entry] = dataclasses.field(default_factory=dict)
    offered: int = 0


def count_nodes(model: ir.Model) -> int:
    """Number of nodes, those in bodies of If, Loop and Scan included."""
    count, pending = 0, [model.graph]
    while pending:
        for node in pending.pop():
            count += 1
            pending.extend(bodies(node))
    return count


def apply_pass(
    step: Step,
    model: ir.Model,
    ctx: Context,
    *,
    index: int = 0,
    permit: Permit = permit_all,
    limit: int | None = None,
    nodes_before: int | None = None,
    count: Callable[[Any], int] = count_nodes,
) -> Applied:
    """Applies the pass of a step to the model, in place.

    Args:
        step: The pass and the sites it may touch.
        model: Changed in place.
        ctx: What the pass may ask of the world.
        index: Position of the step in the pipeline, the first half of a `SiteKey`.
        permit: Asked before every rewrite.
        limit: Rewrite at most this many sites, those counted that `permit` refuses, so that what is refused early does
            not open the door to what comes late; None means all.
        nodes_before: Number of nodes of the model, where it is known.
        count: How nodes are counted.

    Raises:
        PassFailed: If the pass raised; the model is then half-changed and the caller restores it.
    """
    pass_ = step.pass_
    before = count(model) if nodes_before is None else nodes_before
    record = PassRecord(pass_.name, step.text, pass_.contract.value, nodes_before=before)
    applied = Applied(record)
    occurrences: collections.Counter[str] = collections.Counter()
    offered: set[SiteKey] = set()
    ctx = dataclasses.replace(ctx, refuses=step.selection.refuses)
    start = time.perf_counter()
    for _ in range(MAX_SWEEPS):
        skipped: dict[str, Entry] = {}
        accepted: list[Site] = []
        changed = whole_model = False
        for found in _sites(step, model, ctx, index):
            op_type = found.node.op_type if found.node is not None else ""
            if isinstance(found, Skip):
                skipped[found.id] = Entry(found.id, op_type, found.reason)
                continue
            key = SiteKey(index, found.id, occurrences[found.id])
            if (reason := step.selection.refuses(found.node, found.id)) is not None:
                skipped[found.id] = Entry(found.id, op_type, reason)
                continue
            if limit is not None and key not in offered and len(offered) >= limit:
                reason = f"the limit of {limit} sites is reached"
            else:
                offered.add(key)
                reason = permit(key)
            if reason is not None:
                applied.refused[key] = Entry(found.id, op_type, reason)
                continue
            outcome = _rewrite(step, found, ctx, index)
            if isinstance(outcome, Skip):
                offered.discard(key)
                skipped[found.id] = Entry(found.id, op_type, outcome.reason)
                continue
            occurrences[found.id] += 1
            applied.keys.append(key)
            record.rewritten.append(Entry(found.id, op_type, outcome.text if outcome is not None else ""))
            accepted.append(found)
            changed = True
            whole_model = whole_model or found.node is None
        if accepted and (remark := _finish(step, accepted, ctx, index)) is not None:
            record.summary = remark.text
        if not changed or whole_model or not pass_.contract.lossless:
            break
    else:
        skipped[MODEL_SITE] = Entry(MODEL_SITE, "", f"stopped after {MAX_SWEEPS} sweeps: it finds sites without end")
    applied.offered = len(offered)
    record.seconds = time.perf_counter() - start
    refused = {entry.site: entry for entry in applied.refused.values()}
    record.skipped = [
        entry for site, entry in {**skipped, **refused}.items() if site not in occurrences or site in refused
    ]
    record.nodes_after = count(model) if applied.keys else before
    return applied


def _sites(step: Step, model: ir.Model, ctx: Context, index: int) -> Iterator[Site | Skip]:
    """The pass's own generator, its exceptions named."""
    with _named(step, index, "while looking for sites"):
        yield from step.pass_.sites(model, ctx)


def _rewrite(step: Step, site: Site, ctx: Context, index: int) -> Skip | Remark | None:
    with _named(step, index, f"at {site.id!r}", site=site.id):
        return step.pass_.rewrite(site, ctx)


def _finish(step: Step, sites: Sequence[Site], ctx: Context, index: int) -> Remark | None:
    with _named(step, index, "behind its last site"):
        return step.pass_.finish(sites, ctx)


@contextlib.contextmanager
def _named(step: Step, index: int, where: str, *, site: str | None = None) -> Iterator[None]:
    """What a pass raises, other than an error of irc's own, says which pass it was and where."""
    try:
        yield
    except IrcError:
        raise
    except Exception as error:
        raise PassFailed(
            f"{step.pass_.name}: failed {where}: {type(error).__name__}: {' '.join(str(error).split())}",
            pass_name=step.pass_.name,
            site=site,
            step=index,
        ) from error
