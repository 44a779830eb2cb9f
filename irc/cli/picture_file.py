"""SVG files that commands write beside their report: checked before the work starts, written all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def check_picture(path: Path, option: str) -> None:
    """Says at once what would otherwise end the command when everything is done.

    Raises:
        OutputError: If the path does not end in `.svg`, or nothing can be written there; the message begins with the option.
    """
    import os

    from irc.errors import OutputError

    if path.suffix.lower() != ".svg":
        raise OutputError(f"{option} {path}: the picture is SVG; give a name that ends in .svg")
    if path.exists() and not path.is_file():
        raise OutputError(f"{option} {path}: there is a folder or a device of that name; choose another")
    if not path.parent.is_dir():
        raise OutputError(f"{option} {path}: there is no directory {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{option} {path}: no permission to write there; choose another")


def write_picture(path: Path, text: str, option: str) -> None:
    """Writes a file under another name and renames it, so that there is never half of it.

    Raises:
        OutputError: If it cannot be written.
    """
    import os
    import tempfile

    from irc.atomic import interrupts_deferred
    from irc.errors import OutputError

    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as folder:
            staged = os.path.join(folder, path.name)
            with open(staged, "w", encoding="utf-8") as file:
                file.write(text)
            with interrupts_deferred():
                os.replace(staged, path)
    except OSError as error:
        raise OutputError(f"{option} {path}: {error.strerror}; choose another") from error
