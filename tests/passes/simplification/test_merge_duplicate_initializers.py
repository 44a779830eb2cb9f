"""merge-duplicate-initializers: one constant per content, whatever its size, and no constant merged that only looks equal."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import apply, assert_equal_after, assert_promises, assert_untouched, parse

from irc.ir import load, size_on_disk
from irc.passes.simplification import MergeDuplicateInitializers, merge_duplicate_initializers
from irc.passes.simplification.tensor_content import (
    SAMPLE_ELEMENTS,
    ContentKey,
    content_digest,
    content_key,
    sample_key,
)

PASS = MergeDuplicateInitializers()
ONES = np.ones((2, 3), np.float32)


def names(model: ir.Model) -> list[list[str]]:
    """Names of the initializers of each graph, the main graph first."""
    return [list(graph.initializers) for graph in (model.graph, *model.graph.subgraphs())]


def test_the_first_of_equal_constants_stays() -> None:
    model = parse(
        "g (float[2,3] x) => (float[2,3] y) { a = Add(x, u)  b = Mul(a, v)  c = Sub(b, w)  y = Max(c, u, v) }",
        u=ONES * 3,
        v=ONES * 3,
        w=ONES * 2,
    )
    outcome = assert_equal_after(PASS, model)
    assert outcome.rewritten == ["v"] and outcome.skipped == {}
    assert names(outcome.model) == [["u", "w"]]
    assert size_on_disk(outcome.model) < size_on_disk(model)


DIFFERENT = {
    "dtype": (np.zeros(4, np.int32), np.zeros(4, np.float32)),
    "shape": (np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)),
    "rank": (np.ones(1, np.float32), np.array(1, np.float32)),
    "one element": (np.array([1, 2, 3], np.float32), np.array([1, 2, 4], np.float32)),
    "sign of zero": (np.array([0.0, 1], np.float32), np.array([-0.0, 1], np.float32)),
    "kind of NaN": (np.array([0x7FC00000], np.uint32).view(np.float32), np.array([0x7FC00001], np.uint32).view(np.float32)),
    "element outside the sample": (np.arange(9000, dtype=np.float32), np.where(np.arange(9000) == 2000, -1, np.arange(9000)).astype(np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_keeps_constants_that_differ_in(case: str) -> None:
    u, v = DIFFERENT[case]
    model = parse("g (float[2] x) => (float[2] y) { y, a, b = custom.Three(x, u, v) }", u=u, v=v)
    assert assert_untouched(PASS, model) == {}


def test_the_element_outside_the_sample_is_outside_the_sample() -> None:
    u, v = DIFFERENT["element outside the sample"]
    assert sample_key(ir.tensor(u)) == sample_key(ir.tensor(v)) and u.size > 3 * SAMPLE_ELEMENTS


@pytest.mark.parametrize(
    "array",
    [
        np.array([np.nan, np.inf, -0.0], np.float32),
        np.array([], np.float32),
        np.array(True),
        np.array([1, 2, 3], ml_dtypes.bfloat16),
        np.array([1, 2, 3], ml_dtypes.float8_e4m3fn),
        np.array([1, -2, 3], ml_dtypes.int4),
        np.array(["ab", "", "c"], object),
    ],
    ids=lambda a: str(a.dtype),
)
def test_merges_every_type(array: np.ndarray) -> None:
    model = parse("g (float[2] x) => (float[2] y) { y, a = custom.Two(x, u, v) }", opset=21, u=array, v=array.copy())
    outcome = apply(PASS, model)
    assert_promises(PASS, model, outcome)
    assert outcome.rewritten == ["v"] and names(outcome.model) == [["u"]]


def test_texts_that_are_equal_only_when_joined_are_not_equal() -> None:
    u, v = np.array(["ab", "c"], object), np.array(["a", "bc"], object)
    model = parse("g (float[2] x) => (float[2] y) { y, a = custom.Two(x, u, v) }", u=u, v=v)
    assert assert_untouched(PASS, model) == {}


def test_leaves_what_callers_may_override() -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { a = Add(x, u)  y = Mul(a, v) }", u=ONES, v=ONES)
    for name in ("u", "v"):
        overridable = model.clone()
        overridable.graph.inputs.append(overridable.graph.initializers[name])
        assert assert_untouched(PASS, overridable) == {}


def test_a_graph_output_stays_and_takes_the_users_of_the_other() -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y, float[2,3] v) { y = Add(x, u) }", u=ONES, v=ONES)
    outcome = apply(PASS, model)
    assert_promises(PASS, model, outcome)
    assert outcome.rewritten == ["u"] and names(outcome.model) == [["v"]]


def test_two_graph_outputs_both_stay() -> None:
    source = "g (float[2,3] x) => (float[2,3] y, float[2,3] u, float[2,3] v) { y = Add(x, v) }"
    assert assert_untouched(PASS, parse(source, u=ONES, v=ONES)) == {
        "v": "it equals 'u', but is a graph output, whose name must stay"
    }


def test_unused_constants_are_not_its_business() -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { y = Add(x, u) }", u=ONES, v=ONES)
    assert assert_untouched(PASS, model) == {}


IF = """g (bool c, float[2] x) => (float[2] y) { h = Add(x, {outer})  y = If (c) <
    then_branch = t () => (float[2] p) <float[2] u = {{1, 2}}> {{ p = Mul(h, u) }},
    else_branch = e () => (float[2] q) <float[2] v = {{1, 2}}> {{ q = Sub(h, v) }}> }}"""


def test_a_body_uses_the_constant_around_it() -> None:
    source = IF.replace("{outer}", "w").replace("{{", "{").replace("}}", "}")
    model = parse(source, w=np.array([1, 2], np.float32))
    outcome = assert_equal_after(PASS, model, symbols=(1, 1, 1, 1))
    assert outcome.rewritten == ["u", "v"] and names(outcome.model) == [["w"], [], []]


def test_a_body_does_not_use_the_constant_of_another_body() -> None:
    source = IF.replace("{outer}", "w").replace("{{", "{").replace("}}", "}")
    model = parse(source, w=np.array([3, 4], np.float32))
    assert assert_untouched(PASS, model) == {}


def test_a_body_in_a_body() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) { y = If (c) <
        then_branch = t () => (float[2] p) <float[2] u = {1, 2}> { a = Mul(x, u)  p = If (c) <
            then_branch = tt () => (float[2] r) <float[2] k = {1, 2}> { r = Mul(a, k) },
            else_branch = te () => (float[2] s) <float[2] l = {1, 2}> { s = Sub(l, a) }> },
        else_branch = e () => (float[2] q) { q = Neg(x) }> }"""
    )
    outcome = assert_equal_after(PASS, model, symbols=(1, 1, 1, 1))
    assert outcome.rewritten == ["k", "l"] and names(outcome.model)[1] == ["u"]


def test_the_body_of_a_loop() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { a = Mul(x, w)  y = Loop (n, on, a) <
        body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) <float[2] k = {1, 2}> { t = Add(s, k)  d = Identity(c) }> }""",
        n=np.array(3),
        on=np.array(True),
        w=np.array([1, 2], np.float32),
    )
    assert names(assert_equal_after(PASS, model).model) == [["n", "on", "w"], []]


def test_the_body_of_a_custom_operator_keeps_its_own() -> None:
    source = IF.replace("{outer}", "w").replace("{{", "{").replace("}}", "}").replace("If (c)", "custom.Beam (c)")
    model = parse(source, w=np.array([1, 2], np.float32), raw=True)
    outcome = apply(PASS, model)
    assert outcome.rewritten == []


def test_lazy_constants_are_evaluated_and_merged() -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { a = Add(x, u)  y = Mul(a, v) }", u=ONES, v=ONES)
    for name in ("u", "v"):
        model.graph.initializers[name].const_value = ir.LazyTensor(
            lambda: ir.tensor(ONES), ir.DataType.FLOAT, ir.Shape((2, 3)), name=name
        )
    assert apply(PASS, model).rewritten == ["v"]


def test_the_digest_does_not_depend_on_where_a_tensor_lies(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(700, 900)).astype(np.float32)
    transposed = np.asfortranarray(array)
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + array.tobytes())
    external = ir.ExternalTensor(
        "w.bin", 8, array.nbytes, ir.DataType.FLOAT, shape=ir.Shape(array.shape), name="w", base_dir=tmp_path
    )
    lazy = ir.LazyTensor(lambda: external, ir.DataType.FLOAT, ir.Shape(array.shape))
    digests = {content_digest(t) for t in (ir.tensor(array), ir.Tensor(transposed), external, lazy)}
    assert len(digests) == 1
    assert len({sample_key(t) for t in (ir.tensor(array), ir.Tensor(transposed), external)}) == 1


def test_a_key_holds_dtype_and_shape() -> None:
    keys = {
        content_key(ir.tensor(a))
        for a in (np.zeros(4, np.int32), np.zeros(4, np.float32), np.zeros((2, 2), np.float32))
    }
    assert len(keys) == 3


def test_constants_that_differ_in_the_sample_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(tensor: ir.TensorProtocol) -> ContentKey:
        read.append(tensor.name or "")
        return content_key(tensor)

    monkeypatch.setattr(merge_duplicate_initializers, "content_key", counted)
    model = parse(
        "g (float[2,3] x) => (float[2,3] y) { a = Add(x, u)  b = Add(a, v)  y = Add(b, w) }", u=ONES, v=ONES * 2, w=ONES
    )
    assert apply(PASS, model).rewritten == ["w"] and read == ["u", "w"]


MEMORY = textwrap.dedent("""
    import sys
    from pathlib import Path
    import numpy as np, onnx_ir as ir
    sys.path.insert(0, sys.argv[1])
    from pass_kit import apply
    from irc.ir import load
    from irc.passes.simplification import MergeDuplicateInitializers

    def anonymous():
        line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon"))
        return int(line.split()[1]) / 1024

    import resource, threading, time
    model = load(sys.argv[2])
    before, peak = anonymous(), 0.0
    def watch():
        global peak
        while True:
            peak = max(peak, anonymous()); time.sleep(0.002)
    threading.Thread(target=watch, daemon=True).start()
    outcome = apply(MergeDuplicateInitializers(), model)
    assert outcome.rewritten == ["w1"], outcome.rewritten
    print(peak - before)
""")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory accounting")
def test_large_external_weights_stay_mapped(tmp_path: Path) -> None:
    size = 32 << 20
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(3 * size)
        file.seek(2 * size + 4096 * 4000)
        file.write(b"\1")
    nodes = "  ".join(f"h{i + 1} = Add(h{i}, w{i})" for i in range(3))
    model = parse(f"g (float[n] h0) => (float[n] h3) {{ {nodes} }}", raw=True, **{f"w{i}": (1,) for i in range(3)})
    for i in range(3):
        value = model.graph.initializers[f"w{i}"]
        value.const_value = ir.ExternalTensor(
            "w.bin", i * size, size, ir.DataType.FLOAT, shape=ir.Shape((size // 4,)), name=f"w{i}"
        )
        value.shape = ir.Shape((size // 4,))
    (tmp_path / "m.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    loaded = load(tmp_path / "m.onnx")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(Path(__file__).parents[2]), str(tmp_path / "m.onnx")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 24
    merged = apply(PASS, loaded).model
    assert all(isinstance(v.const_value, ir.ExternalTensor) for v in merged.graph.initializers.values())
