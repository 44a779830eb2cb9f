"""Laws and decisions of the judge as a whole."""

import random
import zlib
from typing import Any

import numpy as np
import pytest
from judge_cases import (
    CLASSIFIER,
    LANGUAGE_MODEL,
    REGRESSION,
    DyingModel,
    FakeModel,
    feeds,
    graph,
    identity_judge,
    source,
)

from irc.calibration.data import DataSource, Sample
from irc.errors import DataError, RunnerError, UsageError
from irc.judge import Assessment, Budget, Judge

TWO_OUTPUTS = """g (float[N,4] x) => (float[N,4] logits, float[N,4] y) <float[4,4] w> {
    logits = MatMul(x, w) y = Relu(x) }"""
EMBEDDING = "g (float[N,16] x) => (float[N,16] y) <float[16] s, float[16] b> { y = LayerNormalization(x, s, b) }"


def noise(scale: float, seed: int = 0) -> FakeModel:
    """The identity with noise that depends on the sample alone."""

    def run(feed: dict[str, np.ndarray]) -> np.ndarray:
        generator = np.random.default_rng([seed, zlib.crc32(feed["x"].tobytes())])
        return feed["x"] + scale * generator.normal(size=feed["x"].shape).astype(np.float32)

    return FakeModel(run)


def both(model: FakeModel) -> FakeModel:
    return FakeModel(lambda feed: {"logits": model.run(feed)["logits"], "y": feed["x"]})


def same(a: Assessment, b: Assessment) -> None:
    for field in ("kind", "name", "reference", "value", "criterion", "loss", "bound", "n", "trials"):
        x, y = getattr(a, field), getattr(b, field)
        assert x == (pytest.approx(y, rel=1e-9) if isinstance(y, float) else y), field


def argmax_label(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1]).argmax(axis=-1)


SETUPS: dict[str, tuple[list[Sample], dict[str, Any]]] = {
    "agreement": (feeds(41, 4), {}),
    "language model": (feeds(41, 5, 9), {"model": LANGUAGE_MODEL}),
    "error": (feeds(41, 3), {"model": REGRESSION, "output": "y"}),
    "embedding": (feeds(41, 16), {"model": EMBEDDING, "output": "y"}),
    "labels": (feeds(41, 4, label=argmax_label), {}),
    "numeric labels": (feeds(41, 3, label=lambda x: x + 0.3), {"model": REGRESSION, "output": "y"}),
    "f1": (feeds(41, 4, label=argmax_label), {"metric": "f1"}),
    "cross-entropy": (feeds(401, 4, label=argmax_label), {"metric": "cross-entropy"}),
    "spearman": (feeds(41, 1, label=lambda x: x[0]), {"model": REGRESSION, "output": "y", "metric": "spearman"}),
}


def named(model: FakeModel, options: dict[str, Any]) -> FakeModel:
    return FakeModel(lambda feed: {"logits": (y := model.run(feed)["logits"]), "y": y})


def judge_of(samples: list[Sample], options: dict[str, Any]) -> Judge:
    options = dict(options)
    model, output = options.pop("model", CLASSIFIER), options.pop("output", "logits")
    return identity_judge(samples, model=model, output=output, **options)


@pytest.mark.parametrize("name", SETUPS)
@pytest.mark.parametrize("half", ["choice", "acceptance", "all"])
def test_permuting_samples_changes_nothing(name: str, half: str) -> None:
    samples, options = SETUPS[name]
    shuffled = samples.copy()
    random.Random(1).shuffle(shuffled)
    candidate = named(noise(0.3), options)
    first = judge_of(samples, options).assess(candidate, half=half)
    same(judge_of(shuffled, options).assess(candidate, half=half), first)
    assert first.loss > 0.0 and first.bound > first.loss  # type: ignore[operator]


@pytest.mark.parametrize("name", SETUPS)
def test_repeated_samples_are_no_new_evidence(name: str) -> None:
    samples, options = SETUPS[name]
    candidate = named(noise(0.3), options)
    same(judge_of(samples * 3, options).assess(candidate), judge_of(samples, options).assess(candidate))


@pytest.mark.parametrize("name", SETUPS)
def test_the_original_loses_nothing_but_is_not_certain(name: str) -> None:
    samples, options = SETUPS[name]
    found = judge_of(samples, options).assess(named(noise(0.0), options))
    assert found.loss == 0.0 and found.value == found.reference
    assert found.bound is not None and 0.0 < found.bound < 0.2
    assert Budget().allows(found) and found.rejected is None and found.drop_points == 0.0


@pytest.mark.parametrize("name", SETUPS)
def test_more_noise_is_more_loss(name: str) -> None:
    samples, options = SETUPS[name]
    judge = judge_of(samples, options)
    found = [judge.assess(named(noise(scale), options), half="all") for scale in (0.02, 0.3, 3.0)]
    losses = [assessment.loss for assessment in found]
    assert losses[0] < losses[1] < losses[2] and losses[2] > 0.05
    scores = [{score.name: score.reference for score in assessment.scores} for assessment in found]
    assert scores[0] == scores[1] == scores[2]


def test_kinds_of_evidence_in_their_order() -> None:
    expected = {"agreement": "agreement", "language model": "agreement", "embedding": "agreement", "error": "error"}
    for name, (samples, options) in SETUPS.items():
        kind = "metric" if "metric" in options else expected.get(name, "labels")
        judge = judge_of(samples, options)
        assert judge.kind == kind, name
        n = len(samples)
        assert f"{n - n // 2} samples to choose, {n // 2} to accept" in judge.describe()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["agreement", "error", "labels", "f1", "embedding"])
def test_new_nan_and_infinity_reject(name: str, poison: float) -> None:
    samples, options = SETUPS[name]

    def broken(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        y = feed["x"].copy()
        y[0, 0] = poison
        return {"logits": y, "y": y}

    found = judge_of(samples, options).assess(FakeModel(broken))
    assert found.loss == 1.0 and not Budget(1.0).allows(found)
    assert "has 1 NaN or infinite numbers where the original has none" in (found.rejected or "")
    assert found.lines()[0].startswith("rejected: output ")


def test_infinities_of_the_original_are_not_held_against_the_candidate() -> None:
    samples = feeds(40, 4)
    for sample in samples:
        sample.feed["x"][0, 3] = -np.inf
    judge = identity_judge(samples)
    assert judge.assess(FakeModel(lambda feed: np.maximum(feed["x"], -1e4))).rejected is None


def test_a_candidate_that_dies_is_rejected_but_an_original_that_dies_is_an_error() -> None:
    judge = identity_judge(feeds(10, 4))
    found = judge.assess(DyingModel())
    assert found.rejected == "the candidate does not run: the runtime died with SIGSEGV" and found.loss == 1.0
    with pytest.raises(RunnerError):
        Judge(graph(CLASSIFIER), DyingModel(), source(feeds(10, 4))).assess(DyingModel())


def test_a_missing_output_and_another_type_reject() -> None:
    judge = identity_judge(feeds(10, 4))
    assert "has no output 'logits'" in (judge.assess(FakeModel(lambda feed: feed["x"], "other")).rejected or "")
    integers = judge.assess(FakeModel(lambda feed: feed["x"].astype(np.int64)))
    assert "is int64; the original's is float32" in (integers.rejected or "")


def test_another_shape_loses_everything() -> None:
    judge = identity_judge(feeds(10, 4))
    assert judge.assess(FakeModel(lambda feed: feed["x"][:, :3])).loss == 1.0
    labelled = identity_judge(feeds(10, 4, label=argmax_label))
    assert "has shape [1, 3]" in (labelled.assess(FakeModel(lambda feed: feed["x"][:, :3])).rejected or "")


def test_of_several_outputs_the_worst_decides_and_one_can_be_chosen() -> None:
    samples = feeds(40, 4)
    original = FakeModel(lambda feed: {"logits": feed["x"], "y": feed["x"]})
    candidate = FakeModel(lambda feed: {"logits": feed["x"], "y": feed["x"] * 0.8})
    found = Judge(graph(TWO_OUTPUTS), original, source(samples)).assess(candidate)
    assert found.criterion == "explained output variance" and found.loss == pytest.approx(0.04, rel=0.1)
    assert [score.output for score in found.scores] == ["y", "logits"]
    assert Judge(graph(TWO_OUTPUTS), original, source(samples), output="logits").assess(candidate).loss == 0.0


def test_labels_do_not_hide_another_output_but_a_metric_does() -> None:
    samples = feeds(700, 4, label=argmax_label)
    original = FakeModel(lambda feed: {"logits": feed["x"], "y": feed["x"]})
    candidate = FakeModel(lambda feed: {"logits": feed["x"], "y": feed["x"] * 0.5})
    found = Judge(graph(TWO_OUTPUTS), original, source(samples)).assess(candidate)
    assert found.kind == "labels" and found.name == "accuracy" and found.value == found.reference
    assert found.loss == pytest.approx(0.25, rel=0.1)
    metric = Judge(graph(TWO_OUTPUTS), original, source(samples), metric="accuracy").assess(candidate)
    assert metric.loss == 0.0


def test_caches_are_left_out_where_there_are_class_scores() -> None:
    text = TWO_OUTPUTS.replace("y", "present.0.value".replace(".", "_"))
    original = FakeModel(lambda feed: {"logits": feed["x"], "present_0_value": feed["x"]})
    candidate = FakeModel(lambda feed: {"logits": feed["x"], "present_0_value": feed["x"] * 0})
    assert Judge(graph(text), original, source(feeds(40, 4))).assess(candidate).loss == 0.0


# -- labels that are too few -----------------------------------------------------------------------------------------


def flip_even_ones(count: int) -> FakeModel:
    """Swaps two classes with nearly equal scores on the first `count` samples it meets."""
    seen: list[bytes] = []

    def run(feed: dict[str, np.ndarray]) -> np.ndarray:
        y = feed["x"].copy()
        if feed["x"].tobytes() not in seen:
            seen.append(feed["x"].tobytes())
        if seen.index(feed["x"].tobytes()) < count:
            y[0, :2] = y[0, 1::-1]
        return y

    return FakeModel(run)


def even_samples(n: int) -> list[Sample]:
    """Two leading classes, 0.5 apart, of which the larger is the label."""
    generator = np.random.default_rng(0)
    samples = []
    for _ in range(n):
        x = np.zeros((1, 4), np.float32)
        x[0, :2] = 3.0 + generator.permutation([0.0, 0.5]) + generator.normal()
        samples.append(Sample({"x": x}, {"y": argmax_label(x)}))
    return samples


def test_few_labels_report_accuracy_but_the_expected_loss_decides() -> None:
    judge = identity_judge(even_samples(64))
    found = judge.assess(flip_even_ones(1), half="all")
    assert found.name == "accuracy" and found.reference == 1.0 and found.value == pytest.approx(63 / 64)
    assert found.criterion == "expected accuracy" and 0.001 < found.loss < 1 / 64
    assert Budget().allows(found)
    assert found.notes == ("64 labels are too few to decide by accuracy: the loss of expected accuracy decides",)
    assert any(line.startswith("accuracy of 'logits' 1 -> 0.9844") for line in found.lines())


def test_few_labels_still_decide_what_they_show_for_certain() -> None:
    judge = identity_judge(even_samples(64))
    found = judge.assess(flip_even_ones(20), half="all")
    assert found.criterion == "accuracy" and 0.15 < found.loss < 20 / 64
    assert not Budget().allows(found)


def test_enough_labels_decide_alone_and_so_does_a_metric() -> None:
    found = identity_judge(even_samples(320)).assess(flip_even_ones(1), half="all")
    assert found.criterion == "accuracy" and found.loss == pytest.approx(1 / 320) and found.notes == ()
    explicit = identity_judge(even_samples(64), metric="accuracy").assess(flip_even_ones(1), half="all")
    assert explicit.kind == "metric" and explicit.loss == pytest.approx(1 / 64)


def test_a_wider_budget_needs_fewer_labels() -> None:
    judge = identity_judge(even_samples(64), budget=Budget.parse(max_drop="5%"))
    assert judge.assess(flip_even_ones(1), half="all").criterion == "accuracy"


# -- what the evidence rests on --------------------------------------------------------------------------------------


def test_logits_that_do_not_look_like_classes_are_judged_by_their_error() -> None:
    boxes = feeds(40, 4)
    for sample in boxes:
        sample.feed["x"][...] = np.array([10.0, 20, 300, 200]) + sample.feed["x"]
    assert identity_judge(boxes).kind == "error"
    small = [Sample({"x": 0.05 * sample.feed["x"]}) for sample in feeds(40, 4)]
    assert identity_judge(small).kind == "error"


def test_numeric_labels_of_something_else_are_not_used_unless_named() -> None:
    generator = np.random.default_rng(3)
    samples = feeds(40, 3, label=lambda x: generator.normal(size=x.shape))
    judge = identity_judge(samples, model=REGRESSION, output="y")
    assert judge.kind == "error"
    assert judge.assess(FakeModel(lambda feed: feed["x"], "y")).notes == (
        "label 'y' float64[1, 3] fits no output and is not used",
    )
    with pytest.raises(DataError, match=r"label 'y' .* fits no output .*name a --metric"):
        assert identity_judge(samples, model=REGRESSION, output="y", label="y").kind


def test_scores_in_other_units_than_their_labels_are_ranked() -> None:
    samples = feeds(60, 1, label=lambda x: 50 + 1000 * x[0])
    found = identity_judge(samples, model=REGRESSION, output="y").assess(FakeModel(lambda feed: feed["x"], "y"))
    assert (found.kind, found.name, found.reference) == ("labels", "Spearman correlation", pytest.approx(1.0))


def test_several_labels_need_a_choice() -> None:
    samples = [Sample(s.feed, {"y": s.labels["y"], "z": s.labels["y"]}) for s in feeds(8, 4, label=argmax_label)]
    with pytest.raises(DataError, match=r"test data: there are several labels \(y, z\); choose one with --label"):
        assert identity_judge(samples).kind
    assert identity_judge(samples, label="z").kind == "labels"
    with pytest.raises(DataError, match="no label 'w'; labels found: y, z"):
        assert identity_judge(samples, label="w").kind


def test_a_built_in_metric_needs_labels_that_fit() -> None:
    with pytest.raises(UsageError, match="--metric accuracy needs labels"):
        assert identity_judge(feeds(8, 4), metric="accuracy").kind
    samples = feeds(8, 4, label=lambda x: np.arange(3))
    with pytest.raises(
        DataError, match=r"--metric accuracy: labels int64\[3\] fit no output \(logits float32\[1, 4\]\)"
    ):
        assert identity_judge(samples, metric="accuracy").kind


def test_a_metric_reads_outputs_that_the_graph_does_not_explain() -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
    judge = identity_judge(feeds(8, 4, label=argmax_label), model=text, output="y", metric="accuracy")
    assert judge.assess(FakeModel(lambda feed: feed["x"], "y")).value == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acuracy"}, "--metric 'acuracy' does not exist; did you mean 'accuracy'"),
        ({"metric": "bleu"}, "--metric 'bleu' does not exist; there is accuracy, f1, cross-entropy, spearman, or FILE"),
        ({"output": "logit"}, "the model has no output 'logit'; did you mean 'logits'"),
    ],
)
def test_misspellings_are_answered_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Judge(graph(CLASSIFIER), FakeModel(lambda feed: feed["x"]), source(feeds(8, 4)), **options)


def test_generated_samples_prove_nothing() -> None:
    judge = Judge(
        graph(CLASSIFIER), FakeModel(lambda feed: feed["x"]), source(feeds(800, 4), synthetic=True), budget=Budget()
    )
    found = judge.assess(FakeModel(lambda feed: feed["x"]))
    assert found.synthetic and not found.can_prove(Budget()) and not found.proves(Budget())
    assert "generated" in judge.describe() and "generated" in found.lines(Budget())[-1]


def test_a_single_sample_chooses_and_accepts() -> None:
    judge = identity_judge(feeds(1, 4))
    assert "a single sample" in judge.describe()
    found = judge.assess(FakeModel(lambda feed: feed["x"]), half="acceptance")
    assert found.n == 1 and found.loss == 0.0 and found.bound == pytest.approx(1.0, abs=0.06)


class Restless(DataSource):
    """Yields other samples at every sweep."""

    name = "restless.py:f"

    def __init__(self) -> None:
        self.sweeps = 0

    def __len__(self) -> int:
        return 4

    def samples(self) -> Any:
        self.sweeps += 1
        yield from feeds(4, 4, seed=self.sweeps)


def test_data_that_changes_between_sweeps_is_refused() -> None:
    judge = Judge(graph(CLASSIFIER), FakeModel(lambda feed: feed["x"]), Restless())
    with pytest.raises(DataError, match=r"restless.py:f: .* differ from one sweep to the next"):
        judge.assess(FakeModel(lambda feed: feed["x"]))


def test_no_samples_and_unknown_halves_are_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        identity_judge([]).assess(FakeModel(lambda feed: feed["x"]))
    with pytest.raises(UsageError, match="half is 'both'"):
        identity_judge(feeds(8, 4)).assess(FakeModel(lambda feed: feed["x"]), half="both")


# -- cost ------------------------------------------------------------------------------------------------------------


def test_the_original_runs_once_per_sample_and_the_candidate_once_per_assessment() -> None:
    original, candidate = FakeModel(lambda feed: feed["x"]), FakeModel(lambda feed: feed["x"])
    judge = Judge(graph(CLASSIFIER), original, source(feeds(40, 4)))
    for _ in range(3):
        judge.assess(candidate)
    assert (original.runs, candidate.runs) == (20, 60)
    judge.assess(candidate, half="acceptance")
    assert (original.runs, candidate.runs) == (40, 80)


def test_outputs_beyond_the_memory_limit_are_computed_again_with_equal_results() -> None:
    original = FakeModel(lambda feed: feed["x"])
    judge = Judge(graph(CLASSIFIER), original, source(feeds(40, 4)), memory_limit=5 * 16)
    same(judge.assess(noise(0.3)), identity_judge(feeds(40, 4)).assess(noise(0.3)))
    assert len(judge._samples._reference._kept) == 5
    assert original.runs > 20


def test_batches_count_their_rows_and_padding_does_not_count() -> None:
    generator = np.random.default_rng(0)
    samples = [Sample({"x": generator.normal(size=(8, 4)).astype(np.float32)}) for _ in range(10)]
    assert identity_judge(samples).assess(noise(0.1), half="all").n == 80
    ids = generator.normal(size=(4, 6, 9)).astype(np.float32)
    mask = np.tril(np.ones((4, 6), np.int64), 2)
    padded = [Sample({"x": ids, "attention_mask": mask})]

    def candidate(feed: dict[str, np.ndarray]) -> np.ndarray:
        return np.where(feed["attention_mask"][..., None] > 0, feed["x"], 0.0).astype(np.float32)

    found = identity_judge(padded, model=LANGUAGE_MODEL).assess(FakeModel(candidate))
    assert found.loss == 0.0 and {score.trials for score in found.scores} == {0, int(mask.sum())}


def test_assessments_are_plain_for_json() -> None:
    import json

    found = identity_judge(feeds(40, 4)).assess(noise(0.3)).to_dict()
    assert json.loads(json.dumps(found))["resolution"] == pytest.approx(1 / 20)
    assert found["scores"][0]["output"] == "logits"
