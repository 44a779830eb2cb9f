"""How a share becomes widths: scopes, rounding, the search, and values that must not become empty."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_weight
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_models import attention, cnn, mlp

from irc import targets
from irc.analysis.channels import ChannelGroups, channel_groups
from irc.channel_surgery import Cut
from irc.passes.pruning.allocation import allocation, structure
from irc.passes.pruning.budget import meeting
from irc.passes.pruning.candidate import Candidate, Ranking
from irc.passes.pruning.rounding import steps
from irc.passes.pruning.survivors import legal, of_widths


def candidates(groups: ChannelGroups, *, worth: dict[str, float] | None = None, seed: int = 0) -> list[Candidate]:
    """All families with random scores, of some families times a factor for the worse half of their atoms."""
    rng, found = np.random.default_rng(seed), []
    for family in groups.families:
        scores = rng.random(len(family.atoms)) + 0.5
        scores[: len(scores) // 2] *= (worth or {}).get(family.name, 1.0)
        ranking = Ranking.by_scores(family, scores, seed=0)
        order, ranks = ranking.order, ranking.worth
        found.append(Candidate(family.name, groups, family, order, ranks, family.width))
    return found


def widths_of(found: dict[Candidate, int]) -> dict[str, int]:
    """By the names of families."""
    return {candidate.id: width for candidate, width in found.items()}


def test_the_same_share_of_every_family():
    groups = channel_groups(cnn())
    assert widths_of(allocation(candidates(groups), "family")(0.25)) == {"a": 18, "c": 24}


def test_the_lowest_of_all():
    """Half of one family is worth next to nothing: it goes, and nothing of the other."""
    groups = channel_groups(mlp(4, 20, 20, 3))
    found = allocation(candidates(groups, worth={"m0": 0.01}), "global")(0.25)
    assert widths_of(found) == {"m0": 10, "m1": 20}


def test_the_lowest_among_families_of_like_structure():
    """Two convolutions are alike, the matrix product is not: each kind loses its share."""
    text = """agraph (float[n, 3, 8, 8] x) => (float[n, 3] y) {
        a = Conv(x, w0) b = Relu(a) c = Conv(b, w1) d = Relu(c) e = Conv(d, w2) f = GlobalMaxPool(e) g = Flatten(f)
        h = MatMul(g, w3) i = Relu(h) y = MatMul(i, w4)
    }"""
    shapes = {"w0": (12, 3, 1, 1), "w1": (12, 12, 1, 1), "w2": (6, 12, 1, 1), "w3": (6, 12), "w4": (12, 3)}
    groups = channel_groups(model_of(text, {n: random_weight(*s) for n, s in shapes.items()}))
    kinds = {family.name: structure(family) for family in groups.families}
    assert kinds["a"] == kinds["c"] and len({kinds["a"], kinds["e"], kinds["h"]}) == 3
    found = widths_of(allocation(candidates(groups, worth={"a": 0.01}), "isomorphic")(0.25))
    assert found["a"] == 6 and found["c"] == 12 and found["h"] == 9


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.sampled_from(["family", "global", "isomorphic"]),
    st.integers(0, 99),
    st.lists(st.floats(0, 1), min_size=2, max_size=5),
)
def test_more_goes_as_the_share_grows_and_never_more_than_it(scope, seed, shares):
    groups = channel_groups(attention(), mode="columns")
    allocate = allocation(candidates(groups, seed=seed), scope)
    last = None
    for share in sorted(shares):
        found = allocate(share)
        if last is not None:
            assert all(found[c] <= last[c] for c in found)
        atoms = sum(c.width * c.family.cell_count for c in found)
        gone = sum((c.width - width) * c.family.cell_count for c, width in found.items())
        assert gone <= share * atoms + 1e-6 and all(1 <= width <= c.width for c, width in found.items())
        last = found


@pytest.mark.parametrize(
    ("width", "step", "least", "wanted", "allowed"),
    [
        (64, 16, 1, 33, 48),
        (64, 16, 1, 32, 32),
        (24, 16, 1, 20, 24),
        (24, 16, 1, 3, 16),
        (12, 1, 5, 2, 5),
        (12, 16, 1, 2, 12),
    ],
)
def test_widths_allowed(width, step, least, wanted, allowed):
    family = channel_groups(mlp(4, width, 3)).families[0]
    ranking = Ranking.by_scores(family, np.ones(width), seed=0)
    order, worth = ranking.order, ranking.worth
    assert Candidate("f", None, family, order, worth, width, least, step).allowed(wanted) == allowed  # type: ignore[arg-type]


def step_of(model: ir.Model, target: str | None, round_to: object = "target", mode: str = "rows") -> dict[str, int]:
    """Steps by the names of families."""
    groups = channel_groups(model, mode=mode)  # type: ignore[arg-type]
    found = steps(groups, groups.families, targets.parse(target) if target else None, round_to)  # type: ignore[arg-type]
    return {family.name: step for family, step in found.items()}


def test_convolutions_are_rounded_for_onnx_runtime_and_matrix_products_are_not():
    assert step_of(cnn(), "ort") == {"a": 16, "c": 16}
    assert step_of(cnn(width=16), "ort") == {"a": 16, "c": 16}  # a depthwise convolution is slower with 12
    assert step_of(cnn(width=12), "ort") == {"a": 4, "c": 16}
    assert set(step_of(attention(), "ort").values()) == {1}
    assert set(step_of(cnn(), None).values()) == {1}


def test_what_rounding_is_for_tensorrt_or_asked_for():
    assert step_of(cnn(), "tensorrt") == {"a": 8, "c": 8}
    assert step_of(cnn(), "ort", 5) == {"a": 5, "c": 5}
    # Heads are 8 wide each, so that any number of them is a multiple of 8.
    assert step_of(attention(), "tensorrt")["q0"] == 1
    assert step_of(attention(), "tensorrt", mode="columns")["v0"] == 2


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 999), st.floats(0.05, 0.95), st.sampled_from(["family", "global"]))
def test_the_search_meets_its_limit_with_the_least(seed, share, scope):
    found = candidates(channel_groups(mlp(4, 13, 9, 17, 3)), seed=seed)
    allocate = allocation(found, scope)

    def cost(widths: dict[Candidate, int]) -> int:
        a, b, c = (widths[x] for x in found)
        return 4 * a + a * b + b * c + 3 * c

    limit = share * cost(allocate(0.0))
    widths = meeting(allocate, cost, limit)
    if widths is None:
        assert cost(allocate(1.0)) > limit
        return
    assert cost(widths) <= limit
    if limit < cost(allocate(0.0)):  # one more atom anywhere that the search cut last is too much
        assert cost(widths) > limit - max(4 + 9, 13 + 17, 9 + 3) - 4 * 13


def test_a_value_fed_by_part_of_a_family_keeps_a_channel():
    """Both halves of a Split are one family; all of the worst atoms are in one half."""
    text = """agraph (float[n, 4] x) => (float[n, 3] y) {
        a = MatMul(x, w0) b, c = Split<axis=1, num_outputs=2>(a)
        d = Relu(b) e = Relu(c) f = Concat<axis=1>(d, e) y = MatMul(f, w1)
    }"""
    groups = channel_groups(model_of(text, {"w0": random_weight(4, 12), "w1": random_weight(12, 3)}))
    (family,) = groups.families
    ranking = Ranking.by_scores(family, np.arange(12, dtype=float) + 1, seed=0)
    order, worth = ranking.order, ranking.worth
    candidate = Candidate("a", groups, family, order, worth, 12)
    for width in (1, 2, 6):
        widths = legal(groups.propagation, {candidate: width})
        Cut(groups.propagation.model, groups.propagation, of_widths(groups.propagation, widths)).check()
        assert widths[candidate] == max(width, 2)
