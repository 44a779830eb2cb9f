"""Half the bits: float32 weights and operators become float16 or bfloat16; inputs and outputs keep their types.

    y = MatMul(x, W)   =>   y = Cast<float>(MatMul(Cast<float16>(x), W_float16))

A Cast stands only between a float32 and a narrow operator: constants are stored narrow, operators that make a type by
an attribute make the narrow one, and operators that only move data have the type of what they move. If, Loop and Scan
hand narrow values in and out where their bodies compute them so.

An operator stays float32 where the narrow type would not do, and the ledger says why, with the figure:

- a value reaches beyond the format on the data, or may inside the operator; or all of it is too small for it;
- a constant is out of range, or loses too much: an epsilon of 1e-12 is 0 in float16, and then what divides by it too;
- positions, angles and what becomes an integer again; random numbers; what is quantized already;
- the target does not run it in that type.

A mask of -3.4e38 that only reaches a Softmax, with a score added, becomes -16384 in float16: its weight is 0 all the
same, and unlike -65504 it stays finite when scores, or another mask, are added to it.

ONNX Runtime's CPU provider (1.31.1) has float16 kernels for moves, Clip, Max, Min, LayerNormalization,
RMSNormalization and Attention alone; it computes the others in float32 between Casts of its own, and drops those
between two such operators, so that it rounds less than the file says and does not show an overflow. There the pass
halves the file, at 0.9 to 1.4 times the latency (`benchmarks/half_precision.py`: resnet20 1.00, mobilenetv2 1.43,
wav2vec2 1.07, minilm 0.86, gpt2 1.14, on a busy machine; by ONNX Runtime's own converter 0.99 to 1.38). Speed is what
GPUs gain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import onnx_ir as ir

from irc.ir import bypass
from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.precision import carriers
from irc.passes.precision.border import Border
from irc.passes.precision.guard import protected, values_of, why_float, why_out_of_range
from irc.passes.precision.number_format import FORMATS, NumberFormat
from irc.passes.precision.ranges import Range, observed_ranges
from irc.passes.precision.retyping import MOVES, Retyping, retyped_attributes, retyping
from irc.passes.precision.rounding_error import rounding_errors
from irc.passes.precision.value_roles import Roles, data_inputs, in_order

UNCHECKED = "no data: ranges of activations were not checked, those of weights and constants were"


@dataclasses.dataclass(frozen=True)
class ReducePrecision(Pass):
    """Stores and computes in float16 or bfloat16 what stands it; float32 inputs and outputs stay.

    Attributes:
        type: "float16", or "bfloat16", which has the range of float32 and 8 bits of precision.
        headroom: With data, how many times larger than observed a value may become before it overflows; at least 1.
    """

    name: ClassVar[str] = "reduce-precision"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("opset-13", "shapes-known")

    type: Literal["float16", "bfloat16"] = "float16"
    headroom: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.headroom <= 1000:
            raise ValueError(f"headroom is {self.headroom}; it must be from 1 to 1000")

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every operator with float32 data, those of a body before the operator it belongs to."""
        number, opset = FORMATS[self.type], model.graph.opset_imports.get("", 0)
        if ctx.target is not None and (reason := ctx.target.lacks_type("", opset, number.dtype)) is not None:
            yield Skip(None, f"{ctx.target.name}: {reason}")
            return
        border = Border(model, number)
        plans = self._plans(model, ctx, border, opset)
        if plans and ctx.data is None and not ctx.decisions.replaying:
            yield Skip(None, UNCHECKED)
        # What a body takes may become narrow when its operator does, and what only moves it follows then.
        waiting: list[tuple[ir.Node, Retyping, bool]] = []
        for node, plan, masking in plans:
            if isinstance(plan, str):
                yield Skip(node, plan)
                continue
            found = self._change(node, plan, border)
            if found is not None:
                yield Site(node, (border, number, found, masking))
            if found is None or node.op_type in carriers.CARRIERS:
                waiting.append((node, plan, masking))
        while waiting:
            rest, changed = [], False
            for node, plan, masking in waiting:
                found = self._change(node, plan, border)
                if found is None:
                    rest.append((node, plan, masking))
                    continue
                yield Site(node, (border, number, found, masking))
                if node.op_type in carriers.CARRIERS and self._change(node, plan, border) != found:
                    rest.append((node, plan, masking))
                changed = True
            waiting = rest
            if not changed:
                break
        for node, _, _ in waiting:
            if node.op_type in MOVES:
                yield Skip(node, "what it moves is float32")

    def _change(self, node: ir.Node, plan: Retyping, border: Border) -> Retyping | list[carriers.Slot] | None:
        """What can change about an operator by now, or None."""
        number = FORMATS[self.type]
        if node.op_type in carriers.CARRIERS:
            return [s for s in carriers.slots(node) if carriers.can_become_narrow(node, s, border, number)] or None
        if _is_narrowing(node, number):
            return plan if border.source(node.inputs[0]) is not None else None
        return plan if self._follows(node, border) else None

    def _plans(
        self, model: ir.Model, ctx: Context, border: Border, opset: int
    ) -> list[tuple[ir.Node, Retyping | str, bool]]:
        """Every operator with float32 values: what changes, or why it stays; and whether its constants mask scores."""
        number, roles = FORMATS[self.type], Roles(model.graph)
        nodes = [node for node in in_order(model.graph) if not border.is_widening(node) and node.op_type != "Constant"]
        changes: dict[ir.Node, Retyping | str] = {}
        for node in nodes:
            found: Retyping | str | None
            if node.op_type in carriers.CARRIERS and node.domain == "":
                found = _carried(node)
            else:
                found = retyping(node, opset, number)
                if isinstance(found, Retyping) and not _is_narrowing(node, number):
                    found = why_float(node, found, roles, number, ctx.target, opset) or found
            if found is not None:
                changes[node] = found
        floors = {node: (floor, reason) for node, floor, reason in protected(nodes, number)}
        observations = _Observations(model, ctx, changes)
        plans: list[tuple[ir.Node, Retyping | str, bool]] = []
        for node, change in changes.items():
            if isinstance(change, Retyping):
                key = f"{self.name}/{self.type}/{node_id(node)}"

                def by_range(node: ir.Node = node, change: Retyping = change) -> dict[str, str]:
                    ranges = observations.ranges
                    reason = why_out_of_range(node, change, ranges, roles, number, self.headroom, model.graph)
                    if reason is None and node in floors:
                        floor = ranges.get(floors[node][0].name or "")
                        reason = floors[node][1] if floor is None or floor.low < number.smallest_normal else None
                    return {"reason": reason or ""}

                if observations.possible:
                    change = str(ctx.decisions.remember(key, by_range)["reason"]) or change
                elif key in ctx.decisions:
                    change = str(ctx.decisions.remember(key, dict)["reason"]) or change
                elif node in floors:
                    change = floors[node][1]
            plans.append((node, change, roles.masks(node)))
        return plans

    @staticmethod
    def _follows(node: ir.Node, border: Border) -> bool:
        """Whether an operator computes, or what it moves is narrow already, or constant."""
        if node.op_type not in MOVES:
            return True
        data = data_inputs(node)
        return not data or any(border.source(value) is not None for value in data)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Changes the type of one operator."""
        node = site.node
        assert node is not None
        border, number, change, masking = site.match
        if node.op_type in carriers.CARRIERS:
            for slot in change:
                carriers.become_narrow(node, slot, border)
            return None
        if _is_narrowing(node, number) and (source := border.source(node.inputs[0])) is not None:
            wide = node.inputs[0]
            if bypass(node, source):
                border.release(wide)
                return None
        for index in change.inputs:
            value = node.inputs[index]
            node.replace_input_with(index, border.narrowed(value, masking=masking))
            border.release(value)
        for attribute in retyped_attributes(node, change, number, masking=masking):
            node.attributes[attribute.name] = attribute
        for index in change.outputs:
            border.become_narrow(node.outputs[index])
        return None

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """Relative error energy of each operator's output, computed narrow from the float32 values, in one sweep."""
        return rounding_errors(before, sites, FORMATS[self.type], ctx)


class _Observations:
    """The ranges of all values that may become narrow, observed the first time one is asked for."""

    def __init__(self, model: ir.Model, ctx: Context, changes: Mapping[ir.Node, Retyping | str]) -> None:
        self._model, self._ctx = model, ctx
        self._names = [
            value.name or ""
            for node, change in changes.items()
            if isinstance(change, Retyping)
            for value in values_of(node, change)
        ]
        self._found: Mapping[str, Range] | None = None
        self.possible = ctx.data is not None and ctx.runner is not None and not ctx.decisions.replaying

    @property
    def ranges(self) -> Mapping[str, Range]:
        if self._found is None:
            ctx = self._ctx
            assert ctx.runner is not None
            self._found = observed_ranges(ctx.runner, self._model, ctx.data, self._names, progress=ctx.progress)
        return self._found


def _is_narrowing(node: ir.Node, number: NumberFormat) -> bool:
    """Whether a node is a Cast from float32 to the narrow type, of the model's own."""
    return (
        node.op_type == "Cast"
        and node.inputs[0] is not None
        and node.inputs[0].dtype == ir.DataType.FLOAT
        and node.outputs[0].dtype == number.dtype
    )


def _carried(node: ir.Node) -> Retyping | None:
    """The float32 inputs and outputs of an If, Loop or Scan."""

    def floats(values: Sequence[ir.Value | None]) -> tuple[int, ...]:
        return tuple(i for i, v in enumerate(values) if v is not None and v.dtype == ir.DataType.FLOAT)

    found = Retyping(floats(node.inputs), floats(node.outputs))
    return found if found.inputs or found.outputs else None
