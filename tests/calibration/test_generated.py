import numpy as np
import pytest
from calibration_models import parse, run_unoptimized

from irc.calibration import generate_feeds, open_data, runnable_feeds, take
from irc.errors import DataError
from irc.runner import Runner

TABLE = np.random.default_rng(3).standard_normal((7, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as runner:
        yield runner


def feeds_of(model, *, count=12, seed=0):
    """Generated feeds, each of which stock ONNX Runtime has run."""
    feeds = [sample.feed for sample in take(generate_feeds(model, count=count, seed=seed), count)]
    for feed in feeds:
        run_unoptimized(model, feed)
    return feeds


def integers(feeds, name):
    return np.concatenate([np.ravel(feed[name]) for feed in feeds])


class TestTokenIds:
    @pytest.mark.parametrize(
        "path",
        [
            "i = Identity(ids)",
            "i = Cast <to=6> (ids)",
            "i = Reshape(ids, shape)",
            "u = Unsqueeze(ids, axes) i = Squeeze(u, axes)",
            "c = Cast <to=6> (ids) r = Reshape(c, shape) u = Unsqueeze(r, axes) i = Squeeze(u, axes)",
            "i = Concat <axis=1> (ids, ids)",
            "i = Transpose(ids)",
            "i = Slice(ids, axes, two, axes)",
        ],
    )
    def test_stay_below_the_rows_of_the_table(self, path):
        model = parse(
            f"g (int64[batch, seq] ids) => (float[a, b, c] y) {{ {path} y = Gather(table, i) }}",
            table=TABLE,
            shape=np.array([-1, 1]),
            axes=np.array([0]),
            two=np.array([2]),
        )
        ids = integers(feeds_of(model), "ids")
        assert ids.min() >= 0
        assert set(ids.tolist()) == set(range(7))

    @pytest.mark.parametrize(
        "path, allowed",
        [
            ("i = Add(ids, two)", range(0, 5)),
            ("i = Sub(ids, two)", range(2, 9)),
            ("i = Mul(ids, two)", range(0, 4)),
            ("m = Mul(ids, two) i = Add(m, two)", range(0, 3)),
            ("i = Sub(two, ids)", range(0, 3)),
        ],
    )
    def test_arithmetic_with_constants_shifts_the_range(self, path, allowed):
        model = parse(
            f"g (int64[batch, seq] ids) => (float[a, b, c] y) {{ {path} y = Gather(table, i) }}",
            table=TABLE,
            two=np.array(2),
        )
        assert set(integers(feeds_of(model), "ids").tolist()) == set(allowed)

    def test_the_smallest_of_several_tables_decides(self):
        model = parse(
            """g (int64[batch, seq] ids) => (float[a, b, c] y) {
                p = Gather(table, ids) q = Gather(small, ids) y = Add(p, q) }""",
            table=TABLE,
            small=TABLE[:3],
        )
        assert set(integers(feeds_of(model), "ids").tolist()) == {0, 1, 2}

    def test_a_table_read_inside_a_branch(self):
        model = parse(
            """g (bool flag, int64[batch, seq] ids) => (float[a, b, c] y) {
                y = If (flag) <then_branch = t () => (float[a, b, c] p) { p = Gather(table, ids) },
                               else_branch = e () => (float[a, b, c] q) { q = Gather(small, ids) }> }""",
            table=TABLE,
            small=TABLE[:3],
        )
        feeds = feeds_of(model)
        assert integers(feeds, "ids").max() == 2
        assert {bool(feed["flag"]) for feed in feeds} == {True, False}

    def test_a_comparison_with_the_padding_id_does_not_make_them_a_mask(self):
        model = parse(
            """g (int64[batch, seq] ids) => (float[a, b, c] y, bool[a, b] m) {
                m = Equal(ids, zero) y = Gather(table, ids) }""",
            table=TABLE,
            zero=np.array(0),
        )
        assert integers(feeds_of(model), "ids").max() == 6

    def test_an_axis_of_other_inputs_is_indexed_within_its_size(self):
        model = parse(
            "g (float[seq, 3] x, int64[n] last) => (float[n, 3] y) { y = Gather(x, last) }",
        )
        feeds = feeds_of(model)
        assert integers(feeds, "last").max() > 0
        assert all(feed["last"].max() < feed["x"].shape[0] for feed in feeds)

    def test_position_ids_count_up(self):
        model = parse(
            "g (int64[batch, seq] position_ids) => (float[a, b, c] y) { y = Gather(table, position_ids) }",
            table=np.zeros((512, 4), np.float32),
        )
        feed = feeds_of(model)[0]
        assert feed["position_ids"].tolist() == [list(range(16))]

    def test_one_hot_depth(self):
        model = parse(
            "g (int64[n] c) => (float[n, d] y) { y = OneHot(c, depth, values) }",
            depth=np.array(5),
            values=np.array([0, 1], np.float32),
        )
        assert integers(feeds_of(model), "c").max() <= 4


class TestMasks:
    @pytest.mark.parametrize(
        "dtype, body",
        [
            ("int64", "f = Cast <to=1> (m) i = Sub(one, f) y = Mul(i, big)"),
            ("int64", "u = Unsqueeze(m, axes) f = Cast <to=1> (u) i = Sub(one, f) y = Mul(i, big)"),
            ("int32", "f = Cast <to=1> (m) s = ReduceSum(f) y = Add(s, one)"),
            ("int64", "b = Cast <to=9> (m) y = Where(b, one, big)"),
            ("int64", "b = Equal(m, zero) y = Where(b, one, big)"),
            ("int64", "b = Greater(m, zero) y = Where(b, one, big)"),
            ("int64", "c = CumSum(m, zero) y = Cast <to=1> (c)"),
            ("bool", "y = Where(m, one, big)"),
            ("bool", "n = Not(m) y = Cast <to=1> (n)"),
            ("uint8", "b = Cast <to=9> (m) y = Where(b, one, big)"),
        ],
    )
    def test_are_zeros_and_ones_with_a_one_in_every_row(self, dtype, body):
        model = parse(
            f"g ({dtype}[batch, seq] m) => (float[a, b, c] y) {{ {body} }}",
            one=np.array(1, np.float32),
            big=np.array(-1e4, np.float32),
            zero=np.array(0),
            axes=np.array([1]),
        )
        feeds = feeds_of(model)
        assert set(integers(feeds, "m").astype(int).tolist()) == {0, 1}
        assert all(feed["m"].any(axis=-1).all() for feed in feeds)

    def test_float_masks_by_name(self):
        model = parse("g (float[batch, seq] attention_mask) => (float[batch, seq] y) { y = Relu(attention_mask) }")
        assert set(integers(feeds_of(model), "attention_mask").tolist()) == {0.0, 1.0}

    def test_have_the_length_of_the_ids_they_mask(self):
        model = parse(
            """g (int64[batch, seq] ids, int64[batch, seq] attention_mask) => (float[a, b, c] y) {
                e = Gather(table, ids) f = Cast <to=1> (attention_mask) u = Unsqueeze(f, last) y = Mul(e, u) }""",
            table=TABLE,
            last=np.array([-1]),
        )
        feeds = feeds_of(model)
        assert all(feed["ids"].shape == feed["attention_mask"].shape for feed in feeds)
        assert len({feed["ids"].shape for feed in feeds}) >= 3
        assert integers(feeds, "ids").max() == 6


class TestOtherRoles:
    def test_lengths_are_compared_with_positions(self):
        model = parse(
            """g (float[batch, seq] x, int64[batch] n) => (float[batch, seq] y) {
                s = Shape <start=1> (x) l = Squeeze(s) r = Range(zero, l, one) u = Unsqueeze(n, last)
                m = Less(r, u) y = Where(m, x, nil) }""",
            zero=np.array(0),
            one=np.array(1),
            last=np.array([-1]),
            nil=np.array(0, np.float32),
        )
        feeds = feeds_of(model)
        assert all(feed["n"].min() >= 1 and feed["n"].max() <= feed["x"].shape[1] for feed in feeds)
        assert integers(feeds, "n").max() > 2

    def test_lengths_of_a_recurrent_layer(self):
        model = parse(
            """g (float[seq, batch, 3] x, int32[batch] lens) => (float[s, d, b, h] y) {
                y = GRU <hidden_size=2> (x, w, r, , lens) }""",
            w=(1, 6, 3),
            r=(1, 6, 2),
        )
        feeds = feeds_of(model)
        assert all(feed["lens"].min() >= 1 and feed["lens"].max() <= feed["x"].shape[0] for feed in feeds)

    def test_roots_and_quotients_get_positive_numbers(self):
        model = parse("g (float[n, 8] x, float t) => (float[n, 8] y) { s = Sqrt(x) y = Div(s, t) }")
        for feed in feeds_of(model):
            assert np.isfinite(run_unoptimized(model, feed)["y"]).all()

    @pytest.mark.parametrize(
        "signature, body",
        [
            ("float[n, 4] x, int64[2] shape", "y = Reshape(x, shape)"),
            ("float[n, 4] x, int64[2] shape", "y = Expand(x, shape)"),
            ("float[n, 4] x, int64[1] k", "y, i = TopK(x, k)"),
            ("float[n, 4] x, int64[1] axes", "y = ReduceSum(x, axes)"),
            ("float[n, 4] x, int64 axis", "y = CumSum(x, axis)"),
            ("int64 limit", "r = Range(zero, limit, one) y = Cast <to=1> (r)"),
            ("float[n, 4] x, int64[1] start, int64[1] end", "y = Slice(x, start, end)"),
            ("float[n, 4] x, int64[1] axes", "y = Unsqueeze(x, axes)"),
        ],
    )
    def test_arguments_of_operators_are_valid(self, signature, body):
        model = parse(f"g ({signature}) => (float y) {{ {body} }}", zero=np.array(0), one=np.array(1))
        model.graph.outputs[0].shape = None
        assert feeds_of(model)

    def test_integer_divisors_are_not_zero(self):
        model = parse("g (int64[n, 50] x, int64[n, 50] d) => (int64[n, 50] y) { y = Div(x, d) }")
        assert integers(feeds_of(model), "d").min() == 1

    def test_sequences_are_refused(self):
        model = parse("g (seq(float[n]) s) => (int64 y) { y = SequenceLength(s) }")
        with pytest.raises(DataError, match="input 's' has type sequence or optional"):
            generate_feeds(model)

    def test_loops_run(self):
        model = parse(
            """g (int64 trips, bool go, float[3] x) => (float[3] y) { y = Loop (trips, go, x)
                <body = b (int64 i, bool c, float[3] s) => (bool d, float[3] t) { d = Identity(c) t = Add(s, s) }> }"""
        )
        assert feeds_of(model)

    def test_ids_carried_through_a_scan(self):
        model = parse(
            """g (int64[seq] ids) => (float[seq, 4] y) { y = Scan <num_scan_inputs=1,
                body = b (int64 i) => (float[4] e) { e = Gather(table, i) }> (ids) }""",
            table=TABLE,
        )
        assert integers(feeds_of(model), "ids").max() == 6


class TestShapesAndTypes:
    @pytest.mark.parametrize("dtype", ["float", "float16", "double", "int32", "int64", "uint8", "int8", "bool"])
    def test_every_type(self, dtype):
        model = parse(f"g ({dtype}[batch, 5] x) => ({dtype}[batch, 5] y) {{ y = Identity(x) }}")
        feeds = feeds_of(model)
        assert feeds[0]["x"].shape == (1, 5)
        assert not np.array_equal(feeds[0]["x"], feeds[1]["x"]) or dtype == "bool"

    def test_pixels_span_their_type(self):
        model = parse("g (uint8[n, 32, 32, 3] x) => (float[n, 32, 32, 3] y) { y = Cast <to=1> (x) }")
        pixels = integers(feeds_of(model), "x")
        assert pixels.min() < 5
        assert pixels.max() > 250

    def test_floats_are_standard_normal(self):
        model = parse("g (float[n, 3, 32, 32] x) => (float[n, 3, 32, 32] y) { y = Relu(x) }")
        numbers = integers(feeds_of(model), "x")
        assert abs(numbers.mean()) < 0.02
        assert abs(numbers.std() - 1) < 0.02

    def test_scalars_and_fixed_sizes(self):
        model = parse("g (float s, float[2, 3] x) => (float[2, 3] y) { y = Mul(x, s) }")
        feed = feeds_of(model)[0]
        assert feed["s"].shape == ()
        assert feed["x"].shape == (2, 3)

    @pytest.mark.parametrize(
        "signature, body, shape",
        [
            ("float[n, m] x", "y = MatMul(x, w)", (1, 6)),
            ("float[n, s, m] x", "r = Relu(x) y = MatMul(r, w)", (1, 16, 6)),
            ("float[n, m] x", "y = Gemm <transB=1> (x, t)", (1, 6)),
            ("float[n, m] x", "y = Add(x, b)", (1, 6)),
            ("float[n, c, h, w2] x", "y = Conv <group=2> (x, k)", (1, 10, 64, 64)),
        ],
    )
    def test_weights_decide_sizes_that_the_signature_leaves_open(self, signature, body, shape):
        model = parse(f"g ({signature}) => (float y) {{ {body} }}", w=(6, 5), t=(5, 6), b=(6,), k=(4, 5, 3, 3))
        model.graph.outputs[0].shape = None
        assert feeds_of(model)[0]["x"].shape == shape

    def test_sizes_that_are_expressions(self):
        model = parse(
            """g (float[batch, past, 2] cache, float[batch, seq, 2] x, float[batch, total] mask) => (float[a, b] y) {
                c = Concat <axis=1> (cache, x) s = ReduceSum <keepdims=0> (c, two) y = Add(s, mask) }""",
            two=np.array([2]),
        )
        model.graph.inputs[2].shape = type(model.graph.inputs[2].shape)(["batch", "past + seq"])
        assert len({feed["mask"].shape for feed in feeds_of(model)}) >= 3

    def test_total_length_is_past_and_new_tokens(self):
        model = parse(
            """g (float[batch, past_sequence_length] p, float[batch, sequence_length] x,
                  float[batch, total_sequence_length] m) => (float[a, b] y) { c = Concat <axis=1> (p, x) y = Add(c, m) }"""
        )
        assert feeds_of(model)

    def test_text_is_refused(self):
        model = parse("g (string[n] s) => (string[n] y) { y = Identity(s) }")
        with pytest.raises(DataError, match=r"input 's' takes text.*give --data"):
            generate_feeds(model)

    def test_types_that_cannot_be_fed_are_refused(self):
        model = parse("g (bfloat16[n] x) => (float[n] y) { y = Cast <to=1> (x) }")
        with pytest.raises(DataError, match="bfloat16"):
            generate_feeds(model)

    def test_inputs_with_a_default_are_left_alone(self):
        model = parse("g (float[n] x, float[1] b) => (float[n] y) { y = Add(x, b) }", b=np.ones(1, np.float32))
        assert list(feeds_of(model)[0]) == ["x"]

    def test_a_model_without_inputs(self):
        model = parse("g () => (float[3] y) { y = Identity(w) }", w=(3,))
        assert feeds_of(model, count=1) == [{}]


def test_the_seed_decides():
    model = parse("g (float[n, 5] x, float[n, 5] z) => (float[n, 5] y) { y = Add(x, z) }")
    first, again, other = (feeds_of(model, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0]["x"], other[0]["x"])
    assert not np.array_equal(first[0]["x"], first[0]["z"])


class TestRunnableFeeds:
    def test_sizes_are_tried_until_the_model_runs(self, runner):
        model = parse(
            """g (float[n, len] x) => (float[n, a] y) { r = Reshape(x, shape) y = Reshape(r, flat) }""",
            shape=np.array([1, -1, 32]),
            flat=np.array([1, -1]),
        )
        source = runnable_feeds(runner, model, count=3)
        assert len(source) == 3
        for sample in source.samples():
            assert sample.feed["x"].shape[1] % 32 == 0
            run_unoptimized(model, sample.feed)

    def test_every_length_is_tried_not_only_the_first(self, runner):
        model = parse(
            "g (int64[batch, seq] ids) => (float[a, b, c] y) { e = Gather(table, ids) y = Reshape(e, shape) }",
            table=TABLE,
            shape=np.array([1, -1, 32]),
        )
        for sample in runnable_feeds(runner, model, count=4).samples():
            run_unoptimized(model, sample.feed)

    def test_a_model_that_never_runs_asks_for_data(self, runner):
        model = parse("g (float[n] x) => (float[a] y) { y = Reshape(x, shape) }", shape=np.array([1_000_003]))
        with pytest.raises(DataError, match=r"does not run on generated inputs \(x \[1\]\).*give --data"):
            runnable_feeds(runner, model)

    def test_random_data_is_labelled_as_such(self, runner):
        model = parse("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }")
        source = open_data("random", model, count=5, runner=runner)
        assert source.synthetic
        assert source.describe() == "generated inputs (5 samples, generated)"
