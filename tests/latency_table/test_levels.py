"""Widths at which a latency table steps."""

from __future__ import annotations

import pruning_models
import pytest
from latency_table.clocked_tables import Clock, attention, feed_of, grouped, measured, narrowed

from irc.analysis.channels import ChannelGroups, channel_groups
from irc.errors import UsageError
from irc.ir import snapshot
from irc.latency_table import LatencyTable


def test_levels_are_the_right_edges_of_steps():
    table, groups = measured(pruning_models.cnn(width=48))
    levels = {family.width: table.levels(family) for family in groups.families}
    assert levels == {48: (48, 32, 16), 32: (32, 16)}


def test_without_blocks_or_convolutions_every_width_is_a_level():
    table, groups = measured(pruning_models.cnn(width=48), clock=Clock(block=1))
    assert table.baseline.block == 1
    assert all(table.levels(family) == tuple(range(family.width, 0, -1)) for family in groups.families)
    table, groups = measured(pruning_models.mlp(8, 20, 4))
    assert table.levels(groups.families[0]) == tuple(range(20, 0, -1))


def test_levels_of_blocks_of_eight():
    table, groups = measured(pruning_models.cnn(width=20), clock=Clock(block=8))
    assert {family.width: table.levels(family) for family in groups.families} == {20: (20, 16, 8), 32: (32, 24, 16, 8)}


def test_levels_of_groups_count_their_channels():
    """16 channels per group and 4 groups: a block is one member of 16 of 64 or four of each group."""
    table, groups = measured(grouped(), mode="columns")
    for family in groups.families:
        per_width = {64: 1, 16: 4, 4: 16}[family.width]
        assert all(per_width * width % 16 == 0 for width in table.levels(family))


def test_a_family_of_another_analysis_has_no_levels():
    table, _groups = measured(pruning_models.mlp(8, 16, 4))
    other = channel_groups(pruning_models.mlp(8, 16, 4)).families[0]
    with pytest.raises(UsageError, match="another analysis"):
        table.levels(other)


def test_modes_of_one_propagation_are_known_together():
    model = attention()
    rows = channel_groups(snapshot(model))
    columns = ChannelGroups(rows.propagation, "columns")
    table = LatencyTable.measured(Clock(), rows, feed_of(model), also=[columns])
    assert table.levels(columns.families[0])[0] == columns.families[0].width
    assert table.milliseconds(narrowed(columns, [4] * len(columns.families))) < table.milliseconds()
