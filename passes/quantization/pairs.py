"""Put QuantizeLinear and DequantizeLinear into a graph, once per value, with shared scales."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, module_metadata, unique_name
from irc.passes.quantization.activations import ActivationScale


def is_dequantized(value: ir.Value | None) -> bool:
    """Whether a value comes out of a DequantizeLinear."""
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear" and producer.domain == ""


def find_pair(value: ir.Value) -> ir.Node | None:
    """The DequantizeLinear of the pair that already quantizes a value, or None."""
    for use in value.uses():
        if use.node.op_type == "QuantizeLinear" and use.idx == 0:
            for inner in use.node.outputs[0].uses():
                if inner.node.op_type == "DequantizeLinear":
                    return inner.node
    return None


def pair_scale(dequantize: ir.Node) -> tuple[ir.Value, ir.Value]:
    """The scale and zero point values of a DequantizeLinear."""
    scale, zero = dequantize.inputs[1], dequantize.inputs[2]
    assert scale is not None and zero is not None
    return scale, zero


def add_pair(value: ir.Value, parameters: ActivationScale | tuple[ir.Value, ir.Value], graph: ir.Graph) -> ir.Value:
    """Adds a pair behind a value and returns the dequantized twin; the users of the value are left alone.

    Args:
        value: A float value of the graph.
        parameters: Scale and zero point, or the values of another pair to share.
        graph: The graph that holds the pair.
    """
    name = value.name or "value"
    if isinstance(parameters, ActivationScale):
        scale = add_initializer(graph, f"{name}_s", parameters.scale)
        zero = shared_zero_point(graph, parameters)
    else:
        scale, zero = parameters
    metadata = module_metadata(producer) if (producer := value.producer()) is not None else {}
    quantize = ir.node("QuantizeLinear", [value, scale, zero], name="", metadata_props=metadata)
    quantized = quantize.outputs[0]
    quantized.name = unique_name(graph, f"{name}_q")
    dequantize = ir.node("DequantizeLinear", [quantized, scale, zero], name="", metadata_props=metadata)
    dequantize.outputs[0].name = unique_name(graph, f"{name}_dq")
    dequantize.outputs[0].dtype = ir.DataType.FLOAT
    if producer is not None and producer.graph is graph:
        graph.insert_after(producer, [quantize, dequantize])
    else:
        graph.insert_before(graph[0], [quantize, dequantize])
    return dequantize.outputs[0]


def shared_zero_point(graph: ir.Graph, parameters: ActivationScale) -> ir.Value:
    """The initializer of a zero point; equal ones are shared, since there are few."""
    kind = "u" if parameters.zero_point.dtype == "uint8" else "i"
    name = f"zp_{kind}{int(parameters.zero_point)}"
    existing = graph.initializers.get(name)
    if existing is not None and (array := constant(existing)) is not None:
        if array.ndim == 0 and array.dtype == parameters.zero_point.dtype and array == parameters.zero_point:
            return existing
    return add_initializer(graph, name, parameters.zero_point)


def shared_weight_zeros(graph: ir.Graph, channels: int) -> ir.Value:
    """The int8 zero points of a weight with so many channels, shared by all such weights."""
    name = f"zp_w{channels}"
    existing = graph.initializers.get(name)
    if existing is not None and (array := constant(existing)) is not None:
        if array.dtype == np.int8 and array.shape == (channels,) and not array.any():
            return existing
    return add_initializer(graph, name, np.zeros(channels, np.int8))


def quantize_output(value: ir.Value, parameters: ActivationScale | tuple[ir.Value, ir.Value], graph: ir.Graph) -> ir.Value:
    """Quantizes a value for all its users: each of them, and the graph output, gets the dequantized twin.

    A graph output keeps its public name: the float value behind it is renamed.
    """
    twin_node = find_pair(value)
    twin = twin_node.outputs[0] if twin_node is not None else add_pair(value, parameters, graph)
    quantize = twin.producer().inputs[0].producer()  # type: ignore[union-attr]
    for use in list(value.uses()):
        if use.node is not quantize:
            use.node.replace_input_with(use.idx, twin)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = twin
            public = value.name
            value.name = unique_name(graph, f"{public}_float")
            twin.name, twin.type, twin.shape = public, value.type, value.shape
    return twin
