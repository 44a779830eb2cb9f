"""The window that a convolution or pool slides over its input: kernel, strides, dilations and explicit padding."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir


@dataclasses.dataclass(frozen=True)
class Window:
    """How a Conv, AveragePool or MaxPool reads its input, one entry per spatial axis.

    Attributes:
        kernel: Elements of the window; None if unknown.
        strides: Steps between windows.
        dilations: Steps between the elements of a window.
        begin: Padding before the first element.
        end: Padding after the last one.
    """

    kernel: tuple[int, ...] | None
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def is_padded(self) -> bool:
        """Whether any window reads beyond the input."""
        return any((*self.begin, *self.end))


def window_of(node: ir.Node) -> Window | str:
    """The window of a Conv, AveragePool or MaxPool, `auto_pad` made explicit; why it is unknown if it is."""
    kernel = _kernel(node)
    explicit = node.attributes.get_ints("pads", [])
    if kernel is not None:
        axes = len(kernel)
    elif explicit:
        axes = len(explicit) // 2
    elif node.inputs[0] is not None and node.inputs[0].shape is not None:
        axes = len(node.inputs[0].shape) - 2
    else:
        return "the number of its axes is not known"
    strides = tuple(node.attributes.get_ints("strides", [1] * axes))
    dilations = tuple(node.attributes.get_ints("dilations", [1] * axes))
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        if any(d != 1 for d in dilations):
            return "runtimes disagree on automatic padding (auto_pad) of windows with gaps"
        totals = _same_totals(node, kernel, strides)
        if totals is None:
            return "its own padding (auto_pad) depends on a shape that is not known"
        less, more = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        begin, end = (less, more) if mode == "SAME_UPPER" else (more, less)
        return Window(kernel, strides, dilations, begin, end)
    pads = tuple(explicit) or (0,) * (2 * axes)  # with auto_pad, pads are forbidden
    return Window(kernel, strides, dilations, pads[:axes], pads[axes:])


def _kernel(node: ir.Node) -> tuple[int, ...] | None:
    given = node.attributes.get_ints("kernel_shape", [])
    if given:
        return tuple(given)
    weight = node.inputs[1] if node.op_type == "Conv" else None
    if weight is None or weight.shape is None or not all(isinstance(d, int) for d in weight.shape[2:]):
        return None
    return tuple(int(d) for d in weight.shape[2:])  # type: ignore[arg-type]


def _same_totals(node: ir.Node, kernel: tuple[int, ...] | None, strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """Padding per axis that makes the output ceil(input / stride) long; None if a shape it depends on is unknown."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if kernel is None:
        return None
    totals = []
    for axis, (size, stride) in enumerate(zip(kernel, strides, strict=True)):
        length = shape[axis + 2] if shape is not None and len(shape) == len(kernel) + 2 else None
        if stride == 1:  # the same for every length
            totals.append(size - 1)
        elif isinstance(length, int):
            totals.append(max(0, (-(-length // stride) - 1) * stride + size - length))
        else:
            return None
    return tuple(totals)
