"""eliminate-unused-body-values: what bodies take, carry and give for nobody, and what only looks like it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from exactness_kit import assert_exact_after
from pass_kit import apply, assert_untouched, op_types, parse

from irc.ir import size_on_disk
from irc.passes.simplification import EliminateUnusedBodyValues
from irc.passes.simplification.unused import bodies
from irc.testing import assert_conforms, assert_rewrites

PASS = EliminateUnusedBodyValues()
WEIGHTS = {"n": np.array(3), "yes": np.array(True), "w": np.arange(1, 3, dtype=np.float32)}

REWRITES = {
    "If, first output": (
        """g (bool c, float[2] x) => (float[2] z) { y, z = If (c) <then_branch = t () => (float[2] p, float[2] q) { p = Neg(x)  q = Abs(x) },
        else_branch = e () => (float[2] r, float[2] s) { r = Exp(x)  s = Tanh(x) }> }""",
        """g (bool c, float[2] x) => (float[2] z) { z = If (c) <then_branch = t () => (float[2] q) { q = Abs(x) },
        else_branch = e () => (float[2] s) { s = Tanh(x) }> }""",
    ),
    "If, last output, with what was captured": (
        """g (bool c, float[2] x) => (float[2] y) { h = Neg(x)  y, z = If (c) <then_branch = t () => (float[2] p, float[2] q) { p = Neg(x)  q = Abs(h) },
        else_branch = e () => (float[2] r, float[2] s) { r = Exp(x)  s = Mul(h, w) }> }""",
        """g (bool c, float[2] x) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] p) { p = Neg(x) },
        else_branch = e () => (float[2] r) { r = Exp(x) }> }""",
    ),
    "Loop, collected": (
        """g (float[2] x) => (float[2] y, float[r,2] b) { y, a, b = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t, float[2] o, float[2] p) { on = Identity(go)  t = Mul(s, w)  o = Exp(s)  p = Neg(o) }> }""",
        """g (float[2] x) => (float[2] y, float[r,2] b) { y, b = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t, float[2] p) { on = Identity(go)  t = Mul(s, w)  o = Exp(s)  p = Neg(o) }> }""",
    ),
    "Loop, carried for itself": (
        """g (float[2] x, float[2] v) => (float[2] y) { h = Exp(v)  z, y = Loop (n, yes, h, x) <
        body = l (int64 i, bool go, float[2] k, float[2] s) => (bool on, float[2] u, float[2] t) { on = Identity(go)  t = Mul(s, w)  u = Add(k, s) }> }""",
        """g (float[2] x, float[2] v) => (float[2] y) { y = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t) { on = Identity(go)  t = Mul(s, w) }> }""",
    ),
    "Loop, two that only need each other": (
        """g (float[2] x, float[2] v) => (float[2] y) { z, y, u = Loop (n, yes, v, x, v) <
        body = l (int64 i, bool go, float[2] k, float[2] s, float[2] m) => (bool on, float[2] a, float[2] t, float[2] b) { on = Identity(go)  t = Mul(s, w)  a = Add(m, s)  b = Exp(k) }> }""",
        """g (float[2] x, float[2] v) => (float[2] y) { y = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t) { on = Identity(go)  t = Mul(s, w) }> }""",
    ),
    "Loop, unchanged": (
        """g (float[2] x, float[2] v) => (float[2] y) { y, z = Loop (n, yes, x, v) <
        body = l (int64 i, bool go, float[2] s, float[2] k) => (bool on, float[2] t, float[2] k) { on = Identity(go)  t = Mul(s, k) }> }""",
        """g (float[2] x, float[2] v) => (float[2] y) { y = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t) { on = Identity(go)  t = Mul(s, v) }> }""",
    ),
    "Loop, unchanged and used": (
        """g (float[2] x, float[2] v) => (float[2] y, float[2] u) { y, z = Loop (n, yes, x, v) <
        body = l (int64 i, bool go, float[2] s, float[2] k) => (bool on, float[2] t, float[2] m) { on = Identity(go)  m = Identity(k)  t = Mul(s, k) }>
        u = Neg(z) }""",
        """g (float[2] x, float[2] v) => (float[2] y, float[2] u) { y = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t) { on = Identity(go)  t = Mul(s, v) }>  u = Neg(v) }""",
    ),
    "Loop, unchanged and an output": (
        """g (float[2] x, float[2] v) => (float[2] y, float[2] z) { y, z = Loop (n, yes, x, v) <
        body = l (int64 i, bool go, float[2] s, float[2] k) => (bool on, float[2] t, float[2] m) { on = Identity(go)  m = Identity(k)  t = Mul(s, k) }> }""",
        """g (float[2] x, float[2] v) => (float[2] y, float[2] z) { y = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t) { on = Identity(go)  t = Mul(s, v) }>  z = Identity(v) }""",
    ),
    "Loop, nothing but unchanged": (
        """g (float[2] x) => (float[2] u) { y, z = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] s, float[2] p) { on = Identity(go)  p = Neg(s) }>  u = Neg(y) }""",
        "g (float[2] x) => (float[2] u) { u = Neg(x) }",
    ),
    "Loop, all that is carried, without a condition": (
        """g (float[2] x, float[2] v) => (float[r,2] b) { y, b = Loop (n, , v) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t, float[2] p) { on = Identity(go)  t = Exp(s)  p = Mul(x, w) }> }""",
        """g (float[2] x, float[2] v) => (float[r,2] b) { b = Loop (n, always) <
        body = l (int64 i, bool go) => (bool on, float[2] p) { on = Identity(go)  p = Mul(x, w) }> }""",
    ),
    "Loop, carried and collected, without a condition": (
        """g (float[2] x) => (float[2] y, float[r,2] b) { y, a, b = Loop (n, , x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t, float[2] o, float[2] p) { on = Identity(go)  t = Mul(s, w)  o = Exp(s)  p = Neg(s) }> }""",
        """g (float[2] x) => (float[2] y, float[r,2] b) { y, b = Loop (n, , x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t, float[2] p) { on = Identity(go)  t = Mul(s, w)  p = Neg(s) }> }""",
    ),
    "Loop, used in a body of its body": (
        """g (bool c, float[2] x, float[2] v) => (float[2] y) { y, z = Loop (n, yes, x, v) <
        body = l (int64 i, bool go, float[2] s, float[2] k) => (bool on, float[2] t, float[2] k) { on = Identity(go)
        t = If (c) <then_branch = a () => (float[2] p) { p = Mul(s, k) }, else_branch = e () => (float[2] q) { q = Neg(s) }> }> }""",
        """g (bool c, float[2] x, float[2] v) => (float[2] y) { y = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t) { on = Identity(go)
        t = If (c) <then_branch = a () => (float[2] p) { p = Mul(s, v) }, else_branch = e () => (float[2] q) { q = Neg(s) }> }> }""",
    ),
    "Scan, scanned input and collected output": (
        """g (float[2] x, float[4,2] a, float[3,4] b, float[4,2] d) => (float[2] y, float[2,4] o) { y, m, o = Scan <num_scan_inputs = 3, scan_input_axes = [0, 1, 0],
        scan_input_directions = [0, 1, 1], scan_output_axes = [0, 1], scan_output_directions = [0, 1],
        body = l (float[2] s, float[2] e, float[3] f, float[2] h) => (float[2] t, float[3] p, float[2] q) { t = Add(s, e)  p = Exp(f)  q = Mul(h, s) }> (x, a, b, d) }""",
        """g (float[2] x, float[4,2] a, float[3,4] b, float[4,2] d) => (float[2] y, float[2,4] o) { y, o = Scan <num_scan_inputs = 2, scan_input_axes = [0, 0],
        scan_input_directions = [0, 1], scan_output_axes = [1], scan_output_directions = [1],
        body = l (float[2] s, float[2] e, float[2] h) => (float[2] t, float[2] q) { t = Add(s, e)  q = Mul(h, s) }> (x, a, d) }""",
    ),
    "Scan, carried": (
        """g (float[2] x, float[4,2] a, float[2] v) => (float[4,2] o) { y, z, o = Scan <num_scan_inputs = 1,
        body = l (float[2] s, float[2] k, float[2] e) => (float[2] t, float[2] m, float[2] q) { t = Add(s, e)  q = Mul(e, k)  m = Identity(k) }> (x, v, a) }""",  # ORT copies wrongly without
        """g (float[2] x, float[4,2] a, float[2] v) => (float[4,2] o) { o = Scan <num_scan_inputs = 1,
        body = l (float[2] e) => (float[2] q) { q = Mul(e, v) }> (a) }""",
    ),
    "Scan, all that is scanned is unused": (
        """g (float[2] x, float[4,2] a, float[4] b) => (float[2] y) { y = Scan <num_scan_inputs = 2,
        body = l (float[2] s, float[2] e, float f) => (float[2] t) { t = Mul(s, w) }> (x, a, b) }""",
        """g (float[2] x, float[4,2] a, float[4] b) => (float[2] y) { y = Scan <num_scan_inputs = 1,
        body = l (float[2] s, float[2] e) => (float[2] t) { t = Mul(s, w) }> (x, a) }""",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REWRITES)
def test_becomes(case: str) -> None:
    before, after = REWRITES[case]
    assert_rewrites(PASS, before, after, WEIGHTS)


@pytest.mark.parametrize("case", REWRITES)
def test_same_bits_and_never_larger(case: str) -> None:
    outcome = assert_exact_after(PASS, model := parse(REWRITES[case][0], WEIGHTS))
    assert size_on_disk(outcome.model) < size_on_disk(model)


def test_conforms_where_values_have_other_users() -> None:
    models = {case: parse(before, WEIGHTS) for case, (before, _) in REWRITES.items()}
    assert_conforms(PASS, models, must_fire=True)


@pytest.mark.parametrize("opset", [9, 11, 13, 21])
def test_opsets(opset: int) -> None:
    for case in ("Loop, unchanged", "If, first output", "Scan, carried"):
        assert assert_exact_after(PASS, parse(REWRITES[case][0], WEIGHTS, opset=opset)).rewritten


def test_an_input_that_a_scan_lacks_is_not_given() -> None:
    source = """g (float[2] x, float[4,2] a) => (float[2] y) { y, o = Scan <num_scan_inputs = 1,
        body = l (float[2] s, float[2] e) => (float[2] t, float[2] q) { t = Neg(s)  q = Exp(e) }> (x, a) }"""
    model = parse(source)
    model.graph[0].replace_input_with(1, None)  # onnx takes it, runtimes do not
    (scan,) = apply(PASS, model).model.graph
    assert len(scan.outputs) == 1 and [value and value.name for value in scan.inputs] == ["x", None]


def test_before_opset_9_scan_had_batches() -> None:
    source = """g (float[1,2] x, float[1,4,2] a) => (float[1,4,2] o) { y, o = Scan <num_scan_inputs = 1,
        body = l (float[2] s, float[2] e) => (float[2] t, float[2] q) { t = Add(s, e)  q = Neg(e) }> (, x, a) }"""
    assert assert_untouched(PASS, parse(source, opset=8)) == {}


LOOP = """g (float[2] x, float[2] v) => ({outputs}) {{ y, z = Loop (n, yes, x, v) <
        body = l (int64 i, bool go, float[2] s, float[2] k) => (bool on, float[2] t, float[2] u) {{ {body} }}> {more} }}"""
NEEDED = {
    "used": ("float[2] y, float[2] z", "on = Identity(go)  t = Mul(s, w)  u = Exp(k)", ""),
    "used in a body": (
        "float[2] y, float[2] a", "on = Identity(go)  t = Mul(s, w)  u = Exp(k)",
        "a = If (yes) <then_branch = b () => (float[2] p) { p = Neg(z) }, else_branch = e () => (float[2] q) { q = Neg(y) }>",
    ),
    "needed for another": ("float[2] y", "on = Identity(go)  t = Mul(s, k)  u = Exp(k)", ""),
    "needed for another by way of a third": ("float[2] y", "on = Identity(go)  h = Neg(k)  t = Mul(s, h)  u = Exp(k)", ""),
    "needed for the condition": ("float[2] y", "m = ReduceMax<keepdims=0>(k)  h = ReduceMin<keepdims=0>(s)  on = Less(m, h)  t = Mul(s, w)  u = Exp(k)", ""),
    "needed in a body of the body": (
        "float[2] y",
        "on = Identity(go)  u = Exp(k)  t = If (go) <then_branch = b () => (float[2] p) { p = Mul(s, k) }, else_branch = e () => (float[2] q) { q = Neg(s) }>", "",
    ),
    "given by a body of the body": (
        "float[2] y",
        "on = Identity(go)  u = Exp(k)  f = Exp(k)  t = If (go) <then_branch = b () => (float[2] p) { p = Identity(f) }, else_branch = e () => (float[2] q) { q = Neg(s) }>", "",
    ),
    "another origin": ("float[2] y", "on = Identity(go)  t = Identity(k)  u = Identity(s)", ""),
    "changed": ("float[2] y, float[2] z", "on = Identity(go)  t = Mul(s, k)  u = Mul(k, w)", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", NEEDED)
def test_leaves_what_is_needed(case: str) -> None:
    outputs, body, more = NEEDED[case]
    model = parse(LOOP.format(outputs=outputs, body=body, more=more), WEIGHTS)
    assert assert_untouched(PASS, model) == {}


def test_leaves_an_If_and_a_Scan_of_which_everything_is_used() -> None:
    model = parse(
        """g (bool c, float[2] x, float[4,2] a) => (float[2] y, float[2] z, float[2] k, float[4,2] o) {
        y, z = If (c) <then_branch = t () => (float[2] p, float[2] q) { p = Neg(x)  q = Abs(x) }, else_branch = e () => (float[2] r, float[2] s) { r = Exp(x)  s = Tanh(x) }>
        k, o = Scan <num_scan_inputs = 1, body = l (float[2] m, float[2] e2) => (float[2] u, float[2] v) { u = Add(m, e2)  v = Neg(m) }> (x, a) }""",
        WEIGHTS,
    )
    assert assert_untouched(PASS, model) == {}


def test_a_collected_output_keeps_what_it_needs() -> None:
    model = parse(
        """g (float[2] x, float[2] v) => (float[r,2] o) { y, z, o = Loop (n, yes, x, v) <
        body = l (int64 i, bool go, float[2] s, float[2] k) => (bool on, float[2] t, float[2] u, float[2] p) { on = Identity(go)  t = Mul(s, w)  u = Exp(k)  p = Neg(k) }> }""",
        WEIGHTS,
    )
    (loop, *_) = assert_exact_after(PASS, model).model.graph
    assert [value.name for value in loop.inputs] == ["n", "yes", "v"] and len(loop.outputs) == 2


STAYS = {
    "another output of the body": (
        """g (float[2] x) => (float[2] y, float[r,2] o) { h = Neg(x)  z, o = Loop (n, yes, h) <
        body = l (int64 i, bool go, float[2] k) => (bool on, float[2] k, float[2] k) { on = Identity(go) }>  y = Exp(z) }""",
        "'k' never changes, but is another output of the body, too",
    ),
    "another output of the body, before one with a name of its own": (
        """g (float[2] x, float[2] v) => (float[2] y, float[2] z, float[r,2] o) { h = Neg(x)  u, z, o = Loop (n, yes, h, v) <
        body = l (int64 i, bool go, float[2] k, float[2] m) => (bool on, float[2] k, float[2] m, float[2] k) { on = Identity(go) }>  y = Exp(u) }""",
        "'k' never changes, but is another output of the body, too",
    ),
    "output with a name of its own": (
        """g (float[2] x) => (float[2] z, float[r,2] o) { z, o = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] k) => (bool on, float[2] k, float[2] p) { on = Identity(go)  p = Neg(k) }> }""",
        "'k' never changes, but as an output it would need an Identity of its own",
    ),
    "output that nothing else reads": (
        """g (float[2] x) => (float[2] z, float[r,2] o) { z, o = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] k) => (bool on, float[2] k, float[2] p) { on = Identity(go)  p = Neg(w) }> }""",
        "'k' never changes, but as an output it would need an Identity of its own",
    ),
    "output whose Identity others read": (
        """g (float[2] x) => (float[2] z, float[r,2] o) { z, o = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] k) => (bool on, float[2] m, float[2] p) { on = Identity(go)  m = Identity(k)  p = Neg(m) }> }""",
        "'k' never changes, but as an output it would need an Identity of its own",
    ),
    "output whose Identity is collected": (
        """g (float[2] x) => (float[2] z, float[r,2] o) { z, o = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] k) => (bool on, float[2] m, float[2] m) { on = Identity(go)  m = Identity(k) }> }""",
        "'k' never changes, but as an output it would need an Identity of its own",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STAYS)
def test_says_why_what_never_changes_is_carried(case: str) -> None:
    source, reason = STAYS[case]
    assert list(assert_untouched(PASS, parse(source, WEIGHTS)).values()) == [reason]


def test_an_output_may_take_over_the_name() -> None:
    model = parse(
        """g (float[2] x) => (float[2] z, float[r,2] o) { h = Neg(x)  z, o = Loop (n, yes, h) <
        body = l (int64 i, bool go, float[2] k) => (bool on, float[2] k, float[2] p) { on = Identity(go)  p = Neg(k) }> }""",
        WEIGHTS,
    )
    outcome = assert_exact_after(PASS, model)
    neg, loop = outcome.model.graph
    assert [value.name for value in neg.outputs] == ["z"] and [value.name for value in loop.inputs] == ["n", "yes"]


def test_what_is_not_used_at_all_is_dead_code_and_not_ours() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { z, o = Loop (n, yes, x) <
        body = l (int64 i, bool go, float[2] k) => (bool on, float[2] t, float[2] p) { on = Identity(go)  t = Exp(k)  p = Neg(k) }>  y = Neg(x) }""",
        WEIGHTS,
    )
    assert assert_untouched(PASS, model) == {}


def test_other_domains_are_not_known() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] z) { y, z = custom.If (c) <then_branch = t () => (float[2] p, float[2] q) { p = Neg(x)  q = Abs(x) },
        else_branch = e () => (float[2] r, float[2] s) { r = Exp(x)  s = Tanh(x) }> }"""
    )
    assert apply(PASS, model).rewritten == []
    copied = LOOP.format(
        outputs="float[2] y, float[2] z",
        body="on = Identity(go)  t = Mul(s, k)  m = custom.Identity(k)  u = Identity(m)",
        more="",
    )
    assert apply(PASS, parse(copied, WEIGHTS)).rewritten == []
    scan = REWRITES["Scan, carried"][0].replace("Scan <", "custom.Scan <")
    assert apply(PASS, parse(scan, WEIGHTS)).rewritten == []


def test_dead_nodes_of_the_body_do_not_keep_an_input() -> None:
    model = parse(
        LOOP.format(outputs="float[2] y", body="on = Identity(go)  t = Mul(s, w)  u = Exp(k)  d = Neg(k)  f = Abs(d)", more=""), WEIGHTS
    )  # fmt: skip
    outcome = assert_exact_after(PASS, model)
    assert sorted(op_types(outcome.model)) == ["Identity", "Loop", "Mul"]
    kept = {value.name for node in outcome.model.graph for body in bodies(node) for value in body.inputs}
    assert kept == {"i", "go", "s"}


def test_from_the_inside_out() -> None:
    """What an inner loop needs is found only after the inner one was changed."""
    model = parse(
        """g (bool c, float[2] x, float[2] v) => (float[2] y) { y, z = Loop (n, yes, x, v) <
        body = l (int64 i, bool go, float[2] s, float[2] k) => (bool on, float[2] t, float[2] u) { on = Identity(go)  u = Exp(k)
        t, d = If (c) <then_branch = a () => (float[2] p, float[2] p2) { p = Mul(s, w)  p2 = Neg(k) }, else_branch = e () => (float[2] q, float[2] q2) { q = Neg(s)  q2 = Abs(k) }> }> }""",
        WEIGHTS,
    )
    outcome = assert_exact_after(PASS, model)
    assert sorted(op_types(outcome.model)) == ["Identity", "If", "Loop", "Mul", "Neg"]


def test_weights_of_the_body_go_with_what_used_them() -> None:
    model = parse(
        LOOP.format(outputs="float[2] y", body="on = Identity(go)  t = Mul(s, w)  big = Constant<value_floats=[1.0, 2.0]>()  u = Add(k, big)", more=""), WEIGHTS
    )  # fmt: skip
    outcome = assert_exact_after(PASS, model)
    (loop,) = outcome.model.graph
    assert isinstance(loop, ir.Node) and [len(body.initializers) for body in bodies(loop)] == [0]


def test_a_captured_value_is_released() -> None:
    model = parse(REWRITES["If, last output, with what was captured"][0], WEIGHTS)
    after = apply(PASS, model).model
    assert "w" not in after.graph.initializers and [node.op_type for node in after.graph] == ["If"]
