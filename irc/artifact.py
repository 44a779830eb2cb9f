"""Where a build writes: output paths checked before the work starts, files staged beside and published by renaming.

Nothing under the final names exists until the whole build has succeeded; an interrupted or failed build removes its stage.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from irc.atomic import interrupts_deferred, output_error, refuse_special_file
from irc.decision_arrays import arrays_of, write_arrays
from irc.decisions import Kept
from irc.errors import OutputError


def default_output(model: Path) -> Path:
    """`model.irc.onnx` beside `model.onnx`."""
    return model.with_name(f"{model.stem}.irc.onnx")


def sidecar(output: Path, kind: str) -> Path:
    """`model.irc.manifest.json` or `model.irc.plan.yaml` beside `model.irc.onnx`."""
    return output.with_name(output.name.removesuffix(".onnx") + kind)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output(output: Path, inputs: tuple[Path, ...]) -> None:
    """Refuses an output that cannot be written or would overwrite an input.

    Args:
        output: The artifact to be written.
        inputs: The model file and its data files.

    Raises:
        OutputError: With what to do.
    """
    folder = output.parent
    sidecars = (sidecar(output, kind) for kind in (".manifest.json", ".plan.yaml", ".plan.npz"))
    names = (output, data_file(output), *sidecars)
    for name in names:
        refuse_special_file(name)
    if not folder.is_dir():
        raise OutputError(f"output {output}: there is no directory {folder}; create it first")
    for name in names:
        for source in inputs:
            if name.exists() and source.exists() and name.samefile(source):
                raise OutputError(f"output {name} is the input; irc never overwrites its input: choose another -o")
    if not os.access(folder, os.W_OK) or (output.exists() and not os.access(output, os.W_OK)):
        raise OutputError(f"output {output}: no permission to write there; choose another -o")


def data_file(output: Path) -> Path:
    """The external data file that belongs to an artifact."""
    return output.with_name(output.name + ".data")


class Stage:
    """A hidden folder beside the output in which a build is completed before it is published.

    Use it as a context manager: leaving it removes what was not published.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self._folder: Path | None = None

    def __enter__(self) -> Stage:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.output.name}.", suffix=".tmp", dir=self.output.parent))
        except OSError as error:
            raise output_error(self.output, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._folder is None:
            return
        with interrupts_deferred():
            shutil.rmtree(self._folder, ignore_errors=True)

    def path(self, name: str | None = None) -> Path:
        """Where a file of this name is staged; the artifact itself without a name."""
        assert self._folder is not None
        return self._folder / (name or self.output.name)

    def subfolder(self, name: str) -> Path:
        """A folder within the stage, for candidates."""
        folder = self.path(name)
        folder.mkdir(exist_ok=True)
        return folder

    def write_text(self, name: str, text: str) -> None:
        """Stages a text file.

        Raises:
            OutputError: If the disk is full or refuses.
        """
        try:
            with self.path(name).open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise output_error(self.output, error) from error

    def write_arrays(self, name: str, decisions: Mapping[str, Kept]) -> bool:
        """Stages the arrays among decisions; returns whether there are any.

        Raises:
            OutputError: If the disk is full or refuses.
        """
        arrays = arrays_of(decisions)
        if not arrays:
            return False
        try:
            with self.path(name).open("wb") as file:
                write_arrays(arrays, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise output_error(self.output, error) from error
        return True

    def publish(self, source: Path, sidecars: tuple[str, ...] = ()) -> list[Path]:
        """Renames the staged artifact and sidecars into place: data first, then the model, then the sidecars.

        Args:
            source: The staged `.onnx`; its data file, if any, lies beside it.
            sidecars: Names of staged files.

        Returns:
            The published paths, the model first.

        Raises:
            OutputError: If a rename fails.
        """
        moves = []
        staged_data = data_file(source)
        if staged_data.exists():
            moves.append((staged_data, data_file(self.output)))
        moves.append((source, self.output))
        moves += [(self.path(name), self.output.with_name(name)) for name in sidecars]
        try:
            with interrupts_deferred():
                for staged, final in moves:
                    os.replace(staged, final)
        except OSError as error:
            raise output_error(self.output, error) from error
        final_paths = [final for _, final in moves]
        final_paths.remove(self.output)
        return [self.output, *final_paths]
