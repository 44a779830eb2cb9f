"""An ONNX file of a convolutional network as a `torch.nn.Module` and back, for peers that take modules only.

    network = OnnxModule(onnx.load("model.onnx"))
    network(torch.zeros(1, 3, 32, 32))
    network.insert_norms([images])      # a BatchNorm behind every Conv that changes nothing
    ...prune network's modules in place...
    network.reestimate_norms([images])
    network.to_onnx()                   # norms folded back, the original's names and graph

Convolutions and Gemms with constant weights become `nn.Conv2d` and `nn.Linear` children; everything else runs node by node.

Exporters fold BatchNorm into the Conv before it, so that a peer which re-estimates its statistics finds none. `insert_norms` puts it back:
every Conv's output is brought to unit deviation over the given images, running mean and variance are those found there, scale and
shift undo both. As a trained BatchNorm gives channel c the mean beta[c] and the deviation |gamma[c]| over the training data, that finds its
shift and the size of its scale again. The scale of the weights before it, which training leaves open, is the one piece that is made up.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

EPSILON = 1e-5
"""Of inserted norms."""


class Unsupported(Exception):
    """The file holds a node that is not translated."""


class OnnxModule(nn.Module):
    """Executes a graph of one input and one output, float32, channels on axis 1.

    Attributes:
        layers: The Conv2d and Linear children by "n" and the index of their node.
        norms: Likewise the BatchNorm2d behind Conv2d, where there are any.

    Raises:
        Unsupported: If the graph holds an operator or attribute that is not translated; the message names the node.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._proto = model
        self.layers, self.norms = nn.ModuleDict(), nn.ModuleDict()
        self._constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self._constants[node.output[0]] = numpy_helper.to_array(_attributes(node)["value"])
        inputs = [value.name for value in model.graph.input if value.name not in self._constants]
        if len(inputs) != 1 or len(model.graph.output) != 1:
            raise Unsupported(f"{len(inputs)} inputs and {len(model.graph.output)} outputs; only one of each")
        self._input, self._output = inputs[0], model.graph.output[0].name
        self._steps = [(f"n{i}", n, _attributes(n)) for i, n in enumerate(model.graph.node) if n.op_type != "Constant"]
        for key, node, attributes in self._steps:
            if node.op_type in ("Conv", "Gemm"):
                self.layers[key] = self._layer(node, attributes)
            elif node.op_type not in OPERATORS:
                raise Unsupported(f"{node.op_type} {node.output[0]} is not translated")
        self.eval()

    def _layer(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> nn.Module:
        arrays = [self._constants.get(name) for name in node.input[1:]]
        weight, bias = arrays[0], arrays[1] if len(arrays) > 1 else None
        if weight is None or (len(arrays) > 1 and bias is None):
            raise Unsupported(f"{node.op_type} {node.output[0]} has a computed weight or bias")
        layer: nn.Module
        if node.op_type == "Gemm":
            if attributes.get("alpha", 1) != 1 or attributes.get("beta", 1) != 1 or attributes.get("transA", 0):
                raise Unsupported(f"Gemm {node.output[0]} has alpha, beta or transA")
            weight = weight if attributes.get("transB", 0) else weight.T
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        else:
            pads = attributes.get("pads", [0, 0, 0, 0])
            if weight.ndim != 4 or pads[:2] != pads[2:] or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
                raise Unsupported(f"Conv {node.output[0]} is not 2-D with symmetric pads")
            groups = attributes.get("group", 1)
            layer = nn.Conv2d(
                weight.shape[1] * groups,
                weight.shape[0],
                weight.shape[2:],
                stride=tuple(attributes.get("strides", (1, 1))),
                padding=tuple(pads[:2]),
                dilation=tuple(attributes.get("dilations", (1, 1))),
                groups=groups,
                bias=bias is not None,
            )
        state = {"weight": torch.tensor(weight)} | ({} if bias is None else {"bias": torch.tensor(bias)})
        layer.load_state_dict(state)
        return layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output for a batch."""
        values: dict[str, Any] = {self._input: x}
        for key, node, attributes in self._steps:
            if key in self.layers:
                y = self.layers[key](values[node.input[0]])
                values[node.output[0]] = self.norms[key](y) if key in self.norms else y
            else:
                given = [values[n] if n in values else self._constants[n] if n else None for n in node.input]
                values[node.output[0]] = OPERATORS[node.op_type](attributes, *given)
        return values[self._output]

    @property
    def classifier(self) -> nn.Module:
        """The last layer, whose outputs are the model's."""
        return list(self.layers.values())[-1]

    # -- norms --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def insert_norms(self, batches: Iterable[torch.Tensor]) -> None:
        """Puts a BatchNorm2d behind every Conv2d that leaves the function as it is, up to rounding."""
        sums: dict[str, Any] = {}

        def hook(key: str) -> Any:
            def add(_layer: nn.Module, _inputs: Any, y: torch.Tensor) -> None:
                y = y.double()
                found = (y.numel() // y.shape[1], y.sum((0, 2, 3)), (y * y).sum((0, 2, 3)))
                sums[key] = tuple(a + b for a, b in zip(sums[key], found, strict=True)) if key in sums else found

            return add

        convs = {key: layer for key, layer in self.layers.items() if isinstance(layer, nn.Conv2d)}
        hooks = [layer.register_forward_hook(hook(key)) for key, layer in convs.items()]
        for batch in batches:
            self(batch)
        for one in hooks:
            one.remove()
        for key, layer in convs.items():
            count, total, squares = sums[key]
            mean = total / count
            variance = (squares / count - mean**2).clamp(min=0)
            norm = nn.BatchNorm2d(layer.out_channels, eps=EPSILON)
            deviation = (variance + EPSILON).sqrt()
            layer.weight.div_(deviation.reshape(-1, 1, 1, 1))
            if layer.bias is not None:
                layer.bias.div_(deviation)
            norm.running_mean.copy_(mean / deviation)
            norm.running_var.copy_(variance / deviation**2)
            norm.weight.copy_((variance / deviation**2 + EPSILON).sqrt() * deviation)
            norm.bias.copy_(mean)
            self.norms[key] = norm.eval()

    @torch.no_grad()
    def reestimate_norms(self, batches: Iterable[torch.Tensor]) -> None:
        """Running statistics anew: averages over the batches, each normalized by its own on the way, as in training."""
        for norm in self.norms.values():
            norm.reset_running_stats()
            norm.momentum = None
        self.norms.train()
        for batch in batches:
            self(batch)
        self.norms.eval()

    # -- and back -----------------------------------------------------------------------------------------------------

    def to_onnx(self) -> onnx.ModelProto:
        """The file with the layers' present weights."""
        model = copy.deepcopy(self._proto)
        # Shapes of the layers as they were.
        del model.graph.value_info[:]
        stored = {t.name: t for t in model.graph.initializer}
        uses = list(itertools.chain.from_iterable(node.input for node in model.graph.node))
        nodes = dict(zip((f"n{i}" for i in range(len(model.graph.node))), model.graph.node, strict=True))
        for key, layer in self.layers.items():
            node = nodes[key]
            weight = layer.weight.detach().double().numpy()
            bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy()
            if key in self.norms:
                norm = self.norms[key]
                scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double().numpy()
                bias = (bias - norm.running_mean.double().numpy()) * scale + norm.bias.detach().double().numpy()
                weight = weight * scale.reshape(-1, 1, 1, 1)
            if node.op_type == "Gemm" and not _attributes(node).get("transB", 0):
                weight = weight.T
            for attribute in node.attribute:
                if attribute.name == "group":
                    attribute.i = layer.groups
            for position, array in ((1, weight), (2, bias)):
                name = node.input[position] if len(node.input) > position else f"{node.output[0]}_bias"
                if name not in stored or uses.count(name) > 1:
                    name = f"{node.output[0]}_{'weight' if position == 1 else 'bias'}_own"
                    model.graph.initializer.add(name=name)
                    stored[name] = model.graph.initializer[-1]
                del node.input[position : position + 1]
                node.input.insert(position, name)
                stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        used = {name for node in model.graph.node for name in node.input}
        for tensor in [t for t in model.graph.initializer if t.name not in used]:
            model.graph.initializer.remove(tensor)
        onnx.checker.check_model(model)
        return model


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _mean(attributes: dict[str, Any], x: torch.Tensor, axes: Any = None) -> torch.Tensor:
    found = attributes.get("axes") if axes is None else axes.tolist()
    return x.mean(tuple(found), keepdim=bool(attributes.get("keepdims", 1)))


def _clip(_attributes: dict[str, Any], x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
    return torch.clamp(x, None if low is None else float(low), None if high is None else float(high))


def _max_pool(attributes: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    pads = attributes.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:] or attributes.get("ceil_mode", 0):
        raise Unsupported("MaxPool with asymmetric pads or ceil_mode")
    return nn.functional.max_pool2d(
        x, tuple(attributes["kernel_shape"]), tuple(attributes.get("strides", (1, 1))), tuple(pads[:2])
    )


OPERATORS: dict[str, Any] = {
    "Relu": lambda _a, x: torch.relu(x),
    "Sigmoid": lambda _a, x: torch.sigmoid(x),
    "Clip": _clip,
    "Add": lambda _a, x, y: x + y,
    "Mul": lambda _a, x, y: x * y,
    "MaxPool": _max_pool,
    "GlobalAveragePool": lambda _a, x: x.mean((2, 3), keepdim=True),
    "ReduceMean": _mean,
    "Flatten": lambda _a, x: torch.flatten(x, 1),
    "Reshape": lambda _a, x, shape: x.reshape(x.shape[0], *shape.tolist()[1:]),
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "Identity": lambda _a, x: x,
}
"""How the nodes without weights run: attributes, then inputs."""
