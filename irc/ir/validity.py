"""Is this still a valid model with the same interface? Asked after every stretch of passes."""

from __future__ import annotations

import dataclasses

import onnx
import onnx_ir as ir

from irc.errors import ModelError


@dataclasses.dataclass(frozen=True)
class Interface:
    """The public face of a model: name, dtype and shape of each input and output, in order.

    Attributes:
        inputs: (name, dtype, dims) per graph input; dims are integers or symbols, None for unknown rank.
        outputs: The same for graph outputs.
    """

    inputs: tuple[tuple[str, str, tuple[int | str, ...] | None], ...]
    outputs: tuple[tuple[str, str, tuple[int | str, ...] | None], ...]

    def difference(self, other: Interface) -> str | None:
        """What differs in `other`, in words, or None.

        A dimension that becomes known where it was symbolic is no difference; a known one that changes is.
        """
        for what, mine, theirs in (("input", self.inputs, other.inputs), ("output", self.outputs, other.outputs)):
            if [m[0] for m in mine] != [t[0] for t in theirs]:
                return f"{what}s were {[m[0] for m in mine]} and are {[t[0] for t in theirs]}"
            for (name, dtype, dims), (_, new_dtype, new_dims) in zip(mine, theirs, strict=True):
                if dtype != new_dtype:
                    return f"{what} {name!r} was {dtype} and is {new_dtype}"
                if dims is not None and new_dims is not None and not _compatible(dims, new_dims):
                    return f"{what} {name!r} had shape {list(dims)} and has {list(new_dims)}"
        return None


def _compatible(a: tuple[int | str, ...], b: tuple[int | str, ...]) -> bool:
    return len(a) == len(b) and all(x == y or isinstance(x, str) or isinstance(y, str) for x, y in zip(a, b, strict=True))


def interface(model: ir.Model) -> Interface:
    """The public face of a model."""
    return Interface(_values(model.graph.inputs, model), _values(model.graph.outputs, model))


def _values(values: object, model: ir.Model) -> tuple[tuple[str, str, tuple[int | str, ...] | None], ...]:
    result = []
    for value in values:  # type: ignore[attr-defined]
        dims = None
        if value.shape is not None:
            dims = tuple(d if isinstance(d, int) else str(d.value) if d.value is not None else "?" for d in value.shape)
        result.append((value.name or "", value.dtype.name if value.dtype is not None else "", dims))
    return tuple(result)


def check(model: ir.Model) -> None:
    """Checks that the model is valid ONNX: schemas, SSA, and every input defined before it is used.

    Operators of domains that onnx does not know are taken as they are.

    Raises:
        ModelError: With the checker's first finding in one line.
    """
    _check_scopes(model.graph, set())
    _check_proto(model)


def _check_scopes(graph: ir.Graph, outer: set[str]) -> None:
    """Every value is defined before it is used, once, and every captured value exists."""
    known = set(outer)
    for value in (*graph.inputs, *graph.initializers.values()):
        if not value.name:
            raise ModelError("a graph input or initializer has no name")
        known.add(value.name)
    for node in graph:
        where = f"node {node.name!r} ({node.op_type})"
        for value in node.inputs:
            if value is not None and value.name not in known:
                raise ModelError(f"{where} uses {value.name!r}, which nothing defines before it")
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _check_scopes(attribute.as_graph(), known)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    _check_scopes(body, known)
        for value in node.outputs:
            if value.name and value.name in known:
                raise ModelError(f"{where} defines {value.name!r} a second time")
            if value.name:
                known.add(value.name)
    for value in graph.outputs:
        if value.name not in known:
            raise ModelError(f"graph output {value.name!r} is not defined by any node")


def _check_proto(model: ir.Model) -> None:
    from irc.ir.stripped import stripped_proto

    try:
        onnx.checker.check_model(stripped_proto(model), full_check=False)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the onnx checker refuses the model: {first_line(error)}") from error
    except Exception as error:
        raise ModelError(f"the model cannot be serialized: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of a foreign error message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
