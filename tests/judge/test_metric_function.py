import textwrap
from pathlib import Path

import numpy as np
import pytest
from judge_cases import FakeModel, feeds, identity_judge

from irc.errors import RunnerError
from irc.judge import MetricError
from irc.judge.metric_function import MetricFunction, load_metric

MODEL = FakeModel(lambda feed: {"a": feed["x"] * 2, "b": feed["x"] + 1})


def write(folder: Path, text: str) -> Path:
    path = folder / "mymetric.py"
    path.write_text(textwrap.dedent(text))
    return path


def test_loads_and_runs_with_outputs_in_the_models_order(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("SCALE = 10")
    path = write(
        tmp_path,
        """
        import numpy as np
        from neighbour import SCALE
        def error(run):
            b, a = run({"x": np.ones(3)})
            return SCALE * float(a.sum() - b.sum())
        error.higher_is_better = False
        """,
    )
    metric = load_metric(f"{path}:error")
    assert metric.name == "mymetric.py:error" and not metric.higher_is_better
    assert metric(MODEL, ["b", "a"]) == (0.0, 1)
    assert metric(MODEL, ["a", "b"]) == (0.0, 1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def f(run):\n    return 1 / 0", r"mymetric.py:f raised ZeroDivisionError at mymetric.py:2: division by zero"),
        ("def f(run):\n    return run({'y': 1})[0]", r"raised KeyError at .*: 'x'"),
        ("def f(run):\n    return 'good'", r"returned 'good'; it must return one number"),
        ("def f(run):\n    return None", r"returned None"),
        ("def f(run):\n    return True", r"returned True"),
        ("def f(run):\n    return run({'x': __import__('numpy').ones(2)})[0]", r"returned array"),
        ("import json\ndef f(run):\n    return json.loads('{')", r"JSONDecodeError at mymetric.py:3: "),
        ("x = 1 +", r"importing it raised SyntaxError at mymetric.py:1"),
        ("raise RuntimeError('two\\nlines')", r"importing it raised RuntimeError at mymetric.py:1: two lines$"),
        ("g = 1", r"mymetric.py has no function 'f'"),
    ],
)
def test_failures_are_one_line_with_file_and_line(tmp_path: Path, body: str, message: str) -> None:
    path = write(tmp_path, body)
    with pytest.raises(MetricError, match=message) as caught:
        load_metric(f"{path}:f")(MODEL, ["a", "b"])
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_missing_file() -> None:
    with pytest.raises(MetricError, match=r"there is no file nowhere.py; write FILE.py:FUNCTION"):
        load_metric("nowhere.py:f")


def test_a_dying_runtime_is_not_the_users_fault() -> None:
    def metric(run: object) -> float:
        raise RunnerError("died", crashed=True)

    with pytest.raises(RunnerError):
        MetricFunction(metric, "m")(MODEL, ["a"])


def test_judge_compares_the_metric_of_both_models() -> None:
    data = np.random.default_rng(0).normal(size=(20, 4))

    def mean_top(run: object) -> float:
        return float(np.mean([run({"x": row[None]})[0].max() for row in data]))  # type: ignore[operator]

    judge = identity_judge(feeds(4, 4), metric=mean_top)
    found = judge.assess(FakeModel(lambda feed: 0.9 * feed["x"]))
    assert judge.kind == found.kind == "metric"
    assert found.loss == pytest.approx(0.1) and found.bound is None and found.n == 20
    assert found.reference == pytest.approx(float(data.max(axis=1).mean()))


def test_lower_is_better_and_the_original_is_measured_once() -> None:
    calls = []

    def error(run: object) -> float:
        calls.append(1)
        return float(run({"x": np.full((1, 4), 2.0)})[0][0, 0])  # type: ignore[operator]

    error.higher_is_better = False  # type: ignore[attr-defined]
    judge = identity_judge(feeds(4, 4), metric=error)
    assert judge.assess(FakeModel(lambda feed: 1.1 * feed["x"])).loss == pytest.approx(0.1)
    assert judge.assess(FakeModel(lambda feed: 0.5 * feed["x"]), half="acceptance").loss == pytest.approx(-0.5)
    assert len(calls) == 3


def test_nan_of_the_candidate_rejects_it_and_of_the_original_is_an_error() -> None:
    def value(run: object) -> float:
        return float(run({"x": np.ones((1, 4))})[0][0, 0])  # type: ignore[operator]

    judge = identity_judge(feeds(4, 4), metric=value)
    assert (
        judge.assess(FakeModel(lambda feed: feed["x"] * np.nan)).rejected == "metric value is nan; the original's is 1"
    )
    with pytest.raises(MetricError, match="is nan for the original"):
        identity_judge(feeds(4, 4), metric=lambda run: float("nan")).assess(MODEL)


def test_a_feed_the_model_does_not_take_is_the_metrics_error(tmp_path):
    path = tmp_path / "met.py"
    path.write_text("def score(run):\n    return run({'nope': 1})\n")

    class Refuses:
        outputs = ()

        def run(self, feed, outputs=None):
            raise RunnerError("Required inputs (['x']) are missing")

    with pytest.raises(
        MetricError, match=r"metric met.py:score: the model does not run on the feed given at met.py:2: Required"
    ):
        load_metric(f"{path}:score")(Refuses(), ["y"])
