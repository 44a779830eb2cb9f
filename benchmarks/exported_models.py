#!/usr/bin/env python3
"""Models as people export them: `transformers` configurations with random weights, through both exporters of torch.

    python benchmarks/exported_models.py DIR [--only REGEX] [--small]

Writes DIR/NAME-EXPORT[-small]/model.onnx and inputs.npz, one process per model, and keeps what is there. An export is `ts17` (the
TorchScript exporter at opset 17), `dynamo18` or `dynamo21` (the dynamo exporter); batch and sequence lengths are
symbolic where the exporter manages that. Weights are seeded; vectors (biases, scales, statistics), which start as zeros
and ones, are disturbed, so that no simplifier finds no-ops that a trained model does not have.

Needs torch, transformers and onnxscript.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

MODELS = ("resnet50", "mobilenetv2", "bert-base", "vit-base", "gpt2", "wav2vec2-base", "swin-tiny")
EXPORTS = {"ts17": 17, "dynamo18": 18, "dynamo21": 21}
SECONDS_PER_EXPORT = 900


def build(name: str, *, small: bool) -> tuple[Any, dict[str, Any], dict[str, dict[int, str]]]:
    """A model that returns a tensor or a tuple, its example inputs, and the symbolic axes of the inputs."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    narrow: dict[str, Any] = (
        {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128} if small else {}
    )
    side = 64 if small else 224
    images = {"pixel_values": torch.randn(1, 3, side, side)}
    batch = {"pixel_values": {0: "batch"}}
    tokens = {"input_ids": torch.randint(0, 999, (2, 16)), "attention_mask": torch.ones(2, 16, dtype=torch.int64)}
    tokens["attention_mask"][1, 11:] = 0
    text = {key: {0: "batch", 1: "sequence"} for key in tokens}
    if name == "resnet50":
        sizes = {"hidden_sizes": [32, 64, 128, 256], "depths": [1, 2, 2, 1], "embedding_size": 16} if small else {}
        return hf.ResNetForImageClassification(hf.ResNetConfig(**sizes)), images, batch
    if name == "mobilenetv2":
        config = hf.MobileNetV2Config(depth_multiplier=0.35 if small else 1.0)
        return hf.MobileNetV2ForImageClassification(config), images, batch
    if name == "bert-base":
        return hf.BertModel(hf.BertConfig(**narrow, **({"vocab_size": 1000} if small else {}))), tokens, text
    if name == "vit-base":
        return hf.ViTForImageClassification(hf.ViTConfig(**narrow, image_size=side)), images, batch
    if name == "gpt2":
        sizes = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 1000} if small else {}
        return hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, use_cache=False)), tokens, text
    if name == "wav2vec2-base":
        sizes = (
            {**narrow, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
            if small
            else {}
        )
        model = hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**sizes))
        return model, {"input_values": torch.randn(1, 16000)}, {"input_values": {0: "batch", 1: "samples"}}
    sizes = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "image_size": 56} if small else {}
    images = {"pixel_values": torch.randn(1, 3, 56, 56)} if small else images
    return hf.SwinForImageClassification(hf.SwinConfig(**sizes)), images, batch


def export(name: str, kind: str, path: Path, *, small: bool) -> str:
    """Exports one model; returns which axes are symbolic."""
    import torch

    model, inputs, axes = build(name, small=small)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.1)
    model.eval()

    class Named(torch.nn.Module):
        """One tensor or a tuple of tensors, nothing else."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, *values: Any) -> Any:
            result = self.inner(**dict(zip(inputs, values, strict=True)), return_dict=False)
            return result[0]

    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path.with_name("inputs.npz"), **{key: value.numpy() for key, value in inputs.items()})
    arguments: dict[str, Any] = {
        "input_names": list(inputs),
        "output_names": ["output"],
        "opset_version": EXPORTS[kind],
    }
    values = tuple(inputs.values())
    if kind.startswith("ts"):
        with torch.no_grad():
            torch.onnx.export(
                Named(), values, path, dynamo=False, dynamic_axes={**axes, "output": {0: "batch"}}, **arguments
            )
        return "symbolic"
    dims: dict[str, Any] = {}
    shapes = tuple(
        {axis: dims.setdefault(n, torch.export.Dim.DYNAMIC) for axis, n in of.items()} for of in axes.values()
    )
    try:
        torch.onnx.export(Named(), values, path, dynamo=True, dynamic_shapes=(shapes,), verbose=False, **arguments)
        return "symbolic"
    except Exception as error:
        print(
            f"{name}-{kind}: fixed shapes, since {type(error).__name__}: {' '.join(str(error).split())[:200]}",
            file=sys.stderr,
        )
        torch.onnx.export(Named(), values, path, dynamo=True, verbose=False, **arguments)
        return "fixed"


def export_all(folder: Path, pattern: re.Pattern[str], *, small: bool) -> dict[str, Path]:
    """Exports what matches and is not there; returns what there is, by name."""
    found = {}
    for model in MODELS:
        for kind in EXPORTS:
            name = f"{model}-{kind}" + ("-small" if small else "")
            if not pattern.search(name):
                continue
            path = folder / name / "model.onnx"
            done, failed = path.with_name("done"), path.with_name("failed")
            if not done.exists() and not failed.exists():
                arguments = [
                    sys.executable,
                    __file__,
                    str(folder),
                    "--one",
                    model,
                    kind,
                    *(["--small"] if small else []),
                ]
                try:
                    result = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS_PER_EXPORT)
                    code, said = result.returncode, result.stderr.strip().splitlines()[-3:]
                except subprocess.TimeoutExpired:
                    code, said = 1, [f"not done after {SECONDS_PER_EXPORT} s"]
                path.parent.mkdir(parents=True, exist_ok=True)
                (done if code == 0 else failed).write_text("\n".join(said) + "\n", encoding="utf-8")
            if done.exists():
                found[name] = path
            else:
                print(f"{name} is not exported: {failed.read_text(encoding='utf-8').strip()[-300:]}", file=sys.stderr)
    return found


def main() -> None:
    """Exports, or in a process of its own one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", metavar="REGEX", help="such as '^gpt2' or 'ts17'")
    parser.add_argument("--small", action="store_true", help="few and narrow layers")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "EXPORT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        model, kind = args.one
        path = args.folder / (f"{model}-{kind}" + ("-small" if args.small else "")) / "model.onnx"
        print(export(model, kind, path, small=args.small), file=sys.stderr)
        return
    for name, path in export_all(args.folder, re.compile(args.only), small=args.small).items():
        print(f"{name}: {path}")


if __name__ == "__main__":
    main()
