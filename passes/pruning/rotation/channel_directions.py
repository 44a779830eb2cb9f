"""Which way channels turn when their basis changes: x' = R x for activations and what makes them, w' = R^-T w for what reads them.

What is added turns alike; where channels are summed over, one operand turns each way, so that the sum stays as it is. Nothing says
beforehand which weight reads and which makes: queries turn one way and keys the other, and a packed product makes both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Bundle, Family, Labelled, Propagation
from irc.analysis.channels.bundles import Labels
from irc.analysis.channels.components import components
from irc.ir import constant
from irc.passes.pruning.rotation.linear_operators import (
    MOVES,
    PICKS,
    SIZES,
    Letters,
    NotLinear,
    Terms,
    kind_of,
    terms_of,
    where,
)


@dataclasses.dataclass(frozen=True)
class Side:
    """One of two operands that meet in a sum over channels.

    Attributes:
        node: The product.
        index: Which of its inputs.
        bundle: Labels of the channels on it.
    """

    node: ir.Node
    index: int
    bundle: Bundle

    @property
    def value(self) -> ir.Value:
        """The operand."""
        value = self.node.inputs[self.index]
        assert value is not None
        return value


@dataclasses.dataclass(frozen=True)
class _Operand:
    """A bundle of a node's operand or result, with the letters of the whole tensor."""

    index: int
    letters: Letters
    bundle: Bundle

    def letters_of_bundle(self) -> list[Any]:
        return [self.letters[axis] for axis in self.bundle.axes]


class Directions:
    """What nodes demand of the directions of a family's labels.

    Args:
        propagation: Labels of all values.
        family: The family.
        place_of: For every label the place of its channel in its cell, -1 for labels of others.
        cell_of: For every label its cell.

    Attributes:
        meetings: Where channels are summed over.
        bundles: All bundles with channels, and the values they are on.
    """

    def __init__(self, propagation: Propagation, family: Family, place_of: Labels, cell_of: Labels) -> None:
        self._propagation, self._family = propagation, family
        self._place_of, self._cell_of = place_of, cell_of
        self._alike: list[tuple[Labels, Labels]] = []
        self._opposite: list[tuple[Labels, Labels]] = []
        self._first: Labels | None = None
        self.meetings: list[tuple[Side, Side]] = []
        self.bundles: dict[int, tuple[ir.Value, Bundle]] = {}

    def add(self, node: ir.Node) -> None:
        """Takes a node that reads or makes channels into account.

        Raises:
            NotLinear: If it is not linear in the channel.
        """
        made = [(value, b) for value in node.outputs for b in self._mine(self._propagation.known(value))]
        read = [(value, b) for i, value in self._inputs(node) for b in self._mine(self._read(node, i))]
        for value, bundle in (*read, *made):
            self.bundles.setdefault(id(bundle.labels), (value, bundle))
        if kind_of(node) in SIZES:
            return
        if kind_of(node) in MOVES:
            self._move(node, [b for _, b in read], [b for _, b in made])
        else:
            terms = terms_of(node, self._propagation)
            if terms is None:
                raise NotLinear(node, f"{where(node)} is not linear in the channel")
            self._meet(node, terms)
        if self._first is None and made:
            self._first = self._labels(made[0][1])

    def found(self) -> Labels:
        """+1 for labels that turn by R, -1 by R^-T, 0 for others; what the first node makes turns by R.

        Raises:
            NotLinear: If a label would have to turn both ways.
        """
        count = len(self._place_of)
        pairs = [(a, b) for a, b in self._alike] + [(a + count, b + count) for a, b in self._alike]
        pairs += [(a, b + count) for a, b in self._opposite] + [(a + count, b) for a, b in self._opposite]
        root = components(2 * count, pairs)
        one, other = root[:count], root[count:]
        mine = self._place_of >= 0
        if (one[mine] == other[mine]).any():
            raise NotLinear(
                self._family.node, "its channels are multiplied with each other, or a weight makes and reads them"
            )
        positive = one < other
        if self._first is not None:
            wrong = np.unique(np.minimum(one, other)[self._first[~positive[self._first]]])
            positive = positive ^ np.isin(np.minimum(one, other), wrong)
        result: Labels = np.where(mine, np.where(positive, 1, -1), 0)
        return result

    def parts(self, together: Sequence[tuple[Labels, Labels]]) -> Labels:
        """The part of every label: labels that meet are of one, and those of one line of channels."""
        return components(len(self._place_of), [*self._alike, *self._opposite, *together])

    # -- operators ----------------------------------------------------------------------------------------------------

    def _move(self, node: ir.Node, read: list[Bundle], made: list[Bundle]) -> None:
        """What keeps every channel whole: its results have labels of what it reads."""
        kind = kind_of(node)
        if kind == "AveragePool" and any(bundle.axes != (1,) for bundle in made):
            raise NotLinear(node, f"{where(node)} averages over channels")
        if kind == "Pad" and not self._pads_with_nothing(node):
            raise NotLinear(node, f"{where(node)} pads with something else than zeros")
        if kind != "Concat" and any(self._mine(self._read(node, i)) for i, _ in self._inputs(node) if i):
            raise NotLinear(node, f"{where(node)} reads channels as parameters")
        before, after = (
            np.unique(np.concatenate([np.zeros(0, np.int64), *(self._labels(b) for b in bundles)]))
            for bundles in (read, made)
        )
        if not (np.isin(after, before).all() if kind in PICKS else np.array_equal(before, after)):
            raise NotLinear(node, f"{where(node)} takes channels apart")

    def _pads_with_nothing(self, node: ir.Node) -> bool:
        if node.attributes.get_string("mode", "constant") != "constant" or "value" in node.attributes:
            return False
        if len(node.inputs) < 3 or node.inputs[2] is None:
            return True
        value = constant(node.inputs[2])
        return value is not None and not value.any()

    def _meet(self, node: ir.Node, terms: Terms) -> None:
        operands = [
            _Operand(index, letters, bundle)
            for index, letters in terms.operands
            for bundle in self._mine(self._read(node, index))
        ]
        results = [_Operand(-1, terms.result, b) for b in self._mine(self._propagation.known(node.outputs[0]))]
        if kind_of(node) == "Div" and any(operand.index for operand in operands):
            raise NotLinear(node, f"{where(node)} divides by channels")
        for operand in (*operands, *results):
            self._require_heads_apart(node, terms, operand)
        summed = []
        for operand in operands:
            along = self._along(operand)
            if along and not set(along) & set(terms.result):
                summed.append(operand)
            else:
                self._keep(node, terms, operand, along, results)
        kept = [operand for operand in operands if operand not in summed]
        absent = [i for i in sorted(terms.added) if i not in {operand.index for operand in kept}]
        if results and not kept:
            raise NotLinear(node, f"{where(node)} makes channels of what it sums over")
        if results and not self._are_zero(node, absent):
            raise NotLinear(node, f"{where(node)} adds to channels what is none")
        if len(summed) not in (0, 2) or len({operand.index for operand in summed}) < len(summed):
            raise NotLinear(node, f"{where(node)} sums up channels")
        if summed:
            one, other = summed
            self._relate(node, self._opposite, one, other)
            self.meetings.append((Side(node, one.index, one.bundle), Side(node, other.index, other.bundle)))

    def _require_heads_apart(self, node: ir.Node, terms: Terms, operand: _Operand) -> None:
        """Where heads lie side by side on an axis, a softmax stands between them."""
        if terms.heads == 1:
            return
        head = np.arange(operand.bundle.labels.size) * terms.heads // operand.bundle.labels.size
        labels = operand.bundle.labels.ravel()
        mine = self._place_of[labels] >= 0
        pairs = np.unique(np.stack([self._cell_of[labels[mine]], head[mine]]), axis=1)
        if operand.bundle.labels.ndim > 1 or len(np.unique(pairs[0])) < pairs.shape[1]:
            raise NotLinear(node, f"{where(node)} has a softmax between heads")

    def _keep(self, node: ir.Node, terms: Terms, operand: _Operand, along: list[Any], results: list[_Operand]) -> None:
        """An operand whose channels the result has too."""
        if not along or not set(along) <= set(terms.result):
            raise NotLinear(node, f"{where(node)} sums over a part of the channels")
        if operand.index not in terms.added:
            for index, letters in terms.operands:
                dims = self._read(node, index).dims
                wide = any(size > 1 for size, letter in zip(dims, letters, strict=True) if letter in along)
                if wide and index != operand.index and index not in terms.added:
                    varies = self._propagation.varies(node.inputs[index])  # type: ignore[arg-type]
                    what = "channels with each other" if varies else "every channel by a number of its own"
                    raise NotLinear(node, f"{where(node)} multiplies {what}")
        partners = [result for result in results if set(along) <= set(result.letters_of_bundle())]
        if len(partners) != 1:
            raise NotLinear(node, f"{where(node)} does not keep channels as they are")
        self._relate(node, self._alike, operand, partners[0])

    def _are_zero(self, node: ir.Node, indices: list[int]) -> bool:
        arrays = [constant(node.inputs[index]) for index in indices]
        return all(array is not None and not array.any() for array in arrays)

    def _relate(self, node: ir.Node, to: list[tuple[Labels, Labels]], one: _Operand, other: _Operand) -> None:
        letters = list(dict.fromkeys([*one.letters_of_bundle(), *other.letters_of_bundle()]))
        left, right = (labels.ravel() for labels in np.broadcast_arrays(_spread(one, letters), _spread(other, letters)))
        mine = self._place_of[left] >= 0
        unlike = (self._place_of[left] != self._place_of[right]) | (
            mine & (self._cell_of[left] != self._cell_of[right])
        )
        if unlike.any():
            raise NotLinear(node, f"{where(node)} lets unlike channels meet")
        to.append((left[mine], right[mine]))

    def _along(self, operand: _Operand) -> list[Any]:
        """Letters along which the channel changes within a cell."""
        found = []
        for position, letter in enumerate(operand.letters_of_bundle()):
            lines = np.moveaxis(operand.bundle.labels, position, 0)
            lines = lines.reshape(len(lines), -1)
            place, column = self._place_of[lines], np.broadcast_to(np.arange(lines.shape[1]), lines.shape)
            mine = place >= 0
            key = (column * self._family.cell_count + self._cell_of[lines])[mine]
            least = np.full(lines.shape[1] * self._family.cell_count, np.iinfo(np.int64).max)
            most = np.full(least.shape, -1)
            np.minimum.at(least, key, place[mine])
            np.maximum.at(most, key, place[mine])
            if (most > least).any():
                found.append(letter)
        return found

    # -- labels -------------------------------------------------------------------------------------------------------

    def _inputs(self, node: ir.Node) -> Iterator[tuple[int, ir.Value]]:
        for index, value in enumerate(node.inputs):
            if value is not None:
                yield index, value

    def _read(self, node: ir.Node, index: int) -> Labelled:
        return self._propagation.recorded(node, index)

    def _mine(self, tensor: Labelled) -> list[Bundle]:
        return [bundle for bundle in tensor.bundles if (self._place_of[bundle.labels] >= 0).any()]

    def _labels(self, bundle: Bundle) -> Labels:
        flat = bundle.labels.ravel()
        found: Labels = flat[self._place_of[flat] >= 0]
        return found


def _spread(operand: _Operand, onto: list[Any]) -> Labels:
    """The labels of a bundle with one dimension per letter."""
    own = operand.letters_of_bundle()
    order = sorted(range(len(own)), key=lambda i: onto.index(own[i]))
    shape = [1] * len(onto)
    for i in order:
        shape[onto.index(own[i])] = operand.bundle.labels.shape[i]
    spread: Labels = np.transpose(operand.bundle.labels, order).reshape(shape)
    return spread
