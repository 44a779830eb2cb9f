"""Which sites pay, by given times; and the profile they come from."""

import int8_kit
import numpy as np
import pass_kit
import pytest

from irc import timed_placement
from irc.application import SiteKey
from irc.backends.ort import OrtTarget
from irc.runner import NodeTime, Runner
from irc.site_times import FloatTimes, _named, slower_as_integers

STYLE = OrtTarget().quantization
CHAIN = """g (float[N,16,8,8] x) => (float[N,16,8,8] y) {
  c1 = Conv<pads=[1,1,1,1]>(x, w1) r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1]>(r1, w2) h2 = HardSwish(c2)
  c3 = Conv<pads=[1,1,1,1]>(h2, w3) y = Tanh(c3)
}"""
WEIGHTS = {name: (16, 16, 3, 3) for name in ("w1", "w2", "w3")}
FEED = {"x": np.zeros((1, 16, 8, 8), np.float32)}


class Clock:
    """Stands for the runner: gives out profiles in the order they are asked for."""

    def __init__(self, *profiles):
        self.profiles = list(profiles)

    def profile(self, model, feeds, *, seconds):
        return self.profiles.pop(0)


def float_times(c1=10.0, c2=10.0, c3=10.0):
    return [
        NodeTime("r1_nchwc", "Conv", (), ("reorder_token_3",), 1024, c1),  # Relu fused, named by its output
        NodeTime("h2_nchwc", "Conv", (), ("h2_nchwc",), 1024, c2),  # HardSwish fused
        NodeTime("n_token_5", "Conv", (), ("c3",), 1024, c3),
        NodeTime("t", "Tanh", (), ("y",), 1024, 5.0),
    ]


def integer_times(c1=4.0, c2=4.0, c3=4.0, swish=0.0):
    return [
        NodeTime("q1", "QuantizeLinear", (), ("q1",), 1024, 3.0),
        NodeTime("Transpose_token_1", "Transpose", (), ("t_token_1",), 1024, 1.0),
        NodeTime(NAMES["c1"] + "_token_9", "QLinearConv", (), ("q3",), 1024, c1),
        NodeTime(NAMES["c2"], "QLinearConv", (), ("q4",), 1024, c2),
        NodeTime("d5", "DequantizeLinear", (), ("d5",), 1024, 2.0),
        NodeTime("h", "HardSwish", (), ("h2",), 1024, swish),
        NodeTime(NAMES["c3"], "QLinearConv", (), ("q6",), 1024, c3),
        NodeTime("t", "Tanh", (), ("y",), 1024, 5.0),
    ]


def probe(cost=1.0):
    return [NodeTime(f"{kind}{size}", "", (), (), size, cost) for kind in "qd" for size in (256, 1 << 14, 1 << 20)]


MODEL = pass_kit.parse(CHAIN, WEIGHTS)
for _index, _node in enumerate(MODEL.graph):
    _node.name = f"node_{_index}"
NAMES = {node.outputs[0].name: node.name for node in MODEL.graph}


def slower(in_float, as_integers, conversion=1.0):
    clock = Clock(in_float, probe(conversion), as_integers)
    baseline = FloatTimes.measured(clock, MODEL, STYLE, [FEED], seconds=1.0)
    return slower_as_integers(clock, MODEL, MODEL, ["c1", "c2", "c3"], STYLE, [FEED], baseline)


def test_what_is_faster_everywhere_is_left_alone():
    assert slower(float_times(), integer_times()).sites == {}


def test_a_slower_site_at_the_end_goes_back_to_float():
    found = slower(float_times(c3=2.0), integer_times(c3=30.0))
    assert found.sites == {"c3": (2.0, 30.0)} and found.gain > 0.3


def test_what_was_fused_in_float_and_is_not_behind_integers_counts():
    found = slower(float_times(), integer_times(swish=40.0))
    assert list(found.sites) == ["c2"]


def test_what_the_runtime_expands_without_a_name_belongs_to_what_it_reads():
    times = integer_times(c2=4.0)
    named = [t for t in times if t.op_type not in ("HardSwish", "DequantizeLinear")]
    hidden = [
        NodeTime("d5", "DequantizeLinear", ("q4",), ("d5",), 1024, 2.0),
        NodeTime("", "HardSigmoid", ("d5",), ("_token_15",), 1024, 40.0),
    ]
    assert list(slower(float_times(), [*named, *hidden]).sites) == ["c2"]


def test_conversions_decide_between_neighbours():
    cheap = slower(float_times(c2=4.0), integer_times(c2=6.0), conversion=0.5)
    dear = slower(float_times(c1=5.0, c2=4.0, c3=4.5), integer_times(c2=6.0), conversion=3.0)
    assert cheap.sites == {"c2": (4.0, 6.0)} or cheap.sites == {}
    assert set(dear.sites) == {"c1", "c2", "c3"}


def test_a_small_gain_is_none():
    found = slower(
        float_times(c3=4.0), [*integer_times(c3=4.2), NodeTime("z", "Tanh", (), ("z",), 1, 100.0)], conversion=0.0
    )
    assert found.sites == {} and 0 < found.gain < 0.02


def test_a_site_that_the_profile_does_not_name_stays_as_it_is():
    unnamed = [t for t in integer_times(c3=30.0) if t.name != NAMES["c3"]]
    assert slower(float_times(c3=2.0), unnamed).sites == {}


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as runner:
        yield runner


def test_the_profile_names_every_kernel_and_its_outputs(runner):
    outcome = int8_kit.quantize(pass_kit.parse(CHAIN, WEIGHTS))
    times = runner.profile(_named(outcome.model), [FEED], seconds=0.05)
    operators = [time.op_type for time in times]
    assert operators.count("QLinearConv") == 3
    assert all(time.microseconds > 0 for time in times) and all(t.elements for t in times if t.op_type == "QLinearConv")
    # ONNX Runtime expands HardSwish when it opens the model, into nodes without names.
    (expanded,) = [time for time in times if time.op_type in ("HardSwish", "HardSigmoid")]
    assert expanded.elements == 1024 and expanded.inputs and expanded.outputs


def test_real_profiles_are_attributed_whole(runner):
    model = pass_kit.parse(CHAIN, WEIGHTS)
    outcome = int8_kit.quantize(model)
    baseline = FloatTimes.measured(runner, model, STYLE, [FEED], seconds=0.05)
    found = slower_as_integers(runner, model, outcome.model, outcome.rewritten, STYLE, [FEED], baseline, seconds=0.05)
    assert set(found.sites) <= set(outcome.rewritten) and -1 < found.gain < 1


class Result:
    def __init__(self, denied):
        self.model = frozenset(denied)


def test_a_proposal_is_taken_only_if_the_whole_is_faster(monkeypatch):
    keys = [SiteKey(0, site) for site in ("a", "b", "c")]
    proposals = [{"a": (1.0, 2.0)}, {"b": (3.0, 2.0)}, {}]
    builds = []

    def build(denied):
        builds.append(dict(denied))
        return Result(denied)

    def decide(verdicts):
        proposed, answers = list(proposals), list(verdicts)
        monkeypatch.setattr(
            timed_placement, "slower_as_integers",
            lambda *a, **k: type("Slower", (), {"sites": proposed.pop(0)})(),
        )  # fmt: skip
        monkeypatch.setattr(timed_placement.FloatTimes, "measured", lambda *a, **k: None)
        monkeypatch.setattr(timed_placement, "_faster", lambda *a: answers.pop(0))
        builds.clear()
        return timed_placement.leave_slower_in_float(
            None, None, Result({}), {keys[2]: "accuracy"}, keys, build=build, style=STYLE, feeds=[FEED]
        )

    taken = decide([True, True])
    assert taken.left == 2 and set(taken.denied) == set(keys) and taken.denied[keys[2]] == "accuracy"
    assert taken.denied[keys[0]] == "left in float: measured slower here (2 us as integers, 1 us in float)"
    assert "with the conversions around it" in taken.denied[keys[1]]
    refused = decide([False])
    assert refused.left == 0 and set(refused.denied) == {keys[2]} and len(builds) == 1
