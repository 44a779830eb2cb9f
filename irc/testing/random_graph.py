"""Builds a random graph: which values there are, of what type and shape, and which may be used for what.

Each step (`irc.testing.random_steps`) adds a few nodes that use values in scope. A value knows whether it is exact: equal to
what the inputs say but for moving and copying. Only exact values are compared, rounded to integers or decide a branch,
since what depends on the last bit of a float may rightly change when a rewrite changes that bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from irc.testing.choices import Choices

Shape = tuple[int | str, ...]
SYMBOL = "N"
FLOATS = ("float32", "float16", "float64")
TYPES = {
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "float64": onnx.TensorProto.DOUBLE,
    "int64": onnx.TensorProto.INT64,
    "int32": onnx.TensorProto.INT32,
    "uint8": onnx.TensorProto.UINT8,
    "bool": onnx.TensorProto.BOOL,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What random models may hold.

    Attributes:
        steps: Largest number of steps in the main graph; a step is one to six nodes.
        opsets: First and last version of the default domain; every third model is of the last.
        dtypes: Types of floats, of which a model computes in one.
        bodies: Whether there are If, Loop and Scan.
        depth: How deep bodies may be nested.
        external_data: Whether some weights lie in a data file.
        overridable: Whether some weights are graph inputs as well.
        symbolic: Whether the batch size may be a symbol.
        unknown_operators: Whether there are operators that no runtime knows; such models cannot be run. Those of
            domain com.microsoft, which ONNX Runtime runs, are always there.
        raw: Whether models stay as an exporter may write them: Constant nodes, unnamed nodes, nothing inferred.
    """

    steps: int = 10
    opsets: tuple[int, int] = (13, 23)
    dtypes: tuple[str, ...] = FLOATS
    bodies: bool = True
    depth: int = 2
    external_data: bool = True
    overridable: bool = True
    symbolic: bool = True
    unknown_operators: bool = False
    raw: bool = False


@dataclasses.dataclass(frozen=True)
class Value:
    """A value in scope.

    Attributes:
        name: Its name.
        dtype: numpy's name of its type.
        shape: Sizes; the first may be the symbol.
        exact: Whether no rounding happened on the way to it.
    """

    name: str
    dtype: str
    shape: Shape
    exact: bool = False

    @property
    def info(self) -> onnx.ValueInfoProto:
        """Its declaration."""
        return helper.make_tensor_value_info(self.name, TYPES[self.dtype], self.shape)

    @property
    def is_float(self) -> bool:
        """Whether it is of a floating-point type."""
        return self.dtype in FLOATS


class GraphBuilder:
    """A graph being built, or a body within one.

    Attributes:
        choices: Where decisions come from.
        limits: What the model may hold.
        opset: Version of the default domain.
        dtype: The type of floats in this model.
        scope: Values that nodes may use, captured ones included.
        nodes: The nodes so far.
        depth: How many graphs this one lies in.
    """

    def __init__(self, choices: Choices, limits: Limits, opset: int, dtype: str, outer: GraphBuilder | None = None):
        self.choices, self.limits, self.opset, self.dtype = choices, limits, opset, dtype
        self.scope: list[Value] = list(outer.scope) if outer is not None else []
        self.nodes: list[onnx.NodeProto] = []
        self.depth: int = outer.depth + 1 if outer is not None else 0
        self.weights: dict[str, np.ndarray[Any, Any]] = {}
        self.overridable: list[str] = []
        self._root: GraphBuilder = outer._root if outer is not None else self
        self._count = 0

    def fresh(self, hint: str) -> str:
        """A name that nothing in the model has."""
        self._root._count += 1
        return f"{hint}_{self._root._count}"

    def chance(self, one_in: int) -> bool:
        """True once in so many times."""
        return self.choices.integer(1, one_in) == one_in

    def find(self, fits: Callable[[Value], bool]) -> Value | None:
        """A value in scope that fits; recent ones are likelier."""
        found = [value for value in self.scope if fits(value)]
        if not found:
            return None
        recent = found[-4:] if self.chance(2) else found
        return self.choices.pick(recent)

    def any_float(self, rank: int | None = None) -> Value | None:
        """A float value, of a certain rank if given."""
        return self.find(lambda v: v.is_float and (rank is None or len(v.shape) == rank))

    def add(
        self,
        op_type: str,
        inputs: Sequence[Value | str],
        outputs: Sequence[tuple[str, Shape] | None],
        *,
        exact: bool = False,
        hide: bool = False,
        **attributes: Any,
    ) -> list[Value]:
        """Adds a node; returns its outputs, which are then in scope.

        Args:
            op_type: Operator, with `domain` among the attributes if it is foreign.
            inputs: Values; "" for a missing one.
            outputs: Type and shape of each; None for one that is left out.
            exact: Whether the operator only moves or copies, so that exact inputs give exact outputs.
            hide: Keeps the outputs out of scope.
            attributes: Those of the node.
        """
        kept = exact and all(value.exact for value in inputs if isinstance(value, Value))
        values = [Value(self.fresh(op_type.lower()), *face, kept) if face is not None else None for face in outputs]
        named = [value if isinstance(value, str) else value.name for value in inputs]
        name = "" if self.chance(4) else self.fresh(f"/{op_type}")
        node = helper.make_node(op_type, named, [v.name if v else "" for v in values], name=name, **attributes)
        self.nodes.append(node)
        present = [value for value in values if value is not None]
        if not hide:
            self.scope += present
        return present

    def weight(self, shape: Sequence[int], *, dtype: str | None = None, kind: str | None = None) -> Value:
        """A weight: one that exists already or a new one, of this graph or of the main one.

        Args:
            shape: Its sizes.
            dtype: Its type; by default the model's.
            kind: "normal", "zeros", "ones", "positive" or "small"; by default one of the first three. What passes
                several products with small weights does not grow.
        """
        dtype, size = dtype or self.dtype, tuple(shape)
        kind = kind or self.choices.pick(("normal", "normal", "normal", "zeros", "ones"))
        home = self._root if self.chance(2) else self
        same = [n for n, a in home.weights.items() if (a.dtype, a.shape) == (dtype, size) and n.startswith(kind)]
        if same and self.chance(2):
            return Value(self.choices.pick(same), dtype, size, True)
        name = self.fresh(kind)
        if kind in ("zeros", "ones"):
            array = np.full(size, kind == "ones", dtype)
        else:
            array = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(size).astype(dtype)
            array = np.abs(array) + np.asarray(0.25, dtype) if kind == "positive" else array
            array = array * np.asarray(0.25, dtype) if kind == "small" else array
        home.weights[name] = np.asarray(array)
        return Value(name, dtype, size, True)

    def constant(self, values: Any, dtype: str = "int64") -> Value:
        """A constant that an operator takes as an argument: an initializer, or the output of a Constant node."""
        array = np.asarray(values, dtype)
        name = self.fresh("argument")
        if self.chance(3):
            self.nodes.append(
                helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(array, f"{name}_value"))
            )
        else:
            self.weights[name] = array
        return Value(name, dtype, array.shape, True)

    def body(self) -> GraphBuilder:
        """A graph within this one, in which everything in scope here can be captured."""
        return GraphBuilder(self.choices, self.limits, self.opset, self.dtype, self)

    def proto(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> onnx.GraphProto:
        """The graph built so far."""
        weights = [onnx.numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        extra = [Value(n, str(self.weights[n].dtype), self.weights[n].shape).info for n in self.overridable]
        return helper.make_graph(
            self.nodes, self.fresh("graph"), [*(v.info for v in inputs), *extra], [v.info for v in outputs], weights
        )


Step = Callable[[GraphBuilder], None]


def sized(shape: Shape) -> bool:
    """Whether all sizes but the first are known."""
    return all(isinstance(size, int) for size in shape[1:])


def build_model(choices: Choices, limits: Limits) -> ir.Model:
    """A random model as an exporter might have written it."""
    from irc.testing.random_steps import random_step

    opset = limits.opsets[1] if choices.integer(1, 3) == 3 else choices.integer(*limits.opsets)
    graph = GraphBuilder(choices, limits, opset, choices.pick(limits.dtypes))
    inputs = _inputs(graph)
    graph.scope += inputs
    for _ in range(choices.integer(1, limits.steps)):
        random_step(graph)
    made = [value for value in graph.scope if value not in inputs]
    if not made:
        made = graph.add("Neg", [inputs[0]], [(inputs[0].dtype, inputs[0].shape)])
    outputs = [made[-1]]
    for _ in range(choices.integer(0, 3)):
        value = choices.pick(made)
        if value not in outputs:
            outputs.append(value)
    if limits.overridable and graph.chance(4):
        plain = [name for name in graph.weights if name.startswith("normal")]
        graph.overridable = [choices.pick(plain)] if plain else []
    proto = helper.make_model(
        graph.proto(inputs, outputs),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
        ir_version=11 if opset > 22 else 10 if opset > 20 else 9 if opset > 18 else 8,
    )
    if limits.unknown_operators:
        proto.opset_import.append(helper.make_opsetid("unknown", 1))
    model: ir.Model = ir.from_proto(proto)
    return model


def _inputs(graph: GraphBuilder) -> list[Value]:
    """One to four inputs: an image or a matrix of floats, another like it, integers, a flag."""
    choices = graph.choices
    batch: int | str = SYMBOL if graph.limits.symbolic and graph.chance(2) else choices.integer(1, 2)
    shape: Shape = choices.pick(((batch, 4), (batch, 4, 6, 6), (batch, 3, 4), (batch, 4, 6, 6), (4,)))
    inputs = [Value("x", graph.dtype, shape, True)]
    if graph.chance(2):
        inputs.append(Value("x2", graph.dtype, shape, True))
    if graph.chance(2):
        inputs.append(Value("k", choices.pick(("int64", "int32", "uint8")), shape, True))
    if graph.chance(2):
        inputs.append(Value("flag", "bool", (), True))
    return inputs


def move_weights_to_files(choices: Choices, model: ir.Model) -> None:
    """Puts about half of the floats among the weights into data files, named by content, that last as long as this process."""
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point() or not tensor.nbytes or choices.integer(0, 1) == 0:
            continue
        content = tensor.tobytes()
        path = Path(_data_folder().name) / f"{hashlib.sha256(content).hexdigest()[:16]}.bin"
        if not path.exists():
            path.write_bytes(content)
        dims = ir.Shape([int(size) for size in tensor.shape])  # type: ignore[arg-type]
        value.const_value = ir.ExternalTensor(
            path.name, 0, len(content), tensor.dtype, shape=dims, name=name, base_dir=path.parent
        )


@cache
def _data_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="irc-random-models-")
