"""Is this still a valid model with the same interface? Asked after every stretch of passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

import onnx
import onnx_ir as ir

from irc.errors import ModelError
from irc.ir.messages import first_line
from irc.ir.stripped import graphs_of, stripped_proto, without_opaque_nodes

Face = tuple[str, str, tuple[int | str, ...] | None]
"""Name, dtype and dims of an input or output; None for unknown rank, "?" for an unnamed dimension."""


@dataclasses.dataclass(frozen=True)
class Interface:
    """The public face of a model: name, dtype and shape of each input and output, in order.

    Attributes:
        inputs: One face per graph input.
        outputs: One face per graph output.
    """

    inputs: tuple[Face, ...]
    outputs: tuple[Face, ...]

    def difference(self, other: Interface, *, narrower: Collection[str] = ()) -> str | None:
        """What a user of this interface would trip over in `other`, in words, or None.

        Inputs must be the same. An output dimension may become known where it was not; a known or named one must stay.

        Args:
            other: The interface of the changed model.
            narrower: Outputs whose known dimensions may get smaller, because the user asked for it.
        """
        for what, mine, theirs in (("input", self.inputs, other.inputs), ("output", self.outputs, other.outputs)):
            if [m[0] for m in mine] != [t[0] for t in theirs]:
                return f"{what}s were {[m[0] for m in mine]} and are {[t[0] for t in theirs]}"
            for (name, dtype, dims), (_, new_dtype, new_dims) in zip(mine, theirs, strict=True):
                if dtype != new_dtype:
                    return f"{what} {name!r} was {dtype} and is {new_dtype}"
                if dims == new_dims or (what == "output" and _refines(dims, new_dims)):
                    continue
                if what == "output" and name in narrower and _narrows(dims, new_dims):
                    continue
                return f"{what} {name!r} had shape {_show(dims)} and has {_show(new_dims)}"
        return None


def _refines(old: tuple[int | str, ...] | None, new: tuple[int | str, ...] | None) -> bool:
    if old is None or new is None:
        return old is None
    return len(old) == len(new) and all(
        a == b or a == "?" or (isinstance(a, str) and isinstance(b, int)) for a, b in zip(old, new, strict=True)
    )


def _narrows(old: tuple[int | str, ...] | None, new: tuple[int | str, ...] | None) -> bool:
    if old is None or new is None or len(old) != len(new):
        return False
    smaller = tuple(
        a if isinstance(a, int) and isinstance(b, int) and 0 < a <= b else b for a, b in zip(new, old, strict=True)
    )
    return _refines(smaller, new)


def _show(dims: tuple[int | str, ...] | None) -> str:
    return "of unknown rank" if dims is None else f"[{', '.join(map(str, dims))}]"


def interface(model: ir.Model) -> Interface:
    """The public face of a model."""
    return Interface(_faces(model.graph.inputs), _faces(model.graph.outputs))


def _faces(values: Iterable[ir.Value]) -> tuple[Face, ...]:
    result: list[Face] = []
    for value in values:
        dims: tuple[int | str, ...] | None = None
        if value.shape is not None:
            dims = tuple(d if isinstance(d, int) else str(d.value) if d.value is not None else "?" for d in value.shape)
        result.append((value.name or "", value.dtype.name if value.dtype is not None else "", dims))
    return tuple(result)


def check(model: ir.Model) -> None:
    """Checks that the model is valid ONNX: schemas, single assignment, and every input defined before it is used.

    Operators that onnx does not know are taken as they are. Linear in the size of the graph; weights are not touched.

    Raises:
        ModelError: With the first finding in one line.
    """
    _check_scope(model.graph, {})
    try:
        proto = stripped_proto(model)
        without_opaque_nodes(proto, element_type=onnx.TensorProto.FLOAT)
        _complete_types(proto)
        onnx.checker.check_model(proto, full_check=False)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the onnx checker refuses the model: {first_line(error)}") from error
    except Exception as error:
        raise ModelError(f"the model cannot be serialized: {first_line(error)}") from error


def _complete_types(proto: onnx.ModelProto) -> None:
    """Gives inputs and outputs of unknown rank a shape, and outputs a type: runtimes do without, onnx does not."""
    for graph in graphs_of(proto.graph):
        for value in graph.output:
            if not value.HasField("type"):
                value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        for value in (*graph.input, *graph.output):
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.shape.SetInParent()


def _check_scope(graph: ir.Graph, known: dict[str, ir.Value]) -> None:
    """Every value is defined once, before it is used, and the object a node uses is the one that was defined.

    Compares objects, not only names: a weight that was replaced by assignment leaves its users on the old one, and the
    file would hold another number than the passes saw.
    """
    defined: list[str] = []

    def define(value: ir.Value, where: str) -> None:
        if not value.name:
            raise ModelError(f"{where} has no name")
        if known.get(value.name, value) is not value:
            raise ModelError(f"{where} defines {value.name!r} a second time")
        if value.name not in known:
            known[value.name] = value
            defined.append(value.name)

    for value in graph.inputs:
        define(value, "a graph input")
    for name, value in graph.initializers.items():
        if value.const_value is None:
            raise ModelError(f"initializer {name!r} has no tensor")
        if value.name != name:
            raise ModelError(f"initializer {name!r} is called {value.name!r}")
        define(value, f"initializer {name!r}")
    for node in graph:
        where = f"node {node.name!r} ({node.op_type})"
        for used in node.inputs:
            if used is not None and known.get(used.name or "") is not used:
                found = "another value of that name" if used.name in known else "nothing"
                raise ModelError(f"{where} uses {used.name!r}, but {found} is defined before it")
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                _check_scope(attribute.as_graph(), known)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    _check_scope(body, known)
        for value in node.outputs:
            if value.name and value.name in known:
                raise ModelError(f"{where} defines {value.name!r} a second time")
            if value.name:
                define(value, where)
            elif value.uses():
                raise ModelError(f"an output of {where} is used but has no name")
    for value in graph.outputs:
        if known.get(value.name or "") is not value:
            raise ModelError(f"graph output {value.name!r} is not defined by any node")
    for name in defined:
        del known[name]
