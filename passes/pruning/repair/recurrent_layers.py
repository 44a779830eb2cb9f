"""LSTM, GRU and RNN of the main graph: what their weights read, and what a cut leaves of these.

Every direction is a few products of a part of its gates with what these read at one step: the input and the state before it.

    LSTM, RNN                   all gates       W x + R h + b
    GRU                         update, reset   W x + R h + b
    GRU, linear before reset    hidden          W x + b,  R h + b'        the second one times the reset gate
    GRU otherwise               hidden          W x + R (reset * h) + b
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family, Propagation
from irc.analysis.channels.slots import Slot
from irc.channel_surgery.layout import spread
from irc.ir import constant, constant_tensor

Array = np.ndarray[Any, Any]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
X, W, R, B, LENGTHS, INITIAL = range(6)
_RESET, _HIDDEN = 1, 2
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


@dataclasses.dataclass(frozen=True)
class GateProduct:
    """Some gates of a direction and what they read together.

    Attributes:
        gates: First gate, and the one behind the last.
        parts: Of a row: "input", "state", "reset state".
        half: Of B, which the means go into: 0 is that of W, 1 that of R.
    """

    gates: tuple[int, int]
    parts: tuple[str, ...]
    half: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class RecurrentLayer:
    """One of them, of the model that was analysed.

    Attributes:
        node: The operator.
        slots: Labels of W and of R; None where an axis of them has none.
    """

    node: ir.Node
    slots: tuple[Slot | None, Slot | None]

    @property
    def name(self) -> str:
        """Of its first result that has one."""
        return next(str(value.name) for value in self.node.outputs if value.name)

    @functools.cached_property
    def weights(self) -> tuple[Array, Array]:
        """W `[D, G * H, K]` and R `[D, G * H, H]`."""
        w, r = constant(self.node.inputs[W]), constant(self.node.inputs[R])
        assert w is not None and r is not None
        return w, r

    @property
    def bias(self) -> Array:
        """`[D, 2, G * H]`: zeros where it has none."""
        return bias_of(self.node).reshape(self.directions, 2, -1)

    @property
    def directions(self) -> int:
        """One or two."""
        return len(self.weights[1])

    @property
    def hidden(self) -> int:
        """Units of one direction."""
        return int(self.weights[1].shape[2])

    @property
    def width(self) -> int:
        """Of a row: all parts of it."""
        return max(int(part.stop) for part in self.parts.values())

    @property
    def backward(self) -> tuple[bool, ...]:
        """For every direction, whether it runs from the end."""
        way = self.node.attributes.get_string("direction", "forward")
        return (False, True) if way == "bidirectional" else (way == "reverse",)

    @functools.cached_property
    def parts(self) -> dict[str, slice]:
        """Where the parts of a row are."""
        inputs = int(self.weights[0].shape[2])
        found = {"input": slice(0, inputs), "state": slice(inputs, inputs + self.hidden)}
        if self._resets_before:
            found["reset state"] = slice(inputs + self.hidden, inputs + 2 * self.hidden)
        return found

    @functools.cached_property
    def products(self) -> tuple[GateProduct, ...]:
        """All that is known of what its gates read."""
        if self.node.op_type != "GRU":
            return (GateProduct((0, GATES[self.node.op_type]), ("input", "state")),)
        first = GateProduct((0, _HIDDEN), ("input", "state"))
        last = (_HIDDEN, _HIDDEN + 1)
        if bool(self.node.attributes.get_int("linear_before_reset", 0)):
            return first, GateProduct(last, ("input",)), GateProduct(last, ("state",), half=1)
        return first, GateProduct(last, ("input", "reset state") if self._resets_before else ("input",))

    @property
    def _resets_before(self) -> bool:
        """Whether a gate reads a state times the reset gate, and that gate is known."""
        attributes = self.node.attributes
        if self.node.op_type != "GRU" or bool(attributes.get_int("linear_before_reset", 0)):
            return False
        activation = attributes.get_strings("activations", ["Sigmoid"])[::2]
        return "clip" not in attributes and all(name == "Sigmoid" for name in activation)

    def rows(self, x: Array, states: Array) -> Array:
        """`[D, rows, K]` of inputs `[rows, inputs]` and of states before them `[D, rows, H]`."""
        found = [np.broadcast_to(x.astype(np.float32), (self.directions, *x.shape)), states.astype(np.float32)]
        if "reset state" in self.parts:
            gate = slice(_RESET * self.hidden, (_RESET + 1) * self.hidden)
            w, r = (weight[:, gate].astype(np.float32).transpose(0, 2, 1) for weight in self.weights)
            bias = self.bias[:, :, gate].astype(np.float32).sum(axis=1)[:, None]
            with np.errstate(over="ignore", invalid="ignore"):
                found.append(found[1] / (1 + np.exp(-(found[0] @ w + found[1] @ r + bias))))
        return np.concatenate(found, axis=2)

    def matrix(self, direction: int, product: GateProduct) -> Array:
        """`[gates * H, K]`: what a product multiplies its parts of a row with."""
        w, r = (weight[direction, self.gate_rows(product)].astype(np.float64) for weight in self.weights)
        return np.concatenate([w if part == "input" else r for part in product.parts], axis=1)

    def gate_rows(self, product: GateProduct) -> slice:
        """The rows of W and R that a product is of."""
        first, end = product.gates
        return slice(first * self.hidden, end * self.hidden)

    def places(self, product: GateProduct) -> Array:
        """`[K]`: where in a row the parts of a product are."""
        return np.concatenate([np.arange(self.width)[self.parts[part]] for part in product.parts])

    def labels(self, direction: int, product: GateProduct) -> Array:
        """`[K]`: labels of what a product reads; -1 where there are none."""
        w, r = (
            _column_labels(slot, weight.shape, direction) for slot, weight in zip(self.slots, self.weights, strict=True)
        )
        return np.concatenate([w if part == "input" else r for part in product.parts])

    def surviving(self, alive: Array) -> tuple[Array, Array]:
        """Which elements of W and of R are left."""
        w, r = (_surviving(slot, weight.shape, alive) for slot, weight in zip(self.slots, self.weights, strict=True))
        return w, r


class RecurrentLayers:
    """All whose weights are constants of their own, the bias any constant, in the order of the graph.

    Others stay as they are cut.

    Args:
        propagation: Labels of the model.
    """

    def __init__(self, propagation: Propagation) -> None:
        self._propagation = propagation
        self.all = tuple(self._found())

    def _found(self) -> Iterator[RecurrentLayer]:
        nodes = [node for node in self._propagation.model.graph if _is_repairable(node)]
        if not nodes:
            return
        slots = {slot.initializer: slot for slot in self._propagation.slots}
        for node in nodes:
            yield RecurrentLayer(node, (slots.get(node.inputs[W]), slots.get(node.inputs[R])))  # type: ignore[arg-type]

    def readers(
        self, family: Family, groups: ChannelGroups
    ) -> Iterator[tuple[RecurrentLayer, int, GateProduct, Array]]:
        """Products that read a family: with their direction, and the atom, from 0, of each of what they read, or -1."""
        if not self.all:
            return
        index = np.full(self._propagation.constraints.count, -1)
        index[family.atoms] = np.arange(len(family.atoms))
        for layer in self.all:
            for direction in range(layer.directions):
                for product in layer.products:
                    labels = layer.labels(direction, product)
                    classes = np.where(labels >= 0, groups.class_of[np.maximum(labels, 0)], -1)
                    blocks = np.where(classes >= 0, index[np.maximum(classes, 0)], -1)
                    if (blocks >= 0).any():
                        yield layer, direction, product, blocks


def bias_of(node: ir.Node) -> Array:
    """`[D, 2 * G * H]`: B, or zeros."""
    value = node.inputs[B] if len(node.inputs) > B else None
    array, recurrence = constant(value), constant(node.inputs[R])
    assert recurrence is not None
    return np.zeros((len(recurrence), 2 * recurrence.shape[1]), recurrence.dtype) if array is None else array


def _is_repairable(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type not in GATES:
        return False
    if bool(node.attributes.get_int("layout", 0)) or not any(value.name for value in node.outputs):
        return False
    weights = [constant_tensor(node.inputs[index]) for index in (W, R)]
    if any(tensor is None or tensor.dtype not in _FLOATS for tensor in weights):
        return False
    bias = node.inputs[B] if len(node.inputs) > B else None
    known = bias is None or (bias.is_initializer() and not bias.is_graph_input() and constant(bias) is not None)
    return known and _is_own(node.inputs[W]) and _is_own(node.inputs[R])


def _is_own(value: ir.Value | None) -> bool:
    """Whether a constant is an initializer that nobody else reads or may set."""
    return (
        value is not None
        and value.is_initializer()
        and len(value.uses()) == 1
        and not value.is_graph_output()
        and not value.is_graph_input()
    )


def _surviving(slot: Slot | None, shape: tuple[int, ...], alive: Array) -> Array:
    if slot is None:
        return np.ones(shape, bool)
    mask = np.ones(slot.view, bool)
    for bundle in slot.bundles:
        mask &= spread(bundle, alive[bundle.labels], len(slot.view))
    return mask.reshape(shape)


def _column_labels(slot: Slot | None, shape: tuple[int, ...], direction: int) -> Array:
    """Labels of the columns of W or R in a direction; -1 where they have none."""
    found = np.full(shape[2], -1)
    last = len(slot.view) - 1 if slot is not None else 0
    for bundle in () if slot is None else slot.bundles:
        if bundle.axes == (last,):
            found = bundle.labels
        elif bundle.axes == (0, last):
            found = bundle.labels[direction]
    return found
