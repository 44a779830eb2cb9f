"""What a run of the pass manager needs from the world, opened where the context leaves it open, and closed again."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import onnx_ir as ir

from irc.pass_base import Context
from irc.soundness import VerifierFactory


@contextlib.contextmanager
def services(
    verify: bool | VerifierFactory, ctx: Context, model: ir.Model
) -> Iterator[tuple[Context, VerifierFactory | None]]:
    """What the context leaves open: a target and data given as text, a collector, a verifier, and the process they run in."""
    from irc import targets
    from irc.calibration import DataSource, collect, observe, open_data
    from irc.runner import Runner
    from irc.verification import verifier_factory

    with contextlib.ExitStack() as stack:
        runner = ctx.runner if ctx.runner is not None else stack.enter_context(Runner())
        ctx = dataclasses.replace(ctx, runner=runner)
        if isinstance(ctx.target, str):
            ctx = dataclasses.replace(ctx, target=targets.parse(ctx.target))
        if ctx.data is not None and not isinstance(ctx.data, DataSource):
            ctx = dataclasses.replace(ctx, data=open_data(ctx.data, model, seed=ctx.seed, runner=runner))
        if ctx.collect is None and isinstance(ctx.data, DataSource):
            source = ctx.data
            ctx = dataclasses.replace(
                ctx,
                collect=lambda found, requests: collect(runner, found, source, requests, progress=ctx.progress),
            )
        if ctx.observe is None and isinstance(ctx.data, DataSource):
            data = ctx.data
            ctx = dataclasses.replace(
                ctx,
                observe=lambda found, observables: observe(runner, found, data, observables, progress=ctx.progress),
            )
        if isinstance(verify, bool):
            yield ctx, verifier_factory(runner, ctx) if verify else None
        else:
            yield ctx, verify
