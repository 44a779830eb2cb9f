"""Zeros in weights: how many, where a pattern wants them, what they do to outputs on samples nobody saw, and where the pass keeps away."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irc
import irc.ir
from irc.application import apply_pass
from irc.calibration import open_data
from irc.decisions import Decisions
from irc.errors import UsageError
from irc.ir import check, interface, snapshot
from irc.pass_base import Context
from irc.passes.pruning.sparsity import sparse_layer
from irc.passes.pruning.sparsity.masked_least_squares import MaskedLeastSquares
from irc.passes.pruning.sparsity.sparse_layer import Goal, SparseLayer
from irc.passes.pruning.sparsity.sparse_mask import InputOrder, Pattern, best
from irc.passes.pruning.sparsity.sparse_shares import zeros_by_site
from irc.passes.pruning.sparsity.sparsify import Sparsify
from irc.passes.quantization.layer_sample import LayerRows
from irc.passes.quantization.quantize_weights import QuantizeWeights
from irc.pipeline import Step
from irc.runner import Runner
from irc.selection import Selection
from irc.testing import assert_conforms

TEXT = """t (float[N,S,32] x) => (float[N,S,24] y) {
  h = MatMul(x, w1)
  hb = Add(h, b1)
  a = Relu(hb)
  y = MatMul(a, w2)
}"""
TEXT_WEIGHTS = {"w1": (32, 48), "b1": (48,), "w2": (48, 24)}
IMAGE = """i (float[N,8,10,10] x) => (float[N,12] y) {
  c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1], strides=[2,2], group=2>(r1, w2, b2)
  r2 = Relu(c2)
  g = GlobalAveragePool(r2)
  f = Flatten(g)
  y = Gemm<transB=1, alpha=0.5>(f, w4, b4)
}"""
IMAGE_WEIGHTS = {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (16, 8, 3, 3), "b2": (16,), "w4": (12, 16), "b4": (12,)}
PRODUCT = "p (float[N,32] x) => (float[N,40] y) { y = MatMul(x, w) }"


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as started:
        yield started


def text() -> ir.Model:
    return pass_kit.parse(TEXT, TEXT_WEIGHTS)


def image() -> ir.Model:
    return pass_kit.parse(IMAGE, IMAGE_WEIGHTS)


def product(text: str = PRODUCT, **weights) -> ir.Model:
    return pass_kit.parse(text, weights or {"w": (32, 40)})


def correlated(model: ir.Model, count: int = 16) -> list[pass_kit.Feed]:
    """Samples whose channels are mixtures of a few, and have means."""
    value = model.graph.inputs[0]
    axis = 1 if len(value.shape) == 4 else len(value.shape) - 1
    channels = value.shape[axis]
    mixing = np.random.default_rng(5).normal(size=(6, channels))
    feeds = []
    for seed in range(count):
        generator = np.random.default_rng(seed)
        shape = [d if isinstance(d, int) else 40 // len(value.shape) for d in value.shape]
        few = generator.normal(size=[*shape[:axis], 6, *shape[axis + 1 :]])
        mixed = np.moveaxis(np.tensordot(few, mixing, (axis, 0)), -1, axis)
        feeds.append({value.name: (mixed + 0.1 * generator.normal(size=shape) + 0.5).astype(np.float32)})
    return feeds


def applied(pass_, model, runner=None, *, feeds=None, decisions=None, **context):
    copy = snapshot(model)
    data = open_data(correlated(model) if feeds is None else feeds, model) if runner is not None else None
    ctx = Context(runner=runner, data=data, decisions=decisions or Decisions(), **context)
    record = apply_pass(Step(pass_), copy, ctx).record
    check(copy)
    assert interface(model).difference(interface(copy)) is None
    return pass_kit.Outcome(copy, record)


def remarks(outcome) -> dict[str, str]:
    return {entry.site: entry.reason for entry in outcome.record.rewritten}


def zeros(model: ir.Model, name: str) -> int:
    array = pass_kit.weight(model, name)
    return array.size - np.count_nonzero(array)


def noise(before: ir.Model, after: ir.Model) -> float:
    """Relative error energy on samples that nobody saw."""
    feed = correlated(before, 40)[-1]
    exact, found = (pass_kit.run(m, feed)[0] for m in (before, after))
    return float(np.square(found - exact).sum() / np.square(exact - exact.mean(axis=0)).sum())


# -- how many, and where ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_more_than_n_of_m_inputs_stay_whatever_the_shape(data):
    kind = data.draw(st.sampled_from(["Conv", "Gemm", "GemmT", "MatMul", "Stack"]))
    width = data.draw(st.integers(2, 8))
    kept = data.draw(st.integers(1, width - 1))
    inputs, outputs = data.draw(st.integers(width, 21)), data.draw(st.integers(1, 6))
    text, shape, axis = {
        "Conv": (f"c (float[1,{2 * inputs},5,5] x) => (float y) {{ y = Conv<group=2>(x, w) }}", (2 * outputs, inputs, 3, 2), 1),
        "Gemm": (f"c (float[3,{inputs}] x) => (float y) {{ y = Gemm(x, w) }}", (inputs, outputs), 0),
        "GemmT": (f"c (float[3,{inputs}] x) => (float y) {{ y = Gemm<transB=1>(x, w) }}", (outputs, inputs), 1),
        "MatMul": (f"c (float[3,{inputs}] x) => (float y) {{ y = MatMul(x, w) }}", (inputs, outputs), 0),
        "Stack": (f"c (float[2,3,{inputs}] x) => (float y) {{ y = MatMul(x, w) }}", (2, inputs, outputs), 1),
    }[kind]  # fmt: skip
    model = pass_kit.parse(text, {"w": shape})
    before = pass_kit.weight(model, "w")
    after = pass_kit.weight(pass_kit.apply(Sparsify(pattern=f"{kept}:{width}", minimum=1), model).model, "w")
    assert after.shape == before.shape and (after[after != 0] == before[after != 0]).all()
    lanes = np.moveaxis(after, axis, -1).reshape(-1, inputs)
    for start in range(0, inputs, width):
        # The best N of each group, and all of them where there are no more.
        group, whole = (
            lanes[:, start : start + width],
            np.moveaxis(before, axis, -1).reshape(-1, inputs)[:, start : start + width],
        )
        assert (np.count_nonzero(group, axis=1) == min(kept, whole.shape[1])).all()
        largest = np.sort(np.abs(whole), axis=1)[:, -min(kept, whole.shape[1]) :]
        np.testing.assert_array_equal(np.sort(np.abs(group), axis=1)[:, -largest.shape[1] :], largest)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.floats(0.01, 0.99), st.integers(0, 3))
def test_as_many_zeros_as_asked_for_also_among_equals(size, share, levels):
    generator = np.random.default_rng(size)
    scores = generator.integers(0, 10**levels + 1, size).astype(float)
    count = round(share * size)
    kept = best(scores, count)
    assert (~kept).sum() == count
    assert not count or count == size or scores[~kept].max() <= scores[kept].min()


@pytest.mark.parametrize("share", [0.01, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "obs"])
def test_the_share_is_exact_in_every_layer(share, criterion, runner):
    outcome = applied(Sparsify(sparsity=share, criterion=criterion, minimum=1), image(), runner)
    for name, shape in IMAGE_WEIGHTS.items():
        size = int(np.prod(shape))
        assert zeros(outcome.model, name) == (round(share * size) if name.startswith("w") else 0)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.02, 0.98), st.integers(0, 1000))
def test_layers_that_compete_share_out_as_many_zeros_as_asked_for(share, seed):
    generator = np.random.default_rng(seed)
    scores = {
        name: np.abs(generator.normal(size=size)) ** 2 * 10.0**size for name, size in {"a": 30, "b": 7, "c": 11}.items()
    }
    scores["c"][:4] = 0
    counts = zeros_by_site(scores, share)
    assert sum(counts.values()) == round(share * 48) and all(0 <= counts[name] <= len(scores[name]) for name in counts)
    units = {name: array / np.sqrt(np.square(array).mean()) for name, array in scores.items()}
    gone = [u for name, array in units.items() for u in np.sort(array)[: counts[name]]]
    left = [u for name, array in units.items() for u in np.sort(array)[counts[name] :]]
    assert not gone or not left or max(gone) <= min(left) * (1 + 2**-6)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "obs"])
def test_a_global_share_is_met_by_all_layers_together(criterion, runner):
    model = pass_kit.parse(
        TEXT, {"b1": (48,), "w2": (48, 24), "w1": np.random.default_rng(0).standard_t(1.2, (32, 48)).astype("f")}
    )
    outcome = applied(Sparsify(sparsity=0.6, scope="global", criterion=criterion), model, runner)
    counts = zeros(outcome.model, "w1"), zeros(outcome.model, "w2")
    assert sum(counts) == round(0.6 * (32 * 48 + 48 * 24))
    # Long tails: most weights of the first layer are small in its units.
    assert counts[0] / (32 * 48) > counts[1] / (48 * 24) + 0.1
    again = applied(Sparsify(sparsity=0.6, scope="global", criterion=criterion), outcome.model, runner)
    assert again.rewritten == [] and all("and enough of all" in reason for reason in again.skipped.values())


def test_zeros_stay_zero_and_count(runner):
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(32, 40)).astype(np.float32)
    gone = generator.random(weight.shape) < 0.3
    weight[gone] = 0
    for options in ({"sparsity": 0.5}, {"pattern": "2:4"}):
        after = pass_kit.weight(applied(Sparsify(**options), product(w=weight), runner).model, "w")
        assert not after[gone].any()
        assert options.get("pattern") or np.count_nonzero(after) == 640


# -- what it does to outputs ------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["0.3", "0.5", "0.8", "2:4", "1:3"]), st.booleans())
def test_obs_is_never_worse_than_magnitude_on_held_out_rows(seed, goal, biased):
    generator = np.random.default_rng(seed)
    groups, inputs, outputs = (
        int(generator.integers(1, 4)),
        int(generator.integers(4, 24)),
        int(generator.integers(1, 9)),
    )
    mixing = generator.normal(size=(groups, inputs, inputs)) * generator.exponential(size=(groups, inputs, 1))
    rows = LayerRows(*((generator.normal(size=(groups, n, inputs)) @ mixing + 0.3).astype("f") for n in (60, 50)))
    weight = generator.normal(size=(groups, outputs, inputs)).astype(np.float32)
    pattern = Pattern.of(goal) if ":" in goal else None
    wanted = Goal(0 if pattern else round(float(goal) * weight.size), pattern)
    layer = SparseLayer(weight, rows, InputOrder.of(inputs, 1, pattern), biased=biased)
    obs, plain = layer.sparse(wanted, "obs"), layer.sparse(wanted, "magnitude")
    assert obs.error <= plain.error
    assert (obs.weight == 0).sum() == (plain.weight == 0).sum()


@pytest.mark.parametrize("model", [text, image], ids=["text", "image"])
@pytest.mark.parametrize("options", [{"sparsity": 0.5}, {"sparsity": 0.7}, {"pattern": "2:4"}], ids=str)
def test_weights_that_stay_make_up_for_those_that_go(model, options, runner):
    model = model()
    outcomes = {
        c: applied(Sparsify(criterion=c, minimum=1, **options), model, runner) for c in ("magnitude", "wanda", "obs")
    }
    errors = {name: noise(model, outcome.model) for name, outcome in outcomes.items()}
    assert errors["obs"] < 0.5 * min(errors["magnitude"], errors["wanda"]), errors
    assert all(" on held-out samples, " in text for text in remarks(outcomes["obs"]).values())
    assert noise(model, applied(Sparsify(minimum=1, **options), model, runner).model) == errors["obs"]


def test_steps_are_better_than_one_and_than_blocks(runner, monkeypatch):
    model = image()
    steps = noise(model, applied(Sparsify(sparsity=0.6, minimum=1), model, runner).model)
    monkeypatch.setattr(sparse_layer, "MOST_WORK", 0)
    outcome = applied(Sparsify(sparsity=0.6, minimum=1), model, runner)
    assert zeros(outcome.model, "w2") == round(0.6 * 16 * 8 * 9)
    blocks = noise(model, outcome.model)
    plain = noise(model, applied(Sparsify(sparsity=0.6, minimum=1, criterion="magnitude"), model, runner).model)
    assert steps < blocks < 0.5 * plain


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_what_stays_solves_the_normal_equations_of_its_row(seed):
    generator = np.random.default_rng(seed)
    inputs, outputs = int(generator.integers(2, 14)), int(generator.integers(1, 6))
    rows = generator.normal(size=(3 * inputs, inputs))
    gram, scale = rows.T @ rows, 10.0 ** generator.integers(-12, 12)
    weight = (generator.normal(size=(1, outputs, inputs)) * scale).astype(np.float32)
    kept = generator.random(weight.shape) < 0.6
    found = MaskedLeastSquares(weight, gram[None] * 1e4, 0.01).adapted(kept, iterations=200)
    damped = gram + 0.01 * np.diagonal(gram).mean() * np.eye(inputs)
    assert not found[~kept].any()
    for row, mask, values in zip(weight[0], kept[0], found[0], strict=True):
        exact = np.linalg.lstsq(damped[np.ix_(mask, mask)], damped[mask] @ row, rcond=None)[0]
        np.testing.assert_allclose(values[mask], exact, atol=2e-3 * np.abs(row).max(), rtol=0)


def test_the_bias_takes_over_the_mean(runner):
    model = product("p (float[N,32] x) => (float[N,40] y) { h = MatMul(x, w) y = Add(b, h) }", w=(32, 40), b=(40,))
    feeds = [{"x": feed["x"] + 3} for feed in correlated(model)]
    outcome = applied(Sparsify(sparsity=0.8), model, runner, feeds=feeds)
    assert (pass_kit.weight(outcome.model, "b") != pass_kit.weight(model, "b")).all()
    exact, found = (pass_kit.run(m, feeds[0])[0] for m in (model, outcome.model))
    spread = exact.std(axis=0).mean()
    assert np.abs((found - exact).mean(axis=0)).mean() < 0.3 * spread
    for criterion in ("magnitude", "wanda"):
        plain = applied(Sparsify(sparsity=0.8, criterion=criterion), model, runner, feeds=feeds).model
        np.testing.assert_array_equal(pass_kit.weight(plain, "b"), pass_kit.weight(model, "b"))


@pytest.mark.parametrize("attributes", ["alpha=0.5, beta=2.0", "beta=0.0", "transA=1", "alpha=-1.5, transB=1"])
def test_every_gemm(attributes, runner):
    turned = "transA" in attributes
    text = f"g (float[{'32,20' if turned else '20,32'}] x) => (float[20,40] y) {{ y = Gemm<{attributes}>(x, w, b) }}"
    model = product(text, w=(40, 32) if "transB" in attributes else (32, 40), b=(40,))
    feeds = [
        {"x": np.random.default_rng(n).normal(1, 1, (32, 20) if turned else (20, 32)).astype("f")} for n in range(12)
    ]
    dense = [{"x": f["x"] @ np.eye(20, dtype="f") if turned else f["x"]} for f in feeds]
    outcome = applied(Sparsify(sparsity=0.5), model, runner, feeds=dense)
    plain = applied(Sparsify(sparsity=0.5, criterion="magnitude"), model, runner, feeds=dense).model
    differences = [
        np.concatenate([np.subtract(*(pass_kit.run(m, feed)[0] for m in (after, model))) for feed in dense])
        for after in (outcome.model, plain)
    ]
    errors = [np.sqrt(np.square(difference).mean()) for difference in differences]
    assert outcome.rewritten == ["y"] and errors[0] < errors[1]
    moved = bool((pass_kit.weight(outcome.model, "b") != pass_kit.weight(model, "b")).any())
    assert moved == ("beta=0.0" not in attributes)
    # The shift has the scale of alpha and beta: what it leaves of the mean is sampling noise.
    assert not moved or np.sqrt(np.square(differences[0].mean(axis=0)).mean()) < 0.3 * errors[0]


# -- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [text, image], ids=["text", "image"])
@pytest.mark.parametrize(
    "options",
    [{}, {"pattern": "2:4"}, {"criterion": "wanda"}, {"criterion": "magnitude"}, {"scope": "global"}],
    ids=str,
)
def test_it_replays_without_data_and_finds_nothing_more(model, options, runner):
    model, pass_ = model(), Sparsify(minimum=100, **options)
    decisions = Decisions()
    outcome = applied(pass_, model, runner, decisions=decisions)
    assert len(outcome.rewritten) >= 2
    replayed = applied(pass_, model, decisions=Decisions(planned=decisions.kept))
    assert pass_kit.text(replayed.model) == pass_kit.text(outcome.model) and remarks(replayed) == remarks(outcome)
    again = applied(pass_, outcome.model, runner)
    assert again.rewritten == [] and pass_kit.text(again.model) == pass_kit.text(outcome.model)
    assert all("already" in reason for site, reason in again.skipped.items() if site in outcome.rewritten)
    # What stays is kept once, with a bit per weight.
    size = sum(pass_kit.weight(model, name).size for name in ("w1", "w2"))
    raw = sum(
        np.asarray(v).nbytes
        for key in decisions
        for v in decisions.remember(key, dict).values()
        if isinstance(v, np.ndarray)
    )
    assert raw <= size * (4 * 0.6 + 1 / 8) + 4 * 100


def test_a_plan_replays_from_a_file(tmp_path):
    model = text()
    path = tmp_path / "model.onnx"
    irc.ir.save(model, path)
    options = {"measure": False, "cache": False, "passes": "sparsify{sparsity=0.6}"}
    report = irc.optimize(path, data=correlated(model), output=tmp_path / "a.onnx", **options)
    irc.optimize(path, plan=report.output.with_suffix(".plan.yaml"), output=tmp_path / "b.onnx", measure=False)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_an_edited_weight_is_decided_again(runner):
    decisions, pass_ = Decisions(), Sparsify()
    applied(pass_, product(), runner, decisions=decisions)
    other = product(w=np.random.default_rng(9).normal(size=(32, 40)).astype("f"))
    outcome = applied(pass_, other, runner, decisions=decisions)
    assert len(list(decisions)) == 2
    fresh = applied(pass_, other, runner)
    assert pass_kit.text(outcome.model) == pass_kit.text(fresh.model)
    with pytest.raises(UsageError, match="the plan has no decision"):
        pass_kit.text(applied(pass_, other, decisions=Decisions(planned={})).model)


def test_errors_rank_the_sites(runner):
    decisions, model, pass_ = Decisions(), text(), Sparsify(sparsity=0.7, minimum=1)
    outcome = applied(pass_, model, runner, decisions=decisions)
    errors = pass_.site_errors(model, outcome.model, outcome.rewritten, Context(decisions=decisions))
    assert set(errors) == {"h", "y"}
    for site, error in errors.items():
        assert f"output error {error:.3%} on held-out samples" in remarks(outcome)[site]


def test_sites_go_back_under_a_budget(tmp_path):
    path = tmp_path / "model.onnx"
    irc.ir.save(text(), path)
    report = irc.optimize(
        path,
        data=correlated(text()),
        passes="sparsify{sparsity=0.8,minimum=1}",
        max_drop="0.0001%",
        measure=False,
        cache=False,
        output=tmp_path / "o.onnx",
    )
    assert report.ledger["sparsify"].undone


# -- where it keeps away ----------------------------------------------------------------------------------------------

BODY = """b (bool c, float[4,32] x) => (float[4,40] y) {
  y = If<then_branch = t () => (float[4,40] u) { u = MatMul(x, w) }, else_branch = e () => (float[4,40] v) { v = MatMul(x, z) }>(c)
}"""
BOTH = """b (bool c, float[4,32] x) => (float[4,40] y, float[4,40] z) {
  z = MatMul(x, w)
  y = If<then_branch = t () => (float[4,40] u) { u = MatMul(x, w) }, else_branch = e () => (float[4,40] v) { v = Neg(z) }>(c)
}"""


@pytest.mark.parametrize(
    ("model", "site", "reason"),
    [
        (product("p (float[N,32] x) => (float[N,40] y, float[32,40] w) { y = MatMul(x, w) }"), "y", "its weight is an output"),
        (product("p (float[N,32] x, float[32,40] w) => (float[N,40] y) { y = MatMul(x, w) }"), None, None),
        (product("p (float[N,32] x, float[40,32] w) => (float[N,40] y) { y = Gemm<transB=1>(x, w) }", w=(40, 32)), "y", "not const"),
        (product("p (float[N,8] x) => (float[N,40] y) { y = MatMul(x, w) }", w=(8, 40)), "y", "320 elements, and the minimum is 1024"),
        (product(w=np.where(np.eye(32, 40) > 0, np.inf, 1).astype("f")), "y", "NaN or infinity"),
        (product(w=np.where(np.eye(32, 40) > 0, np.nan, 1).astype("f")), "y", "NaN or infinity"),
        (product("p (float[N,32] x) => (float[N,40] y, float[N,32,40] z) { y = MatMul(x, w) n = Unsqueeze(x, one) z = Mul(n, w) }",
                 w=(32, 40), one=np.array([2])), "y", "also used by Mul 'z'"),
        (product("p (float[N,32] x, int64[N] i) => (float[N,40] y, float[N,40] z) { y = MatMul(x, w) z = Gather(w, i) }"), "y", "Gather"),
        (product(BODY, w=(32, 40), z=(32, 40)), "u", "it is in a body"),
        (product(BOTH, w=(32, 40)), "z", "also used in a body"),
        (product("p (float[N,32] x, float[N,32] u) => (float[N,32] y, float[N,32] z) {"
                 " y = Gemm<transB=1>(x, w) z = MatMul(u, w) }", w=(32, 32)), "y", "the other way round"),
    ],
)  # fmt: skip
def test_reasons_to_leave_a_weight_alone(model, site, reason):
    skipped = pass_kit.assert_untouched(Sparsify(), model)
    assert reason is None or reason in skipped[site]


def test_too_few_inputs_for_a_pattern():
    text = "d (float[1,64,6,6] x) => (float y) { y = Conv<group=32>(x, w) }"
    skipped = pass_kit.assert_untouched(Sparsify(pattern="2:4"), product(text, w=(64, 2, 3, 3)))
    assert skipped == {"y": "it has 2 inputs, fewer than the 4 of the pattern"}


def test_what_is_quantized_stays():
    quantized = pass_kit.apply(QuantizeWeights(), product()).model
    assert pass_kit.assert_untouched(Sparsify(), quantized) == {"y": "its weight is already quantized"}


def test_a_layer_the_data_does_not_reach_goes_by_magnitude(runner):
    model = product("p (float[N,32] x) => (float[0,40] y) { n = Slice(x, from, to) y = MatMul(n, w) }",
                    w=(32, 40), **{"from": np.array([0]), "to": np.array([0])})  # fmt: skip
    outcome = applied(Sparsify(), model, runner)
    assert "by magnitude" in remarks(outcome)["y"] and zeros(outcome.model, "w") == 640


def test_weights_with_several_readers_are_decided_once_for_all(runner):
    shared = """s (float[N,32] x) => (float[N,32] y) {
      a = MatMul(x, w)
      b = Tanh(a)
      y = MatMul(b, w)
    }"""
    model = product(shared, w=(32, 32))
    outcome = applied(Sparsify(), model, runner)
    assert outcome.rewritten == ["a"] and outcome.skipped["y"] == "its weight is that of 'a', where it is decided"
    assert zeros(outcome.model, "w") == 512 and len(outcome.model.graph.initializers) == 1
    refused = applied_excluding("y", model)
    assert refused.rewritten == [] and "its weight is also that of 'y'" in refused.skipped["a"]
    assert applied_excluding("a", model).rewritten == []


def applied_excluding(site: str, model: ir.Model):
    copy = snapshot(model)
    record = apply_pass(Step(Sparsify(), Selection.of(exclude=[f"name:{site}"])), copy, Context()).record
    return pass_kit.Outcome(copy, record)


def test_a_tied_head_is_seen_through_its_transpose():
    text = "h (float[N,32] x) => (float[N,40] y) { t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }"
    outcome = applied(Sparsify(pattern="1:4"), product(text, w=(40, 32)))
    after = pass_kit.weight(outcome.model, "w")
    assert (np.count_nonzero(after.reshape(40, 8, 4), axis=2) == 1).all()


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_other_floats_keep_their_type(dtype, runner):
    kind = np.dtype(dtype).type
    weight = np.random.default_rng(0).normal(size=(32, 40)).astype(kind)
    model = product(f"p ({dtype}[N,32] x) => ({dtype}[N,40] y) {{ y = MatMul(x, w) }}", w=weight)
    plain = pass_kit.weight(applied(Sparsify(), model).model, "w")
    assert plain.dtype == kind and (plain[plain != 0] == weight[plain != 0]).all() and (plain == 0).sum() == 640
    feeds = [{"x": feed["x"].astype(kind)} for feed in correlated(model)]
    adapted = pass_kit.weight(applied(Sparsify(), model, runner, feeds=feeds).model, "w")
    assert (
        adapted.dtype == kind and (adapted == 0).sum() >= 640 and (adapted[adapted != 0] != weight[adapted != 0]).any()
    )


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "4:4"}, "write N:M with 0 < N < M"),
        ({"pattern": "2/4"}, "write N:M"),
        ({"pattern": "2:4", "sparsity": 0.5}, "exclude each other"),
        ({"pattern": "2:4", "scope": "global"}, "scope=global goes with sparsity"),
        ({"sparsity": 1.0}, "above 0 and below 1"),
        ({"sparsity": 0.0}, "above 0 and below 1"),
        ({"minimum": 0}, "at least 1"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Sparsify(**options)


@pytest.mark.parametrize("criterion", ["obs", "wanda"])
def test_criteria_that_need_data_say_so(criterion):
    with pytest.raises(UsageError, match="give --data"):
        list(Sparsify(criterion=criterion).sites(product(), Context()))


def test_it_conforms():
    models = {"text": text(), "image": image()}
    assert_conforms(Sparsify(sparsity=0.1, minimum=100), models, must_fire=True)
    assert_conforms(Sparsify(pattern="3:4", minimum=100), models, must_fire=True)
