"""One teacher, and students of it as they are asked for: cut, updated, fitted, compared, and written down for a plan."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Propagation
from irc.calibration.data import FeedList
from irc.decisions import Decision
from irc.errors import DataError
from irc.judge import Judge
from irc.judge.model_outputs import ModelOutputs
from irc.pass_base import Context
from irc.passes.pruning.repair.batches import HELD_SHARE, Batches
from irc.passes.pruning.repair.effort import Effort
from irc.passes.pruning.repair.input_moments import InputMoments
from irc.passes.pruning.repair.layer_fitting import Fit, fit
from irc.passes.pruning.repair.output_distance import OutputDistance
from irc.passes.pruning.repair.recurrent_update import apply_recurrent_weights, recurrent_weights_of
from irc.passes.pruning.repair.student import Student, cut_student
from irc.passes.pruning.repair.weight_storage import StoredWeight, bias_of, set_common_bias
from irc.passes.pruning.repair.weighted_layers import WeightedLayer, WeightedLayers

Array = np.ndarray[Any, Any]
RepairName = Literal["auto", "none", "update", "least-squares", "statistics"]
assert get_args(RepairName)
MILD = (1e-2, 1e-3)
STRONG = (1e-1, 1.0, 1e-2)
CUT_ALONE = "cut alone"
NEEDED = 1.5
"""Samples times loss from which on no decision lost proves with 95 % that less than twice the loss is: 3 / (2 loss) of them."""
OUTPUT_SAMPLES = 32
FEW = 6
"""Samples held out, below which it is luck what is chosen by them."""
PLENTY = 16
"""Rows for every input from which on least squares hardly fit them too well, so that little damping is right."""


@dataclasses.dataclass(frozen=True, eq=False)
class Repaired:
    """A student, how it was repaired, and what came of it.

    Attributes:
        student: The cut and repaired model.
        how: In words: "least-squares, damping 0.01".
        distance: Of its outputs from the teacher's, on samples held out.
        steps: The same of the cut alone and of other repairs that were tried, by name.
    """

    student: Student
    how: str
    distance: float
    steps: dict[str, float]


class Repairer:
    """Repairs of one model on the data of a context.

    Args:
        propagation: Labels of the teacher.
        ctx: Data and runner.
        layers: Of the teacher, if they are known.
    """

    def __init__(self, propagation: Propagation, ctx: Context, layers: WeightedLayers | None = None) -> None:
        assert ctx.runner is not None
        self._ctx, self._runner = ctx, ctx.runner
        self.teacher: ir.Model = propagation.model
        self._judged: tuple[Judge, ModelOutputs] | None = None
        self.layers = layers or WeightedLayers(propagation)

    @functools.cached_property
    def batches(self) -> Batches:
        """Samples to fit on and samples held out."""
        effort = self.effort
        return Batches.of(self.teacher, self._ctx, samples=effort.samples, together=effort.batch)

    @functools.cached_property
    def effort(self) -> Effort:
        """How many samples that is worth."""
        example = next(iter(self._ctx.data.samples()), None)
        if example is None:
            raise DataError(f"{self._ctx.data.name}: there are no samples to repair the model with")
        return Effort.of(self.teacher, example.feed)

    @functools.cached_property
    def moments(self) -> InputMoments:
        """Of what the layers read."""
        return InputMoments(
            self.teacher, self._runner, self.batches.fit, seed=self._ctx.seed, progress=self._ctx.progress
        )

    @functools.cached_property
    def distance(self) -> OutputDistance:
        """From the teacher's outputs, on samples held out."""
        others = self.batches.fit if self.batches.apart else ()
        return OutputDistance(self.teacher, self._runner, self.batches.held, others)

    def probe(self, alive: Array, *, probes: int) -> float:
        """The distance of a student with updated weights, on a few samples.

        Args:
            alive: A boolean per label.
            probes: How many students are compared in this way.
        """
        batches, seen = 0, 0
        for batch in self.batches.held:
            if seen >= self.effort.probe_samples(probes):
                break
            batches, seen = batches + 1, seen + batch.samples
        return self.distance(cut_student(self.layers, alive, self.moments).model, batches=batches)

    def keeps(self, student: Student, loss: float) -> bool:
        """Whether a student's outputs on samples held out let expect at most a relative loss, without labels; see `irc.judge`.

        Few samples show nothing of what is lost on others. Where there are fewer, in those held out and in those that the result is
        accepted on, than it takes to prove twice the loss, the outputs must be as near to the teacher's as that too.
        """
        if self._judged is None:
            samples = FeedList(list(self.batches.held_out), name="samples held out")
            opened = self._runner.open(self.teacher)
            judge = Judge(self.teacher, opened, samples, seed=self._ctx.seed)
            self._judged = judge, ModelOutputs(self.teacher, opened, samples, limit=OUTPUT_SAMPLES)
        judge, outputs = self._judged
        with self._runner.open(student.model) as candidate:
            if judge.assess(candidate, half="all").loss > loss:
                return False
            proving = max(self.batches.held_samples, len(self._ctx.reserved)) * loss >= NEEDED
            return proving or (outputs.error(candidate) or 0.0) <= loss

    def repaired(self, alive: Array, method: RepairName, *, started: Repaired | None = None) -> Repaired:
        """The best repair of what survives, of those that a method stands for.

        Args:
            alive: A boolean per label.
            method: "auto" tries all, on samples held out; also that nothing is repaired.
            started: What `firsts` gave for the same survivors.
        """
        found = started if started is not None else self.firsts([alive], method)[0]
        left = [how for how in self._fits(method) if how.describe() not in found.steps]
        for how, student in self._fitted([(found.student.alive, how) for how in left]):
            found = self._assessed(found, how.describe(), student)
        return found

    def firsts(self, survivors: Sequence[Array], method: RepairName) -> list[Repaired]:
        """Several sets of survivors, each repaired in one way: enough to compare them by.

        Args:
            survivors: A boolean per label each.
            method: As `repaired` takes it.
        """
        found = [self._assessed({}, CUT_ALONE, cut_student(self.layers, alive, None)) for alive in survivors]
        if method == "none":
            return found
        for index, alive in enumerate(survivors):
            found[index] = self._assessed(found[index], "update", cut_student(self.layers, alive, self.moments))
        fits = self._fits(method)[:1]
        fitted = self._fitted([(alive, how) for alive in survivors for how in fits])
        for index, (how, student) in enumerate(fitted):
            found[index] = self._assessed(found[index], how.describe(), student)
        return found

    def _fitted(self, wanted: Sequence[tuple[Array, Fit]]) -> Iterator[tuple[Fit, Student]]:
        """Fits what survives, as many students in one sweep as memory allows."""
        ctx, together = self._ctx, self.effort.together
        for begin in range(0, len(wanted), together):
            part = [
                (cut_student(self.layers, alive, self.moments), how) for alive, how in wanted[begin : begin + together]
            ]
            fit(self.layers, part, self._runner, self.batches.fit, seed=ctx.seed, progress=ctx.progress)
            yield from ((how, student) for student, how in part)

    def _assessed(self, before: Repaired | dict[str, float], how: str, student: Student) -> Repaired:
        """The better one of what there was and another student."""
        distance = self.distance(student.model)
        if not isinstance(before, Repaired):
            return Repaired(student, how, distance, {how: distance})
        steps = {**before.steps, how: distance}
        better = _order(distance) < _order(before.distance)
        # Integers are the same in many ways: where they differ, and no less so repaired, the repair is as good a guess as any.
        better |= before.how == CUT_ALONE and 0 < distance == before.distance < math.inf
        return Repaired(student, how, distance, steps) if better else dataclasses.replace(before, steps=steps)

    def _fits(self, method: RepairName) -> list[Fit]:
        """The fits that a method stands for, the most promising first.

        How much damping is right depends on how many rows there are for every input of the widest layer that is fitted.
        """
        statistics = Fit("statistics")
        if method in ("none", "update", "statistics"):
            return [statistics] if method == "statistics" else []
        least_squares = [Fit("least-squares", damping) for damping in self._dampings]
        if not self.effort.thorough:
            return least_squares[:2]
        return [*least_squares, *([statistics] if method == "auto" and self._dampings is not MILD else [])]

    @functools.cached_property
    def _dampings(self) -> tuple[float, ...]:
        widest = max(self.layers.all, key=lambda layer: layer.layer.inputs, default=None)
        if widest is None:
            return MILD
        moments = self.moments[widest]
        return MILD if moments is not None and moments.count >= PLENTY * widest.layer.inputs else STRONG

    def describe(self, repaired: Repaired) -> str:
        """What repair came to, in words: of one that was tried at several dampings, the best."""
        held, total = self.batches.held_samples, self.batches.held_samples + self.batches.fit_samples
        where = f"{held} {'sample' if held == 1 else 'samples'} held out of {total}"
        if held < FEW:
            where += f" (few: {round(FEW / HELD_SHARE)} or more tell better)"
        if not self.batches.apart:
            where = "the only sample, none being held out"
        best: dict[str, tuple[str, float]] = {}
        for name, distance in repaired.steps.items():
            kind, _comma, detail = name.partition(", ")
            if name == repaired.how or kind not in best or _order(distance) < _order(best[kind][1]):
                best[kind] = detail, distance
        tried = ", ".join(f"{k} {d:.3g}" + (f" ({detail})" if detail else "") for k, (detail, d) in best.items())
        return f"repair: {self.distance.describe()} on {where}: {tried}; {repaired.how.partition(', ')[0]} taken"

    def written(self, repaired: Repaired) -> Decision:
        """The weights and biases that a repair changed, for `apply_weights`."""
        return weights_of(repaired.student, cut_student(self.layers, repaired.student.alive, None), self.layers)


def weights_of(repaired: Student, raw: Student, layers: WeightedLayers) -> Decision:
    """The weights and biases that a repair changed, by the results of their layers: "weight NAME" and "bias NAME".

    What several layers share is told of the first of them; a bias of others is the name of that layer.
    """
    found: dict[str, Any] = {}
    told: dict[ir.Value | None, str] = {}
    for layer in layers.all:
        mine, plain = repaired.node(layer), raw.node(layer)
        if mine is None or plain is None:
            continue
        name = str(layer.node.outputs[0].name)
        stored, before = StoredWeight.of(mine), StoredWeight.of(plain)
        if stored is not None and stored.origin not in told:
            told[stored.origin] = name
            weight = stored.values
            if before is None or not np.array_equal(weight, before.values):
                found[f"weight {name}"] = weight
        for (holder, index), (other, _index) in zip(repaired.holders([layer]), raw.holders([layer]), strict=True):
            bias, old = bias_of(holder, index), bias_of(other, index)
            if bias is not None and (old is None or not np.array_equal(bias, old)):
                first = told.setdefault(holder.inputs[index], name)
                found[f"bias {name}"] = bias if first == name else first
    return {**found, **recurrent_weights_of(repaired.model, raw.model, layers.recurrent)}


def apply_weights(model: ir.Model, layers: WeightedLayers, decision: Decision) -> int:
    """Gives a cut model the weights of a decision; returns how many layers changed."""
    student = Student(model, np.ones(layers.propagation.constraints.count, bool))
    sharing: dict[str, list[WeightedLayer]] = {}
    for layer in layers.all:
        name = str(layer.node.outputs[0].name)
        bias = decision.get(f"bias {name}")
        sharing.setdefault(bias if isinstance(bias, str) else name, []).append(layer)
    changed = 0
    for layer in layers.all:
        name = str(layer.node.outputs[0].name)
        weight, bias = decision.get(f"weight {name}"), decision.get(f"bias {name}")
        if isinstance(weight, np.ndarray):
            stored = StoredWeight.of(student.named(name))
            assert stored is not None
            stored.store(model, weight)
        if isinstance(bias, np.ndarray) and layer.adds_bias is not None:
            holders = student.holders(sharing[name])
            set_common_bias(model, holders, bias, hint=name, dtype=layer.weight.dtype)
        changed += any(f"{kind} {name}" in decision for kind in ("weight", "bias"))
    return changed + apply_recurrent_weights(model, layers.recurrent, decision)


def _order(distance: float) -> float:
    return distance if math.isfinite(distance) else math.inf
