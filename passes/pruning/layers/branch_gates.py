"""A model whose residual branches can be left out one run at a time: one session for every selection of them.

    y = x + f(x)    becomes    y = x + Where(keep, f(x), constant)

`keep` and `constant` are inputs of the gated model, so that candidates differ in what they are fed, not in their graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import snapshot, unique_name
from irc.passes.pruning.layers.residual_branches import Branch
from irc.runner import Feed, Opened

Array = np.ndarray[Any, Any]
Constants = Mapping[Branch, Array]
"""What is added in the place of branches that are gone."""


class BranchGates:
    """A model with a gate in every branch.

    Args:
        model: Unchanged.
        branches: Of the model.
        shapes: Of the constants that may be put in their places; a scalar where a branch has none.

    Attributes:
        model: The gated copy.
    """

    def __init__(self, model: ir.Model, branches: Sequence[Branch], shapes: Mapping[Branch, tuple[int, ...]]) -> None:
        self.model = snapshot(model)
        copies = dict(zip(model.graph, self.model.graph, strict=True))
        self._gates: dict[Branch, tuple[str, str, Array]] = {}
        for branch in branches:
            dtype = branch.value.dtype or branch.joined.dtype
            assert dtype is not None
            empty = np.zeros(shapes.get(branch, ()), dtype.numpy())
            self._gates[branch] = (*self._add(copies[branch.add], branch.index, dtype, empty.shape), empty)

    def _add(self, add: ir.Node, index: int, dtype: ir.DataType, shape: tuple[int, ...]) -> tuple[str, str]:
        graph = self.model.graph
        value = add.inputs[index]
        assert value is not None
        keep = self._input(f"{value.name}_keep", ir.DataType.BOOL, ())
        constant = self._input(f"{value.name}_constant", dtype, shape)
        gate = ir.Node("", "Where", [keep, value, constant], num_outputs=1)
        gate.outputs[0].name = unique_name(graph, f"{value.name}_gated")
        gate.outputs[0].type, gate.outputs[0].shape = value.type, value.shape
        graph.insert_before(add, gate)
        add.replace_input_with(index, gate.outputs[0])
        return keep.name or "", constant.name or ""

    def _input(self, hint: str, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
        name = unique_name(self.model.graph, hint)
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.model.graph.inputs.append(value)
        return value

    def feed(self, gone: Constants) -> Feed:
        """What to feed the gates with.

        Args:
            gone: Branches that are left out; an empty array stands for nothing in their place.
        """
        found: Feed = {}
        for branch, (keep, constant, empty) in self._gates.items():
            found[keep] = np.asarray(branch not in gone)
            given = gone.get(branch)
            found[constant] = empty if given is None or not given.size else given.astype(empty.dtype)
        return found


class Gated:
    """A gated model, opened, with some branches left out: what a judge can run."""

    def __init__(self, opened: Opened, gates: BranchGates, gone: Constants) -> None:
        self._opened, self._feed = opened, gates.feed(gone)

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs for one feed."""
        return self._opened.run({**feed, **self._feed}, outputs)
