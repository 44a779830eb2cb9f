"""Verification tells rounding from error, in every kind of output, and outlives every candidate."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from runner_models import affine, dense, endless, from_text

from irc import verification
from irc.pass_base import Contract
from irc.runner import Feed, Runner
from irc.verification import Verifier

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
EXACT, ROUNDING = Contract.EXACT, Contract.ROUNDING


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(threads=1) as runner:
        yield runner


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def feeds(count: int = 2, width: int = 64) -> list[Feed]:
    return [{"x": normal(3, width, seed=i)} for i in range(count)]


def test_the_model_itself_and_a_copy_hold_both_contracts(runner: Runner) -> None:
    model = dense()
    verifier = Verifier(runner, model, feeds())
    assert verifier.reference_failed is None and not verifier.notes
    for contract in (EXACT, ROUNDING):
        verdict = verifier.check(model.clone(), contract)
        assert verdict.ok and verdict.message == "" and verdict.error == 0
    assert verifier.runs == 2


@pytest.mark.parametrize(
    ("relative_error", "exact", "rounding"), [(0, True, True), (3e-7, False, True), (1e-4, False, False)]
)
def test_rounding_is_told_from_error(runner: Runner, relative_error: float, exact: bool, rounding: bool) -> None:
    verifier = Verifier(runner, dense(), feeds())
    candidate = dense(relative_error=relative_error)
    assert verifier.check(candidate, EXACT).ok is exact
    verdict = verifier.check(candidate, ROUNDING)
    assert verdict.ok is rounding
    assert verdict.worst_output == "y"
    assert (verdict.error <= verdict.tolerance) is rounding
    if not rounding:
        assert "output 'y' of sample 0 is off by" in verdict.message and "rounding allows" in verdict.message


def test_the_optimizer_of_the_runtime_does_not_hide_an_error(runner: Runner) -> None:
    # With optimizations on, x * 0 + y would be the same graph for the runtime as the reference in both cases.
    verifier = Verifier(
        runner,
        from_text(f"{HEAD} g (float[n] x) => (float[n] y) {{ y = Identity(x) }}"),
        [{"x": np.float32([1, -0.5])}],
    )
    wrong = from_text(f"{HEAD} g (float[n] x) => (float[n] y) {{ y = Abs(x) }}")
    assert not verifier.check(wrong, ROUNDING).ok


def test_the_models_own_noise_sets_the_tolerance(runner: Runner) -> None:
    # Cancellation: the result is all rounding, so an absolute tolerance by the size of the output would be far too small.
    text = f"""{HEAD} g (float[n,512] x) => (float[n,64] y) {{
        a = MatMul(x, w)
        s = Add(a, b)
        big = Mul(s, k)
        r = Add(big, k)
        y = Sub(r, k)
    }}"""
    weights = {"w": normal(512, 64), "b": normal(64), "k": np.float32(1000)}
    data = [{"x": normal(4, 512)}]
    strict, usual = (
        Verifier(runner, from_text(text, **weights), data, multiple=0),
        Verifier(runner, from_text(text, **weights), data),
    )
    verdicts = [v.check(from_text(text, **weights), ROUNDING) for v in (strict, usual)]
    assert all(v.ok for v in verdicts)
    assert verdicts[0].tolerance <= verdicts[1].tolerance


def test_nan_equals_nan_and_must_stay_in_place(runner: Runner) -> None:
    root = f"{HEAD} g (float[n] x) => (float[n] y) {{ y = Sqrt(x) }}"
    verifier = Verifier(runner, from_text(root), [{"x": np.float32([4, -1, np.inf])}])
    for contract in (EXACT, ROUNDING):
        assert verifier.check(from_text(root), contract).ok
        other = from_text(f"{HEAD} g (float[n] x) => (float[n] y) {{ a = Abs(x)\n y = Sqrt(a) }}")
        assert verifier.check(other, contract).message == "output 'y' of sample 0 has NaN or infinity in other places"


def test_integers_below_floats_may_disagree_a_little_and_others_not_at_all(runner: Runner) -> None:
    text = f"""{HEAD} g (float[n] x, int64[n] i) => (int64[n] rounded, int64[n] counted, bool[n] positive) <float k = {{1000.0}}, int64 one = {{1}}, float zero = {{SHIFT}}> {{
        s = Mul(x, k)
        t = Sub(s, zero)
        rounded = Cast <to = 7> (t)
        counted = Add(i, one)
        positive = Greater(t, zero)
    }}"""
    feed = {"x": np.random.default_rng(0).uniform(-1, 1, 5001).astype(np.float32), "i": np.arange(5001)}
    verifier = Verifier(runner, from_text(text.replace("SHIFT", "0.0")), [feed])
    near = verifier.check(from_text(text.replace("SHIFT", "0.0006")), ROUNDING)
    assert near.ok and 0 < near.error <= 0.001
    far = verifier.check(from_text(text.replace("SHIFT", "0.9")), ROUNDING)
    assert not far.ok and "of the elements differ" in far.message
    assert not verifier.check(from_text(text.replace("SHIFT", "0.0006")), EXACT).ok
    # One wrong element of 5001 is below the agreement threshold, yet no float reaches this output.
    off_by_one = text.replace(
        "counted = Add(i, one)", "e = Equal(i, one)\n f = Cast <to = 7> (e)\n c = Add(i, one)\n counted = Add(c, f)"
    )
    verdict = verifier.check(from_text(off_by_one.replace("SHIFT", "0.0")), ROUNDING)
    assert not verdict.ok and verdict.worst_output == "counted"


@pytest.mark.parametrize(
    "change",
    ["c = Concat <axis = 0> (x, x)\n y = Neg(c)", "d = Cast <to = 11> (x)\n e = Neg(d)\n y = Cast <to = 11> (e)"],
)
def test_other_shapes_and_dtypes_are_violations(runner: Runner, change: str) -> None:
    verifier = Verifier(
        runner, from_text(f"{HEAD} g (float[n] x) => (float[n] y) {{ y = Neg(x) }}"), [{"x": normal(3)}]
    )
    dtype = "double" if "Cast" in change else "float"
    verdict = verifier.check(from_text(f"{HEAD} g (float[n] x) => ({dtype}[m] y) {{ {change} }}"), ROUNDING)
    assert not verdict.ok and "was float32 [3] and is" in verdict.message


def test_a_missing_output_is_a_violation(runner: Runner) -> None:
    verifier = Verifier(runner, affine(), [{"x": normal(3)}])
    renamed = from_text(f"{HEAD} g (float[n] x) => (float[n] z) {{ z = Neg(x) }}")
    assert not verifier.check(renamed, ROUNDING).ok


def test_zero_size_outputs(runner: Runner) -> None:
    verifier = Verifier(runner, affine(), [{"x": normal(0)}])
    assert verifier.check(affine(), EXACT).ok and verifier.check(affine(3.0), ROUNDING).ok


def test_sequences_and_strings(runner: Runner) -> None:
    text = f"""{HEAD} g (float[n] x, string[k] t) => (seq(float[n]) l, string[k] u) {{
        y = ACT(x)
        l = SequenceConstruct(x, y)
        u = Identity(t)
    }}"""
    feed = {"x": normal(4), "t": np.array(["a", "b"], dtype=object)}
    verifier = Verifier(runner, from_text(text.replace("ACT", "Neg")), [feed])
    assert verifier.check(from_text(text.replace("ACT", "Neg")), EXACT).ok
    verdict = verifier.check(from_text(text.replace("ACT", "Abs")), ROUNDING)
    assert not verdict.ok and verdict.worst_output == "l[1]"


def test_random_outputs_are_reported_and_the_others_still_checked(runner: Runner) -> None:
    text = f"""{HEAD} g (float[n] x) => (float[n] noise, float[n] y) {{
        noise = RandomNormalLike(x)
        y = ACT(x)
    }}"""
    verifier = Verifier(runner, from_text(text.replace("ACT", "Neg")), [{"x": normal(8)}])
    assert list(verifier.unstable) == ["noise"]
    assert verifier.notes == ["output 'noise' is not verified: it differs between two runs of the original on sample 0"]
    assert verifier.check(from_text(text.replace("ACT", "Neg")), EXACT).ok
    assert not verifier.check(from_text(text.replace("ACT", "Abs")), ROUNDING).ok


def test_half_precision_models_are_allowed_their_own_rounding(runner: Runner) -> None:
    text = f"""{HEAD} g (float[n,64] x) => (float[n,64] y) {{
        h = Cast <to = 10> (x)
        m = MatMul(h, w)
        y = Cast <to = 1> (m)
    }}"""
    weight = normal(64, 64).astype(np.float16)
    verifier = Verifier(runner, from_text(text, w=weight), [{"x": normal(2, 64)}])
    assert verifier.check(from_text(text, w=weight * np.float16(1.001)), ROUNDING).ok
    assert not verifier.check(from_text(text, w=weight * np.float16(1.05)), ROUNDING).ok


def test_bits_of_half_precision_depend_on_other_users_and_are_not_asked_for(runner: Runner) -> None:
    """ONNX Runtime computes Tanh in float32 and skips the rounding to float16 if the widening Cast is its only user."""
    text = f"""{HEAD} g (float16[n,64] x) => (double[n,64] y) {{ t = OP(x)  DEAD y = Cast <to = 11> (t) }}"""
    with_another_user = from_text(text.replace("OP", "Tanh").replace("DEAD", "d = SequenceConstruct(t)"))
    alone = from_text(text.replace("OP", "Tanh").replace("DEAD", ""))
    verifier = Verifier(runner, with_another_user, [{"x": normal(2, 64).astype(np.float16)}])
    verdict = verifier.check(alone, EXACT)
    assert verdict.ok and verdict.error > 0
    assert not verifier.check(from_text(text.replace("OP", "Sigmoid").replace("DEAD", "")), EXACT).ok


def test_a_reference_the_runtime_cannot_run_is_said(runner: Runner) -> None:
    custom = from_text(
        '<ir_version: 10, opset_import: ["" : 20, "my.ops": 1]> g (float[n] x) => (float[n] y) { y = my.ops.Foo(x) }'
    )
    verifier = Verifier(runner, custom, [{"x": normal(3)}])
    assert verifier.reference_failed is not None and "Foo" in verifier.reference_failed
    assert not verifier.check(affine(), EXACT).ok
    assert Verifier(runner, affine(), []).reference_failed == "there are no inputs to run it on"


def test_a_refused_candidate_is_a_violation(runner: Runner) -> None:
    verifier = Verifier(runner, affine(), [{"x": normal(3)}])
    broken = from_text(f"{HEAD} g (float[n] x) => (float[n] y) {{ y = NoSuchOp(x) }}")
    verdict = verifier.check(broken, ROUNDING)
    assert not verdict.ok and "NoSuchOp" in verdict.message
    lazy = affine()
    failing = ir.LazyTensor(lambda: 1 / 0, dtype=ir.DataType.FLOAT, shape=ir.Shape([1000]), name="w")
    weight = ir.Value(name="w", const_value=failing, type=ir.TensorType(failing.dtype))
    lazy.graph.register_initializer(weight)
    lazy.graph.append(ir.node("Neg", [weight]))
    assert "ZeroDivisionError" in verifier.check(lazy, ROUNDING).message
    assert verifier.check(affine(), EXACT).ok


def test_a_crashing_candidate_is_a_violation_and_the_reference_survives() -> None:
    with Runner(threads=1) as runner:
        feed = {"turns": np.array(3), "x": np.float32([1])}
        verifier = Verifier(runner, endless(), [feed])
        slow = endless()
        slow.graph[1].replace_input_with(0, _forever(slow))
        threading.Timer(0.3, os.kill, (runner.process.pid, signal.SIGSEGV)).start()
        verdict = verifier.check(slow, ROUNDING)
        assert not verdict.ok and "SIGSEGV" in verdict.message
        assert verifier.check(endless(), EXACT).ok


def test_a_hanging_candidate_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "LEAST_PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(verification, "PATIENCE", 0.0)
    with Runner(threads=1) as runner:
        verifier = Verifier(runner, endless(), [{"turns": np.array(3), "x": np.float32([1])}])
        slow = endless()
        slow.graph[1].replace_input_with(0, _forever(slow))
        verdict = verifier.check(slow, ROUNDING)
        assert not verdict.ok and "no answer within 1 s" in verdict.message
        assert verifier.check(endless(), EXACT).ok


def _forever(model: ir.Model) -> ir.Value:
    value = ir.Value(
        name="forever",
        const_value=ir.Tensor(np.array(2**60), name="forever"),
        shape=ir.Shape([]),
        type=ir.TensorType(ir.DataType.INT64),
    )
    model.graph.register_initializer(value)
    return value


def test_files_of_a_reference_go_with_the_verifier() -> None:
    runner = Runner(threads=1)
    first, second = Verifier(runner, dense(), feeds()), Verifier(runner, affine(), [{"x": normal(3)}])
    del first
    gc.collect()
    assert second.check(affine(), EXACT).ok
    del second
    gc.collect()
    assert list(runner.process.folder.iterdir()) == []
    runner.close()


BIG = """
    import sys
    from pathlib import Path
    import numpy as np, onnx, onnx_ir as ir
    from onnx import TensorProto, helper
    from irc.ir import load, snapshot
    from irc.pass_base import Contract
    from irc.runner import Runner
    from irc.verification import Verifier

    folder, layers, width = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    size = width * width * 4
    with (folder / "m.data").open("wb") as file:
        file.truncate(size * layers)
        # All rows equal, adding up to one: the sum of the values is the same behind every layer.
        row = np.random.default_rng(0).uniform(0, 2 / width, width)
        row = (row / row.sum()).astype(np.float32).tobytes()
        for i in range(layers):
            file.seek(i * size)
            for _ in range(width):
                file.write(row)
    nodes = [helper.make_node("MatMul", [f"v{i}", f"w{i}"], [f"v{i + 1}"]) for i in range(layers)]
    weights = []
    for i in range(layers):
        t = TensorProto(name=f"w{i}", data_type=1, dims=[width, width], data_location=1)
        for key, value in (("location", "m.data"), ("offset", str(i * size)), ("length", str(size))):
            t.external_data.add(key=key, value=value)
        weights.append(t)
    value = lambda name: helper.make_tensor_value_info(name, 1, [1, width])
    graph = helper.make_graph(nodes, "g", [value("v0")], [value(f"v{layers}")], weights)
    (folder / "m.onnx").write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    )
    def anonymous(pid):
        status = dict(l.split(":", 1) for l in open(f"/proc/{pid}/status") if ":" in l)
        return int(status["RssAnon"].split()[0]) // 1024

    model = load(folder / "m.onnx")
    with Runner() as runner:
        before = anonymous("self")
        verifier = Verifier(runner, model, [{"v0": np.full((1, width), 1e-3, np.float32)}])
        assert verifier.reference_failed is None, verifier.reference_failed
        assert verifier.check(snapshot(model), Contract.EXACT).ok
        wrong = snapshot(model)
        node = wrong.graph[0]
        scaled = ir.node("Mul", [node.inputs[0], node.inputs[0]])
        wrong.graph.insert_before(node, scaled)
        node.replace_input_with(0, scaled.outputs[0])
        assert not verifier.check(wrong, Contract.ROUNDING).ok
        print(before, anonymous("self"), anonymous(runner.process.pid))
"""


def anonymous_megabytes(tmp_path: Path, layers: int, width: int) -> tuple[int, int, int]:
    """Of the compiler before and after verification, and of the runtime process."""
    script = tmp_path / "big.py"
    script.write_text(textwrap.dedent(BIG))
    arguments = [sys.executable, str(script), str(tmp_path), str(layers), str(width)]
    out = subprocess.run(arguments, capture_output=True, text=True, check=False)
    (tmp_path / "m.data").unlink()
    assert out.returncode == 0, out.stderr[-2000:]
    before, after, child = map(int, out.stdout.split())
    return before, after, child


def test_external_weights_stay_out_of_the_compilers_memory(tmp_path: Path) -> None:
    before, after, _ = anonymous_megabytes(tmp_path, 6, 2048)
    assert after - before < 20, "100 MB of weights"


@pytest.mark.slow
def test_verification_of_2500_megabytes(tmp_path: Path) -> None:
    _, after, child = anonymous_megabytes(tmp_path, 150, 2048)
    assert after < 700
    assert child < 1.2 * 2517, "one copy of the weights at a time"
