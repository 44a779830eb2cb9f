"""What irc remembers about where a model came from; none of it is written to a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx_ir as ir

_KEY = "irc.provenance"


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a model came from.

    Attributes:
        files: Absolute paths of the model file and its data files; `save` refuses to write over them.
        external: Whether its weights came from data files.
        notes: What `load` repaired or had to leave, each in one sentence for the report.
        named: Names that irc gave to nodes that had none; a file does without.
        typed: Names of the inner values whose type the file declared; None if that is not known.
        unshaped: Names of the inputs and outputs of bodies whose shape the file did not declare.
    """

    files: tuple[Path, ...] = ()
    external: bool = False
    notes: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()
    typed: frozenset[str] | None = None
    unshaped: frozenset[str] = frozenset()


def provenance(model: ir.Model) -> Provenance:
    """Where a model came from; empty for a model that was not loaded or normalized by irc."""
    found = model.meta.get(_KEY)
    return found if isinstance(found, Provenance) else Provenance()


def record(model: ir.Model, origin: Provenance) -> None:
    """Attaches a provenance to a model."""
    model.meta[_KEY] = origin


def add_note(model: ir.Model, note: str) -> None:
    """Adds one sentence for the report."""
    origin = provenance(model)
    if note not in origin.notes:
        record(model, dataclasses.replace(origin, notes=(*origin.notes, note)))
