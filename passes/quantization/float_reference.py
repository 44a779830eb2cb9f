"""What was quantized, remembered with the model and its copies: the float model, and where its tensors went.

A pass that refines quantization (rounding, ranges, bias) asks here what the integers stand for. Tensors are shared with the
model, values are named, so that the record holds for copies too. Nothing of it is written to a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import onnx_ir as ir

from irc.ir import snapshot

_KEY = "irc.quantized-from"


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerSite:
    """A weighted operator that reads integers.

    Attributes:
        id: Site id: name of its output in the float model.
        node: Name of the node, which it keeps.
        activation: Name of the value it reads in the float model.
        scale: Name of the initializer with the scale of that value.
        zero_point: Name of the initializer with its zero point.
        weight: The float weight.
        axis: The output channel axis of the weight.
        stored: Name of the int8 initializer, of the shape of the weight.
        scales: Name of the initializer with its scales, `[channels]`.
    """

    id: str
    node: str
    activation: str
    scale: str
    zero_point: str
    weight: ir.TensorProtocol
    axis: int
    stored: str
    scales: str


@dataclasses.dataclass(frozen=True, eq=False)
class FloatReference:
    """A model before it was quantized.

    Attributes:
        model: The float model; not to be changed.
        sites: What was rewritten, by site id.
    """

    model: ir.Model
    sites: Mapping[str, IntegerSite]


def reference(model: ir.Model) -> FloatReference | None:
    """The float model that a pass of this pipeline quantized; None if none did."""
    found = model.meta.get(_KEY)
    return found if isinstance(found, FloatReference) else None


def amended(model: ir.Model, site: IntegerSite) -> None:
    """Replaces what is remembered of one site; copies made before keep what they had."""
    found = model.meta[_KEY]
    model.meta[_KEY] = FloatReference(found.model, {**found.sites, site.id: site})


class Recording:
    """The record of a walk over a model that quantizes it."""

    def __init__(self, model: ir.Model) -> None:
        self._sites: dict[str, IntegerSite] = {}
        self._reference = FloatReference(snapshot(model), self._sites)
        self._model = model
        self._inputs = {
            n.name: n.inputs[0].name for n in model.graph.all_nodes() if n.inputs and n.inputs[0] is not None
        }

    def activation(self, node: ir.Node) -> str:
        """Name of the value that a node reads in the float model; by now it may read the twin of that value."""
        return self._inputs.get(node.name) or ""

    def add(self, site: IntegerSite) -> None:
        """Remembers one site."""
        self._sites[site.id] = site
        self._model.meta[_KEY] = self._reference
