"""eliminate-identity: what is known of the value that stays, which no run of the model shows."""

from __future__ import annotations

import onnx_ir as ir
from pass_kit import apply, parse

from irc.passes.simplification import EliminateIdentity

PASS = EliminateIdentity()
FLOAT = ir.TensorType(ir.DataType.FLOAT)


def _model(source: object, target: object) -> ir.Model:
    """An operator of unknown type and shape behind an Identity."""
    model = parse("g (float[2] x) => (float[2] y) { a = custom.Op(x)  b = Identity(a)  y = Relu(b) }", raw=True)
    foreign, identity, _ = model.graph
    foreign.outputs[0].type, foreign.outputs[0].shape = source
    identity.outputs[0].type, identity.outputs[0].shape = target
    return model


def _after(model: ir.Model) -> ir.Value:
    outcome = apply(PASS, model)
    assert outcome.rewritten == ["b"]
    return outcome.model.graph[0].outputs[0]


def test_what_only_the_identity_knows_is_kept() -> None:
    value = _after(_model((None, None), (FLOAT, ir.Shape([2]))))
    assert value.type == FLOAT and value.shape == ir.Shape([2])


def test_what_the_source_knows_is_kept() -> None:
    value = _after(_model((FLOAT, ir.Shape([2])), (None, ir.Shape([None]))))
    assert value.type == FLOAT and value.shape == ir.Shape([2])


def test_the_interface_learns_no_shape() -> None:
    model = parse("g (float[2] x) => (float[2] y) { b = Identity(x)  y = Relu(b) }", raw=True)
    model.graph.inputs[0].shape = None
    model.graph[0].outputs[0].shape = ir.Shape([2])
    outcome = apply(PASS, model)
    assert outcome.rewritten == ["b"] and outcome.model.graph.inputs[0].shape is None
