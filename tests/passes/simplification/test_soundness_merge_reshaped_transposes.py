"""merge-reshaped-transposes: sizes of 0 and 1, and equal sizes, which hide what is joined with what."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pass_kit import apply, assert_untouched, op_types, parse

from irc.passes.simplification.merge_reshaped_transposes import MergeReshapedTransposes

PASS = MergeReshapedTransposes()
TEXT = "g (float[{shape}] x) => (float y) {{ j = Reshape<allowzero=1>(x, s)  t = Transpose<perm={perm}>(j)  r = Reshape<allowzero=1>(t, u)  y = Neg(r) }}"


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 1, 2), (2, 2, 2), (0, 2, 3), (2, 0, 1), (1, 1, 3)])
def test_what_becomes_one_transpose_is_one(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    pairs = [(shape[0] * shape[1], shape[2]), (shape[0], shape[1] * shape[2])]
    for joined, perm, split in itertools.product(pairs, ([0, 1], [1, 0]), sorted(set(itertools.permutations(shape)))):
        text = TEXT.format(shape=",".join(map(str, shape)), perm=perm)
        model = parse(text, s=np.array(joined), u=np.array(split))
        outcome = apply(PASS, model)
        if not outcome.rewritten:
            continue
        found = x
        for node in outcome.model.graph:
            assert node.op_type in ("Transpose", "Neg")
            found = -found if node.op_type == "Neg" else found.transpose(node.attributes.get_ints("perm"))
        np.testing.assert_array_equal(found, -x.reshape(joined).transpose(perm).reshape(split))


@pytest.mark.parametrize("shape", [(2, 3), (1, 2), (1, 1), (0, 3), (0, 0)])
def test_what_is_put_in_between_is_of_size_one_or_empty(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = 0
    for place, size, perm, split in itertools.product(
        range(3), (1, 5), itertools.permutations(range(3)), (shape, shape[::-1])
    ):
        joined = (*shape[:place], size, *shape[place:])
        if size > 1 and x.size:
            continue
        text = TEXT.format(shape=",".join(map(str, shape)), perm=list(perm))
        outcome = apply(PASS, parse(text, s=np.array(joined), u=np.array(split)))
        if outcome.rewritten:
            found += 1
            order = next(
                (n.attributes.get_ints("perm") for n in outcome.model.graph if n.op_type == "Transpose"), (0, 1)
            )
            np.testing.assert_array_equal(x.transpose(order), x.reshape(joined).transpose(perm).reshape(split))
    assert found >= 18


def test_other_domains_and_operators_stay() -> None:
    weights = {"s": np.array([6, 4]), "u": np.array([4, 2, 3])}
    nodes = "j = Reshape(x, s)  t = Transpose(j)  y = Reshape(t, u)"
    for name in ("j = Reshape", "t = Transpose", "y = Reshape"):
        other = nodes.replace(name, name.replace("= ", "= custom."))
        assert assert_untouched(PASS, parse(f"g (float[2,3,4] x) => (float y) {{ {other} }}", weights)) == {}
    other = nodes.replace("Transpose(j)", "Neg(j)")
    assert assert_untouched(PASS, parse(f"g (float[2,3,4] x) => (float y) {{ {other} }}", weights)) == {}


@pytest.mark.parametrize(
    "nodes",
    [
        "j = Reshape(x, s)  t = Transpose(j)  r = Gather<axis=1>(t, columns)",
        "j = GatherND(x, places)  t = Transpose(j)  r = Reshape(t, u)",
    ],
)
def test_operators_that_make_the_same_shapes_of_other_elements_stay(nodes: str) -> None:
    weights = {"s": [6, 4], "u": [4, 2, 3], "columns": [[0, 0, 0], [1, 2, 3]]}
    weights["places"] = [[1, 2], [0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]
    model = parse(
        f"g (float[2,3,4] x) => (float y) {{ {nodes}  y = Neg(r) }}",
        {name: np.array(value) for name, value in weights.items() if name in nodes},
    )
    assert assert_untouched(PASS, model) == {}


@pytest.mark.parametrize(
    ("joined", "perm", "split"),
    [
        ([6, 4], [1, 0], [4, 2, 3, 1]),
        ([6, 4], [1, 0], [4, 6]),
        ([6, 4], [1], [4, 2, 3]),
        ([6, 4], [1, 0, 2], [4, 2, 3]),
        (None, [1, 0], [4, 2, 3]),
        ([6, 4], [1, 0], None),
    ],
)
def test_ranks_that_differ_or_are_not_known_stay(
    joined: list[int] | None, perm: list[int], split: list[int] | None
) -> None:
    """A perm of another length is an error that runtimes find; onnx does not."""
    given = {name: np.array(shape) for name, shape in (("s", joined), ("u", split)) if shape is not None}
    callers = [name for name in ("s", "u") if name not in given]
    text = f"""g ({", ".join(["float[2,3,4] x", *(f"int64[k] {name}" for name in callers)])}) => (float y)
        {{ j = Reshape(x, s)  t = Transpose<perm={perm}>(j)  r = Reshape(t, u)  y = Neg(r) }}"""
    assert assert_untouched(PASS, parse(text, given)) == {}


def test_a_declared_symbol_that_no_shape_explains_stays() -> None:
    text = "g (float[2,3,n] x, int64[3] z) => (float y) <float[q,2,3] r> { j = Reshape(x, s)  t = Transpose(j)  r = Reshape(t, z)  y = Neg(r) }"
    assert assert_untouched(PASS, parse(text, s=np.array([6, -1]))) == {}


def test_an_unknown_rank_stays() -> None:
    text = "g (float[n] x, int64[k] z) => (float y) { r = Reshape(x, z)  j = Reshape(r, s)  t = Transpose(j)  y = Reshape(t, u) }"
    assert assert_untouched(PASS, parse(text, s=np.array([6, 4]), u=np.array([4, 2, 3]))) == {}


def test_a_zero_that_is_meant_is_not_copied() -> None:
    text = TEXT.format(shape="n,3,4", perm=[1, 0])
    model = parse(text, s=np.array([0, 4]), u=np.array([4, 0, 3]))
    assert op_types(apply(PASS, model).model) == ["Reshape", "Transpose", "Reshape", "Neg"]
