"""Train the residual network of `examples/digits` and write the model and its data.

    pip install "torch==2.13.0" scikit-learn onnx onnxscript
    python examples/train_digits.py --output examples/digits

Pictures are scikit-learn's 8x8 digits, enlarged to 32x32. They are split three ways: the network is trained on one
part, `calib.npz` holds the second (pictures the network has never seen, so that its accuracy there is honest) and
`test.npz` the third, which nothing but the final test should touch. The network keeps its BatchNormalization operators
in the exported file, as an exporter without an optimizer would leave them.

Takes about five minutes on two cores. The seeds are fixed; another processor may still round differently.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from onnxscript import optimizer
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

SEED = 0
SIDE = 32
CALIBRATION_SAMPLES = 640
TEST_SAMPLES = 360
OPSET = 20


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: [N, in, H, W] -> [N, out, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Adds the convolved input to the shortcut."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class DigitNetwork(nn.Module):
    """A residual network of 0.3 million parameters: [N, 1, 32, 32] in [0, 1] -> [N, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.stages = nn.Sequential(
            ResidualBlock(32, 32),
            ResidualBlock(32, 32),
            ResidualBlock(32, 64, stride=2),
            ResidualBlock(64, 64),
            ResidualBlock(64, 96, stride=2),
        )
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(96, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of the ten digits."""
        features = self.stages(self.stem(pictures)).mean(dim=(2, 3))
        logits: Tensor = self.classifier(self.dropout(features))
        return logits


def splits() -> dict[str, tuple[Tensor, Tensor]]:
    """Pictures [N, 1, 32, 32] in [0, 1] and labels [N] of the three parts, each digit equally frequent in all."""
    digits = load_digits()
    pictures = torch.tensor(digits.images / 16.0, dtype=torch.float32)[:, None]
    pictures = functional.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    indices = np.arange(len(labels))
    rest, test = train_test_split(indices, test_size=TEST_SAMPLES, random_state=SEED, stratify=labels)
    train, calib = train_test_split(rest, test_size=CALIBRATION_SAMPLES, random_state=SEED, stratify=labels[rest])
    return {
        name: (pictures[chosen], labels[chosen])
        for name, chosen in (("train", train), ("calib", calib), ("test", test))
    }


def distort(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Small random rotations, shears, zooms and shifts, another for each picture."""
    count = len(pictures)
    matrices = torch.eye(2).repeat(count, 1, 1) + 0.15 * torch.randn(count, 2, 2, generator=generator)
    shifts = 0.1 * torch.randn(count, 2, 1, generator=generator)
    grid = functional.affine_grid(torch.cat([matrices, shifts], dim=2), list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, align_corners=False)


def train(pictures: Tensor, labels: Tensor, *, epochs: int, batch: int = 64) -> DigitNetwork:
    """Trains with AdamW and one cycle of the learning rate, on freshly distorted pictures in every epoch."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = DigitNetwork()
    descent = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.02)
    steps = len(pictures) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(descent, max_lr=4e-3, total_steps=epochs * steps)
    for epoch in range(epochs):
        network.train()
        total = 0.0
        for chosen in torch.randperm(len(pictures), generator=generator)[: steps * batch].split(batch):
            logits = network(distort(pictures[chosen], generator))
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            descent.zero_grad()
            loss.backward()
            descent.step()
            schedule.step()
            total += loss.item() / steps
        print(f"epoch {epoch + 1}/{epochs}: loss {total:.3f}", flush=True)
    return network.eval()


@torch.inference_mode()
def accuracy(network: DigitNetwork, pictures: Tensor, labels: Tensor) -> float:
    """Share of the pictures whose largest logit is the label's."""
    return (network(pictures).argmax(dim=1) == labels).float().mean().item()


def export(network: DigitNetwork, path: Path) -> None:
    """Writes the network as ONNX with a batch axis of any length: constants folded, BatchNormalization kept.

    The exporter's own optimizer would fold BatchNormalization too, and leave irc less to show.
    """
    example = torch.zeros(2, 1, SIDE, SIDE)
    program = torch.onnx.export(
        network,
        (example,),
        input_names=["pictures"],
        output_names=["logits"],
        dynamic_shapes={"pictures": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    for node in program.model.graph.all_nodes():
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)  # It has the paths of this machine.
    program.save(path, external_data=False)


def main() -> None:
    """Trains, tests, exports."""
    parser = argparse.ArgumentParser(description="Train the digits example and write model and data.")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "digits", help="folder for the three files"
    )
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    parts = splits()
    for name in ("calib", "test"):
        pictures, labels = parts[name]
        np.savez_compressed(options.output / f"{name}.npz", pictures=pictures.numpy(), label=labels.numpy())
    network = train(*parts["train"], epochs=options.epochs)
    export(network, options.output / "digits.onnx")
    for name, (pictures, labels) in parts.items():
        print(f"{name}: {len(labels)} pictures, accuracy {accuracy(network, pictures, labels):.4f}")


if __name__ == "__main__":
    main()
