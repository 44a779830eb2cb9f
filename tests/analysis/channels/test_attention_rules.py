"""Attention operators: heads by rows, dimensions by columns, temperature and counts kept right."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import MODES, Array, assert_exact, describe, model_of, random_feeds, random_weight

from irc.analysis.channels import channel_groups
from irc.channel_oracles import random_survivors
from irc.channel_surgery import cut
from irc.ir import snapshot

W = random_weight
TOKENS = ({"n": 3, "s": 4}, {"n": 1, "s": 9})
E = 10


def projections(queries: int, kv: int, d: int, v: int, *, biases: bool = False) -> dict[str, Array]:
    weights = {
        "wq": W(E, queries * d) * 3,
        "wk": W(E, kv * d, seed=1) * 3,
        "wv": W(E, kv * v, seed=2),
        "wo": W(queries * v, 5, seed=3),
    }
    if biases:
        weights |= {"bq": W(queries * d, seed=4), "bk": W(kv * d, seed=5), "bv": W(kv * v, seed=6)}
    return weights


def network(body: str, *, inputs: str = "") -> str:
    return f"""g (float[n, s, {E}] x{inputs}) => (float[n, s, 5] y) {{
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        {body}
        y = MatMul(o, wo)
    }}"""


def four(body: str) -> str:
    """The operator on [batch, heads, places, dimensions]."""
    return f"""q3 = Reshape(q, split_q)
        k3 = Reshape(k, split_kv)
        v3 = Reshape(v, split_kv)
        q4 = Transpose<perm=[0, 2, 1, 3]>(q3)
        k4 = Transpose<perm=[0, 2, 1, 3]>(k3)
        v4 = Transpose<perm=[0, 2, 1, 3]>(v3)
        {body}
        o3 = Transpose<perm=[0, 2, 1, 3]>(o4)
        o = Reshape(o3, join)"""


def splits(queries: int, kv: int) -> dict[str, Array]:
    return {
        "split_q": np.array([0, 0, queries, -1]),
        "split_kv": np.array([0, 0, kv, -1]),
        "join": np.array([0, 0, -1]),
    }


def widths(model: ir.Model) -> dict[str, list[tuple[int, int]]]:
    return {m: [(len(f.atoms), f.cell_count) for f in channel_groups(model, mode=m).families] for m in MODES}


@pytest.mark.parametrize(("queries", "kv"), [(4, 4), (6, 2), (8, 4), (4, 1)])
@pytest.mark.parametrize("attributes", ["", "scale=0.3, is_causal=1", "softcap=2.0"])
def test_flat(queries: int, kv: int, attributes: str) -> None:
    """[batch, places, heads * dimensions], grouped or not, with another size of values."""
    d, v = 4, 6
    more = f", {attributes}" if attributes else ""
    body = f"o = Attention<q_num_heads={queries}, kv_num_heads={kv}{more}>(q, k, v)"
    model = model_of(network(body), projections(queries, kv, d, v), opset=23)
    proofs = assert_exact(model, random_feeds(model, *TOKENS), families={"rows": 1, "columns": 2})
    assert all(proof.effect > 1e-3 for proof in proofs.values())
    heads = (kv, 1) if kv > 1 else (queries, 1)
    assert widths(model) == {"rows": [heads], "columns": [(kv * d, kv), (kv * v, kv)]}


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize(("queries", "kv"), [(4, 4), (6, 2)])
def test_four_axes(queries: int, kv: int, opset: int) -> None:
    weights = {**projections(queries, kv, 4, 4), **splits(queries, kv)}
    model = model_of(network(four("o4 = Attention(q4, k4, v4)")), weights, opset=opset)
    assert_exact(model, random_feeds(model, *TOKENS), families={"rows": 1, "columns": 2})
    assert widths(model) == {"rows": [(kv, 1)], "columns": [(kv * 4, kv), (kv * 4, kv)]}


@pytest.mark.parametrize("order", ["kvq", "vkq", "qvk"])
@pytest.mark.parametrize(("queries", "kv"), [(6, 2), (4, 1), (3, 3)])
def test_order_of_projections_does_not_matter(order: str, queries: int, kv: int) -> None:
    lines = {name: f"{name} = MatMul(x, w{name})" for name in "qkv"}
    text = f"""g (float[n, s, {E}] x) => (float[n, s, 5] y) {{
        {lines[order[0]]}
        {lines[order[1]]}
        {lines[order[2]]}
        BODY
        y = MatMul(o, wo)
    }}"""
    flat = f"o = Attention<q_num_heads={queries}, kv_num_heads={kv}>(q, k, v)"
    for body in (flat, four("o4 = Attention(q4, k4, v4)")):
        weights = projections(queries, kv, 4, 6) | (splits(queries, kv) if body != flat else {})
        model = model_of(text.replace("BODY", body), weights, opset=23)
        assert_exact(model, random_feeds(model, *TOKENS), families={"rows": 1, "columns": 2})
        found = widths(model)
        assert found["rows"] == [(kv if kv > 1 else queries, 1)]
        assert sorted(found["columns"]) == sorted([(kv * 4, kv), (kv * 6, kv)])


def test_keys_that_are_values() -> None:
    text = f"""g (float[n, s, {E}] x) => (float[n, s, 5] y) {{
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        o = Attention<q_num_heads=4, kv_num_heads=4>(q, k, k)
        y = MatMul(o, wo)
    }}"""
    weights = projections(4, 4, 4, 4)
    del weights["wv"]
    model = model_of(text, weights, opset=23)
    assert_exact(model, random_feeds(model, *TOKENS), families=1)
    assert widths(model) == {"rows": [(4, 1)], "columns": [(16, 4)]}


@pytest.mark.parametrize("kind", ["Add", "output"])
def test_probabilities_as_an_output(kind: str) -> None:
    """Heads that are seen stay; heads that a product mixes may go."""
    weights = {**projections(6, 2, 4, 4), **splits(6, 2)}
    body = four("o4, nk, nv, p = Attention<qk_matmul_output_mode=3>(q4, k4, v4)")
    if kind == "output":
        text = network(body).replace("(float[n, s, 5] y)", "(float[n, s, 5] y, float[n, 6, s, s] p)")
    else:
        body += """
        pt = Transpose<perm=[0, 2, 3, 1]>(p)
        m = MatMul(pt, wm)
        r = ReduceSum<keepdims=0>(m, two)"""
        text = network(body).replace("y = MatMul(o, wo)", "z = MatMul(o, wo)\n y = Add(z, r)")
        weights |= {"wm": W(6, 5, seed=12), "two": np.array([2])}
    model = model_of(text, weights, opset=23)
    proofs = assert_exact(model, random_feeds(model, *TOKENS))
    assert proofs["rows"].cut == (0 if kind == "output" else 1) and proofs["columns"].cut == 2


def test_keys_with_an_axis_of_heads() -> None:
    weights = {**projections(4, 4, 4, 4), **splits(4, 4)}
    del weights["split_q"]
    body = """k3 = Reshape(k, split_kv)
        v3 = Reshape(v, split_kv)
        k4 = Transpose<perm=[0, 2, 1, 3]>(k3)
        v4 = Transpose<perm=[0, 2, 1, 3]>(v3)
        o = com.microsoft.MultiHeadAttention<num_heads=4>(q, k4, v4)"""
    del weights["join"]
    model = model_of(network(body), weights)
    assert_exact(model, random_feeds(model, *TOKENS), families={"rows": 1, "columns": 2})


def test_scale_is_that_of_the_heads_before() -> None:
    weights = projections(4, 4, 4, 4)
    model = model_of(network("o = Attention<q_num_heads=4, kv_num_heads=4>(q, k, v)"), weights, opset=23)
    for mode, scaled, heads in (("columns", True, 4), ("rows", False, 2)):
        groups = channel_groups(model, mode=mode)  # type: ignore[arg-type]
        small = snapshot(model)
        cut(small, groups.propagation, groups.survivors(random_survivors(groups, groups.families)))
        node = next(n for n in small.graph if n.op_type == "Attention")
        assert ("scale" in node.attributes) == scaled
        assert not scaled or node.attributes.get_float("scale", 0) == 0.5
        assert node.attributes.get_int("q_num_heads") == node.attributes.get_int("kv_num_heads") == heads


@pytest.mark.parametrize(("shape", "rows"), [("s, s", 1), ("n, 1, s, s", 1), ("n, 4, s, s", 0)])
def test_mask_from_outside(shape: str, rows: int) -> None:
    """A mask per head fixes the heads and not their dimensions."""
    body = "o = Attention<q_num_heads=4, kv_num_heads=4>(q, k, v, mask)"
    model = model_of(network(body, inputs=f", float[{shape}] mask"), projections(4, 4, 4, 4), opset=23)
    proofs = assert_exact(model, random_feeds(model, *TOKENS))
    assert widths(model)["columns"] == [(16, 4), (16, 4)]
    assert proofs["rows"].cut == rows and proofs["columns"].cut == 2


def test_table_per_head_is_cut_with_the_heads() -> None:
    weights = {**projections(6, 2, 4, 4), "table": W(1, 6, 1, 1, seed=8)}
    body = """s1 = ReduceMean<keepdims=0>(x, last)
        a = Unsqueeze(s1, one)
        b = Unsqueeze(a, one)
        mask = Mul(b, table)
        o = Attention<q_num_heads=6, kv_num_heads=2>(q, k, v, mask)"""
    weights |= {"last": np.array([2]), "one": np.array([1])}
    body = body.replace(
        "mask = Mul(b, table)", "c = Transpose<perm=[0, 1, 3, 2]>(b)\n d = Add(b, c)\n mask = Mul(d, table)"
    )
    model = model_of(network(body), weights, opset=23)
    assert_exact(model, random_feeds(model, *TOKENS), families={"rows": 1, "columns": 2})
    assert any(axis.slot.name == "table" for axis in channel_groups(model).families[0].axes)


def test_state_pins_what_it_meets() -> None:
    weights = {**projections(4, 4, 4, 4), **splits(4, 4)}
    text = f"""g (float[n, s, {E}] x, float[n, 4, p, 4] pk, float[n, 4, p, 4] pv)
        => (float[n, s, 5] y, float[n, 4, t, 4] nk, float[n, 4, t, 4] nv) {{
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        {four("o4, nk, nv = Attention(q4, k4, v4, , pk, pv)")}
        y = MatMul(o, wo)
    }}"""
    model = model_of(text, weights, opset=23)
    assert_exact(model, random_feeds(model, {"n": 2, "s": 3, "p": 5}))
    assert all(proof.cut == 0 for proof in assert_exact(model, random_feeds(model, {"n": 2, "s": 3, "p": 5})).values())


def test_keys_as_outputs_pin() -> None:
    """Without a state the present keys are the keys."""
    weights = {**projections(4, 4, 4, 4), **splits(4, 4)}
    text = f"""g (float[n, s, {E}] x) => (float[n, s, 5] y, float[n, 4, s, 4] nk) {{
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        {four("o4, nk, nv = Attention(q4, k4, v4)")}
        y = MatMul(o, wo)
    }}"""
    model = model_of(text, weights, opset=23)
    assert [f.cell_count for f in channel_groups(model, mode="columns").families] == [4]
    assert not channel_groups(model).families


def test_cross_attention() -> None:
    """Keys and values of other places."""
    text = f"""g (float[n, s, {E}] x, float[n, m, {E}] z) => (float[n, s, 5] y) {{
        q = MatMul(x, wq)
        k = MatMul(z, wk)
        v = MatMul(z, wv)
        o = Attention<q_num_heads=4, kv_num_heads=2>(q, k, v)
        y = MatMul(o, wo)
    }}"""
    model = model_of(text, projections(4, 2, 4, 6), opset=23)
    feeds = random_feeds(model, {"n": 2, "s": 3, "m": 5}, {"n": 1, "s": 7, "m": 2})
    assert_exact(model, feeds, families={"rows": 1, "columns": 2})


def test_keys_from_outside_leave_the_values() -> None:
    text = f"""g (float[n, s, {E}] x, float[n, s, 16] k) => (float[n, s, 5] y) {{
        q = MatMul(x, wq)
        v = MatMul(x, wv)
        o = Attention<q_num_heads=4, kv_num_heads=4>(q, k, v)
        y = MatMul(o, wo)
    }}"""
    weights = projections(4, 4, 4, 6)
    del weights["wk"]
    model = model_of(text, weights, opset=23)
    proofs = assert_exact(model, random_feeds(model, *TOKENS))
    assert proofs["rows"].cut == 0 and proofs["columns"].cut == 1
    assert (24, 4) in widths(model)["columns"]


@pytest.mark.parametrize(("heads", "d", "v", "bias"), [(4, 4, 4, True), (4, 4, 6, True), (2, 3, 3, False)])
@pytest.mark.parametrize("attributes", ["", ", scale=0.4, unidirectional=1"])
def test_multi_head_attention(heads: int, d: int, v: int, bias: bool, attributes: str) -> None:
    weights = projections(heads, heads, d, v)
    if bias:
        weights["b"] = W(2 * heads * d + heads * v, seed=7)
    body = f"o = com.microsoft.MultiHeadAttention<num_heads={heads}{attributes}>(q, k, v{', b' if bias else ''})"
    model = model_of(network(body), weights)
    assert_exact(model, random_feeds(model, *TOKENS), families={"rows": 1, "columns": 2})
    assert widths(model) == {"rows": [(heads, 1)], "columns": [(heads * d, heads), (heads * v, heads)]}


def test_multi_head_attention_with_masks() -> None:
    weights = projections(4, 4, 4, 4)
    body = "o = com.microsoft.MultiHeadAttention<num_heads=4>(q, k, v, , padding, bias)"
    model = model_of(network(body, inputs=", int32[n, s] padding, float[1, 1, s, s] bias"), weights)
    feeds = random_feeds(model, *TOKENS)
    for feed in feeds:
        feed["padding"][:] = 1
        feed["padding"][:, -1] = 0
    assert_exact(model, feeds, families={"rows": 1, "columns": 2})


def test_packed_operands_pin() -> None:
    text = """g (float[n, s, 10] x) => (float[n, s, 5] y) {
        h = MatMul(x, w)
        p = Reshape(h, split)
        o = com.microsoft.MultiHeadAttention<num_heads=4>(p)
        y = MatMul(o, wo)
    }"""
    model = model_of(text, {"w": W(10, 48), "split": np.array([0, 0, 4, 3, 4]), "wo": W(16, 5)})
    assert not channel_groups(model).families


@pytest.mark.parametrize("sizes", ["", ", qkv_hidden_sizes=[8, 8, 12]"])
def test_packed_attention(sizes: str) -> None:
    """Columns of one weight for queries, keys and values, features of the input its rows."""
    width = 28 if sizes else 36
    hidden = 12
    text = f"""g (float[n, s, 5] x) => (float[n, s, 5] y) {{
        h = MatMul(x, w1)
        o = com.microsoft.Attention<num_heads=4{sizes}>(h, w, b)
        y = MatMul(o, wo)
    }}"""
    weights = {"w1": W(5, E), "w": W(E, width, seed=1) * 2, "b": W(width, seed=2), "wo": W(hidden, 5, seed=3)}
    model = model_of(text, weights)
    proofs = assert_exact(model, random_feeds(model, *TOKENS), families={"rows": 2, "columns": 3})
    assert proofs["columns"].cut == 3
    assert widths(model)["rows"] == [(10, 1), (4, 1)]


@pytest.mark.parametrize("domain", ["", "com.microsoft."])
@pytest.mark.parametrize("rank", [3, 4])
def test_rotary_embedding(domain: str, rank: int) -> None:
    """Heads may go, their dimensions stay in pairs."""
    weights = {**projections(4, 4, 4, 6), **splits(4, 4), "cos": W(32, 2, seed=8), "sin": W(32, 2, seed=9)}
    weights |= {"zero": np.array(0), "one": np.array(1), "rows": np.array([0]), "shape_at": np.array(1)}
    order = "{0}, places, cos, sin" if domain else "{0}, cos, sin, places"
    heads = "num_heads=4, " if not domain or rank == 3 else ""

    def rotate(name: str) -> str:
        return f"r{name} = {domain}RotaryEmbedding<{heads}interleaved=0>({order.format(name)})"

    flat = f"""{rotate("q")}
        {rotate("k")}
        o = Attention<q_num_heads=4, kv_num_heads=4>(rq, rk, v)"""
    wide = four(f"{rotate('q4')}\n{rotate('k4')}\no4 = Attention(rq4, rk4, v4)")
    model = model_of(network(flat if rank == 3 else wide, inputs=", int64[n, s] places"), weights, opset=23)
    assert_exact(model, random_feeds(model, *TOKENS))
    assert widths(model)["rows"] == [(4, 1)]
    proofs = assert_exact(model, random_feeds(model, *TOKENS), modes=["columns"])
    assert proofs["columns"].cut == 1 and (24, 4) in widths(model)["columns"]


def test_group_query_attention_pins() -> None:
    """Its state is part of every call."""
    weights = projections(4, 2, 4, 4)
    text = f"""g (float[n, s, {E}] x, float[n, 2, p, 4] pk, float[n, 2, p, 4] pv, int32[n] lengths, int32 total)
        => (float[n, s, 5] y, float[n, 2, t, 4] nk, float[n, 2, t, 4] nv) {{
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        o, nk, nv = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(q, k, v, pk, pv, lengths, total)
        y = MatMul(o, wo)
    }}"""
    groups = channel_groups(model_of(text, weights))
    assert not groups.families and "GroupQueryAttention" in describe(groups)
