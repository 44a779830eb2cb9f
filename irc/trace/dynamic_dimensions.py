"""Which dimensions of the inputs stay open: those in which two examples differ, or those that are given.

Given as text: `image:0=batch,ids:1=sequence` (`input:axis`, with a name or without). Given as torch's `dynamic_shapes`, they are
passed on as they are. Inferred ones are named for what they look like: axis 0 is `batch`, axis 1 of whole numbers `sequence`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from irc.errors import DataError, UsageError
from irc.trace.example_inputs import Example, tensor_form

if TYPE_CHECKING:
    import torch

_ITEM = re.compile(r"(?P<input>[\w.]+):(?P<axis>\d+)(?:=(?P<name>[A-Za-z_]\w*))?\Z")


def parse_dynamic(text: str) -> dict[str, dict[int, str]]:
    """Reads `image:0=batch,ids:1=sequence`.

    Returns:
        Names of dimensions by axis by input; "" where none is given.

    Raises:
        UsageError: If the text is malformed.
    """
    found: dict[str, dict[int, str]] = {}
    for item in text.split(","):
        match = _ITEM.match(item.strip())
        if match is None:
            raise UsageError(
                f"--dynamic {item.strip()!r} is malformed; write INPUT:AXIS or INPUT:AXIS=NAME, such as image:0=batch"
            )
        found.setdefault(match["input"], {})[int(match["axis"])] = match["name"] or ""
    return found


def dynamic_shapes(
    examples: Sequence[Example], names: Sequence[str], given: Any = None, *, module: torch.nn.Module | None = None
) -> Any:
    """What `torch.export` takes as `dynamic_shapes`, with names for the dimensions; None if all are fixed.

    Args:
        examples: The first is traced; the others say what else can be.
        names: Names of all leaves of an example, in order.
        given: Names of dimensions by axis by input, as `parse_dynamic` gives them; a nested structure of torch's own is
            returned unchanged; None infers.
        module: Whose `forward` says how arguments are bound to parameters.

    Raises:
        DataError: If the examples differ in more than sizes.
        UsageError: If `given` names an input or axis that does not exist.
    """
    import torch
    from torch.utils import _pytree as pytree

    if given is not None and not _is_plain(given):
        return given
    leaves, tree = pytree.tree_flatten((examples[0].args, examples[0].kwargs))
    axes: list[dict[int, str] | None]
    if given is not None:
        axes = _given(given, names, leaves)
    else:
        axes = _differing(examples, names, leaves, tree)
    if not any(axes):
        return None
    taken: set[str] = set()
    named: list[dict[int, Any] | None] = []
    for name, leaf, dims in zip(names, leaves, axes, strict=True):
        if not isinstance(leaf, torch.Tensor):
            named.append(None)
            continue
        named.append({axis: text or _name(name, leaf, axis, taken) for axis, text in (dims or {}).items()})
    args, kwargs = pytree.tree_unflatten(named, tree)
    try:
        # As torch has it: one entry per parameter of `forward`, with a tuple or dict for *args and **kwargs.
        assert module is not None
        return tuple(inspect.signature(module.forward).bind(*args, **kwargs).arguments.values())
    except (AssertionError, TypeError, ValueError):
        return tuple([*args, *kwargs.values()])


def stretched(example: Example, shapes: Any) -> Example | None:
    """The example with every dynamic dimension one longer, by repeating its last element; None if that cannot be made.

    Dimensions that are called the same grow together. It shows whether what was traced is true at another size.
    """
    import torch
    from torch.utils import _pytree as pytree

    leaves, tree = pytree.tree_flatten((example.args, example.kwargs))
    flat = pytree.tree_leaves(shapes, is_leaf=is_axes)
    if len(flat) != len(leaves):
        return None
    grown = []
    for leaf, dims in zip(leaves, flat, strict=True):
        found = leaf
        if isinstance(leaf, torch.Tensor) and isinstance(dims, Mapping):
            for axis, dim in dims.items():
                most = getattr(dim, "max", None)
                size = found.shape[axis]
                if dim is None or isinstance(dim, int):
                    continue
                if size == 0 or (isinstance(most, int) and size >= most):
                    return None
                last = found.narrow(axis, size - 1, 1)
                found = torch.cat([found.detach(), last.detach()], dim=axis)
        grown.append(found)
    if all(a is b for a, b in zip(grown, leaves, strict=True)):
        return None
    args, kwargs = pytree.tree_unflatten(grown, tree)
    return Example(tuple(args), dict(kwargs))


def is_axes(value: Any) -> bool:
    """Whether part of a `dynamic_shapes` structure says the dimensions of one tensor."""
    return value is None or (isinstance(value, Mapping) and all(isinstance(key, int) for key in value))


def as_torch_axes(shapes: Any) -> Any:
    """The same structure with torch's marker in the place of names.

    A name asks for a dimension that is open; which of them are equal is found by tracing.
    """
    import torch

    if isinstance(shapes, str):
        return torch.export.Dim.DYNAMIC
    if isinstance(shapes, Mapping):
        return {key: as_torch_axes(value) for key, value in shapes.items()}
    if isinstance(shapes, list | tuple):
        return type(shapes)(as_torch_axes(value) for value in shapes)
    return shapes


def _is_plain(given: Any) -> bool:
    """Whether it is of our form: axes with names, by input; torch's may hold `Dim` objects or be nested."""
    return isinstance(given, Mapping) and all(
        isinstance(dims, Mapping) and all(isinstance(a, int) and isinstance(n, str) for a, n in dims.items())
        for dims in given.values()
    )


def _given(
    given: Mapping[str, Mapping[int, str]], names: Sequence[str], leaves: Sequence[Any]
) -> list[dict[int, str] | None]:
    import torch

    shapes = {n: leaf.shape for n, leaf in zip(names, leaves, strict=True) if isinstance(leaf, torch.Tensor)}
    for name, dims in given.items():
        if name not in shapes:
            raise UsageError(
                f"dynamic dimension of {name!r}: the module has no such tensor input; it has {', '.join(shapes)}"
            )
        for axis in dims:
            if not -len(shapes[name]) <= axis < len(shapes[name]):
                raise UsageError(f"dynamic dimension {name}:{axis}: the example has shape {list(shapes[name])}")
    return [
        {axis % len(leaf.shape): text for axis, text in given[name].items()} if name in given else None
        for name, leaf in zip(names, leaves, strict=True)
    ]


def _differing(
    examples: Sequence[Example], names: Sequence[str], leaves: Sequence[Any], tree: Any
) -> list[dict[int, str] | None]:
    import torch
    from torch.utils import _pytree as pytree

    axes: list[dict[int, str] | None] = [{} if isinstance(leaf, torch.Tensor) else None for leaf in leaves]
    for number, example in enumerate(examples[1:], 2):
        others, other_tree = pytree.tree_flatten((example.args, example.kwargs))
        if other_tree != tree:
            raise DataError(f"example {number} has other arguments than the first; give both the same")
        for name, first, other, dims in zip(names, leaves, others, axes, strict=True):
            if not isinstance(first, torch.Tensor):
                if type(first) is not type(other) or first != other:
                    raise DataError(
                        f"input {name!r} is {first!r} in the first example and {other!r} in example {number}; only tensors may differ"
                    )
                continue
            if not isinstance(other, torch.Tensor) or other.dtype != first.dtype or other.dim() != first.dim():
                raise DataError(
                    f"input {name!r} is {_form(first)} in the first example and {_form(other)} in example {number}; only sizes may differ"
                )
            assert dims is not None
            dims.update({axis: "" for axis in range(first.dim()) if first.shape[axis] != other.shape[axis]})
    return axes


def _form(value: Any) -> str:
    import torch

    if isinstance(value, torch.Tensor):
        return tensor_form(value)
    return type(value).__name__


def _name(name: str, leaf: torch.Tensor, axis: int, taken: set[str]) -> str:
    """A name for a dimension; inputs share one only where tracing finds that they are equal."""
    if axis == 0:
        usual = "batch"
    elif axis == 1 and not leaf.is_floating_point():
        usual = "sequence"
    elif leaf.dim() == 4 and axis >= 2:
        usual = ("height", "width")[axis - 2]
    else:
        usual = f"{name}_dim_{axis}"
    found = usual if usual not in taken else f"{name}_{usual}"
    taken.add(found)
    return found
