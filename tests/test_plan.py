"""Plans, recipes, requirements: read what they wrote, and say in one line what is wrong."""

from __future__ import annotations

import pytest

from irc import recipe as recipes
from irc.application import SiteKey
from irc.coverage import Coverage, Covered
from irc.errors import UsageError
from irc.ledger import Entry, Ledger, PassRecord
from irc.measurement import _planned_statistics
from irc.plan import Plan
from irc.requirement import Requirement

PLAN = Plan(
    input_name="m.onnx",
    input_sha256="ab" * 32,
    target="ort{cpu=avx2}",
    pipeline="fold-batch-norm,quantize{embeddings=false}",
    recipe="-O2",
    seed=3,
    denied={SiteKey(1, "conv:0", 0): "back to float: its output error 12 % ..."},
    statistics={
        "sweeps": [{"ranges": {"x": [-1.1754943508222875e-38, 0.1 + 0.2, 128]}, "missing": {}, "samples": 128}]
    },
    samples=128,
)


def test_plan_round_trips_exactly(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(PLAN.to_yaml())
    assert Plan.read(path) == PLAN
    assert Plan.read(path).to_yaml() == PLAN.to_yaml()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("[1, 2", "is not YAML"),
        ("a: 1", "is not a plan written by irc"),
        ("plan: 99", "has version 99"),
        ("plan: 1\ninput: 3", "is damaged"),
    ],
)
def test_bad_plan_files(tmp_path, content, message):
    path = tmp_path / "p.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        Plan.read(path)


def test_plan_of_another_model_is_refused():
    with pytest.raises(UsageError, match=r"made for 'm.onnx'.*but 'other.onnx' is another model"):
        PLAN.check_input("cd" * 32, "other.onnx")


def test_recipe_extends_a_level(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "extends: O2\nbudget: {max_drop: 0.5pt, min_speedup: 1.2}\nexclude: ['op:Gemm']\ntarget: tensorrt\n"
    )
    recipe = recipes.load(path, has_data=True)
    assert [s.pass_.name for s in recipe.steps][-3:] == ["quantize", "correct-bias", "quantize-weights"]
    assert (recipe.max_drop, recipe.min_speedup, recipe.exclude, recipe.target) == (
        "0.5pt",
        1.2,
        ("op:Gemm",),
        "tensorrt",
    )


def test_level_3_is_level_2_behind_a_cut(tmp_path):
    second, third = (recipes.level(name, has_data=True) for name in ("O2", "O3"))
    (cut,) = [step for step in third.steps if step not in second.steps]
    assert cut.text == "prune-channels{loss=0.005,round_to=int8}"
    assert [step for step in third.steps if step is not cut] == list(second.steps) == list(third.second_choice)
    assert (third.max_drop, third.never_worse) == (second.max_drop, True)
    with pytest.raises(UsageError, match="-O3 prunes and repairs by data; give --data"):
        recipes.level("O3", has_data=False)


@pytest.mark.parametrize(("drop", "loss"), [("4%", 0.02), ("1%", 0.005), ("0.5pt", 0.0025)])
def test_pruning_of_level_3_may_spend_half_of_the_budget(tmp_path, drop, loss):
    def cuts(recipe):
        return [step.pass_.loss for step in recipe.steps if step.pass_.name == "prune-channels"]

    assert cuts(recipes.with_budget(recipes.level("O3", has_data=True), {"max_drop": drop})) == [loss]
    path = tmp_path / "r.yaml"
    path.write_text(f"extends: O3\nbudget: {{max_drop: {drop}}}\n")
    assert cuts(recipes.load(path, has_data=True)) == [loss]


def test_recipe_with_a_pipeline_of_mappings(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("pipeline: [fold-batch-norm, {quantize: {embeddings: false, exclude: 'op:Gemm;op:MatMul'}}]\n")
    recipe = recipes.load(path, has_data=True)
    assert recipe.steps[1].text == "quantize{embeddings=false,exclude=op:Gemm;op:MatMul}"
    assert not recipe.has_budget


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("pipline: x", "unknown key 'pipline'; did you mean 'pipeline'"),
        ("budget: {}", "neither 'pipeline' nor 'extends'"),
        ("extends: O2\nbudget: {max_dorp: 1%}", "did you mean 'max_drop'"),
        ("extends: O2\nobjective: beauty", "must be latency or bytes"),
        ("extends: O9", "unknown level"),
        ("extends: Os", "not in this version"),
        ("- a", "must be a mapping"),
        ("pipeline: [{quantize: {}, fold-batch-norm: {}}]", "is not a pass"),
        ("pipeline: [{quantize: [1, 2]}]", "quantize has .1, 2.; write its options"),
        ("extends: O2\nbudget: {min_speedup: fast}", "--min-speedup is 'fast'"),
        ("extends: O2\nbudget: {min_speedup: [1]}", "--min-speedup is .1."),
        ("extends: O2\ninclude: {op: Conv}", "include is {'op': 'Conv'}; write a selector"),
    ],
)
def test_bad_recipes(tmp_path, content, message):
    path = tmp_path / "r.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        recipes.load(path, has_data=True)


COVERAGE = Coverage(
    (
        Covered("a", "Conv", True, True),
        Covered("b", "Conv", True, True),
        Covered("c", "Conv", False, False, "too small"),
        Covered("d", "Gemm", True, False, "quantized, but the runtime did not fuse it"),
    ),
    "test",
)
LEDGER = Ledger(
    [PassRecord("quantize", "quantize", "approximate", [Entry("a", "Conv")], [Entry("c", "Conv", "too small")])]
)


@pytest.mark.parametrize(
    ("clause", "met"),
    [
        ("int8:Conv>=66%", True),
        ("int8:Conv>=67%", False),
        ("int8:50%", True),
        ("int8>=51%", False),
        ("quantize>=50%", True),
        ("quantize:Conv>=51%", False),
        ("int8:LSTM>=1%", False),
    ],
)
def test_requirements_count_facts(clause, met):
    unmet = Requirement.parse(clause).unmet(LEDGER, COVERAGE)
    assert (unmet is None) == met, unmet


def test_unmet_requirement_says_how_far_and_why():
    text = Requirement.parse("int8:Conv>=90%").unmet(LEDGER, COVERAGE)
    assert text == "int8:Conv>=90%: 2 of 3 (67 %) (too small)"


@pytest.mark.parametrize("clause", ["int8", "int8:Conv", "int8:Conv>=101%", ">=3%", "int8:Conv=90%"])
def test_malformed_requirements(clause):
    with pytest.raises(UsageError, match="malformed"):
        Requirement.parse(clause)


def test_requirement_of_a_pass_that_did_not_run():
    with pytest.raises(UsageError, match="no pass called 'prune' ran"):
        Requirement.parse("prune>=10%").unmet(LEDGER, None)


@pytest.mark.parametrize(
    "statistics", [{"sweeps": 3}, {"sweeps": [7]}, {"sweeps": [{"model": "m", "ranges": {"x": 1}}]}]
)
def test_damaged_statistics_of_a_plan(statistics):
    with pytest.raises(UsageError, match="statistics of the plan are damaged"):
        _planned_statistics(statistics, "m", "min-max", {"x"})
