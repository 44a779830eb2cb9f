"""Operators that are told sizes, and operators that tell them.

What tells sizes keeps telling those of the model before the cut, so that arithmetic on them (a scale of 1/sqrt(d), a product of
dimensions) stays as it was; what is told sizes gets the ones it names scaled where it reads them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irc.channel_surgery.cutting import Cut
from irc.channel_surgery.rewrites.registration import rewrite
from irc.ir import add_initializer, unique_name


@rewrite("Shape")
def shape(node: ir.Node, cut: Cut) -> None:
    """Shape(x) => Shape(x) * old / new, so that its readers see the old sizes."""
    tensor = cut.read(node, 0)
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", tensor.rank)
    old, new = list(tensor.dims)[start:end], cut.sizes(tensor)[start:end]
    _restore(node, cut, np.array(old, np.int64), np.array(new, np.int64))


@rewrite("Size")
def size(node: ir.Node, cut: Cut) -> None:
    """Size(x) => Size(x) * old / new."""
    tensor = cut.read(node, 0)
    _restore(node, cut, np.array(tensor.dims, np.int64).prod(), np.array(cut.sizes(tensor), np.int64).prod())


def _restore(node: ir.Node, cut: Cut, old: np.ndarray, new: np.ndarray) -> None:
    if (old == new).all():
        return
    output = node.outputs[0]
    keep = old == new
    graph = cut.model.graph
    numerator = add_initializer(graph, f"{output.name}_old", np.where(keep, 1, old))
    denominator = add_initializer(graph, f"{output.name}_new", np.where(keep, 1, new))
    product = ir.Node("", "Mul", [output, numerator], num_outputs=1)
    quotient = ir.Node("", "Div", [product.outputs[0], denominator], num_outputs=1)
    for made, suffix in ((product, "scaled"), (quotient, "restored")):
        made.outputs[0].name = unique_name(graph, f"{output.name}_{suffix}")
        made.name = made.outputs[0].name
        made.outputs[0].dtype = ir.DataType.INT64
    if output.is_graph_output():  # the name belongs to what tells the old sizes
        name, output.name = output.name, unique_name(graph, f"{output.name}_told")
        quotient.outputs[0].name = name
        quotient.outputs[0].shape = output.shape
    output.replace_all_uses_with(quotient.outputs[0], replace_graph_outputs=True)
    product.replace_input_with(0, output)
    graph.insert_after(node, [product, quotient])


@rewrite("Reshape")
def reshape(node: ir.Node, cut: Cut) -> None:
    """Elements of the shape that name a cut axis get smaller; -1 and a 0 that copies the same axis stay."""
    given, made = cut.read(node, 0), cut.made(node)
    old, new = list(made.dims), cut.sizes(made)
    known = cut.propagation.shapes.known(cut.original(node).inputs[1])
    assert known is not None
    before = cut.sizes(given)
    explicit = np.zeros(len(old), dtype=np.int64)
    for axis, entry in enumerate(known.ravel().tolist()):
        copies = entry == 0 and not node.attributes.get_int("allowzero", 0)
        if entry == -1 or (copies and axis < given.rank and before[axis] == new[axis]):
            old[axis] = new[axis] = 1
        elif copies and old[axis] != new[axis]:
            explicit[axis] = old[axis]
    if explicit.any():
        cut.add_elements(node, 1, explicit)
    cut.scale_elements(node, 1, *_reduced(new, old))


@rewrite("Expand", "ConstantOfShape")
def expand(node: ir.Node, cut: Cut) -> None:
    """Elements of the shape that name a cut axis get smaller."""
    index = 1 if node.op_type == "Expand" else 0
    made = cut.made(node)
    known = cut.propagation.shapes.known(cut.original(node).inputs[index])
    assert known is not None
    old, new = [], []
    for axis, entry in zip(range(made.rank - known.size, made.rank), known.ravel().tolist(), strict=True):
        changes = entry != 1 and axis >= 0
        old.append(made.dims[axis] if changes else 1)
        new.append(cut.size(made, axis) if changes else 1)
    cut.scale_elements(node, index, *_reduced(new, old))


def _reduced(new: list[int], old: list[int]) -> tuple[list[int], list[int]]:
    """Ratios in lowest terms, 1 / 1 where nothing changes."""
    divisors = [int(np.gcd(a, b)) for a, b in zip(new, old, strict=True)]
    return (
        [a // d for a, d in zip(new, divisors, strict=True)],
        [b // d for b, d in zip(old, divisors, strict=True)],
    )
