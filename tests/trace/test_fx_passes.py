"""FX passes of every kind run before lowering: found, verified module against module, undone where they are wrong."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from traced_modules import classifier, images

import irc
from irc import registry
from irc.errors import PassFailed, UsageError
from irc.module_input import split_fx
from irc.pass_base import Context, Contract, Site, Skip
from irc.pipeline import parse
from irc.trace import FxPass, FxSite, trace
from irc.trace.example_inputs import Example
from irc.trace.fx_manager import FxRun, run_fx_passes
from irc.trace.tracer import fx_steps

EXAMPLES = images((2, 10), (3, 12))


def replace_operation(graph_module: fx.GraphModule, old: Any, new: Any) -> fx.GraphModule:
    for node in graph_module.graph.nodes:
        if node.target is old:
            node.target = new
    graph_module.recompile()
    return graph_module


def remove_dropout(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Removes dropout."""
    for node in list(graph_module.graph.nodes):
        if node.target is torch.ops.aten.dropout.default:
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
    graph_module.recompile()
    return graph_module


def use_tanh(graph_module: fx.GraphModule) -> fx.GraphModule:
    return replace_operation(graph_module, torch.ops.aten.relu.default, torch.ops.aten.tanh.default)


def fresh_copy(graph_module: fx.GraphModule) -> fx.GraphModule:
    graph = fx.Graph()
    graph.output(graph.graph_copy(graph_module.graph, {}))
    return remove_dropout(fx.GraphModule(graph_module, graph))


def in_place(graph_module: fx.GraphModule) -> None:
    remove_dropout(graph_module)


def raising(graph_module: fx.GraphModule) -> fx.GraphModule:
    raise RuntimeError("no such thing")


def writing(graph_module: fx.GraphModule) -> fx.GraphModule:
    graph_module.head.weight.data.mul_(2.0)
    return graph_module


def returning_text(graph_module: fx.GraphModule) -> str:
    return "done"


def losing_an_output(graph_module: fx.GraphModule) -> fx.GraphModule:
    node = next(n for n in graph_module.graph.nodes if n.op == "output")
    node.args = (node.args[0][:1],)
    graph_module.recompile()
    return graph_module


def calling_a_module(graph_module: fx.GraphModule) -> fx.GraphModule:
    graph_module.add_module("extra", torch.nn.ReLU())
    node = next(n for n in graph_module.graph.nodes if n.target is torch.ops.aten.relu.default)
    node.op, node.target = "call_module", "extra"
    graph_module.recompile()
    return graph_module


def broken_shapes(graph_module: fx.GraphModule) -> fx.GraphModule:
    return replace_operation(graph_module, torch.ops.aten.relu.default, torch.ops.aten.t.default)


class RemoveDropoutPass(PassBase):
    """Removes dropout the way of torch.fx."""

    def __init__(self, keep: int = 0) -> None:
        super().__init__()
        self.keep = keep

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        return PassResult(graph_module if self.keep else remove_dropout(graph_module), not self.keep)


@dataclasses.dataclass(frozen=True)
class ScaleRelu(FxPass):
    """Makes one Relu after another a Tanh: each is a site."""

    name = "relu-to-tanh"
    contract = Contract.ROUNDING
    only: str = ""

    def sites(self, model: fx.GraphModule, ctx: Context) -> Iterator[Site | Skip]:  # type: ignore[override]
        for node in list(model.graph.nodes):
            if node.target is torch.ops.aten.relu.default and self.only in node.name:
                yield FxSite(node)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        node = site.fx_node  # type: ignore[attr-defined]
        if "aux" in str(node.meta["nn_module_stack"]):
            node.target = torch.ops.aten.clamp_min.default
            node.args = (node.args[0], 0)
        else:
            node.target = torch.ops.aten.tanh.default
        return None


@functools.cache
def program() -> torch.export.ExportedProgram:
    """The classifier, exported once: the passes leave it as it is."""
    shapes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    return torch.export.export(classifier(), EXAMPLES[0], dynamic_shapes=shapes)


def run(*passes: Any, **options: Any) -> FxRun:
    examples = [Example(example, {}) for example in EXAMPLES]
    return run_fx_passes(program(), fx_steps(passes, "net"), examples, ctx=Context(), **options)


def operators(found: FxRun | torch.export.ExportedProgram) -> list[str]:
    graph = found.program.graph if isinstance(found, FxRun) else found.graph
    return [str(node.target).split(".")[1] for node in graph.nodes if node.op == "call_function"]


class TestKinds:
    @pytest.mark.parametrize(
        "item",
        [remove_dropout, fresh_copy, in_place, RemoveDropoutPass(), RemoveDropoutPass],
        ids=lambda item: str(item)[:30],
    )
    def test_foreign_passes_are_one_verified_site(self, item: Any) -> None:
        found = run(item)
        (record,) = found.ledger
        assert [entry.site for entry in record.rewritten] == ["<model>"] and not record.undone
        assert record.nodes_after == record.nodes_before - 1
        assert found.ledger.verification_runs == 1

    def test_a_pass_that_does_nothing_says_so(self) -> None:
        found = run(RemoveDropoutPass(keep=1))
        assert [entry.reason for entry in found.ledger["remove-dropout"].skipped] == ["nothing to do"]
        assert operators(found) == operators(program()) and not found.changed

    def test_from_a_file_with_options(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.py"
        path.write_text(Path(__file__).read_text().replace("from __future__ import annotations\n", "", 1))
        found = run(f"{path}:RemoveDropoutPass{{keep=1}}", f"{path}:remove_dropout")
        records = list(found.ledger)
        assert [record.name for record in records] == ["remove-dropout", "remove-dropout"]
        assert [len(record.rewritten) for record in records] == [0, 1]

    def test_registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "_REGISTERED", {})
        irc.register(remove_dropout)
        irc.register(RemoveDropoutPass, name="dropout-away")
        irc.register(remove_dropout)
        steps = parse("remove-dropout,dropout-away{keep=1}")
        assert [step.text for step in steps] == ["remove-dropout", "dropout-away{keep=1}"]
        assert all(step.pass_.representation == "fx" for step in steps)
        assert len(run("remove-dropout").ledger["remove-dropout"].rewritten) == 1
        with pytest.raises(UsageError, match="'remove-dropout' is already registered"):
            irc.register(use_tanh, name="remove-dropout")

    def test_what_is_no_pass(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.py"
        path.write_text("class Net: pass\nvalue = 3\n")
        with pytest.raises(UsageError, match="is not a pass: it has no 'name', 'contract', 'sites', 'rewrite'"):
            parse(f"{path}:Net")
        with pytest.raises(UsageError, match="has no class 'value'"):
            parse(f"{path}:value")
        with pytest.raises(UsageError, match="takes no GraphModule"):
            run(lambda: None)

    def test_onnx_passes_are_refused(self) -> None:
        with pytest.raises(UsageError, match="fold-batch-norm rewrites ONNX models"):
            run("fold-batch-norm")


class TestSoundness:
    @pytest.mark.parametrize(
        ("item", "said"),
        [
            (use_tanh, "output 0 on example 1 is off by"),
            (writing, r"a pass wrote into 'head\.weight'; make a new parameter"),
            (losing_an_output, "the graph returns 1 outputs and has 2; use drop_outputs"),
            (calling_a_module, "calls 'extra'; a traced graph calls functions of torch.ops only"),
            (broken_shapes, "the rewritten graph does not run"),
        ],
    )
    def test_what_is_wrong_is_undone_and_the_rest_stays(self, item: Any, said: str) -> None:
        found = run(item, remove_dropout)
        wrong, right = list(found.ledger)
        assert [entry.site for entry in wrong.undone] == ["<model>"] and not wrong.rewritten
        assert re.search(said, wrong.undone[0].reason), wrong.undone[0].reason
        assert len(right.rewritten) == 1
        assert operators(found) == operators(run(remove_dropout))

    def test_the_module_is_never_written_into(self) -> None:
        module = classifier()
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        found = trace(module, EXAMPLES, passes=[writing, remove_dropout])
        assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
        weight = found.model.graph.initializers["head.weight"].const_value
        assert weight is not None and torch.equal(torch.from_numpy(weight.numpy()), before["head.weight"])

    def test_the_site_at_fault_is_found(self) -> None:
        found = run(ScaleRelu())
        (record,) = found.ledger
        assert len(record.rewritten) == 1 and len(record.undone) == 2
        assert operators(found).count("tanh") == 0

    def test_a_pass_that_raises(self) -> None:
        with pytest.raises(PassFailed, match="raising: failed at '<model>': RuntimeError: no such thing"):
            run(raising)
        found = run(raising, remove_dropout, on_failure="undo")
        assert len(found.ledger["raising"].undone) == 1 and len(found.ledger["remove-dropout"].rewritten) == 1

    def test_a_pass_that_returns_something_else(self) -> None:
        with pytest.raises(PassFailed, match=r"it returned str; irc expects a torch\.fx\.GraphModule"):
            run(returning_text)

    def test_approximate_passes_are_not_compared(self) -> None:
        def to_tanh(graph_module: fx.GraphModule) -> fx.GraphModule:
            return use_tanh(graph_module)

        to_tanh.contract = "approximate"  # type: ignore[attr-defined]
        found = run(to_tanh)
        assert len(found.ledger["to-tanh"].rewritten) == 1 and operators(found).count("tanh") == 3

    def test_without_verification_only_validity_is_checked(self) -> None:
        found = run(use_tanh, verify=False)
        assert len(found.ledger["use-tanh"].rewritten) == 1


class TestManager:
    def test_limits_and_denied_sites(self) -> None:
        assert len(run(ScaleRelu(only="relu_2"), limits={"relu-to-tanh": 0}).ledger["relu-to-tanh"].rewritten) == 0

    def test_selectors(self) -> None:
        found = run("fx-fold-batch-norm{include=module:layers.0}")
        record = found.ledger["fx-fold-batch-norm"]
        assert len(record.rewritten) == 1 and [entry.reason for entry in record.skipped] == [
            "not selected by --include"
        ]
        found = run("fx-fold-batch-norm{exclude=op:batch_norm}")
        assert [e.reason for e in found.ledger["fx-fold-batch-norm"].skipped] == ["excluded by op:batch_norm"] * 2

    def test_ledger_names_operations(self) -> None:
        entries = run("fx-fold-batch-norm").ledger["fx-fold-batch-norm"].rewritten
        assert [(entry.site, entry.op_type) for entry in entries] == [
            ("batch_norm", "batch_norm"),
            ("batch_norm_1", "batch_norm"),
        ]

    def test_deterministic(self) -> None:
        import onnx_ir as ir

        passes = ["fx-fold-batch-norm", remove_dropout]
        first, second = (ir.to_proto(trace(classifier(), EXAMPLES[:1], passes=passes).model) for _ in range(2))
        assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


class TestPlaces:
    def test_before_onnx_passes(self) -> None:
        first, rest = split_fx(parse("fx-fold-batch-norm,merge-casts,fold-constants"), traced=True, name="net")
        assert [s.pass_.name for s in first] == ["fx-fold-batch-norm"] and len(rest) == 2

    def test_after_onnx_passes(self) -> None:
        with pytest.raises(UsageError, match="which merge-casts no longer has: put it before 'merge-casts'"):
            split_fx(parse("merge-casts,fx-fold-batch-norm"), traced=True, name="net")

    @pytest.mark.parametrize("text", ["fx-fold-batch-norm", "merge-casts,fx-fold-batch-norm"])
    def test_on_onnx(self, text: str) -> None:
        with pytest.raises(UsageError, match=r"rewrites the graph of a PyTorch module, and m\.onnx is ONNX already"):
            split_fx(parse(text), traced=False, name="m.onnx")


def test_entry_points_may_name_functions_and_torch_passes() -> None:
    function = registry.Entry("my-dropout", f"{__name__}:remove_dropout", "somebody 1.0")
    torch_pass = registry.Entry("theirs", f"{__name__}:RemoveDropoutPass", "somebody 1.0")
    assert function.load()().name == "my-dropout" and torch_pass.load()(keep=2).name == "theirs"
    with pytest.raises(UsageError, match="is not a class, nor a function"):
        registry.Entry("wrong", f"{__name__}:EXAMPLES", "somebody 1.0").load()
