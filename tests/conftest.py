"""What every test relies on."""

from __future__ import annotations

import signal

# A shell that starts the tests in the background has them, and all they start, ignore Ctrl-C; tests that interrupt need it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
