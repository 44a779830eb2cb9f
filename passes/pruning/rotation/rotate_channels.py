"""Channels turned into principal directions before they are cut, wherever nothing between what makes and reads them minds.

    y = W2 (W1 x + b)  =>  y = (W2 R^-1) (R W1 x + R b)

R is chosen from data so that the first r channels hold as much of what is read of them as any r directions can, for all r. Cutting
single channels then loses what a low-rank approximation would. That is free where no Relu stands between: values of attention heads and
what projects them, queries and keys without rotary embedding, linear bottlenecks with the residual sums between them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family, Mode, propagate
from irc.calibration.statistics import Observations
from irc.decisions import Decision
from irc.ir import constant_tensor, snapshot
from irc.pass_base import Context, Contract, Pass, Remark, Site, Skip
from irc.passes.pruning.rotation.channel_linearity import Linearity, Turn
from irc.passes.pruning.rotation.linear_operators import NotLinear
from irc.passes.pruning.rotation.rotation_basis import balanced, losses, orthogonal
from irc.passes.pruning.rotation.rotation_edit import rotate
from irc.passes.pruning.rotation.rotation_moments import Meeting, meetings_of, moments_of

_DONE = "irc.channels-rotated"
_PRECISE = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})


@dataclasses.dataclass(frozen=True, eq=False)
class _Place:
    """A family whose basis is free.

    Attributes:
        id: Of its site.
        node: The first node that reads one of its initializers, in the model being rewritten.
        turn: How channels turn.
        meetings: Where they are summed over.
    """

    id: str
    node: ir.Node
    turn: Turn
    meetings: tuple[Meeting, ...]

    def key(self, pass_name: str) -> str:
        family = self.turn.family
        return f"{pass_name}/{self.id}/{family.cell_count}x{family.width}"


@dataclasses.dataclass(frozen=True)
class RotateChannels(Pass):
    """Changes the basis of channels whose path is linear, by weights alone, so that cutting channels behind it loses less.

    Where weights read the channels R is orthogonal; where activations meet, as queries and keys do, both get the same diagonal moments.

    Source: the idea of SliceGPT, Ashkboos et al. 2024, arXiv:2401.15024, without its norm; the truncation bound is Eckart and Young 1936.

    Attributes:
        mode: Which families: "rows" and "columns" as in prune-channels, or "both"; dimensions within heads are columns.
        least_gain: Share of the error of cutting half of the channels, the best ones staying, that must go away.
    """

    name: ClassVar[str] = "rotate-channels"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("batch-norm-folded", "shapes-known")
    invalidates: ClassVar[tuple[str, ...]] = ()
    prepares: ClassVar[bool] = True

    mode: Literal["rows", "columns", "both"] = "both"
    least_gain: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.least_gain <= 1:
            raise ValueError(f"least_gain is {self.least_gain}; it must be between 0 and 1")

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields families whose basis is free and that gain by another, named as prune-channels names them."""
        if ctx.observe is None and not ctx.decisions.replaying:
            yield Skip(None, "it decides by data, and there are none; give --data")
            return
        analysed = snapshot(model)
        nodes = dict(zip(analysed.graph, model.graph, strict=True))
        found = list(self._found(analysed, nodes, model.meta.get(_DONE, frozenset())))
        places = [one for one in found if isinstance(one, _Place) and ctx.refuses(one.node, one.id) is None]
        decisions = self._decided(model, places, ctx)
        for one in found:
            if isinstance(one, Skip):
                yield one
            elif one not in places:
                yield Skip(one.node, ctx.refuses(one.node, one.id) or "", one.id)
            elif one.id not in decisions:
                yield Skip(one.node, "the plan leaves it as it is", one.id)
            else:
                decision = decisions[one.id]
                before, after = _errors(decision)
                if before > after and before - after >= self.least_gain * before:
                    yield Site(one.node, (model, nodes, one, decision), one.id)
                else:
                    yield Skip(one.node, f"another basis gains too little: {_text(decision)}", one.id)

    def rewrite(self, site: Site, ctx: Context) -> Skip | Remark | None:
        """Multiplies all initializers of one family."""
        model, nodes, place, decision = site.match
        changed = rotate(model, nodes, place.turn, np.asarray(decision["basis"]))
        # A new set each time: copies of the model share the old one.
        model.meta[_DONE] = model.meta.get(_DONE, frozenset()) | {place.key(self.name)}
        return Remark(f"{_text(decision)}; {changed} constants")

    # -- what may turn ------------------------------------------------------------------------------------------------

    def _found(
        self, analysed: ir.Model, nodes: dict[ir.Node, ir.Node], done: frozenset[str]
    ) -> Iterator[_Place | Skip]:
        propagation = propagate(analysed)
        modes: tuple[Mode, ...] = ("rows", "columns") if self.mode == "both" else (self.mode,)
        names: set[str] = set()
        seen: set[bytes] = set()
        turned = np.zeros(propagation.constraints.count, dtype=bool)
        for groups in (ChannelGroups(propagation, mode) for mode in modes):
            linearity = Linearity(groups)
            for family in groups.families:
                mine = np.isin(groups.class_of, family.atoms)
                atoms = hashlib.sha256(np.where(mine, groups.class_of, -1).tobytes()).digest()
                if atoms in seen:
                    continue  # no rows to speak of: the first mode has it
                seen.add(atoms)
                name = family.name if family.name not in names else f"{family.name}:{groups.mode}"
                names.add(name)
                node = nodes.get(family.node, family.node)
                try:
                    if turned[mine].any():
                        raise NotLinear(family.node, "its channels turn as those of another mode")
                    place = self._place(name, node, linearity, family)
                except NotLinear as error:
                    yield Skip(node, error.reason, name)
                    continue
                if place.key(self.name) in done:
                    yield Skip(node, "its basis was changed before", name)
                    continue
                turned |= mine
                yield place

    def _place(self, name: str, node: ir.Node, linearity: Linearity, family: Family) -> _Place:
        turn = linearity.turn(family)
        for slot, _bundles in turn.slots:
            tensor = constant_tensor(slot.initializer)
            if tensor is None or tensor.dtype not in _PRECISE:
                kind = "nothing constant" if tensor is None else tensor.dtype.name.lower()
                raise NotLinear(
                    family.node, f"{slot.name!r} is {kind}, and a change of basis needs float32 to be exact enough"
                )
            if not np.isfinite(tensor.numpy()).all():
                raise NotLinear(family.node, f"{slot.name!r} holds a NaN or an infinity")
        return _Place(name, node, turn, meetings_of(linearity.groups.propagation, turn))

    # -- decisions ----------------------------------------------------------------------------------------------------

    def _decided(self, model: ir.Model, places: Sequence[_Place], ctx: Context) -> dict[str, Decision]:
        """By site: what is remembered, and what the data give now, of the model as it was received. A plan has those carried out only."""
        missing = [place for place in places if place.key(self.name) not in ctx.decisions]
        observations: Observations | None = None
        if missing and not ctx.decisions.replaying:
            assert ctx.observe is not None
            wanted = dict.fromkeys(o for place in missing for meeting in place.meetings for o in meeting.observables)
            observations = ctx.observe(model, list(wanted))
        return {
            place.id: ctx.decisions.remember(place.key(self.name), functools.partial(_basis, place, observations))
            for place in places
            if observations is not None or place.key(self.name) in ctx.decisions
        }


def _basis(place: _Place, observations: Observations | None) -> Decision:
    """R by unit, and what cutting half would lose before and after; an empty R where nothing was observed."""
    assert observations is not None
    wanted = [observable for meeting in place.meetings for observable in meeting.observables]
    seen = [observations.found.get(observable) for observable in wanted]
    if any(one is None or isinstance(one, tuple) or one.empty for one in seen):
        return {"basis": np.zeros(0, np.float32), "before": 0.0, "after": 0.0}
    found = moments_of(place.turn, place.meetings, observations)
    bases = [(orthogonal if unit.repaired else balanced)(unit.forward, unit.backward) for unit in found]
    lost = np.array([losses(unit.forward, unit.backward, repaired=unit.repaired) for unit in found]).sum(axis=0)
    before, after = (float(share) for share in lost[:2] / max(float(lost[2]), np.finfo(float).tiny))
    return {"basis": np.array(bases, np.float32), "before": before, "after": after}


def _errors(decision: Decision) -> tuple[float, float]:
    before, after = decision["before"], decision["after"]
    assert isinstance(before, float) and isinstance(after, float)
    return before, after


def _text(decision: Decision) -> str:
    before, after = _errors(decision)
    return f"half of its channels would lose {100 * before:.2g} % before, {100 * after:.2g} % after"
