"""Let a convolution or pool do the padding before it.

    Conv<pads=[1, 1, 1, 1]>(Pad(x, [0, 0, 1, 1, 0, 0, 1, 1]), w)   =>   Conv<pads=[2, 2, 2, 2]>(x, w)

The same for AveragePool, if it counts the padding (or has none of its own and then shall), and for MaxPool, if no element
can be smaller than the padding: padding of -inf, or of 0 after a Relu.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import constant, only_consumer
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.lower_bound import lower_bound
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.unused import remove_unused
from irc.passes.simplification.window import Window, window_of

_ABSORBING = ("AveragePool", "Conv", "MaxPool")
_COUNTS_PADDING_FROM = 7
"""The first opset whose AveragePool can count its padding."""


@dataclasses.dataclass(frozen=True)
class _Padding:
    """What a Pad adds.

    Attributes:
        begin: Elements before each spatial axis.
        end: Elements after each spatial axis.
        value: What they are.
    """

    begin: tuple[int, ...]
    end: tuple[int, ...]
    value: float


@dataclasses.dataclass(frozen=True)
class FoldPad(Pass):
    """Saves the copy that a Pad makes of its input.

    Only constant padding of spatial axes is folded, of zeros, or for MaxPool of a value that no maximum can be. A Pad that
    crops, or that others read, stays. Pools keep padding below the size of their kernel, as runtimes require.
    """

    name: ClassVar[str] = "fold-pad"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Pad before a convolution or pool, or why it must stay."""
        opset = model.graph.opset_imports.get("", 0)
        for node in model.graph.all_nodes():
            if node.op_type != "Pad" or node.domain not in STANDARD_DOMAINS:
                continue
            user = _absorbing_user(node)
            if user is None:
                continue
            folded = _folded(node, user, opset)
            yield Skip(node, folded) if isinstance(folded, str) else Site(node, match=(user, folded))

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Gives the user the padding and the input of the Pad, and removes the Pad."""
        pad = site.node
        assert pad is not None and pad.graph is not None
        user, window = site.match
        user.replace_input_with(0, pad.inputs[0])
        user.attributes.pop("auto_pad", None)
        user.attributes["pads"] = ir.AttrInt64s("pads", [*window.begin, *window.end])
        if user.op_type == "AveragePool":
            user.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        settings = pad.inputs[1:]
        pad.graph.remove(pad, safe=True)
        remove_unused(settings)
        return None


def _absorbing_user(pad: ir.Node) -> ir.Node | None:
    """The first convolution or pool that pads what it reads from this Pad."""
    for use in pad.outputs[0].uses():
        if use.idx == 0 and use.node.op_type in _ABSORBING and use.node.domain in STANDARD_DOMAINS:
            return use.node
    return None


def _folded(pad: ir.Node, user: ir.Node, opset: int) -> Window | str:
    """The window of the user with the padding in it, or why the Pad must stay."""
    if not only_consumer(pad.outputs[0], user):
        return "its output has other users"
    if pad.graph is not user.graph:
        return f"it is in another graph than the {user.op_type} after it"
    window = window_of(user)
    if isinstance(window, str):
        return f"of the {user.op_type} after it: {window}"
    padding = _padding(pad, len(window.begin), opset)
    if isinstance(padding, str):
        return padding
    folded = dataclasses.replace(
        window,
        begin=tuple(a + b for a, b in zip(padding.begin, window.begin, strict=True)),
        end=tuple(a + b for a, b in zip(padding.end, window.end, strict=True)),
    )
    if user.op_type != "MaxPool" and (padding.value != 0 or math.copysign(1.0, padding.value) < 0):
        return f"it pads with {padding.value:g}, not 0"
    reason = None if user.op_type == "Conv" else _why_not_pool(pad, padding, user, window, folded, opset)
    return folded if reason is None else reason


def _why_not_pool(
    pad: ir.Node, padding: _Padding, pool: ir.Node, own: Window, folded: Window, opset: int
) -> str | None:
    """Why a pool would give something else with the padding in it, or None."""
    if pool.attributes.get_int("ceil_mode", 0):
        return f"the {pool.op_type} after it rounds its size up, which depends on whose the padding is"
    if any(d != 1 for d in folded.dilations):
        return f"the windows of the {pool.op_type} after it have gaps"
    if folded.kernel is None:
        return f"the {pool.op_type} after it has no kernel"
    if any(max(b, e) >= k for b, e, k in zip(folded.begin, folded.end, folded.kernel, strict=True)):
        return f"the padding would be as large as the kernel of the {pool.op_type} after it"
    if pool.op_type == "AveragePool":
        if opset < _COUNTS_PADDING_FROM:
            return f"AveragePool of opset {opset} cannot count padding"
        if own.is_padded and not pool.attributes.get_int("count_include_pad", 0):
            return "the AveragePool after it has padding of its own that it does not count"
        return None
    if len(pool.outputs) > 1 and (pool.outputs[1].uses() or pool.outputs[1].is_graph_output()):
        return "the MaxPool after it returns positions in the padded input"
    if not lower_bound(pad.inputs[0], opset) >= padding.value:
        return f"it pads with {padding.value:g}, which may be the maximum of the MaxPool after it"
    return None


def _padding(pad: ir.Node, axes: int, opset: int) -> _Padding | str:
    """What the Pad adds to the spatial axes of an input of `axes` + 2 axes, or why it cannot be folded."""
    if pad.attributes.get_string("mode", "constant") != "constant":
        return f"it pads with values of its input ({pad.attributes.get_string('mode', '')})"
    if opset < 2:
        return f"Pad of opset {opset} is not folded; convert the model to opset 2 or later"
    if opset < 11:
        amounts = np.asarray(pad.attributes.get_ints("pads", []), np.int64)
        value, chosen = pad.attributes.get_float("value", 0.0), None
    else:
        inputs = [*pad.inputs, None, None, None]
        arrays = [None if v is None else constant(v) for v in inputs[:4]]
        if any(v is not None and a is None for v, a in zip(inputs[1:4], arrays[1:4], strict=True)) or arrays[1] is None:
            return "its pads, value or axes are not constant"
        amounts, chosen = arrays[1], arrays[3]
        value = 0.0 if arrays[2] is None else float(arrays[2].reshape(-1)[0])
    rank = axes + 2
    positions = list(range(rank)) if chosen is None else [int(a) for a in chosen.reshape(-1)]
    if len(amounts) != 2 * len(positions):
        return "its pads do not fit the rank of its input"
    if (amounts < 0).any():
        return "it crops: some of its pads are negative"
    begin, end = [0] * rank, [0] * rank
    for i, position in enumerate(positions):
        begin[position] += int(amounts[i])
        end[position] += int(amounts[i + len(positions)])
    if any((*begin[:2], *end[:2])):
        return "it pads the batch or the channels"
    return _Padding(tuple(begin[2:]), tuple(end[2:]), value)
