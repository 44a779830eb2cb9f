"""What can be told of one node of a random network: which operands are weights, over which axes it works, what feeds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]
CHANNEL_AXIS = {4: 1, 3: 2, 2: 1}


class Site:
    """A node, asked in short.

    Args:
        node: Of a model whose shapes are inferred.
    """

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        found = self.node.attributes.get(name)
        return found.value if found is not None else default

    def value(self, index: int) -> ir.Value | None:
        """An input, None if it is missing."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def constant(self, index: int) -> Array | None:
        """What is in an input that is an initializer."""
        value = self.value(index)
        return value.const_value.numpy() if value is not None and value.const_value is not None else None

    def computed(self, index: int) -> bool:
        """Whether an input depends on the inputs of the graph, as far as one can see from here."""
        value = self.value(index)
        return value is not None and value.const_value is None

    def producer(self, index: int) -> str:
        """The operator that made an input; "" for graph inputs and weights."""
        value = self.value(index)
        made = value.producer() if value is not None else None
        return made.op_type if made is not None else ""

    def before(self, index: int) -> Site | None:
        """The node that made an input."""
        value = self.value(index)
        made = value.producer() if value is not None else None
        return Site(made) if made is not None else None

    def shape(self, index: int) -> tuple[Any, ...]:
        """Sizes of an input; symbols as text."""
        return sizes(self.value(index))

    @property
    def result(self) -> tuple[Any, ...]:
        """Sizes of the first output."""
        return sizes(self.node.outputs[0])

    @property
    def operands(self) -> int:
        """How many inputs there are that no weight is."""
        return sum(self.computed(index) for index in range(len(self.node.inputs)))

    @property
    def axes(self) -> set[int]:
        """The axes, counted from the front, that a reduction or a Softmax works on."""
        rank = len(self.shape(0))
        given = self.attribute("axes")
        if given is None:
            second = self.constant(1) if self.op.startswith("Reduce") else None
            given = second.tolist() if second is not None else [self.attribute("axis", -1)]
        return {int(axis) % rank for axis in given} if rank else set()

    @property
    def over_channels(self) -> bool:
        """Whether it works on the axis that is the channels' in the layouts of blocks."""
        return self.axes == {CHANNEL_AXIS.get(len(self.shape(0)))}

    @property
    def weight_is_computed(self) -> bool:
        """Whether the weight of a product or a convolution is made by nodes of weights alone."""
        value = self.value(1)
        return value is not None and value.const_value is None and of_weights_alone(value)


def sizes(value: ir.Value | None) -> tuple[Any, ...]:
    """The sizes of a value; () if nothing is known."""
    if value is None or value.shape is None:
        return ()
    return tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)


def of_weights_alone(value: ir.Value, depth: int = 8) -> bool:
    """Whether nothing that a value is computed from is an input of the graph.

    Args:
        value: To look at.
        depth: Nodes to look back at most.
    """
    if value.const_value is not None:
        return True
    made = value.producer()
    if made is None or depth == 0:
        return False
    return all(of_weights_alone(source, depth - 1) for source in made.inputs if source is not None)
