"""Latency tables by the clock of the real runtime."""

from __future__ import annotations

import numpy as np
import pruning_models
from latency_table.clocked_tables import attention, feed_of, grouped, kernels, lstm, narrowed

from irc.analysis.channels import channel_groups
from irc.ir import snapshot
from irc.latency_table import LatencyTable
from irc.latency_table.probes import probe_model
from irc.runner import Runner


def test_with_the_runtime():
    model = pruning_models.cnn(width=32)
    groups = channel_groups(snapshot(model))
    shares = []
    with Runner(threads=1) as runner:
        table = LatencyTable.measured(runner, groups, feed_of(model), seconds=0.05, progress=shares.append)
        half = narrowed(groups, [family.width // 2 for family in groups.families])
        assert table.milliseconds(half) > 0
        assert set(table.node_milliseconds(half)) <= set(groups.propagation.model.graph)
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert {name.split()[0] for name in table.probes.times} == {"Conv", "Gemm"}
    assert all(spent > 0 for spent in table.probes.times.values())
    products = {kernel.node for one in table._timed for kernel in one.kernels}
    assert products == set(groups.propagation.products)


def test_every_kind_of_probe_runs():
    operators = [
        kernel.at(kernel.whole) for build in (attention, lstm, grouped) for kernel in kernels(build())[1].values()
    ]
    model, feed = probe_model(operators, 20, filler=64)
    with Runner(threads=1) as runner, runner.open(model) as opened:
        made = opened.run(feed)
    assert len(made) == len({operator.op_type for operator in operators}) + len(operators) + 1
    assert all(np.isfinite(array).all() for array in made.values())
