"""`irc.optimize` end to end on small models: guarantees that no single room can give alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hostile_cases import convolution, write

import irc
from irc import driver
from irc.errors import ModelError, UsageError
from irc.latency import LatencyComparison

GENERATOR = np.random.default_rng(7)


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": GENERATOR.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(24)]


@pytest.fixture
def path(tmp_path) -> Path:
    return Path(write(tmp_path, convolution()))


def run(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feed)[0]


def test_lossless_by_default(path, feeds):
    report = irc.optimize(path)
    assert report.exit_code == 0 and report.recipe == "-O1"
    assert report.output == path.with_name("model.irc.onnx")
    assert [p.name for p in report.files] == ["model.irc.onnx", "model.irc.manifest.json", "model.irc.plan.yaml"]
    np.testing.assert_allclose(run(report.output, feeds[0]), run(path, feeds[0]), rtol=1e-5, atol=1e-6)


def test_two_lossless_builds_are_identical(path, tmp_path):
    first = irc.optimize(path, output=tmp_path / "a.onnx", measure=False)
    second = irc.optimize(path, output=tmp_path / "b.onnx", measure=False)
    assert first.output.read_bytes() == second.output.read_bytes()
    manifests = [json.loads(r.files[1].read_text()) for r in (first, second)]
    for manifest in manifests:
        manifest["artifact"].pop("name")
    assert manifests[0] == manifests[1]


def test_int8_is_integer_small_and_close(path, feeds, tmp_path):
    report = irc.optimize(path, data=feeds, passes="quantize", measure=False)
    assert report.coverage is not None and report.coverage.by_op_type()["Conv"] == (1, 1)
    assert report.coverage.by_op_type()["Gemm"] == (1, 1)
    reference, found = run(path, feeds[0]), run(report.output, feeds[0])
    assert np.abs(reference - found).max() <= 0.05 * np.abs(reference).max()
    assert np.abs(reference - found).max() > 0


def test_a_plan_replays_to_identical_bytes(path, feeds, tmp_path):
    built = irc.optimize(path, data=feeds, level="O2", output=tmp_path / "a.onnx", max_drop="50%", measure=False)
    plan = built.files[2]
    replayed = irc.optimize(path, plan=plan, output=tmp_path / "b.onnx")
    assert replayed.output.read_bytes() == built.output.read_bytes()
    assert replayed.files[2].read_text() == plan.read_text()
    assert b"DequantizeLinear" in replayed.output.read_bytes()


def test_a_plan_replays_reverted_sites(path, feeds, tmp_path):
    built = irc.optimize(path, data=feeds, passes="quantize", exclude="op:Gemm", output=tmp_path / "a.onnx")
    replayed = irc.optimize(path, plan=built.files[2], output=tmp_path / "b.onnx")
    assert replayed.output.read_bytes() == built.output.read_bytes()
    nodes = onnx.load(str(replayed.output)).graph.node
    (gemm,) = [n for n in nodes if n.op_type == "Gemm"]
    assert not any(gemm.input[1] in n.output for n in nodes if n.op_type == "DequantizeLinear")


def test_a_plan_for_another_model_is_refused(path, feeds, tmp_path):
    built = irc.optimize(path, output=tmp_path / "a.onnx", measure=False)
    other = convolution()
    other.graph.initializer[1].raw_data = bytes(len(other.graph.initializer[1].raw_data))
    with pytest.raises(UsageError, match="is another model"):
        irc.optimize(write(tmp_path, other, "other.onnx"), plan=built.files[2])


def test_no_absolute_path_in_any_file(path, feeds, tmp_path):
    model = onnx.load(str(path))
    for node in model.graph.node:
        for key in ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node", "note"):
            entry = node.metadata_props.add()
            entry.key, entry.value = key, 'File "/home/somebody/secret/train.py", line 3'
    model.doc_string = "exported from /home/somebody/secret"
    path.write_bytes(model.SerializeToString())
    report = irc.optimize(path, data=feeds, max_drop="50%", measure=False)
    for file in report.files:
        content = file.read_bytes()
        assert b"secret" not in content and str(tmp_path).encode() not in content
        assert not re.search(rb"/home/|/tmp/|/root/", content)


def test_a_budget_that_cannot_be_met_exits_3_with_a_legal_artifact(path, feeds):
    report = irc.optimize(path, data=feeds, min_speedup=1000.0)
    assert report.exit_code == 3 and any("1000" in text for text in report.missed)
    assert run(report.output, feeds[0]).shape == (1, 10)


def test_an_accuracy_budget_of_nothing_gives_back_the_lossless_model(path, feeds):
    report = irc.optimize(path, data=feeds, max_drop="0.0000001%", measure=False)
    np.testing.assert_allclose(run(report.output, feeds[0]), run(path, feeds[0]), rtol=1e-4, atol=1e-5)


def test_target_size(path, feeds):
    assert irc.optimize(path, data=feeds, target_size="100B", max_drop="50%", measure=False).exit_code == 3


def test_require_turns_coverage_into_an_exit_code(path, feeds):
    kept = {"data": feeds, "passes": "quantize", "exclude": "op:Gemm", "measure": False}
    assert irc.optimize(path, require="int8:Conv>=100%", **kept).exit_code == 0
    report = irc.optimize(path, require=["int8:Conv>=100%", "int8:Gemm>=1%"], **kept)
    assert report.exit_code == 5
    assert report.unmet == ["int8:Gemm>=1%: 0 of 1 (0 %) (excluded by op:Gemm)"]


def test_an_explicit_pipeline_is_obeyed(path, feeds):
    report = irc.optimize(path, data=feeds, passes="quantize")
    assert report.budget == "" and report.exit_code == 0 and report.reverted == 0
    assert report.accuracy is not None


def test_models_in_memory(feeds, tmp_path):
    report = irc.optimize(convolution(), output=tmp_path / "out.onnx", measure=False)
    assert report.output.exists() and report.source.name == "model in memory"
    with pytest.raises(UsageError, match="needs an output path"):
        irc.optimize(convolution())


def test_dumps_after_a_pass(path, tmp_path):
    report = irc.optimize(
        path, passes="fold-constants,eliminate-identity", dump_after="eliminate-identity", measure=False
    )
    dumps = [p for p in report.files if "eliminate-identity" in p.name]
    assert len(dumps) == 1 and onnx.load(str(dumps[0])).graph.node
    with pytest.raises(UsageError, match="no such pass"):
        irc.optimize(path, dump_after="prune")


def test_old_opsets_are_raised_and_that_is_in_the_ledger(tmp_path, feeds):
    model = convolution(opset=11)
    model.ir_version = 6
    path = Path(write(tmp_path, model))
    report = irc.optimize(path, data=feeds, passes="quantize", measure=False)
    assert [e.site for e in report.ledger["raise-opset"].rewritten] == ["<model>"]
    assert report.artifact.opset == 13 and report.source.opset == 11
    reference, found = run(path, feeds[0]), run(report.output, feeds[0])
    assert np.abs(reference - found).max() <= 0.05 * np.abs(reference).max()


def test_tensorrt_style_is_symmetric_and_lints_clean(path, feeds):
    from irc import targets
    from irc.ir import load

    report = irc.optimize(path, data=feeds, passes="quantize", target="tensorrt", measure=False)
    assert not targets.parse("tensorrt").lint(load(report.output))
    assert targets.parse("tensorrt").lint(load(irc.optimize(path, data=feeds, passes="quantize").output))


def test_a_failing_pass_leaves_a_reproducer(path, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import dataclasses\nfrom irc import Contract, Pass, Site\n"
        "@dataclasses.dataclass(frozen=True)\nclass Boom(Pass):\n"
        "    name = 'boom'\n    contract = Contract.EXACT\n"
        "    def sites(self, model, ctx):\n        yield Site(next(iter(model.graph)))\n"
        "    def rewrite(self, site, ctx):\n        raise RuntimeError('broken')\n"
    )
    text = f"eliminate-identity,{tmp_path / 'mine.py'}:Boom"
    with pytest.raises(
        irc.IrcError, match=r"boom: failed at 'c'.*reproduce with: irc optimize model.irc.reproducer-boom.onnx"
    ):
        irc.optimize(path, passes=text)
    assert not path.with_name("model.irc.onnx").exists()
    with pytest.raises(irc.IrcError, match="boom: failed at 'c'"):
        irc.optimize(path.with_name("model.irc.reproducer-boom.onnx"), passes=text)


def test_a_model_the_runtime_does_not_know_is_simplified_but_not_quantized(tmp_path, feeds):
    model = convolution()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Mystery", "acme"
    model.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    path = Path(write(tmp_path, model))
    for data in ("random", feeds):
        with pytest.raises(ModelError, match=r"model.onnx: the runtime cannot run it.*Mystery.*-O1 simplifies it"):
            irc.optimize(path, data=data)
        assert not path.with_name("model.irc.onnx").exists()
        report = irc.optimize(path, data=data, level="O1", measure=False)
        assert report.exit_code == 0 and any("cannot run" in note for note in report.notes)
        report.output.unlink()


def test_a_plan_of_a_model_whose_values_are_all_empty_replays(tmp_path):
    path = Path(write(tmp_path, convolution(dims=(0, 3, 8, 8))))
    built = irc.optimize(path, data="random", passes="quantize", measure=False)
    replayed = irc.optimize(path, plan=built.files[2], output=tmp_path / "b.onnx")
    assert replayed.output.read_bytes() == built.output.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"passes": "quantize", "limits": {"quantize": 1}},
        {"passes": "quantize{include=op:Conv},quantize{include=op:Gemm}"},
        {"passes": "quantize{include=op:Gemm},fold-batch-norm,quantize{include=op:Conv}", "max_drop": "0%"},
    ],
)
def test_plans_replay_limits_repeated_calibration_and_the_guard(path, feeds, tmp_path, options):
    first = irc.optimize(path, data=feeds, measure=False, **options)
    again = irc.optimize(path, plan=first.files[2], output=tmp_path / "again.onnx")
    assert again.output.read_bytes() == first.output.read_bytes()
    assert again.files[2].read_text() == first.files[2].read_text()


def test_a_plan_is_replayed_with_its_seed_unverified_and_answers_to_require(path, feeds, tmp_path, monkeypatch):
    first = irc.optimize(path, data=feeds, passes="fold-batch-norm,quantize", seed=5, measure=False)
    seeds = []
    original = driver.Build.__init__

    def spy(self, **options):
        seeds.append(options["request"].seed)
        original(self, **options)

    monkeypatch.setattr(driver.Build, "__init__", spy)
    again = irc.optimize(path, plan=first.files[2], output=tmp_path / "again.onnx", require="int8:Conv>=100%")
    assert seeds == [5]
    assert again.ledger.verification_runs == 0
    assert again.exit_code == 0 and again.coverage is not None


def test_a_batch_that_does_not_run_is_said_before_anything_is_built(tmp_path):
    stages = []
    path, feeds = tmp_path / "fixed.onnx", [{"x": np.ones((1, 4), np.float32)}]
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[1,4] x) => (float[1,4] y) { y = Neg(x) }'
    onnx.save(onnx.parser.parse_model(text), path)
    with pytest.raises(UsageError, match="--batch 4: the model does not run at this batch"):
        irc.optimize(path, data=feeds, batch=4, progress=lambda fraction, what: stages.append(what))
    assert "simplifying" not in stages


def test_a_function_is_called_for_its_first_samples_once(path, feeds):
    calls = []

    def data():
        calls.append(1)
        yield from feeds

    irc.optimize(path, data=data, level="O1")
    assert len(calls) <= 3, "to count them, to check the first, to read the first: not for every use"


@pytest.mark.parametrize(
    "options", [{"level": "O1"}, {"level": "O2"}, {"passes": "eliminate-identity", "min_speedup": 1.0}]
)
def test_when_nothing_is_as_fast_the_artifact_is_the_original(path, feeds, tmp_path, monkeypatch, options):
    monkeypatch.setattr(LatencyComparison, "slower_than", lambda self, factor: True)
    asked = options.get("level") != "O1"  # without a budget there is none to miss
    report = irc.optimize(path, data=feeds, **options, **({"max_drop": "100%"} if asked else {}))
    assert report.exit_code == (3 if asked else 0)
    assert (report.missed if asked else report.notes)[-1].endswith("the artifact is the original")
    assert report.ledger.rewritten == 0
    assert [n.op_type for n in onnx.load(report.output).graph.node] == [n.op_type for n in onnx.load(path).graph.node]
    again = irc.optimize(path, plan=report.files[2], output=tmp_path / "again.onnx")
    assert again.output.read_bytes() == report.output.read_bytes()
