"""The runtime that the tests of sparsify share."""

from __future__ import annotations

import pytest

from irc.runner import Runner


@pytest.fixture(scope="package")
def runner():
    with Runner(threads=1) as started:
        yield started
