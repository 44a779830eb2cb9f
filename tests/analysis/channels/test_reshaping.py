"""Labels through Reshape: what the labels of the result say is what carrying out the reshape on data says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.constraints import Constraints
from irc.analysis.channels.reshaping import blocks, reshaped
from irc.analysis.channels.solution import solve


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two lists of sizes with the same product."""
    factors = draw(st.lists(st.sampled_from([2, 3, 5, 1]), min_size=1, max_size=5))

    def grouped() -> list[int]:
        sizes, at = [], 0
        while at < len(factors):
            count = draw(st.integers(1, len(factors) - at))
            sizes.append(math.prod(factors[at : at + count]))
            at += count
        return sizes

    return grouped(), grouped()


@given(reshapes())
def test_blocks_cover_all_axes_in_order_with_equal_products(case: tuple[list[int], list[int]]) -> None:
    before, after = case
    found = blocks(before, after)
    assert [a for inputs, _ in found for a in inputs] == list(range(len(before)))
    assert [a for _, outputs in found for a in outputs] == list(range(len(after)))
    for inputs, outputs in found:
        assert math.prod(before[a] for a in inputs) == math.prod(after[a] for a in outputs)


def test_blocks_are_smallest() -> None:
    assert blocks([2, 12, 5], [2, 3, 4, 5]) == [([0], [0]), ([1], [1, 2]), ([2], [3])]


@pytest.mark.parametrize("after", [[7], [0, 6]])
def test_blocks_of_unlike_sizes_are_an_error(after: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot be reshaped"):
        blocks([2, 3], after)


@given(reshapes(), st.data())
def test_every_element_keeps_its_label(case: tuple[list[int], list[int]], data: st.DataObject) -> None:
    before, after = case
    wide = [axis for axis, size in enumerate(before) if size > 1]
    if not wide:
        return
    axis = data.draw(st.sampled_from(wide))
    constraints = Constraints()
    bundle = constraints.fresh_bundle([axis], [before[axis]])
    result = reshaped(constraints, Labelled(tuple(before), (bundle,)), after, "Reshape 'y'")
    assert result.dims == tuple(after)
    elements = _elements(Labelled(tuple(before), (bundle,))).reshape(after)
    assert (_elements(result) == elements).all()
    assert not constraints.pins


def _elements(tensor: Labelled) -> np.ndarray:  # type: ignore[type-arg]
    """The label of every element of a tensor with one bundle."""
    (bundle,) = tensor.bundles
    axes, labels, _factors = bundle.physical()
    return np.broadcast_to(
        labels.reshape([size if axis in axes else 1 for axis, size in enumerate(tensor.dims)]), tensor.dims
    )


def test_heads_are_rows_and_dimensions_members_wherever_they_lie() -> None:
    constraints = Constraints()
    hidden = Labelled((2, 7, 12), (constraints.fresh_bundle([2], [12]),))
    split = reshaped(constraints, hidden, (2, 7, 3, 4), "Reshape 'h'").transposed((0, 3, 1, 2))
    (bundle,) = split.bundles
    assert bundle.axes == (3, 1)
    assert constraints.cut_position(bundle.factors, "rows") == 0
    assert constraints.cut_position(bundle.factors, "columns") == 1


def test_splitting_rows_again_keeps_them_before_members() -> None:
    constraints = Constraints()
    tensor = Labelled((12,), (constraints.fresh_bundle([0], [12]),))
    tensor = reshaped(constraints, tensor, (4, 3), "a")
    tensor = reshaped(constraints, tensor, (2, 2, 3), "b")
    (bundle,) = tensor.bundles
    assert constraints.order(bundle.factors) == [0, 1, 2]
    assert constraints.cut_position(bundle.factors, "rows") == 0


def test_a_merge_in_another_order_makes_columns_alike() -> None:
    constraints = Constraints()
    tensor = reshaped(constraints, Labelled((12,), (constraints.fresh_bundle([0], [12]),)), (3, 4), "split")
    labels = tensor.bundles[0].labels
    assert (np.diff(np.sort(solve(constraints, "columns").class_of[labels].ravel())) > 0).all()
    reshaped(constraints, tensor.transposed((1, 0)), (12,), "shuffle")
    found = solve(constraints, "columns").class_of[labels]
    assert (found == found[:1]).all()
    assert len(np.unique(found)) == 4


def test_a_merge_in_the_same_order_does_not() -> None:
    constraints = Constraints()
    tensor = reshaped(constraints, Labelled((12,), (constraints.fresh_bundle([0], [12]),)), (3, 4), "split")
    labels = tensor.bundles[0].labels
    reshaped(constraints, tensor, (12,), "merge")
    assert len(np.unique(solve(constraints, "columns").class_of[labels])) == 12


def test_of_two_independent_indices_one_is_cut_in_each_mode() -> None:
    constraints = Constraints()
    tensor = Labelled((3, 4), (constraints.fresh_bundle([0], [3]), constraints.fresh_bundle([1], [4])))
    (merged,) = reshaped(constraints, tensor, (12,), "Reshape 'y'").bundles
    assert merged.labels.shape == (12,)
    for mode, free in (("rows", 0), ("columns", 1)):
        solution = solve(constraints, mode)
        pinned = [bool(set(solution.class_of[b.labels].tolist()) & set(solution.pinned)) for b in tensor.bundles]
        assert pinned == [axis != free for axis in (0, 1)]
        classes = solution.class_of[merged.labels.reshape(3, 4)]
        assert len(np.unique(classes)) == tensor.dims[free]


def test_two_large_independent_indices_are_not_merged() -> None:
    constraints = Constraints()
    tensor = Labelled((2048, 1024), (constraints.fresh_bundle([0], [2048]), constraints.fresh_bundle([1], [1024])))
    assert reshaped(constraints, tensor, (2048 * 1024,), "Reshape 'y'").bundles == ()
    assert sum(len(labels) for labels, _reason in constraints.pins) == 3072


def test_sizes_that_do_not_agree_pin() -> None:
    constraints = Constraints()
    tensor = Labelled((2, 12), (constraints.fresh_bundle([1], [12]),))
    assert reshaped(constraints, tensor, (2, 13), "Reshape 'y'").bundles == ()
    assert [reason.kind for _labels, reason in constraints.pins] == ["unlike sizes"]


def test_repeated_labels_come_apart_again() -> None:
    constraints = Constraints()
    bundle = constraints.fresh_bundle([1], [3])
    merged = reshaped(constraints, Labelled((2, 3, 5), (bundle,)), (6, 5), "batch and channels")
    apart = reshaped(constraints, merged, (2, 3, 5), "apart")
    (again,) = apart.bundles
    assert again.axes == (1,)
    assert (again.labels == bundle.labels).all()
    assert again.factors == bundle.factors


def test_bundles_hold_their_labels_by_position() -> None:
    bundle = Bundle((2, 0), np.arange(6).reshape(3, 2), (0, 1))
    axes, labels, factors = bundle.physical()
    assert axes == (0, 2)
    assert (labels == np.arange(6).reshape(3, 2).T).all()
    assert factors == (1, 0)
    assert (bundle.take(0, [1]).labels == [[1], [3], [5]]).all()
    assert bundle.without(2).axes == (0,)
