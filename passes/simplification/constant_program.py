"""Compute constants from constants with the onnx reference implementation, once or whenever a lazy tensor is asked.

A `Program` is what lies between constant tensors and the values asked for, copied out of the graph: later edits of the
graph do not change it. Intermediate arrays are dropped as soon as nothing needs them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from irc.ir import constant_tensor
from irc.passes.simplification.known_shapes import shape_answer

MAX_GENERATED_BYTES = 256 << 20
"""An operator may not make more than this many bytes (256 MiB) out of less than half as much."""

_Array = np.ndarray[Any, Any]


class EvaluationError(Exception):
    """A node cannot be evaluated here; the message says why, in a user's words.

    Attributes:
        step: Position of the step at fault in its program; -1 outside a program.
    """

    step: int = -1


@dataclasses.dataclass(frozen=True)
class _Step:
    """One node: its protobuf, the slots of its inputs and outputs (None if omitted), and the dtypes it should give."""

    proto: onnx.NodeProto
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    dtypes: tuple[ir.DataType | None, ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """Steps that compute constants.

    Attributes:
        opset: Version of the default domain.
        leaves: Slot to tensor or array the steps start from.
        steps: In order of execution.
        results: Slots of the values asked for.
    """

    opset: int
    leaves: Mapping[int, ir.TensorProtocol | _Array]
    steps: Sequence[_Step]
    results: Sequence[int]

    def run(self, observe: Callable[[int, _Array], None] = lambda slot, array: None) -> list[_Array]:
        """The values asked for.

        Args:
            observe: Called with every slot that is computed and its array.

        Raises:
            EvaluationError: If a node has no reference implementation, fails, would make an enormous tensor or gives
                another dtype than the model says.
        """
        last_use = {slot: i for i, step in enumerate(self.steps) for slot in step.inputs if slot is not None}
        slots: dict[int, _Array] = {}
        for i, step in enumerate(self.steps):
            inputs = [None if slot is None else self._read(slot, slots) for slot in step.inputs]
            try:
                outputs = evaluate(step.proto, inputs, opset=self.opset)
                _require_dtypes(step, outputs)
            except EvaluationError as error:
                error.step = i
                raise
            for slot, array in zip(step.outputs, outputs, strict=True):
                if slot is not None:
                    slots[slot] = array
                    observe(slot, array)
            for slot in step.inputs:
                if slot is not None and last_use[slot] == i and slot not in self.results:
                    slots.pop(slot, None)
        return [self._read(slot, slots) for slot in self.results]

    def _read(self, slot: int, slots: Mapping[int, _Array]) -> _Array:
        if slot in slots:
            return slots[slot]
        leaf = self.leaves[slot]
        return leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf.numpy())


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program and where it came from.

    Attributes:
        program: The program.
        nodes: The node of each step.
        values: The value of each slot.
    """

    program: Program
    nodes: Sequence[ir.Node]
    values: Sequence[ir.Value]


def program_for(values: Sequence[ir.Value], *, opset: int, known: Mapping[ir.Value, _Array]) -> Compiled:
    """The program that computes values from constants, known shapes and arrays that are known already.

    Args:
        values: Outputs of nodes all of whose ancestors are constant.
        opset: Version of the default domain.
        known: Arrays of values met on the way that were computed before.
    """
    slots: dict[ir.Value, int] = {}
    leaves: dict[int, ir.TensorProtocol | _Array] = {}
    steps: list[_Step] = []
    nodes: list[ir.Node] = []
    pending: list[tuple[ir.Value, bool]] = [(value, False) for value in reversed(values)]
    while pending:
        value, inputs_ready = pending.pop()
        if value in slots:
            continue
        node = value.producer()
        if inputs_ready and node is not None:
            nodes.append(node)
            inputs = tuple(None if v is None else slots[v] for v in node.inputs)
            outputs = tuple(slots.setdefault(o, len(slots)) if o.name else None for o in node.outputs)
            steps.append(_Step(ir.to_proto(node), inputs, outputs, tuple(o.dtype for o in node.outputs)))
        elif (leaf := _leaf(value, known)) is not None:
            leaves[slots.setdefault(value, len(slots))] = leaf
        elif node is None:
            raise EvaluationError(f"{value.name!r} is not constant")
        else:
            pending.append((value, True))
            pending += [(v, False) for v in reversed(node.inputs) if v is not None]
    program = Program(opset, leaves, steps, [slots[value] for value in values])
    return Compiled(program, nodes, list(slots))


def _leaf(value: ir.Value, known: Mapping[ir.Value, _Array]) -> ir.TensorProtocol | _Array | None:
    tensor = constant_tensor(value)
    if tensor is not None:
        return tensor
    if value in known:
        return known[value]
    node = value.producer()
    return shape_answer(node) if node is not None else None


def evaluate(proto: onnx.NodeProto, inputs: Sequence[_Array | None], *, opset: int) -> list[_Array]:
    """The outputs of one node of the default domain, in order, omitted ones left out of the computation.

    Args:
        proto: The node.
        inputs: One array per input, None for an omitted one.
        opset: Version of the default domain.

    Raises:
        EvaluationError: If the reference implementation does not have the operator, or fails.
    """
    from onnx.reference import ReferenceEvaluator

    feed = {name: _read_only(array) for name, array in zip(proto.input, inputs, strict=True) if array is not None}
    graph = onnx.GraphProto(node=[proto], name="constant")
    for name, array in feed.items():
        graph.input.append(
            onnx.helper.make_tensor_value_info(name, ir.DataType.from_numpy(array.dtype).value, array.shape)
        )
    named = [name for name in proto.output if name]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in named)
    try:
        _refuse_enormous(proto.op_type, inputs)
        with np.errstate(all="ignore"):
            arrays = ReferenceEvaluator(graph, opsets={"": opset}).run(named, feed)
    except EvaluationError:
        raise
    except NotImplementedError as error:
        raise EvaluationError(f"the reference implementation has no {proto.op_type} of opset {opset}") from error
    except Exception as error:  # whatever an implementation raises, the node stays and the build goes on
        raise EvaluationError(f"evaluating it raises {type(error).__name__}") from error
    by_name = dict(zip(named, arrays, strict=True))
    if not all(isinstance(array, np.ndarray | np.generic) for array in arrays):
        raise EvaluationError("its value is not a tensor")
    return [np.asarray(by_name[name]) if name else np.empty(0) for name in proto.output]


def _read_only(array: _Array) -> _Array:
    """A view that an implementation working in place cannot spoil the original through."""
    view = array.view()
    view.flags.writeable = False
    return view


def _require_dtypes(step: _Step, arrays: Sequence[_Array]) -> None:
    """Raises where the reference implementation gives another dtype than the model says."""
    for slot, promised, array in zip(step.outputs, step.dtypes, arrays, strict=True):
        if slot is not None and promised is not None and ir.DataType.from_numpy(array.dtype) != promised:
            raise EvaluationError(f"the reference implementation gives {array.dtype}, not {promised.name}")


def _refuse_enormous(op_type: str, inputs: Sequence[_Array | None]) -> None:
    """Raises for an operator that makes much out of little, before it does; in any way for inputs it cannot have."""
    given = [array for array in inputs if array is not None]
    count = 0
    if op_type == "ConstantOfShape":
        count = math.prod(int(d) for d in given[0])
    elif op_type in ("Expand", "Tile"):
        count = math.prod(int(d) for d in given[1].flat) * given[0].size
    elif op_type == "Range":
        count = max(0, math.ceil((given[1].item() - given[0].item()) / given[2].item()))
    elif op_type == "OneHot":
        count = int(given[1].flat[0]) * given[0].size
    if count * 8 > MAX_GENERATED_BYTES and count * 8 > 2 * sum(array.nbytes for array in given):
        raise EvaluationError("its value is larger than what it is computed from")
