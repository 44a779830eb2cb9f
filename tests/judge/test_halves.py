from hypothesis import given
from hypothesis import strategies as st

from irc.judge import split

keys = st.lists(st.text("0123456789abcdef", min_size=4, max_size=8), min_size=2)


@given(keys, st.randoms(use_true_random=False))
def test_order_and_repeats_do_not_matter(names: list[str], random: object) -> None:
    shuffled = names + names[: len(names) // 2]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split(shuffled) == split(names)


@given(keys.filter(lambda names: len(set(names)) > 1))
def test_halves_are_disjoint_complete_and_even(names: list[str]) -> None:
    choice, acceptance = split(names)
    assert choice | acceptance == set(names)
    assert not choice & acceptance
    assert 0 <= len(choice) - len(acceptance) <= 1


def test_samples_alternate_by_hash() -> None:
    assert split(["d", "a", "c", "b"]) == (frozenset("ac"), frozenset("bd"))


def test_a_single_sample_is_in_both_halves_and_none_in_none() -> None:
    assert split(["a", "a"]) == (frozenset("a"), frozenset("a"))
    assert split([]) == (frozenset(), frozenset())
