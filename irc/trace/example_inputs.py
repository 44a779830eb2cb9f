"""Example inputs of a module: what it is traced with, and what says which dimensions are dynamic.

An example is what the module is called with: a tensor, a tuple of arguments, a dict of keyword arguments, or
`(args, kwargs)`. A list holds several examples; dimensions in which they differ are dynamic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irc.errors import DataError
from irc.trace.module_source import load_object, one_line, user_code, user_line
from irc.trace.module_state import state_kept

if TYPE_CHECKING:
    import torch

Feed = dict[str, "np.ndarray[Any, Any]"]


@dataclasses.dataclass(frozen=True)
class Example:
    """One call of a module.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments, in the order of the parameters of `forward`.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def leaves(self) -> list[Any]:
        """The tensors and plain values in the arguments, in the order in which torch flattens them."""
        from torch.utils import _pytree as pytree

        return list(pytree.tree_leaves((self.args, self.kwargs)))

    def copied(self) -> Example:
        """The same call with tensors of its own, for a `forward` that writes into its inputs."""
        import torch
        from torch.utils import _pytree as pytree

        return Example(*pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), (self.args, self.kwargs)))


def read_examples(given: Any, module: torch.nn.Module | None = None) -> list[Example]:
    """The examples in what a user gives, as calls of the module.

    Args:
        given: `file.py:name` or `package.module:name` (a function without arguments, or a value), a function, a tensor, a
            tuple, a dict, or a list of them. A list of tensors is one call only if it has one element.
        module: The module they are for; its `forward` says the order of keyword arguments.

    Raises:
        UsageError: If the spelling names nothing.
        DataError: If the user's code raises, or gives something that is no example.
    """
    if isinstance(given, str):
        text = given
        given = load_object(text, what="inputs")
        where = f"inputs {text!r}"
    else:
        where = "example_inputs"
    if callable(given) and not _is_example(given):
        with user_code(where, DataError):
            given = given()
    items = given if isinstance(given, list) else [given]
    if not items:
        raise DataError(f"{where} is an empty list; irc expects at least one example")
    return [_example(item, where, module) for item in items]


def parameters_of(module: torch.nn.Module) -> dict[str, inspect.Parameter]:
    """The parameters of `forward` by name; none where it does not tell them, as compiled code does not."""
    try:
        return dict(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        return {}


def _is_example(item: Any) -> bool:
    import torch

    return isinstance(item, torch.Tensor | tuple | Mapping | list | np.ndarray)


def _example(item: Any, where: str, module: torch.nn.Module | None) -> Example:
    import torch

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    if isinstance(item, Example):
        return item
    if isinstance(item, torch.Tensor | np.ndarray):
        args, kwargs = (item,), {}
    elif isinstance(item, Mapping):
        args, kwargs = (), dict(item)
    elif isinstance(item, tuple):
        both = len(item) == 2 and isinstance(item[0], tuple) and isinstance(item[1], Mapping)
        args, kwargs = (item[0], dict(item[1])) if both else (item, {})
    else:
        raise DataError(
            f"{where} holds {type(item).__name__}; irc expects a tensor, a tuple of arguments, a dict of keyword "
            "arguments, or a list of them"
        )
    if not all(isinstance(key, str) for key in kwargs):
        raise DataError(f"{where}: the keys of keyword arguments must be texts; there is {next(iter(kwargs))!r}")
    if module is not None and kwargs:
        known = list(parameters_of(module))
        kwargs = dict(sorted(kwargs.items(), key=lambda pair: known.index(pair[0]) if pair[0] in known else len(known)))
    example = Example(tuple(map(_tensors, args)), {key: _tensors(value) for key, value in kwargs.items()})
    if not any(isinstance(leaf, torch.Tensor) for leaf in example.leaves()):
        raise DataError(f"{where} holds no tensor; irc expects what the module is called with")
    return example


def _tensors(value: Any) -> Any:
    """Numpy arrays as tensors, in whatever they are nested; everything else as it is."""
    import torch
    from torch.utils import _pytree as pytree

    return pytree.tree_map_only(np.ndarray, lambda array: torch.from_numpy(np.ascontiguousarray(array)), value)


def run_module(
    function: Callable[..., Any], example: Example, where: str, written: list[str] | None = None
) -> list[torch.Tensor]:
    """The tensors a module returns, in order; module and example stay as they are.

    Args:
        function: The module.
        example: What it is called with.
        where: What it is, for messages.
        written: Takes the names of the state that it wrote.

    Raises:
        DataError: If it raises: the example does not fit it.
    """
    import torch
    from torch.utils import _pytree as pytree

    try:
        call = example.copied()
        with state_kept(function) as changed, torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
            result = function(*call.args, **call.kwargs)
        if written is not None:
            written += [name for name in changed if name not in written]
    except Exception as error:
        raise DataError(
            f"{where} does not run on the example inputs: {type(error).__name__}: {one_line(error)}{user_line(error)}; it "
            f"was called with {describe(example)}"
        ) from error
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def describe(example: Example) -> str:
    """The arguments in words: types and shapes."""
    texts = [_describe(value) for value in example.args]
    texts += [f"{key}={_describe(value)}" for key, value in example.kwargs.items()]
    return ", ".join(texts)


def tensor_form(tensor: torch.Tensor) -> str:
    """Type and shape: "float32[2, 3]"."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _describe(value: Any) -> str:
    import torch

    if isinstance(value, torch.Tensor):
        return tensor_form(value)
    return (
        f"a {type(value).__name__}"
        if isinstance(value, Mapping | Sequence) and not isinstance(value, str)
        else repr(value)
    )


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A copy of a tensor as an array, bfloat16 included."""
    import torch

    tensor = tensor.detach().cpu().resolve_conj()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return np.array(tensor.view(torch.uint16).numpy()).view(ml_dtypes.bfloat16)
    return np.array(tensor.numpy())
