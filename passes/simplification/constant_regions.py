"""Which nodes can be replaced by constants, and which of them should be: folding must not make a model larger.

Nodes that depend on constants and known shapes only form regions. What leaves a region is worth storing if it is not
larger than the constants that are then no longer needed: `w / |w|` replaces `w`; a matrix of zeros does not replace its
two dimensions, nor a transposed copy a weight that others use. Where a result is too large, what comes before is tried.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping

import onnx_ir as ir

from irc.ir import bodies, constant_tensor
from irc.passes.simplification.constant_program import MAX_GENERATED_BYTES
from irc.passes.simplification.known_shapes import shape_answer
from irc.passes.simplification.node_size import MAX_COUNTED_ELEMENTS, NODE_WORTH, node_bytes

TENSOR_OVERHEAD = 12
"""Bytes of an initializer in a file besides its name, its dimensions and its elements."""
BYTES_OF_A_DIMENSION = 3
CONSTANT_OVERHEAD = 24
"""Bytes of a Constant node, which gives a graph output its name, besides its tensor."""
TOO_LARGE = "its value is larger than what it is computed from"

_RANDOM = frozenset(
    ("Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
_QUANTIZATION = frozenset(("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"))
_SLOW = frozenset(
    (
        *("AveragePool", "Col2Im", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "GRU", "GridSample", "LSTM"),
        *("LpPool", "MaxPool", "MaxRoiPool", "MaxUnpool", "NonMaxSuppression", "QLinearConv", "RNN", "Resize"),
        *("RoiAlign", "ScatterElements", "ScatterND", "TfIdfVectorizer", "Upsample"),
    )
)
"""Operators that the reference implementation computes element by element in Python."""
_SLOW_ELEMENTS = 1 << 14


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What to fold.

    Attributes:
        folds: Nodes, in graph order, each with the outputs to replace by constants.
        near_misses: Nodes whose value is constant but stays computed, each with the reason.
    """

    folds: list[tuple[ir.Node, list[ir.Value]]]
    near_misses: list[tuple[ir.Node, str]]


def plan_folds(model: ir.Model, *, max_bytes: int, excluded: Collection[ir.Node] = ()) -> Plan:
    """The values that should become constants, and those that come close.

    Args:
        model: Its types and shapes are believed.
        max_bytes: How many bytes one fold may add to the model.
        excluded: Nodes that cannot be evaluated, as has turned out.
    """
    computable: dict[ir.Node, None] = {}
    folds: dict[ir.Node, list[ir.Value]] = {}
    near_misses: dict[ir.Node, str] = {}
    order = [node for node in model.graph.all_nodes() if node not in excluded]
    for node in order:
        if not _is_computable(node, computable):
            continue
        used = [o for o in node.outputs if o.uses() or o.is_graph_output()]
        if any(size_in_bytes(output) is None for output in used):
            if node.op_type != "Identity" and all(v is None or constant_tensor(v) is not None for v in node.inputs):
                folds[node] = used  # how large it is shows when it is evaluated
        elif used and (reason := _cost_reason(node)) is not None:
            near_misses[node] = reason
        elif used:
            computable[node] = None
    for region in _regions(computable, max_bytes):
        chosen, too_large = _choose(region, max_bytes)
        folds.update(chosen)
        near_misses.update(dict.fromkeys(too_large, TOO_LARGE))
    return Plan(
        [(node, folds[node]) for node in order if node in folds],
        [(node, near_misses[node]) for node in order if node in near_misses],
    )


def freed_bytes(node: ir.Node) -> int:
    """Bytes of the node and of the constants that only it uses."""
    return _freed([node], {node: None})


def _is_computable(node: ir.Node, computable: Collection[ir.Node]) -> bool:
    """Whether the node depends on constants, known shapes and computable nodes only, deterministically."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if any(not isinstance(o.type, ir.TensorType) or o.dtype == ir.DataType.STRING for o in node.outputs if o.name):
        return False
    if shape_answer(node) is not None:
        return True
    if node.op_type in _RANDOM or node.op_type in _QUANTIZATION or any(True for _ in bodies(node)):
        return False
    return bool(node.inputs) and all(
        value is None
        or value.producer() in computable
        or ((tensor := constant_tensor(value)) is not None and tensor.dtype != ir.DataType.STRING)
        for value in node.inputs
    )


def size_in_bytes(value: ir.Value) -> int | None:
    """Bytes of a value, None if its shape is not known."""
    elements = _elements(value)
    return None if elements is None or value.dtype is None else math.ceil(elements * value.dtype.itemsize)


def _elements(value: ir.Value) -> int | None:
    """Number of elements of a value, None if its shape is not known."""
    count = 1
    for dimension in value.shape if value.shape is not None else (None,):
        if not isinstance(dimension, int):
            return None
        count *= dimension
    return count


def _cost_reason(node: ir.Node) -> str | None:
    """Why the node must not even be evaluated, or None."""
    made = sum(size_in_bytes(o) or 0 for o in node.outputs)
    if made > MAX_GENERATED_BYTES and made > 2 * sum(size_in_bytes(v) or 0 for v in node.inputs if v is not None):
        return TOO_LARGE
    if node.op_type in _SLOW and any((_elements(output) or 0) > _SLOW_ELEMENTS for output in node.outputs):
        return f"evaluating a {node.op_type} of this size would take long"
    return None


def _regions(computable: Iterable[ir.Node], max_bytes: int) -> list[dict[ir.Node, None]]:
    """The computable nodes grouped by what connects them: values, and constants too large to be neglected."""
    leader: dict[object, object] = {}

    def find(item: object) -> object:
        while (above := leader.setdefault(item, item)) is not item:
            leader[item] = leader[above]
            item = leader[item]
        return item

    nodes = list(computable)
    present = set(nodes)
    for node in nodes:
        for value in _constant_inputs(node):
            producer = value.producer()
            tensor = constant_tensor(value)
            if producer in present:
                leader[find(producer)] = find(node)
            elif tensor is not None and tensor.nbytes > max_bytes:
                leader[find(value)] = find(node)
    regions: dict[object, dict[ir.Node, None]] = {}
    for node in nodes:
        regions.setdefault(find(node), {})[node] = None
    return list(regions.values())


def _constant_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs the node's value is computed from; a node answered by a known shape needs none."""
    return [] if shape_answer(node) is not None else [value for value in node.inputs if value is not None]


def _choose(region: dict[ir.Node, None], max_bytes: int) -> tuple[dict[ir.Node, list[ir.Value]], list[ir.Node]]:
    """What to replace by constants in a region, and the nodes users might have expected to be replaced."""
    near_misses: dict[ir.Node, None] = {}
    too_large: set[ir.Node] = set()
    while True:
        exposed = {node: outputs for node in region if (outputs := _exposed(node, region))}
        refused = [node for node in exposed if node.op_type == "Identity"]  # eliminated elsewhere, without a copy
        if not refused:
            room = max_bytes + _all_bytes(region)
            refused = [node for node in exposed if _stored_bytes(exposed[node]) > room]
            if not refused:
                refused = [node for node in exposed if _grows({node: exposed[node]}, [node], region, max_bytes)]
                if not _grows({node: exposed[node] for node in refused}, exposed, region, max_bytes):
                    return exposed, list(near_misses)
            near_misses.update((node, None) for node in refused if not _feeds(node, too_large))
            too_large.update(refused)
        dropped = set(refused)
        region = {node: None for node in region if node not in dropped}


def _feeds(node: ir.Node, nodes: Collection[ir.Node]) -> bool:
    return any(use.node in nodes for output in node.outputs for use in output.uses())


def _stored_bytes(outputs: Iterable[ir.Value]) -> int:
    """Bytes of outputs as initializers, names and dimensions included."""
    return sum(
        _tensor_bytes(output, size_in_bytes(output) or 0)
        + (CONSTANT_OVERHEAD + NODE_WORTH if output.is_graph_output() else 0)
        for output in outputs
    )


def _tensor_bytes(value: ir.Value, content: int) -> int:
    """Bytes of an initializer in a file: elements, name and dimensions; shapes are written briefly."""
    if value.dtype == ir.DataType.INT64 and content <= 8 * MAX_COUNTED_ELEMENTS:
        content = content // 8 * BYTES_OF_A_DIMENSION
    return content + len(value.name or "") + TENSOR_OVERHEAD + 2 * len(value.shape or ())


def _all_bytes(region: Iterable[ir.Node]) -> int:
    """Bytes of a region with all the constants it uses."""
    nodes = list(region)
    tensors = {value: constant_tensor(value) for node in nodes for value in _constant_inputs(node)}
    constants = sum(_tensor_bytes(value, tensor.nbytes) for value, tensor in tensors.items() if tensor is not None)
    return constants + sum(NODE_WORTH + node_bytes(node) for node in nodes)


def _exposed(node: ir.Node, region: Collection[ir.Node]) -> list[ir.Value]:
    """Outputs that are graph outputs or used outside the region."""
    return [o for o in node.outputs if o.is_graph_output() or any(use.node not in region for use in o.uses())]


def _grows(
    stored: Mapping[ir.Node, list[ir.Value]], folded: Iterable[ir.Node], region: dict[ir.Node, None], max_bytes: int
) -> bool:
    """Whether storing some outputs adds more than `max_bytes` to the model, given all the nodes that are folded."""
    added = sum(_stored_bytes(outputs) for outputs in stored.values())
    return added > max_bytes and added - _freed(folded, region) > max_bytes


def _freed(folded: Iterable[ir.Node], region: dict[ir.Node, None]) -> int:
    """Bytes that go once the exposed outputs of some nodes are constants: nodes, and constants that nothing else uses."""
    dying: dict[ir.Node, None] = {}
    leaves: dict[ir.Value, ir.TensorProtocol] = {}
    replaced = set(folded)
    pending = list(replaced)
    while pending:
        node = pending.pop()
        stored = _exposed(node, region) if node in replaced else []
        if node in dying or not all(o in stored or _is_used_by(dying, o) for o in node.outputs):
            continue  # it may come again, when another of its users dies
        dying[node] = None
        for value in _constant_inputs(node):
            producer, tensor = value.producer(), constant_tensor(value)
            if producer in region:
                pending.append(producer)
            elif tensor is not None:
                leaves[value] = tensor
    constants = sum(_tensor_bytes(value, t.nbytes) for value, t in leaves.items() if _is_used_by(dying, value))
    return constants + sum(NODE_WORTH + node_bytes(node) for node in dying)


def _is_used_by(nodes: Collection[ir.Node], value: ir.Value) -> bool:
    """Whether nothing but these nodes uses the value."""
    return not value.is_graph_output() and all(use.node in nodes for use in value.uses())
