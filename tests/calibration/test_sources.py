import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from calibration_models import parse

from irc.calibration import DataSource, Sample, open_data, sources, take
from irc.calibration.data import SamplesWithout
from irc.errors import DataError, UsageError

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)


@pytest.fixture
def model():
    return parse("g (float[batch, 3, 4, 4] image) => (float[batch, 3, 4, 4] y) { y = Relu(image) }")


def two_inputs():
    return parse(
        """g (int64[batch, seq] ids, int64[batch, seq] mask) => (int64[batch, seq] y) { y = Add(ids, mask) }"""
    )


def folder_of(path: Path, *samples: dict) -> Path:
    path.mkdir(exist_ok=True)
    for i, sample in enumerate(samples):
        np.savez(path / f"{i:05d}.npz", **sample)
    return path


def refused(spec, model, *words, label=None, error=DataError):
    """Opening and reading everything raises one line that contains all the words; returns it."""
    with pytest.raises(error) as caught:
        for _ in open_data(spec, model, label=label).samples():
            pass
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


class TestFolder:
    def test_each_file_is_one_feed_in_order_of_name_and_can_be_read_again(self, tmp_path, model):
        arrays = [IMAGE + i for i in range(12)]
        source = open_data(folder_of(tmp_path / "calib", *({"image": a} for a in arrays)), model)
        assert source.describe() == "calib/ (12 samples)"
        assert not source.synthetic
        for _ in range(2):
            samples = list(source.samples())
            assert [s.origin for s in samples[:2]] == ["calib/00000.npz", "calib/00001.npz"]
            assert all(np.array_equal(s.feed["image"], a) for s, a in zip(samples, arrays, strict=True))

    def test_samples_may_differ_in_length(self, tmp_path):
        lengths = (3, 9, 1)
        samples = [{"ids": np.ones((1, n), np.int64), "mask": np.ones((1, n), np.int64)} for n in lengths]
        source = open_data(str(folder_of(tmp_path / "d", *samples)), two_inputs())
        assert [s.feed["ids"].shape[1] for s in source.samples()] == list(lengths)

    def test_wrong_dtype_shows_expected_and_found_and_the_cure(self, tmp_path, model):
        bad = folder_of(tmp_path / "calib", *[{"image": IMAGE}] * 3, {"image": IMAGE.astype(np.float64)})
        assert refused(bad, model) == (
            "calib/00003.npz: input 'image' is float64 [1, 3, 4, 4]; the model expects float32 [batch, 3, 4, 4]; "
            "convert it with .astype(np.float32)"
        )

    def test_a_late_mismatch_is_found_when_the_data_is_opened(self, tmp_path, model):
        bad = folder_of(tmp_path / "calib", *[{"image": IMAGE}] * 5, {"image": IMAGE[0]})
        with pytest.raises(DataError, match=re.escape("calib/00005.npz: input 'image' is float32 [3, 4, 4]")):
            open_data(bad, model)

    @pytest.mark.parametrize(
        "arrays, words",
        [
            ({"image": IMAGE[0]}, ["float32 [3, 4, 4]", "float32 [batch, 3, 4, 4]", "x[None]"]),
            ({"image": IMAGE[None]}, ["[1, 1, 3, 4, 4]", "x[0]"]),
            ({"image": IMAGE[:, :2]}, ["[1, 2, 4, 4]", "axis 1 must be 3"]),
            (
                {"images": IMAGE},
                ["'image' is missing", "image (float32 [batch, 3, 4, 4])", "rename 'images' to 'image'"],
            ),
            ({"pixels": IMAGE, "label": np.array([1])}, ["'image' is missing", "rename 'pixels' to 'image'"]),
            ({"a": np.array([1]), "b": np.array([1])}, ["'image' is missing", "the sample has a, b"]),
            ({"image": np.where(IMAGE > 1, np.nan, IMAGE)}, ["contains NaN", "of 48 elements", "the first at [0, "]),
            ({"image": np.full_like(IMAGE, -np.inf)}, ["contains infinity", "48 of 48", "[0, 0, 0, 0]"]),
            ({"image": np.array(["a"], object)}, ["Python objects", "'image'"]),
        ],
    )
    def test_what_does_not_fit_is_refused_with_expected_and_found(self, tmp_path, model, arrays, words):
        with np.errstate(all="ignore"):
            arrays = {k: a.astype(np.float32) if a.dtype == np.float64 else a for k, a in arrays.items()}
        np.savez(tmp_path / "00000.npz", **arrays)
        refused(tmp_path, model, "00000.npz", *words)

    def test_no_files_and_other_files(self, tmp_path, model):
        refused(tmp_path, model, "no .npz files", "it is empty")
        (tmp_path / "a.png").touch()
        refused(tmp_path, model, "no .npz files", "a.png")

    def test_resource_forks_of_other_systems_are_no_samples(self, tmp_path, model):
        folder = folder_of(tmp_path / "d", {"image": IMAGE})
        (folder / "._00000.npz").write_bytes(b"fork")
        assert len(open_data(folder, model)) == 1

    @pytest.mark.parametrize("keep", [0, 10, 0.5, 0.98])
    def test_truncated_files(self, tmp_path, model, keep):
        path = folder_of(tmp_path / "d", {"image": IMAGE}) / "00000.npz"
        data = path.read_bytes()
        path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
        refused(tmp_path / "d", model, "d/00000.npz is not a readable .npz")

    def test_damage_inside_the_data_is_noticed(self, tmp_path, model):
        path = tmp_path / "00000.npz"
        np.savez_compressed(path, image=IMAGE)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        refused(tmp_path, model, "00000.npz is not a readable .npz")

    def test_an_array_without_a_name(self, tmp_path, model):
        np.save(tmp_path / "x.npy", IMAGE)
        (tmp_path / "x.npy").rename(tmp_path / "x.npz")
        refused(tmp_path, model, "holds one array without a name", "np.savez")

    def test_sizes_of_one_symbol_must_agree(self, tmp_path):
        folder = folder_of(tmp_path / "d", {"ids": np.ones((1, 5), np.int64), "mask": np.ones((1, 4), np.int64)})
        refused(folder, two_inputs(), "'seq'", "5 in input 'ids'", "4 in input 'mask'")

    def test_int32_ids_are_not_converted_in_silence(self, tmp_path):
        folder = folder_of(tmp_path / "d", {"ids": np.ones((1, 5), np.int32), "mask": np.ones((1, 5), np.int64)})
        refused(folder, two_inputs(), "int32 [1, 5]", "int64 [batch, seq]", ".astype(np.int64)")

    def test_foreign_byte_order_is_the_same_data(self, tmp_path, model):
        source = open_data(folder_of(tmp_path / "d", {"image": IMAGE.astype(">f4")}), model)
        sample = next(source.samples())
        assert sample.feed["image"].dtype.isnative
        assert np.array_equal(sample.feed["image"], IMAGE)


class TestArchive:
    def test_axis_0_indexes_samples_and_each_keeps_a_leading_axis(self, tmp_path, model):
        arrays = np.random.default_rng(1).standard_normal((5, 3, 4, 4)).astype(np.float32)
        for save in (np.savez, np.savez_compressed):
            save(tmp_path / "x.npz", image=arrays, label=np.arange(5))
            samples = list(open_data(tmp_path / "x.npz", model).samples())
            assert [s.origin for s in samples] == [f"x.npz[{i}]" for i in range(5)]
            for i, sample in enumerate(samples):
                assert np.array_equal(sample.feed["image"], arrays[i : i + 1])
                assert sample.labels["label"].tolist() == [i]

    def test_fortran_order(self, tmp_path, model):
        arrays = np.asfortranarray(np.random.default_rng(1).standard_normal((5, 3, 4, 4)).astype(np.float32))
        np.savez(tmp_path / "x.npz", image=arrays)
        found = [s.feed["image"] for s in open_data(tmp_path / "x.npz", model).samples()]
        assert np.array_equal(np.concatenate(found), arrays)

    def test_memory_does_not_grow_with_the_number_of_samples(self, tmp_path):
        model = parse("g (float[batch, 65536] x) => (float[batch, 65536] y) { y = Relu(x) }")
        np.savez_compressed(tmp_path / "x.npz", x=np.ones((128, 65536), np.float32))  # 32 MiB
        tracemalloc.start()
        assert sum(1 for _ in open_data(tmp_path / "x.npz", model).samples()) == 128
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20

    def test_inconsistent_lengths(self, tmp_path, model):
        np.savez(tmp_path / "x.npz", image=np.ones((5, 3, 4, 4), np.float32), label=np.arange(4))
        refused(tmp_path / "x.npz", model, "axis 0 must index samples", "image [5, 3, 4, 4]", "label [4]")

    def test_a_scalar_has_no_axis_0(self, tmp_path, model):
        np.savez(tmp_path / "x.npz", image=np.ones((5, 3, 4, 4), np.float32), temperature=np.float32(1))
        refused(tmp_path / "x.npz", model, "axis 0 must index samples", "temperature []")

    def test_a_fixed_batch_asks_for_a_folder(self, tmp_path):
        model = parse("g (float[8, 3] x) => (float[8, 3] y) { y = Relu(x) }")
        np.savez(tmp_path / "x.npz", x=np.ones((16, 3), np.float32))
        refused(tmp_path / "x.npz", model, "float32 [16, 3]", "float32 [8, 3]", "folder")

    def test_no_samples_and_no_arrays(self, tmp_path, model):
        np.savez(tmp_path / "x.npz", image=np.ones((0, 3, 4, 4), np.float32))
        refused(tmp_path / "x.npz", model, "there are no samples")
        np.savez(tmp_path / "x.npz")
        refused(tmp_path / "x.npz", model, "holds no arrays")

    def test_wrong_dtype_is_told_at_once(self, tmp_path, model):
        np.savez(tmp_path / "x.npz", image=np.ones((2, 3, 4, 4), np.float16))
        refused(tmp_path / "x.npz", model, "x.npz[0]", "float16 [1, 3, 4, 4]", "float32 [batch, 3, 4, 4]")

    def test_truncation_behind_the_first_rows(self, tmp_path):
        model = parse("g (float[batch, 65536] x) => (float[batch, 65536] y) { y = Relu(x) }")
        path = tmp_path / "x.npz"
        np.savez_compressed(path, x=np.random.default_rng(0).standard_normal((8, 65536)).astype(np.float32))
        data = bytearray(path.read_bytes())
        data[len(data) * 3 // 4] ^= 0x5A
        path.write_bytes(data)
        refused(path, model, "x.npz is not a readable .npz")


class TestFunction:
    def script(self, tmp_path, text):
        path = tmp_path / "feeds.py"
        path.write_text("import numpy as np\n" + text)
        return f"{path}:samples"

    def test_is_called_anew_for_every_pass(self, tmp_path, model):
        text = "def samples():\n    for i in range(3):\n        yield {'image': np.full((1, 3, 4, 4), i, np.float32)}\n"
        source = open_data(self.script(tmp_path, text), model)
        assert source.name == "feeds.py:samples"
        for _ in range(2):
            assert [float(s.feed["image"].max()) for s in source.samples()] == [0, 1, 2]
        assert [s.origin for s in take(source, 1)] == ["feeds.py:samples[0]"]

    def test_scripts_may_import_their_neighbours_and_define_dataclasses(self, tmp_path, model):
        (tmp_path / "neighbour_of_feeds.py").write_text("SIZE = 4\n")
        text = (
            "import dataclasses\nfrom neighbour_of_feeds import SIZE\n"
            "@dataclasses.dataclass\nclass Item:\n    size: 'int' = SIZE\n"
            "def samples():\n    return [{'image': np.ones((1, 3, Item().size, 4), np.float32)}]\n"
        )
        assert len(open_data(self.script(tmp_path, text), model)) == 1

    @pytest.mark.parametrize(
        "text, words",
        [
            ("def feeds(): return []\n", ["no function 'samples'", "it has feeds"]),
            ("def samples(): return 3\n", ["returned int", "iterable of dicts"]),
            ("def samples(): return {'image': 1}\n", ["returned dict", "iterable of dicts"]),
            ("def samples(): return [1]\n", ["samples[0] is int", "dict of arrays"]),
            ("def samples(): return []\n", ["there are no samples"]),
            ("def samples():\n    raise RuntimeError('no\\ndisk')\n", ["raised RuntimeError: no disk", "feeds.py:3"]),
            (
                "def samples():\n    yield {'image': np.ones((1, 3, 4, 4), np.float32)}\n    1 / 0\n",
                ["ZeroDivisionError"],
            ),
            ("def samples(path): return []\n", ["TypeError", "path"]),
            ("def samples(: return []\n", ["SyntaxError", "line 2"]),
            ("raise SystemExit(3)\n", ["SystemExit"]),
            ("def samples(): return [{'image': [[1, 2], [3]]}]\n", ["samples[0]: 'image' is list, not an array"]),
        ],
    )
    def test_what_is_wrong_with_it(self, tmp_path, model, text, words):
        refused(self.script(tmp_path, text), model, *words)

    def test_one_that_cannot_start_anew(self, tmp_path, model):
        text = "feeds = iter([{'image': np.ones((1, 3, 4, 4), np.float32)}] * 2)\ndef samples(): return feeds\n"
        refused(self.script(tmp_path, text), model, "yielded 0 samples, and 2 the first time")

    def test_an_endless_one(self, model, monkeypatch):
        monkeypatch.setattr(sources, "MOST_SAMPLES", 50)

        def endless():
            while True:
                yield {"image": IMAGE}

        refused(endless, model, "endless yields more than 50 samples")

    def test_missing_file_and_missing_name(self, tmp_path, model):
        refused(str(tmp_path / "absent.py:f"), model, "there is no file")
        (tmp_path / "feeds.py").write_text("")
        refused(str(tmp_path / "feeds.py"), model, "name the function", "feeds.py:FUNCTION")


class TestInMemory:
    def test_lists_iterators_and_functions(self, model):
        feeds = [{"image": IMAGE + i} for i in range(3)]
        for spec in (feeds, tuple(feeds), iter(feeds), lambda: iter(feeds)):
            source = open_data(spec, model)
            for _ in range(2):
                assert [float(s.feed["image"].flat[0]) for s in source.samples()] == [
                    float(f["image"].flat[0]) for f in feeds
                ]
        assert next(open_data(feeds, model).samples()).origin == "sample 0"

    def test_a_source_of_ones_own_is_checked_too(self, model):
        class Own(DataSource):
            name = "own"

            def __len__(self):
                return 2

            def samples(self):
                yield Sample({"image": IMAGE}, {"label": np.array([1])}, "first")
                yield Sample({"image": IMAGE.astype(np.float64)}, {}, "second")

        refused(Own(), model, "second: input 'image' is float64")
        assert next(open_data(Own(), model).samples()).labels["label"].tolist() == [1]

    @pytest.mark.parametrize("spec, word", [({"image": IMAGE}, "one dict"), (IMAGE, "one array"), ([], "no samples")])
    def test_what_is_not_a_list_of_feeds(self, model, spec, word):
        refused(spec, model, word)

    def test_other_types_are_a_mistake_in_the_call(self, model):
        refused(3, model, "int is not understood", error=UsageError)

    def test_paths_that_hold_no_data(self, tmp_path, model):
        refused(tmp_path / "absent", model, "no such file or folder")
        np.save(tmp_path / "x.npy", IMAGE)
        refused(tmp_path / "x.npy", model, ".npy file", "np.savez")

    def test_text_inputs(self):
        model = parse("g (string[n] s) => (string[n] y) { y = Identity(s) }")
        sample = next(open_data([{"s": np.array(["a", "bc"])}], model).samples())
        assert sample.feed["s"].tolist() == ["a", "bc"]
        refused([{"s": np.array([1])}], model, "int64 [1]", "the model expects str [n]")

    def test_types_that_numpy_cannot_hand_over(self):
        model = parse("g (bfloat16[n] x) => (float[n] y) { y = Cast <to=1> (x) }")
        refused([{"x": np.ones(2, np.float32)}], model, "bfloat16", "cannot be fed from numpy")

    def test_inputs_with_a_default_may_be_left_out(self):
        model = parse("g (float[n] x, float[1] b) => (float[n] y) { y = Add(x, b) }", b=np.ones(1, np.float32))
        feeds = [{"x": np.ones(2, np.float32)}, {"x": np.ones(2, np.float32), "b": np.zeros(1, np.float32)}]
        assert [sorted(s.feed) for s in open_data(feeds, model).samples()] == [["x"], ["b", "x"]]


class TestLabels:
    def test_arrays_that_are_no_inputs_are_labels(self, model):
        feeds = [{"image": IMAGE, "label": np.array([1]), "weight": np.array([0.5])}]
        assert sorted(next(open_data(feeds, model).samples()).labels) == ["label", "weight"]
        assert sorted(next(open_data(feeds, model, label="label").samples()).labels) == ["label"]

    def test_one_that_is_absent(self, tmp_path, model):
        feed = {"image": IMAGE, "label": np.array([1])}
        words = ("no label 'lable'", "label", "did you mean 'label'?")
        refused([feed], model, *words, label="lable")
        refused(folder_of(tmp_path / "d", feed), model, *words, label="lable")
        refused([{"image": IMAGE}], model, "no label 'label'", "none", label="label")
        refused([feed], model, "'image' is an input of the model", label="image")


def test_the_key_depends_on_content_alone(tmp_path, model):
    feeds = [{"image": IMAGE}, {"image": IMAGE + 1}]
    from_memory = [s.key for s in open_data(feeds, model).samples()]
    from_files = [s.key for s in open_data(folder_of(tmp_path / "d", *reversed(feeds)), model).samples()]
    assert from_memory == list(reversed(from_files))
    assert len(set(from_memory)) == 2
    reshaped = Sample({"image": IMAGE.reshape(1, 3, 16)})
    renamed = Sample({"picture": IMAGE})
    cast = Sample({"image": IMAGE.view(np.int32)})
    assert len({*from_memory, reshaped.key, renamed.key, cast.key}) == 5
    assert Sample({"image": IMAGE}, {"label": np.array([1])}).key == from_memory[0]


def test_samples_without_some(model):
    source = open_data([{"image": IMAGE + i} for i in range(4)], model)
    keys = [sample.key for sample in source.samples()]
    rest = SamplesWithout(source, keys[1:3])
    assert len(rest) == 2 and [sample.key for sample in rest.samples()] == [keys[0], keys[3]]
    assert [sample.key for sample in rest.samples()] == [keys[0], keys[3]], "again and again"
    assert len(SamplesWithout(source, keys)) == 0 and rest.name == source.name
