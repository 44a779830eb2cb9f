"""Passes whose rewrites are one edit: `finish`, what it says in the ledger, the selection it sees, outputs that get narrower."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir
import pytest
from pass_kit import parse

from irc import PassManager
from irc.errors import PassFailed
from irc.ir import bypass, interface
from irc.pass_base import Contract, Pass, Remark, Site, Skip
from irc.pipeline import Step
from irc.selection import Selection

MODEL = "agraph (float[n, 4] x) => (float[n, 4] y) { a = Relu(x) b = Abs(a) c = Neg(b) y = Neg(c) }"


@dataclasses.dataclass(frozen=True)
class Together(Pass):
    """Takes out all Relu, Abs and Neg but the last at once."""

    name: ClassVar[str] = "together"
    contract: ClassVar[Contract] = Contract.APPROXIMATE

    fail: bool = False

    def sites(self, model, ctx):
        for node in list(model.graph)[:-1]:
            if (reason := ctx.refuses(node, "")) is not None:
                yield Skip(node, f"seen by the pass: {reason}")
            else:
                yield Site(node, len(list(model.graph)))

    def rewrite(self, site, ctx):
        return Skip(site.node, "not an Abs") if site.node.op_type == "Abs" else None

    def finish(self, sites, ctx):
        if self.fail:
            raise RuntimeError("it does not fit")
        for site in sites:
            bypass(site.node, site.node.inputs[0])
        return Remark(f"{len(sites)} of {sites[0].match} at once")


def op_types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_the_edit_is_made_once_with_what_was_accepted():
    result = PassManager([Together()]).run(parse(MODEL))
    record = result.ledger["together"]
    assert op_types(result.model) == ["Abs", "Neg"] and record.summary == "2 of 4 at once"
    assert [e.site for e in record.rewritten] == ["a", "c"] and record.to_dict()["summary"] == record.summary


def test_limits_and_denials_come_before_it():
    result = PassManager([Together()], limits={"together": 1}).run(parse(MODEL))
    assert op_types(result.model) == ["Abs", "Neg", "Neg"]


def test_a_pass_sees_what_the_user_excludes():
    result = PassManager([Step(Together(), Selection.of(exclude=["op:Relu"]))]).run(parse(MODEL))
    record = result.ledger["together"]
    assert op_types(result.model) == ["Relu", "Abs", "Neg"]
    assert {e.site: e.reason for e in record.skipped}["a"] == "seen by the pass: excluded by op:Relu"


def test_a_failure_is_the_whole_pass_s():
    with pytest.raises(PassFailed, match="together: failed behind its last site: RuntimeError: it does not fit"):
        PassManager([Together(fail=True)]).run(parse(MODEL))
    result = PassManager([Together(fail=True)], on_failure="undo").run(parse(MODEL))
    assert len(op_types(result.model)) == 4 and not result.ledger["together"].rewritten


@pytest.mark.parametrize(
    ("after", "narrower", "fine"),
    [
        ("float[n, 3]", ("y",), True),
        ("float[n, 3]", (), False),
        ("float[n, 3]", ("z",), False),
        ("float[n, 5]", ("y",), False),
        ("float[n, 3, 1]", ("y",), False),
        ("float[m, 3]", ("y",), False),
        ("float16[n, 3]", ("y",), False),
    ],
)
def test_outputs_get_narrower_only_where_that_is_said(after, narrower, fine):
    before = interface(parse(MODEL))
    dtype, dims = after.split("[")
    model = parse(MODEL)
    output = model.graph.outputs[0]
    output.shape = ir.Shape([int(d) if d.strip().isdigit() else d.strip() for d in dims[:-1].split(",")])
    output.type = ir.TensorType(ir.DataType.FLOAT16 if dtype == "float16" else ir.DataType.FLOAT)
    assert (before.difference(interface(model), narrower=narrower) is None) == fine
