"""Where weights may become zero: constants of Conv, Gemm and MatMul that only such operators read, all of them in one way."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, constant_tensor
from irc.pass_base import Context, Skip, node_id
from irc.passes.pruning.sparsity.sparse_mask import Array, InputOrder, Pattern
from irc.passes.quantization.integer_layer import added_constant, addend_place, place
from irc.passes.quantization.layer_geometry import Convolution
from irc.passes.quantization.layer_sample import Layer
from irc.passes.quantization.placement import is_product, weight_of
from irc.passes.quantization.workspace import drop_if_unused

_FROM_INTEGERS = ("DequantizeLinear", "Cast", "Mul", "Sub", "Transpose", "Reshape")
_LOOKBACK = 6
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


@dataclasses.dataclass(frozen=True, eq=False)
class SparseSite:
    """A constant, with the operators that read it.

    Attributes:
        origin: The constant.
        layers: Its readers, in the order of the graph; the first one gives the site its name.
    """

    origin: ir.Value
    layers: tuple[Layer, ...]

    @property
    def id(self) -> str:
        """Of the site."""
        return self.layers[0].site

    @property
    def node(self) -> ir.Node:
        """The first reader."""
        return self.layers[0].node

    @property
    def constant(self) -> Array:
        """The weight as it is stored."""
        array = constant(self.origin)
        assert array is not None
        return array

    def matrices(self) -> Array:
        """The weight, `[G, N, K]` float32."""
        return np.ascontiguousarray(self.layers[0].matrices(self.constant).swapaxes(1, 2), np.float32)

    def order(self, pattern: Pattern | None) -> InputOrder:
        """Its inputs as a pattern groups them: channels of a convolution tap by tap."""
        geometry = self.layers[0].geometry
        taps = math.prod(geometry.weight_shape[2:]) if isinstance(geometry, Convolution) else 1
        return InputOrder.of(geometry.inputs, taps, pattern)

    @property
    def is_biased(self) -> bool:
        """Whether a float constant is added to its outputs, for one reader only."""
        return len(self.layers) == 1 and self._bias is not None

    @property
    def _bias(self) -> Array | None:
        found = addend_place(self.node)
        if found is None or constant_tensor(found[0].inputs[found[1]]) is None:
            return None
        if self.node.op_type == "Gemm" and found[0] is self.node and not self.node.attributes.get_float("beta", 1.0):
            return None
        layer = self.layers[0]
        stacked = layer.groups > 1 and not isinstance(layer.geometry, Convolution)
        channels = layer.outputs if not isinstance(layer.geometry, Convolution) else layer.groups * layer.outputs
        return None if stacked else added_constant(self.node, channels)

    def store(self, kept: Array, values: Array | None) -> None:
        """Puts a sparse weight in place of the constant.

        Args:
            kept: `[G, N, K]` bool.
            values: `[G, N, K]` float32; None for the weight's own.
        """
        tensor, layer = self.constant, self.layers[0]
        mask = layer.tensor(kept.swapaxes(1, 2))
        if values is None:
            array = np.where(mask, tensor, np.zeros((), tensor.dtype))
        else:
            array = layer.tensor(values.swapaxes(1, 2)).astype(tensor.dtype)
        origin = self.origin
        if origin.is_initializer():
            origin.const_value = ir.tensor(array, name=origin.name)
            return
        new = add_initializer(_graph(origin), origin.name or "w", array)
        origin.replace_all_uses_with(new)
        drop_if_unused(origin)

    def add_to_bias(self, shift: Array) -> None:
        """Adds to the constant behind the product.

        Args:
            shift: `[channels]` float32.
        """
        bias, found = self._bias, addend_place(self.node)
        assert bias is not None and found is not None
        node, index = found
        old = constant(node.inputs[index])
        assert old is not None
        beta = self.node.attributes.get_float("beta", 1.0) if node is self.node and node.op_type == "Gemm" else 1.0
        place(node, index, ((bias + shift) / np.float32(beta)).astype(np.float32).reshape(old.shape))


def sparse_sites(
    model: ir.Model, ctx: Context, *, minimum: int, pattern: Pattern | None
) -> Iterator[SparseSite | Skip]:
    """The weights that may become sparse, in the order of the graph, and why others may not.

    Args:
        model: Unchanged.
        ctx: Says what the user's selection excludes.
        minimum: Smaller weights are left alone.
        pattern: What is asked for, if it is a pattern.
    """
    decided: dict[ir.Value, str] = {}
    for node in model.graph.all_nodes():
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain != "" or len(node.inputs) < 2:
            continue
        if _is_stored_as_integers(node.inputs[1]):
            yield Skip(node, "its weight is already quantized")
            continue
        if is_product(node):
            continue
        weight = weight_of(node)
        if weight is None:
            yield Skip(node, "its weight is not constant")
            continue
        if weight.origin in decided:
            yield Skip(node, decided[weight.origin])
            continue
        found = _site(node, weight.origin, model, ctx)
        reason = found if isinstance(found, str) else _why_left(found, minimum, pattern)
        if isinstance(found, str) or reason is not None:
            decided[weight.origin] = f"its weight is that of {node_id(node)!r}, which stays: {reason}"
            yield Skip(node, str(reason))
        else:
            decided[weight.origin] = f"its weight is that of {found.id!r}, where it is decided"
            yield found


def _site(node: ir.Node, origin: ir.Value, model: ir.Model, ctx: Context) -> SparseSite | str:
    if node.graph is not model.graph:
        return "it is in a body, whose values are not sampled"
    tensor = constant_tensor(origin)
    assert tensor is not None
    if tensor.dtype not in FLOATS:
        return f"its weight is {tensor.dtype.name}, not float"
    if origin.is_graph_output():
        return "its weight is an output of the model"
    if constant_tensor(node.inputs[0]) is not None:
        return "its input is constant"
    layers = []
    for reader, index in _readers(origin):
        other = weight_of(reader) if reader.op_type in ("Conv", "Gemm", "MatMul") and index == 1 else None
        layer = Layer.of(reader) if other is not None and other.origin is origin else None
        if layer is None and reader is not node:
            return f"its weight is also used by {reader.op_type} {node_id(reader)!r}"
        if layer is None:
            return "its weight has no usable shape"
        if reader.graph is not model.graph:
            return f"its weight is also used in a body, by {node_id(reader)!r}"
        if (reason := ctx.refuses(reader, layer.site)) is not None:
            return reason if reader is node else f"its weight is also that of {layer.site!r}: {reason}"
        layers.append(layer)
    order = {each: position for position, each in enumerate(model.graph)}
    layers.sort(key=lambda layer: order[layer.node])
    if len({_layout(layer) for layer in layers}) > 1:
        return f"its weight is used the other way round by {layers[1].site!r}"
    return SparseSite(origin, tuple(layers))


def _is_stored_as_integers(value: ir.Value | None) -> bool:
    """Whether a value is computed from an integer constant, by DequantizeLinear or by Cast and Mul."""
    for _ in range(_LOOKBACK):
        producer = value.producer() if value is not None else None
        if producer is None or producer.op_type not in _FROM_INTEGERS or not producer.inputs:
            break
        value = producer.inputs[0]
    tensor = constant_tensor(value)
    return tensor is not None and tensor.dtype.is_integer()


def _why_left(site: SparseSite, minimum: int, pattern: Pattern | None) -> str | None:
    size = site.constant.size
    if size < minimum:
        return f"its weight has {size} elements, and the minimum is {minimum}"
    if not np.isfinite(np.asarray(site.constant, np.float32)).all():
        return "its weight contains NaN or infinity, or leaves float32"
    if pattern is not None:
        taps = len(site.order(None).columns) // _channels(site)
        channels = site.layers[0].inputs // taps
        if channels < pattern.width:
            return f"it has {channels} inputs, fewer than the {pattern.width} of the pattern"
    return None


def _channels(site: SparseSite) -> int:
    """Channels of the inputs of a group."""
    geometry = site.layers[0].geometry
    return geometry.weight_shape[1] if isinstance(geometry, Convolution) else geometry.inputs


def _readers(origin: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """The operators that read a constant, transposed or not, and where."""
    for use in origin.uses():
        if use.node.op_type == "Transpose" and use.node.domain == "" and not use.node.outputs[0].is_graph_output():
            yield from ((inner.node, inner.idx) for inner in use.node.outputs[0].uses())
        else:
            yield use.node, use.idx


def _layout(layer: Layer) -> tuple[object, ...]:
    """Equal for layers whose matrices lie in the constant in the same way."""
    geometry = layer.geometry
    turned = geometry.groups if isinstance(geometry, Convolution) else getattr(geometry, "transposed_weight", False)
    return (type(geometry), turned)


def _graph(value: ir.Value) -> ir.Graph:
    graph = value.graph
    assert isinstance(graph, ir.Graph)
    return graph
