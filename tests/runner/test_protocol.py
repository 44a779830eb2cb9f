"""Messages survive the pipe and the file unchanged, and broken streams are noticed."""

from __future__ import annotations

import io
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from irc.runner.protocol import ConnectionClosed, encode, mapped, receive, send, store

DTYPES = [np.float32, np.float16, np.int64, np.uint8, np.bool_]
arrays = st.sampled_from(DTYPES).flatmap(lambda t: hnp.arrays(t, hnp.array_shapes(min_dims=0, min_side=0, max_side=40)))


def same(a: object, b: object) -> bool:
    return isinstance(a, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text(max_size=5), arrays, max_size=4))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, message: dict[str, np.ndarray]) -> None:
    stream = io.BytesIO()
    send(stream, message)
    send(stream, "next")
    stream.seek(0)
    piped = receive(stream)
    assert receive(stream) == "next"
    path = tmp_path_factory.mktemp("store") / "message.bin"
    store(path, message)
    filed = mapped(path)
    for found in (piped, filed):
        assert list(found) == list(message)
        assert all(same(found[name], message[name]) for name in message)


def test_views_strings_and_fortran_order() -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    message = [base[::2, 1:], np.asfortranarray(base), base.T, np.array([["a", "bc"]], dtype=object), None]
    stream = io.BytesIO()
    send(stream, message)
    stream.seek(0)
    found = receive(stream)
    assert all(np.array_equal(a, b) for a, b in zip(found[:4], message[:4], strict=True))
    assert found[4] is None


def test_received_arrays_are_writable_and_mapped_ones_are_not(tmp_path: Path) -> None:
    stream = io.BytesIO()
    send(stream, np.zeros(1000))
    stream.seek(0)
    receive(stream)[0] = 1
    store(tmp_path / "x.bin", np.zeros(1000))
    with pytest.raises(ValueError, match="read-only"):
        mapped(tmp_path / "x.bin")[0] = 1


def test_large_arrays_are_not_copied_into_the_pickle() -> None:
    array = np.ones(1 << 20, np.float32)
    parts = encode({"x": array})
    assert sum(part.nbytes for part in parts if part.nbytes < array.nbytes) < 1000
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in parts if part.nbytes == array.nbytes)


def test_a_stream_that_ends_within_a_message() -> None:
    stream = io.BytesIO()
    send(stream, np.zeros(1000))
    whole = stream.getvalue()
    for length in (0, 3, 8, 20, 100, len(whole) - 1):
        with pytest.raises(ConnectionClosed):
            receive(io.BytesIO(whole[:length]))
    with pytest.raises(ConnectionClosed):
        receive(io.BytesIO(b"print" + whole))


def test_what_cannot_be_pickled_is_refused_before_anything_is_written() -> None:
    stream = io.BytesIO()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        send(stream, lambda: None)
    assert stream.getvalue() == b""


def test_short_writes_to_a_full_pipe() -> None:
    ends = os.pipe()
    message = np.arange(300_000, dtype=np.int64)
    with os.fdopen(ends[0], "rb", buffering=0) as reader, os.fdopen(ends[1], "wb", buffering=0) as writer:
        thread = threading.Thread(target=send, args=(writer, message))
        thread.start()
        assert same(receive(reader), message)
        thread.join()


def test_an_interrupted_store_leaves_the_old_file(tmp_path: Path) -> None:
    store(tmp_path / "x.bin", 1)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        store(tmp_path / "x.bin", lambda: None)
    assert mapped(tmp_path / "x.bin") == 1
