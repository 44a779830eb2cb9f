"""From a PyTorch module to an exported program, and what its inputs are called."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from irc.trace.dynamic_dimensions import as_torch_axes
from irc.trace.example_inputs import Example, parameters_of
from irc.trace.silence import quiet
from irc.trace.stop_reason import explain

if TYPE_CHECKING:
    import torch


def leaf_names(module: torch.nn.Module, example: Example) -> list[str]:
    """Names of the leaves of a call: the parameters of `forward`, with keys and positions for what is nested in them."""
    from torch.utils import _pytree as pytree

    parameters = list(parameters_of(module).values())
    names: list[str] = []
    for place, value in enumerate(example.args):
        known = place < len(parameters) and parameters[place].kind is not inspect.Parameter.VAR_POSITIONAL
        name = parameters[place].name if known else f"args_{place}"
        names += _nested(name, value, pytree)
    for name, value in example.kwargs.items():
        names += _nested(name, value, pytree)
    return names


def _nested(name: str, value: Any, pytree: Any) -> list[str]:
    paths, _ = pytree.tree_flatten_with_path(value)
    if len(paths) == 1 and not paths[0][0]:
        return [name]
    return ["_".join([name, *(str(getattr(k, "key", getattr(k, "idx", k))) for k in path)]) for path, _ in paths]


def capture(module: torch.nn.Module, example: Example, shapes: Any) -> torch.export.ExportedProgram:
    """Traces a module with `torch.export`, first by running it, then by reading its byte code.

    Args:
        module: In inference mode; its parameters are shared with the program.
        example: What it is called with.
        shapes: As `dynamic_dimensions.dynamic_shapes` gives them.

    Raises:
        ModelError: If it cannot be traced: which module and line stopped it, and what to try.
    """
    import torch

    axes = as_torch_axes(shapes)
    first: Exception | None = None
    with quiet(), _torch_settings(dynamic=bool(shapes)), torch.no_grad():
        # What a module does when it runs is traced first: byte code is understood of fewer modules.
        for strict in (False, True):
            try:
                return _export(module, example, axes, strict=strict)
            except Exception as error:
                first = first or error
    assert first is not None
    raise explain(first, module, what="traced") from first


def _export(module: torch.nn.Module, example: Example, axes: Any, *, strict: bool) -> torch.export.ExportedProgram:
    import torch
    from torch.export import dynamic_shapes

    settings: dict[str, Any] = {"strict": strict}
    if "prefer_deferred_runtime_asserts_over_guards" in inspect.signature(torch.export.export).parameters:
        settings["prefer_deferred_runtime_asserts_over_guards"] = True  # as torch's ONNX exporter has it

    def export(shapes: Any) -> torch.export.ExportedProgram:
        return torch.export.export(module, example.args, kwargs=example.kwargs, dynamic_shapes=shapes, **settings)

    try:
        return export(axes)
    except torch._dynamo.exc.UserError as error:
        if axes is None:
            raise
        try:
            refined = dynamic_shapes.refine_dynamic_shapes_from_suggested_fixes(str(error), axes)
        except Exception:
            raise error from None
        return export(refined)


@contextlib.contextmanager
def _torch_settings(*, dynamic: bool) -> Iterator[None]:
    """What torch's own ONNX exporter sets while it traces; each is left out where this torch does not have it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, AttributeError):
            from torch.fx.experimental import _config

            # An example of size 1 (or 0) in a dynamic dimension does not fix it.
            stack.enter_context(_config.patch(backed_size_oblivious=True))  # type: ignore[attr-defined]
        if dynamic:
            with contextlib.suppress(ImportError, AttributeError):
                from torch.export import _patches

                _forget_kernels()
                stack.callback(_forget_kernels)
                stack.enter_context(_patches.register_lstm_while_loop_decomposition())
                stack.enter_context(_patches.register_gru_while_loop_decomposition())
        yield


def _forget_kernels() -> None:
    """Lets recurrent layers look up how they are computed anew: torch keeps the last answer, whatever was registered since."""
    import torch

    for operation in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        with contextlib.suppress(AttributeError):
            operation._dispatch_cache.clear()
