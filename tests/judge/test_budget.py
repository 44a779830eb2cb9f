import dataclasses
from types import SimpleNamespace

import pytest
from judge_cases import feeds, identity_judge

from irc.errors import UsageError
from irc.judge import Assessment, Budget
from irc.judge.budget import parse_drop, parse_size, parse_speedup


def assessment(loss: float, *, base: float = 0.8) -> Assessment:
    return Assessment(
        "labels", "accuracy", base, base * (1 - loss), "accuracy", loss, loss + 0.01, 300, 300, "all", base=base
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5%", (0.005, True)),
        (" 1 % ", (0.01, True)),
        ("0.5pt", (0.005, False)),
        ("2 pts", (0.02, False)),
        (".25%", (0.0025, True)),
        ("0", (0.0, True)),
        (0.01, (0.01, True)),
        ("100%", (1.0, True)),
    ],
)
def test_reads_a_drop(text: str, expected: tuple[float, bool]) -> None:
    assert parse_drop(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "1", "0.01", "-1%", "1 percent", "nan%", "101%", "five", 1.0, "1e9%"])
def test_refuses_a_drop_that_could_mean_something_else(text: str) -> None:
    with pytest.raises(UsageError, match=r"--max-drop is"):
        parse_drop(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5MB", 5_000_000), ("5 MiB", 5 * 2**20), ("300k", 300_000), ("1.5GB", 1_500_000_000), (77, 77)],
)
def test_reads_a_size(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "0", "MB", "-5MB", "5 apples", "0.1"])
def test_refuses_a_size(text: str) -> None:
    with pytest.raises(UsageError, match=r"--target-size is .*5MB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0", "-2", "fast", "nan", "inf"])
def test_refuses_a_speedup(text: str) -> None:
    with pytest.raises(UsageError, match="--min-speedup is"):
        parse_speedup(text)


def test_defaults_and_no_budget() -> None:
    assert Budget() == Budget(0.01, True, None, None)
    assert Budget.parse().max_drop is None
    assert Budget.parse(min_speedup="1.3x").min_speedup == 1.3


def test_relative_and_absolute_drops_differ_by_the_originals_value() -> None:
    found = assessment(0.011, base=0.8)  # 0.88 points
    assert not Budget.parse(max_drop="1%").allows(found)
    assert Budget.parse(max_drop="1pt").allows(found)
    assert found.drop_points == pytest.approx(0.88)
    assert not Budget.parse(max_drop="0.8pt").allows(found)


def test_an_improvement_and_no_budget_are_always_allowed() -> None:
    assert Budget.parse(max_drop="0%").allows(assessment(-0.01))
    assert Budget.parse().allows(assessment(0.9))


def test_a_rejected_candidate_is_never_allowed() -> None:
    rejected = dataclasses.replace(assessment(0.0), rejected="NaN")
    assert not Budget.parse().allows(rejected)
    assert not Budget(1.0).allows(rejected)


def test_missed_names_every_clause_with_its_figures() -> None:
    slow = SimpleNamespace(slower_than=lambda ratio: ratio > 1.1, describe=lambda: "1.1x as fast")
    budget = Budget.parse(max_drop="1%", min_speedup="1.3", target_size="5MB")
    assert budget.missed(assessment(0.02), slow, 6_200_000) == [
        "accuracy loses 2.00 %; the budget is at most 1 % relative loss",
        "1.1x as fast; the budget is at least 1.3x",
        "the artifact has 6.20 MB; the budget is 5.00 MB",
    ]
    assert budget.missed(assessment(0.001), None, 4_000_000) == []
    assert budget.describe() == "at most 1 % relative loss, at least 1.3x the original's speed, at most 5.00 MB"


def test_few_samples_cannot_prove_and_say_how_many_could() -> None:
    judge = identity_judge(feeds(128, 4))
    found = judge.assess(judge._original, half="acceptance")
    assert not found.can_prove(Budget()) and not found.proves(Budget())
    assert found.resolution == pytest.approx(1 / 64)
    assert found.lines(Budget())[-1] == "64 samples resolve 1.6 %; give at least 300 in each half to prove 1 %"
    assert found.can_prove(Budget(0.05)) and found.proves(Budget(0.05))
    everything = judge.assess(judge._original, half="all")
    assert "give at least 300 to prove 1 %" in everything.lines(Budget())[-1]


def test_enough_samples_prove() -> None:
    judge = identity_judge(feeds(600, 4))
    found = judge.assess(judge._original, half="choice")
    assert found.can_prove(Budget()) and found.proves(Budget())
    assert found.lines(Budget())[-1] == "with 95 % confidence at most 1 % is lost"
