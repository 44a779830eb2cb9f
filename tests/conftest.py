"""What every test relies on."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import signal
import sys
import tempfile

import pytest

from irc import measurement, timed_placement

# A shell that starts the tests in the background has them, and all they start, ignore Ctrl-C; tests that interrupt need it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was imported stays, so the collector need not look at it again and again: a tenth of the time of all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_statistics_cache():
    """No test reads or fills the cache of whoever runs it."""
    with tempfile.TemporaryDirectory(prefix="irc-test-cache-") as folder:
        before = os.environ.get("IRC_CACHE_DIR")
        os.environ["IRC_CACHE_DIR"] = folder
        yield
        if before is None:
            del os.environ["IRC_CACHE_DIR"]
        else:
            os.environ["IRC_CACHE_DIR"] = before


@pytest.fixture(scope="session", autouse=True)
def _short_timings():
    """Builds time models for a tenth of the time: no test is about how narrow the interval of a real machine is."""
    places = (
        (measurement, "SECONDS_PER_MODEL"),
        (timed_placement, "_TIMING_SECONDS"),
        (timed_placement, "_PROFILE_SECONDS"),
    )
    with pytest.MonkeyPatch.context() as patch:
        for module, name in places:
            patch.setattr(module, name, getattr(module, name) / 10)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_operator_library():
    """PyTorch's exporter reads its library of operators anew for every model, which takes longer than to export a small one."""
    with pytest.MonkeyPatch.context() as patch:
        # Its private places may change from version to version: the tests are then slower, and no more.
        with contextlib.suppress(ImportError, AttributeError):
            if "torch" in sys.modules:
                apis = importlib.import_module("torch.onnx._internal._lazy_import").onnxscript_apis
                patch.setattr(apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops))
        yield
