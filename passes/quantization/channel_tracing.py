"""Everything that scales with a value: which constants take factors up when its channels are divided.

From the value on, the same factors hold for all that scales with it: through Relu, sums, pooling, Reshape, Transpose, heads of attention.
The walk ends at constants; where it ends anywhere else, the factors cannot disappear.

Source: Nagel et al. 2019, arXiv:1906.04721, sec. 4.1, whose pairs of layers are the simplest case; Xiao et al. 2022, arXiv:2211.10438, for
normalizations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import constant, constant_tensor
from irc.passes.quantization.channel_layout import Layout
from irc.passes.quantization.channel_moves import MOVES
from irc.passes.quantization.channel_scaling import DOMAINS, ChannelScaling, End, all_same, reader_end

Array = np.ndarray[Any, Any]
_SMALL = 1 << 14
"""A shared constant with at most so many elements is copied; of a larger one the file would grow."""
_LONGEST = 4096
"""Values followed before giving up."""


def scaling_of(value: ir.Value, axis: int, main: ir.Graph) -> ChannelScaling | str:
    """What dividing the channels of a value along an axis comes to, or why it cannot be done for free.

    Args:
        value: A float value of the main graph.
        axis: Not negative; of known size.
        main: The graph.
    """
    size = value.shape[axis] if value.shape is not None and axis < len(value.shape) else None
    if not isinstance(size, int):
        return "it is not known how many channels its input has"
    try:
        return _Trace(main, size).follow(value, Layout((axis,), np.arange(size)))
    except _Refusal as refusal:
        return str(refusal)


class _Refusal(Exception):
    """Why factors do not go through somewhere, in a user's words."""


_SUMS = ("Add", "Sum", "Sub")
_NORMALIZATIONS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
_BY_CHANNEL = ("BatchNormalization", "InstanceNormalization")
_MAKERS = ("MatMul", "Gemm", "Conv", *_SUMS, "Split", "Reshape", "BatchNormalization")


class _Trace:
    """One walk; `follow` gives its result or raises `_Refusal`."""

    def __init__(self, main: ir.Graph, count: int) -> None:
        self._main = main
        self._count = count
        self._layouts: dict[ir.Value, Layout] = {}
        self._linked: dict[ir.Node, set[int]] = {}
        self._ends: dict[tuple[ir.Node, int, bool], End] = {}
        self._untouched: set[ir.Value] = set()
        self._readers: dict[ir.Node, None] = {}
        self._pending: list[ir.Value] = []

    def follow(self, value: ir.Value, layout: Layout) -> ChannelScaling:
        self._visit(value, layout)
        while self._pending:
            self._surroundings(self._pending.pop(0))
        if any(value in self._untouched for value in self._layouts):
            raise _Refusal("part of what is split or joined on the way would be divided, and must not be")
        self._check_shared()
        return ChannelScaling(self._count, self._layouts, list(self._ends.values()), list(self._readers))

    def _visit(self, value: ir.Value | None, layout: Layout | None) -> None:
        """A value is divided; what makes and reads it follows."""
        if value is None or layout is None:
            raise _Refusal("its channels cannot be followed")
        if not layout.used:
            return
        known = self._layouts.get(value)
        if known is not None:
            if not known.same(layout):
                raise _Refusal(f"channels of {value.name!r} would have two factors")
            return
        if value.is_graph_output():
            raise _Refusal(f"{value.name!r} is an output of the model")
        if value.producer() is None or value.graph is not self._main:
            raise _Refusal(f"{value.name!r} is not made by an operator of the main graph")
        if value.dtype != ir.DataType.FLOAT or not layout.fits(value):
            raise _Refusal(f"type and shape of {value.name!r} are not known, or not as needed")
        if len(self._layouts) >= _LONGEST:
            raise _Refusal(f"more than {_LONGEST} values would be divided")
        self._layouts[value] = layout
        self._pending.append(value)

    def _surroundings(self, value: ir.Value) -> None:
        layout, node = self._layouts[value], value.producer()
        assert node is not None
        if node not in self._linked and not (node.domain in DOMAINS and self._made(node, value, layout)):
            raise _Refusal(f"{node.op_type} {node.name!r} cannot take the factors up")
        for use in value.uses():
            node, index = use.node, use.idx
            if node.graph is not self._main:
                raise _Refusal(f"a body reads {value.name!r}")
            if node.op_type in ("Shape", "Size") and node.domain in DOMAINS:
                continue
            linked = self._linked.get(node)
            if linked is not None and index in linked:
                continue
            if linked is not None or node.domain not in DOMAINS or not self._read(node, index, layout):
                raise _Refusal(
                    f"{value.name!r} is also read by {node.op_type} {node.name!r}, which does not scale with it"
                )

    # ---------------------------------------------------------------------------------------------- constants

    def _end(self, node: ir.Node, index: int, channels: Array, *, divide: bool) -> bool:
        value = node.inputs[index]
        tensor = constant_tensor(value)
        if value is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
            raise _Refusal(f"{node.op_type} {node.name!r} has no constant FLOAT weight")
        shape = tensor.shape.numpy()
        try:
            wide = np.broadcast_shapes(shape, channels.shape)
        except ValueError:
            raise _Refusal(f"a constant of {node.op_type} {node.name!r} does not fit") from None
        if wide != shape and (tensor.size != 1 or len(wide) > max(len(shape), channels.ndim)):
            raise _Refusal(f"a constant of {node.op_type} {node.name!r} would grow")
        self._ends[node, index, divide] = End(node, index, channels, divide)
        return True

    def _check_shared(self) -> None:
        """Whether all users of every large constant want the same of it."""
        by_input: dict[tuple[ir.Node, int], list[End]] = {}
        for end in self._ends.values():
            by_input.setdefault((end.node, end.index), []).append(end)
        checked = set()
        for ends in by_input.values():
            value = ends[0].value
            if value in checked:
                continue
            checked.add(value)
            array = constant(value)
            assert array is not None
            if not np.isfinite(array).all():
                raise _Refusal(f"{value.name!r} contains NaN or infinity")
            if array.size <= _SMALL and array.ndim < 2:
                continue
            for use in value.uses():
                if not all_same(by_input.get((use.node, use.idx), []), ends):
                    raise _Refusal(f"{value.name!r} is also used by {use.node.op_type} {use.node.name!r}")

    def _constant_covers(self, value: ir.Value | None, layout: Layout, rank: int) -> bool:
        """Whether a constant operand differs along the axes of the channels already."""
        tensor = constant_tensor(value)
        if tensor is None:
            return False
        shape = (1,) * (rank - len(tensor.shape)) + tuple(tensor.shape.numpy())
        return all(shape[axis] == size for axis, size in zip(layout.axes, layout.channels.shape, strict=True))

    # ---------------------------------------------------------------------------------------------- where values are made

    def _made(self, node: ir.Node, value: ir.Value, layout: Layout) -> bool:
        """Divides what makes a value; False if that is not known to be possible."""
        rank = _rank(value)
        op, last = node.op_type, layout.axes == (rank - 1,)
        if op in ("MatMul", "Attention"):
            index = 2 if op == "Attention" else 1
            if op == "MatMul" and constant_tensor(node.inputs[1]) is not None:
                weight = constant_tensor(node.inputs[1])
                return (
                    last
                    and weight is not None
                    and len(weight.shape) == 2
                    and self._end(node, 1, layout.channels, divide=True)
                )
            return value is node.outputs[0] and self._attention(node, index, layout)
        if op == "Gemm":
            flipped = node.attributes.get_int("transB", 0)
            if not last or not self._end(
                node, 1, layout.channels[:, None] if flipped else layout.channels, divide=True
            ):
                return False
            return not _given(node, 2) or self._end(node, 2, layout.channels, divide=True)
        if op in ("Conv", "ConvTranspose"):
            weight = constant_tensor(node.inputs[1])
            if layout.axes != (1,) or weight is None:
                return False
            if op == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
                return False
            where = Layout((0 if op == "Conv" else 1,), layout.channels)
            self._end(node, 1, where.over(len(weight.shape)), divide=True)
            return not _given(node, 2) or self._end(node, 2, layout.channels, divide=True)
        if op in _NORMALIZATIONS and value is node.outputs[0]:
            axis = node.attributes.get_int("axis", -1) % rank
            if any(a < axis for a in layout.axes):
                return False
            parameters = layout.moved(-axis)
            assert parameters is not None
            channels = parameters.over(rank - axis)
            self._end(node, 1, channels, divide=True)
            return not _given(node, 2) or self._end(node, 2, channels, divide=True)
        if op in _BY_CHANNEL and value is node.outputs[0]:
            return layout.axes == (1,) and all(self._end(node, i, layout.channels, divide=True) for i in (1, 2))
        if op in ("Mul", "Div"):
            return self._product_made(node, layout, rank)
        return self._link(node, node.outputs.index(value), None, layout)

    def _product_made(self, node: ir.Node, layout: Layout, rank: int) -> bool:
        """Divides one factor of a product, or the dividend of a quotient."""
        candidates = [0] if node.op_type == "Div" else [0, 1]
        for index in candidates:
            if self._constant_covers(node.inputs[index], layout, rank):
                return self._operand(node, index, layout, rank, divide=True)
        free = [i for i in candidates if constant_tensor(node.inputs[i]) is None]
        makers = [i for i in free if (p := _producer(node.inputs[i])) is not None and p.op_type in _MAKERS]
        if not free:
            return False
        index = (makers or free)[0]
        self._linked[node] = {index}
        return self._operand(node, index, layout, rank, divide=True)

    def _operand(self, node: ir.Node, index: int, layout: Layout, rank: int, *, divide: bool) -> bool:
        """Divides (or multiplies) an operand of an elementwise operator, as a constant or as a value."""
        operand = node.inputs[index]
        tensor = constant_tensor(operand)
        if tensor is not None:
            moved = layout.moved(len(tensor.shape) - rank) if tensor.size != 1 else layout
            if moved is None:
                return False
            return self._end(node, index, moved.over(len(tensor.shape) if tensor.size != 1 else rank), divide=divide)
        self._visit(operand, layout.moved(_rank(operand) - rank))
        return True

    def _attention(self, node: ir.Node, index: int, layout: Layout) -> bool:
        """Divides the values of an attention: what is summed over positions scales with each summand."""
        values = node.inputs[index]
        rank = _rank(node.outputs[0])
        if rank < 3 or rank - 2 in layout.axes or _rank(values) != rank:
            return False
        self._linked[node] = {index}
        self._visit(values, layout)
        self._visit(node.outputs[0], layout)
        return True

    # ---------------------------------------------------------------------------------------------- where values are read

    def _read(self, node: ir.Node, index: int, layout: Layout) -> bool:
        """Makes up for a divided input; False if that is not known to be possible."""
        op = node.op_type
        if op in ("MatMul", "Gemm", "Conv") and index == 0:
            end = reader_end(node, layout)
            if end is None:
                return False
            self._readers[node] = None
            return self._end(node, 1, end.channels, divide=False)
        if (op, index) in (("MatMul", 1), ("Attention", 2)):
            return self._attention(node, index, layout)
        if op in ("Mul", "Div"):
            return self._product_read(node, index, layout)
        return self._link(node, None, index, layout)

    def _product_read(self, node: ir.Node, index: int, layout: Layout) -> bool:
        if node.op_type == "Div" and index != 0:
            return False
        value, other = node.inputs[index], node.inputs[1 - index]
        rank = _rank(node.outputs[0])
        above = layout.moved(rank - _rank(value))
        if above is None:
            return False
        if node.op_type == "Mul" and self._constant_covers(other, above, rank):
            return self._operand(node, 1 - index, above, rank, divide=False)
        self._linked[node] = {index}
        self._visit(node.outputs[0], above)
        return True

    # ---------------------------------------------------------------------------------------------- what scales with its input

    def _link(self, node: ir.Node, output: int | None, index: int | None, layout: Layout) -> bool:
        """Carries factors across an operator that scales with its input; from an output, or from an input."""
        op = node.op_type
        if op in _SUMS:
            return self._sum(node, index, layout)
        if op in ("Split", "Concat"):
            return self._stretches(node, output, index, layout)
        if index not in (None, 0) or output not in (None, 0) or any(v.uses() for v in node.outputs[1:]):
            return False
        source, result = node.inputs[0], node.outputs[0]
        if source is None or source.shape is None or result.shape is None:
            return False
        self._linked[node] = {0}
        forward, backward = MOVES.get(op, (None, None))
        if forward is None or backward is None:
            return False
        moved = forward(node, layout) if output is None else backward(node, layout)
        if moved is None:
            return False
        self._visit(result if output is None else source, moved)
        return True

    def _sum(self, node: ir.Node, index: int | None, layout: Layout) -> bool:
        result = node.outputs[0]
        rank = _rank(result)
        above = layout if index is None else layout.moved(rank - _rank(node.inputs[index]))
        if above is None:
            return False
        self._linked[node] = set(range(len(node.inputs)))
        self._visit(result, above)
        return all(self._operand(node, i, above, rank, divide=True) for i in range(len(node.inputs)))

    def _stretches(self, node: ir.Node, output: int | None, index: int | None, layout: Layout) -> bool:
        """Split and Concat: one whole and its stretches along an axis."""
        whole, parts = (
            (node.inputs[0], list(node.outputs)) if node.op_type == "Split" else (node.outputs[0], list(node.inputs))
        )
        if (index or 0) and node.op_type == "Split":
            return False
        if whole is None or whole.shape is None or any(part is None or part.shape is None for part in parts):
            return False
        axis = node.attributes.get_int("axis", 0) % len(whole.shape)
        here = output if node.op_type == "Split" else index
        sizes = [size for part in parts if part is not None and isinstance(size := part.shape[axis], int)]  # type: ignore[index]
        total = whole.shape[axis]
        self._linked[node] = set(range(len(node.inputs)))
        if axis not in layout.axes:
            for value in (whole, *parts):
                self._visit(value, layout)
            return True
        if not isinstance(total, int) or len(sizes) < len(parts):
            return False
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        if here is not None:
            layout = layout.inside(axis, starts[here], total)
        self._visit(whole, layout)
        for part, start, size in zip(parts, starts, sizes, strict=False):
            stretch = layout.part(axis, start, size)
            if stretch.used:
                self._visit(part, stretch)
            elif part is not None:
                self._untouched.add(part)
        return True


def _rank(value: ir.Value | None) -> int:
    if value is None or value.shape is None:
        raise _Refusal("the rank of a value on the way is not known")
    return len(value.shape)


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _given(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None
