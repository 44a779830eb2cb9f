"""Static int8: weights per channel, activations by calibrated ranges, placed where the target has integer kernels.

y = Conv(x, W, b);  z = Relu(y)
=>  z' = DQ(Q(Relu(Conv(DQ(Q(x)), DQ(W_q), b))))            (a runtime that needs quantized outputs)
y = MatMul(x, W)
=>  y = MatMul(DQ(Q(x)), DQ(W_q))                           (no Q on its output)
y = Gather(T, ids)
=>  y = DQ(Gather(T_q, ids))

Bodies of If, Loop and Scan are no different: their values are calibrated each time a body runs, by minimum and maximum
whatever the calibrator. A body that no sample ran stays in float; quantize-weights stores its weights. A model that is
quantized already is left alone: see `existing`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, cast, get_args

import onnx_ir as ir

from irc.calibration import Observer, StatisticRequest, Statistics, observer_for
from irc.calibration.observers import Calibrator
from irc.errors import UsageError
from irc.ir import constant_tensor
from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.quantization import existing, integer_operators, offers, placement, quantize_dynamic
from irc.passes.quantization.float_reference import Recording
from irc.passes.quantization.integer_operators import DYNAMIC, FLOAT16, WEIGHT_ONLY, Rewrite
from irc.passes.quantization.local_error import errors_in_context
from irc.passes.quantization.workspace import Workspace
from irc.target import QuantizationStyle, Target, is_dequantized

FACT = "opset-13"

_Plan = tuple[ir.Node, str | Skip, list[ir.Value]]
"""A node, what to do there, and the values whose ranges that takes."""


@dataclasses.dataclass(frozen=True)
class Quantize(Pass):
    """Makes Conv, Gemm, MatMul and what lies between them integer; embedding tables int8.

    Source: Jacob et al. 2018, arXiv:1712.05877, for the arithmetic; placement is the target's.

    Attributes:
        calibrator: How a range is taken from the data: "min-max" covers everything, "mean" what an average sample
            covers, "percentile" leaves out the largest magnitudes, "entropy" keeps most information, "mse" has the
            least squared error.
        percentile: For "percentile", share of the elements that the range covers, in percent.
        embeddings: Whether tables of Gather are stored as int8.
        joining: Whether Add, pooling and the like become integer between integer operators.
        products: Whether attention products (MatMul of two activations) become integer. Measured on ONNX Runtime with
            VNNI, both quantizers included: 1.2 times the float speed with 128 tokens, 1.2 to 1.3 with 512, 0.95
            with 49. The probabilities behind Softmax get 256 levels; off unless asked for.
    """

    name: ClassVar[str] = "quantize"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("batch-norm-folded", FACT, "shapes-known")

    calibrator: Calibrator = "mse"
    percentile: float = 99.99
    embeddings: bool = True
    joining: bool = True
    products: bool = False

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile is {self.percentile}; it must be above 50 and at most 100")

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields weighted operators, lookups, and operators whose inputs are all integers by the time they are reached.

        Raises:
            UsageError: If the context has no target or no data.
        """
        if ctx.target is None or ctx.collect is None:
            raise UsageError("quantize: needs a target and data; give --data, or use quantize-weights")
        if (reason := existing.why_left_alone(model)) is not None:
            yield Skip(None, reason)
            return
        target, main = ctx.target, model.graph
        plans, calibrators = self._chosen(self._plans(main, target), ctx)
        wanted = dict.fromkeys(value for _, _, values in plans for value in values)
        observers = {
            name: self._observer(name, target.quantization) for name in {self.calibrator, *calibrators.values()}
        }
        requests = [
            # Of a value in a body only single numbers are observed, each time the body runs.
            StatisticRequest(value.name or "", observers[calibrators.get(value, self.calibrator)])
            if value.graph is main
            else StatisticRequest(value.name or "")
            for value in wanted
        ]
        statistics = ctx.collect(model, requests)
        unknown = _without_range(wanted, statistics, main)
        work = Workspace(main, target.quantization, statistics)
        recording = Recording(model)
        offering = offers.offering(model)
        for node, kind, values in plans:
            reason = next((unknown[value] for value in values if value in unknown), None)
            if isinstance(kind, Skip):
                yield kind
            elif reason is not None:
                yield Skip(node, reason)
            elif (site := self._site(node, kind, work, target, recording)) is not None:
                offering.add(site.id)
                yield site

    @staticmethod
    def _site(node: ir.Node, kind: str, work: Workspace, target: Target, recording: Recording) -> Site | None:
        """A site; None where an operator would only join and does not find its inputs quantized."""
        if kind == "join":
            return (
                Site(node, (integer_operators.join, work)) if integer_operators.can_join(node, work, target) else None
            )
        if kind == "residual":
            return (
                Site(node, (integer_operators.quantize_skip_branch, work))
                if integer_operators.skip_branch(node, work) is not None
                else None
            )
        if kind == "weighted":
            return Site(node, (functools.partial(integer_operators.make_weighted, recording=recording), work))
        return Site(node, (integer_operators.REWRITES[kind], work))

    def variants(self, model: ir.Model, ctx: Context) -> Mapping[str, tuple[str, ...]]:
        """The other calibrators, dynamic ranges, and weights stored as int8 or float16, for every operator with a weight."""
        if ctx.target is None or existing.why_left_alone(model) is not None:
            return {}
        others = tuple(name for name in get_args(Calibrator) if name != self.calibrator)
        # Elsewhere what is stored is converted in every run, or no kernel takes it.
        stored = (WEIGHT_ONLY, FLOAT16) if ctx.target.quantization.weights_fold else ()
        found = {}
        for node, kind, _ in self._plans(model.graph, ctx.target):
            if kind == "weighted":
                dynamic = node.op_type in ("MatMul", "Gemm") and quantize_dynamic.why_not_dynamic(node, ctx) is None
                found[node_id(node)] = (*others, *([DYNAMIC] if dynamic else []), *stored)
        return found

    def _chosen(self, plans: Sequence[_Plan], ctx: Context) -> tuple[list[_Plan], dict[ir.Value, Calibrator]]:
        """The plans with the variants that were chosen; and the calibrator of values where it is another.

        A value that several sites share has the calibrator of the first of them.
        """
        found: list[_Plan] = []
        calibrators: dict[ir.Value, Calibrator] = {}
        for node, kind, values in plans:
            choice = ctx.choices.get(f"{self.name}/{node_id(node)}") if kind == "weighted" else None
            if choice in (DYNAMIC, WEIGHT_ONLY, FLOAT16):
                found.append((node, choice, []))
                continue
            if choice is not None and choice not in get_args(Calibrator):
                raise UsageError(f"{self.name}: {node_id(node)!r} has no variant {choice!r}")
            found.append((node, kind, values))
            for value in values:
                calibrators.setdefault(value, cast(Calibrator, choice) if choice else self.calibrator)
        return found, calibrators

    def _plans(self, main: ir.Graph, target: Target) -> list[_Plan]:
        """Every candidate in graph order, in bodies too: what to do there, and the values whose ranges that takes."""
        style = target.quantization
        plans: list[_Plan] = []
        for node in main.all_nodes():
            if node.domain != "" or not node.inputs:
                continue
            if node.op_type in style.weighted or node.op_type == "ConvTranspose":
                if placement.is_product(node):
                    if self.products:
                        reason = placement.why_not_product(node, main)
                        found = [] if reason else [v for v in node.inputs if v is not None]
                        plans.append((node, Skip(node, reason) if reason else "product", found))
                    continue
                reason = placement.why_not_weighted(node, target, main)
                if reason is None and node.op_type not in style.weighted:
                    reason = "the target has no integer kernel for it"
                if reason is not None:
                    plans.append((node, Skip(node, reason), []))
                    continue
                values = [node.inputs[0]]
                if node.op_type in style.needs_output:
                    values.append(placement.fused_output(node, style))
                plans.append((node, "weighted", [v for v in values if v is not None]))
            elif self.embeddings and style.embeddings and placement.is_table_lookup(node):
                reason = placement.why_not_table(node, main)
                plans.append((node, Skip(node, reason) if reason else "table", []))
            elif self.joining:
                if node.op_type in style.joining and self._may_join(node, target, main):
                    plans.append((node, "join", [placement.fused_output(node, style)]))
                elif style.residual and node.op_type == "Add":
                    plans.append((node, "residual", []))
        return plans

    def _observer(self, calibrator: Calibrator, style: QuantizationStyle) -> Observer:
        lowest, highest = style.quantized_range
        return observer_for(
            calibrator,
            percentile=self.percentile,
            levels=highest - lowest + 1,
            symmetric=style.activation == "int8",
        )

    @staticmethod
    def _may_join(node: ir.Node, target: Target, main: ir.Graph) -> bool:
        if any(v is None or constant_tensor(v) is not None or is_dequantized(v) for v in node.inputs):
            return False
        if target.refuses(node) is not None:
            return False
        return placement.read_as_integers(placement.fused_output(node, target.quantization), target, main)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Quantizes one site; operators it shares values with may or may not have been quantized."""
        node = site.node
        assert node is not None
        rewrite: Rewrite
        rewrite, work = site.match
        reason = rewrite(node, work)
        return None if reason is None else Skip(node, reason)

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """Relative error energy of each site's output with its own inputs and weights quantized, in one sweep."""
        return errors_in_context(before, after, sites, ctx)


def _without_range(values: Iterable[ir.Value], statistics: Statistics, main: ir.Graph) -> dict[ir.Value, str]:
    """Why the range of a value is not known, for those where it is not."""
    reasons = {}
    for value in values:
        name = value.name or ""
        if statistics.get(name) is None:
            unseen = "no sample gave it an element" if value.graph is main else "no sample ran the body it is in"
            reasons[value] = f"{name!r} has no calibrated range: {statistics.missing.get(name, unseen)}"
    return reasons
