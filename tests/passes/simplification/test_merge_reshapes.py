"""merge-reshapes: the same elements in the same order, grouped once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from exactness_kit import assert_exact_after, assert_identical, constants, initializer_names, special_feed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pass_kit import apply, assert_promises, assert_untouched, op_types, parse, run, text

from irc.passes.simplification import MergeReshapes
from irc.passes.simplification.node_size import NODE_WORTH

PASS = MergeReshapes()
SIZES = ({"n": 2, "m": 3, "k": 5, "?": 4}, {"n": 1, "m": 1, "k": 1, "?": 1})
EMPTY = {"n": 0, "m": 0, "k": 0, "?": 0}


def _chain(type_: str, *operators: str, opset: int = 17, **weights: object) -> ir.Model:
    """Operators in a row behind an Abs; `_` stands for what comes before."""
    lines = ["v0 = Abs(x)"]
    for i, operator in enumerate(operators):
        lines.append(f"v{i + 1} = {operator.replace('_', f'v{i}')}")
    return parse(
        f"g ({type_} x) => (float y) {{ {'  '.join(lines)}  y = Neg(v{len(operators)}) }}",
        constants(**weights),
        opset=opset,
    )


# what it becomes between Abs and Neg, the chain
MERGED = {
    "reshape, reshape": ("Reshape", _chain("float[n,4]", "Reshape(_, s)", "Reshape(_, t)", s=[2, -1], t=[-1, 2, 2])),
    "reshape, reshape copying a number": ("Reshape", _chain("float[n,4]", "Reshape(_, s)", "Reshape(_, t)", s=[2, -1], t=[0, -1, 1])),
    "reshape, reshape copying what was copied": ("Reshape", _chain("float[n,m,4]", "Reshape(_, s)", "Reshape(_, t)", s=[0, -1], t=[0, 2, -1])),
    "reshape, reshape copying a product": ("Reshape", _chain("float[n,m,4]", "Reshape(_, s)", "Reshape(_, t)", s=[-1, 4], t=[0, 2, 2])),
    "flatten, reshape": ("Reshape", _chain("float[n,3,4]", "Flatten(_)", "Reshape(_, t)", t=[-1, 2, 6])),
    "squeeze, reshape": ("Reshape", _chain("float[n,1,4]", "Squeeze(_, a)", "Reshape(_, t)", a=[1], t=[2, -1])),
    "unsqueeze, flatten": ("Reshape", _chain("float[n,3,4]", "Unsqueeze(_, a)", "Flatten<axis=2>(_)", a=[0])),
    "reshape, flatten": ("Reshape", _chain("float[n,3,4]", "Reshape(_, s)", "Flatten(_)", s=[-1, 2, 2])),
    "squeeze, unsqueeze elsewhere": ("Reshape", _chain("float[n,1,4]", "Squeeze(_, a)", "Unsqueeze(_, b)", a=[1], b=[2])),
    "squeeze, squeeze": ("Squeeze", _chain("float[n,1,m,1,1]", "Squeeze(_, a)", "Squeeze(_, b)", a=[1], b=[3, -2])),
    "unsqueeze, unsqueeze": ("Unsqueeze", _chain("float[n,m]", "Unsqueeze(_, a)", "Unsqueeze(_, b)", a=[1], b=[2])),
    "unsqueeze, unsqueeze before it": ("Unsqueeze", _chain("float[n,m]", "Unsqueeze(_, a)", "Unsqueeze(_, b)", a=[0], b=[0, 2])),
    "unsqueeze, unsqueeze from behind": ("Unsqueeze", _chain("float[n,m]", "Unsqueeze(_, a)", "Unsqueeze(_, b)", a=[-2], b=[-1, 0])),
    "unsqueeze by attributes": ("Unsqueeze", _chain("float[n,m]", "Unsqueeze<axes=[1]>(_)", "Unsqueeze<axes=[0,4]>(_)", opset=12)),
    "three unsqueezes": ("Unsqueeze", _chain("float[n,m]", *["Unsqueeze(_, a)"] * 3, a=[0])),
    "unsqueeze, squeeze": ("", _chain("float[n,?]", "Unsqueeze(_, a)", "Squeeze(_, a)", a=[-1, 1])),
    "unsqueeze, squeeze, written otherwise": ("", _chain("float[n,?]", "Unsqueeze(_, a)", "Squeeze(_, b)", a=[-1], b=[2])),
    "squeeze, unsqueeze": ("", _chain("float[n,1,?]", "Squeeze(_, a)", "Unsqueeze(_, a)", a=[1])),
    "there and back": ("", _chain("float[n,3,4]", "Reshape(_, s)", "Reshape(_, t)", s=[-1, 12], t=[-1, 3, 4])),
    "there and back by flatten": ("", _chain("float[3,4]", "Reshape(_, s)", "Flatten<axis=1>(_)", s=[3, 4, 1])),
    "four": ("Reshape", _chain("float[n,3,4]", "Reshape(_, s)", "Flatten(_)", "Unsqueeze(_, a)", "Reshape(_, t)", s=[-1, 2, 6], a=[0], t=[-1, 4])),
}  # fmt: skip


@pytest.mark.parametrize("case", MERGED)
def test_merges(case: str) -> None:
    left, model = MERGED[case]
    outcome = assert_exact_after(PASS, model, sizes=SIZES)
    assert op_types(outcome.model) == ["Abs", *([left] if left else []), "Neg"]
    assert len(initializer_names(outcome.model)) == (1 if left and model.graph.opset_imports[""] > 12 else 0)


@pytest.mark.parametrize("case", MERGED)
def test_where_empty_tensors_ran_they_still_run(case: str) -> None:
    model = MERGED[case][1]
    feed = special_feed(model, EMPTY)
    try:
        expected = run(model, feed)
    except Exception:  # 0 with -1 is an error of the runtime
        return
    assert_identical(run(apply(PASS, model).model, feed)[0], expected[0])


LEFT = {
    "copies what a number does not tell": (_chain("float[n,4]", "Reshape(_, s)", "Reshape(_, t)", s=[4, -1], t=[2, 2, 0]), "numbers"),
    "two symbols move": (_chain("float[n,m,1]", "Squeeze(_, a)", "Unsqueeze(_, b)", a=[2], b=[0]), "numbers"),
    "allowzero": (_chain("float[0,4]", "Reshape<allowzero=1>(_, s)", "Reshape<allowzero=1>(_, t)", s=[4, 0], t=[0, 2]), "numbers"),
    "axes that may be anywhere": (_chain("float[n]", "custom.Op(_)", "Unsqueeze(_, a)", "Squeeze(_, b)", a=[0], b=[-1]), "numbers"),
    "opset 4": (_chain("float[n,4]", "Reshape<shape=[2,-1]>(_)", "Reshape<shape=[-1]>(_)", opset=4), "opset 5"),
    "another domain": (_chain("float[n,4]", "custom.Flatten(_)", "Flatten(_)"), None),
    "something in between": (_chain("float[n,4]", "Flatten<axis=0>(_)", "Relu(_)", "Flatten<axis=0>(_)"), None),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_leaves(case: str) -> None:
    model, reason = LEFT[case]
    skipped = assert_untouched(PASS, model)
    assert skipped == {} if reason is None else reason in next(iter(skipped.values()))


def test_a_shape_that_callers_may_override_stays() -> None:
    model = parse(
        "g (float[4] x, int64[2] s) => (float y) { a = Unsqueeze(x, z)  y = Reshape(a, s) }", constants(z=[0], s=[2, 2])
    )
    assert "numbers" in assert_untouched(PASS, model)["y"]


def test_what_an_output_declares_is_not_believed() -> None:
    # Exporters and users write what they want; runtimes only warn.
    model = parse(
        "g (float[2,3] x, int64[2] s) => (float[2,3] y) { a = Unsqueeze(x, z)  y = Reshape(a, s) }", constants(z=[0])
    )
    assert "numbers" in assert_untouched(PASS, model)["y"]


def test_what_is_between_may_be_used_by_others_only_if_the_pair_is_inverse() -> None:
    source = "g (float[n,3] x) => (float y, float z{out}) {{ a = Unsqueeze(x, one)  b = {op}  y = Neg(b)  z = {z} }}"
    for out, z in (("", "Exp(a)"), (", float a", "Exp(x)")):
        outcome = assert_exact_after(PASS, parse(source.format(op="Squeeze(a, one)", out=out, z=z), constants(one=[1])))
        assert op_types(outcome.model) == ["Unsqueeze", "Neg", "Exp"]
        model = parse(source.format(op="Unsqueeze(a, one)", out=out, z=z), constants(one=[1]))
        assert "other users" in assert_untouched(PASS, model)["b"]


def test_shared_axes_stay_for_others_and_are_not_stored_twice() -> None:
    model = parse(
        "g (float[n,4] x, float[n,4] z) => (float y, float u) { a = Unsqueeze(x, s)  y = Reshape(a, t)  b = Flatten(z)  c = Unsqueeze(z, s)  u = Reshape(c, t) }",
        constants(s=[1], t=[-1, 2]),
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Reshape", "Flatten", "Reshape"] and initializer_names(outcome.model) == ["t"]


def test_a_shape_that_would_outgrow_the_model_is_not_stored() -> None:
    model = parse(
        "g (float[3,1,4,5,6,7,2,2] x) => (float z, float u) { a = Squeeze(x, s)  z = Unsqueeze(a, t)  u = Squeeze(x, s) }",
        constants(s=[1], t=[2]),
        opset=17,
    )
    for node in model.graph:
        node.name = ""
    outcome = apply(PASS, model)
    assert_promises(PASS, model, outcome)
    assert len(text(outcome.model)) <= len(text(model)) + NODE_WORTH


def test_bodies() -> None:
    model = parse(
        """g (bool c, float[n,4] x) => (float y) { a = Unsqueeze(x, one)  y = If (c) <
        then_branch = t () => (float[n,4] p) { p = Squeeze(a, one) },
        else_branch = e () => (float[n,4] q) { b = Reshape(x, s)  q = Reshape(b, r) }> }""",
        constants(one=[1], s=[2, -1], r=[-1, 4]),
    )
    outcome = assert_exact_after(PASS, model, sizes=SIZES[:1])
    assert op_types(outcome.model) == ["If", "Identity", "Identity"] and initializer_names(outcome.model) == []


def test_between_input_and_output_an_identity_stays() -> None:
    model = parse(
        "g (float[n,4] x) => (float[n,4] y) { a = Unsqueeze(x, one)  y = Squeeze(a, one) }", constants(one=[1])
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Identity"]


@st.composite
def _chains(draw: st.DrawFn) -> tuple[str, list[str], dict[str, list[int]]]:
    """A random type and operators that fit it, sizes known to the test and not all to the model."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4))
    known = [draw(st.booleans()) for _ in shape]
    type_ = f"float[{','.join(str(d) if k else 'nmkj'[i] for i, (d, k) in enumerate(zip(shape, known, strict=True)))}]"
    sizes = {"nmkj"[i]: d for i, d in enumerate(shape)}
    operators, weights = [], {}
    for i in range(draw(st.integers(2, 4))):
        kind = draw(st.sampled_from(["Reshape", "Flatten", "Squeeze", "Unsqueeze"]))
        rank = len(shape)
        if kind == "Flatten":
            axis = draw(st.integers(-rank, rank))
            cut = axis + rank if axis < 0 else axis
            operators.append(f"Flatten<axis={axis}>(_)")
            shape = [int(np.prod(shape[:cut])), int(np.prod(shape[cut:]))]
            continue
        if kind == "Squeeze":
            ones = [a for a, d in enumerate(shape) if d == 1]
            if not ones:
                continue
            axes = draw(st.lists(st.sampled_from(ones), min_size=1, unique=True))
            shape = [d for a, d in enumerate(shape) if a not in axes]
            weights[f"c{i}"] = [a - rank if draw(st.booleans()) else a for a in axes]
        elif kind == "Unsqueeze":
            new = rank + draw(st.integers(1, 2))
            axes = draw(st.lists(st.integers(0, new - 1), min_size=new - rank, max_size=new - rank, unique=True))
            rest = iter(shape)
            shape = [1 if a in axes else next(rest) for a in range(new)]
            weights[f"c{i}"] = [a - new if draw(st.booleans()) else a for a in axes]
        else:
            total = int(np.prod(shape))
            first = draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
            target = [first, total // first]
            asked = list(target)
            if rank and shape[0] == first and draw(st.booleans()):
                asked[0] = 0
            if draw(st.booleans()):
                asked[1] = -1
            shape, weights[f"c{i}"] = target, asked
        operators.append(f"{kind}(_, c{i})")
    return type_, operators, {"sizes": sizes, **weights}


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(_chains())
def test_random_chains(chain: tuple[str, list[str], dict]) -> None:
    type_, operators, weights = chain
    sizes = weights.pop("sizes")
    model = _chain(
        type_, *operators, **{name: w for name, w in weights.items() if any(f"{name})" in o for o in operators)}
    )
    assert_exact_after(PASS, model, sizes=(sizes,))
