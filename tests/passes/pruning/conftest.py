"""One process of the runtime for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from irc.runner import Runner


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(threads=1) as started:
        yield started
