"""Replace what depends on constants and known shapes only by its value.

    y = Mul(v, Div(g, ReduceL2(v)))    =>   y: initializer
    n = Gather(Shape(x), 1)            =>   n: initializer, where dimension 1 of x is known
    c = Constant<value>                =>   c: initializer
    y = If(true) { p = Neg(x) }        =>   y = Neg(x)

Results are computed by onnx's reference implementation; they may differ from a runtime's own in the last digits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from irc.errors import PassOptionError
from irc.ir import add_initializer, constant_tensor, replace_value, unique_name
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.constant_program import EvaluationError, program_for
from irc.passes.simplification.constant_regions import TOO_LARGE, freed_bytes, plan_folds, size_in_bytes
from irc.passes.simplification.inline_branch import inline_branch, known_branch
from irc.passes.simplification.unused import remove_unused

LAZY_BYTES = 1 << 20
"""A constant above this size (1 MiB) is computed when the model is saved or run and not kept, to spare memory."""
MAX_ATTRIBUTE_BYTES = 1 << 10
"""A graph output above this size (1 KiB) is an initializer behind an Identity, not a Constant."""
REMEMBERED_BYTES = 64 << 20
"""How much of intermediate results is remembered for later sites of a sweep."""

_Array = np.ndarray[Any, Any]


@dataclasses.dataclass(eq=False)
class _Sweep:
    """What the sites of one sweep share: results that several need, and nodes that turned out not to be evaluable."""

    opset: int
    known: dict[ir.Value, _Array] = dataclasses.field(default_factory=dict)
    known_bytes: int = 0
    failed: set[ir.Node] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True)
class FoldConstants(Pass):
    """Computes at build time what does not depend on the input, with onnx's reference implementation.

    A fold never stores more than it replaces, nodes included. Random operators, quantized weights
    (DequantizeLinear of a constant), loops and other domains stay.

    Attributes:
        max_bytes: How many bytes one fold may add to the model, at least 0. The default, 0, lets no fold make it larger.

    Raises:
        PassOptionError: If max_bytes is negative.
    """

    name: ClassVar[str] = "fold-constants"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    max_bytes: int = 0

    def __post_init__(self) -> None:
        if self.max_bytes < 0:
            raise PassOptionError(f"fold-constants: option max_bytes is {self.max_bytes}; it must be at least 0")

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields Constant nodes, decided Ifs and the last nodes of constant regions; values too large are skipped."""
        for node in [n for n in model.graph.all_nodes() if _is_liftable(n) or known_branch(n) is not None]:
            if node.graph is not None:  # it may have been in a branch that is not taken
                yield Site(node)
        sweep = _Sweep(model.graph.opset_imports.get("", 0))
        failures = -1
        while len(sweep.failed) > failures:  # what comes before a node that cannot be evaluated may still be folded
            failures = len(sweep.failed)
            plan = plan_folds(model, max_bytes=self.max_bytes, excluded=sweep.failed)
            for node, outputs in plan.folds:
                if node.graph is not None:
                    yield Site(node, match=(sweep, outputs))
        for node, reason in plan.near_misses:
            yield Skip(node, reason)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Evaluates the node and all before it, and stores the result as an initializer."""
        node = site.node
        assert node is not None
        if (branch := known_branch(node)) is not None:
            inline_branch(node, branch)
            return None
        if site.match is None:
            tensor = constant_tensor(node.outputs[0])
            assert tensor is not None
            _store(node, {node.outputs[0]: tensor})
            return None
        sweep, outputs = site.match
        try:
            _store(node, self._evaluate(node, outputs, sweep))
        except EvaluationError as error:
            return Skip(node, str(error))
        return None

    def _evaluate(self, node: ir.Node, outputs: list[ir.Value], sweep: _Sweep) -> dict[ir.Value, ir.TensorProtocol]:
        """The tensor of each output, lazy above `LAZY_BYTES`; the sweep learns of a node that cannot be evaluated."""
        compiled = program_for(outputs, opset=sweep.opset, known=sweep.known)

        def remember(slot: int, array: _Array) -> None:
            value = compiled.values[slot]
            if len(value.uses()) > 1 and array.nbytes <= min(LAZY_BYTES, REMEMBERED_BYTES - sweep.known_bytes):
                sweep.known[value] = array
                sweep.known_bytes += array.nbytes

        culprit = node
        try:
            arrays = compiled.program.run(remember)
            if any(not _fits(array, value) for value, array in zip(outputs, arrays, strict=True)):
                raise EvaluationError("its value has another shape than the model says")
            stored = sum(array.nbytes for array in arrays)
            unforeseen = any(size_in_bytes(value) is None for value in outputs)
            if unforeseen and stored - freed_bytes(node) > self.max_bytes:
                raise EvaluationError(TOO_LARGE)
        except EvaluationError as error:
            culprit = compiled.nodes[error.step] if error.step >= 0 else node
            sweep.failed.add(culprit)
            raise
        return {value: _tensor(value, array, sweep) for value, array in zip(outputs, arrays, strict=True)}


def _is_liftable(node: ir.Node) -> bool:
    """Whether this is a Constant node that can be an initializer."""
    if node.op_type != "Constant":
        return False
    value = node.outputs[0]
    return constant_tensor(value) is not None and not value.is_graph_output()


def _fits(array: _Array, value: ir.Value) -> bool:
    """Whether the array has the shape the model gives the value, as far as it does."""
    dims = value.shape
    return dims is None or (
        len(dims) == array.ndim
        and all(not isinstance(d, int) or d == n for d, n in zip(dims, array.shape, strict=True))
    )


def _tensor(value: ir.Value, array: _Array, sweep: _Sweep) -> ir.TensorProtocol:
    """The array as a tensor, computed again each time it is needed if it is large."""
    dtype = ir.DataType.from_numpy(array.dtype)
    if array.nbytes <= LAZY_BYTES:
        return ir.Tensor(np.array(array, order="C"), dtype=dtype)
    program = program_for([value], opset=sweep.opset, known={}).program
    return ir.LazyTensor(lambda: ir.Tensor(program.run()[0], dtype=dtype), dtype=dtype, shape=ir.Shape(array.shape))


def _store(node: ir.Node, tensors: dict[ir.Value, ir.TensorProtocol]) -> None:
    """Replaces outputs of a node by initializers of the same name and removes what is not needed any more.

    A graph output becomes that of a Constant, since some runtimes refuse an initializer as an output; large tensors
    need an Identity then, since attributes cannot be stored beside the model.
    """
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    for value, tensor in tensors.items():
        name = value.name or "constant"
        if value.is_graph_output() and tensor.nbytes <= MAX_ATTRIBUTE_BYTES:
            tensor.name = None
            constant = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], name=unique_name(graph, name))
            constant.outputs[0].type, constant.outputs[0].shape = ir.TensorType(tensor.dtype), value.shape
            graph.insert_before(node, constant)
            replace_value(value, constant.outputs[0])
        elif value.is_graph_output():
            replace_value(value, add_initializer(graph, f"{name}.value", tensor))
        else:
            tensor.name = name
            shape = ir.Shape(list(tensor.shape))  # type: ignore[arg-type]
            stored = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
            value.replace_all_uses_with(stored)
            value.name = None
            graph.register_initializer(stored)
    remove_unused([next(iter(tensors))])
    if node.graph is not None:
        for value in tensors:
            value.name = unique_name(graph, f"{node.name}.unused")
