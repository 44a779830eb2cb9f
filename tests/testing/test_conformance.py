"""check_pass finds every kind of broken promise: each of these passes breaks one, and is told which."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from irc.ir import add_initializer, bypass, constant, replace_node, replace_value
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification import EliminateIdentity, FoldBatchNorm
from irc.testing import assert_conforms, check_pass, parse_model

RELUS = "g (float[n,4] x) => (float[n,4] y) { a = Relu(x)  b = Relu(a)  y = Mul(b, w) }"


def relus() -> ir.Model:
    return parse_model(RELUS, w=(4,))


@dataclasses.dataclass(frozen=True)
class RepeatedRelu(Pass):
    """Relu(Relu(x)) is Relu(x): a pass that keeps its promises, and what the others here are made of."""

    name: ClassVar[str] = "repeated-relu"
    contract: ClassVar[Contract] = Contract.EXACT

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        for node in model.graph.all_nodes():
            if node.op_type == "Relu" and (inner := node.inputs[0].producer()) is not None and inner.op_type == "Relu":  # type: ignore[union-attr]
                yield Site(node, match=model)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        bypass(site.node, site.node.inputs[0])  # type: ignore[arg-type]
        return None


class Raises(RepeatedRelu):
    def rewrite(self, site, ctx):
        raise KeyError("oops")


class ChangesWhileLooking(RepeatedRelu):
    def sites(self, model, ctx):
        model.graph.doc_string = "seen"
        yield from super().sites(model, ctx)


class ChangesAndSaysNo(RepeatedRelu):
    def rewrite(self, site, ctx):
        site.match.graph.doc_string = "changed"
        return Skip(site.node, "not today")


class WritesIntoATensor(RepeatedRelu):
    def rewrite(self, site, ctx):
        constant(site.match.graph.initializers["w"]).setflags(write=True)
        constant(site.match.graph.initializers["w"])[...] *= 2
        return super().rewrite(site, ctx)


class RenamesAnInput(RepeatedRelu):
    def rewrite(self, site, ctx):
        site.match.graph.inputs[0].name = "renamed"
        return super().rewrite(site, ctx)


class UsesAnUnknownOperator(RepeatedRelu):
    def rewrite(self, site, ctx):
        replace_node(site.node, "Rleu", site.node.inputs)


class LiesAboutAnInitializer(RepeatedRelu):
    def rewrite(self, site, ctx):
        site.match.graph.initializers["w"].shape = ir.Shape([1, 4])
        return super().rewrite(site, ctx)


class FindsItsOwnWork(RepeatedRelu):
    def sites(self, model, ctx):
        yield from (Site(node) for node in model.graph if node.op_type == "Mul" and node.name != "again")

    def rewrite(self, site, ctx):
        site.node.name += "x"


class DependsOnACounter(RepeatedRelu):
    count: ClassVar[itertools.count] = itertools.count()

    def rewrite(self, site, ctx):
        site.node.inputs[0].producer().name = f"relu_{next(self.count)}"
        return super().rewrite(site, ctx)


class ChangesNumbers(RepeatedRelu):
    def rewrite(self, site, ctx):
        graph = site.match.graph
        new = add_initializer(graph, "w2", constant(graph.initializers["w"]) * np.float32(1.0001))
        replace_value(graph.initializers["w"], new)
        return super().rewrite(site, ctx)


class BreaksNaN(RepeatedRelu):
    """Max(0, x) is x for what is not negative, but for NaN."""

    def rewrite(self, site, ctx):
        zero = add_initializer(site.match.graph, "zero", np.float32(0))
        greater = replace_node(
            site.node.inputs[0].producer(), "Greater", [site.node.inputs[0].producer().inputs[0], zero]
        )
        greater.outputs[0].dtype = ir.DataType.BOOL
        replace_node(site.node, "Where", [greater.outputs[0], greater.inputs[0], zero])


CASES = {
    Raises: ("raises", "KeyError"),
    ChangesWhileLooking: ("looks only", "sites() alone changes the model"),
    ChangesAndSaysNo: ("looks only", "reports no rewrite"),
    WritesIntoATensor: ("raises", "WRITEABLE"),
    RenamesAnInput: ("interface", "inputs were ['x'] and are ['renamed']"),
    UsesAnUnknownOperator: ("numbers", "refuses"),
    LiesAboutAnInitializer: ("valid", "initializer 'w' is declared"),
    FindsItsOwnWork: ("idempotent", "a second application rewrites"),
    DependsOnACounter: ("deterministic", "differ"),
    ChangesNumbers: ("numbers", "off by"),
    BreaksNaN: ("numbers", "NaN"),
}


def test_a_sound_pass_conforms_and_says_what_it_did() -> None:
    result = assert_conforms(RepeatedRelu(), {"relus": relus()}, must_fire=True)
    assert result.ok and result.rewritten == {"relus": ["b"]} and result.not_run == {}


@pytest.mark.parametrize("broken", CASES, ids=lambda c: c.__name__)
def test_finds(broken: type[Pass]) -> None:
    rule, message = CASES[broken]
    found = check_pass(broken(), relus(), sharing="skip").violations
    assert any(v.rule == rule and message in v.message for v in found), found


def test_an_approximate_pass_may_change_numbers_but_not_their_form() -> None:
    class Approximate(ChangesNumbers):
        contract = Contract.APPROXIMATE

    class Widens(RepeatedRelu):
        contract = Contract.APPROXIMATE

        def rewrite(self, site, ctx):
            site.match.graph.outputs[0].shape = None
            weight = site.match.graph.initializers["w"]
            replace_value(weight, add_initializer(site.match.graph, "w2", np.ones((2, 1, 4), np.float32)))
            return super().rewrite(site, ctx)

    assert check_pass(Approximate(), relus(), sharing="skip").ok
    loose = relus()
    loose.graph.outputs[0].shape = None
    (violation,) = check_pass(Widens(), loose, sharing="skip").violations
    assert violation.rule == "numbers" and "[2, 1, 4]" in violation.message


class NaiveFold(FoldBatchNorm):
    """Folds a BatchNormalization into the Gemm before it, without a look at who else needs the Gemm or gives the weights."""

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        yield from (Site(n, match=model) for n in model.graph if n.op_type == "BatchNormalization")

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        norm, graph = site.node, site.match.graph
        product = norm.inputs[0].producer()
        gamma, beta, mean, var, weight = (v.const_value.numpy() for v in (*norm.inputs[1:], product.inputs[1]))
        scale = gamma / np.sqrt(var + np.float32(1e-5))
        folded = [
            add_initializer(graph, hint, value)
            for hint, value in (("folded_w", (weight * scale[:, None]).T), ("folded_b", beta - mean * scale))
        ]
        used = [*norm.inputs[1:], product.inputs[1]]
        bypass(norm, replace_node(product, "Gemm", [product.inputs[0], *folded]).outputs[0])
        for value in used:
            if not value.is_graph_input():
                del graph.initializers[value.name]
        return None


NORM = "g (float[n,3] x) => (float[n,4] y) { h = Gemm<transB=1>(x, w)  r = BatchNormalization(h, gamma, beta, mean, var)  y = Relu(r) }"


def norm() -> ir.Model:
    return parse_model(NORM, w=(4, 3), gamma=(4,), beta=(4,), mean=(4,), var=(4,))


def test_other_users_of_what_a_pass_removes_are_tried() -> None:
    """The rewrite is right on the model itself; only where its inner value is needed elsewhere does it go wrong."""
    assert check_pass(NaiveFold(), norm(), sharing="skip").ok
    found = check_pass(NaiveFold(), norm()).violations
    assert {v.model for v in found} >= {"model, 'h' has another user", "model, 'h' is used in a body"}
    assert {v.rule for v in found if "has another user" in v.model} == {"numbers"}


def test_a_weight_that_callers_may_override_is_tried() -> None:
    assert assert_conforms(FoldBatchNorm(), norm(), sharing="refuse", must_fire=True).ok
    found = check_pass(NaiveFold(), norm()).violations
    assert {v.model for v in found if v.rule == "numbers"} >= {"model, 'gamma' may be overridden"}


def test_refusing_is_asked_for_and_not_assumed() -> None:
    model = parse_model("g (float[2] x) => (float[2] y) { a = Abs(x)  b = Identity(a)  y = Neg(b) }")
    assert_conforms(EliminateIdentity(), model, must_fire=True)
    found = check_pass(EliminateIdentity(), model, sharing="refuse").violations
    assert {v.rule for v in found} == {"sharing"} and "it still rewrites ['b']" in found[0].message


def test_the_models_are_not_changed_and_every_violation_is_told() -> None:
    models = {"one": relus(), "two": relus()}
    before = {name: ir.to_proto(model).SerializeToString() for name, model in models.items()}
    with pytest.raises(
        AssertionError, match=r"(?s)repeated-relu does not conform:\n  one: raises: .*\n  two: raises: "
    ):
        assert_conforms(WritesIntoATensor(), models, sharing="skip")
    assert {name: ir.to_proto(model).SerializeToString() for name, model in models.items()} == before


def test_a_pass_that_was_to_fire_and_did_not_is_told() -> None:
    with pytest.raises(AssertionError, match="model: it rewrites nothing"):
        assert_conforms(FoldBatchNorm(), relus(), must_fire=True)


def test_a_model_the_runtime_cannot_run_is_reported_as_not_run() -> None:
    model = parse_model("g (float[2] x) => (float[2] y) { a = Relu(x)  b = Relu(a)  y = custom.Mystery(b) }")
    result = check_pass(RepeatedRelu(), model, sharing="skip")
    assert result.ok and result.rewritten == {"model": ["b"]} and "Mystery" in result.not_run["model"]
