"""Saving: the complete result or what was there before, the same bytes every time, weights where they belong."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ir_graphs import branch_proto, linear_proto, run_reference, tree, write_external

from irc.errors import ModelError, OutputError
from irc.ir import load, normalize, save, size_on_disk, snapshot, weight_bytes, writing
from irc.ir.writing import needs_external_data

X = {"x": np.random.default_rng(3).normal(size=(2, 64)).astype(np.float32)}


def lazily_scaled(model: ir.Model, factor: float) -> ir.Model:
    result = snapshot(model)
    for value in result.graph.initializers.values():
        tensor = value.const_value
        assert tensor is not None

        def evaluate(tensor: ir.TensorProtocol = tensor) -> ir.TensorProtocol:
            return ir.tensor(tensor.numpy() * np.float32(factor))

        value.const_value = ir.LazyTensor(evaluate, dtype=tensor.dtype, shape=ir.Shape(tensor.shape), name=value.name)
    return result


def test_inline(tmp_path: Path) -> None:
    assert save(normalize(linear_proto()), tmp_path / "m.onnx") == (tmp_path / "m.onnx",)
    assert list(tree(tmp_path)) == ["m.onnx"]


@pytest.mark.parametrize("threshold", [None, 0])
def test_either_way_stock_onnxruntime_computes_the_same(tmp_path: Path, threshold: int | None) -> None:
    files = save(normalize(linear_proto()), tmp_path / "m.onnx", external_threshold=threshold)
    assert len(files) == (1 if threshold is None else 2)
    np.testing.assert_array_equal(run_reference(tmp_path / "m.onnx", X)[0], run_reference(linear_proto(), X)[0])


def test_external_file_is_beside_the_model_and_named_after_it(tmp_path: Path) -> None:
    save(normalize(linear_proto()), tmp_path / "m.onnx", external_threshold=0)
    assert list(tree(tmp_path)) == ["m.onnx", "m.onnx.data"]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("m.onnx", "m.onnx.data"):
        (tmp_path / name).rename(moved / name)
    assert load(moved / "m.onnx").graph.initializers["w"].const_value is not None


def test_a_model_with_external_data_saved_elsewhere_takes_its_weights_along(tmp_path: Path) -> None:
    """onnx_ir keeps the old relative location and the weights are lost."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    model = load(write_external(source))
    for threshold in (None, 0):
        save(model, target / "m.onnx", external_threshold=threshold)
        got = run_reference(target / "m.onnx", X)[0]
        np.testing.assert_array_equal(got, run_reference(source / "m.onnx", X)[0])


def test_small_external_becomes_inline_and_large_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(write_external(tmp_path))
    assert not needs_external_data(model)
    monkeypatch.setattr(writing, "KEEP_EXTERNAL", 4096)
    assert needs_external_data(model)
    assert needs_external_data(lazily_scaled(model, 2)), "it came with external data, whatever became of the weights"
    assert not needs_external_data(normalize(linear_proto()))


def test_weights_of_bodies_go_to_the_data_file_too(tmp_path: Path) -> None:
    save(normalize(branch_proto()), tmp_path / "m.onnx", external_threshold=0)
    assert (tmp_path / "m.onnx.data").stat().st_size == 4 * 300 * 4
    x = np.ones((4, 300), np.float32)
    np.testing.assert_array_equal(run_reference(tmp_path / "m.onnx", {"cond": np.array(True), "x": x})[0], x * 3)


def test_large_weights_are_aligned_for_mapping(tmp_path: Path) -> None:
    model = normalize(linear_proto())
    for i, count in enumerate((1001, 20000, 30000)):
        tensor = ir.tensor(np.zeros(count, np.int8), name=f"odd{i}")
        model.graph.register_initializer(
            ir.Value(name=f"odd{i}", shape=ir.Shape([count]), type=ir.TensorType(ir.DataType.INT8), const_value=tensor)
        )
    big = ir.tensor(np.arange(20000, dtype=np.float32), name="big")
    model.graph.register_initializer(
        ir.Value(name="big", shape=ir.Shape([20000]), type=ir.TensorType(ir.DataType.FLOAT), const_value=big)
    )
    save(model, tmp_path / "m.onnx", external_threshold=0)
    loaded = load(tmp_path / "m.onnx").graph.initializers["big"].const_value
    assert loaded is not None
    assert loaded.offset % 4096 == 0  # type: ignore[attr-defined]
    np.testing.assert_array_equal(loaded.numpy(), big.numpy())


def test_lazy_tensors_are_evaluated_one_at_a_time(tmp_path: Path) -> None:
    model = normalize(linear_proto())
    alive: list[int] = []
    most = 0

    class Tracked(np.ndarray):
        def __del__(self) -> None:
            alive.pop()

    def evaluate(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        nonlocal most
        array = np.array(tensor.numpy()).view(Tracked)
        alive.append(1)
        most = max(most, len(alive))
        return ir.Tensor(array, dtype=tensor.dtype)

    for i in range(6):
        tensor = ir.tensor(np.zeros(4096, np.float32))
        lazy = ir.LazyTensor(lambda t=tensor: evaluate(t), dtype=tensor.dtype, shape=ir.Shape([4096]), name=f"l{i}")
        model.graph.register_initializer(
            ir.Value(name=f"l{i}", shape=ir.Shape([4096]), type=ir.TensorType(tensor.dtype), const_value=lazy)
        )
    save(model, tmp_path / "m.onnx", external_threshold=0)
    assert most == 1


@pytest.mark.parametrize("threshold", [None, 0])
def test_equal_models_give_equal_bytes(tmp_path: Path, threshold: int | None) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        model = normalize(branch_proto())
        pairs = [("z", "1"), ("a", "2")] if name == "a" else [("a", "2"), ("z", "1")]
        model.metadata_props.update(pairs)
        model.graph[0].metadata_props.update(pairs)
        save(model, tmp_path / name / "m.onnx", external_threshold=threshold)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    (tmp_path / "in.onnx").write_bytes(branch_proto().SerializeToString())
    script = "import sys; from irc.ir import *; m = load(sys.argv[1]); refresh_shapes(m); remove_dead(m); save(m, sys.argv[2])"
    for seed in ("1", "2"):
        command = [sys.executable, "-c", script, str(tmp_path / "in.onnx"), str(tmp_path / f"{seed}.onnx")]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


def test_the_model_in_memory_is_unchanged_and_usable(tmp_path: Path) -> None:
    model = load(write_external(tmp_path))
    tensor = model.graph.initializers["w"].const_value
    save(model, tmp_path / "out.onnx", external_threshold=0)
    assert model.graph.initializers["w"].const_value is tensor
    assert tensor is not None
    assert tensor.numpy().sum() == 64 * 16


@pytest.mark.parametrize("via", ["name", "data", "link"])
def test_the_input_is_never_written_over(tmp_path: Path, via: str) -> None:
    path = write_external(tmp_path)
    target = path
    if via == "link":
        target = tmp_path / "alias.onnx"
        target.symlink_to(path)
    if via == "data":
        (tmp_path / "w.bin").rename(tmp_path / "out.onnx.data")
        proto = onnx.load(path, load_external_data=False)
        proto.graph.initializer[0].external_data[0].value = "out.onnx.data"
        path.write_bytes(proto.SerializeToString())
        target = tmp_path / "out.onnx"
    before = tree(tmp_path)
    view = load(path).graph.initializers["w"].const_value
    assert view is not None
    held = view.numpy()
    with pytest.raises(OutputError, match="never modifies"):
        save(load(path), target, external_threshold=0)
    assert tree(tmp_path) == before
    assert held.sum() == 64 * 16


def test_overwriting_an_earlier_output_replaces_it(tmp_path: Path) -> None:
    model = normalize(linear_proto())
    save(model, tmp_path / "m.onnx", external_threshold=0)
    save(lazily_scaled(model, 2), tmp_path / "m.onnx", external_threshold=0)
    weight = load(tmp_path / "m.onnx").graph.initializers["b"].const_value
    original = model.graph.initializers["b"].const_value
    assert weight is not None
    assert original is not None
    np.testing.assert_array_equal(weight.numpy(), original.numpy() * 2)


def test_files_get_the_ordinary_mode(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for path in save(normalize(linear_proto()), tmp_path / "m.onnx", external_threshold=0):
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_target_is_a_directory_or_its_folder_is_missing(tmp_path: Path) -> None:
    model = normalize(linear_proto())
    with pytest.raises(OutputError, match="is a directory"):
        save(model, tmp_path)
    with pytest.raises(OutputError, match="No such file or directory; choose another -o"):
        save(model, tmp_path / "none" / "m.onnx")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        save(model, tmp_path / "file" / "m.onnx")


def test_data_target_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "m.onnx.data").mkdir()
    with pytest.raises(OutputError, match="is a directory"):
        save(normalize(linear_proto()), tmp_path / "m.onnx", external_threshold=0)
    assert tree(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            save(normalize(linear_proto()), tmp_path / "m.onnx")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("threshold", ["None", "0"])
def test_a_write_that_fails_halfway_leaves_what_was_there(tmp_path: Path, threshold: str) -> None:
    """A real failing write: the kernel refuses to let any file grow beyond 4 KiB."""
    (tmp_path / "m.onnx").write_bytes(b"what was there before")
    script = textwrap.dedent(f"""
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from ir_graphs import linear_proto
        from irc.errors import OutputError
        from irc.ir import normalize, save
        model = normalize(linear_proto())
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            save(model, {str(tmp_path / "m.onnx")!r}, external_threshold={threshold})
        except OutputError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "the file is too large" in done.stdout or "the disk is full or a limit is reached" in done.stdout
    assert tree(tmp_path) == {"m.onnx": b"what was there before"}


def test_a_full_disk_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left on the device"):
        save(normalize(linear_proto()), tmp_path / "m.onnx")
    assert tree(tmp_path) == {}


def test_a_failing_lazy_weight_is_a_model_error_and_leaves_nothing(tmp_path: Path) -> None:
    model = normalize(linear_proto())

    def fail() -> ir.TensorProtocol:
        raise ValueError("no such channel")

    old = model.graph.initializers["w"].const_value
    assert old is not None
    model.graph.initializers["w"].const_value = ir.LazyTensor(
        fail, dtype=old.dtype, shape=ir.Shape(old.shape), name="w"
    )
    for threshold in (None, 0):
        with pytest.raises(ModelError, match="cannot be serialized: no such channel"):
            save(model, tmp_path / "m.onnx", external_threshold=threshold)
    assert tree(tmp_path) == {}


def test_interrupt_while_writing_leaves_nothing(tmp_path: Path) -> None:
    model = lazily_scaled(normalize(linear_proto()), 1)
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None

    def interrupted() -> ir.TensorProtocol:
        os.kill(os.getpid(), signal.SIGINT)
        return ir.tensor(np.zeros((64, 32), np.float32))

    model.graph.initializers["w"].const_value = ir.LazyTensor(
        interrupted, dtype=tensor.dtype, shape=ir.Shape(tensor.shape), name="w"
    )
    with pytest.raises(KeyboardInterrupt):
        save(model, tmp_path / "m.onnx", external_threshold=0)
    assert tree(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_interrupt_between_the_two_renames_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a new data file would lie beside the old model."""
    old = normalize(linear_proto())
    save(old, tmp_path / "m.onnx", external_threshold=0)
    rename, calls = os.replace, []

    def interrupted(source: Path, target: Path) -> None:
        rename(source, target)
        if Path(target).parent == tmp_path:
            calls.append(Path(target).name)
            if len(calls) == 1:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(os, "replace", interrupted)
    new = lazily_scaled(old, 2)
    with pytest.raises(KeyboardInterrupt):
        save(new, tmp_path / "m.onnx", external_threshold=0)
    monkeypatch.undo()
    assert calls == ["m.onnx.data", "m.onnx"]
    assert list(tree(tmp_path)) == ["m.onnx", "m.onnx.data"]
    np.testing.assert_allclose(
        run_reference(tmp_path / "m.onnx", X)[0], 2 * run_reference(linear_proto(), X)[0], rtol=1e-6
    )


def test_saving_from_a_thread(tmp_path: Path) -> None:
    thread = threading.Thread(target=save, args=(normalize(linear_proto()), tmp_path / "m.onnx"))
    thread.start()
    thread.join()
    load(tmp_path / "m.onnx")


@pytest.mark.parametrize("proto", [linear_proto(), branch_proto()])
def test_size_on_disk_is_the_size_of_the_file(tmp_path: Path, proto: onnx.ModelProto) -> None:
    model = normalize(proto)
    save(model, tmp_path / "m.onnx")
    assert abs(size_on_disk(model) - (tmp_path / "m.onnx").stat().st_size) <= 16


def test_size_of_lazy_weights_is_known_without_evaluating(tmp_path: Path) -> None:
    model = normalize(linear_proto())

    def fail() -> ir.TensorProtocol:
        raise AssertionError

    for value in model.graph.initializers.values():
        old = value.const_value
        assert old is not None
        if old.nbytes >= 1024:
            value.const_value = ir.LazyTensor(fail, dtype=old.dtype, shape=ir.Shape(old.shape), name=value.name)
    assert weight_bytes(model) == 64 * 32 * 4 + 32 * 4
    assert abs(size_on_disk(model) - size_on_disk(normalize(linear_proto()))) <= 16


def test_packed_types_keep_their_bytes(tmp_path: Path) -> None:
    model = normalize(linear_proto())
    values = np.arange(-8, 7).astype(ir.DataType.INT4.numpy())
    model.graph.register_initializer(
        ir.Value(
            name="q",
            shape=ir.Shape([15]),
            type=ir.TensorType(ir.DataType.INT4),
            const_value=ir.tensor(values, name="q"),
        )
    )
    model.graph.opset_imports[""] = 21
    model.ir_version = 10
    save(model, tmp_path / "m.onnx")
    written = {t.name: t for t in onnx.load(tmp_path / "m.onnx").graph.initializer}["q"]
    assert len(written.raw_data) == 8
    loaded = load(tmp_path / "m.onnx").graph.initializers["q"].const_value
    assert loaded is not None
    np.testing.assert_array_equal(loaded.numpy(), values)


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(OutputError, match="device or a pipe"):
        save(normalize(linear_proto()), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").is_fifo()
