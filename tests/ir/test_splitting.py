"""Splitting a model from its weights: nothing is read, copied or changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ir_graphs import branch_proto, linear_proto, write_external

from irc.errors import ModelError
from irc.ir import load, normalize, skeleton


def test_large_weights_are_left_out_and_are_the_models_own_tensors() -> None:
    model = normalize(linear_proto())
    split = skeleton(model)
    assert split.weights == {"w": model.graph.initializers["w"].const_value}
    assert len(split.proto) < 1000


def test_external_and_lazy_weights_are_not_read(tmp_path: Path) -> None:
    model = load(write_external(tmp_path))
    tensor = skeleton(model).weights["w"]
    assert isinstance(tensor, ir.ExternalTensor) and tensor.raw is None, "the compiler did not map the file"

    def fail() -> ir.TensorProtocol:
        raise AssertionError

    lazy = ir.LazyTensor(fail, dtype=tensor.dtype, shape=ir.Shape(tensor.shape), name="w")
    model.graph.initializers["w"].const_value = lazy
    assert skeleton(model).weights["w"] is lazy


def test_bodies_and_packed_types_stay_inside() -> None:
    assert skeleton(normalize(branch_proto())).weights == {}


def test_extra_outputs_come_after_the_models_own_each_once() -> None:
    model = normalize(linear_proto())
    split = skeleton(model, extra_outputs=["p", "y", "s", "p"])
    assert [o.name for o in onnx.load_from_string(split.proto).graph.output] == ["y", "p", "s"]
    assert [o.name for o in model.graph.outputs] == ["y"]


def test_extra_outputs_do_not_depend_on_stale_shapes() -> None:
    model = normalize(linear_proto())
    model.graph[0].outputs[0].shape = ir.Shape([1, 999])
    model.graph[0].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    exposed = onnx.load_from_string(skeleton(model, extra_outputs=["p"]).proto).graph.output[1]
    assert exposed.name == "p" and not exposed.HasField("type")


@pytest.mark.parametrize("name", ["nowhere", "m"])
def test_extra_output_that_is_not_in_the_main_graph(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be observed"):
        skeleton(normalize(branch_proto()), extra_outputs=[name])


def test_the_model_is_unchanged() -> None:
    for proto in (linear_proto(), branch_proto()):
        model = normalize(proto)
        before = ir.to_proto(model).SerializeToString()
        skeleton(model, extra_outputs=["t"] if "If" in str(proto.graph.node) else ["p"])
        assert ir.to_proto(model).SerializeToString() == before


def test_weights_that_nothing_reads_are_left_out_altogether() -> None:
    proto = linear_proto()
    unused = np.arange(1024, dtype=np.float32)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(unused, name) for name in ("dead", "shown"))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("shown", onnx.TensorProto.FLOAT, [1024]))
    split = skeleton(normalize(proto))
    assert set(split.weights) == {"w", "shown"}
    assert {t.name for t in onnx.load_from_string(split.proto).graph.initializer} == {"w", "b", "shown"}
