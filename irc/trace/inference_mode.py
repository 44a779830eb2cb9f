"""Modules are traced as they are used: batch normalization with its running statistics, no dropout; and put back after."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from irc.errors import ModelError
from irc.ir.messages import some_of
from irc.trace.module_source import user_code

if TYPE_CHECKING:
    import torch

_DROPOUTS = ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")


@contextlib.contextmanager
def inference_mode(module: torch.nn.Module) -> Iterator[list[str]]:
    """Sets a module to inference for the duration; gives the notes about what was in training mode."""
    modes = [(inner, inner.training) for inner in module.modules()]
    notes = []
    if training := [name for name, inner in module.named_modules() if inner.training and _depends_on_mode(inner)]:
        notes.append(
            f"{len(training)} layers were in training mode ({some_of(training)}); they are traced for inference"
        )
    elif module.training:
        notes.append("the module was in training mode; it is traced for inference")
    try:
        with user_code("the eval() of the module", ModelError):
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


def set_program_to_inference(
    program: torch.export.ExportedProgram, *, dropout_only: bool = False
) -> tuple[torch.export.ExportedProgram, list[str]]:
    """A program whose batch normalizations and dropouts are those of inference, and the notes about what was changed.

    `batch_norm(..., training=True)` takes its running statistics, and no batch is counted; `dropout(x, p, train=True)` becomes
    `dropout(x, p, False)`. The program that is given stays as it is.

    Args:
        program: What was exported or captured.
        dropout_only: Leave normalizations as they are: a module that is in inference mode asks for theirs by name.
    """
    from irc.trace.program_graph import lift, unlift

    def is_meant(node: torch.fx.Node) -> bool:
        return trains(node) and (not dropout_only or "dropout" in str(node.target))

    if not any(is_meant(node) for node in program.graph.nodes):
        return program, []
    model = unlift(program)
    found = [node for node in model.graph.nodes if is_meant(node)]
    for node in found:
        place = _training_argument(node)
        assert place is not None
        arguments = list(node.args)
        arguments[place] = False
        node.args = tuple(arguments)
    for node in list(model.graph.nodes):
        if _counts_batches(node):
            model.graph.erase_node(node)
    names = [str(node.name) for node in found]
    model.recompile()
    what = "operation runs" if len(names) == 1 else "operations run"
    note = f"{len(names)} {what} in training mode whatever the mode of the module ({some_of(names)}); set to inference"
    return lift(model, program), [note]


def trains(node: torch.fx.Node) -> bool:
    """Whether an operation does what it does in training."""
    if node.op != "call_function":
        return False
    place = _training_argument(node)
    if place is None or node.args[place] is not True:
        return False
    # Without running statistics a normalization takes those of the batch in inference too.
    schema = node.target._schema  # type: ignore[union-attr]
    means = [i for i, argument in enumerate(schema.arguments) if argument.name == "running_mean"]
    return not means or (means[0] < len(node.args) and node.args[means[0]] is not None)


def _counts_batches(node: torch.fx.Node) -> bool:
    """Whether an operation adds one to the number of batches that a normalization has seen."""
    return (
        node.op == "call_function"
        and str(node.target).startswith("aten.add_.")
        and str(getattr(node.args[0], "target", "")).endswith("num_batches_tracked")
        and not node.users
    )


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
