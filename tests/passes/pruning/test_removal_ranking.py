"""The order in which atoms go when what stays takes over."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import model_of, random_weight
from pruning_models import attention, cnn
from repair_kit import CHAIN, chain, feeds, source

from irc.analysis.channels import ChannelGroups, propagate
from irc.pass_base import Context
from irc.passes.pruning.removal_ranking import removal_ranking
from irc.passes.pruning.repair.repairer import Repairer


def ranked(model, runner, *sizes, mode="rows", found=None):
    """Rankings by the names of families."""
    propagation = propagate(model)
    groups = ChannelGroups(propagation, mode)
    repairer = Repairer(propagation, Context(data=source(found or feeds(model, *sizes, count=10)), runner=runner))
    return {family.name: (family, removal_ranking(family, groups, repairer)) for family in groups.families}


def weights(model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}


def test_all_atoms_are_ranked_and_worth_is_in_units_of_its_mean(runner):
    for family, ranking in ranked(cnn(), runner, {"n": 3}).values():
        assert sorted(ranking.order.ravel()) == sorted(family.atoms)
        assert ranking.worth.mean() == pytest.approx(1) and (ranking.worth >= 0).all()


def test_dead_and_doubled_channels_go_first(runner):
    """Channel 4 gives nothing, 7 is channel 2 again: neither is missed, although both weigh as much as any."""
    mine = weights(chain())
    mine["w0"][:, 4], mine["b0"][4] = 0, -1
    mine["w0"][:, 7], mine["b0"][7] = mine["w0"][:, 2], mine["b0"][2]
    family, ranking = ranked(model_of(CHAIN, mine), runner, {"n": 40})["a"]
    last = {int(np.flatnonzero(family.atoms == atom)[0]) for atom in ranking.order[0, -2:]}
    assert 4 in last and last - {4} <= {2, 7} and len(last) == 2
    assert ranking.worth[-2:].max() < 0.1


def test_a_sum_of_others_is_not_missed_by_what_reads_it_linearly(runner):
    """No criterion that looks at one channel at a time sees that channel 0 is the mean of 1 and 2."""
    text = "agraph (float[n, 6] x) => (float[n, 3] y) { a = MatMul(x, w0)  y = Gemm(a, w1, b1) }"
    w0 = random_weight(6, 6)
    w0[:, 0] = (w0[:, 1] + w0[:, 2]) / 2
    model = model_of(text, {"w0": w0, "w1": random_weight(6, 3), "b1": random_weight(3)})
    family, ranking = ranked(model, runner, {"n": 40})["a"]
    assert int(np.flatnonzero(family.atoms == ranking.order[0, -1])[0]) in (0, 1, 2) and ranking.worth[-1] < 0.05


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_cells_go_in_turns(runner, mode):
    for family, ranking in ranked(attention(), runner, {"n": 2, "t": 6}, mode=mode).values():
        if ranking is None:
            continue
        assert ranking.order.shape == (family.cell_count, family.width)
        for cell, row in enumerate(ranking.order):
            assert sorted(row) == sorted(family.atoms[family.cells == cell])


def test_what_no_weight_reads_has_no_ranking(runner):
    """Dimensions of queries and keys meet each other."""
    found = ranked(attention(), runner, {"n": 2, "t": 6}, mode="columns")
    assert any(ranking is None for _family, ranking in found.values())
    assert any(ranking is not None for _family, ranking in found.values())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_ranked_by(runner, value):
    mine = weights(chain())
    mine["w1"][3, 3] = value
    assert ranked(model_of(CHAIN, mine), runner, {"n": 9})["a"][1] is None
    found = feeds(chain(), {"n": 9})
    found[0]["x"][0, 0] = value
    assert all(ranking is None for _family, ranking in ranked(chain(), runner, found=found).values())


def test_twice_is_the_same(runner):
    first, second = (ranked(cnn(), runner, {"n": 3}) for _ in range(2))
    for name in first:
        assert np.array_equal(
            first[name][1].order - first[name][0].atoms.min(), second[name][1].order - second[name][0].atoms.min()
        )
        assert np.array_equal(first[name][1].worth, second[name][1].worth)
