"""What is the user's stays as it is: module state, examples, the random generator, files; what cannot be kept is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn
from traced_modules import classifier, images

import irc
from irc.cli import main
from irc.errors import ModelError, OutputError, UsageError
from irc.trace import trace

QUICK: dict[str, Any] = {"measure": False}


class Counter(nn.Module):
    """Counts its calls in a buffer and in a number, and writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.calls += 1
        x.add_(1)
        return x * 2 + self.count


def run(path: Path, *inputs: torch.Tensor) -> list[np.ndarray]:
    session = ort.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)}))


@pytest.mark.parametrize("exporter", ["export", "torchscript"])
def test_state_examples_and_random_numbers_are_kept(exporter: str) -> None:
    module, x = Counter(), torch.ones(2, 3)
    random = torch.random.get_rng_state()
    trace(module, x, exporter=exporter)
    assert module.count == 0 and module.calls == 0 and torch.equal(x, torch.ones(2, 3))
    assert torch.equal(torch.random.get_rng_state(), random)


def test_the_artifact_is_that_of_the_first_call(tmp_path: Path) -> None:
    module, x = Counter(), torch.ones(2, 3)
    random = torch.random.get_rng_state()
    report = irc.optimize(module, example_inputs=[(x,), (torch.ones(4, 3),)], output=tmp_path / "m.onnx", **QUICK)
    assert module.count == 0 and module.calls == 0 and torch.equal(x, torch.ones(2, 3))
    assert torch.equal(torch.random.get_rng_state(), random)
    assert any("writes state when it runs ('calls', 'count')" in note for note in report.notes)
    np.testing.assert_array_equal(run(report.output, torch.ones(3, 3))[0], np.full((3, 3), 5.0, np.float32))


def test_state_is_kept_when_the_trace_fails() -> None:
    class Failing(Counter):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            return y if y.sum() > 0 else -y

    module = Failing()
    with pytest.raises(ModelError):
        trace(module, torch.ones(2, 3))
    assert module.count == 0 and module.calls == 0


class TestFiles:
    def test_a_source_file_is_not_overwritten(self, tmp_path: Path) -> None:
        path = tmp_path / "nets.py"
        path.write_text(
            "import torch\ndef make(): return torch.nn.Linear(4, 3)\ndef inputs(): return torch.ones(2, 4)\n"
        )
        before = path.read_text()
        with pytest.raises(OutputError):
            irc.optimize(f"{path}:make", example_inputs=f"{path}:inputs", output=path, **QUICK)
        assert path.read_text() == before

    def test_a_saved_program_is_not_overwritten(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt2"
        torch.export.save(torch.export.export(nn.Linear(4, 3), (torch.ones(2, 4),)), path)
        before = path.read_bytes()
        with pytest.raises(OutputError):
            irc.optimize(path, output=path, **QUICK)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("text", ["nets.py", "nets.py:make()"])
    def test_a_file_without_a_factory(self, text: str) -> None:
        with pytest.raises(UsageError, match="malformed"):
            irc.optimize(text, example_inputs="nets.py:x", **QUICK)


class TestOtherSizes:
    def test_one_example_is_compared_at_another_size_too(self, tmp_path: Path) -> None:
        class Branching(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * 2 if x.shape[0] > 2 else x * 3

        with pytest.raises(ModelError, match=r"does not compute what the module Branching computes.* on example 2"):
            irc.optimize(
                Branching(),
                example_inputs=torch.ones(2, 3),
                dynamic_shapes="x:0=batch",
                output=tmp_path / "m.onnx",
                **QUICK,
            )

    def test_a_size_that_the_module_refuses_is_said(self) -> None:
        class Even(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.reshape(-1, 2, x.shape[1]).sum(1)

        found = trace(Even().eval(), torch.ones(4, 3), dynamic_shapes="x:0=batch")
        assert any("at the sizes of the example only" in note for note in found.notes) and len(found.feeds) == 1

    def test_recurrent_layers_again_and_after_a_fixed_trace(self) -> None:
        module = nn.LSTM(4, 3, batch_first=True).eval()
        trace(module, (torch.ones(2, 5, 4),))
        for _ in range(2):
            found = trace(module, [(torch.ones(2, 5, 4),), (torch.ones(3, 7, 4),)])
            output = found.model.graph.outputs[0]
            assert output.shape is not None and not isinstance(output.shape[1], int), "the exporter declares 5"


class TestOutputs:
    def test_an_input_that_is_returned(self, tmp_path: Path) -> None:
        class Through(nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return x, x + y

        report = irc.optimize(
            Through(), example_inputs=(torch.ones(2), torch.ones(2)), output=tmp_path / "m.onnx", **QUICK
        )
        first, second = run(report.output, torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0]))
        assert first.tolist() == [3, 4] and second.tolist() == [4, 6]

    def test_plain_values_are_left_out(self, tmp_path: Path) -> None:
        class Mixed(nn.Module):
            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int, torch.Tensor]:
                return x + 1, 5, x * 2

        report = irc.optimize(Mixed(), example_inputs=torch.ones(2), output=tmp_path / "m.onnx", **QUICK)
        assert [found.tolist() for found in run(report.output, torch.tensor([1.0, 2.0]))] == [[2, 3], [2, 4]]
        assert any("outputs 1 of the module are plain values" in note for note in report.notes)

    def test_nothing_but_plain_values(self) -> None:
        class Nothing(nn.Module):
            def forward(self, x: torch.Tensor) -> None:
                return None

        with pytest.raises(ModelError, match="returns no tensor"):
            trace(Nothing(), torch.ones(2))


class TestTorchScript:
    def test_values_that_become_constants_are_named(self) -> None:
        class Frozen(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * float(x.sum())

        found = trace(Frozen().eval(), torch.ones(2, 3), exporter="torchscript")
        assert any(
            "keeps values of the first example as constants" in n and "test_user_state.py" in n for n in found.notes
        )

    def test_a_graph_without_inputs_is_refused(self) -> None:
        class Constant(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.from_numpy(x.numpy() * 2)

        with pytest.raises(ModelError, match="turned Constant into constants"):
            trace(Constant().eval(), torch.ones(2, 3), exporter="torchscript")


class TestArguments:
    def test_none_keeps_the_names_of_dimensions(self) -> None:
        class Optional(nn.Module):
            def forward(self, x: torch.Tensor, mask: torch.Tensor | None, y: torch.Tensor) -> torch.Tensor:
                return x + y

        found = trace(
            Optional().eval(), [(torch.ones(2, 3), None, torch.ones(2, 3)), (torch.ones(4, 3), None, torch.ones(4, 3))]
        )
        assert [str(d) for d in found.model.graph.inputs[0].shape] == ["batch", "3"]

    def test_variable_arguments(self) -> None:
        class Any_(nn.Module):
            def forward(self, *parts: torch.Tensor) -> torch.Tensor:
                return parts[0] + parts[1]

        found = trace(Any_().eval(), [(torch.ones(n, 3), torch.ones(n, 3)) for n in (2, 4)])
        assert len(found.model.graph.inputs) == 2 and str(found.model.graph.inputs[0].shape[0]) == "batch"

    def test_nested_arrays(self) -> None:
        class Nested(nn.Module):
            def forward(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
                return parts["a"] + parts["b"]

        found = trace(Nested().eval(), ({"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)},))
        assert len(found.model.graph.inputs) == 2

    def test_what_wraps_a_module_is_taken_off(self) -> None:
        inner = nn.Linear(4, 3).eval()
        for module in (torch.compile(inner), nn.DataParallel(inner)):
            found = trace(module, torch.ones(2, 4))
            assert [value.name for value in found.model.graph.inputs] == ["input"] and found.name == "Linear"


def test_convolutions_are_selected_by_their_own_name(tmp_path: Path) -> None:
    report = irc.optimize(
        classifier(),
        example_inputs=images((2, 10)),
        data="random",
        passes="quantize",
        exclude="module:layers.0.conv",
        output=tmp_path / "m.onnx",
        **QUICK,
    )
    assert next(entry.reason for entry in report.ledger["quantize"].skipped) == "excluded by module:layers.0.conv"


def test_printing_code_does_not_disturb_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nets.py"
    path.write_text(
        "import torch\nprint('on import')\nclass Net(torch.nn.Linear):\n    def forward(self, x):\n        print('in forward')\n"
        "        return super().forward(x)\ndef make():\n    print('in the factory')\n    return Net(4, 3)\n"
        "def inputs():\n    print('in inputs')\n    return torch.ones(2, 4)\n"
    )
    arguments = [
        "optimize",
        f"{path}:make",
        "--inputs",
        f"{path}:inputs",
        "-o",
        str(tmp_path / "m.onnx"),
        "--no-measure",
    ]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["input"]["name"] == "make"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing"])
def test_a_damaged_program_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(content)
    assert main(["optimize", str(path), "-q"]) == 4
    assert capfd.readouterr().err.count("\n") == 1


def test_operations_without_a_kernel_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nets.py"
    path.write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x): return torch.linalg.svd(x)[1]\n"
        "def x(): return torch.ones(3, 3)\n"
    )
    arguments = ["optimize", f"{path}:Net", "--inputs", f"{path}:x", "--exporter", "torchscript", "-q"]
    assert main([*arguments, "-o", str(tmp_path / "m.onnx")]) == 4
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1


def test_weights_that_are_shared_stay_shared_by_torchscript() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(200, 64), nn.Linear(64, 200, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(ids))

    found = trace(Tied().eval(), torch.zeros(2, 5, dtype=torch.int64), exporter="torchscript")
    sizes = [v.const_value.nbytes for v in found.model.graph.initializers.values() if v.const_value is not None]
    assert sum(sizes) < 1.2 * 200 * 64 * 4
    assert len(ir.to_proto(found.model).SerializeToString()) < 1.2 * 200 * 64 * 4


class AlwaysTraining(nn.Module):
    """Drops out, and normalizes by the batch, in whatever mode it is."""

    def __init__(self, *, normalize: bool) -> None:
        super().__init__()
        self.norm, self.normalize = nn.BatchNorm1d(3), normalize

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.normalize:
            return nn.functional.dropout(x, 0.5, training=True)
        mean, variance = self.norm.running_mean, self.norm.running_var
        return nn.functional.batch_norm(x, mean, variance, training=True)


def test_dropout_that_is_always_on_is_set_to_inference(tmp_path: Path) -> None:
    module = AlwaysTraining(normalize=False).eval()
    report = irc.optimize(module, example_inputs=torch.ones(4, 3), output=tmp_path / "m.onnx", **QUICK)
    np.testing.assert_array_equal(run(report.output, torch.full((4, 3), 2.0))[0], np.full((4, 3), 2.0, np.float32))
    assert any("1 operation runs in training mode whatever the mode" in note for note in report.notes)


def test_statistics_of_the_batch_are_said_and_those_of_the_module_kept() -> None:
    module = AlwaysTraining(normalize=True).eval()
    found = trace(module, torch.rand(4, 3))
    assert any("normalizes by the batch" in note for note in found.notes)
    assert torch.equal(module.norm.running_mean, torch.zeros(3)) and torch.equal(module.norm.running_var, torch.ones(3))
