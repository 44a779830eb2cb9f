"""One cut: which values get smaller and by how much, and the edits that rewrites of single operators need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Propagation
from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.channel_surgery.layout import surviving_lines, surviving_size
from irc.errors import ModelError
from irc.ir import add_initializer, unique_name
from irc.ir.exporter_metadata import module_metadata

Array = np.ndarray[Any, Any]


class Cut:
    """What one set of survivors does to a model.

    Attributes:
        model: The model being cut.
        propagation: Labels of the model that was analysed.
        alive: Whether each label survives.
        nodes: Nodes being cut and the analysed nodes they stand for, in order.
    """

    def __init__(self, model: ir.Model, propagation: Propagation, alive: Array) -> None:
        here, there = list(model.graph), list(propagation.model.graph)
        if [node.op_type for node in here] != [node.op_type for node in there] or not _same_weights(model, propagation):
            raise ModelError("the model to cut is not the one that was analysed; analyse it anew after editing it")
        alive = np.asarray(alive)
        if alive.shape != (propagation.constraints.count,) or alive.dtype != bool:
            raise ModelError(
                f"survivors are {alive.dtype} {list(alive.shape)}; {propagation.constraints.count} booleans are needed, as "
                "ChannelGroups.survivors of this analysis gives them"
            )
        self.model, self.propagation, self.alive = model, propagation, alive
        self.nodes: list[tuple[ir.Node, ir.Node]] = list(zip(here, there, strict=True))
        self._original = {node: original for node, original in self.nodes}
        self._by_name: dict[str, ir.Value] = {}
        for original in propagation.model.graph:
            for value in (*original.inputs, *original.outputs):
                if value is not None and value.name:
                    self._by_name[value.name] = value

    # -- what changes -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Whether what survives is whole, a box everywhere, nowhere empty, and holds all that is pinned.

        Raises:
            ModelError: If not.
        """
        constraints = self.propagation.constraints
        for labels, reason in constraints.pins:
            if not self.alive[labels].all():
                raise ModelError(f"a channel is left out that cannot be cut: {reason.text}")
        for left, right, _kinds in constraints.equalities:
            if (self.alive[left] != self.alive[right]).any():
                raise ModelError("survivors hold a part of a channel only; take them from ChannelGroups.survivors")
        for value, tensor in self.propagation.values():
            self._check(tensor.bundles, value.name or "")
        for slot in self.propagation.slots:
            self._check(slot.bundles, slot.name)
        for box in constraints.boxes.values():
            self._check([box], "an intermediate value")

    def _check(self, bundles: Iterable[Bundle], name: str) -> None:
        for bundle in bundles:
            if not self.alive[bundle.labels].all():
                for axis in bundle.axes:
                    surviving_size(self.propagation.constraints, bundle, self.alive, axis, name)

    def touches(self, original: ir.Node) -> bool:
        """Whether an operand or a result of an analysed node changes."""
        for index, value in enumerate(original.inputs):
            if value is not None and self._lost(self._read(original, index)):
                return True
        return any(self.changed(value) for value in original.outputs)

    def changed(self, value: ir.Value | None) -> bool:
        """Whether a value of either model gets smaller."""
        return value is not None and bool(self._lost(self._of(value)))

    def _read(self, original: ir.Node, index: int) -> Labelled:
        return self.propagation.recorded(original, index)

    def _lost(self, tensor: Labelled) -> list[Bundle]:
        return [bundle for bundle in tensor.bundles if not self.alive[bundle.labels].all()]

    def _of(self, value: ir.Value) -> Labelled:
        original = self._by_name.get(value.name or "", value)
        return self.propagation.known(original)

    def original(self, node: ir.Node) -> ir.Node:
        """The analysed node that a node stands for."""
        return self._original[node]

    def read(self, node: ir.Node, index: int) -> Labelled:
        """Sizes and bundles, before the cut, of what a node reads."""
        return self._read(self._original[node], index)

    def made(self, node: ir.Node, index: int = 0) -> Labelled:
        """Sizes and bundles, before the cut, of what a node makes."""
        return self.propagation.known(self._original[node].outputs[index])

    def sizes(self, tensor: Labelled) -> list[int]:
        """Sizes after the cut."""
        return [self.size(tensor, axis) for axis in range(tensor.rank)]

    def size(self, tensor: Labelled, axis: int) -> int:
        """Size of one axis after the cut."""
        bundle = tensor.on(axis)
        if bundle is None:
            return tensor.dims[axis]
        return surviving_size(self.propagation.constraints, bundle, self.alive, axis, "a value")

    def kept(self, tensor: Labelled, axis: int) -> Array:
        """Which coordinates of an axis survive.

        Raises:
            ModelError: If that differs between the rows of a joint bundle: a rule forgot to demand otherwise.
        """
        bundle = tensor.on(axis)
        if bundle is None:
            return np.ones(tensor.dims[axis], dtype=bool)
        lines = surviving_lines(self.propagation.constraints, bundle, self.alive, axis)
        if (lines != lines[:1]).any():
            raise ModelError("survivors along an axis differ between rows; this is a defect of irc")
        first: Array = lines[0]
        return first

    def surviving_rows(self, tensor: Labelled, axis: int, rows: int) -> int:
        """Of how many rows, into which the coordinates of an axis fall, anything survives."""
        bundle = tensor.on(axis)
        if bundle is None:
            return rows
        lines = surviving_lines(self.propagation.constraints, bundle, self.alive, axis)
        return int(lines.any(axis=0).reshape(rows, -1).any(axis=1).sum())

    def count_before(self, tensor: Labelled, axis: int, end: int) -> int:
        """How many of the first `end` coordinates of an axis survive, in every row.

        Raises:
            ModelError: If that differs between the rows of a joint bundle: a rule forgot to demand otherwise.
        """
        bundle = tensor.on(axis)
        if bundle is None:
            return end
        lines = surviving_lines(self.propagation.constraints, bundle, self.alive, axis)
        counts = np.unique(lines[:, :end].sum(axis=1))
        if len(counts) > 1:
            raise ModelError("survivors before a bound differ between rows; this is a defect of irc")
        return int(counts[0])

    # -- edits --------------------------------------------------------------------------------------------------------

    def set_constant(self, node: ir.Node, index: int, array: Array) -> None:
        """Gives a node another constant as one of its inputs, appending omitted inputs before it."""
        old = node.inputs[index] if index < len(node.inputs) else None
        hint = old.name if old is not None and old.name else f"{node.outputs[0].name}_{index}"
        value = add_initializer(self.model.graph, hint, np.asarray(array))
        self.set_input(node, index, value)

    def set_input(self, node: ir.Node, index: int, value: ir.Value) -> None:
        """Gives a node another value as one of its inputs, appending omitted inputs before it."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)

    def insert_before(
        self, node: ir.Node, op_type: str, inputs: list[ir.Value | None], attributes: dict[str, Any] | None = None
    ) -> ir.Value:
        """A new node in front of another; returns its output."""
        name = unique_name(self.model.graph, f"{node.outputs[0].name}_{op_type.lower()}")
        given = [ir.convenience.convert_attribute(key, value) for key, value in (attributes or {}).items()]
        made = ir.Node("", op_type, inputs, given, num_outputs=1, name=name, metadata_props=module_metadata(node))
        made.outputs[0].name = name
        self.model.graph.insert_before(node, made)
        return made.outputs[0]

    def scale_elements(self, node: ir.Node, index: int, new: list[int], old: list[int]) -> None:
        """Multiplies the elements of an integer input by `new / old`, which is exact where an axis loses part of its labels.

        A constant is replaced; a computed one is scaled where it is used, so that it holds for all sizes.
        """
        value = node.inputs[index]
        assert value is not None
        if new == old:
            return
        dtype = (value.dtype or ir.DataType.INT64).numpy()
        known = value.const_value.numpy() if value.is_initializer() and value.const_value is not None else None
        if known is not None:
            flat = known.ravel().astype(np.int64) * np.asarray(new) // np.asarray(old)
            self.set_constant(node, index, flat.reshape(known.shape).astype(dtype))
            return
        graph = self.model.graph
        hint = node.outputs[0].name or "shape"
        numerator = add_initializer(graph, f"{hint}_new_sizes", np.asarray(new, dtype=dtype))
        denominator = add_initializer(graph, f"{hint}_old_sizes", np.asarray(old, dtype=dtype))
        product = self.insert_before(node, "Mul", [value, numerator])
        self.set_input(node, index, self.insert_before(node, "Div", [product, denominator]))

    def add_elements(self, node: ir.Node, index: int, addend: Array) -> None:
        """Adds to the elements of an integer input."""
        value = node.inputs[index]
        assert value is not None
        if value.is_initializer() and value.const_value is not None:
            known = value.const_value.numpy()
            self.set_constant(node, index, (known.ravel() + addend).reshape(known.shape).astype(known.dtype))
            return
        other = add_initializer(self.model.graph, f"{node.outputs[0].name}_sizes", addend)
        self.set_input(node, index, self.insert_before(node, "Add", [value, other]))

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def declared(self, value: ir.Value) -> ir.Shape | None:
        """The shape to declare of an output that gets smaller, None for any other."""
        tensor = self._of(value)
        if value.shape is None or not self._lost(tensor):
            return None
        new = self.sizes(tensor)
        return ir.Shape([n if n != o else d for d, n, o in zip(value.shape, new, tensor.dims, strict=True)])

    def compare(self) -> None:
        """Whether the cut model has the shapes that the labels predict.

        Raises:
            ModelError: If it has others.
        """
        shapes = ConcreteShapes(self.model, self.propagation.shapes.sizes)
        for node, original in self.nodes:
            if node.graph is None:
                continue
            for value, before in zip(node.outputs, original.outputs, strict=False):
                if before.name and self.propagation.dims(before) is not None:
                    expected, found = tuple(self.sizes(self.propagation.known(before))), shapes.static(value)
                    if found is not None and found != expected:
                        raise ModelError(
                            f"{value.name!r} has shape {list(found)} after the cut, and {list(expected)} was meant; "
                            "this is a defect of irc"
                        )


def _same_weights(model: ir.Model, propagation: Propagation) -> bool:
    """Whether the labelled initializers are there, in the sizes in which they were labelled."""
    for slot in propagation.slots:
        value = model.graph.initializers.get(slot.name)
        if value is None or value.const_value is None or value.const_value.size != int(np.prod(slot.view)):
            return False
    return True
