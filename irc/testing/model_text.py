"""Models from ONNX text, with weights that are numbers and not zeros, so that a wrong rewrite shows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from irc.errors import UsageError
from irc.ir import normalize, refresh_shapes

Array = np.ndarray[Any, Any]


def parse_model(
    text: str,
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 10,
    **more: Any,
) -> ir.Model:
    """A model from ONNX text in the form passes receive it, with shapes inferred.

    Args:
        text: `name (inputs) => (outputs) { nodes }`, or a whole model that starts with its `<...>` header.
        weights: Initializers by name: an array, or a shape, which is filled with numbers seeded by the name.
        opset: Version of the default domain, where the text has no header; domain `custom` has version 1.
        ir_version: IR version, where the text has no header.
        more: More weights, for names that are identifiers.

    Raises:
        UsageError: If the text cannot be parsed.
        ModelError: If the model is not valid.
    """
    proto = parse_proto(text, {**(weights or {}), **more}, opset=opset, ir_version=ir_version)
    model = normalize(proto)
    refresh_shapes(model, strict=False)
    return model


def parse_proto(text: str, weights: Mapping[str, Any], *, opset: int = 17, ir_version: int = 10) -> onnx.ModelProto:
    """Like `parse_model`, as protobuf: nothing normalized, inferred or checked."""
    if not text.lstrip().startswith("<"):
        text = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "custom" : 1]>{text}'
    try:
        proto = onnx.parser.parse_model(text)
    except onnx.parser.ParseError as error:
        raise UsageError(f"this is not ONNX text: {' '.join(str(error).split())}") from error
    for name, given in weights.items():
        array = seeded_numbers(name, given) if isinstance(given, tuple) else np.asarray(given)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def seeded_numbers(name: str, shape: tuple[int, ...]) -> Array:
    """Standard normal float32 seeded by a name; positive for names that say variance, so that normalizations make sense."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    values = generator.normal(size=shape).astype(np.float32)
    return np.asarray(np.abs(values) + np.float32(0.1) if "var" in name else values)
