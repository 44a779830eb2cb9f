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


def test_other_domains_and_operators_stay() -> None:
    weights = {"s": np.array([6, 4]), "u": np.array([4, 2, 3])}
    nodes = "j = Reshape(x, s)  t = Transpose(j)  y = Reshape(t, u)"
    for name in ("j = Reshape", "t = Transpose", "y = Reshape"):
        other = nodes.replace(name, name.replace("= ", "= custom."))
        assert assert_untouched(PASS, parse(f"g (float[2,3,4] x) => (float y) {{ {other} }}", weights)) == {}
    other = nodes.replace("Transpose(j)", "Neg(j)").replace("(t, u)", "(t, u)")
    assert assert_untouched(PASS, parse(f"g (float[2,3,4] x) => (float y) {{ {other} }}", weights)) == {}


def test_an_unknown_rank_stays() -> None:
    text = "g (float[n] x, int64[k] z) => (float y) { r = Reshape(x, z)  j = Reshape(r, s)  t = Transpose(j)  y = Reshape(t, u) }"
    assert assert_untouched(PASS, parse(text, s=np.array([6, 4]), u=np.array([4, 2, 3]))) == {}


def test_a_zero_that_is_meant_is_not_copied() -> None:
    text = TEXT.format(shape="n,3,4", perm=[1, 0])
    model = parse(text, s=np.array([0, 4]), u=np.array([4, 0, 3]))
    assert op_types(apply(PASS, model).model) == ["Reshape", "Transpose", "Reshape", "Neg"]
