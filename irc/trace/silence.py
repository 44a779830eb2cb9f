"""Keeps what torch logs, warns and prints to itself; what matters of it is in irc's own messages."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Silences Python and the libraries below it for the duration.

    Yields:
        The warnings that were raised, so that the caller may pass on those that matter.
    """
    level = logging.root.manager.disable
    silence = io.StringIO()
    with contextlib.ExitStack() as stack:
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        stack.enter_context(contextlib.redirect_stdout(silence))
        stack.enter_context(contextlib.redirect_stderr(silence))
        stack.enter_context(_descriptors_silenced())
        logging.disable(max(level, logging.CRITICAL))
        try:
            yield caught
        finally:
            logging.disable(level)


@contextlib.contextmanager
def _descriptors_silenced() -> Iterator[None]:
    """Sends standard output and error of the process to nowhere: C++ code does not ask Python where to print."""
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()  # type: ignore[union-attr]
    saved: list[tuple[int, int]] = []
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            for number in (1, 2):
                with contextlib.suppress(OSError):
                    saved.append((number, os.dup(number)))
                    os.dup2(nowhere, number)
        finally:
            os.close(nowhere)
        yield
    finally:
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
