#!/usr/bin/env python3
"""PyTorch modules as people have them, from `irc.optimize(module, example_inputs=...)` to the artifact: does it compute the same?

    python benchmarks/traced_modules.py [--only REGEX] [--full] [--exporter NAME] [--levels O1 O2] [--json FILE]

`transformers` configurations with random weights, called as their users call them (keyword arguments, ModelOutput), are
traced from two examples of different sizes, built at each level (-O2 on generated data), and the artifact is run by stock
ONNX Runtime at a third size, beside the module itself. Modules that `torch.export` does not take go through TorchScript.

`off` is the largest difference of any output relative to its largest value; `dims` the dynamic dimensions of the inputs.
One process per module. Needs torch, transformers and onnxscript.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODULES = ("resnet", "mobilenetv2", "bert", "vit", "gpt2", "wav2vec2", "t5", "swin")
BY_TORCHSCRIPT = ("t5", "swin")
SECONDS = 1800


def build(name: str, *, full: bool) -> tuple[Any, Callable[[int, int], dict[str, Any]]]:
    """A module in inference mode, and a function that gives keyword arguments for a batch and a length."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    narrow: dict[str, Any] = (
        {} if full else {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
    )
    vocabulary: dict[str, Any] = {} if full else {"vocab_size": 1000}
    side = 224 if full else 64

    def images(batch: int, length: int) -> dict[str, Any]:
        return {"pixel_values": torch.randn(batch, 3, side, side)}

    def text(batch: int, length: int) -> dict[str, Any]:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[-1, length - length // 4 :] = 0
        return {"input_ids": torch.randint(0, 999, (batch, length)), "attention_mask": mask}

    if name == "resnet":
        sizes = {} if full else {"hidden_sizes": [32, 64, 128, 256], "depths": [1, 2, 2, 1], "embedding_size": 16}
        module, inputs = hf.ResNetForImageClassification(hf.ResNetConfig(**sizes)), images
    elif name == "mobilenetv2":
        config = hf.MobileNetV2Config(depth_multiplier=1.0 if full else 0.35)
        module, inputs = hf.MobileNetV2ForImageClassification(config), images
    elif name == "bert":
        module, inputs = hf.BertModel(hf.BertConfig(**narrow, **vocabulary)), text
    elif name == "vit":
        module, inputs = hf.ViTForImageClassification(hf.ViTConfig(**narrow, image_size=side)), images
    elif name == "gpt2":
        sizes = {} if full else {"n_embd": 64, "n_layer": 3, "n_head": 4}
        module, inputs = hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, **vocabulary, use_cache=False)), text
    elif name == "wav2vec2":
        sizes = (
            {} if full else {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
        )
        module = hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**narrow, **sizes))
        inputs = lambda batch, length: {"input_values": torch.randn(batch, 1000 * length)}  # noqa: E731
    elif name == "t5":
        sizes = {} if full else {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
        module = hf.T5ForConditionalGeneration(hf.T5Config(**sizes, **vocabulary, use_cache=False))
        inputs = lambda batch, length: {  # noqa: E731
            **text(batch, length),
            "decoder_input_ids": torch.randint(0, 999, (batch, length // 2)),
        }
    else:
        sizes = {} if full else {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "image_size": 56}
        module = hf.SwinForImageClassification(hf.SwinConfig(**sizes))
        edge = 224 if full else 56
        inputs = lambda batch, length: {"pixel_values": torch.randn(batch, 3, edge, edge)}  # noqa: E731
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.1)
    return module.eval(), inputs


def examine(name: str, exporter: str, levels: list[str], *, full: bool) -> dict[str, Any]:
    """Traces, builds and compares one module."""
    import onnxruntime as ort
    import torch
    from torch.utils import _pytree as pytree

    import irc
    from irc.trace import trace

    module, inputs = build(name, full=full)
    examples = [inputs(2, 16), inputs(3, 24)]
    start = time.perf_counter()
    traced = trace(module, examples, exporter=exporter)
    row: dict[str, Any] = {
        "module": name,
        "exporter": exporter,
        "parameters": sum(p.numel() for p in module.parameters()),
        "trace_seconds": round(time.perf_counter() - start, 1),
        "dims": [f"{v.name}{[str(d) for d in v.shape or ()]}" for v in traced.model.graph.inputs],
        "levels": {},
    }
    other = inputs(4, 40)
    with torch.no_grad():
        expected = [t.numpy() for t in pytree.tree_leaves(module(**other)) if isinstance(t, torch.Tensor)]
    for level in levels:
        with tempfile.TemporaryDirectory() as folder:
            options: dict[str, Any] = {} if level == "O1" else {"data": "random"}
            report = irc.optimize(
                module,
                example_inputs=examples,
                exporter=exporter,
                level=level,
                output=Path(folder) / "m.onnx",
                measure=False,
                **options,
            )
            session = ort.InferenceSession(report.output, providers=["CPUExecutionProvider"])
            feed = {value.name: np.asarray(other[value.name]) for value in session.get_inputs()}
            found = session.run(None, feed)
        off = [
            float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) if a.shape == b.shape else float("inf")
            for a, b in zip(found, expected, strict=True)
        ]
        row["levels"][level] = {
            "nodes": [report.source.nodes, report.artifact.nodes],
            "bytes": [report.source.size_bytes, report.artifact.size_bytes],
            "off": max(off),
            "exit_code": report.exit_code,
            "undone": sum(len(record.undone) for record in report.ledger),
        }
    return row


def main() -> None:
    """Prints one row per module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX")
    parser.add_argument("--full", action="store_true", help="base sizes instead of few and narrow layers")
    parser.add_argument("--exporter", choices=("export", "torchscript"), help="for all; default by module")
    parser.add_argument("--levels", nargs="+", default=["O1", "O2"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(examine(*args.one, args.levels, full=args.full)))
        return
    rows = []
    for name in MODULES:
        if not re.search(args.only, name):
            continue
        exporter = args.exporter or ("torchscript" if name in BY_TORCHSCRIPT else "export")
        command = [sys.executable, __file__, "--one", name, exporter, "--levels", *args.levels]
        result = subprocess.run(
            [*command, *(["--full"] if args.full else [])], capture_output=True, text=True, timeout=SECONDS
        )
        if result.returncode:
            print(f"{name:12s} {exporter:12s} {result.stderr.strip().splitlines()[-1][:300]}", flush=True)
            continue
        row = json.loads(result.stdout.strip().splitlines()[-1])
        rows.append(row)
        print(
            f"{name:12s} {exporter:12s} {row['parameters'] / 1e6:7.1f} M  traced in {row['trace_seconds']} s  {', '.join(row['dims'])}"
        )
        for level, found in row["levels"].items():
            nodes, size = found["nodes"], found["bytes"]
            print(
                f"{'':12s} -{level}: nodes {nodes[0]} -> {nodes[1]}, bytes {size[1] / size[0]:.2f}x, off {found['off']:.1e}, "
                f"undone {found['undone']}, exit {found['exit_code']}",
                flush=True,
            )
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
