"""simplify-with-onnxsim: a candidate that is taken only if it is better, from a process that may do anything."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from pass_kit import Outcome, apply, assert_equal_after, assert_promises, assert_untouched, op_types, parse, statistics

from irc.application import apply_pass
from irc.errors import PassOptionError
from irc.ir import interface, load, save, snapshot
from irc.options import build
from irc.pass_base import Context
from irc.pass_manager import PassManager
from irc.passes.simplification import cost_comparison, onnxsim_process
from irc.passes.simplification.cost_comparison import Costs, why_not_better
from irc.passes.simplification.foreign_result import handed_out
from irc.passes.simplification.simplify_with_onnxsim import SimplifyWithOnnxsim
from irc.pipeline import Step
from irc.runner import Runner

PASS = SimplifyWithOnnxsim(measure=False)
TWO_RELUS = "g (float[n,4] x) => (float[n,4] y) { a = MatMul(x, w)  b = Relu(a)  y = Relu(b) }"
ONE_RELU = "g (float[n,4] x) => (float[n,4] y) { a = MatMul(x, w)  y = Relu(a) }"

Answer = Callable[[onnx.ModelProto], onnx.ModelProto | str]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer | ir.Model], list[onnx.ModelProto]]:
    """Puts an answer in the place of onnxsim's; returns the list of what it will be asked."""
    monkeypatch.setattr(onnxsim_process, "is_installed", lambda: True)

    def install(given: Answer | ir.Model) -> list[onnx.ModelProto]:
        asked: list[onnx.ModelProto] = []

        def simplified(proto: onnx.ModelProto, *, seconds: float) -> onnx.ModelProto | str:
            asked.append(proto)
            return ir.to_proto(given) if isinstance(given, ir.Model) else given(proto)

        monkeypatch.setattr(onnxsim_process, "simplified", simplified)
        return asked

    return install


def _reason(outcome: Outcome) -> str:
    assert outcome.rewritten == []
    return outcome.skipped["<model>"]


def _without_second_relu(proto: onnx.ModelProto) -> onnx.ModelProto:
    """What a simplifier would make of two Relus at the end."""
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    if [node.op_type for node in found.graph.node][-2:] != ["Relu", "Relu"]:
        return found
    last = found.graph.node.pop()
    found.graph.node[-1].output[0] = last.output[0]
    return found


class TestTakes:
    def test_a_better_candidate(self, answer) -> None:
        answer(_without_second_relu)
        assert op_types(apply(PASS, parse(TWO_RELUS, w=(4, 4))).model) == ["MatMul", "Relu"]

    def test_the_promises(self, answer) -> None:
        answer(parse(ONE_RELU, w=(4, 4)))
        outcome = assert_equal_after(PASS, parse(TWO_RELUS, w=(4, 4)), symbols=(1, 3))
        assert outcome.rewritten == ["<model>"]

    def test_modules_of_surviving_values_and_the_words_of_the_model(self, answer) -> None:
        model = parse(TWO_RELUS, w=(4, 4))
        for node in model.graph:
            node.metadata_props["irc.module"] = f"module.{node.outputs[0].name}"
        model.metadata_props["licence"], model.graph.name, model.doc_string = "MIT", "mine", "text"

        def other(proto: onnx.ModelProto) -> onnx.ModelProto:
            found = _without_second_relu(proto)
            for node in found.graph.node:
                del node.metadata_props[:]
            del found.metadata_props[:]
            found.metadata_props.add(key="onnxsim.removed", value="b")
            found.graph.name = found.doc_string = "theirs"
            return found

        answer(other)
        found = apply(PASS, model).model
        assert [n.metadata_props.get("irc.module") for n in found.graph] == ["module.a", "module.y"]
        assert (dict(found.metadata_props), found.graph.name, found.doc_string) == ({"licence": "MIT"}, "mine", "text")

    def test_declared_shapes_stay(self, answer) -> None:
        def frozen(proto: onnx.ModelProto) -> onnx.ModelProto:
            found = _without_second_relu(proto)
            for value in (*found.graph.input, *found.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = 7
            return found

        answer(frozen)
        model = parse(TWO_RELUS, w=(4, 4))
        outcome = apply(PASS, model)
        assert outcome.rewritten and interface(outcome.model) == interface(model)

    def test_unchanged_weights_are_the_same_tensors(self, answer) -> None:
        answer(_without_second_relu)
        model = parse(TWO_RELUS, w=(4, 4))
        found = apply(PASS, model).model
        assert found.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value

    def test_a_changed_weight_of_the_same_name_is_not_the_old_one(self, answer) -> None:
        model = parse(TWO_RELUS, w=(4, 4))
        answer(parse(ONE_RELU, w=np.ones((4, 4), np.float32)))
        found = apply(PASS, model).model
        np.testing.assert_array_equal(found.graph.initializers["w"].const_value.numpy(), np.ones((4, 4)))


class TestRefuses:
    def test_the_same_model(self, answer) -> None:
        answer(lambda proto: proto)
        assert (
            "nodes 3 -> 3, and no fewer MACs or bytes" in assert_untouched(PASS, parse(TWO_RELUS, w=(4, 4)))["<model>"]
        )

    def test_more_nodes_even_with_fewer_bytes(self, answer) -> None:
        answer(
            parse(
                "g (float[n,4] x) => (float[n,4] y) { a = MatMul(x, w)  a1 = Relu(a)  b = Relu(a1)  y = Relu(b) }",
                w=np.ones((4, 4), np.float32),
            )
        )
        assert "nodes 3 -> 4" in _reason(apply(PASS, parse(TWO_RELUS, w=(4, 4))))

    def test_another_element_type(self, answer) -> None:
        answer(parse("g (float[n,4] x) => (double[n,4] y) { a = MatMul(x, w)  y = Cast<to=11>(a) }", w=(4, 4)))
        assert "'y' is DOUBLE, not FLOAT" in _reason(apply(PASS, parse(TWO_RELUS, w=(4, 4))))

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("g (float[n,4] z) => (float[n,4] y) { a = MatMul(z, w)  y = Relu(a) }", "no input 'x'"),
            ("g (float[n,4] x, float[4] e) => (float[n,4] y) { a = MatMul(x, w)  y = Add(a, e) }", "another input 'e'"),
            ("g (float[n,4] x) => (float[n,4] z) { a = MatMul(x, w)  z = Relu(a) }", "other outputs"),
            ("g (float[n,4] x) => (float[n,4] y) { y = custom.Fused(x, w) }", "operators of custom"),
        ],
    )
    def test_another_interface_or_domain(self, answer, text: str, reason: str) -> None:
        answer(parse(text, w=(4, 4)))
        assert reason in assert_untouched(PASS, parse(TWO_RELUS, w=(4, 4)))["<model>"]

    def test_another_rank_of_the_output_is_a_matter_of_numbers(self, answer) -> None:
        answer(parse("g (float[n,4] x) => (float[4,4] y) { y = Identity(w) }", w=(4, 4)))
        result = PassManager([PASS]).run(parse(TWO_RELUS, w=(4, 4)))
        record = result.ledger.passes[-1]
        assert not record.rewritten and "verification failed" in record.undone[0].reason
        assert op_types(result.model) == ["MatMul", "Relu", "Relu"]

    def test_another_opset(self, answer) -> None:
        answer(parse(ONE_RELU, w=(4, 4), opset=18))
        assert "its opset is 18, not 17" in _reason(apply(PASS, parse(TWO_RELUS, w=(4, 4))))

    def test_what_is_not_valid(self, answer) -> None:
        def broken(proto: onnx.ModelProto) -> onnx.ModelProto:
            found = _without_second_relu(proto)
            found.graph.node[0].input[0] = "nowhere"
            return found

        answer(broken)
        assert "it is not valid" in assert_untouched(PASS, parse(TWO_RELUS, w=(4, 4)))["<model>"]

    def test_what_onnxsim_says(self, answer) -> None:
        answer(lambda proto: "did not finish within 1 s")
        assert _reason(apply(PASS, parse(TWO_RELUS, w=(4, 4)))) == "onnxsim did not finish within 1 s"

    def test_no_onnxsim(self, monkeypatch: pytest.MonkeyPatch) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxsim" else find(name))
        assert "pip install 'irc-compiler[onnxsim]'" in _reason(apply(PASS, parse(TWO_RELUS, w=(4, 4))))


class TestWeights:
    def test_the_largest_are_left_out_and_come_back_untouched(self, answer) -> None:
        asked = answer(_without_second_relu)
        model = parse(
            "g (float[n,4] x) => (float[n,4] y) { a = Gemm(x, w, c)  b = Relu(a)  y = Relu(b) }", w=(4, 4), c=(4,)
        )
        outcome = apply(dataclasses.replace(PASS, weight_limit=16), model)
        assert outcome.rewritten
        assert [t.name for t in asked[0].graph.initializer] == ["c"]
        assert [v.name for v in asked[0].graph.input] == ["x", "w"]
        assert outcome.model.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
        assert [v.name for v in outcome.model.graph.inputs] == ["x"]
        assert_promises(dataclasses.replace(PASS, weight_limit=16), model, outcome)

    def test_a_left_out_weight_that_is_not_used_any_more_goes(self, answer) -> None:
        def unused(proto: onnx.ModelProto) -> onnx.ModelProto:
            found = _without_second_relu(proto)
            found.graph.node[0].CopyFrom(onnx.helper.make_node("Abs", ["x"], [found.graph.node[0].output[0]]))
            return found

        answer(unused)
        outcome = apply(dataclasses.replace(PASS, weight_limit=0), parse(TWO_RELUS, w=(4, 4)))
        assert outcome.rewritten and not outcome.model.graph.initializers

    @pytest.mark.parametrize("more", [("", ", float[4,4] w"), (", float[4,4] w", "")])
    def test_a_left_out_weight_that_is_public_stays_though_no_node_uses_it(self, answer, more: tuple[str, str]) -> None:
        def unused(proto: onnx.ModelProto) -> onnx.ModelProto:
            found = _without_second_relu(proto)
            found.graph.node[0].CopyFrom(onnx.helper.make_node("Abs", ["x"], [found.graph.node[0].output[0]]))
            return found

        answer(unused)
        model = parse(TWO_RELUS.replace("] x", f"] x{more[0]}").replace("] y", f"] y{more[1]}"), w=(4, 4))
        outcome = apply(dataclasses.replace(PASS, weight_limit=0), model)
        assert outcome.rewritten and interface(outcome.model) == interface(model)
        assert outcome.model.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value

    def test_those_of_bodies_are_not_left_out(self, answer) -> None:
        asked = answer(_without_second_relu)
        model = parse(
            """g (bool c, float[n,4] x) => (float[n,4] y) { a = If (c) <
            then_branch = t () => (float[n,4] p) { p = Add(x, w) },
            else_branch = e () => (float[n,4] q) { q = Neg(x) }>  b = Relu(a)  y = Relu(b) }""",
            w=(1, 4),
        )
        then = next(iter(model.graph)).attributes["then_branch"].as_graph()
        then.register_initializer(model.graph.initializers.pop("w"))
        outcome = assert_equal_after(dataclasses.replace(PASS, weight_limit=0), model)
        assert outcome.rewritten and [value.name for value in asked[0].graph.input] == ["c", "x"]

    def test_the_limit_holds_for_many_weights_of_one_size(self) -> None:
        text = "g (float[4] x) => (float[4] y) { a = Add(x, c0)  b = Add(a, c1)  d = Add(b, c2)  y = Mul(d, s) }"
        weights = {"c0": (4,), "c1": (4,), "c2": (4,), "s": (1,)}
        for limit, kept in ((52, ["c0", "c1", "c2", "s"]), (51, ["s"]), (4, ["s"]), (3, [])):
            proto = handed_out(parse(text, **weights), limit=limit).proto
            assert [t.name for t in proto.graph.initializer] == kept

    def test_a_weight_that_callers_may_override_stays_one(self, answer) -> None:
        asked = answer(_without_second_relu)
        model = parse(
            "g (float[n,4] x, float[4,4] w) => (float[n,4] y) { a = MatMul(x, w)  b = Relu(a)  y = Relu(b) }", w=(4, 4)
        )
        outcome = assert_equal_after(PASS, model)
        assert outcome.rewritten and not asked[0].graph.initializer
        value = outcome.model.graph.initializers["w"]
        assert value.is_graph_input() and value.const_value is model.graph.initializers["w"].const_value

    def test_external_weights_stay_in_their_file(self, answer, tmp_path: Path) -> None:
        save(parse(TWO_RELUS.replace("4] x", "600] x"), w=(600, 4)), tmp_path / "m.onnx", external_threshold=0)
        model = load(tmp_path / "m.onnx")
        assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)
        for limit in (0, 1 << 20):
            answer(_without_second_relu)
            outcome = apply(dataclasses.replace(PASS, weight_limit=limit), model)
            assert outcome.rewritten
            assert outcome.model.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value


class TestCosts:
    BASE = Costs(nodes=10, macs=100, uncounted=1, moved=1000, weights=500, file=900)

    @pytest.mark.parametrize("field", ["nodes", "macs", "uncounted", "moved", "weights"])
    def test_less_of_one_is_better(self, field: str) -> None:
        assert (
            why_not_better(self.BASE, dataclasses.replace(self.BASE, **{field: getattr(self.BASE, field) - 1})) is None
        )

    @pytest.mark.parametrize("field", ["nodes", "macs", "uncounted", "moved", "weights", "file"])
    def test_more_of_one_is_worse_whatever_the_others(self, field: str) -> None:
        better = Costs(nodes=1, macs=1, uncounted=0, moved=1, weights=1, file=1)
        worse = dataclasses.replace(better, **{field: getattr(self.BASE, field) + 1})
        reason = why_not_better(self.BASE, worse)
        assert reason is not None and f"{getattr(self.BASE, field)} -> {getattr(self.BASE, field) + 1}" in reason

    def test_a_shorter_file_alone_is_not_better(self) -> None:
        assert why_not_better(self.BASE, dataclasses.replace(self.BASE, file=1)) is not None

    def test_unknown_bytes(self) -> None:
        unknown = dataclasses.replace(self.BASE, moved=None, nodes=9)
        assert "unknown" in str(why_not_better(self.BASE, unknown))
        assert why_not_better(dataclasses.replace(self.BASE, moved=None), unknown) is None
        assert (
            why_not_better(dataclasses.replace(self.BASE, moved=None), dataclasses.replace(self.BASE, nodes=9)) is None
        )


class TestMeasures:
    def test_a_candidate_that_is_much_slower_is_refused(self, answer) -> None:
        fast = parse("g (float[64,64] x) => (float[64,64] y) { a = Abs(x)  b = Neg(a)  c = Relu(b)  y = Abs(c) }")
        slow = parse("g (float[64,64] x) => (float[64,64] y) { a = MatMul(x, x)  b = MatMul(a, a)  y = MatMul(b, b) }")
        with Runner(threads=1) as runner:
            reason = cost_comparison.measured_slower(fast, slow, Context(runner=runner))
            assert reason is not None and "times as long" in reason
            assert cost_comparison.measured_slower(slow, fast, Context(runner=runner)) is None
            assert cost_comparison.measured_slower(fast, snapshot(fast), Context(runner=runner)) is None

    def test_the_clock_decides_last_and_only_if_asked(self, answer, monkeypatch: pytest.MonkeyPatch) -> None:
        answer(_without_second_relu)
        asked = []
        monkeypatch.setattr(
            "irc.passes.simplification.simplify_with_onnxsim.measured_slower",
            lambda before, after, ctx: asked.append((op_types(before), op_types(after))) or "it takes twice as long",
        )
        model = parse(TWO_RELUS, w=(4, 4))
        assert "twice as long" in _reason(apply(SimplifyWithOnnxsim(), model))
        assert asked == [(["MatMul", "Relu", "Relu"], ["MatMul", "Relu"])]
        assert apply(PASS, model).rewritten
        answer(lambda proto: proto)
        assert "no fewer" in _reason(apply(SimplifyWithOnnxsim(), model)) and len(asked) == 1

    def test_without_a_runner_or_a_runnable_original_nothing_is_measured(self) -> None:
        model = parse(ONE_RELU, w=(4, 4))
        custom = parse("g (float[2] x) => (float[2] y) { y = custom.Foo(x) }")
        assert cost_comparison.measured_slower(model, model, Context()) is None
        with Runner(threads=1) as runner:
            assert cost_comparison.measured_slower(custom, model, Context(runner=runner)) is None
            reason = cost_comparison.measured_slower(model, custom, Context(runner=runner))
            assert reason is not None and "does not run it" in reason


class TestProcess:
    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
            ("import time; time.sleep(60)", "did not finish within 1 s"),
            ("raise ValueError('no such operator')", "failed: ValueError: no such operator"),
            ("pass", "failed: it said nothing"),
            ("import sys; open(sys.argv[2], 'wb').write(b'\\xff' * 9)", "not a model"),
        ],
    )
    def test_whatever_it_does_it_is_a_reason(
        self, script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "child.py"
        path.write_text(script)
        monkeypatch.setattr(onnxsim_process, "__file__", str(path))
        found = onnxsim_process.simplified(
            ir.to_proto(parse(ONE_RELU, w=(4, 4))), seconds=1 if "sleep" in script else 30
        )
        assert isinstance(found, str) and reason in found

    def test_onnxsim_itself(self) -> None:
        if importlib.util.find_spec("onnxsim") is None:
            pytest.skip("onnxsim is not installed")
        model = parse(
            """g (float[n,4,6,6] x) => (float[n,4,6,6] y) { a = Conv<pads=[1,1,1,1]>(x, w)
            b = BatchNormalization(a, gamma, beta, mean, var)  i = Identity(b)  y = Relu(i) }""",
            w=(4, 4, 3, 3),
            **statistics(4),
        )
        outcome = apply(PASS, model)
        assert op_types(outcome.model) == ["Conv", "Relu"]
        assert interface(outcome.model) == interface(model)
        assert "not better" in _reason(
            Outcome(outcome.model, apply_pass(Step(PASS), snapshot(outcome.model), Context()).record)
        )
        result = PassManager([PASS]).run(model)
        assert result.ledger.passes[-1].rewritten and not result.ledger.passes[-1].undone


def test_options() -> None:
    for options in ({"seconds": "0"}, {"weight_limit": "-1"}):
        with pytest.raises(PassOptionError, match="must be"):
            build(SimplifyWithOnnxsim, "simplify-with-onnxsim", options)
