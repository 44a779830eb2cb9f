"""Where labels live: the axes of initializers.

A small initializer (at most one axis longer than 1), and one that is only added, multiplied or compared elementwise, has labels of its own
for every use, since exporters store equal biases, scales and tables once; any other has the same labels wherever it is used, since tied
weights are meant.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from irc.analysis.channels.bundles import Bundle, Labelled

UNLABELLED = frozenset({ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING, ir.DataType.UNDEFINED})
"""Element types of initializers that hold sizes, indices and conditions."""


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """One initializer, or one use of a small one, with its labels.

    Attributes:
        initializer: The value.
        use: The node and the index of its input, for a small initializer; None where all uses share the labels.
        view: The sizes under which it is labelled: its shape, or its shape with an axis split in two.
        bundles: Labels on axes of the view. They may share axes: the input channels of a grouped convolution are
            labelled by group and member, and so are its output channels.
        axis_of: For every axis of the view, the axis of the initializer.
    """

    initializer: ir.Value
    use: tuple[ir.Node, int] | None
    view: tuple[int, ...]
    bundles: tuple[Bundle, ...]
    axis_of: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the initializer."""
        return self.initializer.name or ""

    @property
    def is_plain(self) -> bool:
        """Whether the view is the initializer's own shape."""
        return self.axis_of == tuple(range(len(self.view)))

    def labelled(self) -> Labelled:
        """The initializer as an operand; only for a view that is its shape."""
        return Labelled(self.view, self.bundles)


BROADCASTING = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Sum", "Mean", "Where", "PRelu", "And", "Or", "Xor"),
    *("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
)
"""Elementwise operators of several operands."""


def is_labelled_per_use(value: ir.Value, dims: tuple[int, ...]) -> bool:
    """Whether every use of an initializer has labels of its own; one that is an output of the model is what it is."""
    if value.is_graph_output():
        return False
    if sum(size > 1 for size in dims) <= 1:
        return True
    return _is_broadcast(value)


def _is_broadcast(value: ir.Value) -> bool:
    """Whether a value is an operand of elementwise operators only, directly or by an Identity, as exporters spell a second use."""
    return not value.is_graph_output() and all(
        use.node.domain in ("", "ai.onnx")
        and (
            use.node.op_type in BROADCASTING or (use.node.op_type == "Identity" and _is_broadcast(use.node.outputs[0]))
        )
        for use in value.uses()
    )
