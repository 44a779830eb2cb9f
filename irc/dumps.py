"""Models written beside the artifact on the way: after the passes a user names, and before one that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx_ir as ir

from irc.errors import IrcError, PassFailed
from irc.ir import save, snapshot
from irc.pipeline import Step


class Dumps:
    """Writes models on the way of one build.

    Args:
        output: The artifact.
        wanted: Names of passes, or "all".

    Attributes:
        files: What was written.
    """

    def __init__(self, output: Path, wanted: Sequence[str]) -> None:
        self._output, self._wanted = output, wanted
        self.files: list[Path] = []

    def after_pass(self, offset: int) -> Callable[[int, Step, ir.Model], None]:
        """What the pass manager is to call after each pass; `offset` steps of the pipeline come before its first."""

        def dump(index: int, step: Step, model: ir.Model) -> None:
            name = step.pass_.name
            if "all" in self._wanted or name in self._wanted:
                self._save(snapshot(model), f"{offset + index:02d}-{name}")

        return dump

    def write_reproducer(self, model: ir.Model, text: str, failure: PassFailed) -> str:
        """Writes the model a failing pipeline started from beside the output, and says how to run it."""
        try:
            path = self._save(model, f"reproducer-{failure.pass_name}")
        except IrcError:
            return ""
        return f'; reproduce with: irc optimize {path.name} --passes "{text}"'

    def _save(self, model: ir.Model, kind: str) -> Path:
        path = self._output.with_name(f"{self._output.name.removesuffix('.onnx')}.{kind}.onnx")
        save(model, path)
        if path not in self.files:
            self.files.append(path)
        return path
