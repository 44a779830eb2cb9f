"""The ranking of sites on the console: which cost the most, how much of that reaches the outputs, which are in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from irc.application import SiteKey
from irc.sensitivity import LARGEST_ERROR, Left, Sensitivity

if TYPE_CHECKING:
    from rich.table import Table

    from irc.report.console import Column

TOP = 10


def error_percent(error: float) -> str:
    """A relative error in per cent with three digits: "0.0312 %", "4.10e-06 %"; "no bound" for the largest there is."""
    if error >= LARGEST_ERROR:
        return "no bound"
    percent = 100 * error
    if percent == 0:
        return "0 %"
    if not 0.0009995 <= percent < 99_950:
        return f"{percent:.2e} %"
    decimals = 0 if percent >= 99.95 else 1 if percent >= 9.995 else 2 if percent >= 0.9995 else 3
    if percent < 0.09995:
        decimals = 4 if percent >= 0.009995 else 5
    return f"{percent:.{decimals}f} %"


def ranking_table(
    ranking: Sequence[Sensitivity], *, top: int = TOP, left: Mapping[SiteKey, Left] | None = None
) -> Table:
    """The worst sites, one per line.

    Args:
        ranking: Worst first.
        top: How many.
        left: Sites that the model has in float after all, and why.
    """
    from irc.report.console import table

    left = left or {}
    several = len({item.pass_name for item in ranking}) > 1
    confirmed = any(item.output_error is not None for item in ranking[:top])
    marked = any(item.key in left for item in ranking[:top])
    columns: list[Column] = ["site", "operator"]
    if several:
        columns.append("pass")
    columns.append(("local error", "right"))
    if confirmed:
        columns.append(("at the outputs", "right"))
    if marked:
        columns.append("in float for")
    rows = []
    for item in ranking[:top]:
        row = [item.site, item.op_type]
        if several:
            row.append(item.pass_name)
        row.append(error_percent(item.local_error))
        if confirmed:
            row.append(error_percent(item.output_error) if item.output_error is not None else "")
        if marked:
            row.append(left.get(item.key, ""))
        rows.append(row)
    return table(columns, rows)


def more_text(ranking: Sequence[Sensitivity], top: int) -> str:
    """What is not in the table, in words; "" if everything is."""
    rest = ranking[top:]
    if not rest:
        return ""
    return f"and {len(rest)} more, with at most {error_percent(max(item.local_error for item in rest))} of local error"
