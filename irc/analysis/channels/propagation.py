"""Labels carried through a graph, node by node: what every value's bundles are and what operators demand of them.

    propagation = propagate(model)
    propagation.of(value).bundles

Every operator has a rule (`irc.analysis.channels.rules`) that reads the labels of its inputs, states demands and writes the labels of
its outputs. An operator without a rule pins what it reads: not knowing costs coverage and never correctness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx_ir as ir

from irc.analysis.channels.alignment import Group, Letter, Operand, align, kept
from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.constraints import Constraints, Reason
from irc.analysis.channels.slots import UNLABELLED, Slot, is_labelled_per_use
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.ir import bodies, constant_tensor
from irc.pass_base import node_id

Rule = Callable[["NodeView"], None]
DOMAINS = ("", "ai.onnx")


@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """MACs of a node in terms of labels: proportional to the survivors of each of `groups`, over those of each of `shared`.

    Attributes:
        groups: Labels that operands share.
        shared: Labels that several of the groups have.
        zeros: For integer operands, the input that holds their zero point.
        inner: Weights and biases that take part in products within the node, such as those of a recurrent state.
    """

    groups: list[Bundle]
    shared: list[Bundle]
    zeros: Mapping[int, int] = dataclasses.field(default_factory=dict)
    inner: tuple[int, ...] = ()


class Propagation:
    """The labels of all values of a model's main graph.

    Attributes:
        model: Unchanged.
        shapes: Concrete sizes of all values.
        constraints: What was demanded.
        slots: Labelled initializers, in the order in which they are first read.
        products: For nodes with MACs, the labels their MACs are proportional to.
        allowed: Outputs of the model that may get narrower.
    """

    def __init__(self, model: ir.Model, shapes: ConcreteShapes, allowed_outputs: Sequence[str] = ()) -> None:
        self.model, self.shapes = model, shapes
        self.constraints = Constraints()
        self.slots: list[Slot] = []
        self.products: dict[ir.Node, Product] = {}
        self._values: dict[ir.Value, Labelled] = {}
        self._slots: dict[tuple[ir.Value, ir.Node | None, int], Slot] = {}
        self._closed: set[ir.Value] = set()
        self._varying: set[ir.Value] = set(model.graph.inputs)
        self.allowed = frozenset(allowed_outputs)

    def run(self, rules: dict[tuple[str, str], Rule]) -> None:
        """Visits every node of the main graph once, with the rules of operators by (domain, type)."""
        for node in self.model.graph:
            for body in bodies(node):
                for inner in body.all_nodes():
                    self._closed.update(value for value in inner.inputs if value is not None)
                self._closed.update(body.outputs)
        for node in self.model.graph:
            if any(v in self._varying for v in node.inputs if v is not None) or any(True for _ in bodies(node)):
                self._varying.update(node.outputs)
            self._visit(node, rules)
        for value in self.model.graph.outputs:
            if value.name not in self.allowed:
                reason = Reason("graph output", f"it reaches the output {value.name!r} of the model")
                self.constraints.pin_all(self.of(value).bundles, reason)

    def _visit(self, node: ir.Node, rules: dict[tuple[str, str], Rule]) -> None:
        view = NodeView(node, self)
        domain = "" if node.domain in DOMAINS else node.domain
        rule = rules.get((domain, node.op_type))
        unknown = [v for v in (*node.inputs, *node.outputs) if v is not None and v.name and self.dims(v) is None]
        if any(True for _ in bodies(node)):
            view.pin_inputs("control flow", f"{view.where} has bodies, which are not followed")
        elif rule is None:
            view.pin_inputs("no rule", f"{view.where} is an operator irc has no rule for")
        elif unknown:
            view.pin_inputs("unknown shape", f"the shape of {unknown[0].name!r} at {view.where} is not known")
        elif any(size == 0 for v in (*node.inputs, *node.outputs) if v is not None for size in self.dims(v) or ()):
            view.pin_inputs("empty", f"{view.where} reads or makes an empty tensor")
        else:
            rule(view)
        for value in node.outputs:
            if value in self._closed and value in self._values:
                reason = Reason("control flow", f"{value.name!r} is read by the body of a control flow operator")
                self.constraints.pin_all(self._values[value].bundles, reason)

    # -- values -------------------------------------------------------------------------------------------------------

    def dims(self, value: ir.Value) -> tuple[int, ...] | None:
        """The sizes of a value, None where one of them is not known."""
        return self.shapes.static(value)

    def varies(self, value: ir.Value) -> bool:
        """Whether a value depends on the inputs of the model."""
        return value in self._varying

    def of(self, value: ir.Value) -> Labelled:
        """A value's sizes and bundles; an initializer that all uses share is labelled as it is first asked for."""
        if value in self._values:
            return self._values[value]
        dims = self.dims(value) or ()
        if not value.is_initializer():
            return Labelled(dims)
        return self.slot(value, None, 0).labelled()

    def read(self, node: ir.Node, index: int) -> Labelled:
        """What a node reads as one of its inputs."""
        value = node.inputs[index]
        assert value is not None
        if value in self._values:
            return self._values[value]
        if not value.is_initializer():
            return Labelled(self.dims(value) or ())
        if is_labelled_per_use(value, self.dims(value) or ()):
            return self.slot(value, node, index).labelled()
        return self.of(value)

    def recorded(self, node: ir.Node, index: int) -> Labelled:
        """What a node was found to read as one of its inputs, without labelling anything."""
        value = node.inputs[index]
        assert value is not None
        if value in self._values:
            return self._values[value]
        for key in ((value, node, index), (value, None, 0)):
            if key in self._slots:
                slot = self._slots[key]
                return slot.labelled() if slot.is_plain else Labelled(self.dims(value) or (), ())
        return Labelled(self.dims(value) or ())

    def known(self, value: ir.Value) -> Labelled:
        """What was found of a value, without labelling anything."""
        return self._values.get(value, Labelled(self.dims(value) or ()))

    def values(self) -> Iterator[tuple[ir.Value, Labelled]]:
        """Every value with bundles that a node makes, in graph order."""
        yield from self._values.items()

    def slot(self, value: ir.Value, node: ir.Node | None, index: int) -> Slot:
        """The labels of an initializer, of one use of it if a node is given; labelled as they are first asked for."""
        key = (value, node, index)
        if key not in self._slots:
            dims = self.dims(value) or ()
            tensor = constant_tensor(value)
            open_ = tensor is not None and tensor.dtype not in UNLABELLED and value not in self._closed
            bundles = tuple(
                self.constraints.fresh_bundle([axis], [size]) for axis, size in enumerate(dims) if open_ and size > 1
            )
            self._add(key, Slot(value, None if node is None else (node, index), dims, bundles, tuple(range(len(dims)))))
            if value.is_graph_output() and value.name not in self.allowed:
                reason = Reason("graph output", f"the initializer {value.name!r} is an output of the model")
                self.constraints.pin_all(bundles, reason)
        return self._slots[key]

    def claim(
        self, value: ir.Value, view: Sequence[int], axis_of: Sequence[int], joint: Sequence[Sequence[int]]
    ) -> Slot | None:
        """Labels an initializer under a view with joint bundles; None if it is read elsewhere too, or cannot be.

        Args:
            value: The initializer; it must have one use.
            view: Its shape with some axes split.
            axis_of: The axis of the initializer for each axis of the view.
            joint: Axes of the view per bundle; bundles may share axes, and then share their factors.
        """
        key = (value, None, 0)
        tensor = constant_tensor(value)
        if key in self._slots or not value.is_initializer() or tensor is None or tensor.dtype in UNLABELLED:
            return None
        if len(list(value.uses())) != 1 or value.is_graph_output() or value in self._closed:
            return None
        factors = {axis: self.constraints.factor() for axis in sorted({a for axes in joint for a in axes})}
        bundles = []
        for axes in joint:
            wide = [axis for axis in axes if view[axis] > 1]
            if wide:
                labels = self.constraints.fresh([view[axis] for axis in wide])
                bundles.append(Bundle(tuple(wide), labels, tuple(factors[axis] for axis in wide)))
                self.constraints.box(bundles[-1])
                self.constraints.flattened(bundles[-1], wide)
        self._add(key, Slot(value, None, tuple(view), tuple(bundles), tuple(axis_of)))
        return self._slots[key]

    def _add(self, key: tuple[ir.Value, ir.Node | None, int], slot: Slot) -> None:
        self._slots[key] = slot
        if slot.bundles:
            self.slots.append(slot)

    def write(self, value: ir.Value, tensor: Labelled) -> None:
        """Records a value's bundles.

        Raises:
            AssertionError: If a rule has lost track of the shape.
        """
        assert tensor.dims == self.dims(value), f"{value.name}: {tensor.dims} for {self.dims(value)}"
        for bundle in tensor.bundles:
            sizes = tuple(tensor.dims[axis] for axis in bundle.axes)
            assert bundle.labels.shape == sizes and 1 not in sizes, f"{value.name}: {bundle.labels.shape} on {sizes}"
        self._values[value] = tensor


class NodeView:
    """One node as a rule sees it.

    Attributes:
        node: The node.
        propagation: The labels of all values.
        constraints: Where demands go.
        where: What to call the node in reasons.
    """

    def __init__(self, node: ir.Node, propagation: Propagation) -> None:
        self.node, self.propagation, self.constraints = node, propagation, propagation.constraints
        self.where = f"{node.op_type} {node_id(node)!r}"

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def makes(self, index: int) -> bool:
        """Whether an optional output is made."""
        return index < len(self.node.outputs) and bool(self.node.outputs[index].name)

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return self.propagation.model.graph.opset_imports.get("", 1)

    def read(self, index: int = 0) -> Labelled:
        """Sizes and bundles of an input."""
        return self.propagation.read(self.node, index)

    def known(self, index: int) -> list[int] | None:
        """The elements of an integer input that do not depend on the model's inputs' elements."""
        if not self.has(index):
            return None
        array = self.propagation.shapes.known(self.node.inputs[index])
        return None if array is None else [int(element) for element in array.ravel()]

    def dims_out(self, index: int = 0) -> tuple[int, ...]:
        """Sizes of an output."""
        return self.propagation.dims(self.node.outputs[index]) or ()

    def write(self, tensor: Labelled, index: int = 0) -> None:
        """Bundles of an output; one that is left out is ignored."""
        if index < len(self.node.outputs) and self.node.outputs[index].name:
            self.propagation.write(self.node.outputs[index], tensor)

    def write_bundles(self, bundles: Sequence[Bundle | None], index: int = 0) -> None:
        """Bundles of an output, those of size 1 along some axis and None left out."""
        if index < len(self.node.outputs) and self.node.outputs[index].name:
            self.write(Labelled(self.dims_out(index), tuple(b for b in bundles if b is not None)), index)

    def pin_inputs(self, kind: str, text: str, indices: Sequence[int] | None = None) -> None:
        """No label of some inputs (all by default) is ever cut."""
        for index in range(len(self.node.inputs)) if indices is None else indices:
            if self.has(index):
                self.constraints.pin_all(self.read(index).bundles, Reason(kind, text))

    def parameters(self, *indices: int) -> None:
        """Inputs that say how to compute rather than what with: sizes, axes, indices."""
        self.pin_inputs("parameter", f"{self.where} reads it as a size or an index", indices)

    def freed(self, tensor: Labelled, axis: int, kind: str, text: str) -> Labelled:
        """A tensor one axis of which must stay as it is; labels along it are tied or pinned."""
        bundle = tensor.on(axis)
        if bundle is None:
            return tensor
        rest = self.constraints.free(bundle, axis, Reason(kind, f"{self.where} {text}"))
        others = tuple(b for b in tensor.bundles if b is not bundle)
        return Labelled(tensor.dims, others if rest is None else (*others, rest))

    def align(self, *operands: tuple[Labelled, Sequence[Letter | None]]) -> list[Group]:
        """Operands that meet on letters."""
        return align(self.constraints, [Operand(tensor, tuple(letters)) for tensor, letters in operands], self.where)

    def kept(self, groups: Sequence[Group], letters: Sequence[Letter]) -> list[Bundle]:
        """What stays of groups on a result with some letters."""
        found = (kept(self.constraints, group, letters, self.where) for group in groups)
        return [bundle for bundle in found if bundle is not None]

    def statistic(self, bundle: Bundle, text: str, axes: Sequence[int] | None = None) -> None:
        """What the node computes changes for all coordinates when one is cut, along some axes of the bundle or (None) any."""
        reason = Reason("statistic", f"{self.where} {text}")
        self.constraints.statistic_along(bundle, bundle.axes if axes is None else axes, reason)

    def costs(
        self,
        groups: Sequence[Group],
        *,
        shared: Sequence[Bundle] = (),
        zeros: Mapping[int, int] | None = None,
        inner: Sequence[int] = (),
    ) -> None:
        """The MACs of the node are proportional to the survivors of each group, over those of what groups share.

        Args:
            groups: Labels that operands share.
            shared: Labels that several of the groups have.
            zeros: For integer operands, the input that holds their zero point.
            inner: Weights and biases that take part in products within the node.
        """
        bundles = [group.bundle for group in groups]
        self.propagation.products[self.node] = Product(bundles, list(shared), dict(zeros or {}), tuple(inner))
