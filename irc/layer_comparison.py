"""Where two models drift apart: the values that carry the same name in both, compared sample by sample.

A value that is only read quantized counts as its readers see it: behind its QuantizeLinear and DequantizeLinear.
Quantizers let that pair do the work of a Relu and give the convolution's output the name of the Relu's, which it does
not equal before. Both run without the runtime's optimizations, so that every value exists and quantized models compute
what their graph says. Values are fetched in groups that fit a memory limit, one sample at a time. Values inside the
bodies of If, Loop and Scan are not seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import onnx_ir as ir

from irc.analysis.assumed_sizes import assume_sizes
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.analysis.interface_difference import Pairing
from irc.analysis.model_cost import value_bytes
from irc.analysis.weights import Weights
from irc.memory_groups import groups_within
from irc.numeric_difference import NumericDifference

if TYPE_CHECKING:
    from irc.runner import Feed, Runner

GROUP_BYTES = 128 << 20
"""At most about this many bytes of values (per model) are fetched in one run."""
_UNKNOWN_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class LayerDifference:
    """One value that both models compute.

    Attributes:
        name: Its name.
        operator: What computes it in A; "A -> B" where the operators differ.
        sqnr_db: SQNR of B against A in dB; infinite for no difference.
        relative_error: Relative error.
        inputs_db: Lowest SQNR among the nearest compared values it is computed from; None if there are none. A value
            far below it is where accuracy is lost.
        module: The PyTorch module in A; "" if unknown.
        shapes: Shapes in words where they differ; the value is then not compared.
    """

    name: str
    operator: str
    sqnr_db: float | None
    relative_error: float | None
    inputs_db: float | None
    module: str
    shapes: str = ""


def common_values(a: ir.Model, b: ir.Model) -> list[str]:
    """Names of floating-point values that nodes of both main graphs compute from the inputs, in the order of A."""
    return _common(_computed(_shapes(a)), _computed(_shapes(b)))


def compare_layers(
    runner: Runner,
    a: ir.Model,
    b: ir.Model,
    feeds: Iterable[Feed],
    inputs: Pairing,
    *,
    count: int,
    progress: Callable[[float, str], None] = lambda fraction, what: None,
) -> list[LayerDifference]:
    """Differences of all common values, in the order of A.

    Args:
        runner: Where both run.
        a: The reference; unchanged.
        b: The other; unchanged.
        feeds: Feeds of A.
        inputs: How they become feeds of B.
        count: Number of feeds, for progress.
        progress: Told the share done.

    Raises:
        RunnerError: If a model cannot be opened with these values as outputs, or does not run.
    """
    shapes = _shapes(a)
    nodes, others = _computed(shapes), _computed(_shapes(b))
    names = _common(nodes, others)
    if not names:
        return []
    groups = _groups(shapes, names)
    totals = {name: NumericDifference() for name in names}
    read_a, read_b = _as_read(a, names), _as_read(b, names)
    first = runner.open(a, optimization="none", extra_outputs=list(dict.fromkeys(read_a.values())))
    second = runner.open(b, optimization="none", extra_outputs=list(dict.fromkeys(read_b.values())))
    try:
        for index, feed in enumerate(feeds):
            progress(index / max(count, 1), f"comparing {len(names)} values, sample {index + 1} of {count}")
            other = inputs.feed(feed)
            for group in groups:
                mine = first.run(feed, list(dict.fromkeys(read_a[name] for name in group)))
                theirs = second.run(other, list(dict.fromkeys(read_b[name] for name in group)))
                for name in group:
                    totals[name].add(mine[read_a[name]], theirs[read_b[name]])
    finally:
        first.close()
        second.close()
    return _layers(nodes, others, totals)


def _shapes(model: ir.Model) -> ConcreteShapes:
    return ConcreteShapes(model, assume_sizes(model))


def _common(nodes: dict[str, ir.Node], others: dict[str, ir.Node]) -> list[str]:
    return [name for name in nodes if name in others]


def _computed(shapes: ConcreteShapes) -> dict[str, ir.Node]:
    """What computes each floating-point value of the main graph."""
    weights = Weights(shapes.model)
    found = {}
    for node in shapes.model.graph:
        for value in node.outputs:
            dtype = shapes.dtype(value)
            if value.name and not weights.is_constant(value) and dtype is not None and dtype.is_floating_point():
                found[value.name] = node
    return found


def _as_read(model: ir.Model, names: list[str]) -> dict[str, str]:
    """The value that the readers of each value see: its dequantized form if nothing reads it otherwise."""
    values = ir.convenience.create_value_mapping(model.graph)
    found = {}
    for name in names:
        value = values[name]
        for op_type in ("QuantizeLinear", "DequantizeLinear"):
            readers = [use.node for use in value.uses()] if not value.is_graph_output() else []
            if not readers or any(
                r.op_type != op_type or r.inputs[0] is not value or r.graph is not model.graph for r in readers
            ):
                value = values[name]
                break
            value = readers[0].outputs[0]
        found[name] = value.name or name
    return found


def _groups(shapes: ConcreteShapes, names: list[str]) -> list[list[str]]:
    """The names in groups whose values fit `GROUP_BYTES`, estimated for assumed sizes."""
    values = ir.convenience.create_value_mapping(shapes.model.graph)
    sizes = ((name, value_bytes(values[name], shapes)) for name in names)
    return groups_within(((name, _UNKNOWN_BYTES if size is None else size) for name, size in sizes), GROUP_BYTES)


def _layers(
    nodes: dict[str, ir.Node], others: dict[str, ir.Node], totals: dict[str, NumericDifference]
) -> list[LayerDifference]:
    layers = []
    for name, total in totals.items():
        node, other = nodes[name], others[name]
        above = [totals[upstream].sqnr_db for upstream in _upstream(node, totals)]
        known = [level for level in above if level is not None]
        layers.append(
            LayerDifference(
                name=name,
                operator=node.op_type if node.op_type == other.op_type else f"{node.op_type} -> {other.op_type}",
                sqnr_db=total.sqnr_db,
                relative_error=total.relative_error,
                inputs_db=min(known) if known else None,
                module=node.metadata_props.get("irc.module", ""),
                shapes=total.shapes,
            )
        )
    return layers


def _upstream(node: ir.Node, compared: dict[str, NumericDifference]) -> list[str]:
    """The nearest compared values a node depends on."""
    found: dict[str, None] = {}
    pending = [value for value in node.inputs if value is not None]
    seen = {id(value) for value in pending}
    while pending:
        value = pending.pop()
        if value.name in compared:
            found[value.name] = None
            continue
        producer = value.producer()
        for source in producer.inputs if producer is not None else ():
            if source is not None and id(source) not in seen:
                seen.add(id(source))
                pending.append(source)
    return list(found)
