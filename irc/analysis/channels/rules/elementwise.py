"""Operators that compute every element from the elements at the same place, operands broadcast."""

from __future__ import annotations

from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.registration import rule
from irc.analysis.channels.slots import BROADCASTING

UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Cos", "Cosh"),
    *("Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu"),
    *("Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
)


@rule(*UNARY)
@rule("Gelu", "FastGelu", "QuickGelu", domain="com.microsoft")
def unary(view: NodeView) -> None:
    """Labels stay where they are: y[i] = f(x[i]). FastGelu may have a bias along the last axis."""
    if view.has(1):
        broadcast(view)
    else:
        view.write(view.read(0))


@rule("CastLike")
def like(view: NodeView) -> None:
    """The second operand gives a type only."""
    view.write(view.read(0))


@rule("Clip", "Dropout")
def with_scalars(view: NodeView) -> None:
    """The other inputs are scalars: bounds, a ratio. The mask of Dropout has the labels of the data."""
    view.write(view.read(0))
    if len(view.node.outputs) > 1:
        view.write(view.read(0), 1)


@rule(*BROADCASTING)
def broadcast(view: NodeView) -> None:
    """Y = f(a, b, ...): what meets after broadcasting is the same index."""
    dims = view.dims_out()
    operands = []
    for index in range(len(view.node.inputs)):
        if view.has(index):
            tensor = view.read(index)
            operands.append((tensor, range(len(dims) - tensor.rank, len(dims))))
    groups = view.align(*operands)
    view.write_bundles(view.kept(groups, range(len(dims))))
