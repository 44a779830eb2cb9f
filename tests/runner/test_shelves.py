"""Arrays that stay in the runtime process between runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from runner_models import affine, from_text

from irc.errors import RunnerError
from irc.runner import Runner


@pytest.fixture
def runner() -> Iterator[Runner]:
    with Runner(threads=1) as runner:
        yield runner


TWO = """<ir_version: 10, opset_import: ["" : 20]> g (float[n] a, float[n] b) => (float[n] c, float[n] d) {
    c = Add(a, b)
    d = Mul(a, b)
}"""


def test_what_was_put_there_lies_there(runner: Runner) -> None:
    runner.shelve("one", {"x": np.float32([1, 2]), "i": np.array(3)})
    runner.shelve("one", {"x": np.float32([5])})
    runner.shelve("two", {"x": np.array([True])})
    assert runner.shelved("one", "x").tolist() == [5] and runner.shelved("one", "i") == 3
    assert runner.shelved("two", "x").dtype == bool


def test_a_model_advances_on_every_shelf(runner: Runner) -> None:
    opened = runner.open(from_text(TWO))
    for name, value in (("one", 2), ("two", 3)):
        runner.shelve(name, {"a": np.float32([value]), "b": np.float32([10, 20][:1])})
    opened.advance(["one", "two"], ["a", "b"], ["d"])
    assert [runner.shelved(name, "d").tolist() for name in ("one", "two")] == [[20], [30]]
    with pytest.raises(RunnerError):
        runner.shelved("one", "c")
    assert runner.shelved("one", "a").tolist() == [2], "what was read stays"
    runner.shelve("one", {"b": np.float32([1])})
    opened.advance(["one"], ["a", "b"], ["c", "d"])
    assert runner.shelved("one", "c").tolist() == [3] and runner.shelved("two", "d").tolist() == [30]


def test_what_is_forgotten_is_gone_and_nothing_else(runner: Runner) -> None:
    for shelf in ("one", "two"):
        runner.shelve(shelf, {"x": np.float32([1]), "y": np.float32([2])})
    runner.unshelve(["one", "two"], ["x", "never there"])
    for shelf in ("one", "two"):
        assert runner.shelved(shelf, "y").tolist() == [2]
        with pytest.raises(RunnerError):
            runner.shelved(shelf, "x")
    runner.unshelve(["one", "no such shelf"])
    with pytest.raises(RunnerError):
        runner.shelved("one", "y")
    assert runner.shelved("two", "y").tolist() == [2]


def test_what_does_not_lie_there_cannot_be_read(runner: Runner) -> None:
    opened = runner.open(affine())
    for shelf, names in (("none", ["x"]), ("one", ["z"])):
        runner.shelve("one", {"x": np.float32([1])})
        with pytest.raises(RunnerError):
            opened.advance([shelf], names, ["y"])
    opened.advance(["one"], ["x"], ["y"])
    assert runner.shelved("one", "y").tolist() == [3]


def test_a_crash_leaves_empty_shelves_and_a_runner_that_works(runner: Runner) -> None:
    runner.shelve("one", {"x": np.float32([1])})
    assert runner.process.pid is not None
    os.kill(runner.process.pid, signal.SIGKILL)
    with pytest.raises(RunnerError):
        for _ in range(2):
            runner.shelved("one", "x")
    runner.unshelve(["one"])
    runner.shelve("one", {"x": np.float32([2])})
    runner.open(affine()).advance(["one"], ["x"], ["y"])
    assert runner.shelved("one", "y").tolist() == [5]
