"""Rows and members: which of several indices lies outside of which, whatever was labelled first, and in whatever order they lie."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from channel_kit import assert_exact, model_of, random_feeds, random_weight

from irc.analysis.channels import channel_groups

ROTATED = """g (float[B,S,8] x) => (float[B,S,4] y) {
  places = Shape<start=1,end=2>(x) count = Squeeze(places) range = Range(zero, count, one) floats = Cast<to=1>(range)
  column = Unsqueeze(floats, axis1) half = Mul(column, frequency) angle = Concat<axis=-1>(half, half)
  cos = Cos(angle) sin = Sin(angle)
  q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
  q1 = Reshape(q, heads_q) k1 = Reshape(k, heads_k) v1 = Reshape(v, heads_k)
  q2 = Transpose<perm=[0,2,1,3]>(q1) k2 = Transpose<perm=[0,2,1,3]>(k1) v2 = Transpose<perm=[0,2,1,3]>(v1)
  qa = Slice(q2, i0, i3, last) qb = Slice(q2, i3, end, last) qn = Neg(qb) qr = Concat<axis=-1>(qn, qa)
  qc = Mul(q2, cos) qs = Mul(qr, sin) q3 = Add(qc, qs)
  ka = Slice(k2, i0, i3, last) kb = Slice(k2, i3, end, last) kn = Neg(kb) kr = Concat<axis=-1>(kn, ka)
  kc = Mul(k2, cos) ks = Mul(kr, sin) k3 = Add(kc, ks)
  k4 = Unsqueeze(k3, axis2) k5 = Expand(k4, twice) all = Shape(q3) k6 = Reshape(k5, all)
  v4 = Unsqueeze(v2, axis2) v5 = Expand(v4, twice) v6 = Reshape(v5, all)
  kt = Transpose<perm=[0,1,3,2]>(k6) scores = MatMul(q3, kt) p = Softmax(scores) o = MatMul(p, v6)
  back = Transpose<perm=[0,2,1,3]>(o) flat = Reshape(back, merged) y = MatMul(flat, wo)
}"""


def rotated() -> ir.Model:
    """Two heads of keys for four of queries, their places rotated by a table that is labelled before them."""
    arrays = {
        **{"zero": np.array(0), "one": np.array(1), "axis1": np.array([1]), "axis2": np.array([2])},
        **{"i0": np.array([0]), "i3": np.array([3]), "end": np.array([2**62]), "last": np.array([-1])},
        **{"heads_q": np.array([0, 0, 4, 6]), "heads_k": np.array([0, 0, 2, 6]), "merged": np.array([0, 0, -1])},
        **{"twice": np.array([1, 1, 2, 1, 1]), "frequency": np.array([1.0, 0.3, 0.1], np.float32)},
        **{"wq": random_weight(8, 24), "wk": random_weight(8, 12), "wv": random_weight(8, 12, seed=1)},
        "wo": random_weight(24, 4),
    }
    return model_of(ROTATED, arrays)


def test_heads_are_rows_though_a_table_of_their_dimensions_comes_first() -> None:
    model = rotated()
    (heads,) = channel_groups(model, mode="rows").families
    assert {(axis.slot.name, axis.axis, axis.positions) for axis in heads.axes} == {
        ("wq", 1, 12),
        ("wk", 1, 6),
        ("wv", 1, 6),
        ("wo", 0, 12),
    }
    assert {len(family.atoms) for family in channel_groups(model, mode="columns").families} == {3, 12}
    assert_exact(model, random_feeds(model, {"B": 1, "S": 3}, {"B": 4, "S": 5}))


SHARED = """g (float[B,S,8] x) => (float[B,S,4] y) {
  q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
  q1 = Reshape(q, heads) k1 = Unsqueeze(k, axis1) v1 = Unsqueeze(v, axis1)
  q2 = Transpose<perm=[0,2,1,3]>(q1) kt = Transpose<perm=[0,1,3,2]>(k1)
  a = MatMul(q2, kt) p = Softmax(a) o = MatMul(p, v1)
  back = Transpose<perm=[0,2,1,3]>(o) flat = Reshape(back, merged) y = MatMul(flat, wo)
}"""


def test_heads_that_share_all_keys_and_values_are_cut() -> None:
    arrays = {"heads": np.array([0, 0, 3, 4]), "merged": np.array([0, 0, 12]), "axis1": np.array([1])}
    floats = {"wq": (8, 12), "wk": (8, 4), "wv": (8, 4), "wo": (12, 4)}
    model = model_of(SHARED, arrays | {name: random_weight(*shape) for name, shape in floats.items()})
    (heads,) = channel_groups(model, mode="rows").families
    assert {(axis.slot.name, axis.positions) for axis in heads.axes} == {("wq", 4), ("wo", 4)}
    queries, values = channel_groups(model, mode="columns").families
    assert {(axis.slot.name, axis.positions) for axis in queries.axes} == {("wq", 3), ("wk", 1)}
    assert {(axis.slot.name, axis.positions) for axis in values.axes} == {("wv", 1), ("wo", 3)}
    assert_exact(model, random_feeds(model, {"B": 1, "S": 3}, {"B": 4, "S": 5}))


CROSSED = """g (float[B,8] x) => (float[B,4] y) {
  a = MatMul(x, wa) b = MatMul(x, wb)
  a3 = Reshape(a, three_four) b3 = Reshape(b, four_three) bt = Transpose<perm=[0,2,1]>(b3)
  m = Mul(a3, bt) f = Reshape(m, twelve) y = MatMul(f, wo)
}"""


def test_an_index_split_in_two_orders_loses_the_same_of_every_row() -> None:
    """Rows of `a` are inside of its members in `b`, where unlike members per row would change what comes first."""
    arrays = {"three_four": np.array([0, 3, 4]), "four_three": np.array([0, 4, 3]), "twelve": np.array([0, 12])}
    floats = {"wa": random_weight(8, 12), "wb": random_weight(8, 12, seed=1), "wo": random_weight(12, 4)}
    model = model_of(CROSSED, arrays | floats)
    proofs = assert_exact(model, random_feeds(model, {"B": 1}, {"B": 3}), families=1)
    assert [proofs[mode].moved for mode in ("rows", "columns")] == [3, 4]
