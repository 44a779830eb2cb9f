"""The border between float32 and a narrow type while operators change sides one by one: as few Casts as can be.

Every float32 value has at most one narrow twin. A value that became narrow is read through a Cast by whoever is still
float32, which goes with its last reader; a constant is stored in the type it is read in.
"""

from __future__ import annotations

import onnx_ir as ir

from irc.ir import add_initializer, constant_tensor, unique_name
from irc.passes.precision.number_format import NumberFormat
from irc.passes.quantization.workspace import drop_if_unused, home_of, insert_behind


class Border:
    """What is known of both sides of one model.

    Args:
        model: Its Casts from the narrow type to float32 count as the border from the beginning.
        number: The narrow format.
    """

    def __init__(self, model: ir.Model, number: NumberFormat) -> None:
        self._number = number
        self._narrow: dict[tuple[ir.Value, bool], ir.Value] = {}
        self._source: dict[ir.Value, ir.Value] = {}
        for node in model.graph.all_nodes():
            if self.is_widening(node) and node.inputs[0] is not None:
                self._source[node.outputs[0]] = node.inputs[0]

    def is_widening(self, node: ir.Node) -> bool:
        """Whether a node is a Cast from the narrow type to float32."""
        return (
            node.op_type == "Cast"
            and node.domain == ""
            and node.inputs[0] is not None
            and node.inputs[0].dtype == self._number.dtype
            and node.outputs[0].dtype == ir.DataType.FLOAT
        )

    def source(self, value: ir.Value | None) -> ir.Value | None:
        """The narrow value that a float32 value is a Cast of, or None."""
        return self._source.get(value) if value is not None else None

    def has_narrow_readers(self, value: ir.Value) -> bool:
        """Whether somebody reads the narrow twin of a float32 value that is not constant."""
        twin = self._narrow.get((value, False))
        return twin is not None and (bool(twin.uses()) or twin.is_graph_output())

    def narrowed(self, value: ir.Value, *, masking: bool = False) -> ir.Value:
        """The narrow twin of a float32 value, made where the value is.

        Args:
            value: A float32 value.
            masking: Whether a constant is meant to mask scores.
        """
        if (source := self._source.get(value)) is not None:
            return source
        tensor = constant_tensor(value)
        key = (value, masking and tensor is not None)
        if key not in self._narrow:
            if tensor is not None:
                stored = self._number.converted(tensor, masking=masking)
                self._narrow[key] = add_initializer(home_of(value), f"{value.name}_{self._number.name}", stored)
            else:
                self._narrow[key] = self._cast(value, self._number.dtype)
        return self._narrow[key]

    def release(self, value: ir.Value) -> None:
        """Removes a constant or a Cast to float32 that lost its last reader."""
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            return
        if value in self._source:
            self._remove_cast(value)
            del self._source[value]
        elif constant_tensor(value) is not None:
            drop_if_unused(value)

    def become_narrow(self, value: ir.Value) -> None:
        """Makes a float32 value narrow: who reads its narrow twin reads it, the others read it through a Cast."""
        graph = home_of(value)
        twin = self._narrow.pop((value, False), None)
        wanting = [(use.node, use.idx) for use in twin.uses()] if twin is not None else []
        readers = [(use.node, use.idx) for use in value.uses() if twin is None or use.node is not twin.producer()]
        public = [index for index, output in enumerate(graph.outputs) if output is value]
        value.type = ir.TensorType(self._number.dtype)
        if readers or public:
            wide = self._cast(value, ir.DataType.FLOAT)
            self._source[wide] = value
            for node, index in readers:
                node.replace_input_with(index, wide)
            for index in public:
                graph.outputs[index] = wide
            if public:
                wide.name, value.name = value.name, unique_name(graph, f"{value.name}_{self._number.name}")
        if twin is not None:
            for node, index in wanting:
                node.replace_input_with(index, value)
            for index, output in enumerate(graph.outputs):
                if output is twin:
                    graph.outputs[index] = value
            self._remove_cast(twin)

    @staticmethod
    def _remove_cast(value: ir.Value) -> None:
        producer = value.producer()
        if producer is not None and producer.graph is not None:
            producer.graph.remove(producer, safe=True)

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", to.value)], num_outputs=1)
        made = node.outputs[0]
        suffix = "float32" if to == ir.DataType.FLOAT else self._number.name
        made.name = unique_name(home_of(value), f"{value.name}_{suffix}")
        made.type = ir.TensorType(to)
        made.shape = value.shape.copy() if value.shape is not None else None
        insert_behind(value, node)
        return made
