"""HardSigmoid and HardSwish written out back to one operator.

    Clip(x + 3, 0, 6) / 6                              =>   HardSigmoid<alpha=1/6, beta=1/2>(x)
    s * Clip(a * x + b, 0, 1 / s)                      =>   HardSigmoid<alpha=s*a, beta=s*b>(x)
    x * Clip(x + 3, 0, 6) / 6                          =>   HardSwish(x)
    x * HardSigmoid<alpha=1/6, beta=1/2>(x)            =>   HardSwish(x)

in whatever order the products and sums are written.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from irc.passes.fusion.activation import ends_in_arithmetic, inner_results
from irc.passes.fusion.composite import Composite, Fusion, needed_elsewhere
from irc.passes.fusion.polynomial import Polynomial, Terms, leaves
from irc.passes.fusion.scalars import rank_of, same, scalar

HARD_SIGMOID_SINCE = 6
HARD_SWISH_SINCE = 14


@dataclasses.dataclass(frozen=True)
class FuseHardSwish(Fusion):
    """One or two kernels instead of three or four.

    Source: Howard et al. 2019, arXiv:1905.02244, section 5.2.
    """

    name: ClassVar[str] = "fuse-hard-swish"

    def composite(self, last: ir.Node, model: ir.Model) -> Composite | str | None:
        """A HardSwish or HardSigmoid whose last product, quotient or sum is this node."""
        if not ends_in_arithmetic(last):
            return None
        for gate in inner_results(last, "Clip", "HardSigmoid"):
            found = _of_clip(last, gate) if gate.op_type == "Clip" else _of_hard_sigmoid(last, gate)
            if found is not None:
                return found
        return None


def _of_hard_sigmoid(last: ir.Node, gate: ir.Node) -> Composite | None:
    x = gate.inputs[0]
    assert x is not None
    slope, middle = gate.attributes.get_float("alpha", 0.2), gate.attributes.get_float("beta", 0.5)
    if x.dtype is None or not _is_hard_swish(slope, middle, ir.DataType.FLOAT):
        return None
    outer = Polynomial(last.outputs[0], [x, gate.outputs[0]])
    if not outer.equals({(1, 1): 1.0}, x.dtype):
        return None
    return Composite("HardSwish", HARD_SWISH_SINCE, (x,), (*_before(outer, last), gate), x.dtype)


def _of_clip(last: ir.Node, gate: ir.Node) -> Composite | None:
    argument, bounds = gate.inputs[0], _bounds(gate)
    if argument is None or bounds is None or bounds[0] != 0.0 or bounds[1] <= 0.0:
        return None
    refused: Composite | None = None
    for x in reversed(list(leaves(argument))):  # the farthest first: factors and offsets before go too, if they may
        found = _of_gate(last, gate, x, bounds[1])
        if found is not None and needed_elsewhere(found.interior, last) is None:
            return found
        refused = refused or found
    return refused


def _of_gate(last: ir.Node, gate: ir.Node, x: ir.Value, high: float) -> Composite | None:
    """What ends in a node if x is the data of its gate, which has this upper bound."""
    argument = gate.inputs[0]
    if argument is None or x.dtype is None:
        return None
    inner = Polynomial(argument, [x])
    if inner.terms is None or inner.terms.keys() != {(0,), (1,)}:
        return None
    outer = Polynomial(last.outputs[0], [x, gate.outputs[0]])
    factor = _only_factor(outer.terms)
    if factor is None or not same(factor[1] * high, 1.0, x.dtype):
        return None
    slope, middle = factor[1] * inner.terms[(1,)], factor[1] * inner.terms[(0,)]
    interior = (*_before(outer, last), *inner.nodes, gate)
    if factor[0] == (0, 1):
        attributes = {"alpha": slope, "beta": middle}
        return Composite("HardSigmoid", HARD_SIGMOID_SINCE, (x,), interior, x.dtype, attributes)
    if factor[0] == (1, 1) and _is_hard_swish(slope, middle, x.dtype):
        return Composite("HardSwish", HARD_SWISH_SINCE, (x,), interior, x.dtype)
    return None


def _only_factor(terms: Terms | None) -> tuple[tuple[int, ...], float] | None:
    """The monomial and coefficient of a polynomial that has one."""
    return None if terms is None or len(terms) != 1 else next(iter(terms.items()))


def _is_hard_swish(slope: float, middle: float, dtype: ir.DataType) -> bool:
    return same(slope, 1 / 6, dtype) and same(middle, 0.5, dtype)


def _before(outer: Polynomial, last: ir.Node) -> tuple[ir.Node, ...]:
    return tuple(node for node in outer.nodes if node is not last)


def _bounds(clip: ir.Node) -> tuple[float, float] | None:
    """The bounds of a Clip, inputs from opset 11 and attributes before, if it has both and they are constant."""
    rank = rank_of(clip.inputs[0])
    if len(clip.inputs) == 3:
        low, high = (scalar(value, rank) for value in clip.inputs[1:])
    else:
        low, high = clip.attributes.get_float("min", None), clip.attributes.get_float("max", None)
    return None if low is None or high is None else (low, high)
