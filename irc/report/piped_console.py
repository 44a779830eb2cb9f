"""A console whose reader may leave before the end: `irc optimize m.onnx | head`."""

from __future__ import annotations

from rich.console import Console


class PipedConsole(Console):
    """rich ends the program with exit code 1 when nobody reads any more; here the command line decides, as for any output."""

    def on_broken_pipe(self) -> None:
        """Passes the error on.

        Raises:
            BrokenPipeError: Always.
        """
        self.quiet = True
        raise BrokenPipeError
