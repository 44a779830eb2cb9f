"""A PyTorch network as the input of a build: traced, compared with its ONNX form in the runtime, put where a file would be.

The runtime process measures and verifies against files, so the traced model is written to a temporary folder, just as
`torch.onnx.export` writes it: from there on a module is built as a file is, and gives the same artifact.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irc.application import SiteKey
from irc.artifact import check_output
from irc.errors import ModelError, RunnerError, UsageError
from irc.ledger import Ledger
from irc.pass_base import Context
from irc.pipeline import Step

if TYPE_CHECKING:
    from irc.driver import Request
    from irc.plan import Plan
    from irc.recipe import Recipe
    from irc.runner import Feed
    from irc.trace import Traced


@dataclasses.dataclass
class ModuleInput:
    """What a build has to know of the network that its input file was traced from.

    Attributes:
        path: The ONNX file, in a folder that is removed when the build is done.
        name: What the network is called.
        output: Where the artifact goes unless something else is asked for.
        steps: The FX passes that ran.
        ledger: What they did.
        undone: Their rewrites that were taken back.
        feeds: The example inputs.
        notes: What the report should say.
    """

    path: Path
    name: str
    output: Path
    steps: list[Step] = dataclasses.field(default_factory=list)
    ledger: Ledger = dataclasses.field(default_factory=Ledger)
    undone: dict[SiteKey, str] = dataclasses.field(default_factory=dict)
    feeds: Sequence[Feed] = ()
    notes: list[str] = dataclasses.field(default_factory=list)


def split_fx(steps: Sequence[Step], *, traced: bool, name: str) -> tuple[list[Step], list[Step]]:
    """The FX passes at the start of a pipeline, and the rest.

    Args:
        steps: A pipeline.
        traced: Whether the input is a PyTorch network.
        name: What the input is called.

    Raises:
        UsageError: If an FX pass comes after an ONNX pass, or the input is ONNX already.
    """
    first = next((i for i, step in enumerate(steps) if step.pass_.representation != "fx"), len(steps))
    late = next((step.pass_.name for step in steps[first:] if step.pass_.representation == "fx"), None)
    if not traced and (first or late):
        raise UsageError(
            f"{steps[0].pass_.name if first else late} rewrites the graph of a PyTorch module, and {name} is ONNX already: "
            "give package.module:factory or a .pt2 program, or leave the pass out"
        )
    if late is not None:
        raise UsageError(
            f"{late} rewrites the graph of the PyTorch module, which {steps[first].pass_.name} no longer has: put it before "
            f"{steps[first].pass_.name!r}, at the start of the pipeline"
        )
    return list(steps[:first]), list(steps[first:])


@contextlib.contextmanager
def traced_input(
    model: Any, request: Request, recipe: Recipe, plan: Plan | None, *, output: Path | None
) -> Iterator[ModuleInput]:
    """Traces a network and gives it as an input file for the duration of a build.

    Args:
        model: A module, an exported program, or the spelling of one.
        request: Example inputs, dynamic dimensions, exporter.
        recipe: Its pipeline starts with the FX passes to run.
        plan: Says which of their rewrites not to make.
        output: Where the artifact goes; None for the default.

    Raises:
        IrcError: Of the kind that fits.
    """
    from irc.trace import trace
    from irc.trace.module_source import open_source, source_files

    source = open_source(model)
    default = source.folder / f"{source.name}.irc.onnx"
    check_output(output or default, source_files(source, request.example_inputs))
    if output is None and not isinstance(model, str | Path):
        raise UsageError("a module in memory needs an output path: optimize(module, output='model.irc.onnx')")
    steps, _ = split_fx(recipe.steps, traced=True, name=source.name)
    names = {step.pass_.name for step in steps}
    request.progress(0.0, "tracing the module")
    traced = trace(
        source.module if source.module is not None else source.program,
        request.example_inputs,
        dynamic_shapes=request.dynamic_shapes,
        exporter=request.exporter,
        opset=request.opset,
        passes=steps,
        verify=bool(request.verify),
        copy=False,
        denied={key: reason for key, reason in plan.denied.items() if key.step < len(steps)}
        if plan is not None
        else {},
        limits={name: count for name, count in request.limits.items() if name in names},
        on_failure="raise" if recipe.name == "passes" else "undo",
        context=Context(target=request.target, seed=request.seed, progress=request.progress),
    )
    name = source.name
    with tempfile.TemporaryDirectory(prefix="irc-") as folder:
        path = Path(folder) / f"{name}.onnx"
        traced.save(path)
        if request.verify and plan is None:
            request.progress(0.02, "comparing ONNX with the module")
            _compare(traced, path, request)
        found = ModuleInput(path, name, default, steps, traced.ledger, traced.undone, traced.feeds, list(traced.notes))
        del traced, source
        yield found


def _compare(traced: Traced, path: Path, request: Request) -> None:
    """The lowered model must compute what the module computes: the exporter is a rewrite like any other."""
    from irc.runner import Runner

    if traced.reference is None:
        return
    other = "torchscript" if traced.exporter == "export" else "export"
    outputs: list[list[Any]] = []
    with Runner(threads=request.threads) as runner:
        try:
            with runner.open(path, optimization="none") as opened:
                for feed in traced.feeds:
                    outputs.append(list(opened.run(feed).values()))
        except RunnerError as error:
            if not outputs:
                traced.notes.append(f"not compared with the module: the runtime cannot run what was exported: {error}")
                return
            raise ModelError(
                f"what was exported of {traced.name} runs on the first example and not on example {len(outputs) + 1}: sizes of the "
                f"first are fixed in it; try --exporter {other}, or examples of one size: {error}"
            ) from error
    message = traced.difference(outputs)
    if message is not None:
        raise ModelError(
            f"the exported model does not compute what the module {traced.name} computes: {message}; try --exporter {other}, or "
            "--no-verify to build it all the same"
        )
