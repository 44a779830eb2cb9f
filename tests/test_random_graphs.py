"""Random graphs through the whole of `-O1`: nothing undone, nothing wrong, nothing larger."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from irc.ir import add_initializer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.recipe import LOSSLESS
from irc.testing.graphs import Limits, random_model
from irc.testing.pipelines import pipeline_violations
from irc.testing.shrinking import shrink

EACH = 12
ALL = 5000
BLOCK = 250


@pytest.mark.parametrize("block", range(5))
def test_nothing_is_wrong(block: int) -> None:
    _assert_right(range(block * EACH, (block + 1) * EACH))


def test_models_with_unknown_operators_are_kept_valid() -> None:
    for seed in range(10):
        assert pipeline_violations([LOSSLESS], random_model(seed, Limits(unknown_operators=True, steps=6))) == []


@pytest.mark.slow
@pytest.mark.parametrize("start", range(5 * EACH, ALL, BLOCK))
def test_nothing_is_wrong_in_thousands(start: int) -> None:
    _assert_right(range(start, min(ALL, start + BLOCK)))


def _assert_right(seeds: range | list[int]) -> None:
    wrong = {seed: found for seed in seeds if (found := pipeline_violations([LOSSLESS], random_model(seed)))}
    assert wrong == {}


@dataclasses.dataclass(frozen=True)
class NegToAbs(Pass):
    """Wrong on negative numbers."""

    name: ClassVar[str] = "neg-to-abs"
    contract: ClassVar[Contract] = Contract.EXACT

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        for node in model.graph.all_nodes():
            if node.op_type == "Neg" and node.inputs[0].dtype == ir.DataType.FLOAT:
                yield Site(node)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        replace_node(site.node, "Abs", list(site.node.inputs))
        return None


@dataclasses.dataclass(frozen=True)
class Grow(NegToAbs):
    """Right, and one node more each time."""

    name: ClassVar[str] = "grow"

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        node = site.node
        extra = ir.node("Identity", [node.inputs[0]])
        extra.outputs[0].name = f"{node.outputs[0].name}_more"
        node.graph.insert_before(node, extra)
        replace_node(node, "Mul", [extra.outputs[0], _minus_one(node.graph)])
        return None


def _minus_one(graph: ir.Graph) -> ir.Value:
    return add_initializer(graph, "minus_one", np.array(-1, np.float32))


def _with_neg() -> tuple[int, ir.Model]:
    """A random model in which something is negated and matters."""
    for seed in range(400):
        model = random_model(seed)
        if sum(1 for _ in model.graph.all_nodes()) < 16:
            continue
        if any(text.startswith("undone: neg-to-abs") for text in pipeline_violations([NegToAbs()], model)):
            return seed, model
    raise AssertionError("no random model negates a float")


def test_a_wrong_pass_is_found_and_its_model_made_small() -> None:
    _, model = _with_neg()

    def fails(candidate: ir.Model) -> bool:
        return any(text.startswith("undone: neg-to-abs") for text in pipeline_violations([NegToAbs()], candidate))

    small = shrink(model, fails)
    assert fails(small)
    assert "Neg" in [node.op_type for node in small.graph.all_nodes()]
    assert 5 * sum(1 for _ in small.graph.all_nodes()) < 3 * sum(1 for _ in model.graph.all_nodes())


def test_growth_is_found() -> None:
    _, model = _with_neg()
    assert any(text.startswith("smaller: ") for text in pipeline_violations([Grow()], model))
