"""Every simplification pass over many small graphs: interface kept, model valid, idempotent, same numbers.

A bug that is fixed leaves a graph here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pass_kit import Outcome, apply, assert_equal_after, assert_promises, feeds, parse, run, statistics

from irc.ir import load, save, snapshot
from irc.pass_base import Contract, Pass
from irc.pass_manager import PassManager
from irc.passes.simplification import (
    EliminateDeadCode,
    EliminateDropout,
    EliminateIdentity,
    FoldBatchNorm,
    FoldConstants,
    InferShapes,
)

PASSES = (InferShapes(), EliminateIdentity(), EliminateDropout(), FoldConstants(), FoldBatchNorm(), EliminateDeadCode())
ROUNDING = 1e-5


def _models() -> dict[str, ir.Model]:
    norm = statistics(4)
    return {
        "residual block": parse(
            """g (float[1,4,6,6] x) => (float[1,4,6,6] y) { a = Conv<pads=[1,1,1,1]>(x, w)  b = BatchNormalization(a, gamma, beta, mean, var)
            c = Relu(b)  d, m = Dropout(c)  e = Conv<pads=[1,1,1,1]>(d, w)  f = BatchNormalization(e, gamma, beta, mean, var)
            i = Identity(x)  s = Add(f, i)  y = Relu(s) }""",
            w=(4, 4, 3, 3),
            **norm,
        ),
        "output is an inner value too": parse(
            "g (float[2] x) => (float[2] a, float[2] y, float[2] z) { a = Abs(x)  y = Identity(a)  d = Dropout(a)  z = Identity(d) }"
        ),
        "graph input to graph output": parse("g (float[2] x) => (float[2] y, float[2] z) { y = Dropout(x)  z = Identity(x) }"),
        "nothing depends on the input": parse("g (float[2] x) => (float[2] y) { a = Add(w, w)  y = Identity(a) }", w=(2,)),
        "one constant, two outputs": parse(
            "g (float[2] x) => (float[2] y, float[2] z) { a = Neg(w)  y = Identity(a)  z = Identity(a) }", w=(2,)
        ),
        "weight norm then batch norm": parse(
            """g (float[1,4,8] x) => (float[1,4,6] y) { n = ReduceL2<axes=[1,2]>(v)  r = Div(g0, n)  w = Mul(v, r)
            h = Conv(x, w)  y = BatchNormalization(h, gamma, beta, mean, var) }""",
            v=(4, 4, 3),
            g0=(4, 1, 1),
            **norm,
        ),
        "dynamic reshape": parse(
            """g (float[n,4,6] x) => (float[m,k] y) { s = Shape(x)  b = Gather(s, zero)  c = Gather(s, one)  d = Mul(b, c)
            t = Concat<axis=0>(d, minus)  y = Reshape(x, t) }""",
            zero=np.array([0]),
            one=np.array([1]),
            minus=np.array([-1]),
        ),
        "capture and shadow": parse(
            """g (bool c, float[2] x) => (float[2] y) { a = Identity(x)  k = Neg(w)  d = Dropout(a)  y = If (c) <
            then_branch = t () => (float[2] p) { i = Identity(d)  p = Add(i, k) },
            else_branch = e () => (float[2] q) { j = Add(w, k)  q = Identity(j) }> }""",
            w=(2,),
        ),
        "loop": parse(
            """g (float[2] x) => (float[2] y, float[3,2] all) { y, all = Loop (n, on, x) <
            body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t, float[2] o) {
            k = Neg(w)  r = Identity(s)  t = Add(r, k)  d = Identity(c)  o = Identity(t) }> }""",
            n=np.array(3),
            on=np.array(True),
            w=(2,),
        ),
        "decided branch": parse(
            """g (float[2] x) => (float[2] y) { on = Greater(w, w)  f = Squeeze(on)  y = If (f) <
            then_branch = t () => (float[2] p) { p = Neg(x) }, else_branch = e () => (float[2] q) { h = Add(x, x)  q = Identity(h) }> }""",
            w=(1,),
        ),
        "split with unused parts": parse(
            "g (float[2,4] x) => (float[2,2] y) { a, b = Split<axis=1>(w)  c, d = Split<axis=1>(x)  y = Add(b, d) }", w=(2, 4)
        ),
        "tied embedding": parse(
            "g (int64[n] i) => (float[n,300] y) { e = Gather(w, i)  t = Transpose<perm=[1,0]>(w)  u = Identity(t)  y = MatMul(e, u) }",
            w=(300, 8),
        ),
        "quantized weight": parse(
            "g (float[n,4] x) => (float[n,3] y) { d = DequantizeLinear(q, s)  i = Identity(d)  y = MatMul(x, i) }",
            q=np.array([[1, -2, 3], [4, 5, -6], [7, 8, 9], [-1, 2, 4]], np.int8),
            s=np.float32(0.1),
        ),
        "classifier": parse(
            """g (float[n,3] x) => (float[n,4] y) { h = Gemm<transB=1, alpha=0.5>(x, w)  b = BatchNormalization(h, gamma, beta, mean, var)
            m = MatMul(b, v)  c = BatchNormalization(m, gamma, beta, mean, var)  y = Softmax<axis=1>(c) }""",
            w=(4, 3),
            v=(4, 4),
            **norm,
        ),
        "empty tensors": parse(
            "g (float[2,0] x) => (float[2,3] y) { e = Neg(z)  f = Concat<axis=1>(e, w)  y = Concat<axis=1>(x, f) }",
            z=np.zeros((2, 0), np.float32),
            w=(2, 3),
        ),
        "strings": parse("g (int64[n] i) => (string[n] y) { t = Identity(words)  y = Gather(t, i) }", words=np.array(["a", "b", "c", "d"])),
    }  # fmt: skip


MODELS = _models()


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("pass_", PASSES, ids=lambda p: p.name)
def test_keeps_its_promises(pass_: Pass, case: str) -> None:
    rtol = 0.0 if pass_.contract is Contract.EXACT else ROUNDING
    if case == "strings":
        assert_promises(pass_, MODELS[case], apply(pass_, MODELS[case]))
    else:
        assert_equal_after(pass_, MODELS[case], rtol=rtol, symbols=(3, 1, 2))


@pytest.mark.parametrize("case", MODELS)
def test_all_of_them_in_a_row(case: str) -> None:
    after = _all(MODELS[case])
    if case != "strings":
        _assert_same(MODELS[case], after, symbols=(3, 2))
    assert len(list(after.graph.all_nodes())) <= len(list(MODELS[case].graph.all_nodes()))


def test_the_manager_verifies_them_and_finds_no_fault() -> None:
    model = MODELS["weight norm then batch norm"]
    result = PassManager(PASSES, insert_required=False).run(model)
    assert [node.op_type for node in result.model.graph] == ["Conv"]
    assert result.ledger.verification_runs == 1 and not any(record.undone for record in result.ledger)


def test_lazy_weights_on_external_data_survive_saving(tmp_path: Path) -> None:
    source = parse(
        """g (float[1,256,4] x) => (float[1,512,4] y) { w = Mul(v, r)  h = Conv<pads=[1,1]>(x, w)
        y = BatchNormalization(h, gamma, beta, mean, var) }""",
        v=(512, 256, 3),
        r=(512, 1, 1),
        **statistics(512),
    )
    ir.save(source, tmp_path / "m.onnx", external_data="m.onnx.data")
    model = load(tmp_path / "m.onnx")
    assert isinstance(model.graph.initializers["v"].const_value, ir.ExternalTensor)
    after = _all(model)
    assert isinstance(after.graph.initializers["y.weight"].const_value, ir.LazyTensor)
    save(after, tmp_path / "out.onnx")
    _assert_same(source, load(tmp_path / "out.onnx"), symbols=(1,))


STEPS = (
    "{n} = Tanh({a})",
    "{n} = Max({a}, {b})",
    "{n} = Identity({a})",
    "{n}, {n}_mask = Dropout({a})",
    "{n}_h = MatMul({a}, square)  {n} = BatchNormalization({n}_h, gamma, beta, mean, var)",
    "{n}_s = Shape({a})  {n} = Reshape({b}, {n}_s)",
    "{n}_a, {n}_b = Split<axis=0>({a})  {n} = Concat<axis=0>({n}_b, {n}_a)",
    "{n}_k = Constant<value_floats=[0.5, -1.0, 2.0, 0.1]>()  {n} = Add({a}, {n}_k)",
    """{n} = If ({c}) <then_branch = {n}_t () => (float[2,4] {n}_p) {{ {n}_i = Identity({a})  {n}_p = Sub({n}_i, {b}) }},
        else_branch = {n}_e () => (float[2,4] {n}_q) {{ {n}_q = Neg({b}) }}>""",
)


@st.composite
def _graphs(draw: st.DrawFn) -> str:
    """A random graph over float[2,4]: constants, inputs, no-ops and captures mixed, outputs anywhere."""
    values, lines = ["x", "w", "v"], []
    for i in range(draw(st.integers(1, 14))):
        step, a, b = draw(st.sampled_from(STEPS)), draw(st.sampled_from(values)), draw(st.sampled_from(values))
        lines.append(step.format(n=f"t{i}", a=a, b=b, c=draw(st.sampled_from(["c", "on"]))))
        values.append(f"t{i}")
    outputs = draw(st.lists(st.sampled_from(values[3:]), min_size=1, max_size=4, unique=True))
    return f"g (bool c, float[2,4] x) => ({', '.join(f'float[2,4] {o}' for o in outputs)}) {{ {'  '.join(lines)} }}"


@settings(max_examples=16, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(_graphs())
def test_random_graphs(source: str) -> None:
    weights = {"w": (2, 4), "v": (2, 4), "square": (4, 4), "on": np.array(True), **statistics(4)}
    model = parse(source, weights)
    for pass_ in PASSES:
        outcome = apply(pass_, model)
        assert_promises(pass_, model, outcome)
    _assert_same(model, _all(model), symbols=(1, 2))


def _all(model: ir.Model) -> ir.Model:
    """The model after all passes."""
    after = snapshot(model)
    for pass_ in PASSES:
        outcome: Outcome = apply(pass_, after)
        assert_promises(pass_, after, outcome)
        after = outcome.model
    return after


def _assert_same(before: ir.Model, after: ir.Model, *, symbols: tuple[int, ...]) -> None:
    for seed, symbol in enumerate(symbols):
        feed = feeds(before, symbol=symbol, seed=seed)
        for expected, found in zip(run(before, feed), run(after, feed), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * (1 + np.abs(expected).max(initial=0.0)))
