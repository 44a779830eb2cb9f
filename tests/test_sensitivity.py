"""The ranking puts what costs most first, and what is confirmed is what the runtime's own outputs say."""

from __future__ import annotations

import contextlib
import json
import math

import numpy as np
import onnxruntime as ort
import pytest
from analysis_graphs import graph
from hypothesis import given
from hypothesis import strategies as st
from sensitivity_models import SITES, feeds, planted

from irc.application import SiteKey
from irc.calibration.data import FeedList, Sample
from irc.errors import DataError, ModelError, PassFailed, RunnerError, UsageError
from irc.ir import load, save
from irc.ledger import Ledger
from irc.pass_base import Context
from irc.pass_manager import PassManager, RunResult
from irc.pipeline import parse
from irc.sensitivity import (
    LARGEST_ERROR,
    Sensitivity,
    above_threshold,
    confirm,
    confirmed_count,
    left_kind,
    rank,
    thresholds,
)
from irc.sensitivity_run import sensitivity_of

CHAIN = graph("g (float[2] x) => (float[2] y) { a = Relu(x) b = Abs(a) c = Neg(b) y = Exp(c) }")
STEPS = parse("eliminate-identity,quantize,quantize-weights")


def key(site: str, step: int = 1) -> SiteKey:
    return SiteKey(step, site)


def item(site: str, error: float, *, op_type: str = "Conv", pass_name: str = "quantize") -> Sensitivity:
    return Sensitivity(key(site), op_type, pass_name, error)


# -- ranking ----------------------------------------------------------------------------------------------------------


def test_worst_first_and_ties_in_the_order_of_the_graph():
    errors = {key("c"): 0.1, key("y", 2): 0.5, key("b"): 0.1, key("a", 2): 0.1, key("a"): 0.1, key("gone"): 0.1}
    found = rank(errors, model=CHAIN, steps=STEPS)
    assert [(i.site, i.key.step) for i in found] == [("y", 2), ("a", 1), ("a", 2), ("b", 1), ("c", 1), ("gone", 1)]
    assert [i.op_type for i in found] == ["Exp", "Relu", "Relu", "Abs", "Neg", ""]
    assert [i.pass_name for i in found][:3] == ["quantize-weights", "quantize", "quantize-weights"]


def test_keys_may_count_from_an_earlier_step():
    [found] = rank({key("a", 7): 0.1}, model=CHAIN, steps=STEPS[1:], offset=6)
    assert (found.pass_name, found.key.step) == ("quantize-weights", 7)


@given(st.dictionaries(st.sampled_from("abcy"), st.floats(), min_size=1))
def test_any_number_ranks_and_is_written_as_json(errors):
    found = rank({key(site): error for site, error in errors.items()}, model=CHAIN, steps=STEPS)
    values = [i.local_error for i in found]
    assert values == sorted(values, reverse=True)
    assert all(0 <= value <= LARGEST_ERROR for value in values)
    for one in found:
        again = Sensitivity.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)))
        assert again.key == one.key and again.local_error == pytest.approx(one.local_error, rel=1e-5)


def test_what_is_written_is_read_again():
    one = Sensitivity(SiteKey(3, "a", 2), "Conv", "quantize", 0.123456, 0.5)
    assert Sensitivity.from_dict(one.to_dict()) == one
    assert Sensitivity.from_dict(item("a", 0.5).to_dict()).output_error is None
    for broken in ({}, {**one.to_dict(), "step": "x"}, {**one.to_dict(), "local_error": None}):
        with pytest.raises(UsageError, match="a sensitivity is damaged"):
            Sensitivity.from_dict(broken)


@pytest.mark.parametrize(
    "sites, share, count", [(0, 0.25, 0), (1, 0.25, 1), (4, 0.25, 1), (5, 0.25, 2), (20, 0.25, 5), (150, 0.25, 32), (10, 1.0, 10), (9, 0.0, 0)]
)  # fmt: skip
def test_a_quarter_at_least_one_at_most_32(sites, share, count):
    assert confirmed_count(sites, share) == count


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_shares_out_of_range(share):
    with pytest.raises(UsageError, match="share of sites"):
        confirmed_count(10, share)


# -- thresholds -------------------------------------------------------------------------------------------------------


def test_the_median_is_of_weighted_operators_with_an_error():
    ranking = [
        item("a", 0.6),
        item("b", 0.2),
        item("c", 0.1),
        item("d", 0.0),
        item("e", 0.001, op_type="Add"),
        item("f", 0.7, op_type="Add"),
    ]
    assert thresholds(ranking, 3.0) == {"quantize": pytest.approx(0.6)}
    assert [i.site for i in above_threshold(ranking, 3.0)] == ["f"]
    assert [i.site for i in above_threshold(ranking, 1.0)] == ["a", "f"]


def test_each_pass_has_its_own_median():
    ranking = [item("a", 0.5), item("b", 0.5), item("c", 0.01, pass_name="quantize-weights"), item("d", 0.001, pass_name="quantize-weights")]  # fmt: skip
    assert [i.site for i in above_threshold(ranking, 1.5)] == ["c"]


def test_without_weighted_operators_all_count_and_without_errors_none():
    assert thresholds([item("a", 0.1, op_type="Add"), item("b", 0.3, op_type="Add")], 1.0) == {"quantize": 0.2}
    assert above_threshold([item("a", 0.0), item("b", 0.0)], 1.0) == []
    assert above_threshold([], 5.0) == []


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_factors_out_of_range(factor):
    with pytest.raises(UsageError, match="factor"):
        above_threshold([item("a", 1.0)], factor)


@pytest.mark.parametrize(
    "reason, kind",
    [
        ("back to float: its output error 9.00% is among the 1 worst and the budget was missed", "accuracy"),
        ("left in float: measured slower here (3 us as integers, 2 us in float)", "speed"),
        ("back to float: the int8 model is slower than the original (0.9x)", "speed"),
        ("excluded by op:Conv", "selection"),
        ("not selected by --include", "selection"),
    ],
)
def test_reasons_of_the_ledger(reason, kind):
    assert left_kind(reason) == kind


# -- confirmation, on a stand-in for builds and runtime ----------------------------------------------------------------


class Pretended:
    """A model is a dict from sites to how much each adds to the output; a runner that "opens" such models."""

    def __init__(self, damage, *, also=None, breaks=(), crashes=()):
        self.damage, self.also, self.breaks, self.crashes = damage, also or {}, breaks, crashes
        self.builds, self.opened = [], 0

    def build(self, denied):
        made = [k for k in self.damage if k not in denied]
        self.builds.append(made)
        if any(k.site in self.breaks for k in made):
            raise PassFailed("it fails alone", pass_name="quantize")
        for k in made:
            made = made + [extra for extra in self.also.get(k, ()) if extra not in denied]
        local = [SiteKey(k.step - 1, k.site) for k in made]
        return RunResult({k: self.damage.get(k, 0.0) for k in made}, Ledger(), STEPS[1:], local)

    @contextlib.contextmanager
    def open(self, model):
        self.opened += 1
        damage = model if isinstance(model, dict) else {}
        if any(k.site in self.crashes for k in damage):
            raise RunnerError("the runtime refuses it")
        yield Running(sum(damage.values()))


class Running:
    def __init__(self, offset):
        self.offset = offset

    def run(self, feed, outputs=None):
        return {"y": feed["x"] + np.float32(self.offset)}


def source(count=40):
    generator = np.random.default_rng(0)
    return FeedList([Sample({"x": generator.standard_normal((1, 2)).astype(np.float32)}) for _ in range(count)])


def confirmed(pretended, ranking, **options):
    return confirm(ranking, build=pretended.build, runner=pretended, model=CHAIN, source=source(), offset=1, **options)


def test_each_is_built_once_and_alone_and_output_errors_decide():
    pretended = Pretended({key("a"): 0.01, key("b"): 0.5, key("c"): 0.1, key("y"): 9.0})
    ranking = [item("a", 0.9), item("b", 0.8), item("c", 0.7), item("y", 0.1)]
    seen = []
    found = confirmed(pretended, ranking, share=0.75, progress=lambda fraction, what: seen.append((fraction, what)))
    assert [i.site for i in found] == ["b", "c", "a", "y"]
    assert pretended.builds == [[key("a")], [key("b")], [key("c")]] and pretended.opened == 4
    assert found[-1] == ranking[-1]
    assert {i.site: i.local_error for i in found} == {i.site: i.local_error for i in ranking}
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen) and len(seen) == 4
    x = np.concatenate([sample.feed["x"] for sample in source(16).samples()]).astype(np.float64)
    variance = ((x - x.mean(0)) ** 2).sum() * len(x) / (len(x) - 1)
    assert found[0].output_error == pytest.approx(0.5**2 * x.size / variance, rel=1e-3)


def test_nothing_to_confirm():
    pretended = Pretended({key("a"): 0.1})
    assert confirmed(pretended, [], share=0.25) == []
    assert confirmed(pretended, [item("a", 0.5)], share=0.0) == [item("a", 0.5)]
    assert (pretended.builds, pretended.opened) == ([], 0)


def test_sites_outside_the_ranking_are_denied_too():
    pretended = Pretended({key("a"): 0.1, key("b"): 0.2})
    [found] = confirmed(pretended, [item("a", 0.5)], keys=[key("a"), key("b")])
    assert pretended.builds == [[key("a")]] and found.output_error is not None


def test_what_another_pass_makes_of_a_denied_site_is_denied_as_well():
    other = key("b", 2)
    pretended = Pretended({key("a"): 0.1, key("c"): 0.2}, also={key("a"): [other], key("c"): [other]})
    found = confirmed(pretended, [item("a", 0.5), item("c", 0.4)], share=1.0)
    assert all(i.output_error is not None for i in found)
    assert len(pretended.builds) == 3, "what was learnt from the first site holds for the second"


def test_sites_that_cannot_be_alone_come_behind_those_that_can():
    pretended = Pretended({key("a"): 0.1, key("c"): 0.2}, breaks=("a",))
    found = confirmed(pretended, [item("a", 0.9), item("gone", 0.8), item("c", 0.7), item("y", 0.1)], share=0.75)
    assert [i.site for i in found] == ["c", "a", "gone", "y"]
    assert [i.output_error is None for i in found] == [False, True, True, True]


def test_models_that_do_not_run_or_are_not_finite_are_the_worst():
    pretended = Pretended({key("a"): 0.1, key("b"): 0.2, key("c"): math.nan}, crashes=("b",))
    found = confirmed(pretended, [item("a", 0.9), item("b", 0.8), item("c", 0.7)], share=1.0)
    assert [i.site for i in found] == ["b", "c", "a"]
    assert found[0].output_error == found[1].output_error == LARGEST_ERROR


# -- the real thing ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    return planted(folder / "m.onnx"), sensitivity_of(
        folder / "m.onnx", data=feeds(), passes="quantize", share=1.0, factor=5.0
    )


def test_the_planted_site_is_the_worst_locally_and_at_the_outputs(found):
    ranking = found[1].ranking
    assert sorted(i.site for i in ranking) == sorted(SITES)
    for error in (lambda i: i.local_error, lambda i: i.output_error):
        order = sorted(ranking, key=error, reverse=True)
        assert order[0].site == "bad" and error(order[0]) > 100 * error(order[1])
    assert [i.site for i in found[1].above] == ["bad"]


def test_output_errors_are_those_of_the_runtime(found, tmp_path):
    path, report = found
    model = load(path)
    for one in report.ranking[:2]:
        alone = PassManager(["quantize{include=" + one.site + "}"]).run(model, Context(target="ort", data=feeds()))
        save(alone.model, tmp_path / "one.onnx")
        a, b = (
            np.concatenate([ort.InferenceSession(str(p)).run(None, feed)[0] for feed in feeds()[:16]]).astype(float)
            for p in (path, tmp_path / "one.onnx")
        )
        expected = ((a - b) ** 2).sum() / (((a - a.mean(0)) ** 2).sum() * len(a) / (len(a) - 1))
        assert one.output_error == pytest.approx(expected, rel=0.02)


def test_json_is_finite_and_the_same_every_time(found):
    path, report = found
    again = sensitivity_of(path, data=feeds(), passes="quantize", share=1.0, factor=5.0)
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.dumps(again.to_dict(), allow_nan=False) == text
    document = json.loads(text)
    assert document["thresholds"]["above"] == ["bad"] and document["confirmed"] == {"sites": 4, "samples": 16}
    assert [Sensitivity.from_dict(d).site for d in document["sites"]] == [i.site for i in report.ranking]


def test_json_has_exactly_the_documented_fields(found):
    import re

    from irc.report import sensitivity_report

    listed = re.findall(r"^    ([a-z]+(?:, [a-z]+)*) {2,}", sensitivity_report.__doc__, re.MULTILINE)
    assert sorted(name for line in listed for name in line.split(", ")) == sorted(found[1].to_dict())


def test_selectors_are_obeyed_and_what_they_keep_in_float_is_told(found):
    report = sensitivity_of(found[0], data=feeds(8), share=0.0, passes="quantize", exclude=["bad"])
    assert "bad" not in [i.site for i in report.ranking] and len(report.ranking) == 3
    assert {k.site: why for k, why in report.left.items()} == {"bad": "selection"}
    assert all(i.output_error is None for i in report.ranking)


def test_passes_that_cannot_tell_are_named(found, monkeypatch):
    from irc.passes.quantization.quantize_weights import QuantizeWeights

    monkeypatch.setattr(QuantizeWeights, "site_errors", lambda self, before, after, sites, ctx: None)
    report = sensitivity_of(found[0], data=feeds(4), passes="quantize-weights{min_elements=1}")
    assert report.ranking == [] and report.tried == 0
    assert "quantize-weights does not tell the errors of its 4 sites; they are not ranked" in report.notes


def test_sites_that_a_pass_is_silent_about_are_denied_all_the_same(found, monkeypatch):
    from irc.passes.quantization.quantize_weights import QuantizeWeights

    monkeypatch.setattr(QuantizeWeights, "site_errors", lambda self, before, after, sites, ctx: {"first": 0.5})
    report = sensitivity_of(found[0], data=feeds(4), passes="quantize-weights{min_elements=1}")
    [one] = report.ranking
    assert one.site == "first" and one.output_error < 1e-3
    assert "the errors of 3 of 4 sites of quantize-weights could not be measured" in report.notes


def test_refinements_go_with_the_site_they_refine(found):
    report = sensitivity_of(found[0], data=feeds(8), passes="quantize,scale-weights", share=1.0)
    assert sorted(i.site for i in report.ranking) == sorted(SITES)
    assert {i.pass_name for i in report.ranking} == {"quantize"}
    assert all(i.output_error is not None for i in report.ranking) and report.ranking[0].site == "bad"


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"passes": "fold-batch-norm"}, UsageError, "has no approximate pass"),
        ({"share": 2.0}, UsageError, "from 0 to 1"),
        ({"factor": 0.0}, UsageError, "above 0"),
        ({"threads": 0}, UsageError, "--threads is 0"),
        ({"data": "nowhere"}, DataError, "nowhere"),
        ({"exclude": ["op:Convv"]}, UsageError, "matches none"),
        ({"model": "net.py:build"}, UsageError, "PyTorch module"),
        ({"model": "nothing.onnx"}, ModelError, "nothing.onnx"),
    ],
)
def test_wrong_requests(found, options, error, message):
    given_ = {"model": found[0], "data": feeds(2), **options}
    with pytest.raises(error, match=message):
        sensitivity_of(given_.pop("model"), **given_)
