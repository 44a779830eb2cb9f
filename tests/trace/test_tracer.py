"""From a module to an ONNX model in memory that computes the same at every size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn
from traced_modules import Classifier, Encoder, classifier, images, outputs, seeded, tokens

from irc.errors import DataError, UsageError
from irc.ir import MODULE_KEY, normalize
from irc.trace import Traced, trace


def session(model: ir.Model) -> ort.InferenceSession:
    """An unoptimized session of a model."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)


def assert_same(traced: Traced, module: nn.Module, example: Any) -> None:
    """The traced model gives what the module gives on an example that it was not traced with."""
    opened = session(traced.model)
    names = [value.name for value in opened.get_inputs()]
    values = [example[name] for name in names] if isinstance(example, dict) else list(example)
    found = opened.run(None, {name: value.numpy() for name, value in zip(names, values, strict=True)})
    for mine, theirs in zip(found, outputs(module, example), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def traced() -> Traced:
    return trace(classifier(), images((2, 10), (3, 12)))


class TestModel:
    def test_computes_the_same_at_sizes_that_were_not_traced(self, traced: Traced) -> None:
        assert_same(traced, classifier(), images((5, 17))[0])
        assert_same(traced, classifier(), images((1, 8))[0])

    def test_dimensions_in_which_the_examples_differ_are_dynamic_and_named(self, traced: Traced) -> None:
        (value,) = traced.model.graph.inputs
        assert [str(d) for d in value.shape] == ["batch", "3", "height", "width"]

    def test_nodes_know_their_modules(self, traced: Traced) -> None:
        modules = {n.metadata_props.get(MODULE_KEY) for n in normalize(traced.model).graph}
        assert {"stem", "layers.0.conv", "layers.1.conv", "head", "aux.0", "aux.2"} <= modules

    def test_reference_is_the_module(self, traced: Traced) -> None:
        opened = session(traced.model)
        results = [opened.run(None, feed) for feed in traced.feeds]
        assert traced.difference(results) is None
        assert len(traced.feeds) == 2 and traced.feeds[1]["image"].shape == (3, 3, 12, 12)
        results[1][0] = results[1][0] + 0.01
        assert "on example 2 is off by 0.01" in (traced.difference(results) or "")
        assert "the ONNX model 1" in (traced.difference([[results[0][0]], results[1]]) or "")

    def test_keyword_arguments_in_any_order(self) -> None:
        module = seeded(Encoder()).eval()
        first, second = tokens((2, 6), (3, 9))
        found = trace(module, [dict(reversed(first.items())), second])
        assert [value.name for value in found.model.graph.inputs] == ["ids", "mask"]
        assert_same(found, module, tokens((4, 11))[0])
        assert [str(d) for d in found.model.graph.inputs[0].shape] == ["batch", "sequence"]

    def test_tied_weights_are_stored_once(self) -> None:
        module = seeded(Encoder()).eval()
        found = trace(module, tokens((2, 6)))
        shapes = [tuple(v.const_value.shape) for v in found.model.graph.initializers.values() if v.const_value]
        assert shapes.count((50, 16)) == 1

    def test_fixed_dimensions_by_default(self) -> None:
        found = trace(nn.Linear(4, 3).eval(), torch.ones(2, 4))
        assert list(found.model.graph.inputs[0].shape) == [2, 4]

    @pytest.mark.parametrize("given", ["input:0=rows", {"input": {0: "rows"}}, ({0: torch.export.Dim("rows")},)])
    def test_given_dimensions(self, given: Any) -> None:
        found = trace(nn.Linear(4, 3).eval(), torch.ones(2, 4), dynamic_shapes=given)
        assert [str(d) for d in found.model.graph.inputs[0].shape] == ["rows", "4"]

    def test_an_example_of_one_leaves_the_dimension_open(self) -> None:
        module = nn.Linear(4, 3).eval()
        found = trace(module, torch.ones(1, 4), dynamic_shapes="input:0=batch")
        assert_same(found, module, (torch.rand(7, 4),))

    def test_recurrent_layers_keep_batch_and_sequence_open(self) -> None:
        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(4, 6, batch_first=True)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.lstm(x)[0]

        module = seeded(Recurrent()).eval()
        found = trace(module, [(torch.rand(2, 5, 4),), (torch.rand(3, 7, 4),)])
        assert_same(found, module, (torch.rand(4, 9, 4),))

    @pytest.mark.parametrize("opset", [18, 21])
    def test_opset(self, opset: int) -> None:
        found = trace(nn.Linear(4, 3).eval(), torch.ones(2, 4), opset=opset)
        assert found.model.graph.opset_imports[""] == opset and f"opset {opset}" in found.notes[0]


class TestMemory:
    def test_the_model_has_weights_of_its_own(self) -> None:
        module = nn.Linear(64, 64).eval()
        found = trace(module, torch.ones(2, 64))
        before = session(found.model).run(None, found.feeds[0])[0]
        with torch.no_grad():
            module.weight.fill_(7.0)
        np.testing.assert_array_equal(session(found.model).run(None, found.feeds[0])[0], before)
        assert not found.shares_memory

    def test_without_a_copy_the_weights_are_those_of_the_module(self) -> None:
        module = nn.Linear(64, 64).eval()
        found = trace(module, torch.ones(2, 64), copy=False)
        weight = found.model.graph.initializers["weight"].const_value
        assert weight is not None and found.shares_memory
        assert weight.numpy().__array_interface__["data"][0] == module.weight.data_ptr()
        found.detach()
        weight = found.model.graph.initializers["weight"].const_value
        assert weight is not None and weight.numpy().__array_interface__["data"][0] != module.weight.data_ptr()

    def test_nothing_is_written(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        trace(nn.Linear(4, 3).eval(), torch.ones(2, 4))
        assert list(tmp_path.iterdir()) == []

    def test_saved_as_the_exporter_saves(self, traced: Traced, tmp_path: Path) -> None:
        module, example = classifier(), images((2, 10))[0]
        dims = {0: "batch", 2: "height", 3: "width"}
        torch.onnx.export(module, example, tmp_path / "a.onnx", dynamo=True, dynamic_shapes=(dims,), verbose=False)
        trace(module, images((2, 10)), dynamic_shapes={"image": dims}).save(tmp_path / "b.onnx")
        assert _without_traces(tmp_path / "a.onnx") == _without_traces(tmp_path / "b.onnx")


def _without_traces(path: Path) -> bytes:
    """The bytes of a model as irc reads it."""
    from irc.ir import load, save

    model = load(path)
    out = path.with_name(f"{path.stem}-clean.onnx")
    save(model, out)
    return out.read_bytes()


class TestTrainingMode:
    def test_is_set_to_inference_said_and_put_back(self) -> None:
        module = seeded(Classifier()).train()
        module.layers[1].eval()
        modes = [inner.training for inner in module.modules()]
        statistics = module.layers[0].norm.running_mean.clone()
        found = trace(module, images((2, 10)))
        assert [inner.training for inner in module.modules()] == modes
        assert torch.equal(module.layers[0].norm.running_mean, statistics)
        assert_same(found, classifier(), images((2, 10))[0])
        assert "2 layers were in training mode ('layers.0.norm', 'drop'); they are traced for inference" in found.notes

    def test_is_put_back_when_tracing_fails(self) -> None:
        module = seeded(Classifier()).train()
        with pytest.raises(DataError):
            trace(module, torch.ones(2, 4))
        assert module.training and module.drop.training

    def test_nothing_is_said_of_a_module_in_inference_mode(self, traced: Traced) -> None:
        assert not any("training" in note for note in traced.notes)

    def test_a_saved_program_in_training_mode(self, tmp_path: Path) -> None:
        module = seeded(Classifier()).train()
        example = images((2, 10))[0]
        program = torch.export.export(module, example)
        torch.export.save(program, tmp_path / "train.pt2")
        found = trace(str(tmp_path / "train.pt2"))
        assert any("in training mode whatever the mode" in note for note in found.notes)
        assert_same(found, classifier(), example)


class TestPrograms:
    def test_a_saved_program_has_its_examples(self, tmp_path: Path) -> None:
        module = classifier()
        example = images((2, 10))[0]
        program = torch.export.export(module, example, dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, tmp_path / "net.pt2")
        found = trace(tmp_path / "net.pt2")
        assert found.name == "net" and found.feeds[0]["image"].shape == (2, 3, 10, 10)
        assert_same(found, module, images((5, 10))[0])

    def test_a_program_in_memory_is_left_as_it_is(self) -> None:
        program = torch.export.export(classifier(), images((2, 10))[0])
        before = str(program)
        trace(program)
        assert str(program) == before

    def test_dimensions_of_a_program_cannot_be_given(self) -> None:
        program = torch.export.export(nn.Linear(4, 3), (torch.ones(2, 4),))
        with pytest.raises(UsageError, match="those it was exported with"):
            trace(program, dynamic_shapes="input:0=batch")


@pytest.fixture(scope="module")
def fallback() -> Traced:
    return trace(seeded(Encoder()).eval(), tokens((2, 6), (3, 9)), exporter="torchscript")


class TestTorchScript:
    def test_computes_the_same_with_dynamic_dimensions(self, fallback: Traced) -> None:
        assert_same(fallback, seeded(Encoder()).eval(), tokens((4, 11))[0])
        assert [value.name for value in fallback.model.graph.inputs] == ["ids", "mask"]

    def test_is_named_in_the_notes(self, fallback: Traced) -> None:
        assert fallback.notes[0].startswith("traced with torchscript of torch")
        assert any("keeps the control flow" in note for note in fallback.notes)

    def test_nodes_know_their_modules(self) -> None:
        found = trace(classifier(), images((2, 10)), exporter="torchscript")
        modules = {node.metadata_props.get(MODULE_KEY) for node in found.model.graph}
        assert {"stem", "layers.0.conv", "layers.1.conv", "head", "aux.0"} <= modules

    def test_fx_passes_are_refused(self) -> None:
        with pytest.raises(UsageError, match=r"fx-fold-batch-norm works on the graph of torch\.export"):
            trace(classifier(), images((2, 10)), exporter="torchscript", passes=["fx-fold-batch-norm"])

    def test_programs_are_refused(self) -> None:
        program = torch.export.export(nn.Linear(4, 3), (torch.ones(2, 4),))
        with pytest.raises(UsageError, match="takes a module"):
            trace(program, exporter="torchscript")

    def test_an_unknown_exporter(self) -> None:
        with pytest.raises(UsageError, match="one of export, torchscript"):
            trace(nn.Linear(4, 3), torch.ones(2, 4), exporter="dynamo")


class TestOutputs:
    def test_random_outputs_are_not_compared(self) -> None:
        class Noisy(nn.Module):
            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return x + torch.rand_like(x), x * 2

        found = trace(Noisy().eval(), torch.ones(2, 4))
        assert any("output 0 of the module is not compared" in note for note in found.notes)

    def test_half_precision(self) -> None:
        module = nn.Linear(4, 3).half().eval()
        found = trace(module, torch.rand(2, 4).half())
        assert found.model.graph.inputs[0].dtype is ir.DataType.FLOAT16
        assert found.difference([session(found.model).run(None, feed) for feed in found.feeds]) is None

    def test_double_precision_and_bfloat16_weights_are_copied_bit_for_bit(self) -> None:
        module = nn.Linear(40, 30, bias=False).to(torch.bfloat16).eval()
        found = trace(module, torch.rand(2, 40).to(torch.bfloat16))
        weight = next(
            v.const_value for v in found.model.graph.initializers.values() if tuple(v.shape or ()) == (30, 40)
        )
        assert weight is not None and weight.dtype is ir.DataType.BFLOAT16
        assert weight.tobytes() == module.weight.detach().view(torch.uint16).numpy().tobytes()

    def test_without_verification_the_module_runs_once_and_nothing_is_kept(self) -> None:
        calls = []
        module = nn.Linear(4, 3).eval()
        module.register_forward_pre_hook(lambda inner, args: calls.append(isinstance(args[0], torch.Tensor)))
        found = trace(module, torch.ones(2, 4), verify=False)
        assert found.reference is None and found.difference([]) is None


def test_the_model_passes_the_checker(traced: Traced) -> None:
    onnx.checker.check_model(ir.to_proto(traced.model), full_check=True)
