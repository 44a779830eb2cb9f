"""How many samples a repair uses: by size of model and sample, never by a clock."""

from __future__ import annotations

import numpy as np
import pytest
from pruning_models import cnn, mlp

from irc.passes.pruning.repair import effort
from irc.passes.pruning.repair.effort import Effort


def of(batch: int = 1, **changed: int) -> Effort:
    return Effort.of(mlp(64, 64, 64, 8), {"x": np.zeros((batch, 64), np.float32)}, **changed)


def test_a_small_model_uses_all_samples():
    found = of()
    assert found.samples == effort.SAMPLES and found.together == 4 and found.thorough
    assert found.batch == effort.MOST_TOGETHER
    assert found.macs == 64 * 64 * 2 + 64 * 8


def test_compute_and_memory_limit_the_samples(monkeypatch):
    monkeypatch.setattr(effort, "SWEEP_MACS", 100 * of().macs)
    assert of().samples == 100 and not of().thorough
    assert of(2).samples == 50
    monkeypatch.setattr(effort, "SWEEP_MACS", 1.0)
    assert of().samples == effort.LEAST_SAMPLES


def test_memory_limits_how_many_students_go_together(monkeypatch):
    whole = Effort.of(cnn(), {"x": np.zeros((1, 3, 8, 8), np.float32)})
    monkeypatch.setattr(effort, "FRONTIER_BYTES", 1 << 20)
    tight = Effort.of(cnn(), {"x": np.zeros((1, 3, 8, 8), np.float32)})
    assert tight.samples < whole.samples and 1 <= tight.together <= whole.together


@pytest.mark.parametrize("probes", [1, 10, 10_000])
def test_many_probes_get_fewer_samples_each(monkeypatch, probes):
    monkeypatch.setattr(effort, "PROBES_MACS", 200 * of().macs)
    assert of().probe_samples(probes) == min(effort.PROBE_SAMPLES, max(8, 200 // probes))
