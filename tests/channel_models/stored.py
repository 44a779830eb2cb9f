"""Small models of many families, stored without their weights, with samples to run them on.

    for name in names():
        model, samples = load(name), feeds(name)

A file is `NAME.onnx.gz`, made by `sources.py`. Float initializers of more than 16 elements, and shorter ones
whose elements are all equal, are stored without data and are filled here, from a seed that is the checksum of their name:
no weight is zero, none equals another, and none is lost among the rest, so that a slot missed by a rewriting always shows
in the output.
"""

from __future__ import annotations

import functools
import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from irc.ir import normalize

FOLDER = Path(__file__).parent
EXTENSION = ".onnx.gz"
SIZES = {
    "batch": (2, 5),
    "sequence": (7, 13),
    "source": (7, 13),
    "target": (6, 11),
    "height": (16, 24),
    "width": (24, 16),
    "samples": (331, 489),
    "frames": (18, 26),
    "images": (3, 4),
}
"""Sizes that dimensions of these names have in the two samples."""
SMALLEST_VOCABULARY = 20
_NUMPY = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64, onnx.TensorProto.FLOAT16: np.float16}
_SCALES = {
    "BatchNormalization": (1, 4),
    "LayerNormalization": (1,),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "GroupNormalization": (1,),
    "InstanceNormalization": (1,),
    "Mul": (0, 1),
    "Div": (1,),
    "Sqrt": (0,),
}
"""Inputs of operators that are read as a scale or a variance."""
_VIEWS = {"Cast", "DequantizeLinear", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


def names() -> list[str]:
    """All stored models, sorted."""
    return sorted(path.name.removesuffix(EXTENSION) for path in FOLDER.glob("*" + EXTENSION))


def load(name: str) -> ir.Model:
    """A stored model with its weights, in irc's form; each call gives a fresh one."""
    proto = onnx.ModelProto()
    proto.ParseFromString(_filled(name))
    return normalize(proto)


def feeds(name: str) -> list[dict[str, np.ndarray]]:
    """Two samples; the second has other sizes wherever the model leaves them open."""
    return [sample(_stored(name), index) for index in range(2)]


def sample(proto: onnx.ModelProto, index: int) -> dict[str, np.ndarray]:
    """Sample 0 or 1: normal numbers, tokens, or a mask of ones with some zeros at the end of each row but the first."""
    return {value.name: _array(value, index) for value in proto.graph.input}


def _array(value: onnx.ValueInfoProto, index: int) -> np.ndarray:
    tensor = value.type.tensor_type
    shape = tuple(SIZES[d.dim_param][index] if d.HasField("dim_param") else d.dim_value for d in tensor.shape.dim)
    generator = np.random.default_rng([zlib.crc32(value.name.encode()), index])
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if "mask" in value.name:
        lengths = shape[-1] - np.arange(math.prod(shape[:-1])).reshape(shape[:-1]) % 4
        return (np.arange(shape[-1]) < lengths[..., None]).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return generator.integers(0, 2 if "type" in value.name else SMALLEST_VOCABULARY, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


@functools.cache
def _stored(name: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.ParseFromString(gzip.decompress((FOLDER / (name + EXTENSION)).read_bytes()))
    return proto


@functools.lru_cache(maxsize=8)
def _filled(name: str) -> bytes:
    proto = onnx.ModelProto()
    proto.CopyFrom(_stored(name))
    fill(proto)
    return proto.SerializeToString()


def fill(proto: onnx.ModelProto) -> None:
    """Gives every initializer that is stored without data its weights, in place."""
    readers = _readers(proto.graph)
    for graph in _graphs(proto.graph):
        for tensor in graph.initializer:
            if is_empty(tensor):
                tensor.raw_data = _weight(tensor, readers).tobytes()


def is_empty(tensor: onnx.TensorProto) -> bool:
    """Whether a stored initializer is to be filled."""
    return tensor.data_type in _NUMPY and math.prod(tensor.dims) > 1 and not tensor.raw_data


def _weight(tensor: onnx.TensorProto, readers: dict[str, list[tuple[onnx.NodeProto, int]]]) -> np.ndarray:
    generator = np.random.default_rng(zlib.crc32(tensor.name.encode()))
    uses = _uses(tensor.name, readers)
    shape = tuple(tensor.dims)
    if sum(size > 1 for size in shape) <= 1:
        if any(position in _SCALES.get(node.op_type, ()) for node, position in uses):
            weight = generator.uniform(0.5, 1.5, shape)
        else:
            weight = 0.3 * generator.standard_normal(shape)
    else:
        gain = 2 if any("Conv" in node.op_type for node, _ in uses) else 1
        weight = generator.standard_normal(shape) * math.sqrt(gain / _fan_in(shape, uses))
    return weight.astype(_NUMPY[tensor.data_type])


def _fan_in(shape: tuple[int, ...], uses: list[tuple[onnx.NodeProto, int]]) -> int:
    """How many products are summed into one output of the operator that reads the weight."""
    node = uses[0][0] if uses else None
    kind = node.op_type if node else ""
    if kind in ("Gather", "Add", "Where", "Concat", "Sub"):
        return 1
    if kind == "Gemm" and uses[0][1] == 1:
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return shape[1] if transposed else shape[0]
    if kind == "MatMul":
        return shape[-1] if uses[0][1] == 0 else shape[-2]
    if kind in ("LSTM", "GRU", "RNN"):
        return shape[-1]
    return max(1, math.prod(shape[1:]))


def _uses(name: str, readers: dict[str, list[tuple[onnx.NodeProto, int]]]) -> list[tuple[onnx.NodeProto, int]]:
    """Operators and inputs that read a value, seen through those that only move it."""
    found = []
    for node, position in readers.get(name, []):
        if node.op_type in _VIEWS and position == 0 and node.op_type != "Transpose":
            found += _uses(node.output[0], readers)
        else:
            found.append((node, position))
    return found


def _readers(graph: onnx.GraphProto) -> dict[str, list[tuple[onnx.NodeProto, int]]]:
    table: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for body in _graphs(graph):
        for node in body.node:
            for position, name in enumerate(node.input):
                table.setdefault(name, []).append((node, position))
    return table


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    inner = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [graph, *(found for body in inner for found in _graphs(body))]
