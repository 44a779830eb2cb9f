"""`--verify full`: a cut is proved on the model at hand, and one that rests on a wrong analysis is not made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_weight

import irc
from irc.analysis.channels.rules import all_rules
from irc.cli import main
from irc.errors import PassFailed, UsageError
from irc.ir import save
from irc.pass_base import Context
from irc.pass_manager import PassManager

TEXT = """g (float[N,3,6,6] x) => (float[N,5] y) {
  a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w1, b1)
  r = {activation}(a)
  b = Conv<kernel_shape=[1,1]>(r, w2)
  s = Relu(b)
  p = GlobalAveragePool(s)
  f = Flatten(p)
  y = Gemm(f, w3)
}"""
PIPELINE = "prune-channels{ratio=0.5,round_to=1}"


def model(activation: str = "Relu") -> ir.Model:
    weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (6, 8, 1, 1), "w3": (6, 5)}
    text = TEXT.replace("{activation}", activation)
    return model_of(text, {name: random_weight(*shape) for name, shape in weights.items()})


def summary(result: object) -> str:
    return result.ledger.passes[-1].summary  # type: ignore[attr-defined,no-any-return]


def test_a_proved_cut_says_what_was_proved() -> None:
    result = PassManager([PIPELINE]).run(model(), Context(prove=True))
    assert "proved on 2 samples" in summary(result)
    assert "channels permuted by rows: outputs within" in summary(result)
    assert "cut channels zeroed: outputs within" in summary(result)


def test_a_float16_model_without_types_of_values() -> None:
    half = model()
    for value in half.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy().astype(np.float16), name=value.name)
        value.dtype = ir.DataType.FLOAT16
    for value in (*half.graph.inputs, *half.graph.outputs):
        value.dtype = ir.DataType.FLOAT16
    for node in half.graph:
        for value in node.outputs:
            if value not in half.graph.outputs:
                value.type = None
    result = PassManager([PIPELINE]).run(half, Context(prove=True))
    assert "cut channels zeroed: outputs within" in summary(result)


def test_nothing_is_proved_unless_asked() -> None:
    assert "proved" not in summary(PassManager([PIPELINE]).run(model()))


@pytest.mark.parametrize("activation", ["Softmax<axis=1>", "CumSumOfChannels"])
def test_a_wrong_rule_is_found_and_the_cut_is_not_made(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if activation == "CumSumOfChannels":
        found = model()
        axis = ir.Value(
            name="one", const_value=ir.tensor(np.array(1)), shape=ir.Shape([]), type=ir.TensorType(ir.DataType.INT64)
        )
        found.graph.register_initializer(axis)
        node = next(node for node in found.graph if node.op_type == "Relu")
        summed = ir.Node("", "CumSum", [node.inputs[0], axis], num_outputs=1, name="sum")
        summed.outputs[0].name = "sum"
        found.graph.insert_before(node, summed)
        node.replace_input_with(0, summed.outputs[0])
        operator = "CumSum"
    else:
        found, operator = model(activation), "Softmax"
    monkeypatch.setitem(all_rules(), ("", operator), lambda view: view.write(view.read(0)))
    with pytest.raises(PassFailed, match=r"the outputs change by .* report this as a defect of irc"):
        PassManager([PIPELINE]).run(found, Context(prove=True))
    left = PassManager([PIPELINE], on_failure="undo").run(found, Context(prove=True))
    assert [list(v.shape) for v in left.model.graph.initializers.values() if v.name == "w1"] == [[8, 3, 3, 3]]


def test_the_command_line_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    save(model(), path)
    arguments = ["optimize", str(path), "--passes", PIPELINE, "--no-measure", "-o", str(tmp_path / "out.onnx")]
    assert main([*arguments, "--verify", "full"]) == 0
    assert "proved on 2 samples" in " ".join(capsys.readouterr().out.split())
    assert main([*arguments, "--verify", "full", "--no-verify"]) == 2


def test_an_unknown_depth_of_verification_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(model(), path)
    with pytest.raises(UsageError, match="must be True, False or 'full'"):
        irc.optimize(path, verify="deep")  # type: ignore[arg-type]
