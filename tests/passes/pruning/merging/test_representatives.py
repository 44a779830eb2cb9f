"""In which order channels go into which others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.passes.pruning.merging.representatives import merge_path, representatives


def test_members_move_on_when_their_representative_goes():
    lost = np.array([[0, 1, 9, 5], [1, 0, 9, 2], [9, 9, 0, 9], [5, 2, 9, 0]], float)
    path = merge_path(lost)
    assert path.order[1:].tolist()[::-1][0] == 0  # 0 goes into 1 for 1; then 3 into 1 for 2
    assert path.added[-1] == 1 and path.added[-2] == 2 and np.isinf(path.added[0]) and path.least == 1
    gone, into = representatives(lost, np.array([False, False, True, True]))
    assert gone.tolist() == [0, 1] and into.tolist() == [3, 3]


@given(st.integers(2, 9), st.integers(0, 1 << 30), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_added_is_what_the_loss_grows_by(count, seed, holes):
    rng = np.random.default_rng(seed)
    lost = rng.random((count, count))
    if holes:
        lost[rng.random((count, count)) < 0.5] = np.inf
    path = merge_path(lost)
    before = 0.0
    for left in range(count - 1, path.least - 1, -1):
        kept = np.isin(np.arange(count), path.order[:left])
        gone, into = representatives(lost, kept)
        assert (into >= 0).all()
        now = float(lost[gone, into].sum())
        assert now - before == pytest.approx(path.added[left])
        before = now


def test_nothing_alike_leaves_the_order_empty():
    path = merge_path(np.full((4, 4), np.inf))
    assert path.least == 4 and sorted(path.order.tolist()) == [0, 1, 2, 3]
