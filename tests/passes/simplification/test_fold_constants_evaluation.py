"""fold-constants: how values are computed, how often, and what cannot be."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import (
    apply,
    assert_equal_after,
    assert_untouched,
    op_types,
    parse,
    weight,
)

from irc.ir import snapshot
from irc.passes.simplification import FoldConstants, constant_program, constant_regions, fold_constants

PASS = FoldConstants()
TOO_LARGE = "its value is larger than what it is computed from"


def test_a_node_that_cannot_be_evaluated_stays_and_what_is_before_it_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parse(
        "g (float[1,1,8,8] x) => (float[1,1,8,8] y) { n = Neg(w)  m = Softplus(n)  a = Abs(m)  y = Mul(x, a) }",
        w=(1, 1, 8, 8),
    )
    evaluate = constant_program.evaluate

    def without_softplus(proto, inputs, *, opset):  # type: ignore[no-untyped-def]
        if proto.op_type == "Softplus":
            raise constant_program.EvaluationError("the reference implementation has no Softplus of opset 17")
        return evaluate(proto, inputs, opset=opset)

    monkeypatch.setattr(constant_program, "evaluate", without_softplus)
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Softplus", "Abs", "Mul"]
    assert outcome.rewritten == ["n"]
    assert outcome.skipped == {"a": "the reference implementation has no Softplus of opset 17"}


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("n = Reshape(w, s)", "evaluating it raises ValueError"),
        ("n = Gather(w, s)", "evaluating it raises IndexError"),
        ("n = Range(zero, one, zero)", "evaluating it raises ZeroDivisionError"),
        ("n = Range(zero, infinity, one)", "evaluating it raises OverflowError"),
        ("n = Range(zero, infinity, infinity)", "evaluating it raises ValueError"),
        ("n = OneHot(s, nothing, w)", "evaluating it raises IndexError"),
    ],
)
def test_a_broken_node_does_not_break_the_build(node: str, reason: str) -> None:
    scalars = {"zero": np.float32(0), "one": np.float32(1), "infinity": np.float32(np.inf)}
    given = {"w": (2,), "s": np.array([5]), "nothing": np.array([], np.int64), **scalars}
    model = parse(f"g (float[2] x) => (float[k] y) {{ {node}  y = Add(x, n) }}", given)
    outcome = apply(PASS, model)
    assert outcome.rewritten == [] and outcome.skipped == {"n": reason}


def test_a_wrong_dtype_of_the_reference_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parse("g (float[2] x) => (float[2] y) { n = Neg(w)  y = Add(x, n) }", w=(2,))
    monkeypatch.setattr(constant_program, "evaluate", lambda proto, inputs, *, opset: [-inputs[0].astype(np.float64)])
    outcome = apply(PASS, model)
    assert outcome.rewritten == []
    assert outcome.skipped == {"n": "the reference implementation gives float64, not FLOAT"}


@pytest.mark.parametrize("dims", [[3], [2, 1], []], ids=str)
def test_a_value_of_another_shape_than_the_model_says_is_not_stored(dims: list[int]) -> None:
    model = parse("g (float[2] x) => (float[2] y) { n = Neg(w)  y = Add(x, n) }", w=(2,))
    model.graph[0].outputs[0].shape = ir.Shape(dims)
    outcome = apply(FoldConstants(max_bytes=64), model)
    assert outcome.rewritten == [] and outcome.skipped == {"n": "its value has another shape than the model says"}


def test_slow_reference_implementations_are_waited_for_where_there_is_little_to_compute() -> None:
    text = "g (float[2] x) => (float[1,8,4,2] y) { c = Conv(v, w)  y = Add(x, c) }"
    model = parse(text, v=(1, 8, 6, 4), w=(8, 8, 3, 3))
    assert op_types(assert_equal_after(PASS, model, rtol=1e-5).model) == ["Add"]


def test_slow_reference_implementations_are_not_waited_for() -> None:
    model = parse(
        "g (float[1,8,64,64] x) => (float[1,8,64,64] y) { c = Conv<pads=[1,1,1,1]>(image, w)  y = Add(x, c) }",
        image=(1, 8, 64, 64),
        w=(8, 8, 3, 3),
    )
    assert assert_untouched(PASS, model) == {"c": "evaluating a Conv of this size would take long"}


def test_values_of_unknown_size_are_folded_if_they_turn_out_small() -> None:
    model = parse(
        "g (float[m] x) => (float[k] y) { n = NonZero(w)  f = Cast<to=1>(n)  s = ReduceSum<keepdims=0>(f)  y = Add(x, s) }",
        w=np.array([0.0, 2.0, 0.0, 1.0], np.float32),
    )
    assert op_types(assert_equal_after(PASS, model).model) == ["Add"]
    large = parse(
        "g (float[m] x) => (float[k] y) { n = NonZero(w)  f = Cast<to=1>(n)  s = ReduceSum<keepdims=0>(f)  y = Add(x, s) }",
        w=np.ones(4096, np.float32),
    )
    outcome = apply(PASS, large)
    assert outcome.rewritten == [] and outcome.skipped == {"n": TOO_LARGE}


def test_values_of_unknown_rank_and_from_omitted_inputs_are_folded_too() -> None:
    model = parse(
        "g (int64[m] x) => (int64[k] y) { n = NonZero(w)  c = Clip(n, , most)  q = Squeeze(c)  y = Add(x, q) }",
        w=np.array([0.0, 2.0, 0.0, 1.0], np.float32),
        most=np.array(2),
    )
    assert op_types(assert_equal_after(PASS, model, symbols=(2,)).model) == ["Add"]


def test_an_identity_of_unknown_size_is_left_to_be_eliminated() -> None:
    model = parse("g (int64[m] x) => (int64[k] y) { n = NonZero(w)  i = Identity(n)  y = Add(x, i) }", w=(3,))
    assert op_types(assert_equal_after(PASS, model).model) == ["Identity", "Add"]


def test_a_large_result_is_computed_when_it_is_read() -> None:
    model = parse(
        "g (float[n,600] x) => (float[n,512] y) { t = Transpose<perm=[1,0]>(w)  s = Mul(t, half)  y = MatMul(x, s) }",
        w=(512, 600),
        half=np.float32(0.5),
    )
    outcome = assert_equal_after(PASS, model, rtol=1e-6)
    tensor = outcome.model.graph.initializers["s"].const_value
    assert isinstance(tensor, ir.LazyTensor) and tuple(tensor.shape) == (600, 512)
    edited = snapshot(outcome.model)
    for node in edited.graph:
        node.name = "renamed"
    np.testing.assert_array_equal(tensor.numpy(), weight(model, "w").T * np.float32(0.5))


def evaluations_from_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operators that are evaluated from here on."""
    calls: list[str] = []
    evaluate = constant_program.evaluate
    monkeypatch.setattr(
        constant_program,
        "evaluate",
        lambda proto, inputs, *, opset: (calls.append(proto.op_type), evaluate(proto, inputs, opset=opset))[1],
    )
    return calls


def test_what_several_sites_need_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = evaluations_from_here(monkeypatch)
    chain = "  ".join(f"a{i} = Abs(a{i - 1})" for i in range(1, 50))
    users = "  ".join(f"b{i} = Mul(a49, k{i})  x{i} = Add(x{i - 1}, b{i})" for i in range(1, 20))
    model = parse(
        f"g (float[4] x0) => (float[4] y) {{ {chain} {users} y = Neg(x19) }}",
        {"a0": (4,), **{f"k{i}": (4,) for i in range(1, 20)}},
    )
    outcome = apply(PASS, model)
    assert len(outcome.rewritten) == 19 and calls.count("Abs") == 49


@pytest.mark.parametrize(("remembered", "evaluations"), [(16, 9), (15, 18)])
def test_no_more_is_remembered_than_allowed(remembered: int, evaluations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = evaluations_from_here(monkeypatch)
    monkeypatch.setattr(fold_constants, "REMEMBERED_BYTES", remembered)
    chain = "  ".join(f"a{i} = Abs(a{i - 1})" for i in range(1, 10))
    users = "b = Mul(a9, k)  c = Mul(a9, h)  u = Add(x, b)  y = Add(u, c)"
    model = parse(f"g (float[4] x) => (float[4] y) {{ {chain} {users} }}", a0=(4,), k=(4,), h=(4,))
    assert apply(PASS, model).rewritten == ["b", "c"] and calls.count("Abs") == evaluations


def test_what_two_steps_need_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = evaluations_from_here(monkeypatch)
    model = parse("g (float[4] x) => (float[4] y) { a = Neg(w)  b = Abs(a)  c = Mul(b, a)  y = Add(x, c) }", w=(4,))
    assert op_types(assert_equal_after(PASS, model).model) == ["Add"]
    del calls[:]
    apply(PASS, model)
    assert calls == ["Neg", "Abs", "Mul"]


def test_what_is_on_the_way_can_be_asked_for() -> None:
    model = parse("g (float[4] x) => (float[4] y) { a = Neg(w)  b = Abs(a)  y = Add(x, b) }", w=(4,))
    values = [node.outputs[0] for node in model.graph][:2]
    on_the_way, last = constant_program.program_for(values, opset=17, known={}).program.run()
    np.testing.assert_array_equal(on_the_way, -weight(model, "w"))
    np.testing.assert_array_equal(last, np.abs(weight(model, "w")))


def test_thousands_of_nodes_with_as_many_users_fold() -> None:
    count = 2000
    chain = "  ".join(f"a{i} = Add(a{i - 1}, k)" for i in range(1, count))
    taps = "  ".join(f"t{i} = Mul({'x' if i == 1 else f't{i - 2}'}, a{i})" for i in range(1, count, 2))
    model = parse(f"g (float[4] x) => (float[4] y) {{ {chain} {taps} y = Neg(t{count - 1}) }}", a0=(4,), k=(4,))
    outcome = apply(PASS, model)
    assert len(outcome.rewritten) == count // 2 and set(op_types(outcome.model)) == {"Mul", "Neg"}


def test_a_long_chain_does_not_exhaust_the_stack() -> None:
    chain = "  ".join(f"a{i} = Neg(a{i - 1})" for i in range(1, 1501))
    model = parse(f"g (float[4] x) => (float[4] y) {{ {chain} y = Add(x, a1500) }}", a0=(4,))
    outcome = apply(PASS, model)
    assert outcome.rewritten == ["a1500"] and op_types(outcome.model) == ["Add"]


def test_a_chain_of_doublings_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    answer = constant_regions.shape_answer
    monkeypatch.setattr(constant_regions, "shape_answer", lambda node: (asked.append(node), answer(node))[1])
    chain = "  ".join(f"a{i} = Add(a{i - 1}, a{i - 1})" for i in range(1, 12))
    model = parse(f"g (float[4] x) => (float[4] y) {{ {chain} y = Add(x, a11) }}", a0=(4,))
    assert apply(PASS, model).rewritten == ["a11"] and len(asked) < 500
