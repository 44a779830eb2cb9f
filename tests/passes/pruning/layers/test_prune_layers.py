"""prune-layers: which branches go, what is put in their place, and that what is left is the model without them."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import random_feeds, run
from hypothesis import given, settings
from hypothesis import strategies as st
from residual_models import WIDTH, inferred, resnet, samples, stream

import irc.ir
from irc import PassManager, pipeline, targets
from irc.analysis.model_cost import cost
from irc.analysis.weights import Weights
from irc.application import apply_pass
from irc.cli import main
from irc.decisions import Decisions
from irc.errors import PassOptionError, UsageError
from irc.ir import check, interface, snapshot
from irc.judge.model_outputs import ModelOutputs
from irc.ledger import PassRecord
from irc.pass_base import Context
from irc.passes.pruning.layers.branch_facts import SampleHalves, branch_effects
from irc.passes.pruning.layers.layer_decision import LayerPruning
from irc.passes.pruning.layers.prune_layers import PruneLayers
from irc.pipeline import Step
from irc.selection import Selection
from irc.testing import assert_conforms
from irc.testing.conformance import shared_runner
from irc.testing.integrity import model_bytes

SIZES = {"n": 2, "t": 4}


def context(model: ir.Model, **changed) -> Context:
    return dataclasses.replace(Context(data=samples(model), runner=shared_runner()), **changed)


def prune(
    pass_: PruneLayers, model: ir.Model, ctx: Context | None = None, selection: Selection | None = None, permit=None
) -> tuple[ir.Model, PassRecord]:
    """The pass on a copy."""
    copy = snapshot(model)
    more = {"permit": permit} if permit else {}
    applied = apply_pass(Step(pass_, selection or Selection()), copy, ctx or context(model), **more)
    check(copy)
    return copy, applied.record


def gone(record: PassRecord) -> list[str]:
    return [entry.site for entry in record.rewritten]


def macs(model: ir.Model) -> int:
    return cost(model, {name: size for name, size in SIZES.items() if name in ("n", "t")}).macs


def constants(model: ir.Model, pass_: PruneLayers, ctx: Context) -> dict[str, np.ndarray]:
    pruning = LayerPruning(model, pass_, ctx)
    return {b.id: np.asarray(pruning.decision(b)["constant"]) for unit in pruning.units for b in unit}


def close(model: ir.Model, other: ir.Model, tolerance: float = 1e-5) -> None:
    feeds = random_feeds(other, SIZES, {"n": 1, "t": 6}, seed=5)
    for expected, found in zip(run(other, feeds), run(model, feeds), strict=True):
        np.testing.assert_allclose(found[0], expected[0], rtol=tolerance, atol=tolerance)


# -- promises ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"ratio": 0.6, "repair": "none"}, {"ratio": 0.3, "unit": "layer"}])
def test_conforms(options):
    model = stream("fafa")
    assert_conforms(PruneLayers(**options), {"stream": model}, must_fire=True, context=context(model), sharing="skip")


def test_conforms_where_values_are_shared():
    model = stream("f")
    assert_conforms(PruneLayers(ratio=0.5), {"stream": model}, must_fire=True, context=context(model))


def test_conforms_on_images():
    model = resnet()
    assert_conforms(PruneLayers(ratio=0.5), {"resnet": model}, must_fire=True, context=context(model), sharing="skip")


def test_the_interface_stays_and_what_is_dead_goes():
    model = stream("fff")
    small, record = prune(PruneLayers(count=2), model)
    assert interface(model).difference(interface(small)) is None and len(gone(record)) == 2
    assert sum(node.op_type == "LayerNormalization" for node in small.graph) == 1
    assert len([name for name in small.graph.initializers if name.startswith("u")]) == 1


# -- what is left -----------------------------------------------------------------------------------------------------

KINDS = "fapnb"
SITES = {"f": ("s{n}",), "F": ("s{n}",), "a": ("s{n}",), "p": ("a{i}", "f{i}"), "n": ("j{i}",), "b": ("j{i}",)}


@settings(max_examples=10, deadline=None)
@given(st.text(alphabet=KINDS, min_size=1, max_size=3), st.data())
def test_any_subset_of_branches_leaves_the_model_without_them(kinds, data):
    """Everything is chosen, and some of it taken back: the rest is the model that never had it, with means in its place."""
    model = stream(kinds)
    total = sum(len(SITES[kind]) for kind in kinds)
    pass_, ctx = PruneLayers(count=total, samples=2, candidates=1), context(model)
    blocks = data.draw(st.sets(st.integers(0, len(kinds) - 1)))
    sites = {i: [name.format(i=i, n=i + 1) for name in SITES[kind]] for i, kind in enumerate(kinds)}
    allowed = {name for i in blocks for name in sites[i]}
    small, record = prune(pass_, model, ctx, permit=lambda key: None if key.site in allowed else "denied")
    assert set(gone(record)) == allowed
    found = constants(model, pass_, ctx)
    put = {i: sum(np.resize(found[name], WIDTH) if found[name].size else 0.0 for name in sites[i]) for i in blocks}
    put = {i: np.broadcast_to(value, (WIDTH,)) for i, value in put.items()}
    close(small, stream(kinds, gone=blocks, constants=put), 1e-4)


def test_the_mean_of_a_branch_stays():
    model = stream("ffa")
    ctx = context(model)
    feeds = [sample.feed for sample in SampleHalves.of(ctx.data, 64).fit.samples()]
    watched = snapshot(model)
    value = next(node.outputs[0] for node in watched.graph if node.outputs[0].name == "f0")
    watched.graph.outputs.append(value)
    rows = np.concatenate([outputs[1].reshape(-1, WIDTH) for outputs in run(watched, feeds)])
    found = constants(model, PruneLayers(count=3), ctx)
    np.testing.assert_allclose(found["s1"], rows.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_constants_one_behind_another_are_joined():
    model = stream("FFF")
    pass_, ctx = PruneLayers(count=3), context(model)
    small, _ = prune(pass_, model, ctx)
    assert [node.op_type for node in small.graph] in (["MatMul", "Add", "MatMul"], ["MatMul", "MatMul"])
    found = constants(model, pass_, ctx)
    close(
        small,
        stream("FFF", gone={0, 1, 2}, constants={i: found[f"s{i + 1}"] for i in range(3) if found[f"s{i + 1}"].size}),
    )


def test_nothing_stays_without_repair():
    model = stream("fa")
    small, record = prune(PruneLayers(count=2, repair="none"), model)
    assert [node.op_type for node in small.graph] == ["MatMul", "MatMul"]
    assert all("mean" not in entry.reason for entry in record.rewritten)
    close(small, stream("fa", gone={0, 1}))


def test_a_branch_around_the_whole_model():
    """The sum is an output and the shortcut an input: neither may lose its name."""
    model = inferred(
        "agraph (float[n, 8] x) => (float[n, 8] y) { a = MatMul(x, w) y = Add(x, a) }",
        {"w": np.eye(8, dtype=np.float32)},
    )
    small, record = prune(PruneLayers(count=1, repair="none"), model)
    assert gone(record) == ["y"] and interface(model).difference(interface(small)) is None
    assert [node.op_type for node in small.graph] == ["Identity"]


def test_half_precision_stays():
    from irc.passes.precision.reduce_precision import ReducePrecision

    model = stream("FF")
    half = PassManager([ReducePrecision()], verify=False).run(model, Context(target="tensorrt")).model
    if not any(node.outputs[0].dtype == ir.DataType.FLOAT16 for node in half.graph):
        pytest.skip("nothing was halved")
    _, record = prune(PruneLayers(count=1), half)
    assert len(gone(record)) == 1


@pytest.mark.parametrize("model", [resnet(), stream("fa")], ids=["resnet", "stream"])
def test_quantized_models(model):
    """A branch goes with its own QuantizeLinear and DequantizeLinear; those of what stays stay."""
    ctx = context(model, target=targets.parse("ort"))
    quantized = PassManager(["quantize"], verify=False).run(model, ctx).model
    small, record = prune(PruneLayers(count=1), quantized, ctx)
    assert len(gone(record)) == 1
    assert len([n for n in small.graph if n.op_type == "QuantizeLinear"]) < len(
        [n for n in quantized.graph if n.op_type == "QuantizeLinear"]
    )
    run(small, random_feeds(small, SIZES))


# -- the choice -------------------------------------------------------------------------------------------------------


def test_the_branch_of_least_output_error_goes_first():
    model = stream("fFaf")
    _, record = prune(PruneLayers(count=1), model)
    assert gone(record) == ["s2"]


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_choice_is_the_best_of_all(count):
    """Greedy is exhaustive for one; for two, the pair that it finds holds the best one."""
    model, ctx = stream("fafaf"), None
    ctx = context(model)
    small, record = prune(PruneLayers(count=count, candidates=64, repair="none"), model, ctx)
    held = SampleHalves.of(ctx.data, 64).held
    errors = {}
    with shared_runner().open(model) as original:
        outputs = ModelOutputs(model, original, held, limit=len(held))
        for names in itertools.combinations(range(5), count):
            with shared_runner().open(stream("fafaf", gone=names)) as opened:
                errors[names] = outputs.error(opened) or 0.0
        with shared_runner().open(small) as opened:
            reached = outputs.error(opened) or 0.0
    if count == 1:
        assert reached == pytest.approx(min(errors.values()), rel=1e-3)
    else:
        assert reached <= sorted(errors.values())[len(errors) // 2]
    together = float(record.summary.rpartition("chosen ")[2].split()[0]) / 100
    assert together == pytest.approx(reached, rel=1e-2)


@pytest.mark.parametrize("what", ["macs", "parameters"])
@pytest.mark.parametrize("share", [0.85, 0.5])
def test_a_budget_is_met(what, share):
    model = stream("fafafa")
    small, record = prune(PruneLayers(**{what: share}), model)

    def counted(one: ir.Model) -> int:
        return cost(one).macs if what == "macs" else sum(t.parameters for t in Weights(one).stored())

    left = counted(small) / counted(model)
    assert left <= share
    assert f"({left:.3f} of the original)" in record.summary


def test_no_more_goes_than_the_budget_asks_for():
    """Every branch that went is needed: giving any back would break the budget."""
    model = stream("fafafa")
    pass_, ctx = PruneLayers(macs=0.6), context(model)
    _, record = prune(pass_, model, ctx)
    pruning = LayerPruning(model, pass_, ctx)
    all_gone = [b for unit in pruning.units for b in unit if b.id in gone(record)]
    for kept in all_gone:
        assert pruning.left(pruning.costs.without([b for b in all_gone if b is not kept])) > 0.6


def test_layers_go_as_a_whole():
    model = stream("afafaf")
    _, record = prune(PruneLayers(count=1, unit="layer"), model)
    assert gone(record) in (["s1", "s2"], ["s3", "s4"], ["s5", "s6"])
    assert all("when its layer goes alone" in entry.reason for entry in record.rewritten)
    _, record = prune(PruneLayers(count=2, unit="layer"), model, selection=Selection.of((), ("name:s3",)))
    assert gone(record) == ["s1", "s2", "s5", "s6"]
    reasons = {entry.site: entry.reason for entry in record.skipped}
    assert reasons["s4"] == "its layer stays, for 's3' does"


def test_few_are_tried_by_block_influence():
    """With one candidate per step, the choice is that of the least influence."""
    model = stream("fafFaf")
    ctx = context(model)
    pruning = LayerPruning(model, PruneLayers(count=1), ctx)
    units = [branch for (branch,) in pruning.units]
    influence = branch_effects(model, units, SampleHalves.of(ctx.data, 64).fit, ctx).influence
    least = min(units, key=influence.__getitem__)
    _, record = prune(PruneLayers(count=1, candidates=1), model)
    assert gone(record) == [least.id] == ["s4"] and 0 <= influence[least] < 0.01


def test_saved_costs_are_those_of_each_alone():
    model = stream("ffa")
    pruning = LayerPruning(model, PruneLayers(count=2), context(model))
    _, record = prune(PruneLayers(count=2), model)
    for entry in record.rewritten:
        branch = next(b for (b,) in pruning.units if b.id == entry.site)
        assert entry.reason.startswith(f"{pruning.saved[branch].macs:,} MACs")
        alone, _ = prune(
            PruneLayers(count=3), model, permit=lambda key, only=entry.site: None if key.site == only else "no"
        )
        assert cost(model).macs - cost(alone).macs == pruning.saved[branch].macs


# -- what is refused --------------------------------------------------------------------------------------------------


def test_data_are_needed():
    model = stream("ff")
    with pytest.raises(UsageError, match=r"prune-layers: needs data; give --data"):
        prune(PruneLayers(count=1), model, Context(runner=shared_runner()))


def test_more_than_there_is():
    model = stream("ff")
    with pytest.raises(UsageError, match=r"count=3 cannot be reached, only 2 can go"):
        prune(PruneLayers(count=3), model)
    with pytest.raises(UsageError, match=r"macs=0.01 cannot be reached, only 0\.\d+ is left"):
        prune(PruneLayers(macs=0.01), model)
    with pytest.raises(UsageError, match=r"there is no residual branch to remove"):
        prune(PruneLayers(count=1), stream(""))


def test_skips_say_why():
    model = resnet()
    _, record = prune(PruneLayers(count=1), model)
    reasons = {entry.site: entry.reason for entry in record.skipped}
    assert "neither of 'h' and 'k' is computed from the other" in reasons["s2"]
    (other,) = {"s1", "s3"} - set(gone(record))
    assert reasons[other].startswith("it stays: count=1 is met without it")
    _, record = prune(PruneLayers(count=1), model, selection=Selection.of((), ("name:s1",)))
    assert gone(record) == ["s3"]


def test_shapes_that_only_data_show_to_differ():
    """x + f(x) with x broadcast along an axis of unknown size."""
    model = inferred(
        "agraph (float[m, 8] x, float[n, 8] z) => (float[k, 8] y) { a = MatMul(x, w) b = Add(a, z) c = Relu(b) y = Add(x, c) }",
        {"w": np.eye(8, dtype=np.float32)},
    )
    from irc.calibration import FeedList, Sample

    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(1, 8)), "z": rng.normal(size=(3, 8))} for _ in range(4)]
    data = FeedList([Sample({k: v.astype(np.float32) for k, v in feed.items()}) for feed in feeds])
    _, record = prune(PruneLayers(ratio=0.5), model, Context(data=data, runner=shared_runner()))
    reasons = {entry.site: entry.reason for entry in record.skipped}
    assert not gone(record) and "another shape than the sum" in reasons["y"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prune-layers", "exactly one of"),
        ("prune-layers{count=1,macs=0.5}", "exactly one of"),
        ("prune-layers{macs=1.5}", "above 0 and below 1"),
        ("prune-layers{count=0}", "at least 1"),
        ("prune-layers{count=1,candidates=0}", "at least 1"),
    ],
)
def test_options(text, reason):
    with pytest.raises(PassOptionError, match=reason):
        pipeline.parse(text)


def test_a_second_time_nothing_goes():
    model = stream("fafa")
    small, _ = prune(PruneLayers(count=1), model)
    again, record = prune(PruneLayers(count=1), small, context(small))
    assert not gone(record) and record.skipped[0].reason == "the model was pruned by these options before"
    assert model_bytes(again) == model_bytes(small)
    assert len(gone(prune(PruneLayers(macs=0.5), small, context(small))[1])) >= 1


def test_shares_are_of_the_model_before():
    model = stream("fafafa")
    small, _ = prune(PruneLayers(macs=0.8), model)
    smaller, record = prune(PruneLayers(macs=0.5), small, context(small))
    assert gone(record) and cost(smaller).macs <= 0.5 * cost(model).macs


# -- plans and budgets ------------------------------------------------------------------------------------------------


def test_decisions_replay_without_data():
    model = stream("fafa")
    ctx = context(model)
    first, record = prune(PruneLayers(macs=0.7), model, ctx)
    replay = Context(decisions=Decisions(ctx.decisions.kept))
    second, again = prune(PruneLayers(macs=0.7), model, replay)
    assert model_bytes(first) == model_bytes(second) and gone(record) == gone(again)


@pytest.fixture
def files(tmp_path):
    model = stream("fafa")
    path, data = tmp_path / "model.onnx", tmp_path / "calib"
    irc.ir.save(model, path)
    data.mkdir()
    for i, sample in enumerate(samples(model).samples()):
        np.savez(data / f"{i}.npz", **sample.feed)
    return path, data


def test_from_the_command_line(files, capsys):
    path, data = files
    out, again = path.with_name("small.onnx"), path.with_name("again.onnx")
    options = ["--passes", "O1,prune-layers{count=2}", "-o", str(out), "--no-measure", "-v"]
    assert main(["optimize", str(path), "--data", str(data), *options]) == 0
    said = capsys.readouterr().out
    assert "MACs and" in said and "of the original)" in said
    plan = out.with_name("small.plan.yaml")
    assert main(["optimize", str(path), "--plan", str(plan), "-o", str(again), "--no-measure"]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_without_data_it_says_so(files, capsys):
    path, _ = files
    assert main(["optimize", str(path), "--passes", "prune-layers{count=2}", "--no-measure"]) == 2
    assert "prune-layers: needs data; give --data" in " ".join(capsys.readouterr().err.split())


def test_branches_come_back_under_a_budget(files):
    path, data = files
    report = irc.optimize(
        path,
        data=str(data),
        passes="prune-layers{count=4}",
        max_drop="1%",
        measure=False,
        cache=False,
        output=path.with_name("o.onnx"),
    )
    record = report.ledger["prune-layers"]
    undone = {entry.site: entry.reason for entry in record.undone}
    assert undone and all(reason.startswith("kept whole: its loss") for reason in undone.values()), undone
