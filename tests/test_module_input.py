"""`irc.optimize` and `irc optimize` take a PyTorch network as they take a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn
from traced_modules import Encoder, classifier, images, outputs, seeded, tokens

import irc
from irc.cli import main
from irc.errors import ModelError, UsageError

HERE = Path(__file__).parent / "traced_modules.py"
QUICK: dict[str, Any] = {"measure": False}


def assert_same(path: Path, module: nn.Module, example: Any, *, tolerance: float = 1e-4) -> None:
    session = ort.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    values = [example[name] for name in names] if isinstance(example, dict) else list(example)
    found = session.run(None, {name: value.numpy() for name, value in zip(names, values, strict=True)})
    for mine, theirs in zip(found, outputs(module, example), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=tolerance, atol=tolerance)


class TestPython:
    def test_lossless(self, tmp_path: Path) -> None:
        module = seeded(Encoder()).eval()
        report = irc.optimize(module, example_inputs=tokens((2, 6), (3, 9)), output=tmp_path / "e.onnx", **QUICK)
        assert_same(report.output, module, tokens((5, 11))[0])
        assert report.source.name == "Encoder" and report.recipe == "-O1" and report.exit_code == 0
        assert report.notes[0].startswith("traced with torch.export of torch") and report.ledger.verification_runs
        onnx.checker.check_model(report.output, full_check=True)

    def test_int8_on_generated_data(self, tmp_path: Path) -> None:
        module = classifier()
        report = irc.optimize(
            module,
            example_inputs=images((2, 10), (3, 12)),
            data="random",
            passes="O1,quantize",
            output=tmp_path / "c.onnx",
            **QUICK,
        )
        assert report.coverage is not None and len(report.ledger["quantize"].rewritten) >= 4
        assert_same(report.output, module, images((4, 11))[0], tolerance=0.1)

    def test_same_bytes_as_through_a_file(self, tmp_path: Path) -> None:
        module, example = classifier(), images((2, 10))[0]
        dims = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(module, example, tmp_path / "file.onnx", dynamo=True, dynamic_shapes=dims, verbose=False)
        through_file = irc.optimize(tmp_path / "file.onnx", output=tmp_path / "a.onnx", **QUICK)
        traced = irc.optimize(module, example_inputs=example, dynamic_shapes=dims, output=tmp_path / "b.onnx", **QUICK)
        again = irc.optimize(module, example_inputs=example, dynamic_shapes=dims, output=tmp_path / "c.onnx", **QUICK)
        assert through_file.output.read_bytes() == traced.output.read_bytes() == again.output.read_bytes()

    def test_fx_passes_levels_and_plan(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"example_inputs": images((2, 10), (3, 12)), **QUICK}
        report = irc.optimize(
            classifier(),
            passes="fx-drop-training-branches{heads=aux},fx-fold-batch-norm,O1",
            limits={"fx-fold-batch-norm": 1},
            output=tmp_path / "a.onnx",
            **options,
        )
        assert report.recipe == "-O1" and len(report.ledger["fx-fold-batch-norm"].rewritten) == 1
        assert report.pipeline.startswith("fx-drop-training-branches{heads=aux},fx-fold-batch-norm,eliminate-identity")
        assert [value.name for value in onnx.load(report.output).graph.output] == ["linear"]
        replayed = irc.optimize(classifier(), plan=tmp_path / "a.plan.yaml", output=tmp_path / "b.onnx", **options)
        assert replayed.output.read_bytes() == report.output.read_bytes()
        assert replayed.pipeline == report.pipeline

    def test_what_fx_passes_did_wrong_is_in_the_plan(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.py"
        path.write_text(
            "import torch\ndef use_tanh(graph_module):\n    for node in graph_module.graph.nodes:\n"
            "        if node.target is torch.ops.aten.relu.default: node.target = torch.ops.aten.tanh.default\n"
        )
        options: dict[str, Any] = {"example_inputs": images((2, 10)), **QUICK}
        text = f"{path}:use_tanh,fx-fold-batch-norm,O1"
        report = irc.optimize(classifier(), passes=text, output=tmp_path / "a.onnx", **options)
        assert len(report.ledger["use-tanh"].undone) == 1
        assert_same(report.output, classifier(), images((2, 10))[0])
        replayed = irc.optimize(classifier(), plan=tmp_path / "a.plan.yaml", output=tmp_path / "b.onnx", **options)
        assert replayed.output.read_bytes() == report.output.read_bytes()

    def test_a_saved_program_is_written_beside_it(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt2"
        torch.export.save(torch.export.export(classifier(), images((2, 10))[0]), path)
        report = irc.optimize(path, **QUICK)
        assert report.output == tmp_path / "net.irc.onnx"
        assert_same(report.output, classifier(), images((2, 10))[0])

    def test_selectors_know_modules(self, tmp_path: Path) -> None:
        report = irc.optimize(
            classifier(),
            example_inputs=images((2, 10)),
            data="random",
            passes="quantize",
            exclude="module:layers.0",
            output=tmp_path / "a.onnx",
            **QUICK,
        )
        reasons = [entry.reason for entry in report.ledger["quantize"].skipped]
        assert reasons.count("excluded by module:layers.0") == 1
        assert len(report.ledger["quantize"].rewritten) == 2  # the stem and the other block

    def test_the_module_stays_as_it_is(self, tmp_path: Path) -> None:
        module = classifier().train()
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        irc.optimize(module, example_inputs=images((2, 10)), output=tmp_path / "a.onnx", **QUICK)
        assert module.training and all(inner.training for inner in module.modules())
        assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())

    def test_opset(self, tmp_path: Path) -> None:
        report = irc.optimize(
            classifier(), example_inputs=images((2, 10)), opset=18, output=tmp_path / "a.onnx", **QUICK
        )
        assert report.source.opset == report.artifact.opset == 18


class Drifting(nn.Module):
    """What it computes depends on how often it was called: no exporter can keep that."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (2.0 if torch.compiler.is_exporting() else 3.0)


class TestRefusals:
    def test_an_export_that_computes_something_else(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"example_inputs": torch.ones(2, 3), "output": tmp_path / "a.onnx", **QUICK}
        with pytest.raises(
            ModelError, match=r"does not compute what the module Drifting computes: output 'mul' .* off by 1"
        ):
            irc.optimize(Drifting(), **options)
        assert list(tmp_path.iterdir()) == []
        assert irc.optimize(Drifting(), verify=False, **options).exit_code == 0

    def test_sizes_that_the_exporter_fixes(self, tmp_path: Path) -> None:
        class Counting(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.cat([row[None] * 2 for row in x])

        with pytest.raises(ModelError, match="runs on the first example and not on example 2"):
            irc.optimize(
                Counting(),
                example_inputs=[torch.ones(2, 3), torch.ones(4, 3)],
                exporter="torchscript",
                output=tmp_path / "a.onnx",
                **QUICK,
            )

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({}, "give what it is called with, --inputs"),
            ({"example_inputs": torch.ones(2, 4), "output": None}, "a module in memory needs an output path"),
            ({"example_inputs": torch.ones(2, 4), "exporter": "dynamo"}, "--exporter 'dynamo'"),
            ({"example_inputs": torch.ones(2, 4), "opset": 0}, "--opset is 0"),
            ({"example_inputs": torch.ones(2, 4), "passes": "O1,O2"}, "two levels, -O1 and -O2"),
            ({"example_inputs": torch.ones(2, 4), "passes": "O1", "level": "O2"}, "leave out -O2"),
            (
                {"example_inputs": torch.ones(2, 4), "passes": "merge-casts,fx-fold-batch-norm"},
                "put it before 'merge-casts'",
            ),
            (
                {
                    "example_inputs": torch.ones(2, 4),
                    "passes": "fx-fold-batch-norm",
                    "dump_after": "fx-fold-batch-norm",
                },
                "cannot be written as ONNX yet",
            ),
        ],
    )
    def test_requests(self, tmp_path: Path, options: dict[str, Any], said: str) -> None:
        with pytest.raises(UsageError, match=said):
            irc.optimize(nn.Linear(4, 3), **{"output": tmp_path / "a.onnx", **QUICK, **options})
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"example_inputs": torch.ones(2)}, "--inputs says how a PyTorch module is traced"),
            ({"dynamic_shapes": "x:0"}, "--dynamic says"),
            ({"opset": 18}, "--opset says"),
            ({"passes": "fx-fold-batch-norm"}, r"and m\.onnx is ONNX already"),
        ],
    )
    def test_options_of_modules_for_a_file(self, tmp_path: Path, options: dict[str, Any], said: str) -> None:
        path = tmp_path / "m.onnx"
        graph = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Neg(x) }'
        )
        onnx.save(graph, path)
        with pytest.raises(UsageError, match=said):
            irc.optimize(path, **QUICK, **options)


class TestCommand:
    def run(self, *arguments: str) -> int:
        return main(["optimize", *arguments, "--no-measure", "-q"])

    def test_a_factory_and_its_inputs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.run(f"{HERE}:make_classifier", "--inputs", f"{HERE}:two_sizes") == 0
        assert_same(tmp_path / "make_classifier.irc.onnx", classifier(), images((5, 9))[0])
        manifest = json.loads((tmp_path / "make_classifier.irc.manifest.json").read_text())
        assert manifest["input"]["name"] == "make_classifier" and str(tmp_path) not in json.dumps(manifest)

    def test_an_importable_module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        out = str(tmp_path / "a.onnx")
        assert self.run("traced_modules:make_classifier", "--inputs", "traced_modules:two_sizes", "-o", out) == 0

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (
                [f"{HERE}:make_branching", "--inputs", f"{HERE}:one_row"],
                4,
                "module 'inner' cannot be traced at traced_modules.py",
            ),
            ([f"{HERE}:make_classifier", "--inputs", f"{HERE}:one_row"], 4, "does not run on the example inputs"),
            ([f"{HERE}:make_classifier"], 2, "give what it is called with"),
            ([f"{HERE}:nothing", "--inputs", f"{HERE}:one_row"], 2, "has no 'nothing'"),
            (["no.such:thing", "--inputs", f"{HERE}:one_row"], 2, "there is no Python module 'no'"),
            (["missing.pt2"], 4, "there is no such file"),
        ],
    )
    def test_errors_are_one_line(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
    ) -> None:
        out = tmp_path / "a.onnx"
        assert self.run(*arguments, "-o", str(out)) == code
        printed = capfd.readouterr()
        assert said in printed.err and printed.err.count("\n") == 1 and not printed.out
        assert list(tmp_path.iterdir()) == []

    def test_torchscript_takes_what_the_other_does_not(self, tmp_path: Path) -> None:
        out = tmp_path / "a.onnx"
        arguments = (
            f"{HERE}:make_branching",
            "--inputs",
            f"{HERE}:one_row",
            "--exporter",
            "torchscript",
            "-o",
            str(out),
        )
        assert self.run(*arguments) == 0
        assert any("torchscript" in note for note in json.loads(out.with_suffix(".manifest.json").read_text())["notes"])

    def test_onnx_only_use_imports_no_torch(self, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        graph = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Neg(x) }'
        )
        onnx.save(graph, path)
        code = (
            "import sys, irc\n"
            f"irc.optimize({str(path)!r}, measure=False)\n"
            "print('torch' in sys.modules, 'onnxscript' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["False", "False"]
