"""From what a user writes to the pipeline that runs: passes of every kind as steps, required passes inserted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from irc import pipeline, registry
from irc.errors import UsageError
from irc.pass_base import Pass
from irc.pipeline import Step
from irc.selection import Selection


def as_steps(passes: Iterable[object]) -> list[Step]:
    """Passes, names, pipeline texts, steps and foreign passes as steps."""
    steps: list[Step] = []
    for item in passes:
        if isinstance(item, Step):
            steps.append(item)
        elif isinstance(item, Pass):
            steps.append(Step(item))
        elif isinstance(item, str):
            steps += pipeline.parse(item)
        else:
            from irc.adapters import adapt

            steps.append(Step(adapt(item)))
    return steps


def expand(steps: Sequence[Step], *, selection: Selection = Selection()) -> list[Step]:  # noqa: B008
    """The steps with the passes inserted that establish what others require, and the build's selection applied.

    A selection applies to approximate passes; when the pipeline has none, to every pass.

    Raises:
        UsageError: If no registered pass establishes a required fact.
    """
    expanded: list[Step] = []
    known: set[str] = set()

    def add(step: Step, chain: tuple[str, ...]) -> None:
        for fact in step.pass_.requires:
            if fact in known:
                continue
            providers = registry.passes_establishing(fact)
            if not providers or providers[0] in chain:
                raise UsageError(f"{step.pass_.name} requires {fact!r}, which no registered pass establishes")
            provider = Step(registry.pass_class(providers[0])(), inserted_for=step.pass_.name)
            add(provider, (*chain, providers[0]))
        expanded.append(step)
        known.difference_update(step.pass_.invalidates)
        known.update(step.pass_.establishes)

    only_lossless = all(step.pass_.contract.lossless for step in steps)
    for step in steps:
        selected = selection and (only_lossless or not step.pass_.contract.lossless)
        both = Selection(step.selection.include + selection.include, step.selection.exclude + selection.exclude)
        add(dataclasses.replace(step, selection=both) if selected else step, (step.pass_.name,))
    return expanded
