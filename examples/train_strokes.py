"""Train the transformer of `examples/strokes` and write the model and its data.

    pip install "torch==2.13.0" scikit-learn onnx onnxscript
    python examples/train_strokes.py --output examples/strokes

The same digits as in `train_digits.py`, told as sentences: one token per inked pixel, which says where the pixel is and
how dark. Sentences have 16 to 42 tokens, so this is what a text model looks like to irc: token ids, an attention mask,
an embedding table that is a good part of the weights, and samples of different length, which
`examples/strokes/feeds.py` hands out one by one.

Takes about three minutes on two cores. The seeds are fixed; another processor may still round differently.
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
PIXELS, LEVELS = 64, 8
WIDTH, HEADS, LAYERS = 96, 4, 2
CALIBRATION_SAMPLES = 640
TEST_SAMPLES = 360
OPSET = 20


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each normalized first: [N, length, WIDTH] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.output = nn.Linear(WIDTH, WIDTH)
        self.expand, self.contract = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`bias` [N, 1, 1, length] is 0 for tokens and very negative for padding."""
        y = self.norm1(x)
        q, k, v = (
            f(y).reshape(y.shape[0], y.shape[1], HEADS, WIDTH // HEADS).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + bias
        attended = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(x.shape)
        x = x + self.dropout(self.output(attended))
        z: Tensor = x + self.dropout(self.contract(functional.gelu(self.expand(self.norm2(x)))))
        return z


class StrokeNetwork(nn.Module):
    """A transformer of 0.3 million parameters: token ids and mask [N, length] -> [N, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(PIXELS * LEVELS, WIDTH)
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, 10)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the ten digits from the mean over the tokens."""
        mask = attention_mask.to(torch.float32)
        bias = (1.0 - mask)[:, None, None, :] * -1e4
        x = self.embedding(token_ids)
        for layer in self.layers:
            x = layer(x, bias)
        mean = (self.norm(x) * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        logits: Tensor = self.classifier(mean)
        return logits


def sentences(pictures: np.ndarray) -> list[np.ndarray]:
    """The tokens of pictures [N, 64] of grey levels 0..16: 8 * pixel + (level - 1) // 2 for each inked pixel."""
    found = []
    for picture in pictures.astype(np.int64):
        pixels = np.flatnonzero(picture)
        found.append(pixels * LEVELS + (picture[pixels] - 1) // 2)
    return found


def shifted(pictures: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Pictures, every third moved by a pixel, and made a little lighter or darker where they are inked."""
    moved = pictures.reshape(-1, 8, 8).copy()
    for i in np.flatnonzero(generator.random(len(moved)) < 1 / 3):
        dy, dx = generator.integers(0, 3, size=2)
        moved[i] = np.pad(moved[i], 1)[dy : dy + 8, dx : dx + 8]
    flat = moved.reshape(pictures.shape)
    noisy = np.clip(flat + generator.integers(-2, 3, size=flat.shape), 1, 16)
    return np.where(flat > 0, noisy, 0)


def padded(chosen: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Token ids and mask [N, longest], 0 where a sentence has ended."""
    ids = np.zeros((len(chosen), max(map(len, chosen))), np.int64)
    mask = np.zeros_like(ids)
    for row, sentence in enumerate(chosen):
        ids[row, : len(sentence)], mask[row, : len(sentence)] = sentence, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def train(pictures: np.ndarray, labels: np.ndarray, *, epochs: int, batch: int = 64) -> StrokeNetwork:
    """Trains with AdamW and one cycle of the learning rate, on freshly shifted pictures in every epoch."""
    torch.manual_seed(SEED)
    generator = np.random.default_rng(SEED)
    network = StrokeNetwork()
    descent = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    steps = len(pictures) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(descent, max_lr=3e-3, total_steps=epochs * steps)
    for epoch in range(epochs):
        network.train()
        total = 0.0
        tokens, order = sentences(shifted(pictures, generator)), generator.permutation(len(pictures))
        for chosen in order[: steps * batch].reshape(steps, batch):
            logits = network(*padded([tokens[i] for i in chosen]))
            loss = functional.cross_entropy(logits, torch.from_numpy(labels[chosen]), label_smoothing=0.05)
            descent.zero_grad()
            loss.backward()
            descent.step()
            schedule.step()
            total += loss.item() / steps
        print(f"epoch {epoch + 1}/{epochs}: loss {total:.3f}", flush=True)
    return network.eval()


def export(network: StrokeNetwork, path: Path) -> None:
    """Writes the network as ONNX, any batch and any length, constants folded."""
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=2, max=PIXELS)
    program = torch.onnx.export(
        network,
        padded([np.arange(5), np.arange(3)]),
        input_names=["token_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes={"token_ids": {0: batch, 1: length}, "attention_mask": {0: batch, 1: length}},
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
    parser = argparse.ArgumentParser(description="Train the strokes example and write model and data.")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "strokes", help="folder for the two files"
    )
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    digits = load_digits()
    pictures, labels = digits.data.astype(np.int64), digits.target.astype(np.int64)
    rest, test = train_test_split(np.arange(len(labels)), test_size=TEST_SAMPLES, random_state=SEED, stratify=labels)
    chosen, calib = train_test_split(rest, test_size=CALIBRATION_SAMPLES, random_state=SEED, stratify=labels[rest])
    network = train(pictures[chosen], labels[chosen], epochs=options.epochs)
    export(network, options.output / "strokes.onnx")
    arrays: dict[str, np.ndarray] = {}
    for name, indices in (("calibration", calib), ("test", test)):
        tokens = sentences(pictures[indices])
        arrays[f"{name}_ids"] = np.concatenate(tokens).astype(np.int16)
        arrays[f"{name}_lengths"] = np.array([len(sentence) for sentence in tokens], np.int16)
        arrays[f"{name}_labels"] = labels[indices]
        with torch.inference_mode():
            right = network(*padded(tokens)).argmax(dim=1).numpy() == labels[indices]
        print(
            f"{name}: {len(right)} sentences of {min(map(len, tokens))} to {max(map(len, tokens))}, {right.mean():.4f}"
        )
    np.savez_compressed(options.output / "sentences.npz", **arrays)


if __name__ == "__main__":
    main()
