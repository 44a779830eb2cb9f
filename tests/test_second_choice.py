"""Dynamic int8 where static int8 comes to little: activations whose size differs a millionfold from sample to sample."""

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pass_kit
import pytest

import irc
from irc.built import Built
from irc.ledger import Entry, Ledger, PassRecord
from irc.recipe import Recipe
from irc.second_choice import with_second_choice

GRAPH = "g (float[n,64] x) => (float[n,64] y) { h = MatMul(x, w) r = Relu(h) k = MatMul(r, v) y = Neg(k) }"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    model = pass_kit.parse(GRAPH, {"w": (64, 64), "v": (64, 64)})
    path = tmp_path_factory.mktemp("m") / "model.onnx"
    onnx.save(ir.to_proto(model), path)
    return path


def feeds(spread):
    rng = np.random.default_rng(0)
    return [
        {"x": (rng.standard_normal((2, 64)) * 10.0 ** rng.uniform(-spread, spread)).astype(np.float32)}
        for _ in range(32)
    ]


def per_sample(run):
    """How well the outputs of every sample keep their direction, the size of the sample not counting."""
    weights = [onnx.numpy_helper.to_array(t) for t in per_sample.model.graph.initializer]
    scores = []
    for feed in feeds(3):
        exact = -np.maximum(feed["x"].astype(np.float64) @ weights[0], 0) @ weights[1]
        found = run(feed)[0].astype(np.float64)
        scores.append((exact * found).sum() / max(np.linalg.norm(exact) * np.linalg.norm(found), 1e-300))
    return float(np.mean(scores))


per_sample.higher_is_better = True


def test_dynamic_int8_is_taken_where_static_is_given_up(path, tmp_path):
    per_sample.model = onnx.load(path)
    options = dict(data=feeds(3), metric=per_sample, max_drop="1%", measure=False, search=False)
    report = irc.optimize(path, output=tmp_path / "a.onnx", **options)
    operators = [node.op_type for node in onnx.load(report.output).graph.node]
    assert operators.count("MatMulInteger") == 2 and "QuantizeLinear" not in operators
    assert report.exit_code == 0
    assert any("had to be taken back; quantize-dynamic was built instead" in note for note in report.notes)
    replayed = irc.optimize(path, plan=report.files[2], output=tmp_path / "b.onnx")
    assert replayed.output.read_bytes() == report.output.read_bytes()
    alone = irc.optimize(path, output=tmp_path / "c.onnx", passes="quantize", **(options | {"max_drop": "100%"}))
    assert alone.accuracy.loss > 0.05  # fixed ranges do lose it


def test_static_int8_stays_where_it_holds(path, tmp_path):
    report = irc.optimize(path, output=tmp_path / "a.onnx", data=feeds(0), max_drop="5%", measure=False)
    operators = [node.op_type for node in onnx.load(report.output).graph.node]
    assert "QuantizeLinear" in operators and "MatMulInteger" not in operators


class Stub:
    """A build and what it gave, in one."""

    def __init__(self, approximate, taken_back, speedup=None, missed=(), second=("step",), plan=None):
        self.approximate, self.taken_back, self.missed, self.notes = approximate, taken_back, list(missed), []
        self.latency = None if speedup is None else type("Latency", (), {"speedup": speedup})()
        self.recipe, self.plan, self.ledger = Recipe("-O2", (), second_choice=second), plan, []

    def run(self):
        return self


@pytest.mark.parametrize(
    "first, second, taken",
    [
        (Stub(10, 3, 2.0), Stub(10, 0, 3.0), False),  # little was taken back: the second is not even built
        (Stub(3, 10, 1.2), Stub(10, 0, 1.5), True),
        (Stub(3, 10, 1.2), Stub(10, 0, 1.2), False),
        (Stub(3, 10, 1.2), Stub(10, 0, 1.5, ["loss"]), False),
        (Stub(3, 10, 1.2), Stub(0, 10, 1.5), False),
        (Stub(0, 10), Stub(4, 0), True),
        (Stub(3, 10, 1.2, plan="plan"), Stub(10, 0, 1.5), False),
        (Stub(3, 10, 1.2, second=()), Stub(10, 0, 1.5), False),
    ],
)
def test_the_faster_within_the_budget_is_taken(first, second, taken):
    build, built = with_second_choice(first, first, lambda recipe: second)
    assert built is (second if taken else first) and build is built


def test_refinements_do_not_count_as_rewrites_that_stayed():
    sites = [Entry(name, "Conv", "") for name in "abcde"]
    records = [
        PassRecord("quantize", "quantize", "approximate", rewritten=sites[:2], undone=sites[2:]),
        PassRecord("correct-bias", "correct-bias", "approximate", rewritten=sites[:2]),
    ]
    rest = dict.fromkeys(field.name for field in dataclasses.fields(Built))
    built = Built(**{**rest, "ledger": Ledger(records), "refinements": {"correct-bias"}})
    assert (built.approximate, built.taken_back) == (2, 3)
