"""Modules that tests of tracing share: small, written out, with statistics that are not zeros and ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Block(nn.Module):
    """Convolution, normalization, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)) + x)


class Classifier(nn.Module):
    """Two blocks, dropout, a head and an auxiliary head that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.layers = nn.Sequential(Block(8), Block(8))
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 5)
        self.aux = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 5))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.layers(self.stem(image)).mean((2, 3))
        return self.head(self.drop(x)), self.aux(x)


class Encoder(nn.Module):
    """An embedding, attention with a mask, and a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.norm = nn.LayerNorm(16)
        self.project = nn.Linear(16, 48)
        self.out = nn.Linear(16, 50, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.norm(self.embed(ids))
        q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.project(x).chunk(3, -1))
        visible = (mask != 0)[:, None, None, :]
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=visible).transpose(1, 2).flatten(2)
        return {"logits": self.out(x + y), "pooled": y.mean(1)}


class Branching(nn.Module):
    """Control flow that depends on values, one module down."""

    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:  # the line that an error must name
                return x * 2
            return x

    def __init__(self) -> None:
        super().__init__()
        self.inner = Branching.Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class WithoutOnnxForm(nn.Module):
    """An operation that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(self.body(x))[1]  # the line that an error must name


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with every parameter and statistic drawn anew, so that nothing is a neutral constant by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(drawn + 0.5 if name.endswith("running_var") else drawn - 0.5)
    return module


def classifier() -> nn.Module:
    """A classifier in inference mode."""
    return seeded(Classifier()).eval()


def images(*sizes: tuple[int, int]) -> list[tuple[torch.Tensor]]:
    """Examples of a classifier: batch and side of each."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand((batch, 3, side, side), generator=generator) - 0.5,) for batch, side in sizes]


def tokens(*sizes: tuple[int, int]) -> list[dict[str, torch.Tensor]]:
    """Examples of an encoder: batch and length of each; the last sequence is padded."""
    generator = torch.Generator().manual_seed(2)
    examples = []
    for batch, length in sizes:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[-1, length - 2 :] = 0
        examples.append({"ids": torch.randint(0, 50, (batch, length), generator=generator), "mask": mask})
    return examples


def make_classifier() -> nn.Module:
    """A factory, as the command line names one."""
    return classifier()


def make_branching() -> nn.Module:
    """A factory of a module that cannot be traced."""
    return Branching()


def two_sizes() -> list[tuple[torch.Tensor]]:
    """Example inputs, as the command line names them."""
    return images((2, 10), (3, 12))


def one_row() -> tuple[torch.Tensor]:
    """An example of a module that takes rows of four."""
    return (torch.ones(2, 4),)


def outputs(module: nn.Module, example: Any) -> list[torch.Tensor]:
    """The tensors that a module returns."""
    from torch.utils import _pytree as pytree

    with torch.no_grad():
        result = module(**example) if isinstance(example, dict) else module(*example)
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
