"""What every test relies on."""

from __future__ import annotations

import os
import signal
import tempfile

import pytest

# A shell that starts the tests in the background has them, and all they start, ignore Ctrl-C; tests that interrupt need it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
