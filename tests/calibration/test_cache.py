"""The statistics cache: what is found is what was kept, and nothing is found that may differ."""

import os

import numpy as np
import onnx_ir as ir
import pytest
from calibration_models import parse

import irc
from irc.calibration import FeedList, Observable, Sample, observe
from irc.calibration.cache import StatisticsCache, digest_of_data, digest_of_model, statistics_key
from irc.calibration.observers import EntropyObserver, MeanObserver, MseObserver
from irc.errors import UsageError
from irc.runner import Runner

KINDS = [
    Observable("y"), Observable("y", axis=1), Observable("y", "distribution"), Observable("y", "distribution", 1),
    Observable("y", "moments", 1), Observable("y", "gram", 1), Observable("gone"), Observable("never", "distribution"),
]  # fmt: skip
TEXT = "g (float[n, 4] x, float[m] e) => (float[n, 4] y, float[m] never) { y = MatMul(x, w) never = Neg(e) }"


@pytest.fixture(scope="module")
def model():
    return parse(TEXT, w=(4, 4))


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    empty = np.zeros(0, np.float32)
    return [Sample({"x": rng.standard_normal((3, 4)).astype(np.float32), "e": empty}, {}, f"s{i}") for i in range(4)]


@pytest.fixture(scope="module")
def found(model, samples):
    with Runner(threads=1) as runner:
        return observe(runner, model, FeedList(samples), KINDS)


def same(a, b):
    assert list(a) == list(b) and (a.missing, a.samples, a.available) == (b.missing, b.samples, b.available)
    for observable in a:
        left, right = a[observable], b[observable]
        if isinstance(left, tuple):
            for one, other in zip(left, right, strict=True):
                assert one.range == other.range
                mine, theirs = one.histogram, other.histogram
                assert (mine.small, mine.not_a_number) == (theirs.small, theirs.not_a_number)
                for side in ("positive", "negative"):
                    assert getattr(mine, side).first == getattr(theirs, side).first
                    assert np.array_equal(getattr(mine, side).counts, getattr(theirs, side).counts)
            for observer in (MseObserver(), EntropyObserver()):
                assert [observer.range((o,)) for o in left] == [observer.range((o,)) for o in right]
        else:
            for name in left.__dataclass_fields__:
                assert np.array_equal(getattr(left, name), getattr(right, name)), (observable, name)
    assert MeanObserver().range(a[KINDS[0]]) == MeanObserver().range(b[KINDS[0]])


def test_what_is_found_is_what_was_kept(found, tmp_path):
    cache = StatisticsCache(tmp_path / "new" / "folder")
    assert cache.get("k") is None
    cache.put("k", found)
    same(cache.get("k"), found)
    assert cache.get("other") is None


def test_the_key_depends_on_everything(model, samples, monkeypatch):
    def key(*, m=model, s=samples, kinds=KINDS, stop=None, ordered=False):
        return statistics_key(digest_of_model(m), digest_of_data(FeedList(s), ordered=ordered), kinds, early_stop=stop)

    plain = key()
    assert key() == plain and key(kinds=KINDS[::-1]) == plain and key(s=samples[::-1]) == plain
    other_weight = parse(TEXT, w=np.eye(4, dtype=np.float32))
    other_graph = parse(TEXT.replace("Neg", "Abs"), w=(4, 4))
    others = [
        key(m=other_weight), key(m=other_graph), key(s=samples[:3]), key(s=[*samples, samples[0]]),
        key(kinds=KINDS[1:]), key(stop=0.01), key(s=samples[::-1], ordered=True), key(ordered=True),
    ]  # fmt: skip
    monkeypatch.setattr(irc, "__version__", "0.0.0")
    others.append(key())
    assert len({plain, *others}) == len(others) + 1


def test_large_weights_count_too():
    weight = np.zeros((512, 512), np.float32)
    before = digest_of_model(parse("g (float[n, 512] x) => (float[n, 512] y) { y = MatMul(x, w) }", w=weight))
    weight = weight.copy()
    weight[511, 511] = 1
    assert digest_of_model(parse("g (float[n, 512] x) => (float[n, 512] y) { y = MatMul(x, w) }", w=weight)) != before


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_a_damaged_entry_counts_as_absent(found, tmp_path, damage):
    cache = StatisticsCache(tmp_path)
    cache.put("k", found)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    assert cache.get("k") is None and not path.exists()
    cache.put("k", found)
    assert cache.get("k") is not None


def test_the_entries_used_longest_ago_go_first(found, tmp_path):
    probe = StatisticsCache(tmp_path / "probe")
    probe.put("k", found)
    size = next((tmp_path / "probe").iterdir()).stat().st_size
    cache = StatisticsCache(tmp_path / "cache", limit_bytes=3 * size)
    for i, name in enumerate("abc"):
        cache.put(name, found)
        os.utime(cache.folder / f"{name}.statistics.npz", (i, i))
    assert cache.get("a") is not None  # now the latest used
    cache.put("d", found)
    assert [name for name in "abcd" if cache.get(name) is not None] == ["a", "c", "d"]
    assert not list(cache.folder.glob("*.partial"))


def test_size_zero_keeps_nothing(found, tmp_path, monkeypatch):
    monkeypatch.setenv("IRC_CACHE_DIR", str(tmp_path / "c"))
    monkeypatch.setenv("IRC_CACHE_SIZE", "0")
    StatisticsCache.default().put("k", found)
    assert not (tmp_path / "c").exists()


def test_a_folder_that_cannot_be_written_is_no_error(found, tmp_path):
    (tmp_path / "file").write_text("")
    cache = StatisticsCache(tmp_path / "file" / "folder")
    cache.put("k", found)
    assert cache.get("k") is None


def test_location_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("IRC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("IRC_CACHE_SIZE", "2MB")
    cache = StatisticsCache.default()
    assert (cache.folder, cache.limit_bytes) == (tmp_path, 2_000_000)
    monkeypatch.delenv("IRC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert StatisticsCache.default().folder == tmp_path / "xdg" / "irc"
    monkeypatch.setenv("IRC_CACHE_SIZE", "many")
    with pytest.raises(UsageError, match="IRC_CACHE_SIZE is 'many'"):
        StatisticsCache.default()


def test_builds_from_the_cache_write_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("IRC_CACHE_DIR", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    graph = "g (float[n,32] x) => (float[n,32] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"
    model = ir.to_proto(parse(graph, w=(32, 32), v=(32, 32)))
    data = [{"x": rng.standard_normal((4, 32)).astype(np.float32)} for _ in range(6)]

    def build(name, told, **options):
        output = tmp_path / f"{name}.onnx"
        irc.optimize(
            model, data=data, output=output, passes="quantize{calibrator=mse}", measure=False,
            progress=lambda share, what: told.append(what), **options,
        )  # fmt: skip
        return [p.read_bytes().replace(name.encode(), b"") for p in sorted(tmp_path.glob(f"{name}.*"))]

    first, second, third = [], [], []
    fresh = build("fresh", first)
    kept = sorted((tmp_path / "cache").iterdir())
    assert len(kept) == 1
    assert build("again", second) == fresh
    assert any("known from an earlier build" in what for what in second)
    assert not any("known from" in what for what in first) and not any("calibrating, sample" in w for w in second)
    assert build("anew", third, cache=False) == fresh
    assert any("calibrating, sample" in what for what in third) and sorted((tmp_path / "cache").iterdir()) == kept
