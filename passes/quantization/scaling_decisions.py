"""How far channels are divided at the places where they can be: decided from data, remembered, carried out.

Everything is decided from the model as the pass receives it, before the first rewrite, so that no decision depends on another.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from irc.calibration.statistics import Extremes, Observable
from irc.decisions import Decision
from irc.ir import constant
from irc.pass_base import Context, Remark, Site, Skip
from irc.passes.fusion.composite import target_of
from irc.passes.pruning import history
from irc.passes.quantization.channel_scaling import input_axis
from irc.passes.quantization.layer_sample import Layer, sampled
from irc.passes.quantization.scale_search import (
    STRENGTHS,
    STRENGTHS_OF_PRODUCTS,
    Clipping,
    Found,
    Reader,
    search,
)
from irc.passes.quantization.scaling_sites import ScalingSite
from irc.target import QuantizationStyle

_KEY = "irc.channels-scaled"


@dataclasses.dataclass(frozen=True)
class Least:
    """What has to be gained on held-out samples.

    Attributes:
        share: Of the output error, where the factors disappear.
        share_by_mul: The same where a Mul is inserted.
        error_by_mul: Relative output error that has to go away where a Mul is inserted.
    """

    share: float
    share_by_mul: float = 1.0
    error_by_mul: float = 0.0

    def reached(self, before: float, after: float, *, by_mul: bool) -> bool:
        """Whether the error falls far enough."""
        gain = before - after
        if by_mul and gain < self.error_by_mul:
            return False
        return gain > 0 and gain >= (self.share_by_mul if by_mul else self.share) * before


def offered(
    pass_name: str,
    model: ir.Model,
    found: Sequence[ScalingSite | Skip],
    ctx: Context,
    *,
    clipping: Clipping,
    rows: int,
    least: Least,
) -> Iterator[Site | Skip]:
    """What a pass yields for the places it looks at: sites where enough is gained, skips with the figures elsewhere.

    Args:
        pass_name: The pass.
        model: As the pass received it.
        found: The places.
        ctx: For data and decisions.
        clipping: How ranges will be chosen.
        rows: How many rows of each activation to search on.
        least: What has to be gained.
    """
    if ctx.observe is None and not ctx.decisions.replaying:
        yield Skip(None, "it decides by data, and there are none; give --data")
        return
    done = model.meta.get(_KEY, frozenset())
    open_ = [one for one in found if isinstance(one, ScalingSite) and (pass_name, one.id) not in done]
    decisions = _decided(pass_name, model, open_, ctx, clipping=clipping, rows=rows)
    for one in found:
        if isinstance(one, Skip):
            yield one
        elif one in open_ and one.id not in decisions:
            yield Skip(one.node, "the plan leaves it as it is")
        elif one.id in decisions:
            decision = decisions[one.id]
            before, after = _errors(decision)
            if decision["strength"] and least.reached(before, after, by_mul=one.scaling is None):
                yield Site(one.node, (model, one, decision))
            elif decision["strength"] and least.reached(before, after, by_mul=False):
                yield Skip(
                    one.node, f"too little for a Mul, and it takes one, since {one.reason}: {_error_text(decision)}"
                )
            else:
                yield Skip(one.node, f"no strength helps enough: {_error_text(decision)}")


def rewritten(pass_name: str, site: Site) -> Remark:
    """Divides at a site that was offered, and says what it came to."""
    model, one, decision = site.match
    one.divide(np.asarray(decision["scales"]))
    # A new set each time: copies of the model share the old one.
    model.meta[_KEY] = model.meta.get(_KEY, frozenset()) | {(pass_name, one.id)}
    how = f"by a Mul, since {one.reason}" if one.scaling is None else f"in {one.scaling.constants} constants"
    return Remark(f"strength {decision['strength']:g} {how}: {_error_text(decision)}")


def _error_text(decision: Decision) -> str:
    """The output errors of a decision, in words."""
    before, after = _errors(decision)
    return f"output error {100 * before:.2g} % -> {100 * after:.2g} % on held-out samples"


def _errors(decision: Decision) -> tuple[float, float]:
    before, after = decision["before"], decision["after"]
    assert isinstance(before, float) and isinstance(after, float)
    return before, after


def _decided(
    pass_name: str, model: ir.Model, sites: Sequence[ScalingSite], ctx: Context, *, clipping: Clipping, rows: int
) -> dict[str, Decision]:
    """The decisions for sites, by site id: those remembered, and those that the data give now. A plan has those carried out only."""
    keys = {site.id: _decision_key(pass_name, model, site) for site in sites}
    missing = [site for site in sites if keys[site.id] not in ctx.decisions]
    found = _searched(model, missing, ctx, clipping, rows) if missing and not ctx.decisions.replaying else {}
    return {
        site.id: ctx.decisions.remember(keys[site.id], functools.partial(_decision, found, site.id))
        for site in sites
        if site.id in found or keys[site.id] in ctx.decisions
    }


def _decision_key(pass_name: str, model: ir.Model, site: ScalingSite) -> str:
    """By what a decision is remembered: of pruned models, which differ with the channels that are cut, by the weights too."""
    if history.KEY not in model.metadata_props:
        return f"{pass_name}/{site.id}"
    digest = 0
    for node in site.readers:
        for value in node.inputs:
            if value is not None and (array := constant(value)) is not None:
                digest = zlib.crc32(f"{array.shape}".encode(), digest)
                digest = zlib.crc32(np.ascontiguousarray(array).tobytes(), digest)
    return f"{pass_name}/{site.id}#{digest:08x}"


def _decision(found: dict[str, Found], site: str) -> Decision:
    return found[site].decision()


def _searched(
    model: ir.Model, sites: Sequence[ScalingSite], ctx: Context, clipping: Clipping, rows: int
) -> dict[str, Found]:
    assert ctx.observe is not None
    style = target_of(ctx).quantization
    layers = {node: layer for site in sites for node in site.readers if (layer := Layer.of(node)) is not None}
    wanted = {node: Observable(layer.source, "min-max", axis=input_axis(node)) for node, layer in layers.items()}
    observations = ctx.observe(model, list(dict.fromkeys(wanted.values())))
    left = {site.id: {node for node in site.readers if node in layers} for site in sites}
    by_node = {node: site for site in sites for node in site.readers}
    readers: dict[str, list[Reader]] = {site.id: [] for site in sites}
    found: dict[str, Found] = {}
    order = [layers[node] for site in sites for node in site.readers if node in layers]
    for layer, part in sampled(model, order, ctx, rows=rows):
        site = by_node[layer.node]
        extremes, weight = observations.found.get(wanted[layer.node]), constant(layer.node.inputs[1])
        if isinstance(extremes, Extremes) and not extremes.empty and weight is not None:
            channels = site.readers[layer.node].channels
            low, high = (np.where(extremes.count > 0, side, 0.0) for side in (extremes.low, extremes.high))
            readers[site.id].append(Reader(layer, weight, channels, low, high, part.fit, part.held))
        left[site.id].discard(layer.node)
        if not left[site.id]:
            found[site.id] = _found(readers.pop(site.id), site, style, clipping)
            ctx.progress(len(found) / len(sites), f"evened out {len(found)} of {len(sites)} activations")
    for site in sites:
        if site.id not in found:
            found[site.id] = _found(readers[site.id], site, style, clipping)
    return found


def _found(readers: list[Reader], site: ScalingSite, style: QuantizationStyle, clipping: Clipping) -> Found:
    if len(readers) < len(site.readers):
        return Found(0.0, np.ones(site.count, np.float32), 0.0, 0.0)
    strengths = STRENGTHS if site.convolutional else STRENGTHS_OF_PRODUCTS
    return search(readers, site.count, style, clipping=clipping, strengths=strengths)
