"""The target protocol: two readings of one predicate, styles, and shapes seen through quantizers."""

from __future__ import annotations

import int8_kit
import pytest

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.errors import PassOptionError
from irc.target import QuantizationStyle, has_quantized_operands, operand_shape, stored_weight
from irc.targets import parse, render


@pytest.mark.parametrize(
    "target", [OrtTarget(), OrtTarget(cpu="avx2"), TensorRtTarget(), TensorRtTarget(sm=(86,))], ids=str
)
def test_text_and_back(target):
    assert parse(render(target)) == target


def test_unknown_cpu_is_refused():
    with pytest.raises(PassOptionError, match="vnni"):
        parse("ort{cpu=z80}")


def test_rule_names_are_unique_per_target():
    for target in (OrtTarget(), TensorRtTarget()):
        names = [rule.name for rule in target.rules]
        assert len(set(names)) == len(names) and all(name == name.lower() and " " not in name for name in names)


@pytest.mark.parametrize("build", [int8_kit.block, int8_kit.text])
@pytest.mark.parametrize("target", [OrtTarget(), TensorRtTarget()], ids=str)
def test_what_a_target_refuses_in_float_it_finds_in_a_file_and_the_other_way_round(build, target):
    """Placement for one target, lint for the other: the operator rules speak the same of both graphs."""
    other = TensorRtTarget() if isinstance(target, OrtTarget) else OrtTarget()
    model = build()
    refused = {n.outputs[0].name for n in model.graph if n.op_type in ("Conv", "Gemm", "MatMul") and target.refuses(n)}
    placed = int8_kit.quantize(model, target=other)
    operator_rules = {rule.name for rule in target.rules if hasattr(rule, "why_float")}
    found = {f.node for f in target.lint(placed.model) if f.rule in operator_rules}
    assert found == refused & set(placed.rewritten)


def test_quantized_operands_and_shapes_seen_through_the_pair():
    model = int8_kit.text()
    quantized = int8_kit.quantize(model).model
    before = {n.name: n for n in model.graph if n.op_type == "MatMul"}
    for node in quantized.graph:
        if node.op_type == "MatMul":
            assert has_quantized_operands(node) and stored_weight(node) is not None
            for mine, theirs in zip(node.inputs, before[node.name].inputs, strict=True):
                assert operand_shape(mine) == operand_shape(theirs)


def test_float_graph_has_no_findings():
    assert OrtTarget().lint(int8_kit.block()) == [] and TensorRtTarget().lint(int8_kit.block()) == []


def test_ranges():
    assert QuantizationStyle("uint8").quantized_range == (0, 255)
    assert QuantizationStyle("int8").quantized_range == (-127, 127)
