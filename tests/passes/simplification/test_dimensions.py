"""What is known of dimensions: the elements of vectors of them, and that finding them out ends soon."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import assert_untouched, parse

from irc.passes.simplification import EliminateNoOpShape
from irc.passes.simplification.dimensions import MAX_ELEMENTS, Dimensions

BEYOND = 2**32 + 4
"""As an int32, it is 4."""


def _elements(nodes: str, *, raw: bool = False, **given: list[int]) -> tuple[object, ...] | None:
    """The elements of v, which is computed from x: float[n,3]."""
    arrays = {name: np.array(numbers, np.int64) for name, numbers in given.items()}
    model = parse(f"g (float[n,3] x) => (int64[?] y) {{ {nodes}  y = Neg(v) }}", arrays, raw=raw)
    return Dimensions(model).elements(model.graph[-1].inputs[0])


CASTS = {
    "to int32 and back": ("c = Cast<to=6>(a)  v = Cast<to=7>(c)", [-1, 4, 2**31 - 1], (-1, 4, 2**31 - 1)),
    "least": ("c = Cast<to=6>(a)  v = Cast<to=7>(c)", [-(2**31)], (-(2**31),)),
    "above": ("c = Cast<to=6>(a)  v = Cast<to=7>(c)", [2, BEYOND], None),
    "one above": ("c = Cast<to=6>(a)  v = Cast<to=7>(c)", [2**31], None),
    "below": ("c = Cast<to=6>(a)  v = Cast<to=7>(c)", [-BEYOND], None),
    "above, but not cast": ("v = Cast<to=7>(a)", [2, BEYOND], (2, BEYOND)),
    "to floats": ("c = Cast<to=1>(a)  v = Cast<to=7>(c)", [2], None),
    "dimensions": ("s = Shape(x)  c = Cast<to=6>(s)  w = Cast<to=7>(c)  v = Concat<axis=0>(w, a)", [5], ("n", 3, 5)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASTS)
def test_a_number_that_a_cast_changes_is_not_known(case: str) -> None:
    nodes, given, expected = CASTS[case]
    assert _elements(nodes, a=given) == expected


def test_a_slice_that_ends_at_another_number_than_it_says() -> None:
    model = parse(
        "g (float[9] x) => (float[k] y) { s = Cast<to=6>(zero)  e = Cast<to=6>(end)  z = Slice(x, s, e)  y = Neg(z) }",
        zero=np.array([0]),
        end=np.array([BEYOND]),
    )
    assert assert_untouched(EliminateNoOpShape(), model) == {}


def test_vectors_one_after_the_other() -> None:
    assert _elements("s = Shape(x)  v = Concat<axis=0>(a, s, a)", a=[7, 8]) == (7, 8, "n", 3, 7, 8)
    assert _elements("s = Neg(a)  v = Concat<axis=0>(a, s)", a=[7, 8]) is None
    half = list(range(MAX_ELEMENTS // 2))
    assert _elements("v = Concat<axis=0>(a, a)", a=half) == (*half, *half)
    assert _elements("v = Concat<axis=0>(a, a, b)", a=half, b=[1]) is None


REPEATED = {"known": ("Identity(a)", [2]), "of no element": ("Identity(a)", []), "unknown": ("Neg(a)", [2])}


@pytest.mark.parametrize("levels", [12, 40])
@pytest.mark.parametrize("case", REPEATED)
def test_joined_with_itself_over_and_over(case: str, levels: int) -> None:
    """Looking at each part anew would not end."""
    first, given = REPEATED[case]
    chain = "  ".join(f"v{i} = Concat<axis=0>({', '.join([f'v{i - 1}'] * 10)})" for i in range(1, levels + 1))
    found = _elements(f"v0 = {first}  {chain}  v = Identity(v{levels})", raw=True, a=given)
    assert found == (() if levels == 12 and not given else None)
