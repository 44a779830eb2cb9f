"""Transpose a tensor as it is instead of joining dimensions, transposing, and splitting them again.

    Reshape(Transpose<perm=[0, 2, 1]>(Reshape(x: [n, h, s, d], [n * h, s, d])), [n, h, d, s])
    =>   Transpose<perm=[0, 1, 3, 2]>(x)

Exporters write attention like this: what stays of it is one Transpose, which merges with those around it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.ir import only_consumer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.dimensions import Dimensions, Dims, is_number
from irc.passes.simplification.pass_through import pass_through
from irc.passes.simplification.reshaped_dimensions import reshaped, target_of
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.unused import remove_unused


@dataclasses.dataclass(frozen=True)
class MergeReshapedTransposes(Pass):
    """Replaces Reshape, Transpose, Reshape by one Transpose where the second undoes what the first has joined."""

    name: ClassVar[str] = "merge-reshaped-transposes"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the last of the three, and those where a value in between has other users."""
        opset, dims = model.graph.opset_imports.get("", 0), Dimensions(model)
        for node in model.graph.all_nodes():
            moved = _before(node, "Reshape", "Transpose")
            joined = _before(moved, "Transpose", "Reshape")
            if moved is None or joined is None or joined.inputs[0] is None:
                continue
            perm = _permutation(joined, moved, node, dims, opset)
            if perm is None:
                continue
            if not (only_consumer(moved.outputs[0], node) and only_consumer(joined.outputs[0], moved)):
                yield Skip(node, "what it is computed from has other users")
            else:
                yield Site(node, match=(joined.inputs[0], perm))

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Transposes the input of the first."""
        node = site.node
        assert node is not None
        source, perm = site.match
        released = list(node.inputs)
        if perm == list(range(len(perm))):
            pass_through(node, source)
        else:
            replace_node(node, "Transpose", [source], {"perm": perm})
        remove_unused(released)
        return None


def _before(node: ir.Node | None, op_type: str, producer: str) -> ir.Node | None:
    """The node that makes the first input, if both are of the given types."""
    if node is None or node.op_type != op_type or node.domain not in STANDARD_DOMAINS or node.inputs[0] is None:
        return None
    found = node.inputs[0].producer()
    return found if found is not None and found.op_type == producer and found.domain in STANDARD_DOMAINS else None


def _permutation(joined: ir.Node, moved: ir.Node, split: ir.Node, dims: Dimensions, opset: int) -> list[int] | None:
    """The axes of the input in the order of the output, or None if the three do anything else than moving them."""
    before = dims.of(joined.inputs[0])
    middle = reshaped(joined, before, dims, opset)
    if before is None or middle is None:
        return None
    groups = _groups(before, middle)
    perm = moved.attributes.get_ints("perm", None) or list(range(len(middle)))[::-1]
    if groups is None or len(perm) != len(middle):
        return None
    after = reshaped(split, tuple(middle[axis] for axis in perm), dims, opset)
    axes = [axis for index in perm for axis in groups[index]]
    if after is None or len(after) != len(axes):
        return None
    different = [i for i, axis in enumerate(axes) if after[i] != before[axis]]
    if not different:
        return axes
    # The number of elements stays, so that -1 follows from the others.
    target = target_of(split, dims, opset)
    inferred = target is not None and len(different) == 1 and target[different[0]] == -1
    return axes if inferred and not is_number(after[different[0]]) else None


def _groups(before: Dims, after: Dims) -> list[list[int]] | None:
    """Which axes each dimension after is made of, if all but one are made of one; in order.

    One that is made of none is 1, or the tensor is empty.
    """
    left = 0
    while left < min(len(before), len(after)) and before[left] == after[left]:
        left += 1
    right = 0
    while right < min(len(before), len(after)) - left and before[-1 - right] == after[-1 - right]:
        right += 1
    joined = list(range(left, len(before) - right))
    if len(after) - left - right != 1:
        return None
    behind = [[axis] for axis in range(len(before) - right, len(before))]
    return [*([axis] for axis in range(left)), joined, *behind]
