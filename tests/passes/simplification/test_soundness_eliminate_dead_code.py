"""eliminate-dead-code: what it says it did."""

from __future__ import annotations

from pass_kit import apply, parse

from irc.passes.simplification import EliminateDeadCode


def test_an_unused_output_alone_is_worth_saying() -> None:
    model = parse("g (float[1,1,4] x) => (float[1,1,3] y) { y, i = MaxPool<kernel_shape=[2]>(x) }")
    outcome = apply(EliminateDeadCode(), model)
    assert outcome.rewritten == ["<model>"]
    assert [value.name for value in outcome.model.graph[0].outputs if value.name] == ["y"]
