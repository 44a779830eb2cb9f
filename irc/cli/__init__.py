"""The `irc` command: parses, calls the library, prints; every error is one line with its own exit code.

Exit codes: 0 ok, 1 internal error, 2 usage, 3 budget missed (the best legal artifact was written), 4 bad model or data,
5 `--require` unmet or lint findings, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

COMMANDS = ("optimize", "inspect", "compare", "sensitivity", "lint", "passes")
EPILOG = """exit codes: 0 ok, 1 internal error, 2 usage, 3 budget missed, 4 bad model or data, 5 --require unmet or lint findings,
130 interrupted

  irc optimize model.onnx                      lossless
  irc optimize model.onnx --data calib/        + static int8, calibrated, checked, measured
  irc compare model.onnx model.irc.onnx        what changed
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        if "unrecognized arguments" in message and "=" in message:
            message += "; if you wrote NAME{a=1,b=2}, the shell split it: put the whole text in quotes"
        print(f"irc: error: {message}; `{self.prog} --help` shows the options", file=sys.stderr)
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; importing nothing heavy."""
    import irc

    parser = _Parser(
        prog="irc",
        description="Makes trained networks small and fast: ONNX in, verified and measured ONNX out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"irc {irc.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name in COMMANDS:
        importlib.import_module(f"irc.cli.{name}").add_parser(subparsers)
    for subparser in subparsers.choices.values():
        subparser.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    with _signals() as interrupted:
        try:
            args = build_parser().parse_args(arguments)
            # Libraries warn about what irc reports itself, in one line; their log lines would stand beside it.
            logging.getLogger().addHandler(logging.NullHandler())
            return _run(args, interrupted)
        except KeyboardInterrupt:
            return _say_interrupted()


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """Ctrl-C and termination for the duration of a command; the event says that Ctrl-C came.

    Termination becomes an exit instead of a sudden death, so that a build cleans up. Extension modules that are being
    imported turn a KeyboardInterrupt into an ImportError, hence the event.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))}
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        previous[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say_interrupted() -> int:
    print("irc: interrupted; no half-written file is left", file=sys.stderr)
    return 130


def _run(args: argparse.Namespace, interrupted: threading.Event) -> int:
    """Runs one command; its errors become one line and an exit code."""
    from irc.errors import IrcError

    try:
        code: int = importlib.import_module(f"irc.cli.{args.command}").run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has gone (`irc inspect m.onnx | head`); python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except IrcError as error:
        if args.traceback:
            raise
        print(f"irc: error: {_one_line(error)}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("irc: error: out of memory; close other programs or use a machine with more", file=sys.stderr)
        return 1
    except Exception as error:
        if interrupted.is_set():
            return _say_interrupted()
        if args.traceback:
            raise
        print(
            f"irc: internal error: {type(error).__name__}: {_one_line(error)}; this is a defect of irc, please report it "
            "with the output of --traceback",
            file=sys.stderr,
        )
        return 1


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    raise SystemExit(main())
