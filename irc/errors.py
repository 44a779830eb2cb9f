"""The one family of errors irc raises on purpose, each with the exit code the command line gives it.

A message says what is wrong, where, the value, and what to do. Anything that is not an `IrcError` is a defect of irc
and exits with 1. A build that misses its budget (3) or a `--require` clause (5) is no error: it writes its artifact, and
the report has the exit code.
"""

from __future__ import annotations

from typing import ClassVar


class IrcError(Exception):
    """Base of every error irc raises on purpose.

    Attributes:
        exit_code: What `irc` exits with when this error ends the command.
    """

    exit_code: ClassVar[int] = 1


class UsageError(IrcError):
    """The request itself is wrong: an unknown option, pass, selector or an output that cannot be written."""

    exit_code = 2


class PassOptionError(UsageError):
    """An option of a pass has a value outside its range or type."""


class OutputError(UsageError):
    """The output cannot be written: no permission, no space, or it would overwrite the input."""


class ModelError(IrcError):
    """The input model is damaged, incomplete or uses a feature that irc refuses."""

    exit_code = 4


class DataError(IrcError):
    """The calibration or evaluation data does not fit the model."""

    exit_code = 4


class PassFailed(IrcError):
    """A pass raised or left an invalid model; the model was restored.

    Attributes:
        pass_name: The pass at fault.
        site: Id of the site being rewritten, or None outside a rewrite.
        step: Position of the pass in the pipeline.
    """

    def __init__(self, message: str, *, pass_name: str, site: str | None = None, step: int = 0) -> None:
        super().__init__(message)
        self.pass_name = pass_name
        self.site = site
        self.step = step


class RunnerError(IrcError):
    """The runtime refused a model or a feed, or the child process that hosts it died.

    Attributes:
        crashed: Whether the child process died instead of answering.
    """

    def __init__(self, message: str, *, crashed: bool = False) -> None:
        super().__init__(message)
        self.crashed = crashed
