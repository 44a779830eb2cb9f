"""What recurrent operators read of a family: their atoms go in the order of what that costs them too."""

from __future__ import annotations

import numpy as np
import pytest
from recurrent_kit import FEATURES, KINDS, UNITS, WAYS, recurrent, weights_of
from repair_kit import apart, chain, feeds

from irc.analysis.channels import ChannelGroups, propagate
from irc.calibration.block_removal import removal_path
from irc.passes.pruning.repair.recurrent_layers import RecurrentLayers
from irc.passes.pruning.repair.recurrent_moments import RecurrentMoments
from irc.passes.pruning.repair.recurrent_readers import recurrent_readers


def readers_of(runner, model):
    """The families of inputs and of units, each with what reads them."""
    propagation = propagate(model)
    groups = ChannelGroups(propagation, "rows")
    layers = RecurrentLayers(propagation)
    moments = RecurrentMoments(model, runner, apart(feeds(model, {"n": 6}, count=12)))
    inputs, units = sorted(groups.families, key=lambda family: family.name != "h")
    return [(family, list(recurrent_readers(family, groups, layers, moments))) for family in (inputs, units)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_product_reads_the_atoms_of_its_direction(runner, kind, way):
    (_inputs, by_input), (units, by_state) = readers_of(runner, recurrent(kind, way))
    directions = 2 if way == "bidirectional" else 1
    per_direction = {"RNN": 1, "LSTM": 1, "GRU": 2}[kind.partition(",")[0]]
    assert len(by_input) == len(by_state) == directions * per_direction
    for reader in by_input:
        assert sorted(reader.blocks[reader.blocks >= 0]) == list(range(FEATURES))
        assert len(reader.blocks) == reader.weight.shape[1] and reader.gram.shape == (len(reader.blocks),) * 2
    seen = [sorted(reader.blocks[reader.blocks >= 0]) for reader in by_state]
    assert len(units.atoms) == directions * UNITS
    assert all(len(blocks) == UNITS and len(set(units.cells[blocks])) == 1 for blocks in seen)
    assert {block for blocks in seen for block in blocks} == set(range(directions * UNITS))


@pytest.mark.parametrize("kind", KINDS)
def test_units_that_others_double_go_first(runner, kind):
    weights = weights_of(kind)
    for name in ("W", "R", "B"):
        parts = weights[name].reshape(1, -1, UNITS, *weights[name].shape[2:])
        parts[:, :, 3] = parts[:, :, 0]
        parts[:, :, 5] = parts[:, :, 1]
    _inputs, (_units, readers) = readers_of(runner, recurrent(kind, weights=weights))
    path = removal_path(readers, damping=1e-6)
    first = path.order[:2].tolist()
    assert len({0, 3} & set(first)) == len({1, 5} & set(first)) == 1
    assert path.errors[2] < 1e-4 < 10 * path.errors[3]


def test_nothing_reads_where_there_is_none_or_nothing_finite(runner):
    model = recurrent("GRU", weights={"R": np.full((1, 3 * UNITS, UNITS), np.nan, np.float32)})
    assert [readers for _family, readers in readers_of(runner, model)] == [[], []]
    propagation = propagate(chain())
    groups = ChannelGroups(propagation, "rows")
    for family in groups.families:
        assert not list(recurrent_readers(family, groups, RecurrentLayers(propagation), None))  # type: ignore[arg-type]
