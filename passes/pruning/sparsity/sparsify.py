"""Set weights of Conv, Gemm and MatMul to zero, without changing any shape.

    sparsify{sparsity=0.5}                  half of the weights of every layer
    sparsify{pattern=2:4}                   of every 4 consecutive inputs 2 stay: what NVIDIA's sparse tensor cores take
    sparsify{sparsity=0.6,scope=global}     where they matter least, layers compared

What zeros are good for: ONNX Runtime's CPU provider multiplies them like other numbers. Nothing gets faster there, and the file gets no
smaller until it is compressed: with half of the weights zero, gzip takes some 40 % off, with 70 % some 60 %. TensorRT has kernels for 2:4
from Ampere on (`trtexec --sparsity=enable`) and chooses them where it measures a gain, for inputs that are a multiple of 4; engines made
for sparse weights, such as DeepSparse, take unstructured zeros.

Inputs of a pattern are consecutive channels of a MatMul, a Gemm, or one tap of a convolution (C_in / G, axis 1 of its weight), which is
where TensorRT looks; where their number is no multiple of M, the last ones count as if zeros followed.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irc.decisions import Decision
from irc.errors import UsageError
from irc.ir import constant
from irc.options import format_call
from irc.pass_base import Context, Contract, Pass, Remark, Site, Skip
from irc.passes.pruning.decided import figures, has_data
from irc.passes.pruning.sparsity.sparse_layer import Criterion, Goal, Sparse, SparseLayer, input_norms, scores
from irc.passes.pruning.sparsity.sparse_mask import Array, Pattern
from irc.passes.pruning.sparsity.sparse_shares import zeros_by_site
from irc.passes.pruning.sparsity.sparse_sites import SparseSite, sparse_sites
from irc.passes.quantization.layer_sample import Layer, LayerRows, sampled

HELD_ROWS = 1024
LEAST_ROWS = 2048
ROWS_PER_INPUT = 8
MOST_ROWS = 8192
SAMPLES = 256


@dataclasses.dataclass(frozen=True)
class Sparsify(Pass):
    """Sets the weights to zero that matter least to a layer's outputs, and adapts the others to their loss.

    With data, "obs" removes weights step by step by what their loss costs once all others have adapted, `w^2 / [H^-1]_jj` with
    H = sum x x^T over the inputs, and solves for the others by least squares after each step; N:M masks are chosen column by column. A
    bias takes over what the mean of the outputs changes by. It is fitted on half of the samples, and the error that is reported is of
    the other half.

    Attributes:
        sparsity: Share of zeros, 0 to 1; 0.5 unless a pattern is given. Weights that are zero already count.
        pattern: "N:M" instead: N of every M consecutive inputs stay.
        criterion: What a weight is worth: "obs" (needs data), "wanda", its magnitude times the norm of its input, compared
            within an output (needs data), "magnitude", or "auto": "obs" with data, else "magnitude". Only "obs" changes the weights
            that stay.
        scope: "layer": the same share of every layer; "global": of all of them together, by magnitude in units of the root mean
            square of the layer (with data by Wanda's scores, likewise).
        minimum: Weights with fewer elements stay as they are.

    Source: OBS, Hassibi and Stork 1993; SparseGPT, arXiv:2301.00774; Wanda, arXiv:2306.11695.
    """

    name: ClassVar[str] = "sparsify"
    contract: ClassVar[Contract] = Contract.APPROXIMATE

    sparsity: float | None = None
    pattern: str = ""
    criterion: Literal["auto", "obs", "magnitude", "wanda"] = "auto"
    scope: Literal["layer", "global"] = "layer"
    minimum: int = 1024

    def __post_init__(self) -> None:
        if self.pattern:
            Pattern.of(self.pattern)
            if self.sparsity is not None:
                raise ValueError("sparsity and pattern exclude each other; give one of them")
            if self.scope == "global":
                raise ValueError("scope=global goes with sparsity; a pattern is the same everywhere")
        if not 0 < self._share < 1:
            raise ValueError(f"sparsity is {self.sparsity:g}; it must be above 0 and below 1")
        if self.minimum < 1:
            raise ValueError(f"minimum is {self.minimum}; it must be at least 1")

    @property
    def _share(self) -> float:
        return 0.5 if self.sparsity is None else self.sparsity

    @property
    def _pattern(self) -> Pattern | None:
        return Pattern.of(self.pattern) if self.pattern else None

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the layers whose weights are not that sparse yet.

        Raises:
            UsageError: If the criterion needs data and there is none.
        """
        if self.criterion in ("obs", "wanda") and not has_data(ctx) and not ctx.decisions.replaying:
            raise UsageError(f"{self.name}{{criterion={self.criterion}}} decides on samples; give --data")
        found: list[SparseSite] = []
        for each in sparse_sites(model, ctx, minimum=self.minimum, pattern=self._pattern):
            if isinstance(each, Skip):
                yield each
            else:
                found.append(each)
        keys = self._decide(found, model, ctx)
        for site in found:
            key = keys[site.id]
            decision = ctx.decisions.remember(key, dict) if key else {"why": self._why_sparse(site)}
            if decision.get("why"):
                yield Skip(site.node, str(decision["why"]), site.id)
            else:
                yield Site(site.node, (site, decision), site.id)

    def rewrite(self, site: Site, ctx: Context) -> Skip | Remark | None:
        """Stores the sparse weight, and the bias that goes with it."""
        place, decision = site.match
        weight = place.matrices()
        kept, values = _from_decision(decision, weight, self._pattern, place)
        shift = np.asarray(decision["shift"])
        if shift.size:
            place.add_to_bias(shift)
        place.store(kept, values)
        size = weight.size
        text = f"{1 - kept.sum() / size:.1%} of {size} weights are zero"
        if decision["measured"]:
            return Remark(
                f"output error {decision['error']:.3%} on held-out samples, {text}, by {decision['criterion']}"
            )
        return Remark(
            f"{text}, by magnitude, which is {decision['error']:.3%} of their energy; no data to say what it does"
        )

    def finish(self, sites: Sequence[Site], ctx: Context) -> Remark | None:
        """Says what it came to: all weights are stored and, by most runtimes, computed with as before."""
        stored = [_stored(site.match[0]) for site in sites]
        size = sum(array.size for array in stored)
        zeros = size - sum(int(np.count_nonzero(array)) for array in stored)
        return Remark(
            f"{zeros / size:.1%} of {size:,} weights are zero; the file is smaller once it is compressed, and faster only where "
            "kernels skip zeros"
        )

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """The error energy of each site's output on held-out samples; without data, the share of the weight's energy that is gone."""
        return figures(ctx.decisions, self.name, sites, "error")

    # -- decisions ----------------------------------------------------------------------------------------------------

    def _decide(self, found: Sequence[SparseSite], model: ir.Model, ctx: Context) -> Mapping[str, str]:
        """The keys of the decisions by site, all of them made; no key where there is nothing to do."""
        whole = f";{','.join(f'{site.id}:{site.constant.size}' for site in found)}" if self.scope == "global" else ""
        sparse = self._sparse(found)
        keys = {site.id: "" if site.id in sparse else self._key(site, whole) for site in found}
        wanted = {site.id: site for site in found if keys[site.id] and keys[site.id] not in ctx.decisions}
        if not wanted or ctx.decisions.replaying:
            return keys
        goals = self._goals(found, model, ctx)
        if has_data(ctx):
            for site, rows in _rows(model, list(wanted.values()), ctx):
                ctx.decisions.remember(keys[site.id], functools.partial(self._measured, site, rows, goals[site.id]))
        for site in wanted.values():
            ctx.decisions.remember(keys[site.id], functools.partial(self._by_magnitude, site, goals[site.id]))
        return keys

    def _key(self, site: SparseSite, whole: str) -> str:
        """What is decided depends on the weight, which an earlier pass may have made another in another build."""
        state = zlib.crc32(
            np.ascontiguousarray(site.constant).tobytes(), zlib.crc32(f"{format_call(self.name, self)}{whole}".encode())
        )
        return f"{self.name}/{site.id}/{state:08x}"

    def _sparse(self, found: Sequence[SparseSite]) -> frozenset[str]:
        """The sites where there is nothing to do."""
        if self._pattern is not None:
            pattern = self._pattern
            return frozenset(s.id for s in found if pattern.holds(s.order(pattern).ordered(s.matrices()) != 0))
        counts = {site.id: (_zeros(site), site.constant.size) for site in found}
        if self.scope == "global":
            zeros, size = (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 0)
            return frozenset(counts if zeros >= round(self._share * size) else ())
        return frozenset(site for site, (zeros, size) in counts.items() if zeros >= round(self._share * size))

    def _why_sparse(self, site: SparseSite) -> str:
        if self._pattern is not None:
            return f"its weight has the pattern {self.pattern} already"
        share = _zeros(site) / site.constant.size
        return f"{share:.1%} of its weight is zero already" + (", and enough of all" if self.scope == "global" else "")

    def _goals(self, found: Sequence[SparseSite], model: ir.Model, ctx: Context) -> Mapping[str, Goal]:
        """How sparse each layer is to be."""
        if self.scope == "layer":
            return {site.id: Goal(round(self._share * site.constant.size), self._pattern) for site in found}
        norms: dict[str, Array] = {}
        if has_data(ctx) and self.criterion != "magnitude":
            norms = {site.id: input_norms(rows.fit) for site, rows in _rows(model, found, ctx)}
        counts = zeros_by_site({site.id: scores(site.matrices(), norms.get(site.id)) for site in found}, self._share)
        return {site.id: Goal(max(counts[site.id], _zeros(site))) for site in found}

    def _measured(self, site: SparseSite, rows: LayerRows, goal: Goal) -> Decision:
        criterion: Criterion = "obs" if self.criterion == "auto" else self.criterion
        layer = SparseLayer(site.matrices(), rows, site.order(self._pattern), biased=site.is_biased)
        return _decision(layer.sparse(goal, criterion), site, criterion, goal, measured=True)

    def _by_magnitude(self, site: SparseSite, goal: Goal) -> Decision:
        weight = site.matrices()
        kept = _kept_by_magnitude(weight, goal, site)
        energy = float(np.square(weight, dtype=np.float64).sum())
        gone = float(np.square(weight[~kept], dtype=np.float64).sum())
        found = Sparse(weight * kept, gone / energy if energy else 0.0)
        return _decision(found, site, "magnitude", goal, measured=False)


def _zeros(site: SparseSite) -> int:
    array = site.constant
    return int(array.size - np.count_nonzero(array))


def _stored(site: SparseSite) -> Array:
    """The weight once it is rewritten: another value than before, where it was no initializer."""
    array = constant(site.layers[0].node.inputs[1])
    return site.constant if array is None else array


def _rows(model: ir.Model, found: Sequence[SparseSite], ctx: Context) -> Iterator[tuple[SparseSite, LayerRows]]:
    """Rows of the inputs of sites, those of all readers one behind the other."""
    site_of: dict[Layer, SparseSite] = {layer: site for site in found for layer in site.layers}
    pending: dict[str, list[LayerRows]] = {site.id: [] for site in found}
    for layer, rows in sampled(model, list(site_of), ctx, rows=_row_count, held_rows=HELD_ROWS, samples=SAMPLES):
        site = site_of[layer]
        parts = pending[site.id]
        parts.append(rows)
        if len(parts) == len(site.layers):
            del pending[site.id]
            if len(parts) == 1:
                yield site, rows
            else:
                fit, held = (
                    np.concatenate([getattr(part, half) for part in parts], axis=1) for half in ("fit", "held")
                )
                yield site, LayerRows(fit, held)


def _row_count(layer: Layer) -> int:
    return min(max(LEAST_ROWS, ROWS_PER_INPUT * layer.inputs), MOST_ROWS)


def _kept_by_magnitude(weight: Array, goal: Goal, site: SparseSite) -> Array:
    order = site.order(goal.pattern)
    kept: Array = order.restored(goal.kept(order.ordered(scores(weight)))) & (weight != 0)
    return kept


def _decision(found: Sparse, site: SparseSite, criterion: str, goal: Goal, *, measured: bool) -> Decision:
    """A sparse weight as what stays: the mask where it does not follow from magnitudes, and the values where they changed."""
    kept = found.weight != 0
    by_magnitude = not found.adapted and criterion != "wanda"
    shift = np.zeros(0, np.float32)
    if found.shift is not None:
        layer = site.layers[0]
        shift = (layer.of_channels(found.shift) * layer.factor).astype(np.float32)
    return {
        "criterion": "magnitude" if by_magnitude else criterion,
        "error": found.error,
        "measured": measured,
        "zeros": goal.zeros,
        "kept": np.zeros(0, np.uint8) if by_magnitude else np.packbits(kept),
        "values": found.weight[kept] if found.adapted else np.zeros(0, np.float32),
        "shift": shift,
    }


def _from_decision(
    decision: Decision, weight: Array, pattern: Pattern | None, site: SparseSite
) -> tuple[Array, Array | None]:
    """What stays, and its values where they are not the weight's own."""
    bits, stored = np.asarray(decision["kept"]), np.asarray(decision["values"])
    if not bits.size:
        return _kept_by_magnitude(weight, Goal(int(decision["zeros"]), pattern), site), None
    kept = np.unpackbits(bits, count=weight.size).astype(bool).reshape(weight.shape)
    if not stored.size:
        return kept, None
    values = np.zeros(weight.shape, np.float32)
    values[kept] = stored
    return kept, values
