"""How far a student's outputs are from its teacher's on samples held out: what repairs and allocations are chosen by.

Smooth, so that small changes show on few samples, and by what an output is for:

    class scores    mean KL(p || q)                    p, q: the distributions of teacher and student, in nats
    embeddings      mean (1 - cos(y, y'))
    anything else   sum |y - y'|^2 / sum |y - mean|^2
    integers        the share that differs, where there are no other outputs

Of several outputs the worst counts. An accuracy on the same few samples would be too coarse to choose by, and there are no labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from irc.judge.class_probabilities import decisions, entropies, log_probabilities
from irc.judge.classifier import ClassScores, class_scores, is_state, looks_like_classes
from irc.judge.embedding import is_embedding
from irc.passes.pruning.repair.batches import Batch
from irc.runner import Opened, Runner

Array = np.ndarray[Any, Any]
Reading = ClassScores | Literal["embedding", "values", "integers"]
MOST_POSITIONS = 4096
"""Vectors or decisions of a batch that are compared."""
ENOUGH_SAMPLES = 64
"""To tell by the teacher's outputs whether they are class scores."""
REFERENCE_BYTES = 1 << 29
"""Of the teacher's outputs; batches beyond it are not looked at."""


class OutputDistance:
    """The distance of students from one teacher.

    Args:
        teacher: The model before the cut.
        runner: Where models run.
        batches: Samples held out.
        others: Samples that also tell what outputs are for, where those held out are few.
    """

    def __init__(
        self, teacher: ir.Model, runner: Runner, batches: Sequence[Batch], others: Sequence[Batch] = ()
    ) -> None:
        self._runner, self._batches = runner, batches
        outputs = [value for value in teacher.graph.outputs if isinstance(value.type, ir.TensorType)]
        outputs = [value for value in outputs if not is_state(value.name or "")] or outputs
        names = [str(value.name) for value in outputs]
        found: list[Mapping[str, Any]] = []
        size = 0
        with runner.open(teacher) as opened:
            for batch in batches:
                found.append(opened.run(batch.feed, names))
                size += sum(np.asarray(array).nbytes for array in found[-1].values())
                if size > REFERENCE_BYTES:
                    break
            seen, more = sum(batch.samples for batch in batches), []
            for batch in others:
                if seen >= ENOUGH_SAMPLES or size > REFERENCE_BYTES:
                    break
                more.append(opened.run(batch.feed, names))
                seen, size = seen + batch.samples, size + sum(np.asarray(a).nbytes for a in more[-1].values())
        self._batches = batches[: len(found)]
        self._kinds = (
            "f" if any(np.asarray(array).dtype.kind == "f" for part in found for array in part.values()) else "biu"
        )
        self._reference = [self._looked_at(part) for part in found]
        self._witnesses = [*self._reference, *map(self._looked_at, more)]
        floating = [v for v in outputs if all(str(v.name) in found for found in self._reference)]
        self._readings = {str(value.name): self._reading(value) for value in floating}
        del self._witnesses
        self._names = list(self._readings)

    def describe(self) -> str:
        """What the distance is, in words."""
        kinds = {
            "KL"
            if isinstance(r, ClassScores)
            else {"embedding": "cosine distance", "integers": "disagreement"}.get(r, "output error")
            for r in self._readings.values()
        }
        return kinds.pop() if len(kinds) == 1 else "output distance"

    def __call__(self, student: ir.Model, *, batches: int | None = None) -> float:
        """The distance of a student's worst output; infinity if it is not finite where the teacher is.

        Args:
            student: Any model with the same inputs and outputs.
            batches: How many batches to look at; by default all.
        """
        with self._runner.open(student) as opened:
            return self.of(opened, batches=batches)

    def of(self, student: Opened, *, batches: int | None = None) -> float:
        """Likewise, of a student that is open."""
        sums = {name: np.zeros(2) for name in self._names}
        for batch, reference in list(zip(self._batches, self._reference, strict=True))[:batches]:
            found = self._looked_at(student.run(batch.feed, self._names)) if self._names else {}
            for name, reading in self._readings.items():
                if name not in found or found[name].shape != reference[name].shape:
                    return math.inf
                sums[name] += _compared(reference[name], found[name], reading)
        values = [total / max(count, 1e-30) for total, count in sums.values()]
        return float(max(values, default=0.0)) if all(map(math.isfinite, values)) else math.inf

    def _reading(self, value: ir.Value) -> Reading:
        name = str(value.name)
        if self._kinds != "f":
            return "integers"
        if is_embedding(value):
            return "embedding"
        reading = class_scores(value)
        if reading is None:
            return "values"
        if reading.confirmed:
            return reading
        entropy, best = [], []
        for found in (part for part in self._witnesses if name in part):
            log_p = log_probabilities(_some(decisions(found[name], reading)), reading)
            entropy.append(entropies(log_p))
            best.append(log_p.argmax(axis=1))
        chosen = np.concatenate(best)
        classes = int(decisions(self._reference[0][name], reading).shape[1])
        mean = float(np.concatenate(entropy).mean())
        believable = looks_like_classes(mean, classes, len(np.unique(chosen)), len(chosen))
        return reading if believable else "values"

    def _looked_at(self, outputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs that are looked at: of a kind, and with elements."""
        arrays = {name: np.asarray(value) for name, value in outputs.items()}
        return {name: array for name, array in arrays.items() if array.dtype.kind in self._kinds and array.size}


def _compared(reference: Array, found: Array, reading: Reading) -> Array:
    """A sum and what it is to be divided by."""
    if isinstance(reading, ClassScores):
        mine, theirs = (_some(decisions(array, reading)) for array in (reference, found))
        log_p, log_q = log_probabilities(mine, reading), log_probabilities(theirs, reading)
        known = np.isfinite(log_p)
        gap = np.where(known, log_p, 0.0) - np.where(known, log_q, 0.0)
        return np.array([float((np.exp(log_p) * gap).sum()), float(len(log_p))])
    if reading == "integers":
        return np.array([float((reference != found).sum()), float(reference.size)])
    mine, theirs = (array.astype(np.float64) for array in (reference, found))
    if reading == "embedding":
        mine, theirs = (_some(array.reshape(-1, array.shape[-1])) for array in (mine, theirs))
        lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
        # Where both are zero, nothing has changed.
        same = (mine == theirs).all(axis=1)
        cosine = np.where(same, 1.0, (mine * theirs).sum(axis=1) / np.maximum(lengths, 1e-30))
        return np.array([float((1 - cosine).sum()), float(len(mine))])
    around = mine - mine.mean(axis=0, keepdims=True) if len(mine) > 1 else mine
    energy = float(np.square(around).sum()) or float(np.square(mine).sum())
    return np.array([float(np.square(mine - theirs).sum()), energy])


def _some(matrix: Array) -> Array:
    """Evenly spread rows, where there are very many."""
    if len(matrix) <= MOST_POSITIONS:
        return matrix
    return matrix[np.linspace(0, len(matrix) - 1, MOST_POSITIONS).astype(np.int64)]
