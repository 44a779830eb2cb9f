"""What is said of the runtime's own fusions against the graph that the installed one makes."""

from __future__ import annotations

from pathlib import Path

import int8_kit
import onnx_ir as ir
import pass_kit
import pytest

from irc.backends.ort import OrtTarget
from irc.backends.ort.slow_fusions import SLOW_IN, installed_version
from irc.backends.tensorrt import TensorRtTarget
from irc.errors import PassOptionError
from irc.targets import parse, render

NORM = "s = Add(x, z) y = LayerNormalization(s, g, b)"
SLOW = OrtTarget(version="1.31")
DIMS = [
    ("1,6,8", "1,6,8", True),
    ("n,6,8", "n,6,8", True),
    ("n,m,8", "n,m,8", True),
    ("n,6,8", "k,6,8", False),
    ("n,m,8", "n,k,8", False),
    ("n,m,8", "1,m,8", False),
    ("2,6,8", "2,1,8", False),
    ("2,6,8", "6,8", False),
    ("6,8", "6,8", False),
    ("1,2,6,8", "1,2,6,8", False),
]


def _model(x: str, z: str, dtype: str = "float", nodes: str = NORM, opset: int = 17) -> ir.Model:
    dims = ",".join(f"o{axis}" for axis in range(max(x.count(","), z.count(",")) + 1))
    text = f"t ({dtype}[{x}] x, {dtype}[{z}] z, {dtype}[8] g, {dtype}[8] b) => ({dtype}[{dims}] y) {{ {nodes} }}"
    return pass_kit.parse(text, opset=opset)


def _said(model: ir.Model, target: OrtTarget = SLOW) -> bool:
    add = next(node for node in model.graph if node.op_type in ("Add", "Sub"))
    return target.fuses_slowly(add, "LayerNormalization", model.graph.opset_imports[""])


@pytest.mark.parametrize("x, z, fused", DIMS)
def test_the_runtime_fuses_what_is_said(x: str, z: str, fused: bool, tmp_path: Path) -> None:
    model = _model(x, z)
    assert _said(model) == fused
    assert ("SkipLayerNormalization" in int8_kit.runtime_operators(model, tmp_path)) == fused


@pytest.mark.parametrize("opset", [17, 18, 20, 21, 22, 23])
def test_in_every_opset_that_has_the_operator(opset: int, tmp_path: Path) -> None:
    model = _model("1,6,8", "1,6,8", opset=opset)
    assert _said(model) and "SkipLayerNormalization" in int8_kit.runtime_operators(model, tmp_path)
    apart = _model("1,6,8", "1,6,8", nodes=NORM.replace("Add", "Sum"), opset=opset)
    assert set(int8_kit.runtime_operators(apart, tmp_path)) == {"Sum", "LayerNormalization"}


@pytest.mark.parametrize("dtype", ["double", "float16"])
def test_only_float_is_fused(dtype: str, tmp_path: Path) -> None:
    model = _model("1,6,8", "1,6,8", dtype)
    assert not _said(model) and "SkipLayerNormalization" not in int8_kit.runtime_operators(model, tmp_path)


def test_what_is_not_known_to_be_the_same_is_not_fused() -> None:
    model = _model("n,6,8", "n,6,8")
    for value in model.graph.inputs[:2]:
        value.shape = ir.Shape([None, 6, 8])
    assert not _said(model)
    model.graph.inputs[1].shape = None
    assert not _said(model)
    assert not _said(_model("1,6,8", "1,6,8", nodes=NORM.replace("Add", "Sub")))
    assert not SLOW.fuses_slowly(_model("1,6,8", "1,6,8").graph[0], "RMSNormalization", 23)
    assert not SLOW.fuses_slowly(_model("1,6,8", "1,6,8").graph[0], "LayerNormalization", 12)


def test_it_depends_on_the_version_and_the_machine() -> None:
    model = _model("1,6,8", "1,6,8")
    slow = {
        version: _said(model, OrtTarget(version=version)) for version in ("1.29", "1.30.0", "1.31.1", "1.3", "1.310")
    }
    assert slow == {"1.29": False, "1.30.0": True, "1.31.1": True, "1.3": False, "1.310": False}
    assert not _said(model, OrtTarget(cpu="arm64", version="1.31")) and _said(
        model, OrtTarget(cpu="avx2", version="1.31")
    )
    assert _said(model, OrtTarget()) == (installed_version().rpartition(".")[0] in SLOW_IN)
    assert not TensorRtTarget().fuses_slowly(model.graph[0], "LayerNormalization", 17)


def test_the_version_is_an_option() -> None:
    target = parse("ort{version=1.30}")
    assert (
        target == OrtTarget(version="1.30") and render(target) == "ort{version=1.30}" and render(OrtTarget()) == "ort"
    )
    for wrong in ("new", "1", "1.31rc"):
        with pytest.raises(PassOptionError, match="version is"):
            parse(f"ort{{version={wrong}}}")
