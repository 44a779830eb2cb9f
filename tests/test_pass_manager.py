"""The manager's own promises: order, requirements, selection, limits, rollback, ledger."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir
import pytest

from irc import registry
from irc.application import SiteKey
from irc.errors import ModelError, PassFailed, UsageError
from irc.expansion import expand
from irc.ir import replace_node
from irc.pass_base import Context, Contract, ModelPass, Pass, Site, Skip
from irc.pass_manager import PassManager
from irc.pipeline import Step
from irc.selection import Selection


def model() -> ir.Model:
    return ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[2,4] x) => (float[2,4] y) { a = Relu(x)  b = Neg(a)  c = Neg(b)  d = Abs(c)  y = Neg(d) }"""
    )


def ops(found: ir.Model) -> list[str]:
    return [node.op_type for node in found.graph]


@dataclasses.dataclass(frozen=True)
class Swap(Pass):
    """Replaces one operator by another; sound or not, as the test wants."""

    name: ClassVar[str] = "swap"
    contract: ClassVar[Contract] = Contract.EXACT
    old: str = "Neg"
    new: str = "Neg"
    domain: str = ""

    def sites(self, model, ctx):
        for node in model.graph.all_nodes():
            if node.op_type == self.old and "swapped" not in node.meta:
                yield Site(node)
            elif node.op_type == "Abs":
                yield Skip(node, "Abs is never swapped")

    def rewrite(self, site, ctx):
        replace_node(site.node, self.new, site.node.inputs, domain=self.domain).meta["swapped"] = True


@dataclasses.dataclass(frozen=True)
class LossySwap(Swap):
    name: ClassVar[str] = "lossy-swap"
    contract: ClassVar[Contract] = Contract.APPROXIMATE


@dataclasses.dataclass(frozen=True)
class Explodes(Pass):
    name: ClassVar[str] = "explodes"
    contract: ClassVar[Contract] = Contract.EXACT
    at: str = "c"

    def sites(self, model, ctx):
        for node in model.graph:
            if node.op_type == "Neg" and "seen" not in node.meta:
                yield Site(node)

    def rewrite(self, site, ctx):
        if site.id == self.at:
            site.node.inputs[0].name = "half-changed"
            raise RuntimeError("boom")
        site.node.meta["seen"] = True


def test_the_input_model_is_never_touched():
    original = model()
    text = ir.to_onnx_text(original)
    result = PassManager([LossySwap(new="Abs")], verify=False).run(original)
    assert ops(result.model) == ["Relu", "Abs", "Abs", "Abs", "Abs"]
    assert ir.to_onnx_text(original) == text


def test_ledger_counts_sites_and_reasons():
    record = PassManager([Swap()]).run(model()).ledger["swap"]
    assert [entry.site for entry in record.rewritten] == ["b", "c", "y"]
    assert record.skip_reasons() == [("Abs is never swapped", 1)]
    assert record.nodes_before == record.nodes_after == 5


def test_a_wrong_site_is_undone_and_the_rest_stays():
    @dataclasses.dataclass(frozen=True)
    class WrongAtC(Swap):
        name: ClassVar[str] = "wrong-at-c"

        def rewrite(self, site, ctx):
            new = "Abs" if site.id == "c" else "Neg"
            replace_node(site.node, new, site.node.inputs).meta["swapped"] = True

    result = PassManager([WrongAtC(), Swap(old="Relu", new="Relu")]).run(model())
    record = result.ledger["wrong-at-c"]
    # d = Abs(c) hides the sign of c: the fault is invisible and must not be blamed.
    assert ops(result.model)[:2] == ["Relu", "Neg"]
    assert not record.undone or record.undone[0].site == "c"


@dataclasses.dataclass(frozen=True)
class ForgetsInputs(Swap):
    name: ClassVar[str] = "forgets-inputs"

    def rewrite(self, site, ctx):
        replace_node(site.node, "Neg", []).meta["swapped"] = True


def test_an_invalid_site_is_undone_without_running_the_runtime():
    result = PassManager([ForgetsInputs()]).run(model())
    record = result.ledger["forgets-inputs"]
    assert result.ledger.verification_runs == 0
    assert not record.rewritten and len(record.undone) == 3
    assert "no longer valid" in record.undone[0].reason
    assert ops(result.model) == ops(model())


def test_a_pass_that_raises_names_site_and_leaves_the_model_whole():
    original = model()
    with pytest.raises(PassFailed, match="explodes: failed at 'c': RuntimeError: boom") as caught:
        PassManager([Explodes()]).run(original)
    assert (caught.value.pass_name, caught.value.site) == ("explodes", "c")
    assert original.graph[2].inputs[0].name == "b"


def test_undo_goes_on_without_the_site_that_raises():
    result = PassManager([Explodes(), Swap()], on_failure="undo").run(model())
    record = result.ledger["explodes"]
    assert [e.site for e in record.rewritten] == ["b", "y"]
    assert [(e.site, "boom" in e.reason) for e in record.undone] == [("c", True)]
    assert len(result.ledger["swap"].rewritten) == 3
    assert result.model.graph[2].inputs[0].name == "b"


def replayed(passes, result):
    """The model that a plan gives: the same passes, told what was undone, deciding nothing."""
    return ir.to_onnx_text(PassManager(passes, verify=False, denied=result.undone).run(model()).model)


@dataclasses.dataclass(frozen=True)
class Again(Pass):
    """Rewrites every Neg twice; soundly the first time, as Abs the second."""

    name: ClassVar[str] = "again"
    contract: ClassVar[Contract] = Contract.EXACT

    def sites(self, model, ctx):
        for node in model.graph:
            if node.op_type == "Neg" and node.meta.get("times", 0) < 2:
                yield Site(node)

    def rewrite(self, site, ctx):
        times = site.node.meta.get("times", 0) + 1
        replace_node(site.node, "Abs" if times == 2 else "Neg", site.node.inputs).meta["times"] = times


def test_of_a_site_rewritten_twice_the_wrong_rewrite_alone_is_undone_and_replayed():
    result = PassManager([Again()]).run(model())
    record = result.ledger["again"]
    # The signs of b and c are hidden by d = Abs(c): only y = Neg(d) shows the fault.
    assert [entry.site for entry in record.undone] == ["y"]
    assert [entry.site for entry in record.rewritten] == ["b", "c", "y", "b", "c"]
    assert list(result.undone) == [SiteKey(0, "y", 1)]
    assert ops(result.model) == ["Relu", "Abs", "Abs", "Abs", "Neg"]
    assert replayed([Again()], result) == ir.to_onnx_text(result.model)


def test_what_an_undone_rewrite_would_make_possible_is_left_alone_also_in_a_replay():
    wrong, then = Swap(old="Relu", new="Neg"), Swap(old="Relu", new="Relu", domain="")
    result = PassManager([wrong, then]).run(model())
    assert [entry.site for entry in result.ledger.passes[0].undone] == ["a"]
    skips = result.ledger.passes[1]
    assert not skips.rewritten
    assert any("came up only after another rewrite was undone" in reason for reason, _ in skips.skip_reasons())
    assert list(result.undone) == [SiteKey(0, "a"), SiteKey(1, "a")]
    replay = PassManager([wrong, then], verify=False, denied=result.undone).run(model())
    assert not replay.keys and not replay.undone


def test_the_ledger_is_of_the_model_as_it_is():
    @dataclasses.dataclass(frozen=True)
    class Shortcut(Pass):
        """Removes y = Neg(d), wrongly; one node less."""

        name: ClassVar[str] = "shortcut"
        contract: ClassVar[Contract] = Contract.EXACT

        def sites(self, model, ctx):
            yield from (Site(node, match=model.graph) for node in model.graph if node.op_type == "Abs")

        def rewrite(self, site, ctx):
            last = site.match[-1]
            replace_node(last, "Identity", site.match[0].outputs)
            site.match.remove(site.node, safe=False)

    record = PassManager([Shortcut()]).run(model()).ledger["shortcut"]
    assert len(record.undone) == 1 and record.nodes_before == record.nodes_after == 5


@dataclasses.dataclass(frozen=True)
class Blind(Swap):
    """Raises while looking for sites."""

    name: ClassVar[str] = "blind"

    def sites(self, model, ctx):
        yield from super().sites(model, ctx)
        raise RuntimeError("cannot see")


def test_undo_goes_on_without_a_pass_that_cannot_even_look():
    result = PassManager([Blind(), Swap()], on_failure="undo").run(model())
    blind, swap = result.ledger.passes
    assert not blind.rewritten and not blind.skipped
    assert [(e.site, "cannot see" in e.reason) for e in blind.undone] == [("<model>", True)]
    assert len(swap.rewritten) == 3
    assert replayed([Blind(), Swap()], result) == ir.to_onnx_text(result.model)


def test_a_failure_is_that_of_one_step_and_counted_once():
    result = PassManager([Explodes(at="c"), Explodes(at="none")], on_failure="undo").run(model())
    first, second = result.ledger.passes
    assert [e.site for e in first.undone] == ["c"] and not first.skipped
    assert [e.site for e in second.rewritten] == ["c"] and not second.undone
    assert list(result.undone) == [SiteKey(0, "c")]


def test_an_approximate_site_that_breaks_the_model_is_taken_back_where_asked():
    @dataclasses.dataclass(frozen=True)
    class BreaksC(LossySwap):
        name: ClassVar[str] = "breaks-c"

        def rewrite(self, site, ctx):
            inputs = [] if site.id == "c" else site.node.inputs
            replace_node(site.node, "Abs", inputs).meta["swapped"] = True

    result = PassManager([BreaksC()], on_failure="undo").run(model())
    assert ops(result.model) == ["Relu", "Abs", "Neg", "Abs", "Abs"]
    assert [e.site for e in result.ledger["breaks-c"].undone] == ["c"]
    with pytest.raises(PassFailed, match="breaks-c: the model is no longer valid"):
        PassManager([BreaksC()]).run(model())


def test_a_pass_without_end_is_stopped_and_that_is_said():
    @dataclasses.dataclass(frozen=True)
    class Restless(Swap):
        name: ClassVar[str] = "restless"

        def rewrite(self, site, ctx):
            replace_node(site.node, "Neg", site.node.inputs)

    record = PassManager([Restless(old="Neg")], verify=False).run(model()).ledger["restless"]
    assert ("stopped after 64 sweeps: it finds sites without end", 1) in record.skip_reasons()


def test_an_approximate_pass_that_breaks_the_model_is_an_error():
    @dataclasses.dataclass(frozen=True)
    class LossyForgetsInputs(ForgetsInputs):
        name: ClassVar[str] = "lossy-forgets-inputs"
        contract: ClassVar[Contract] = Contract.APPROXIMATE

    with pytest.raises(PassFailed, match="lossy-forgets-inputs: the model is no longer valid"):
        PassManager([LossyForgetsInputs()]).run(model())


def test_an_invalid_input_is_not_blamed_on_a_pass():
    broken = model()
    broken.graph[1].resize_inputs(0)
    with pytest.raises(ModelError):
        PassManager([Swap()]).run(broken)


def test_selection_applies_to_approximate_passes_when_there_are_some():
    result = PassManager(
        [Swap(old="Relu", new="Relu"), LossySwap(new="Abs")], selection=Selection.of(["name:b"], []), verify=False
    ).run(model())
    assert ops(result.model) == ["Relu", "Abs", "Neg", "Abs", "Neg"]
    assert len(result.ledger["swap"].rewritten) == 1
    assert ("not selected by --include", 2) in result.ledger["lossy-swap"].skip_reasons()


def test_limits_and_denials():
    result = PassManager([LossySwap(new="Abs")], limits={"lossy-swap": 2}, verify=False).run(model())
    assert ops(result.model) == ["Relu", "Abs", "Abs", "Abs", "Neg"]
    denied = {SiteKey(0, "b"): "because the plan says so"}
    result = PassManager([LossySwap(new="Abs")], denied=denied, verify=False).run(model())
    assert ops(result.model) == ["Relu", "Neg", "Abs", "Abs", "Abs"]
    assert ("because the plan says so", 1) in result.ledger["lossy-swap"].skip_reasons()


def test_a_limit_counts_denied_sites_and_is_part_of_what_a_plan_repeats():
    passes, denied = [LossySwap(new="Abs")], {SiteKey(0, "b"): "the guard took it back"}
    result = PassManager(passes, limits={"lossy-swap": 2}, denied=denied, verify=False).run(model())
    assert ops(result.model) == ["Relu", "Neg", "Abs", "Abs", "Neg"], "y must not take the place of b"
    assert result.keys == [SiteKey(0, "c")]
    assert result.undone == {SiteKey(0, "y"): "the limit of 2 sites is reached"}
    replay = PassManager(passes, denied={**denied, **result.undone}, verify=False).run(model())
    assert ir.to_onnx_text(replay.model) == ir.to_onnx_text(result.model)


def test_limit_of_an_absent_pass():
    with pytest.raises(UsageError, match="limit for 'prune'"):
        PassManager([Swap()], limits={"prune": 1})


def test_requirements_are_inserted_once_and_visible():
    @dataclasses.dataclass(frozen=True)
    class NeedsShapes(LossySwap):
        name: ClassVar[str] = "needs-shapes"
        requires: ClassVar[tuple[str, ...]] = ("shapes-known", "batch-norm-folded")

    steps = expand([Step(NeedsShapes()), Step(NeedsShapes())])
    names = [(step.pass_.name, step.inserted_for) for step in steps]
    assert ("infer-shapes", "needs-shapes") in names and ("fold-batch-norm", "needs-shapes") in names
    assert names.count(("fold-batch-norm", "needs-shapes")) == 1
    assert names.index(("fold-batch-norm", "needs-shapes")) < names.index(("needs-shapes", ""))
    # the first NeedsShapes rewrites nodes, so shapes are inferred anew for the second
    assert sum(name == "infer-shapes" for name, _ in names) >= 2


def test_unknown_requirement():
    @dataclasses.dataclass(frozen=True)
    class NeedsMagic(Swap):
        name: ClassVar[str] = "needs-magic"
        requires: ClassVar[tuple[str, ...]] = ("magic",)

    with pytest.raises(UsageError, match="requires 'magic', which no registered pass establishes"):
        PassManager([NeedsMagic()])


def test_random_outputs_are_not_blamed_on_a_pass():
    random_model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[2,4] x) => (float[2,4] y, float[2,4] z) { r = RandomNormalLike(x)  y = Add(x, r)  z = Neg(x) }"""
    )
    result = PassManager([Swap()]).run(random_model)
    record = result.ledger["swap"]
    assert [e.site for e in record.rewritten] == ["z"] and not record.undone


def test_a_model_pass_is_one_site():
    @dataclasses.dataclass(frozen=True)
    class Touch(ModelPass):
        name: ClassVar[str] = "touch"
        contract: ClassVar[Contract] = Contract.EXACT
        change: bool = True

        def apply(self, model, ctx):
            return self.change

    result = PassManager([Touch(), Touch(change=False)]).run(model(), Context())
    first, second = result.ledger.passes
    assert [e.site for e in first.rewritten] == ["<model>"]
    assert [(e.site, e.reason) for e in second.skipped] == [("<model>", "nothing to do")]


def test_every_installed_pass_is_listed_loads_and_has_an_honest_contract():
    for name, entry in registry.installed_passes().items():
        cls = entry.load()
        assert cls.name == name
        assert isinstance(cls.contract, Contract)
        assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
        assert (cls.__doc__ or "").strip()


@dataclasses.dataclass(frozen=True)
class Counted(Swap):
    """Says when it looks for sites; swaps at most one."""

    name: ClassVar[str] = "counted"
    looked: ClassVar[list[str]] = []

    def sites(self, model, ctx):
        self.looked.append(self.old)
        yield from [found for found in super().sites(model, ctx) if isinstance(found, Site)][:1]


def test_a_pass_runs_again_only_if_something_was_rewritten_since():
    Counted.looked.clear()
    round_ = [Counted(old="Sin"), Counted(old="Neg")]
    result = PassManager([*round_, *round_, *round_], verify=False).run(model())
    # Sin finds nothing; Neg sweeps until it does; then Sin looks again, and after that nothing has changed.
    assert Counted.looked == ["Sin", "Neg", "Neg", "Neg", "Neg", "Sin"]
    assert [len(record.rewritten) for record in result.ledger] == [0, 3]
    assert len(result.ledger.passes) == len(result.steps) == 6


def test_a_pass_with_other_options_or_selection_is_another():
    Counted.looked.clear()
    here = Step(Counted(old="Sin"), Selection.of((), ("op:Abs",)))
    PassManager([Counted(old="Sin"), Counted(old="Cos"), here, Counted(old="Cos")], verify=False).run(model())
    assert Counted.looked == ["Sin", "Cos", "Sin"]


def test_a_limit_counts_over_all_places_of_a_pass():
    passes = [Swap(old="Neg"), Swap(old="Relu", new="Relu"), Swap(old="Neg", new="Abs")]
    for limit, expected in ((2, [2, 0, 0]), (4, [3, 1, 0])):
        result = PassManager(passes, verify=False, limits={"swap": limit}).run(model())
        assert [len(record.rewritten) for record in result.ledger.passes] == expected


def test_the_ledger_has_one_record_for_all_places_of_a_pass():
    passes = [
        Swap(old="Neg"),
        Swap(old="Relu", new="Sin"),
        Swap(old="Neg"),
        Swap(old="Sin", new="Relu"),
        Swap(old="Neg"),
    ]
    result = PassManager(passes, verify=False, limits={"swap": 3}).run(model())
    assert [len(record.rewritten) for record in result.ledger] == [3, 0, 0]
    assert result.ledger["swap"].skip_reasons() == [("Abs is never swapped", 1)], "once, though seen in three places"
    assert len(result.ledger.to_dict()["passes"]) == 3


def test_a_plan_repeats_a_pipeline_with_rounds():
    @dataclasses.dataclass(frozen=True)
    class WrongAtY(Swap):
        name: ClassVar[str] = "wrong-at-y"

        def rewrite(self, site, ctx):
            replace_node(site.node, "Abs" if site.id == "y" else "Neg", site.node.inputs).meta["swapped"] = True

    passes = [Swap(old="Sin"), WrongAtY(), Swap(old="Sin"), WrongAtY()]
    result = PassManager(passes).run(model())
    assert [entry.site for entry in result.ledger["wrong-at-y"].undone] == ["y"] * len(result.undone)
    assert result.undone and ops(result.model)[-1] == "Neg"
    assert replayed(passes, result) == ir.to_onnx_text(result.model)
