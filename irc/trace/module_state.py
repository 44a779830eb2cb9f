"""What a module remembers between calls: kept as it was while irc runs it.

Counters, caches and running statistics that `forward` writes would otherwise differ from run to run, end up in the artifact,
and stay changed in the user's module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def state_kept(module: Any) -> Iterator[list[str]]:
    """Puts buffers and plain attributes of a module back after a call.

    Parameters are not copied: inference writes into none.

    Args:
        module: Anything; what is no module has no state to keep.

    Yields:
        A list that holds, after the block, the names of what had changed.
    """
    import torch

    changed: list[str] = []
    saved = []
    if isinstance(module, torch.nn.Module):
        saved = [(name, inner, _State(inner)) for name, inner in module.named_modules()]
    try:
        yield changed
    finally:
        for name, inner, state in saved:
            changed += [f"{name}.{key}" if name else key for key in state.restore(inner)]


class _State:
    """Buffers and plain attributes of one module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._plain = {key: value for key, value in vars(module).items() if _is_plain(value)}
        self._buffers = dict(module._buffers)
        self._values = {
            key: tensor.detach().clone()
            for key, tensor in self._buffers.items()
            if tensor is not None and _is_dense(tensor)
        }

    def restore(self, module: torch.nn.Module) -> list[str]:
        """Puts everything back; returns what had changed."""
        import torch

        changed = []
        for key, value in self._plain.items():
            if key not in vars(module) or vars(module)[key] is not value:
                vars(module)[key] = value
                changed.append(key)
        for key, tensor in self._buffers.items():
            if module._buffers.get(key) is not tensor:
                module._buffers[key] = tensor
                changed.append(key)
            if key in self._values and tensor is not None:
                # Normalizations update their statistics without counting it as a version.
                value = self._values[key]
                if not torch.equal(tensor, value):
                    with torch.no_grad():
                        tensor.copy_(value)
                    changed.append(key)
        return list(dict.fromkeys(changed))


def _is_plain(value: Any) -> bool:
    import torch

    return value is None or isinstance(value, bool | int | float | str | tuple | torch.Tensor)


def _is_dense(tensor: Any) -> bool:
    import torch

    return (
        isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and not tensor.is_quantized
        and not tensor.is_inference()
    )
