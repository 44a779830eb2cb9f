"""The search gives every site the cheapest variant that keeps the model within its budget, and says what it chose."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pass_kit
import pytest
import yaml
from test_second_choice import feeds, per_sample
from test_second_choice import path as outliers  # noqa: F401

import irc
from irc.acceptance import Accepted
from irc.application import SiteKey
from irc.calibration.data import FeedList, Sample
from irc.errors import UsageError
from irc.ir import add_initializer, constant
from irc.pass_base import Context, Contract, Pass, Remark, Site, Skip, node_id
from irc.runner import Runner
from irc.variant_search import OWN, _alone

GRAPH = """g (float[n,32] x) => (float[n,32] y) {
    a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) d = Relu(c) e = MatMul(d, w2) f = Relu(e) y = MatMul(f, w3)
}"""
SHAPES = {f"w{i}": (32, 32) for i in range(4)}
NOISE = {"coarse": 0.5, "fine": 0.02, "broken": np.inf}


@dataclasses.dataclass(frozen=True)
class Spoil(Pass):
    """Halves weights and adds noise to them: much, or less by a variant; the first product never has a fine one."""

    name: ClassVar[str] = "test-spoil"
    contract: ClassVar[Contract] = Contract.APPROXIMATE

    def sites(self, model, ctx):
        for node in model.graph:
            if node.op_type == "MatMul":
                choice = ctx.choices.get(f"{self.name}/{node_id(node)}", "coarse")
                yield Skip(node, "never") if choice == "fine" and node_id(node) == "a" else Site(node, choice)

    def rewrite(self, site, ctx):
        weight = stored(site.node)
        noise = np.random.default_rng(len(site.id)).standard_normal(weight.shape)
        spoiled = (weight + NOISE[site.match] * noise).astype(np.float16)
        graph = site.node.graph
        cast = ir.node("Cast", [add_initializer(graph, "spoiled", spoiled)], {"to": ir.DataType.FLOAT.value})
        cast.outputs[0].name = f"{site.id}_w"
        graph.insert_before(site.node, cast)
        old = site.node.inputs[1]
        site.node.replace_input_with(1, cast.outputs[0])
        del graph.initializers[old.name]
        return Remark(f"noise of {NOISE[site.match]}")

    def variants(self, model, ctx):
        return {node_id(n): ("fine", "broken") for n in model.graph if n.op_type == "MatMul"}

    def site_errors(self, before, after, sites, ctx):
        makers = [{node_id(n): n for n in m.graph} for m in (before, after)]
        weights = [[stored(maker[site]) for maker in makers] for site in sites]
        return {s: float(np.sum((a - b) ** 2) / np.sum(a**2)) for s, (a, b) in zip(sites, weights, strict=True)}


class Hopeless(Spoil):
    """The same without a fine variant."""

    def variants(self, model, ctx):
        return {site: ("broken",) for site in super().variants(model, ctx)}

    def rewrite(self, site, ctx):
        return super().rewrite(dataclasses.replace(site, match="broken"), ctx)


class Refused(Spoil):
    """With a variant that the runtime refuses."""

    def variants(self, model, ctx):
        return {site: ("refused", "fine") for site in super().variants(model, ctx)}

    def rewrite(self, site, ctx):
        if site.match != "refused":
            return super().rewrite(site, ctx)
        found = super().rewrite(dataclasses.replace(site, match="fine"), ctx)
        graph = site.node.graph
        shape = add_initializer(graph, "shape", np.array([7, 5], np.int64))
        reshape = ir.node("Reshape", [site.node.inputs[0], shape])
        reshape.outputs[0].name = f"{site.id}_r"
        graph.insert_before(site.node, reshape)
        site.node.replace_input_with(0, reshape.outputs[0])
        return found

    def site_errors(self, before, after, sites, ctx):
        with ctx.runner.open(after) as opened:
            opened.run(next(iter(ctx.data.samples())).feed)
        return super().site_errors(before, after, sites, ctx)


def stored(node):
    """The weight of a product, behind a Cast or not."""
    value = node.inputs[1]
    return constant(value.producer().inputs[0] if value.producer() is not None else value).astype(np.float64)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(ir.to_proto(pass_kit.parse(GRAPH, SHAPES)), path)
    return path


def samples(count=24):
    rng = np.random.default_rng(5)
    return [{"x": rng.standard_normal((2, 32)).astype(np.float32)} for _ in range(count)]


def build(model, tmp_path, pass_=Spoil(), **options):
    options = {"max_drop": "5%", "measure": False, "data": samples(), **options}
    return irc.optimize(model, output=tmp_path / "out.onnx", passes=[pass_], **options)


def test_sites_get_the_variant_that_fits_and_the_plan_says_so(model, tmp_path):
    report = build(model, tmp_path)
    record = report.ledger["test-spoil"]
    assert report.exit_code == 0 and report.accuracy.loss <= 0.05
    assert {entry.site for entry in record.rewritten} == {"c", "e", "y"}
    assert all("fine, chosen by the search" in entry.reason for entry in record.rewritten)
    assert all("noise of 0.02" in entry.reason for entry in record.rewritten), "what the pass says stays"
    (left,) = record.undone
    assert left.site == "a" and left.reason.startswith("left in float by the search")
    plan = yaml.safe_load(report.files[2].read_text())
    assert plan["choices"] == {f"test-spoil/{name}": "fine" for name in "cey"}


def test_any_number_of_workers_gives_the_same_files(model, tmp_path):
    found = []
    for workers in (1, 3):
        report = build(model, tmp_path, workers=workers)
        found.append([file.read_bytes() for file in report.files])
    assert found[0] == found[1]


def test_a_variant_that_does_not_run_is_left_out(model, tmp_path):
    report = build(model, tmp_path, pass_=Refused())
    assert all("fine, chosen by the search" in entry.reason for entry in report.ledger["test-spoil"].rewritten)


def test_what_is_dumped_is_what_stays_not_what_was_tried_last(model, tmp_path):
    report = build(model, tmp_path, max_drop="30%", dump_after="test-spoil")
    (dump,) = [file for file in report.files if "test-spoil" in file.name]
    assert dump.read_bytes() == report.output.read_bytes()


TWO_READERS = "g (float[n,64] x) => (float[n,64] y, float[n,64] z) { y = MatMul(x, w0) z = MatMul(x, w1) }"


@pytest.mark.parametrize("variant", ["min-max", "dynamic"])
def test_the_choice_of_a_site_left_in_float_still_counts_for_what_it_shares(tmp_path, monkeypatch, variant):
    path, rng = tmp_path / "m.onnx", np.random.default_rng(0)
    onnx.save(ir.to_proto(pass_kit.parse(TWO_READERS, {"w0": (64, 64), "w1": (64, 64)})), path)
    data = [{"x": rng.standard_t(2, (4, 64)).astype(np.float32)} for _ in range(8)]
    choices = {"quantize/y": variant, "quantize/z": "percentile"}

    def accept(candidates, judge, *args, **options):
        denied = {candidates.keys[0]: "left in float: measured slower here"}
        return Accepted(candidates.build(denied, choices), denied, choices)

    monkeypatch.setattr("irc.build.accept", accept)
    options = dict(data=data, max_drop="5%", passes="quantize", measure=False)
    report = irc.optimize(path, output=tmp_path / "a.onnx", **options)
    assert [entry.site for entry in report.ledger["quantize"].rewritten] == ["z"]
    replayed = irc.optimize(path, plan=report.files[2], output=tmp_path / "b.onnx")
    assert replayed.output.read_bytes() == report.output.read_bytes()


def test_variants_alone_are_measured_as_their_target_computes_them():
    base, spoiled = (
        pass_kit.parse(GRAPH, {name: np.full((32, 32), scale, np.float32) for name in SHAPES}) for scale in (0.1, 0.2)
    )
    source = FeedList([Sample(feed) for feed in samples(3)])
    with Runner(threads=1) as runner:
        candidates = SimpleNamespace(
            float_model=base,
            context=Context(data=source),
            runner=runner,
            keys=[SiteKey(0, "a")],
            build=lambda denied, choices: SimpleNamespace(model=base),
            as_executed=lambda model: spoiled,
        )
        found = _alone(candidates, [(SiteKey(0, "a"), OWN)], 1)
    assert found[SiteKey(0, "a"), OWN] > 0.1


def test_nothing_is_searched_within_the_budget(model, tmp_path):
    report = build(model, tmp_path, max_drop="100%")
    assert len(report.ledger["test-spoil"].rewritten) == 4
    assert not any("search" in note for note in report.notes)


def test_without_the_search_sites_are_taken_back(model, tmp_path):
    report = build(model, tmp_path, search=False)
    assert not any("search" in note for note in report.notes)
    assert all(entry.reason.startswith("back to float") for entry in report.ledger["test-spoil"].undone)
    assert report.accuracy.loss <= 0.05


def test_a_budget_that_nothing_meets_leaves_the_model_in_float(model, tmp_path):
    report = build(model, tmp_path, pass_=Hopeless())
    assert report.exit_code == 3 and not report.ledger["test-spoil"].rewritten
    assert "no site can be rewritten within at most 5 % relative loss" in report.missed[0]


def test_quantize_finds_dynamic_ranges_for_samples_of_very_different_size(outliers, tmp_path):  # noqa: F811
    per_sample.model = onnx.load(outliers)
    options = dict(data=feeds(3), metric=per_sample, max_drop="1%", measure=False, passes="quantize")
    report = irc.optimize(outliers, output=tmp_path / "a.onnx", **options)
    operators = [node.op_type for node in onnx.load(report.output).graph.node]
    assert operators.count("MatMulInteger") == 2 and report.exit_code == 0
    assert {entry.reason.split(",")[0] for entry in report.ledger["quantize"].rewritten} == {"dynamic"}
    replayed = irc.optimize(outliers, plan=report.files[2], output=tmp_path / "b.onnx")
    assert replayed.output.read_bytes() == report.output.read_bytes()


def test_a_plan_with_an_unknown_variant_is_refused(outliers, tmp_path):  # noqa: F811
    report = irc.optimize(outliers, output=tmp_path / "a.onnx", data=feeds(0), passes="quantize", measure=False)
    text = report.files[2].read_text() + "choices: {quantize/h: magic}\n"
    plan = tmp_path / "a.plan.yaml"
    plan.write_text(text)
    with pytest.raises(UsageError, match=r"quantize: 'h' has no variant 'magic'"):
        irc.optimize(outliers, plan=plan, output=tmp_path / "b.onnx")
