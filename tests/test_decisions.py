"""Decisions are reached once, kept compressed, written beside the plan, and looked up when it is replayed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_plan import PLAN

from irc.artifact import Stage
from irc.decision_arrays import arrays_of
from irc.decisions import Decisions, PackedArray
from irc.errors import UsageError
from irc.plan import Plan

LARGE = np.arange(3000, dtype=np.float32).reshape(30, 100)
SMALL = np.array([1, -2, 3], np.int8)


def decided():
    decisions = Decisions()
    decisions.remember("smooth/a", lambda: {"strength": 0.5, "factors": LARGE, "moved": SMALL})
    decisions.remember("clip/b", lambda: {"kept": False, "why": "nothing to gain: 0.1 % -> 0.1 %"})
    return decisions


def write(tmp_path, decisions):
    plan = dataclasses.replace(PLAN, decisions=decisions.kept, choices={"quantize/conv": "entropy"})
    path = tmp_path / "m.plan.yaml"
    path.write_text(plan.to_yaml())
    with Stage(tmp_path / "m.onnx") as stage:
        if stage.write_arrays("m.plan.npz", plan.decisions):
            stage.path("m.plan.npz").replace(tmp_path / "m.plan.npz")
    return path


def test_a_decision_is_reached_once_and_is_not_to_be_written_to():
    decisions, calls = Decisions(), []

    def decide():
        calls.append(1)
        return {"factors": LARGE, "moved": SMALL.copy(), "strength": np.float64(0.25)}

    first, second = decisions.remember("k", decide), decisions.remember("k", decide)
    assert len(calls) == 1 and "k" in decisions and list(decisions) == ["k"]
    np.testing.assert_array_equal(first["factors"], LARGE)
    np.testing.assert_array_equal(second["moved"], SMALL)
    assert type(first["strength"]) is float
    for name in ("factors", "moved"):
        with pytest.raises(ValueError, match="read-only"):
            first[name][...] = 0


def test_what_is_decided_does_not_follow_the_array_it_came_from():
    decisions, array = Decisions(), SMALL.copy()
    decisions.remember("k", lambda: {"moved": array})
    array[:] = 99
    np.testing.assert_array_equal(decisions.remember("k", dict)["moved"], SMALL)


def test_large_arrays_are_kept_compressed():
    zeros = np.zeros((512, 512), np.int8)
    kept = Decisions()
    kept.remember("k", lambda: {"moved": zeros})
    (packed,) = arrays_of(kept.kept)
    assert isinstance(packed, PackedArray) and len(packed.data) < zeros.nbytes // 100


@pytest.mark.parametrize(
    "array", [LARGE, SMALL, np.array(2.5, np.float32), np.zeros((0, 4), np.int64), LARGE[:, ::7].T]
)
def test_plans_keep_decisions_exactly(tmp_path, array):
    decisions = Decisions()
    decisions.remember("k", lambda: {"a": array, "text": "α: 1 % # x", "n": 3, "f": 0.1 + 0.2, "yes": True})
    read = Plan.read(write(tmp_path, decisions))
    assert read.choices == {"quantize/conv": "entropy"}
    found = Decisions(read.decisions).remember("k", dict)
    np.testing.assert_array_equal(found["a"], array)
    assert found["a"].dtype == array.dtype and found["a"].shape == array.shape
    assert (found["text"], found["n"], found["f"], found["yes"]) == ("α: 1 % # x", 3, 0.1 + 0.2, True)


def test_the_files_of_a_plan_are_the_same_bytes_for_the_same_decisions(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        write(folder, decided())
    for name in ("m.plan.yaml", "m.plan.npz"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert not list(tmp_path.glob("**/*.tmp"))


def test_without_arrays_there_is_no_file(tmp_path):
    decisions = Decisions()
    decisions.remember("k", lambda: {"strength": 0.5})
    path = write(tmp_path, decisions)
    assert [p.name for p in tmp_path.iterdir()] == ["m.plan.yaml"]
    assert Decisions(Plan.read(path).decisions).remember("k", dict) == {"strength": 0.5}


def test_replaying_decides_nothing(tmp_path):
    replay = Decisions(Plan.read(write(tmp_path, decided())).decisions)
    assert replay.replaying and not Decisions().replaying
    with pytest.raises(UsageError, match=r"no decision 'clip/c'; build again without --plan"):
        replay.remember("clip/c", lambda: {"kept": True})


def test_a_lost_or_damaged_file_of_arrays_is_said_in_one_line(tmp_path):
    path = write(tmp_path, decided())
    arrays = tmp_path / "m.plan.npz"
    content = arrays.read_bytes()
    flipped = [content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :] for at in range(0, len(content) // 2, 97)]
    method = content.rindex(b"PK\x01\x02") + 10
    unknown = content[:method] + b"\x63" + content[method + 1 :]
    for damage in (content[: len(content) // 2], b"", b"PK" + content[2:100], *flipped[1:], unknown):
        arrays.write_bytes(damage)
        with pytest.raises(
            UsageError, match=r"m.plan.npz is damaged or of another plan: [^\n]*build again without --plan"
        ):
            Plan.read(path)
    decisions = Decisions()
    decisions.remember("smooth/a", lambda: {"factors": LARGE + 1, "moved": SMALL})
    other = tmp_path / "other"
    other.mkdir()
    write(other, decisions)
    arrays.write_bytes((other / "m.plan.npz").read_bytes())
    with pytest.raises(UsageError, match=r"m.plan.npz is damaged or of another plan: array 0 is not the one"):
        Plan.read(path)
    arrays.write_bytes(content)
    text = path.read_text()
    path.write_text(text[: text.index("decisions:")] + "decisions: {clip/b: 3}\n")
    with pytest.raises(UsageError, match=r"is damaged: AttributeError: [^\n]*build again without --plan"):
        Plan.read(path)
    path.write_text(text)
    arrays.unlink()
    with pytest.raises(UsageError, match=r"are not there \(m.plan.npz\); keep it beside the plan"):
        Plan.read(path)
