"""Layouts say of every element which channel it belongs to: moving the layout is moving an array of channel numbers."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.passes.quantization.channel_layout import Layout, factors


def spread(layout: Layout, shape: list[int]) -> np.ndarray:
    """The channel of every element of a value."""
    return np.broadcast_to(layout.over(len(shape)), shape)


@st.composite
def laid_out(draw: st.DrawFn) -> tuple[list[int], Layout]:
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=2, max_size=4))
    axis = draw(st.integers(0, len(shape) - 1))
    shape[axis] = max(shape[axis], 2)
    return shape, Layout.of([axis], np.arange(shape[axis]))


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[list[int], Layout, list[int]]:
    shape, layout = draw(laid_out())
    rest, new = math.prod(shape), []
    while rest > 1 and len(new) < 4:
        new.append(draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0])))
        rest //= new[-1]
    return shape, layout, [*new, rest]


@settings(deadline=None)
@given(reshapes())
def test_reshape_and_back(case: tuple[list[int], Layout, list[int]]) -> None:
    old, layout, new = case
    there = layout.reshaped(old, new)
    assert there is not None
    np.testing.assert_array_equal(spread(there, new), spread(layout, old).reshape(new))
    back = there.reshaped(new, old)
    assert back is not None
    np.testing.assert_array_equal(spread(back, old), spread(layout, old))


@settings(deadline=None)
@given(laid_out(), st.randoms(use_true_random=False))
def test_transpose_and_back(case: tuple[list[int], Layout], random: object) -> None:
    shape, layout = case
    order = list(range(len(shape)))
    random.shuffle(order)  # type: ignore[attr-defined]
    turned = layout.transposed(order)
    np.testing.assert_array_equal(
        spread(turned, [shape[axis] for axis in order]), spread(layout, shape).transpose(order)
    )
    assert turned.before_transpose(order).same(layout)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 4))
def test_a_stretch_of_a_longer_value(size: int, before: int, after: int) -> None:
    layout = Layout((1,), np.arange(size))
    longer = layout.inside(1, before, before + size + after)
    assert longer.part(1, before, size).same(layout)
    assert np.count_nonzero(longer.channels >= 0) == size
    scales = np.arange(2, 2 + size, dtype=np.float32)
    found = factors(scales, longer.channels)
    np.testing.assert_array_equal(found, [1] * before + scales.tolist() + [1] * after if before + after else scales)


def test_symbols_match_where_they_are_equal() -> None:
    from onnx_ir import SymbolicDim

    n, s, unknown = SymbolicDim("n"), SymbolicDim("s"), SymbolicDim(None)
    last = Layout((2,), np.arange(6))
    heads = last.reshaped([n, s, 6], [n, s, 2, 3])
    assert heads is not None and heads.axes == (2, 3)
    flat = last.reshaped([n, s, 6], [unknown, 6])
    assert flat is not None and flat.axes == (1,)
    first = Layout((1,), np.arange(4)).reshaped([n, 4, s, unknown], [n, 4, unknown])
    assert first is not None and first.axes == (1,)
    assert Layout((1,), np.arange(4)).reshaped([n, 4, s], [n, unknown]) is None
    merged = Layout((1,), np.arange(2)).reshaped([n, 2, 3], [n, 6])
    assert merged is not None and merged.channels.tolist() == [0, 0, 0, 1, 1, 1]
