"""Fusing a normalization over the last axes with its scale and bias, whatever is normalized.

    [Cast] -> normalized -> [Cast] -> [Mul scale] -> [Add bias]   =>   one operator

A Cast that widens half precision before and one that narrows it behind go too: the operators normalize in float32 by
themselves. Without a scale, ConstantOfShape makes one of ones, if that is smaller than what goes.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant_tensor, unique_name
from irc.passes.fusion.composite import Composite, Fusion, Input, either_way, opset_of, producer_of
from irc.passes.fusion.scalars import rank_of
from irc.passes.simplification.node_size import stored_bytes

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_TYPES = (*_HALVES, ir.DataType.FLOAT, ir.DataType.DOUBLE)
_DEFAULT_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True, eq=False)
class Normalized:
    """What is normalized before scale and bias.

    Attributes:
        data: What is normalized.
        epsilon: What is added to the variance or power.
        axes: How many of the last axes.
        nodes: The nodes it is made by, the last one first.
    """

    data: ir.Value
    epsilon: float
    axes: int
    nodes: tuple[ir.Node, ...]


class NormalizationFusion(Fusion):
    """A fusion of a normalization over the last axes.

    Attributes:
        op_type: The operator.
        since: The first opset that has it.
        has_bias: Whether it adds a bias.
    """

    op_type: ClassVar[str]
    since: ClassVar[int]
    has_bias: ClassVar[bool]

    @abc.abstractmethod
    def normalized(self, value: ir.Value, opset: int) -> Normalized | None:
        """How a value is something normalized, or None."""

    def composite(self, last: ir.Node, model: ir.Model) -> Composite | str | None:
        """The normalization that ends in a sum, a product, or without either in a quotient or Cast."""
        if last.op_type not in ("Add", "Mul", "Div", "Cast"):
            return None
        opset = opset_of(model)
        found = self._ending_in(last, opset) or self._bare(last, opset)
        return None if found is None or self._goes_on(last, opset) else found

    def _goes_on(self, last: ir.Node, opset: int) -> bool:
        """Whether what follows belongs to the same normalization, and will be its last node."""
        uses = list(last.outputs[0].uses())
        if len(uses) != 1 or last.outputs[0].is_graph_output() or uses[0].node.graph is not last.graph:
            return False
        following = uses[0].node
        if following.domain not in ("", "ai.onnx"):
            return False
        return following.op_type in ("Add", "Mul", "Cast") and isinstance(self._ending_in(following, opset), Composite)

    def _ending_in(self, last: ir.Node, opset: int) -> Composite | str | None:
        match last.op_type:
            case "Add":
                return self._with_bias(last, opset) if self.has_bias else None
            case "Mul":
                return self._with_scale(last, opset)
        return self._bare(last, opset)

    def _with_bias(self, last: ir.Node, opset: int) -> Composite | str | None:
        for scaled, bias in either_way(last):
            product = producer_of(scaled, "Mul")
            found = self._with_scale(product, opset) if product is not None else None
            if product is None or not isinstance(found, Composite):
                continue
            assert isinstance(found.inputs[0], ir.Value)
            axes = -int(found.attributes.get("axis", -1))
            if _fits(bias, found.inputs[0], axes) and (parameter := _parameter(bias, axes)) is not None:
                return dataclasses.replace(
                    found, inputs=(*found.inputs, parameter), interior=(*found.interior, product)
                )
        return None

    def _with_scale(self, last: ir.Node, opset: int) -> Composite | str | None:
        for result, scale in either_way(last):
            for data, found, nodes in self._results(result, opset):
                if _fits(scale, data, found.axes) and (parameter := _parameter(scale, found.axes)) is not None:
                    return self._operator(data, found, parameter, nodes)
        return None

    def _bare(self, last: ir.Node, opset: int) -> Composite | str | None:
        """What is normalized without a scale."""
        for data, found, nodes in self._results(last.outputs[0], opset):
            dims = [] if data.shape is None else list(data.shape)[-found.axes :]
            if not dims or not _are_sizes(dims) or data.dtype not in _TYPES:
                return "its size is 0, or that or its type is not known, and it takes both to write a scale of ones"
            interior = tuple(node for node in nodes if node is not last)
            ones = _Ones(tuple(int(dim) for dim in dims), data.dtype)  # type: ignore[arg-type]
            if ones.bytes(last) > sum(_bytes(node) for node in dict.fromkeys(interior)):
                return "a scale of ones is larger than what it would replace"
            return self._operator(data, found, ones, interior)
        return None

    def _results(self, result: ir.Value, opset: int) -> Iterator[tuple[ir.Value, Normalized, tuple[ir.Node, ...]]]:
        """What is normalized, how, and by which nodes: as it is, or between the two Casts."""
        if (found := self.normalized(result, opset)) is not None:
            yield found.data, found, found.nodes
        narrow = producer_of(result, "Cast")
        if narrow is None or narrow.inputs[0] is None:
            return
        found = self.normalized(narrow.inputs[0], opset)
        data = before_widening(found.data) if found is not None else None
        if found is not None and data is not None and data.dtype == result.dtype:
            yield data, found, (narrow, *found.nodes)

    def _operator(
        self, data: ir.Value, found: Normalized, scale: Input, nodes: tuple[ir.Node, ...]
    ) -> Composite | str | None:
        if data.dtype is None:
            return None
        attributes: dict[str, Any] = {}
        if found.axes != 1:
            attributes["axis"] = -found.axes
        if data.dtype == ir.DataType.DOUBLE:
            if float(np.float32(found.epsilon)) != found.epsilon:
                return f"its epsilon {found.epsilon} is not a float32 number, which attributes are"
            attributes["stash_type"] = ir.DataType.DOUBLE.value
        if data.dtype == ir.DataType.DOUBLE or not math.isclose(found.epsilon, _DEFAULT_EPSILON, rel_tol=1e-6):
            attributes["epsilon"] = found.epsilon
        return Composite(self.op_type, self.since, (data, scale), nodes, data.dtype, attributes)


def before_widening(wide: ir.Value) -> ir.Value | None:
    """What a Cast from half precision to float32 widens, or None."""
    cast = producer_of(wide, "Cast")
    data = cast.inputs[0] if cast is not None else None
    return data if data is not None and data.dtype in _HALVES and wide.dtype == ir.DataType.FLOAT else None


def _fits(parameter: ir.Value, data: ir.Value, axes: int) -> bool:
    """Whether a scale or bias has the type and exactly the last axes of the data, and ones before them."""
    if parameter.shape is None or data.shape is None or parameter.dtype != data.dtype:
        return False
    dims, wanted = list(parameter.shape), list(data.shape)[-axes:]
    return (
        len(dims) <= len(data.shape)
        and dims[-axes:] == wanted
        and _are_sizes(wanted)
        and all(dim == 1 for dim in dims[:-axes])
    )


def _are_sizes(dims: Sequence[Any]) -> bool:
    """Whether sizes are known, and none is 0: the operators fail on nothing, where the average of nothing does not."""
    return all(isinstance(dim, int) and dim > 0 for dim in dims)


def _parameter(parameter: ir.Value, axes: int) -> Input | None:
    """A scale or bias without ones in front; None if that would take a second copy."""
    if rank_of(parameter) == axes:
        return parameter
    if constant_tensor(parameter) is None or len(list(parameter.uses())) > 1 or parameter.is_graph_output():
        return None
    return functools.partial(_reshaped, parameter, axes)


def _reshaped(parameter: ir.Value, axes: int, last: ir.Node) -> ir.Value:
    tensor = constant_tensor(parameter)
    assert tensor is not None and isinstance(last.graph, ir.Graph)
    array = np.asarray(tensor.numpy())
    return add_initializer(
        last.graph, f"{parameter.name}.row", ir.Tensor(array.reshape(array.shape[-axes:]), dtype=tensor.dtype)
    )


@dataclasses.dataclass(frozen=True)
class _Ones:
    """A scale of ones, made when the model is loaded.

    Attributes:
        dims: Its shape.
        dtype: Its type.
    """

    dims: tuple[int, ...]
    dtype: ir.DataType

    def __call__(self, last: ir.Node) -> ir.Value:
        assert isinstance(last.graph, ir.Graph)
        shape = add_initializer(last.graph, f"{last.outputs[0].name}.axes", np.array(self.dims, np.int64))
        node = self._node(shape)
        node.outputs[0].name = unique_name(last.graph, f"{last.outputs[0].name}.ones")
        last.graph.insert_before(last, node)
        return node.outputs[0]

    def bytes(self, last: ir.Node) -> int:
        """How large it makes the model."""
        name = f"{last.outputs[0].name}.ones"
        node = self._node(ir.Value(name=name))
        node.outputs[0].name = name
        return _bytes(node) + stored_bytes(name, len(self.dims), 8)

    def _node(self, shape: ir.Value) -> ir.Node:
        one = ir.AttrTensor("value", ir.Tensor(np.ones(1, self.dtype.numpy()), dtype=self.dtype))
        node = ir.Node("", "ConstantOfShape", [shape], [one], num_outputs=1)
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(self.dtype), ir.Shape(self.dims)
        return node


def _bytes(node: ir.Node) -> int:
    """What a node and what is said of its output take up."""
    size: int = ir.serde.serialize_node(node).ByteSize() + ir.serde.serialize_value(node.outputs[0]).ByteSize()
    return size
