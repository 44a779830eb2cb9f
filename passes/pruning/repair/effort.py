"""How many samples a model is repaired with, such that large models take minutes and no more memory than most machines have.

A repair sweeps the teacher and a few students over the samples, values of all samples kept where the sweep stands; a probe is a student
run on some samples held out, once per family. Both are counted in multiply-accumulates and bytes, never in seconds: the same model and data
give the same samples on any machine.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from irc.analysis.activation_memory import peak_memory
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.analysis.model_cost import cost_of
from irc.analysis.weights import Weights
from irc.calibration.data import Feed
from irc.calibration.memory_packing import sizes_of

SAMPLES = 1024
LEAST_SAMPLES = 32
SWEEP_MACS = 1.5e12
"""Multiply-accumulates of one sweep of one model."""
PROBES_MACS = 2e12
"""Of all probes together."""
PROBE_SAMPLES = 128
BATCH_MACS = 1e11
"""Of the samples that are run at once."""
MOST_TOGETHER = 64
FRONTIER_BYTES = 2 << 30
"""Values of all models that are swept side by side."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """What one repair may use.

    Attributes:
        samples: Most samples, those held out included.
        together: How many students are swept beside a teacher.
        macs: Of one sample.
        thorough: Whether there is time for several probes of a family and all ways to fit; not where compute limits the samples.
    """

    samples: int
    together: int
    macs: int
    thorough: bool

    @classmethod
    def of(cls, model: ir.Model, feed: Feed, *, students: int = 4) -> Effort:
        """What a model of this size and samples of this shape allow.

        Args:
            model: The teacher.
            feed: A sample.
            students: How many there are to be at most.
        """
        shapes, weights = ConcreteShapes(model, sizes_of(model, feed)), Weights(model)
        macs = max(1, cost_of(shapes, weights).macs)
        peak = peak_memory(shapes, weights)
        each = max(1, peak.size_bytes if peak is not None else 0)
        samples = int(
            min(SAMPLES, max(LEAST_SAMPLES, SWEEP_MACS // macs), max(LEAST_SAMPLES, FRONTIER_BYTES // (2 * each)))
        )
        together = int(max(1, min(students, FRONTIER_BYTES // (samples * each) - 1)))
        return cls(samples, together, macs, SWEEP_MACS // macs >= SAMPLES)

    @property
    def batch(self) -> int:
        """Most samples that are run at once: of large models few, so that a probe need not run many."""
        return int(min(MOST_TOGETHER, max(1, BATCH_MACS // self.macs)))

    def probe_samples(self, probes: int) -> int:
        """On how many samples each of so many students is tried."""
        return int(min(PROBE_SAMPLES, max(8, PROBES_MACS // (self.macs * max(1, probes)))))
