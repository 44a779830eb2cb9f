"""The samples of the strokes example, one sentence at a time: data for `--data feeds.py:calibration`.

A function that yields dictionaries is the way to give irc samples of different length, or any that are not `.npz`
files. The arrays named like inputs of the model are fed to it; `label` is none of them, so it is the label.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

SENTENCES = Path(__file__).parent / "sentences.npz"


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """640 sentences that the network was not trained on."""
    yield from _feeds("calibration")


def test() -> Iterator[dict[str, np.ndarray]]:
    """360 more, for a last look."""
    yield from _feeds("test")


def _feeds(part: str) -> Iterator[dict[str, np.ndarray]]:
    with np.load(SENTENCES) as arrays:
        ids, lengths, labels = (arrays[f"{part}_{name}"] for name in ("ids", "lengths", "labels"))
    for sentence, label in zip(np.split(ids, np.cumsum(lengths)[:-1]), labels, strict=True):
        token_ids = sentence.astype(np.int64)[None]
        yield {"token_ids": token_ids, "attention_mask": np.ones_like(token_ids), "label": label[None]}
