"""Figures among what was decided of sites, by keys of the form "PASS/SITE/FINGERPRINT"."""

from __future__ import annotations

from collections.abc import Collection

from irc.decisions import Decisions


def figures(decisions: Decisions, pass_name: str, sites: Collection[str], figure: str) -> dict[str, float]:
    """One figure of the decisions that a run asked for, by site.

    Args:
        decisions: Of the run.
        pass_name: Whose.
        sites: Which.
        figure: Its name in a decision.
    """
    found: dict[str, float] = {}
    for key in decisions.asked:
        name, _slash, rest = key.partition("/")
        site = rest.rpartition("/")[0]
        if name == pass_name and site in sites:
            found[site] = float(decisions.remember(key, dict)[figure])
    return found
