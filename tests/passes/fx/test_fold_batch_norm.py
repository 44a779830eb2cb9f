"""Batch normalization into the convolution before it, in the graph of a PyTorch module."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from traced_modules import seeded

from irc.pass_base import Context
from irc.pipeline import parse
from irc.trace.example_inputs import Example
from irc.trace.fx_manager import FxRun, run_fx_passes
from irc.trace.program_graph import unlift


def run(module: nn.Module, *inputs: torch.Tensor) -> FxRun:
    """The pass over a module, verified on one input."""
    program = torch.export.export(module, inputs)
    steps = parse("fx-fold-batch-norm")
    return run_fx_passes(program, steps, [Example(inputs, {})], ctx=Context())


def counts(found: FxRun) -> tuple[int, int, int]:
    """Sites rewritten, skipped, undone."""
    (record,) = found.ledger
    return len(record.rewritten), len(record.skipped), len(record.undone)


def operations(found: FxRun) -> list[str]:
    return [str(node.target).split(".")[1] for node in found.program.graph.nodes if node.op == "call_function"]


def in_double(module: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return copy.deepcopy(module).double()(*(x.double() for x in inputs))


CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "1d": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (2, 3, 9)),
    "2d without bias": (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), (2, 3, 7, 7)),
    "3d": (nn.Sequential(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4)), (2, 2, 4, 4, 4)),
    "grouped and strided": (
        nn.Sequential(nn.Conv2d(6, 4, 3, groups=2, stride=2, padding=1, dilation=2), nn.BatchNorm2d(4)),
        (2, 6, 9, 9),
    ),
    "depthwise": (nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)), (2, 4, 6, 6)),
    "without affine": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), (2, 3, 7, 7)),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)), (2, 3, 5, 5)),
    "transposed grouped": (
        nn.Sequential(nn.ConvTranspose2d(6, 4, 3, groups=2, output_padding=1, stride=2), nn.BatchNorm2d(4)),
        (2, 6, 5, 5),
    ),
    "epsilon": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=0.5)), (2, 3, 4, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_folds(name: str) -> None:
    module, shape = CASES[name]
    seeded(module).eval()
    x = torch.rand(shape, generator=torch.Generator().manual_seed(3)) - 0.5
    found = run(module, x)
    assert counts(found) == (1, 0, 0)
    assert len(operations(found)) == 1 and operations(found)[0].startswith("conv")
    (mine,) = unlift(found.program)(x)
    torch.testing.assert_close(mine.double(), in_double(module, x), rtol=1e-5, atol=1e-6)


class Pair(nn.Module):
    """Two convolutions with one weight, each normalized in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.second.weight = self.first.weight
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norms[1](self.second(torch.relu(self.norms[0](self.first(x)))))


def test_a_weight_that_two_share() -> None:
    module = seeded(Pair()).eval()
    x = torch.rand(2, 3, 4, 4)
    found = run(module, x)
    assert counts(found) == (2, 0, 0)
    (mine,) = unlift(found.program)(x)
    torch.testing.assert_close(mine.double(), in_double(module, x), rtol=1e-5, atol=1e-6)


class Skip(nn.Module):
    """The convolution is used without its normalization too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class Returned(Skip):
    """The convolution is an output too."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        y = self.conv(x)
        return self.norm(y), y


class Computed(Skip):
    """The weight is computed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(nn.functional.conv2d(x, self.conv.weight * 2, self.conv.bias))


@pytest.mark.parametrize(
    ("module", "shape", "reason"),
    [
        (Skip(), (2, 3, 4, 4), "the convolution has other consumers"),
        (Returned(), (2, 3, 4, 4), "the convolution has other consumers"),
        (Computed(), (2, 3, 4, 4), "its weight is computed"),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), (2, 3, 4, 4), "it is not behind a convolution"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), (2, 3), "it is not behind a convolution"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
            (2, 3, 4, 4),
            "it normalizes by the batch, as in training",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)),
            (2, 3, 4, 4),
            "the convolution spells its padding as text",
        ),
    ],
)
def test_leaves(module: nn.Module, shape: tuple[int, ...], reason: str) -> None:
    found = run(seeded(module).eval(), torch.rand(shape))
    (record,) = found.ledger
    assert [entry.reason for entry in record.skipped] == [reason] and not record.rewritten and not found.changed


def test_keyword_arguments_of_the_operation_are_kept() -> None:
    class Spelled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.weight = nn.BatchNorm2d(4), nn.Parameter(torch.ones(4, 3, 1, 1))

        def forward(self, x: torch.Tensor) -> Any:
            y = torch.ops.aten.conv2d.default(x, self.weight, stride=[2, 2], padding=[1, 1])
            return self.norm(y)

    module = seeded(Spelled()).eval()
    x = torch.rand(2, 3, 6, 6)
    found = run(module, x)
    assert counts(found) == (1, 0, 0)
    (mine,) = unlift(found.program)(x)
    torch.testing.assert_close(mine.double(), in_double(module, x), rtol=1e-5, atol=1e-6)


def test_a_second_application_finds_nothing() -> None:
    module, shape = CASES["1d"]
    x = torch.rand(shape)
    first = run(seeded(module).eval(), x)
    again = run_fx_passes(first.program, parse("fx-fold-batch-norm"), [Example((x,), {})], ctx=Context())
    assert counts(again) == (0, 0, 0) and not again.changed
