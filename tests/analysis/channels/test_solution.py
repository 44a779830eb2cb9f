"""Classes, pins and rows in both modes."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from irc.analysis.channels.bundles import Labelled
from irc.analysis.channels.components import components
from irc.analysis.channels.constraints import Constraints, Reason
from irc.analysis.channels.reshaping import reshaped
from irc.analysis.channels.solution import solve

REASON = Reason("test", "because")


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_components_are_those_of_the_graph(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = case
    graph = nx.Graph(edges)
    graph.add_nodes_from(range(count))
    pairs = [(np.array([a for a, _ in edges], dtype=np.int64), np.array([b for _, b in edges], dtype=np.int64))]
    found = components(count, pairs if edges else [])
    for component in nx.connected_components(graph):
        assert {int(found[label]) for label in component} == {min(component)}


def heads(constraints: Constraints, rows: int = 3, members: int = 4) -> Labelled:
    flat = Labelled((rows * members,), (constraints.fresh_bundle([0], [rows * members]),))
    return reshaped(constraints, flat, (rows, members), "Reshape 'h'")


def test_rows_are_cut_whole_or_evenly() -> None:
    constraints = Constraints()
    labels = heads(constraints).bundles[0].labels
    rows, columns = solve(constraints, "rows"), solve(constraints, "columns")
    assert (rows.class_of[labels] == labels[:, :1]).all()
    assert not rows.even
    assert (columns.class_of[labels] == labels).all()
    assert [even.rows.tolist() for even in columns.even] == [labels.tolist()]


def test_a_label_per_row_is_the_row_or_stays() -> None:
    constraints = Constraints()
    bundle = heads(constraints).bundles[0]
    part = constraints.representatives(bundle, [0], REASON)
    rows, columns = solve(constraints, "rows"), solve(constraints, "columns")
    assert (rows.class_of[part.labels] == rows.class_of[bundle.labels[:, 0]]).all()
    assert not rows.pinned
    assert set(columns.pinned) == set(part.labels.tolist())


def test_a_label_per_column_makes_columns_alike_or_stays() -> None:
    constraints = Constraints()
    bundle = heads(constraints).bundles[0]
    part = constraints.representatives(bundle, [1], REASON)
    rows, columns = solve(constraints, "rows"), solve(constraints, "columns")
    assert (columns.class_of[bundle.labels] == columns.class_of[bundle.labels[0]]).all()
    assert not columns.even, "columns that are alike are even by themselves"
    assert set(rows.pinned) == set(part.labels.tolist())


def test_an_index_that_is_picked_from_is_not_cut_by_rows() -> None:
    constraints = Constraints()
    flat = Labelled((24,), (constraints.fresh_bundle([0], [24]),))
    bundle = reshaped(constraints, flat, (3, 2, 4), "packed").bundles[0]
    assert constraints.cut_position(bundle.factors, "rows") == 0
    constraints.picked.add(bundle.factors[0])
    assert constraints.cut_position(bundle.factors, "rows") == 1
    assert constraints.cut_position(bundle.factors, "columns") == 2
    rows = solve(constraints, "rows")
    assert (rows.class_of[bundle.labels] == bundle.labels[:, :, :1]).all()
    assert [even.rows.shape for even in rows.even] == [(3, 2)], "as many heads of queries, keys and values"


def test_the_first_reason_counts_for_the_whole_class() -> None:
    constraints = Constraints()
    a, b = constraints.fresh([2]), constraints.fresh([2])
    constraints.equal(a, b)
    constraints.pin(b[:1], REASON)
    constraints.pin(a[:1], Reason("later", "too late"))
    solution = solve(constraints, "rows")
    assert {key: reason.kind for key, reason in solution.pinned.items()} == {0: "test"}


def test_unified_factors_keep_the_outermost_order() -> None:
    constraints = Constraints()
    first, second = heads(constraints).bundles[0], heads(constraints).bundles[0]
    for one, other in zip(first.factors, second.factors, strict=True):
        constraints.same_factor(one, other)
    assert constraints.cut_position(second.factors, "rows") == 0
    assert constraints.cut_position(second.factors, "columns") == 1
