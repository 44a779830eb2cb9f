"""What a caller may get wrong: each is an error that says what to do, and leaves the model as it was."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_weight

from irc.analysis.channels import ChannelGroups, channel_groups
from irc.channel_surgery import cut
from irc.errors import ModelError, UsageError
from irc.ir import snapshot

MISUSED = """g (float[N,6] x) => (float[N,5] y) {
  a = MatMul(x, w1)
  b = Add(a, b1)
  y = MatMul(b, w2)
}"""


def misused() -> tuple[ir.Model, ChannelGroups]:
    model = model_of(MISUSED, {"w1": random_weight(6, 8), "b1": random_weight(8), "w2": random_weight(8, 5)})
    return model, channel_groups(model)


def test_a_part_of_a_channel_cannot_be_cut() -> None:
    model, groups = misused()
    alive = groups.survivors({})
    alive[groups.propagation.slots[1].bundles[0].labels[0]] = False
    with pytest.raises(ModelError, match="part of a channel only"):
        cut(model, groups.propagation, alive)
    assert [int(d) for d in model.graph.initializers["b1"].const_value.shape] == [8]


def test_what_is_pinned_cannot_be_cut() -> None:
    model, groups = misused()
    with pytest.raises(ModelError, match="left out that cannot be cut: "):
        cut(model, groups.propagation, np.zeros_like(groups.survivors({})))


def test_a_model_that_was_cut_is_analysed_anew_before_it_is_cut_again() -> None:
    model, groups = misused()
    family = groups.families[0]
    alive = groups.survivors({family: family.atoms[:3]})
    cut(model, groups.propagation, alive)
    with pytest.raises(ModelError, match="analyse it anew"):
        cut(model, groups.propagation, alive)


@pytest.mark.parametrize("atoms", [[0, 1], np.arange(5), np.ones(8, dtype=bool), [10**9]])
def test_atoms_are_not_positions(atoms: object) -> None:
    _model, groups = misused()
    family = groups.families[0]
    assert 0 not in family.atoms
    with pytest.raises(UsageError, match="elements of its `atoms`"):
        groups.survivors({family: atoms})


def test_a_family_of_another_analysis_is_an_error() -> None:
    _model, groups = misused()
    family = misused()[1].families[0]
    with pytest.raises(UsageError, match="of another analysis or mode"):
        groups.survivors({family: family.atoms})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "cols"}, "it must be one of rows, columns"),
        ({"sizes": {"N": 0}}, "must be at least 1"),
        ({"sizes": {"M": 3}}, "no such dynamic dimension"),
        ({"allow_outputs": ["z"]}, "no such output; did you mean|it has y"),
        ({"allow_outputs": "y"}, "give a list of names"),
    ],
)
def test_wrong_questions_are_usage_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        channel_groups(misused()[0], **options)


def test_weights_are_laid_out_as_they_are_now() -> None:
    """Not as they were analysed: they may have been repaired in between."""
    model, groups = misused()
    other = snapshot(model)
    repaired = random_weight(8, 5, seed=7)
    other.graph.initializers["w2"].const_value = ir.tensor(repaired, name="w2")
    family = groups.families[0]
    cut(other, groups.propagation, groups.survivors({family: family.atoms[2:6]}))
    assert (other.graph.initializers["w2"].const_value.numpy() == repaired[2:6]).all()
    assert [int(d) for d in model.graph.initializers["w2"].const_value.shape] == [8, 5]
