"""Foreign passes under our manager, and the blame that must isolate single matches of a rule set."""

from __future__ import annotations

import math
import random

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import pytest

from irc.adapters import OnnxIrPass, RewriteRules, adapt
from irc.errors import UsageError
from irc.pass_manager import PassManager

rewriter = pytest.importorskip("onnxscript.rewriter")
BENIGN, ALONE, TOGETHER = 1.0, 2.0, 3.0


class AddToSub(rewriter.RewriteRuleClassBase):
    """x + c -> x - (-c), but wrong where c marks a planted fault."""

    def pattern(self, op, x, c):
        return op.Add(x, c)

    def check(self, context, x, c, **_):
        result = rewriter.MatchResult()
        if c.const_value is None:
            return result.fail("the second operand is not constant")
        return result

    def rewrite(self, op, x, c):
        value = c.const_value.numpy()
        wrong = {BENIGN: 0.0, ALONE: 5.0, TOGETHER: 100.0}[float(value.flat[0])]
        return op.Sub(x, op.initializer(ir.tensor(-(value + np.float32(wrong))), name="negated"))


def faulty_chain(count: int, alone: int, pair: tuple[int, int]) -> ir.Model:
    """`count` additions in a chain; the two of `pair` feed a Min beside the chain, which hides either fault but not both."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 4]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 20})
    current, twins = x, []
    for i in range(count):
        kind = ALONE if i == alone else TOGETHER if i in pair else BENIGN
        constant = ir.Value(name=f"c{i}", const_value=ir.tensor(np.full((4,), kind, np.float32), name=f"c{i}"))
        constant.type, constant.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([4])
        graph.register_initializer(constant)
        node = ir.node("Add", [x if kind == TOGETHER else current, constant])
        node.outputs[0].name = f"v{i}"
        graph.append(node)
        if kind == TOGETHER:
            twins.append(node.outputs[0])
        else:
            current = node.outputs[0]
    smaller = ir.node("Min", twins)
    graph.append(smaller)
    end = ir.node("Concat", [current, smaller.outputs[0]], {"axis": 0})
    end.outputs[0].name, end.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    end.outputs[0].shape = ir.Shape([2, 4])
    graph.append(end)
    graph.outputs.append(end.outputs[0])
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_three_wrong_sites_among_two_hundred_are_found_and_undone(seed):
    picks = random.Random(seed).sample(range(200), 3)
    alone, pair = picks[0], (min(picks[1:]), max(picks[1:]))
    model = faulty_chain(200, alone, pair)
    rules = rewriter.RewriteRuleSet([AddToSub().rule()])

    result = PassManager([rules]).run(model)

    record = result.ledger.passes[0]
    assert {entry.site for entry in record.undone} == {f"v{i}" for i in (alone, *pair)}
    assert all("verification failed" in entry.reason for entry in record.undone)
    assert len(record.rewritten) == 197
    assert sum(node.op_type == "Sub" for node in result.model.graph) == 197
    assert result.ledger.verification_runs <= 3 * math.log2(200) + 10


def test_rules_get_free_names_for_shared_constants():
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[1,4] x) => (float[1,4] y, float[1,4] z)
        <float[4] c = {1, 1, 1, 1}> { y = Add(x, c)  z = Add(x, c) }"""
    )
    result = PassManager([rewriter.RewriteRuleSet([AddToSub().rule()])]).run(model)
    assert [node.op_type for node in result.model.graph] == ["Sub", "Sub"]
    names = [node.inputs[1].name for node in result.model.graph]
    assert len(set(names)) == 2 and set(names) <= set(result.model.graph.initializers)


def test_a_rule_says_why_it_did_not_fire():
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[1,4] x, float[1,4] w) => (float[1,4] y) { y = Add(x, w) }"""
    )
    record = PassManager([AddToSub().rule()]).run(model).ledger.passes[0]
    assert not record.rewritten
    assert record.skip_reasons() == [("the second operand is not constant", 1)]


def test_onnx_ir_pass_is_one_site_and_named_after_its_class():
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[1,4] x) => (float[1,4] y) { h = Relu(x)  dead = Abs(x)  y = Neg(h) }"""
    )
    result = PassManager([common_passes.RemoveUnusedNodesPass()]).run(model)
    record = result.ledger.passes[0]
    assert (record.name, [e.site for e in record.rewritten]) == ("remove-unused-nodes", ["<model>"])
    assert [node.op_type for node in result.model.graph] == ["Relu", "Neg"]
    assert [node.op_type for node in model.graph] == ["Relu", "Abs", "Neg"]


class RenamesOutput(ir.passes.InPlacePass):
    def call(self, model):
        model.graph.outputs[0].name = "renamed"
        return ir.passes.PassResult(model, True)


def test_onnx_ir_pass_that_breaks_the_interface_is_undone():
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]> g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }"""
    )
    result = PassManager([RenamesOutput()]).run(model)
    record = result.ledger.passes[0]
    assert not record.rewritten and "interface changed" in record.undone[0].reason
    assert result.model.graph.outputs[0].name == "y"


def test_adapt_refuses_what_is_no_pass():
    with pytest.raises(UsageError, match="is not a pass"):
        adapt(42)


def test_adapters_keep_their_kind():
    assert isinstance(adapt(common_passes.NameFixPass()), OnnxIrPass)
    assert isinstance(adapt(rewriter.RewriteRuleSet([AddToSub().rule()])), RewriteRules)
    assert isinstance(adapt(rewriter.RewritePass([AddToSub().rule()])), RewriteRules)
