"""The integer form of a layer as it stands in a quantized model: what it reads, what it stores, and new numbers for both.

Found through the graph, so that what an earlier refinement changed is seen.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, constant_tensor
from irc.pass_base import Context, Skip
from irc.passes.quantization.float_reference import FloatReference, IntegerSite, amended, reference
from irc.passes.quantization.layer_geometry import Array
from irc.passes.quantization.layer_sample import Layer, simulated
from irc.passes.quantization.weights import quantized_bias, rounded
from irc.passes.quantization.workspace import drop_if_unused, graph_of
from irc.target import is_dequantized, stored_weight

NOT_QUANTIZED = "no earlier pass of the pipeline quantized an operator with weights"


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A weighted operator that reads integers and stores int8.

    Attributes:
        site: What quantize remembered.
        layer: The operator in the float model.
        node: The operator in the quantized model.
        quantize: The QuantizeLinear of its input.
        read: The DequantizeLinear that it reads.
        stored: The DequantizeLinear of its weight.
        limit: Largest absolute int8 weight.
    """

    site: IntegerSite
    layer: Layer
    node: ir.Node
    quantize: ir.Node
    read: ir.Node
    stored: ir.Node
    limit: int

    # -- as it is ---------------------------------------------------------------------------------------------------

    @property
    def scale(self) -> np.float32:
        """Scale of its input."""
        return np.float32(_array(self.quantize.inputs[1]).reshape(-1)[0])

    @property
    def zero_point(self) -> int:
        """Zero point of its input."""
        return int(_array(self.quantize.inputs[2]).reshape(-1)[0])

    @property
    def scales(self) -> Array:
        """Scales of its weight, `[channels]` float32."""
        return _array(self.stored.inputs[1])

    @property
    def integers(self) -> Array:
        """Its int8 weight, in the layout of the float one."""
        return _array(self.stored.inputs[0])

    @functools.cached_property
    def weight(self) -> Array:
        """The float weight as matrices, `[G, K, N]`."""
        return np.asarray(self.layer.matrices(self.site.weight.numpy()), np.float32)

    def nearest(self, scales: Array) -> Array:
        """The float weight rounded to the nearest integers of other scales, in its own layout."""
        return rounded(self.site.weight.numpy(), scales, axis=self.site.axis, limit=self.limit)

    def simulated_weight(self, integers: Array | None = None, scales: Array | None = None) -> Array:
        """The weight as the integer operator sees it, as matrices."""
        stored = self.layer.matrices(self.integers if integers is None else integers)
        steps = self.layer.by_output(self.scales if scales is None else scales)
        return stored.astype(np.float32) * steps[:, None, :]

    def simulated_rows(self, rows: Array, scale: np.float32 | None = None, zero_point: int | None = None) -> Array:
        """Rows of the float input as the integer operator sees them."""
        low, high = self.input_range
        step = self.scale if scale is None else scale
        return simulated(rows, float(step), self.zero_point if zero_point is None else zero_point, low, high)

    @property
    def input_range(self) -> tuple[int, int]:
        """Smallest and largest integer of its input."""
        info = np.iinfo(_array(self.quantize.inputs[2]).dtype)
        return int(info.min), int(info.max)

    @property
    def state(self) -> str:
        """A short hash of what a refinement starts from."""
        digest = hashlib.sha256()
        for array in (self.scale, np.int64(self.zero_point), self.scales):
            digest.update(np.asarray(array).tobytes())
        tensor = constant_tensor(self.stored.inputs[0])
        if not isinstance(tensor, ir.LazyTensor):  # such a one is still the nearest integers to the float weight
            digest.update(self.integers.tobytes())
        bias = self.bias
        if bias is not None:
            digest.update(bias.tobytes())
        return digest.hexdigest()[:12]

    @property
    def other_readers(self) -> list[str]:
        """Who else reads its int8 weight, in words."""
        found = []
        tensor = self.stored.inputs[0]
        assert tensor is not None
        for use in tensor.uses():
            if use.node is not self.stored:
                found.append(f"{use.node.op_type} {use.node.outputs[0].name!r}")
        pending = [self.stored.outputs[0]]
        while pending:
            for use in pending.pop().uses():
                if use.node.op_type == "Transpose":
                    pending.append(use.node.outputs[0])
                elif use.node is not self.node:
                    found.append(f"{use.node.op_type} {use.node.outputs[0].name!r}")
        return found

    # -- new numbers ------------------------------------------------------------------------------------------------

    def store(self, integers: Array, scales: Array | None = None) -> None:
        """Gives the operator another int8 weight, and other scales; nobody else may read it."""
        place(self.stored, 0, integers)
        if scales is not None:
            bias = self.bias
            place(self.stored, 1, scales)
            if bias is not None:
                self.set_bias(bias)

    # -- bias -------------------------------------------------------------------------------------------------------

    @property
    def bias(self) -> Array | None:
        """The constant added to its output, `[channels]` float32, its own or by the Add behind it; None if there is none."""
        return added_constant(self.node, len(self.scales))

    @property
    def shift(self) -> Array:
        """`[G, N]`: what was added to its bias since it was float, in units of the products."""
        now, before = self.bias, added_constant(self.layer.node, len(self.scales))
        if now is None:
            return np.zeros((self.layer.groups, self.layer.outputs), np.float32)
        change = now if before is None else now - before
        return self.layer.by_output(change) / np.float32(self.layer.factor)

    @property
    def has_integer_bias(self) -> bool:
        """Whether its bias is int32, in units of the scales of its input and weight."""
        found = addend_place(self.node)
        return self.bias is not None and found is not None and is_dequantized(found[0].inputs[found[1]])

    def set_bias(self, bias: Array) -> bool:
        """Puts another constant in the place of `bias`; False, with nothing changed, where it does not fit int32."""
        found = addend_place(self.node)
        if found is None:
            array = bias.astype(np.float32)
            self.node.resize_inputs(3)
            self.node.replace_input_with(2, add_initializer(graph_of(self.quantize), "b", array))
            return True
        node, index = found
        value = node.inputs[index]
        assert value is not None
        producer = value.producer()
        if node is self.node and node.op_type == "Gemm":
            bias = bias / np.float32(node.attributes.get_float("beta", 1.0))
        if producer is None or not is_dequantized(value):
            place(node, index, bias.astype(np.float32).reshape(_array(value).shape))
            return True
        step = (self.scale * self.scales).astype(np.float32)
        integers = quantized_bias(bias, step)
        if integers is None:
            return False
        place(producer, 0, integers)
        place(producer, 1, step)
        return True


def addend_place(node: ir.Node) -> tuple[ir.Node, int] | None:
    """Which input of which node is added to the output of a layer per channel; None if there is none.

    Of a Conv or Gemm its own, else of the Add behind a product that alone reads it.
    """
    if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2 and node.inputs[2] is not None:
        return (node, 2)
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or node.op_type == "Conv":
        return None
    reader, index = uses[0].node, uses[0].idx
    here = reader.op_type == "Add" and reader.domain == "" and reader.graph is node.graph
    return (reader, 1 - index) if here else None


def added_constant(node: ir.Node, channels: int) -> Array | None:
    """The constant that is added to the output of a layer, `[channels]` float32; None if there is none."""
    found = addend_place(node)
    value = found[0].inputs[found[1]] if found is not None else None
    producer = value.producer() if value is not None else None
    if producer is not None and is_dequantized(value):
        integers, step = constant(producer.inputs[0]), constant(producer.inputs[1])
        if integers is None or step is None or integers.dtype != np.int32:
            return None
        array = (integers * step.astype(np.float64)).astype(np.float32)
    else:
        given = constant(value)
        if given is None or given.dtype != np.float32:
            return None
        array = given
    if array.size != channels or array.shape[-1:] != (channels,):
        return None
    beta = node.attributes.get_float("beta", 1.0) if found == (node, 2) and node.op_type == "Gemm" else 1.0
    return np.asarray(array.reshape(-1) * np.float32(beta))


def place(node: ir.Node, index: int, array: Array) -> None:
    """Gives a node another constant as input; others that read the old one keep it."""
    old = node.inputs[index]
    assert old is not None
    if old.is_initializer() and not old.is_graph_output() and not old.is_graph_input() and len(list(old.uses())) == 1:
        old.const_value = ir.tensor(array, name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    graph = old.graph if isinstance(old.graph, ir.Graph) else graph_of(node)
    node.replace_input_with(index, add_initializer(graph, old.name or "c", array))
    drop_if_unused(old)


def remember_names(model: ir.Model, layers: Sequence[IntegerLayer]) -> None:
    """Brings what quantize remembered up to date with the names of the constants of some layers."""
    for layer in layers:
        amended(
            model,
            dataclasses.replace(
                layer.site,
                scale=_name(layer.quantize.inputs[1]),
                zero_point=_name(layer.quantize.inputs[2]),
                stored=_name(layer.stored.inputs[0]),
                scales=_name(layer.stored.inputs[1]),
            ),
        )


def integer_layers(model: ir.Model, found: FloatReference, ctx: Context) -> Iterator[IntegerLayer | Skip]:
    """The layers that quantize made integer, in the order of the graph, or why one cannot be refined."""
    nodes = {node.name: node for node in model.graph.all_nodes() if node.name}
    sampled = {v.name for v in found.model.graph.inputs} | {v.name for n in found.model.graph for v in n.outputs}
    layers: dict[str, Layer] = {}
    for float_node in found.model.graph.all_nodes():
        layer = Layer.of(float_node)
        if layer is not None and layer.site in found.sites:
            layers[layer.site] = layer
    for site in found.sites.values():
        node = nodes.get(site.node)
        if node is None or site.id not in layers:
            continue
        layer = layers[site.id]
        read = node.inputs[0].producer() if node.inputs[0] is not None else None
        quantize = read.inputs[0].producer() if read is not None and read.inputs[0] is not None else None
        stored = stored_weight(node)
        if read is None or quantize is None or quantize.op_type != "QuantizeLinear" or stored is None:
            yield Skip(node, "it reads no integers any more", site.id)
        elif any(constant_tensor(v) is None for v in (*quantize.inputs[1:3], *stored.inputs[:2])):
            yield Skip(node, "its scales are not constant", site.id)
        elif layer.source not in sampled:
            yield Skip(node, f"its input {layer.source!r} is a value of a body, which is not sampled", site.id)
        else:
            yield IntegerLayer(site, layer, node, quantize, read, stored, ctx.target.quantization.weight_limit)


def float_model(model: ir.Model) -> FloatReference | None:
    """What quantize remembered, if anything with weights is in it."""
    found = reference(model)
    return found if found is not None and found.sites else None


def _array(value: ir.Value | None) -> Array:
    array = constant(value)
    assert array is not None
    return array


def _name(value: ir.Value | None) -> str:
    return (value.name if value is not None else None) or ""
