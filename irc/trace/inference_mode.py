"""Modules are traced as they are used: batch normalization with its running statistics, no dropout; and put back after."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_DROPOUTS = ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")


@contextlib.contextmanager
def inference_mode(module: torch.nn.Module) -> Iterator[list[str]]:
    """Sets a module to inference for the duration; gives the notes about what was in training mode."""
    modes = [(inner, inner.training) for inner in module.modules()]
    notes = []
    if training := [name for name, inner in module.named_modules() if inner.training and _depends_on_mode(inner)]:
        shown = ", ".join(repr(name) for name in training[:3]) + (", ..." if len(training) > 3 else "")
        notes.append(f"{len(training)} layers were in training mode ({shown}); they are traced for inference")
    elif module.training:
        notes.append("the module was in training mode; it is traced for inference")
    try:
        module.eval()
        yield notes
    finally:
        for inner, training_mode in modes:
            inner.training = training_mode


def _depends_on_mode(module: torch.nn.Module) -> bool:
    """Whether a layer computes something else in training: what normalizes batches, and dropout."""
    name = type(module).__name__
    return (
        "BatchNorm" in name
        or "Dropout" in name
        or "DropPath" in name
        or ("InstanceNorm" in name and bool(getattr(module, "track_running_stats", False)))
    )


def set_program_to_inference(program: torch.export.ExportedProgram) -> tuple[torch.export.ExportedProgram, list[str]]:
    """A program whose batch normalizations and dropouts are those of inference, and the notes about what was changed.

    `batch_norm(..., training=True)` takes its running statistics, and the updates of these are no longer outputs of the
    program; `dropout(x, p, train=True)` becomes `dropout(x, p, False)`.
    """
    import torch

    graph = program.graph
    found = []
    for node in graph.nodes:
        if node.op == "call_function" and (place := _training_argument(node)) is not None and node.args[place] is True:
            found.append((node, place))
    if not found:
        return program, []
    for node, place in found:
        arguments = list(node.args)
        arguments[place] = False
        node.args = tuple(arguments)
    names = [str(node.name) for node, _ in found]
    shown = ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
    program.graph_module.recompile()
    del torch
    return program, [f"{len(names)} operations were exported in training mode ({shown}); they are set to inference"]


def _training_argument(node: torch.fx.Node) -> int | None:
    """Place of the argument that says whether an operation trains, or None."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or node.target.namespace != "aten":  # type: ignore[union-attr]
        return None
    name = schema.name.removeprefix("aten::")
    if name not in ("batch_norm", "instance_norm", "_batch_norm_with_update", "native_batch_norm", *_DROPOUTS):
        return None
    for place, argument in enumerate(schema.arguments):
        if argument.name in ("training", "train", "use_input_stats"):
            return place if place < len(node.args) else None
    return None
