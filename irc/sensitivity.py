"""Which rewritten sites cost the most: a ranking by local error, the worst of it confirmed at the model's outputs.

The local error of a site is what it does to its own output; `Pass.site_errors` gives it for all sites of a pass in one
sweep. It says little of what the model makes of it, so the worst quarter is built alone and compared where it counts:

    errors = {SiteKey(4, "conv1"): 0.0031, SiteKey(4, "head"): 0.0002}
    ranking = rank(errors, model=float_model, steps=steps)
    ranking = confirm(ranking, build=build, runner=runner, model=float_model, source=source)
    worst = above_threshold(ranking, 5.0)
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir

from irc.application import SiteKey
from irc.errors import PassFailed, RunnerError, UsageError
from irc.pass_base import node_id

if TYPE_CHECKING:
    from irc.calibration import DataSource
    from irc.judge.model_outputs import ModelOutputs
    from irc.pass_manager import RunResult
    from irc.pipeline import Step
    from irc.runner import Runner

SHARE = 0.25
"""How much of a ranking is confirmed."""
MOST_CONFIRMED = 32
CONFIRMATION_SAMPLES = 16
LARGEST_ERROR = 1e9
"""Stands for every error that is larger or not finite, so that a ranking can be compared, drawn and written as JSON."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
"""Operators whose errors are comparable: products with weights. What joins or moves values errs much less."""
_EXTRA_BUILDS = 2
_DIGITS = 6

Left = Literal["accuracy", "speed", "selection"]
"""Why a site is left in float."""


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """What one rewritten site costs.

    Attributes:
        key: The rewrite.
        op_type: Operator of the site; "" where the float model has no such node.
        pass_name: The pass that rewrites it.
        local_error: Relative error energy of its own output; 0 is exact, above 1 is worse than an output of zeros.
        output_error: Relative error of the model's outputs with this site alone rewritten, of the worst output; None if
            it was not confirmed, or cannot be rewritten alone.
    """

    key: SiteKey
    op_type: str
    pass_name: str
    local_error: float
    output_error: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "local_error", _bounded(self.local_error))
        if self.output_error is not None:
            object.__setattr__(self, "output_error", _bounded(self.output_error))

    @property
    def site(self) -> str:
        """Stable id of the site."""
        return self.key.site

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields; errors with six digits, so that equal builds write equal text."""
        return {
            "pass": self.pass_name,
            "step": self.key.step,
            "site": self.key.site,
            "occurrence": self.key.occurrence,
            "op_type": self.op_type,
            "local_error": _rounded(self.local_error),
            "output_error": None if self.output_error is None else _rounded(self.output_error),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Sensitivity:
        """What `to_dict` wrote.

        Raises:
            UsageError: If a field is missing or is of another type.
        """
        try:
            output = document["output_error"]
            return cls(
                SiteKey(int(document["step"]), str(document["site"]), int(document["occurrence"])),
                str(document["op_type"]),
                str(document["pass"]),
                float(document["local_error"]),
                None if output is None else float(output),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"a sensitivity is damaged: {type(error).__name__}: {error}") from error


def rank(
    local_errors: Mapping[SiteKey, float], *, model: ir.Model, steps: Sequence[Step], offset: int = 0
) -> list[Sensitivity]:
    """The rewritten sites by their local error, worst first, equal ones in the order of the graph.

    Args:
        local_errors: Relative error energy of each site; NaN and infinity count as the worst.
        model: The float model that the sites are of.
        steps: The pipeline.
        offset: How many steps come before `steps` where the keys count from an earlier one.
    """
    places: dict[str, tuple[int, str]] = {}
    for position, node in enumerate(model.graph.all_nodes()):
        places.setdefault(node_id(node), (position, node.op_type))
    nowhere = (len(places), "")
    found = [
        Sensitivity(key, places.get(key.site, nowhere)[1], steps[key.step - offset].pass_.name, error)
        for key, error in local_errors.items()
    ]

    def order(item: Sensitivity) -> tuple[Any, ...]:
        position, _ = places.get(item.site, nowhere)
        return (-item.local_error, position, item.key.step, item.site, item.key.occurrence)

    return sorted(found, key=order)


def confirmed_count(sites: int, share: float = SHARE) -> int:
    """How many sites of a ranking are confirmed: a share, at least 1 and at most 32; none for a share of 0.

    Raises:
        UsageError: If the share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise UsageError(f"the share of sites to confirm is {share}; it must be from 0 to 1")
    return min(sites, MOST_CONFIRMED, max(1, math.ceil(share * sites - 1e-9))) if share else 0


def approximate_keys(result: RunResult, offset: int = 0) -> list[SiteKey]:
    """The approximate rewrites of a build that stand for themselves, refinements of them not counted.

    Args:
        result: The build.
        offset: How many steps come before its first.
    """
    return [
        dataclasses.replace(key, step=key.step + offset)
        for key in result.keys
        if not (result.steps[key.step].pass_.contract.lossless or result.steps[key.step].pass_.refines)
    ]


def confirm(
    ranking: Sequence[Sensitivity],
    *,
    build: Callable[[Mapping[SiteKey, str]], RunResult],
    runner: Runner,
    model: ir.Model,
    source: DataSource,
    share: float = SHARE,
    keys: Iterable[SiteKey] = (),
    offset: int = 0,
    samples: int = CONFIRMATION_SAMPLES,
    progress: Callable[[float, str], None] = lambda fraction, what: None,
) -> list[Sensitivity]:
    """The ranking with its worst sites measured at the model's outputs, each rewritten alone.

    The error is `irc.judge.output_error`'s: the part of an output's variance that is lost, of the worst floating-point
    output; the share of elements that differ where no output is floating point. One build and one session per site.

    Args:
        ranking: Worst first.
        build: Builds the model without the given rewrites.
        runner: Where models run.
        model: The float model.
        source: The samples; the first 16 are used.
        share: How much of the ranking to confirm, in [0, 1]; at least 1 site and at most 32, none for 0.
        keys: All approximate rewrites there are, if the ranking does not have them all.
        offset: Number of steps before those that `build` runs, where the keys of its results count from there.
        samples: How many samples at most.
        progress: Told the share of sites done.

    Returns:
        The confirmed sites by output error, worst first; then those that cannot be rewritten alone; then the others as they were.

    Raises:
        UsageError: If the share is not in [0, 1].
        RunnerError: If the float model does not run.
    """
    from irc.judge.model_outputs import ModelOutputs

    count = confirmed_count(len(ranking), share)
    if not count:
        return list(ranking)
    known = dict.fromkeys([*keys, *(item.key for item in ranking)])
    measured: list[Sensitivity] = []
    progress(0.0, "running the float model")
    with runner.open(model) as original:
        outputs = ModelOutputs(model, original, source, limit=samples)
        for index, item in enumerate(ranking[:count]):
            progress(index / count, f"confirming site {index + 1} of {count} at the model's outputs")
            result = _alone(item.key, known, build, offset)
            error = None if result is None else _output_error(runner, result.model, outputs)
            measured.append(dataclasses.replace(item, output_error=error))
    confirmed = [item for item in measured if item.output_error is not None]
    confirmed.sort(key=lambda item: -(item.output_error or 0.0))
    return [*confirmed, *(item for item in measured if item.output_error is None), *ranking[count:]]


def _alone(
    key: SiteKey,
    known: dict[SiteKey, None],
    build: Callable[[Mapping[SiteKey, str]], RunResult],
    offset: int,
) -> RunResult | None:
    """The model with one site rewritten; None if it is not, or never alone.

    What is denied to one pass may be offered to the next: such rewrites join `known`, and are denied from then on.
    """
    for _ in range(1 + _EXTRA_BUILDS):
        denied = {other: f"only {key.site!r} is rewritten, to see what it costs" for other in known if other != key}
        try:
            result = build(denied)
        except PassFailed:
            return None
        made = approximate_keys(result, offset)
        if made == [key]:
            return result
        unknown = [other for other in made if other not in known]
        if not unknown:
            return None
        known.update(dict.fromkeys(unknown))
    return None


def _output_error(runner: Runner, model: ir.Model, outputs: ModelOutputs) -> float | None:
    """The error of a model's outputs; the largest there is for one that does not run."""
    try:
        with runner.open(model) as candidate:
            return outputs.error(candidate)
    except RunnerError:
        return LARGEST_ERROR


def thresholds(ranking: Iterable[Sensitivity], factor: float) -> dict[str, float]:
    """By pass: `factor` times the median local error of its weighted operators, of all its sites if it has none.

    Sites without an error do not count; a pass that has no others has no threshold.

    Raises:
        UsageError: If the factor is not above 0.
    """
    if not (factor > 0 and math.isfinite(factor)):
        raise UsageError(f"the factor of the threshold is {factor}; it must be above 0, such as 5")
    groups: dict[str, list[Sensitivity]] = {}
    for item in ranking:
        if item.local_error > 0:
            groups.setdefault(item.pass_name, []).append(item)
    found = {}
    for name in sorted(groups):
        weighted = [item.local_error for item in groups[name] if item.op_type in WEIGHTED]
        found[name] = factor * statistics.median(weighted or [item.local_error for item in groups[name]])
    return found


def above_threshold(ranking: Sequence[Sensitivity], factor: float) -> list[Sensitivity]:
    """The sites whose local error exceeds `factor` times the median of their pass, in the order of the ranking.

    Args:
        ranking: All rewritten sites.
        factor: Above 0; 1 takes half of the weighted operators, 5 those that stand out.

    Raises:
        UsageError: If the factor is not above 0.
    """
    limits = thresholds(ranking, factor)
    return [item for item in ranking if item.local_error > limits.get(item.pass_name, math.inf)]


def left_kind(reason: str) -> Left:
    """Why a site is left in float, as one word, from the reason in the ledger."""
    if "slower" in reason:
        return "speed"
    if reason.startswith(("excluded by", "not selected by", "the limit of")):
        return "selection"
    return "accuracy"


def _bounded(error: float) -> float:
    return min(max(float(error), 0.0), LARGEST_ERROR) if math.isfinite(error) else LARGEST_ERROR


def _rounded(error: float) -> float:
    return float(f"{error:.{_DIGITS}g}")
