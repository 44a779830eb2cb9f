"""What a model stores: which constants are parameters, which only describe them, and which nodes merely unpack them.

A parameter is an element of a floating-point constant (a scalar is not), or of an integer constant that stands for one:
the input of a DequantizeLinear, the weight or bias of an integer operator, or an index of at most 8 bits into a
codebook. Scales and zero points, shapes, indices and flags are stored bytes but no parameters.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from irc.analysis.type_names import type_name
from irc.ir import constant_tensor

_SCALES = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QLinearConcat": (0, 1),
    "QLinearSigmoid": (1, 2, 3, 4),
    "QLinearLeakyRelu": (1, 2, 3, 4),
    "QLinearSoftmax": (1, 2, 3, 4),
    "QLinearAveragePool": (1, 2, 3, 4),
    "QLinearGlobalAveragePool": (1, 2, 3, 4),
    "MatMulNBits": (2, 3),
    "DynamicQuantizeMatMul": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
}
"""Inputs that are scales or zero points."""
_INTEGER_WEIGHTS = {
    "DequantizeLinear": (0,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (0, 3),
    "ConvInteger": (1,),
    "MatMulInteger": (0, 1),
    "QGemm": (3, 6),
    "MatMulNBits": (1,),
    "DynamicQuantizeMatMul": (1,),
    "MatMulIntegerToFloat": (1,),
}
"""Inputs whose integers stand for real numbers."""
_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One constant of a model.

    Attributes:
        name: Its name.
        dtype: Element type as stored, for example "float32" or "int8".
        shape: Its shape.
        elements: Number of elements.
        size_bytes: Bytes as stored.
        parameters: How many parameters it holds, 0 for scales, shapes and the like.
        users: Operators that read it, with their number where there are several of a kind: ("Gather", "2 MatMul").
        external: Whether it lies in a data file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    size_bytes: int
    parameters: int
    users: tuple[str, ...]
    external: bool


class Weights:
    """The constants of a model and what they are for.

    Args:
        model: Unchanged.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._sources: dict[int, dict[int, ir.Value]] = {}
        for graph in (model.graph, *model.graph.subgraphs()):
            for value in graph.initializers.values():
                if value.const_value is not None:
                    self._sources[id(value)] = {id(value): value}
        for node in model.graph.all_nodes():
            self._unpack(node)

    def _unpack(self, node: ir.Node) -> None:
        if node.op_type == "Constant" and constant_tensor(node.outputs[0]) is not None:
            self._sources[id(node.outputs[0])] = {}
            return
        inputs = [value for value in node.inputs if value is not None]
        bodies = any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
        if not inputs or bodies or node.op_type in _RANDOM or any(id(value) not in self._sources for value in inputs):
            return
        merged: dict[int, ir.Value] = {}
        for value in inputs:
            merged |= self._sources[id(value)]
        for output in node.outputs:
            self._sources[id(output)] = merged

    def is_constant(self, value: ir.Value) -> bool:
        """Whether a value is stored, or computed from stored values alone."""
        return id(value) in self._sources

    def is_unpacking(self, node: ir.Node) -> bool:
        """Whether a node only computes constants from constants, which the runtime does once, on loading."""
        return bool(node.outputs) and all(self.is_constant(output) for output in node.outputs)

    def of(self, node: ir.Node) -> list[ir.Value]:
        """The stored tensors that a node reads, directly or through nodes that unpack them."""
        found: dict[int, ir.Value] = {}
        for value in node.inputs:
            if value is not None:
                found |= self._sources.get(id(value), {})
        return list(found.values())

    def stored(self) -> list[StoredTensor]:
        """Every stored tensor once, in the order of the graph; what is shared between names counts per name."""
        return [
            StoredTensor(
                name=value.name or "",
                dtype=type_name(value.const_value.dtype),
                shape=tuple(int(d) for d in value.const_value.shape),  # type: ignore[arg-type]
                elements=int(value.const_value.size),
                size_bytes=value.const_value.nbytes,
                parameters=parameters(value),
                users=_users(value),
                external=isinstance(value.const_value, ir.ExternalTensor),
            )
            for graph in (self._model.graph, *self._model.graph.subgraphs())
            for value in graph.initializers.values()
            if value.const_value is not None
        ]


def parameters(value: ir.Value) -> int:
    """How many parameters a stored tensor holds; see the module for what counts."""
    tensor = value.const_value
    if tensor is None or tensor.dtype in (ir.DataType.STRING, ir.DataType.BOOL):
        return 0
    uses = [(use.node.op_type, use.idx) for use in value.uses()]
    if uses and all(index in _SCALES.get(op_type, ()) for op_type, index in uses):
        return 0
    if tensor.dtype.is_floating_point():
        return int(tensor.size) if len(tensor.shape) else 0
    if any(index in _INTEGER_WEIGHTS.get(op_type, ()) for op_type, index in uses):
        return int(tensor.size)
    codebook = any(op_type in ("Cast", "Gather", "Unsqueeze", "Reshape", "Transpose") for op_type, _ in uses)
    return int(tensor.size) if tensor.dtype.bitwidth <= 8 and codebook and len(tensor.shape) else 0


def _users(value: ir.Value) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for use in value.uses():
        counts[use.node.op_type] = counts.get(use.node.op_type, 0) + 1
    return tuple(op_type if count == 1 else f"{count} {op_type}" for op_type, count in counts.items())
