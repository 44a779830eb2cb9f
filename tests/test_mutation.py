"""Each check of a pass is needed: change it, and a test of that pass fails. The mutants are those of benchmarks/mutation.py."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PASSES = (
    "eliminate-dead-code",
    "eliminate-double-negation",
    "eliminate-dropout",
    "eliminate-identity",
    "eliminate-no-op-selection",
    "eliminate-unused-body-values:body_needs",
    "eliminate-unused-body-values:repeated_body",
    "fold-batch-norm",
    "fold-batch-norm:inference_batch_norm",
    "fuse-gelu",
    "fuse-gelu:polynomial",
    "fuse-hard-swish",
    "fuse-matmul-add",
    "fuse-mish",
    "fuse-mish:composite",
    "infer-shapes",
    "merge-casts",
    "merge-common-subexpressions",
    "merge-duplicate-initializers",
    "merge-pads",
    "merge-transposes",
    "raise-opset",
    "unroll-loop:loop_rounds",
)
"""Those whose mutants have been gone through one by one; `benchmarks/mutation.py` takes any pass."""
HARMLESS: dict[str, tuple[str, ...]] = {
    # onnx knows no Neg without input
    "eliminate-double-negation": ("left out: node.inputs[0] is None",),
    # onnx knows no Identity or Transpose without input
    "eliminate-identity": ("left out: node.inputs[0] is None",),
    "merge-transposes": ("left out: node.inputs[0] is not None", "left out: inner.inputs[0] is None"),
    # an output that loses its name is one fewer of the one and one more of the other
    "eliminate-dead-code": ("negated: output.name",),
    # an initializer has a name
    "merge-duplicate-initializers": ("left out: ''",),
    # a Where has all inputs; the length is compared again with the elements, and only saves making a range
    "eliminate-no-op-selection": (
        "left out: taken is None",
        "and/or swapped: not isinstance(size, int) or len(indices) != size",
        "left out: not isinstance(size, int)",
        "left out: len(indices) != size",
    ),
    # a Pad has an input and keeps the rank, its value is one number; names count for an estimate of bytes
    "merge-pads": (
        "left out: node.inputs[0] is not None",
        "left out: bool(node.inputs)",
        "left out: len(first) != len(second)",
        "left out: value is not None",
        "and/or swapped: value.name or ''",
        "left out: value.name",
        "left out: ''",
        "left out: array.size != 1",
        "left out: array.dtype.kind not in 'fiub'",
    ),
    # a Cast has an input; keeps_every_value refuses a type that is not known; nothing else has an attribute `to`
    "merge-casts": (
        "left out: node.inputs[0] is not None",
        "left out: inner.inputs[0] is None",
        "left out: first is None",
        "left out: node.op_type == 'Cast'",
    ),
    # a MatMul has two inputs, and what is left of a rank that is not known is not of two
    "fold-batch-norm": ("left out: value is not None",),
    # for the type checker: operands and results have types, a known rank, a producer in a graph
    "fuse-matmul-add": (
        "left out: value is None",
        "left out: transpose is not None",
        "left out: source is not None",
        "and/or swapped: value is not None and value.shape",
        "left out: value is not None",
        "left out: value.shape",
        "left out: producer is not None",
    ),
    # without a type nothing is near enough to what is wanted
    "fuse-gelu": ("left out: x.dtype is None",),
    # a sum, product or quotient has two inputs; a number that is not known is neither 2 nor 3
    "fuse-gelu:polynomial": (
        "and/or swapped: node is None or pair is None",
        "left out: node is None",
        "left out: pair is None",
        "left out: number is None",
    ),
    # a gate has an input and, without a type, no slope near enough; a bound that is not known is not 0
    "fuse-hard-swish": (
        "left out: x.dtype is None",
        "left out: argument is None",
        "and/or swapped: argument is None or x.dtype is None",
        "left out: low is None",
    ),
    # for the type checker: a product has operands of a type, a Softplus a user
    "fuse-mish": ("left out: tanh is not None", "left out: x.dtype is not None"),
    # all that is looked at has one output and stands in a graph; a Mul has two inputs
    "fuse-mish:composite": (
        "left out: len(node.outputs) != 1",
        "left out: not isinstance(node.graph, ir.Graph)",
        "and/or swapped: len(node.inputs) != 2 or node.inputs[0] is None or node.inputs[1] is None",
        "left out: len(node.inputs) != 2",
        "left out: node.inputs[0] is None",
        "left out: node.inputs[1] is None",
    ),
    # no such operator is without input; axes are within the rank; one output is not one of several; the rest narrows types
    "eliminate-no-op-shape": (
        "left out: not node.inputs",
        "left out: node.inputs[0] is None",
        "left out: -len(before) <= axis < len(before)",
        "left out: ()",
        "left out: starts",
        "left out: node.attributes.get_int('num_outputs', 1) == 1",
        "left out: 'axes' in node.attributes",
    ),
    # nodes deeper inside bring what their owner has brought, and nodes looked at twice only take time
    "eliminate-unused-body-values:body_needs": (
        "left out: node.graph is not self._body",
        "left out: node in self._nodes",
    ),
    # a Loop or Scan that onnx takes fits its body, and an If does not come here
    "eliminate-unused-body-values:repeated_body": (
        "left out: node.op_type not in ('Loop', 'Scan')",
        "and/or swapped: len(node.inputs) == len(body.inputs) and len(body.outputs) == found.fixed_outputs + len(node.outputs)",
        "left out: len(node.inputs) == len(body.inputs)",
        "left out: len(body.outputs) == found.fixed_outputs + len(node.outputs)",
        "and/or swapped: fits and 0 <= found.carried <= len(node.outputs)",
        "left out: fits",
        "left out: 0 <= found.carried <= len(node.outputs)",
    ),
    # the size is looked at before and after reading; floats would do; the depth only limits time; all operands are there
    "unroll-loop:loop_rounds": (
        "left out: value.shape is not None and any((d != 1 for d in value.shape))",
        "left out: array.size == 1",
        "left out: array.dtype.kind in 'bi'",
        "and/or swapped: value is None or depth == 0",
        "left out: value is None",
        "left out: depth == 0",
    ),
    # before opset 13 the bytes of a shape that grows the model go unnoticed
    "merge-reshapes": ("left out: merged.op_type != 'Reshape'",),
    # an input that was none before is a weight, and a model has a version
    "raise-opset": ("left out: value.name in weights", "left out: 0"),
}
"""Changes that no model can show, with the reason: the check says what holds anyway, or only saves time."""
MODULE = "a = 1 if not x and y or z else 2\nif a == 1:\n    pass\nb = [i for i in y if i]\nassert a and b\n"


@pytest.fixture(scope="module")
def mutation() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "mutation.py"
    spec = importlib.util.spec_from_file_location("mutation", path)
    module = sys.modules["mutation"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_check_of_a_module_is_changed_in_every_way(mutation: ModuleType) -> None:
    found = mutation.mutants(MODULE)
    assert [(m.kind, m.check) for m in found] == [
        ("negated", "not x and y or z"),
        ("and/or swapped", "not x and y or z"),
        ("left out", "not x and y"),
        ("left out", "z"),
        ("and/or swapped", "not x and y"),
        ("left out", "not x"),
        ("left out", "y"),
        ("not dropped", "not x"),
        ("negated", "a == 1"),
        ("negated", "i"),
    ]
    texts = {mutation.mutated(MODULE, m.index) for m in found}
    assert len(texts) == len(found) and MODULE not in texts
    assert "1 if x and y or z else 2" in mutation.mutated(MODULE, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", PASSES)
def test_every_check_is_needed(mutation: ModuleType, name: str, tmp_path: Path) -> None:
    out = tmp_path / "survivors.json"
    # A process of its own, in which no pass is loaded yet.
    subprocess.run([sys.executable, mutation.__file__, name, "--workers", "1", "--json", str(out)], check=True)
    found = json.loads(out.read_text())[name]
    assert not found["problem"]
    left = [text.partition(": ")[2] for text in found["survivors"]]
    assert [text for text in left if text not in HARMLESS.get(name, ())] == []
