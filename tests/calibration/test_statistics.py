import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.calibration import MinMax, Statistics

FINITE = st.floats(allow_nan=False, allow_infinity=False)
RANGES = st.builds(lambda a, b, n: MinMax(min(a, b), max(a, b), n), FINITE, FINITE, st.integers(1, 9)) | st.just(
    MinMax()
)


@given(RANGES, RANGES, RANGES)
def test_merging_is_a_commutative_monoid(a, b, c):
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(MinMax()) == a
    assert a.merge(b).nbytes == a.nbytes


@settings(max_examples=40)
@given(st.dictionaries(st.text(min_size=1), RANGES))
def test_json_and_back_is_exact(ranges):
    statistics = Statistics(ranges, {"gone": "it is int64, not floating point"}, 7)
    again = Statistics.from_dict(json.loads(json.dumps(statistics.to_dict(), allow_nan=False)))
    assert dict(again) == dict(statistics)
    assert (again.missing, again.samples) == (statistics.missing, 7)


def test_a_mapping_of_what_was_seen():
    statistics = Statistics({"a": MinMax(0, 1, 2), "empty": MinMax()})
    assert list(statistics) == ["a"]
    assert statistics.get("empty") is None
    assert statistics.get("absent") is None
    with pytest.raises(KeyError):
        statistics["empty"]


def test_what_was_asked_but_never_seen_survives():
    again = Statistics.from_dict(Statistics({"a": MinMax(0, 1, 2), "empty": MinMax()}).to_dict())
    assert list(again) == ["a"] and again.ranges.keys() == {"a", "empty"}
