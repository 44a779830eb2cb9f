"""The sensitivity of a build's sites: ranked where it is asked for, and a threshold that leaves some of them in float."""

from __future__ import annotations

from irc.candidates import Candidates
from irc.errors import UsageError
from irc.sensitivity import Sensitivity, above_threshold, confirm, rank, thresholds


def rank_sites(candidates: Candidates, *, factor: float | None, confirmed: bool) -> list[Sensitivity]:
    """Ranks the sites by what they cost, and leaves those in float that a threshold rules out.

    Args:
        candidates: The approximate part of a build; its sites above the threshold are left from now on.
        factor: How many times the median of its pass the error of a site may be; None for no threshold.
        confirmed: Whether the worst are measured at the model's outputs.

    Returns:
        The ranking, worst first; empty where nothing asks for it.

    Raises:
        UsageError: If there are no samples to measure on.
    """
    context, offset = candidates.context, candidates.offset
    if not candidates.keys or (factor is None and not confirmed):
        return []
    if context.data is None:
        raise UsageError("the sensitivity of sites is measured on samples; give --data")
    errors = dict(candidates.ranking(candidates.full))
    ranking = rank(errors, model=candidates.float_model, steps=candidates.steps, offset=offset)
    if confirmed:
        ranking = confirm(
            ranking,
            build=candidates.build,
            runner=candidates.runner,
            model=candidates.float_model,
            source=context.data,
            keys=candidates.keys,
            offset=offset,
            progress=context.progress,
        )
    if factor is not None:
        limits = thresholds(ranking, factor)
        candidates.leave(
            {
                item.key: f"{'kept whole' if candidates.resizes(item.key) else 'left in float'}: "
                f"its {candidates.error_name(item.key)} {item.local_error:.2%} is above {factor:g} times the median "
                f"of {limits[item.pass_name] / factor:.3%}"
                for item in above_threshold(ranking, factor)
            }
        )
    return ranking
