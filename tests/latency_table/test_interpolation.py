"""Points that stand for a size that was not measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.latency_table.interpolation import crossed, linear, odd, stairs


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_linear_grid_gives_back_what_is_linear(size, more):
    full = size + more
    points = linear(size, full)
    assert sum(share for _point, share in points) == pytest.approx(1)
    assert sum(point * share for point, share in points) == pytest.approx(size)
    assert all(0 < point <= full for point, _share in points)


@given(st.integers(1, 5000))
def test_points_between_blocks_are_odd(size):
    points = odd(size)
    assert sum(point * share for point, share in points) == pytest.approx(size)
    assert size <= 17 or all(point % 2 and point >= 17 for point, _share in points)


@given(st.integers(1, 5000), st.sampled_from([8, 16]))
def test_steps_are_rounded_up_and_then_interpolated(size, block):
    points = stairs(size, block)
    assert all(point % block == 0 for point, _share in points)
    assert sum(point * share for point, share in points) == pytest.approx(-(-size // block) * block)
    assert size > 8 * block or len(points) == 1


def test_few_points_per_octave():
    assert len({point for size in range(1, 4097) for point, _share in linear(size, 4096)}) < 60
    assert len({point for size in range(1, 4097) for point, _share in stairs(size, 16)}) < 35


def test_corners_of_a_cell():
    found = dict(crossed([[(1, 0.25), (2, 0.75)], [(5, 1.0)], [(7, 0.5), (9, 0.5)]]))
    assert found == {(1, 5, 7): 0.125, (1, 5, 9): 0.125, (2, 5, 7): 0.375, (2, 5, 9): 0.375}
