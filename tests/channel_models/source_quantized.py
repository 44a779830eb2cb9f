"""Integer versions of stored models: what ONNX Runtime's quantizer writes, and what irc writes.

Integers and their scales belong together, so these files keep all of their weights.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from channel_models.source_export import Source
from channel_models.stored import feeds, load

from irc.ir import save


class Reader:
    """The stored samples as ONNX Runtime's calibration takes them."""

    def __init__(self, name: str) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = iter(feeds(name))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def static(name: str, form: str, **options: object) -> onnx.ModelProto:
    """`quantize_static` of ONNX Runtime, as QDQ or as QOperator."""
    from onnxruntime.quantization import QuantFormat, quantize_static

    return _rewritten(
        name, lambda i, o: quantize_static(str(i), str(o), Reader(name), quant_format=QuantFormat[form], **options)
    )


def dynamic(name: str, **options: object) -> onnx.ModelProto:
    """`quantize_dynamic` of ONNX Runtime."""
    from onnxruntime.quantization import quantize_dynamic

    return _rewritten(name, lambda i, o: quantize_dynamic(str(i), str(o), **options))


def by_irc(name: str, passes: str) -> onnx.ModelProto:
    """A pipeline of irc, obeyed without a budget."""
    import irc

    samples = feeds(name) if "quantize{" in passes or passes.endswith("quantize") else None
    return _rewritten(
        name,
        lambda i, o: irc.optimize(i, data=samples, output=o, passes=passes, verify=False, measure=False, cache=False),
    )


def half(name: str) -> onnx.ModelProto:
    """Weights and activations in float16."""
    return by_irc(name, "reduce-precision")


def _rewritten(name: str, rewrite: Callable[[Path, Path], object]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        model = load(name)
        _cast_free(model)
        save(model, before)
        rewrite(before, after)
        return onnx.load(after)


def _cast_free(model: ir.Model) -> None:
    """ONNX Runtime's quantizer infers shapes anew and stumbles over those of the exporter."""
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def sources() -> dict[str, Source]:
    """Sources by name; made from the stored model of the first part of the name."""
    conv = {"op_types_to_quantize": ["Conv", "MatMul", "Gemm"]}
    table: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
        "resnet_qdq": (
            functools.partial(static, "resnet", "QDQ", per_channel=True),
            "CNN, QDQ around all operators, scales per channel",
        ),
        "mobilenetv2_qdq": (functools.partial(static, "mobilenetv2", "QDQ"), "depthwise CNN, QDQ, scales per tensor"),
        "yolo_qdq": (
            functools.partial(static, "yolo", "QDQ", per_channel=True),
            "concat, split and Resize between Q/DQ",
        ),
        "encoder_layers_qdq": (
            functools.partial(static, "encoder_layers", "QDQ"),
            "transformer, QDQ, weights quantized",
        ),
        "bert_qdq": (functools.partial(static, "bert", "QDQ", per_channel=True), "BERT, QDQ, scales per channel"),
        "resnet_qoperator": (functools.partial(static, "resnet", "QOperator", **conv), "QLinearConv"),
        "encoder_layers_qoperator": (functools.partial(static, "encoder_layers", "QOperator", **conv), "QLinearMatMul"),
        "bert_dynamic": (functools.partial(dynamic, "bert"), "DynamicQuantizeLinear, MatMulInteger"),
        "vgg_dynamic": (functools.partial(dynamic, "vgg"), "ConvInteger"),
        "lstm_tagger_dynamic": (
            functools.partial(dynamic, "lstm_tagger"),
            "DynamicQuantizeLSTM, an operator of the runtime",
        ),
        "resnet_int8": (functools.partial(by_irc, "resnet", "quantize"), "irc's int8 of a CNN"),
        "vit_int8": (functools.partial(by_irc, "vit", "quantize"), "irc's int8 of a transformer"),
        "gpt2_weights": (
            functools.partial(by_irc, "gpt2", "quantize-weights"),
            "int8 weights alone behind DequantizeLinear",
        ),
        "llama_blocks": (
            functools.partial(by_irc, "llama", "quantize-weights-in-blocks"),
            "weights in blocks, opset 21",
        ),
        "mobilenetv2_half": (functools.partial(half, "mobilenetv2"), "float16"),
    }
    return {name: Source(make=make, about=about, exporter="file") for name, (make, about) in table.items()}
