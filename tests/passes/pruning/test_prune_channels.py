"""prune-channels: what goes, what stays and why, and that what is left runs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_feeds, random_weight, run
from pruning_models import attention, cnn, mlp, normalized

import irc.ir
from irc import PassManager, pipeline, targets
from irc.analysis.channels import ChannelGroups, propagate
from irc.analysis.channels.costs import ChannelCosts
from irc.application import apply_pass
from irc.channel_oracles import masked, relative_error
from irc.decisions import Decisions
from irc.errors import PassOptionError, UsageError
from irc.ir import interface, snapshot
from irc.ledger import PassRecord
from irc.pass_base import Context
from irc.passes.pruning.decision import Pruning
from irc.passes.pruning.prune_channels import PruneChannels
from irc.passes.pruning.survivors import surviving
from irc.pipeline import Step
from irc.selection import Selection
from irc.testing import assert_conforms
from irc.testing.integrity import model_bytes

HALF = PruneChannels(ratio=0.5)


def prune(
    pass_: PruneChannels, model: ir.Model, ctx: Context | None = None, selection: Selection | None = None
) -> tuple[ir.Model, PassRecord]:
    """The pass on a copy."""
    copy = snapshot(model)
    return copy, apply_pass(Step(pass_, selection or Selection()), copy, ctx or Context()).record


def shape(model: ir.Model, name: str) -> list[int]:
    """Of an initializer."""
    return list(array(model, name).shape)


def array(model: ir.Model, name: str) -> np.ndarray:
    """An initializer; the cut one of a small one that uses share has a name of its own."""
    found = model.graph.initializers
    value = found[name] if name in found else found[f"{name}_1"]
    assert value.const_value is not None
    return value.const_value.numpy()


def reached(model: ir.Model, small: ir.Model, what: str) -> float:
    """MACs or parameters of what is left, by analysis of it alone."""
    costs = [getattr(ChannelCosts(ChannelGroups(propagate(m), "rows")), what)() for m in (model, small)]
    return float(costs[1] / costs[0])


# -- promises -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"ratio": 0.4}, {"macs": 0.9}, {"ratio": 0.5, "scope": "global", "mode": "both"}])
def test_conforms(options):
    models = {"cnn": cnn(width=8), "attention": attention()}
    assert_conforms(PruneChannels(**options), models, must_fire=True, sharing="skip")


def test_conforms_where_values_are_shared():
    assert_conforms(HALF, {"mlp": mlp(4, 8, 8, 3)}, must_fire=True)


def test_the_interface_stays_and_other_batch_sizes_run():
    model = cnn()
    small, record = prune(PruneChannels(macs=0.5), model)
    assert record.rewritten and interface(model).difference(interface(small)) is None
    for feed in random_feeds(small, {"n": 1}, {"n": 7}):
        assert run(small, [feed])[0][0].shape == (len(feed["x"]), 5)


def test_what_is_left_is_the_model_without_what_went():
    model = attention()
    for mode in ("rows", "columns", "both"):
        pass_, ctx = PruneChannels(ratio=0.5, mode=mode), Context()
        small, record = prune(pass_, model, ctx)
        assert record.rewritten
        pruning = Pruning(model, pass_, ctx)
        kept = [(p.groups, p.family, pruning.kept(p)) for p in pruning.places if not pruning.decision(p)["why"]]
        zeroed = masked(pruning.propagation, surviving(pruning.propagation, kept))
        feeds = random_feeds(model, {"n": 3, "t": 5})
        (expected,), (found,) = run(zeroed, feeds), run(small, feeds)
        assert relative_error(expected, found) < 1e-5, mode


def test_two_applications_are_equal_bytes():
    first, second = (prune(PruneChannels(macs=0.6, scope="global"), cnn())[0] for _ in range(2))
    assert model_bytes(first) == model_bytes(second)


def test_shares_are_of_the_model_before_it_was_pruned_first():
    model = cnn()
    small, _ = prune(PruneChannels(macs=0.6), model)
    again = prune(PruneChannels(macs=0.6), small)[1]
    assert not again.rewritten and again.skipped[0].reason == "the model was pruned by these options before"
    easier = prune(PruneChannels(macs=0.8), small)[1]
    assert not easier.rewritten and easier.skipped[0].reason == "the budget is met as it is"
    smaller, record = prune(PruneChannels(macs=0.3), small)
    assert record.rewritten and reached(model, smaller, "macs") <= 0.3
    assert "of the original" in record.summary


def test_that_survives_a_file(tmp_path):
    small, _ = prune(HALF, cnn())
    irc.ir.save(small, tmp_path / "small.onnx")
    assert not prune(HALF, irc.ir.load(tmp_path / "small.onnx"))[1].rewritten


# -- how much ---------------------------------------------------------------------------------------------------------


def test_the_share_of_every_family_is_rounded_up():
    small, record = prune(PruneChannels(ratio=0.3), cnn())
    assert shape(small, "w0") == [17, 3, 3, 3] and shape(small, "w1") == [23, 17, 3, 3]
    assert shape(small, "w3") == [17, 1, 3, 3] and shape(small, "w4") == [5, 17]
    assert {entry.site: entry.reason.split(",")[0] for entry in record.rewritten} == {
        "a": "24 -> 17 channels",
        "c": "32 -> 23 channels",
    }


@pytest.mark.parametrize("what", ["macs", "parameters"])
@pytest.mark.parametrize("scope", ["family", "global", "isomorphic"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_budget_is_met_and_hardly_more(what, scope, share):
    model = cnn()
    small, record = prune(PruneChannels(**{what: share, "scope": scope}), model)
    assert share - 0.06 < reached(model, small, what) <= share
    said = record.summary.split("(")[1 if what == "macs" else 2].split()[0]
    assert float(said) == pytest.approx(reached(model, small, what), abs=1e-3)


def test_the_budget_counts_what_rounding_keeps():
    model, ctx = cnn(), Context(target=targets.parse("ort"))
    small, _ = prune(PruneChannels(macs=0.7), model, ctx)
    assert shape(small, "w0")[0] in (16, 24) and shape(small, "w1")[0] in (16, 32)
    assert reached(model, small, "macs") <= 0.7


def test_of_families_that_rounding_cuts_together_no_more_than_it_takes():
    """At a share of one half both inner convolutions go from 32 to 16; one is enough."""
    text = """agraph (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) {
        a = Conv(x, w0) b = Relu(a) c = Conv(b, w1) d = Relu(c) y = Conv(d, w2)
    }"""
    weights = {"w0": random_weight(32, 3, 1, 1), "w1": random_weight(32, 32, 1, 1), "w2": random_weight(4, 32, 1, 1)}
    ctx = Context(target=targets.parse("ort"))
    _small, record = prune(PruneChannels(macs=0.65), model_of(text, weights), ctx)
    assert len(record.rewritten) == 1
    _small, record = prune(PruneChannels(macs=0.4), model_of(text, weights), ctx)
    assert len(record.rewritten) == 2


def test_a_budget_out_of_reach_says_how_far_it_goes():
    with pytest.raises(UsageError, match=r"macs=0.01 cannot be reached, only 0\.\d+; ask for less"):
        prune(PruneChannels(macs=0.01), cnn())
    with pytest.raises(UsageError, match=r"parameters=0.5 cannot be reached, only 1;"):
        prune(PruneChannels(parameters=0.5), mlp(4, 3))


def test_only_what_helps_is_advised():
    with pytest.raises(UsageError, match="only 1; there is no family to cut"):
        prune(PruneChannels(macs=0.5), mlp(4, 3))
    with pytest.raises(UsageError, match=r"allow more: a larger largest_cut$"):
        prune(PruneChannels(macs=0.001, round_to=1), cnn())
    with pytest.raises(UsageError, match=r"allow more: statistics=true$"):
        prune(PruneChannels(macs=0.5, minimum=1000, round_to=1), normalized())


def test_where_no_family_may_be_cut_the_error_says_why():
    with pytest.raises(UsageError, match=r"only 1; no family may be cut: excluded by re:\.\*$"):
        prune(PruneChannels(macs=0.5, round_to=1, largest_cut=0.5), cnn(), selection=Selection.of(exclude=["re:.*"]))
    with pytest.raises(UsageError, match="no family may be cut: it is 24 wide, and the minimum is 1000"):
        prune(PruneChannels(macs=0.5, minimum=1000), cnn())


def test_where_no_axis_is_of_a_family_the_error_says_why():
    text = """agraph (float[n, 8] x, bool c) => (float[n, 2] y) {
        a = MatMul(x, w0)
        y = If (c) <then_branch = t () => (float[n, 2] o) { o = MatMul(a, w1) },
                    else_branch = e () => (float[n, 2] p) { p = MatMul(a, w2) }>
    }"""
    weights = {"w0": random_weight(8, 6), "w1": random_weight(6, 2), "w2": random_weight(6, 2, seed=1)}
    with pytest.raises(
        UsageError, match="there is no family to cut: 'a' is read by the body of a control flow operator"
    ):
        prune(PruneChannels(macs=0.5), model_of(text, weights))


def test_a_budget_missed_because_families_are_left_out_is_told():
    pass_ = PruneChannels(macs=0.6, round_to=1)
    model = cnn()
    manager = PassManager([pass_], verify=False, limits={"prune-channels": 1})
    limited = manager.run(model, Context()).ledger["prune-channels"]
    assert len(limited.rewritten) == 1
    assert limited.summary.endswith("above macs=0.6, which was asked for")
    assert "asked for" not in prune(pass_, model)[1].summary


def test_a_ratio_of_nothing_is_no_error():
    assert not prune(HALF, mlp(4, 3))[1].rewritten


def test_minimum_and_largest_cut_hold():
    small, _ = prune(PruneChannels(ratio=0.9, minimum=6), cnn())
    assert shape(small, "w0")[0] == 6 and shape(small, "w1")[0] == 6
    small, _ = prune(PruneChannels(macs=0.5, scope="global", largest_cut=0.4), cnn())
    assert shape(small, "w0")[0] >= 15 and shape(small, "w1")[0] >= 20
    reason = next(e.reason for e in prune(PruneChannels(ratio=0.5, minimum=24), cnn())[1].skipped if e.site == "a")
    assert reason == "it is 24 wide, and the minimum is 24"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "exactly one of ratio, macs, parameters, latency and loss, and has none"),
        ("ratio=0.5,macs=0.5", "has ratio, macs"),
        ("macs=1.5", "macs is 1.5"),
        ("ratio=0.95", "raise largest_cut"),
        ("ratio=0.5,minimum=0", "minimum is 0"),
        ("ratio=0.5,round_to=0", "round_to is 0"),
        ("ratio=0.5,round_to=some", "round_to"),
        ("ratio=0.5,criterion=l3", "criterion"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(PassOptionError, match=message):
        pipeline.parse(f"prune-channels{{{options}}}" if options else "prune-channels")


def test_options_are_read_from_text():
    text = "prune-channels{macs=0.5,scope=global,mode=both,round_to=8,allow_output=a+b}"
    (step,) = pipeline.parse(text)
    assert step.pass_ == PruneChannels(macs=0.5, scope="global", mode="both", round_to=8, allow_output=("a", "b"))
    assert step.text == text


# -- what stays and why -----------------------------------------------------------------------------------------------


def test_every_axis_left_has_a_reason():
    _small, record = prune(HALF, cnn())
    reasons = {entry.site: entry.reason for entry in record.skipped}
    assert "w0[1]" in reasons["w0[1]"] and "not channels" in reasons["w0[1]"]
    assert "output 'y'" in reasons["w4[0]"] and "b4[0]" in reasons["w4[0]"]
    left = " ".join(reasons.values())
    axes = {
        f"{pin.slot.name}[{pin.slot.axis_of[pin.slot.bundles[pin.bundle].axes[0]]}]"
        for pin in ChannelGroups(propagate(cnn()), "rows").pinned
    }
    assert all(axis in left or "kernel" in left for axis in axes)


def test_excluded_families_stay_and_the_others_meet_the_budget():
    model = cnn()
    small, record = prune(PruneChannels(macs=0.6), model, selection=Selection.of(exclude=["a"]))
    assert shape(small, "w0")[0] == 24 and reached(model, small, "macs") <= 0.6
    assert {e.site: e.reason for e in record.skipped}["a"] == "excluded by name:a"
    small, record = prune(PruneChannels(macs=0.6), model, selection=Selection.of(include=["a"]))
    assert shape(small, "w1")[0] == 32 and [entry.site for entry in record.rewritten] == ["a"]


def test_families_that_are_denied_stay_and_the_rest_is_as_decided():
    model, ctx = cnn(), Context()
    whole, _ = prune(HALF, model, ctx)
    copy = snapshot(model)
    applied = apply_pass(Step(HALF), copy, ctx, permit=lambda key: "no" if key.site == "a" else None)
    assert [entry.site for entry in applied.record.rewritten] == ["c"]
    assert shape(copy, "w0")[0] == 24 and shape(copy, "w1") == [16, 24, 3, 3]
    taken = array(whole, "b1")
    assert np.array_equal(array(copy, "b1"), taken)


def test_the_manager_runs_it_with_limits():
    result = PassManager([HALF], limits={"prune-channels": 1}).run(cnn())
    record = result.ledger["prune-channels"]
    assert [entry.site for entry in record.rewritten] == ["a"] and "MACs" in record.summary
    assert "the limit of 1 sites is reached" in {entry.reason for entry in record.skipped}


def test_statistics_are_cut_only_if_asked():
    _small, record = prune(HALF, normalized())
    reasons = {entry.site: entry.reason for entry in record.skipped}
    assert "changes a statistic: LayerNormalization 'l'" in reasons["e"] and "statistics=true" in reasons["e"]
    small, record = prune(PruneChannels(ratio=0.5, statistics=True), normalized())
    assert shape(small, "table") == [11, 10] and shape(small, "gamma") == [10] and shape(small, "w1") == [10, 15]


def test_outputs_keep_their_width_unless_allowed():
    model = mlp(4, 12, 10, output="embedding")
    small, _ = prune(HALF, model)
    assert shape(small, "w1") == [6, 10]
    pass_ = PruneChannels(ratio=0.5, allow_output=("embedding",))
    result = PassManager([pass_]).run(model)
    assert [d for d in result.model.graph.outputs[0].shape][1] == 5 and shape(result.model, "w1") == [6, 5]
    assert run(result.model, random_feeds(model, {"n": 2}))[0][0].shape == (2, 5)
    with pytest.raises(UsageError, match="allow_output=e is no output; there are embedding"):
        prune(PruneChannels(ratio=0.5, allow_output=("e",)), model)


@pytest.mark.parametrize(
    "text",
    [
        "agraph (float[n, 4] x, float[4, 8] w0) => (float[n, 2] y) { a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) }",
        "agraph (float[n, 4] x) => (float[n, 2] y, float[n, 8] a) { a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) }",
    ],
)
def test_weights_that_may_be_overridden_and_values_that_are_outputs_stay(text):
    model = model_of(text, {"w0": random_weight(4, 8), "w1": random_weight(8, 2)})
    assert not prune(HALF, model)[1].rewritten


def test_values_captured_by_a_body_stay():
    text = """agraph (float[n, 4] x, bool c) => (float[n, 2] y) {
        a = MatMul(x, w0)
        y = If (c) <then_branch = t () => (float[n, 2] o) { o = MatMul(a, w1) },
                    else_branch = e () => (float[n, 2] p) { p = MatMul(a, w2) }>
    }"""
    weights = {"w0": random_weight(4, 8), "w1": random_weight(8, 2), "w2": random_weight(8, 2, seed=1)}
    _small, record = prune(HALF, model_of(text, weights))
    assert not record.rewritten and any("control flow" in entry.reason for entry in record.skipped)


def test_weights_that_are_not_finite_stay():
    weight = random_weight(32, 24, 3, 3)
    weight[5, 0, 0, 0], weight[6, 1, 0, 0] = np.nan, np.inf
    pass_, ctx = PruneChannels(ratio=0.9), Context()
    model = cnn(w1=weight)
    small, _ = prune(pass_, model, ctx)
    assert np.isnan(array(small, "w1")).any()
    assert np.isinf(array(small, "w1")).any()


# -- plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_gives_the_same_bytes_without_deciding(monkeypatch):
    model, ctx, pass_ = cnn(), Context(), PruneChannels(macs=0.5, scope="global")
    small, _ = prune(pass_, model, ctx)
    monkeypatch.setattr(Pruning, "_choice", None)
    replayed, record = prune(pass_, model, Context(decisions=Decisions(ctx.decisions.kept)))
    assert model_bytes(replayed) == model_bytes(small) and record.rewritten
    with pytest.raises(UsageError, match="the plan has no decision"):
        prune(PruneChannels(macs=0.4), model, Context(decisions=Decisions(ctx.decisions.kept)))


def test_the_guard_is_told_which_family_lost_most():
    model, ctx, pass_ = cnn(), Context(), PruneChannels(ratio=0.5)
    small, record = prune(pass_, model, ctx)
    errors = pass_.site_errors(model, small, [entry.site for entry in record.rewritten], ctx)
    assert errors is not None and set(errors) == {"a", "c"} and all(0 < e < 1 for e in errors.values())


# -- other spellings --------------------------------------------------------------------------------------------------


def test_external_data(tmp_path):
    import onnx

    proto = ir.to_proto(cnn())
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    small, record = prune(HALF, irc.ir.load(tmp_path / "m.onnx"))
    assert record.rewritten
    irc.ir.save(small, tmp_path / "small.onnx")
    assert shape(irc.ir.load(tmp_path / "small.onnx"), "w0")[0] == 12


def test_float16_and_batch_normalization():
    text = """agraph (float16[n, 4, 5, 5] x) => (float16[n, 2, 5, 5] y) {
        a = Conv(x, w0) b = BatchNormalization(a, scale, bias, mean, var) c = Relu(b) y = Conv(c, w1)
    }"""
    half = np.float16
    weights = {
        "w0": random_weight(8, 4, 1, 1).astype(half) * half(300),
        "w1": random_weight(2, 8, 1, 1).astype(half),
        "scale": np.ones(8, half),
        "bias": np.zeros(8, half),
        "mean": np.zeros(8, half),
        "var": np.ones(8, half),
    }
    small, record = prune(HALF, model_of(text, weights))
    assert len(record.rewritten) == 1 and shape(small, "scale") == [4] and shape(small, "w1") == [2, 4, 1, 1]


def test_quantized_weights_are_worth_what_they_stand_for():
    """Per channel scales: all rows have the same largest integer, and the scales tell which are small."""
    text = """agraph (float[n, 6] x) => (float[n, 2] y) {
        w = DequantizeLinear<axis=1>(q, s)  a = MatMul(x, w)  b = Relu(a)  y = MatMul(b, w1)
    }"""
    rng = np.random.default_rng(0)
    scales = np.array([1, 9, 2, 8, 3, 7, 4, 6], dtype=np.float32) / 100
    weights = {"q": rng.integers(-127, 128, (6, 8)).astype(np.int8), "s": scales, "w1": np.full((8, 2), 0.01, "f")}
    model = model_of(text, weights)
    small, record = prune(HALF, model)
    assert len(record.rewritten) == 1 and sorted(array(small, "s") * 100) == [6, 7, 8, 9]
    assert run(small, random_feeds(model, {"n": 3}))[0][0].shape == (3, 2)
