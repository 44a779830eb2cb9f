"""prune-channels with data: widths that compete, repairs, options that do what they say, plans, and sites that are taken back."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_weight, run
from channel_models.stored import feeds as stored_feeds
from channel_models.stored import load
from pruning_models import attention, cnn, mlp, normalized
from repair_kit import CHAIN, chain, feeds, residual, source

from irc import PassManager
from irc.analysis.channels import ChannelGroups, propagate
from irc.analysis.channels.costs import ChannelCosts
from irc.application import apply_pass
from irc.decisions import Decisions
from irc.errors import UsageError
from irc.ir import check, interface, snapshot
from irc.pass_base import Context
from irc.passes.pruning.prune_channels import PruneChannels
from irc.pipeline import Step
from irc.runner import Runner
from irc.testing.integrity import model_bytes


def pruned(model: ir.Model, runner: Runner | None, found=(), *, ctx: Context | None = None, permit=None, **options):
    """The pass on a copy, and its record."""
    copy = snapshot(model)
    ctx = ctx or Context(data=source(found), runner=runner)
    more = {} if permit is None else {"permit": permit}
    record = apply_pass(Step(PruneChannels(**{"round_to": 1, **options})), copy, ctx, **more).record
    return copy, record


def error(small: ir.Model, model: ir.Model, found) -> float:
    mine, theirs = (np.concatenate([outputs[0].ravel() for outputs in run(m, found)]) for m in (small, model))
    return float(np.square(mine - theirs).sum() / np.square(theirs - theirs.mean()).sum())


def reached(model: ir.Model, small: ir.Model, what: str = "macs") -> float:
    costs = [getattr(ChannelCosts(ChannelGroups(propagate(m), "rows")), what)() for m in (model, small)]
    return float(costs[1] / costs[0])


def distances(summary: str) -> dict[str, float]:
    """What the record says of the repairs that were tried."""
    line = next((line for line in summary.splitlines() if line.startswith("repair: ")), None)
    assert line is not None, summary
    steps = line.rpartition(": ")[2].partition(";")[0]
    return {
        name: float(value) for name, value in re.findall(r"([a-z][a-z -]*) ([\d.e+-]+|inf)(?: \(.*?\))?(?:, |$)", steps)
    }


BUILDERS = {
    "chain": chain,
    "residual": residual,
    "cnn": cnn,
    "attention": attention,
    "normalized": normalized,
    "mlp": lambda: mlp(6, 24, 24, 4),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_budget_is_met_the_interface_stays_and_the_repair_helps(runner, name):
    model = BUILDERS[name]()
    found = feeds(model, {"n": 3, "t": 6}, {"n": 4, "t": 7}, count=20)
    small, record = pruned(model, runner, found, macs=0.7)
    assert record.rewritten and reached(model, small) <= 0.7
    assert interface(model).difference(interface(small)) is None
    check(small)
    raw, _ = pruned(model, runner, found, macs=0.7, repair="none", criterion="group", scope="family")
    others = feeds(model, {"n": 3, "t": 6}, count=8, seed=7)
    assert error(small, model, others) < error(raw, model, others)


STORED = ["micro_residual", "micro_depthwise", "micro_grouped_conv", "micro_lstm", "micro_gru_input", "micro_concat_same_twice", "micro_glu_chunk", "micro_packed_attention", "micro_squeeze_excite", "micro_flatten_linear", "micro_tied_embedding", "micro_weight_norm", "siamese", "densenet", "text_cnn", "body_if", "body_loop", "mobilenetv2_half", "lstm_state", "mobilenetv2_qdq", "resnet_qdq"]  # fmt: skip


@pytest.mark.parametrize("name", STORED)
def test_stored_models(runner, name):
    """Whatever a model is made of, what is left runs, is not worse than the cut alone, and a plan gives the same bytes."""
    model, found = load(name), stored_feeds(name)
    ctx = Context(data=source(found), runner=runner)
    small, record = pruned(model, runner, ctx=ctx, ratio=0.3)
    if not record.rewritten:
        return
    assert all(np.isfinite(part).all() for outputs in run(small, found) for part in outputs if part.dtype.kind == "f")
    steps = distances(record.summary)
    assert steps["cut alone"] >= min(steps.values())
    replayed, _ = pruned(model, None, ctx=Context(decisions=Decisions(ctx.decisions.kept)), ratio=0.3)
    assert model_bytes(replayed) == model_bytes(small)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["auto", "obs", "wanda", "flap", "group", "l1", "l2", "batch-norm", "random"])
def test_every_criterion_meets_the_budget(runner, criterion):
    model = cnn()
    small, record = pruned(model, runner, feeds(model, {"n": 2}), macs=0.6, criterion=criterion, scope="family")
    assert reached(model, small) <= 0.6
    assert f"of its {'obs' if criterion == 'auto' else criterion} score" in record.rewritten[0].reason


@pytest.mark.parametrize("criterion", ["obs", "wanda", "flap"])
def test_criteria_of_data_spare_what_is_used(runner, criterion):
    """Six channels give nothing on these data, although their weights are the largest."""
    weights = {name: value.const_value.numpy().copy() for name, value in chain().graph.initializers.items()}
    dead = [1, 2, 4, 7, 8, 11]
    weights["w0"][:, dead] *= 5
    weights["b0"][dead] = -100
    model = model_of(CHAIN, weights)
    found = feeds(model, {"n": 20})
    for name, finds in ((criterion, True), ("l2", False)):
        small, _record = pruned(model, runner, found, ratio=0.5, criterion=name, repair="none")
        kept = small.graph.initializers["b0"].const_value.numpy() if "b0" in small.graph.initializers else None
        assert kept is not None and (not (kept == -100).any()) is finds


def test_repairs_do_what_they_say(runner):
    model = residual()
    found = feeds(model, {"n": 4}, count=20)
    summaries = {}
    for repair in ("none", "update", "least-squares", "statistics", "auto"):
        small, record = pruned(model, runner, found, ratio=0.4, repair=repair)
        summaries[repair] = record.summary
        if repair == "none":
            raw = small
    assert "; cut alone taken" in summaries["none"] and "update" not in summaries["none"]
    assert "update" in summaries["update"] and "least-squares" not in summaries["update"]
    assert "least-squares" in summaries["least-squares"] and "statistics" not in summaries["least-squares"]
    assert "statistics" in summaries["statistics"] and "least-squares" not in summaries["statistics"]
    assert distances(summaries["auto"])["cut alone"] > 2 * min(distances(summaries["auto"]).values())
    # Without a repair what is left are the numbers of the model.
    for name in ("w1", "w3"):
        numbers = set(model.graph.initializers[name].const_value.numpy().ravel().tolist())
        assert set(raw.graph.initializers[name].const_value.numpy().ravel().tolist()) <= numbers


def test_widths_by_measurement_compete_with_uniform_ones(runner):
    """One layer makes the output, the other a millionth of it: it goes."""
    text = """agraph (float[n, 6] x) => (float[n, 3] y) {
        a = Gemm(x, w0)  b = Relu(a)  c = MatMul(b, w1)  d = Gemm(x, w2)  e = Relu(d)  f = MatMul(e, w3)  y = Add(c, f)
    }"""
    weights = {
        "w0": random_weight(6, 24),
        "w1": random_weight(24, 3),
        "w2": random_weight(6, 24, seed=1),
        "w3": 1e-5 * random_weight(24, 3),
    }
    model = model_of(text, weights)
    found = feeds(model, {"n": 20}, count=20)
    small, record = pruned(model, runner, found, macs=0.6)
    widths = {
        name: value.const_value.numpy().shape[1]
        for name, value in small.graph.initializers.items()
        if name in ("w0", "w2")
    }
    assert widths["w2"] < 8 < 20 < widths["w0"]
    competing = re.search(
        r"^widths, repaired in one way: (.*); measured at [\d.]+ taken$", record.summary, re.MULTILINE
    )
    assert competing is not None, record.summary
    uniform, *measured = (float(number) for number in re.findall(r" ([\d.e+-]+)(?:,|$)", competing[1]))
    assert measured and min(measured) < uniform
    same, record = pruned(model, runner, found, macs=0.6, scope="family")
    assert "widths" not in record.summary and same.graph.initializers["w0"].const_value.numpy().shape[1] < 18


def test_a_ratio_is_the_same_for_every_family_with_data_too(runner):
    model = cnn()
    small, _record = pruned(model, runner, feeds(model, {"n": 2}), ratio=0.25)
    assert small.graph.initializers["w0"].const_value.numpy().shape[0] == 18


def test_what_needs_data_says_so():
    for options, text in (
        ({"repair": "update"}, "repair=update"),
        ({"criterion": "obs"}, "criterion=obs"),
        ({"scope": "measured"}, "scope=measured"),
    ):
        with pytest.raises(UsageError, match=f"{text} needs data; give --data"):
            pruned(cnn(), None, ctx=Context(), macs=0.5, **options)


def test_a_budget_out_of_reach_is_an_error_with_data_too(runner):
    model = cnn()
    with pytest.raises(UsageError, match=r"macs=0.01 cannot be reached"):
        pruned(model, runner, feeds(model, {"n": 2}), macs=0.01)


# -- plans and sites that are taken back ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"macs": 0.6}, {"ratio": 0.4}, {"parameters": 0.6, "criterion": "wanda", "repair": "update"}]
)
def test_two_builds_and_a_replay_without_data_give_the_same_bytes(runner, options):
    model = residual()
    found = feeds(model, {"n": 3}, count=15)
    first, second = (Context(data=source(data), runner=runner) for data in (found, found[::-1]))
    small, _ = pruned(model, runner, ctx=first, **options)
    assert model_bytes(pruned(model, runner, ctx=second, **options)[0]) == model_bytes(small)
    replayed, record = pruned(model, None, ctx=Context(decisions=Decisions(first.decisions.kept)), **options)
    assert model_bytes(replayed) == model_bytes(small) and record.rewritten


def test_the_manager_replays_a_plan(runner):
    model = residual()
    passes = [PruneChannels(macs=0.6, round_to=1)]
    ctx = Context(data=source(feeds(model, {"n": 3}, count=15)), runner=runner)
    result = PassManager(passes, verify=False).run(model, ctx)
    again = PassManager(passes, verify=False).run(model, Context(decisions=Decisions(ctx.decisions.kept)))
    assert model_bytes(again.model) == model_bytes(result.model)


@pytest.mark.parametrize("denied", ["a", "d"])
def test_where_a_family_is_taken_back_the_rest_is_repaired_anew(runner, denied):
    """As the guard does: the same decisions of widths, but the weights are those of the smaller cut."""
    model = chain()
    found = feeds(model, {"n": 20}, count=15)
    ctx = Context(data=source(found), runner=runner)
    whole, record = pruned(model, runner, ctx=ctx, ratio=0.5)
    assert {entry.site for entry in record.rewritten} == {"a", "d"}
    part, record = pruned(model, runner, ctx=ctx, permit=lambda key: "no" if key.site == denied else None, ratio=0.5)
    assert len(record.rewritten) == 1 and error(part, model, found) < error(whole, model, found)
    alone = Context(data=source(found), runner=runner)
    raw, _ = pruned(
        model, runner, ctx=alone, permit=lambda key: "no" if key.site == denied else None, ratio=0.5, repair="none"
    )
    assert error(part, model, found) < error(raw, model, found)
    # Both are in the plan, and each is replayed.
    for permit, small in ((None, whole), (lambda key: "no" if key.site == denied else None, part)):
        replayed, _ = pruned(
            model, None, ctx=Context(decisions=Decisions(ctx.decisions.kept)), permit=permit, ratio=0.5
        )
        assert model_bytes(replayed) == model_bytes(small)


def test_what_selection_is_worth_is_said_where_no_widths_compete(runner):
    model = chain()
    found = feeds(model, {"n": 20}, count=15)
    for options, said in (
        ({"ratio": 0.5}, True),
        ({"ratio": 0.5, "criterion": "random"}, False),
        ({"ratio": 0.5, "repair": "none"}, False),
    ):
        _small, record = pruned(model, runner, found, **options)
        assert ("selection: as many channels at random: cut alone" in record.summary) is said


def test_what_selection_is_worth_is_still_said_after_a_family_was_taken_back(runner):
    model = cnn()
    ctx = Context(data=source(feeds(model, {"n": 4}, count=15)), runner=runner)
    _whole, first = pruned(model, runner, ctx=ctx, macs=0.2)
    assert len(first.rewritten) > 1
    denied = first.rewritten[0].site
    _part, second = pruned(model, runner, ctx=ctx, permit=lambda key: "no" if key.site == denied else None, macs=0.2)
    said = [line for line in first.summary.splitlines() if line.startswith(("selection", "widths"))]
    assert said and f"{said[0]}, before some of it was taken back" in second.summary.splitlines()
    assert "taken back" not in first.summary


def test_the_guard_is_told_which_family_lost_most_beside_a_repair(runner):
    model = chain()
    ctx = Context(data=source(feeds(model, {"n": 20})), runner=runner)
    pass_ = PruneChannels(ratio=0.5, round_to=1)
    small, record = pruned(model, runner, ctx=ctx, ratio=0.5)
    errors = pass_.site_errors(model, small, [entry.site for entry in record.rewritten], ctx)
    assert errors is not None and set(errors) == {"a", "d"}


# -- data as they come ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_hardly_any_samples(runner, count):
    model = cnn()
    small, record = pruned(model, runner, feeds(model, {"n": 1}, count=count), macs=0.7)
    assert record.rewritten and reached(model, small) <= 0.7


def test_a_loss_cannot_be_told_from_a_single_sample(runner):
    """Repaired to fit that sample, any cut looks lossless on it."""
    model = cnn()
    small, record = pruned(model, runner, feeds(model, {"n": 1}, count=1), loss=0.02)
    assert not record.rewritten and reached(model, small) == 1
    assert "from a single sample" in " ".join(reason for reason, _count in record.skip_reasons())
    small, record = pruned(model, runner, feeds(model, {"n": 1}, count=1), macs=0.7)
    assert "on the only sample, none being held out: cut alone" in record.summary


def test_outputs_that_are_integers_only(runner):
    """A repair that makes no fewer of the few samples differ is taken all the same, unless none does."""
    text = "agraph (float[n, 8] x) => (int64[n, 1] y) { a = MatMul(x, w0) r = Relu(a) s = MatMul(r, w1) y = ArgMax<axis=1>(s) }"
    model = model_of(text, {"w0": random_weight(8, 64), "w1": random_weight(64, 8, seed=1)})
    for count in (5, 40):
        _small, record = pruned(model, runner, feeds(model, {"n": 1}, count=count), macs=0.3)
        found = distances(record.summary)
        assert found["cut alone"] == 0 or "cut alone taken" not in record.summary


def test_values_of_one_layer_that_are_not_finite(runner):
    """Its family is ranked by its weights, its reader is only cut, and the output says nothing."""
    weights = {name: value.const_value.numpy().copy() for name, value in chain().graph.initializers.items()}
    weights["b0"][3] = np.nan
    model = model_of(CHAIN, weights)
    small, record = pruned(model, runner, feeds(model, {"n": 9}), macs=0.7)
    assert record.rewritten and reached(model, small) <= 0.7 and "cut alone taken" in record.summary


def test_a_stream_that_two_values_need(runner):
    """Siamese branches of unlike weights in one concatenation: no value may become empty, whatever is ranked lowest."""
    text = """agraph (float[n, 6] x) => (float[n, 3] y) {
        a = MatMul(x, w0)  b = MatMul(x, w1)  c = Concat<axis=1>(a, b)  d = Relu(c)  e = Split<axis=1>(d, parts)  y = MatMul(d, w2)
    }""".replace("e = Split<axis=1>(d, parts)", "")
    weights = {"w0": 1e-4 * random_weight(6, 10), "w1": random_weight(6, 10), "w2": random_weight(20, 3)}
    model = model_of(text, weights)
    small, _record = pruned(model, runner, feeds(model, {"n": 20}), macs=0.3)
    assert reached(model, small) <= 0.3
