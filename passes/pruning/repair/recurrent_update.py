"""Weights of recurrent operators that make up for what they do not read any more, by statistics of the teacher.

    [W R]' = [W R] H[:, S] H[S, S]^-1,    b' = b + ([W R] - [W R]') E[x, h]        S: what stays of inputs x and states h

Input and state before it are read side by side, so that either may take over for the other; see `recurrent_layers` for what every gate
reads. Input and state have damping in units of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.block_removal import without
from irc.calibration.compensation import DAMPING
from irc.decisions import Decision
from irc.ir import add_initializer, constant
from irc.passes.pruning.repair.input_moments import Moments
from irc.passes.pruning.repair.recurrent_layers import B, GateProduct, R, RecurrentLayer, RecurrentLayers, W, bias_of
from irc.passes.pruning.repair.recurrent_moments import RecurrentMoments

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
"""By input: "W", "R", "B"."""
_INPUTS = {"W": W, "R": R, "B": B}


def update_recurrent(model: ir.Model, alive: Array, layers: RecurrentLayers, moments: RecurrentMoments) -> None:
    """Gives the recurrent operators of a cut model the weights that make up for what they lost.

    Args:
        model: Cut from the teacher; changed in place.
        alive: What survived, a boolean per label.
        layers: Of the teacher.
        moments: Of the teacher.
    """
    touched = []
    for layer in layers.all:
        surviving = layer.surviving(alive)
        if not all(mask.any(axis=1).all() for mask in surviving):
            touched.append((layer, surviving))
    if not touched:
        return
    moments.gather([layer for layer, _surviving in touched])
    nodes = _by_output(model)
    for layer, surviving in touched:
        known, node = moments[layer], nodes.get(layer.name)
        if known is None or node is None or not all(np.isfinite(weight).all() for weight in layer.weights):
            continue
        updated = _updated(layer, surviving, known)
        cut = {"W": updated["W"][surviving[0]], "R": updated["R"][surviving[1]]}
        rows = np.asarray(surviving[1].any(axis=2))
        cut["B"] = updated["B"][np.stack([rows, rows], axis=1)]
        before = _arrays(node)
        if any(cut[kind].size != before[kind].size for kind in _INPUTS):
            continue
        with np.errstate(over="ignore"):
            arrays = {kind: cut[kind].reshape(old.shape).astype(old.dtype) for kind, old in before.items()}
        if all(np.isfinite(array).all() for array in arrays.values()):
            _store(model, node, arrays)


def _updated(layer: RecurrentLayer, surviving: tuple[Array, Array], known: Moments) -> Arrays:
    """All of W, R and B `[D, 2, G * H]`; the columns that go are zero."""
    w, r = (weight.astype(np.float64) for weight in layer.weights)
    bias = layer.bias.astype(np.float64)
    for direction in range(layer.directions):
        columns = {"input": surviving[0][direction].any(axis=0), "state": surviving[1][direction].any(axis=0)}
        columns["reset state"] = columns["state"]
        weights = {"input": w[direction], "state": r[direction], "reset state": r[direction]}
        for product in layer.products:
            gone = np.concatenate([~columns[part] for part in product.parts])
            if not gone.any() or gone.all():
                continue
            before = layer.matrix(direction, product)
            gram, unit = gram_of(layer, direction, product, known)
            after = without(before * unit, gram, gone, damping=DAMPING) / unit
            rows, mean = layer.gate_rows(product), known.mean[direction][layer.places(product)]
            bias[direction, product.half, rows] += (before - after) @ mean
            ends = np.cumsum([len(columns[part]) for part in product.parts])[:-1]
            for part, values in zip(product.parts, np.split(after, ends, axis=1), strict=True):
                weights[part][rows] = values
    return {"W": w, "R": r, "B": bias}


def gram_of(layer: RecurrentLayer, direction: int, product: GateProduct, known: Moments) -> tuple[Array, Array]:
    """`[K, K]` of what a product reads, every part in units of its own size, and `[K]`: these."""
    whole = known.gram[direction]
    sizes = []
    for part in product.parts:
        variances = np.diagonal(whole)[layer.parts[part]].astype(np.float64)
        size = np.sqrt(max(float(variances.mean()), 0.0))
        sizes.append(np.full(len(variances), size if size > 0 else 1.0))
    unit, places = np.concatenate(sizes), layer.places(product)
    return whole[np.ix_(places, places)] / np.outer(unit, unit), unit


# -- written down -----------------------------------------------------------------------------------------------------


def recurrent_weights_of(repaired: ir.Model, raw: ir.Model, layers: RecurrentLayers) -> Decision:
    """What an update changed of recurrent operators: "recurrent W NAME", by the name of their first result, likewise R and B."""
    found: dict[str, Any] = {}
    mine, theirs = (_by_output(repaired), _by_output(raw)) if layers.all else ({}, {})
    for layer in layers.all:
        node, plain = mine.get(layer.name), theirs.get(layer.name)
        if node is None or plain is None:
            continue
        before = _arrays(plain)
        for kind, array in _arrays(node).items():
            if not np.array_equal(array, before[kind]):
                found[f"recurrent {kind} {layer.name}"] = array
    return found


def apply_recurrent_weights(model: ir.Model, layers: RecurrentLayers, decision: Decision) -> int:
    """Gives a cut model the weights of a decision; returns how many operators changed."""
    changed = 0
    nodes = _by_output(model) if layers.all else {}
    for layer in layers.all:
        given = {kind: decision.get(f"recurrent {kind} {layer.name}") for kind in _INPUTS}
        arrays = {kind: array for kind, array in given.items() if isinstance(array, np.ndarray)}
        if arrays:
            _store(model, nodes[layer.name], arrays)
            changed += 1
    return changed


def _arrays(node: ir.Node) -> Arrays:
    w, r = constant(node.inputs[W]), constant(node.inputs[R])
    assert w is not None and r is not None
    return {"W": w, "R": r, "B": bias_of(node)}


def _store(model: ir.Model, node: ir.Node, arrays: Mapping[str, Array]) -> None:
    """Replaces constants; a bias that others read too, or that there is none of, becomes one of its own."""
    recurrence = constant(node.inputs[R])
    assert recurrence is not None
    for kind, array in arrays.items():
        index, array = _INPUTS[kind], np.ascontiguousarray(array, recurrence.dtype)
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None and value.is_initializer() and len(value.uses()) == 1 and not value.is_graph_output():
            value.const_value = ir.tensor(array, name=value.name)
        elif value is not None or array.any():
            node.resize_inputs(max(index + 1, len(node.inputs)))
            hint = next(str(made.name) for made in node.outputs if made.name)
            node.replace_input_with(index, add_initializer(model.graph, f"{hint}_bias", array))


def _by_output(model: ir.Model) -> dict[str, ir.Node]:
    return {str(value.name): node for node in model.graph for value in node.outputs if value.name}
