"""What lossless passes make of a model is not larger than it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pass_kit
import pytest

import irc
from irc import recipe as recipes
from irc.application import SiteKey
from irc.expansion import as_steps
from irc.growth import growing_steps
from irc.ir import add_initializer, replace_node, save
from irc.pass_base import MODEL_SITE, Context, Contract, Pass, Site, Skip
from irc.pass_manager import PassManager
from irc.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Pad(Pass):
    """Adds constants of a given size, or nodes, to every Neg; keeps what is computed."""

    name: ClassVar[str] = "pad-model"
    contract: ClassVar[Contract] = Contract.EXACT

    elements: int = 100
    nodes: int = 0

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        for node in model.graph:
            if node.op_type == "Neg":
                yield Site(node)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        node = site.node
        assert node is not None and isinstance(node.graph, ir.Graph)
        source = node.inputs[0]
        for _ in range(self.nodes):
            inner = ir.node("Identity", [source])
            node.graph.insert_before(node, inner)
            source = inner.outputs[0]
        if self.elements:
            add_initializer(node.graph, "unused", np.zeros(self.elements, np.float32))
        replace_node(node, "Sub", [add_initializer(node.graph, "zero", np.float32(0)), source])
        return None


def model() -> ir.Model:
    return pass_kit.parse("g (float[2] x) => (float[2] y) { a = Identity(x)  b = Identity(a)  c = Neg(b)  y = Abs(c) }")


def run(passes: list[Pass | str]) -> dict[SiteKey, str]:
    manager = PassManager(passes, verify=False, insert_required=False)
    start = model()
    result = manager.run(start)
    return growing_steps(start, result.model, manager.steps, result.undone, Context())


def test_what_shrinks_stays() -> None:
    assert run(["eliminate-identity"]) == {}


def test_a_pass_may_add_what_another_takes_away() -> None:
    assert run(["eliminate-identity", Pad(elements=0)]) == {}
    assert run([Pad(elements=0)]) != {}


def test_a_build_at_a_level_leaves_it_out_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(model(), tmp_path / "m.onnx")
    level = Recipe("-O1", tuple(as_steps(["eliminate-identity", Pad(elements=1000)])), never_worse=True)
    monkeypatch.setattr(recipes, "level", lambda name, *, has_data: level)
    report = irc.optimize(tmp_path / "m.onnx", level="O1", measure=False)
    assert report.artifact.size_bytes <= report.source.size_bytes and report.artifact.nodes == 2
    assert [entry.reason.split(":")[0] for record in report.ledger for entry in record.undone] == ["left out"]
    explicit = irc.optimize(tmp_path / "m.onnx", passes=["eliminate-identity", Pad(elements=1000)], measure=False)
    assert explicit.artifact.size_bytes > explicit.source.size_bytes, "a pipeline that is asked for is obeyed"


@pytest.mark.parametrize("grows", [Pad(elements=1000), Pad(elements=0, nodes=9)])
def test_the_pass_that_makes_it_larger_is_left_out_alone(grows: Pad) -> None:
    denied = run(["eliminate-identity", grows])
    assert list(denied) == [SiteKey(1, MODEL_SITE)]
    assert "larger" in denied[SiteKey(1, MODEL_SITE)]


def test_as_many_passes_as_it_takes() -> None:
    denied = run([Pad(elements=1000), "eliminate-identity", Pad(elements=0, nodes=9)])
    assert [key.step for key in sorted(denied, key=lambda key: key.step)] == [0, 2]


@dataclasses.dataclass(frozen=True)
class Prepare(Pad):
    """The same for the sake of an approximate pass behind it."""

    name: ClassVar[str] = "prepare"
    prepares: ClassVar[bool] = True


def test_what_prepares_an_approximate_pass_may_add() -> None:
    grows = Prepare(elements=1000, nodes=9)
    assert run([grows]) == run(["eliminate-identity", grows]) == {}
    assert list(run([grows, Pad(elements=1000)])) == [SiteKey(1, MODEL_SITE)]
