"""Run FX passes over a traced program: the loop of the pass manager, with module against module as verification."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from irc.application import SiteKey
from irc.errors import ModelError
from irc.ledger import Ledger
from irc.pass_base import Context, Contract
from irc.pass_manager import OnFailure, PassManager
from irc.pipeline import Step
from irc.soundness import VerifierFactory
from irc.trace.example_inputs import Example
from irc.trace.fx_pass import tensor_bytes
from irc.trace.program_graph import copy_graph, lift, output_names, output_node, unlift
from irc.trace.tensor_difference import TensorReference

if TYPE_CHECKING:
    import torch
    from torch import fx


@dataclasses.dataclass
class FxRun:
    """What the FX passes of a pipeline gave.

    Attributes:
        program: The rewritten program.
        ledger: What every pass did.
        undone: The rewrites that were taken back, with the reason.
        changed: Whether anything was rewritten.
        outputs: Names of the outputs that are left.
    """

    program: torch.export.ExportedProgram
    ledger: Ledger
    undone: dict[SiteKey, str]
    changed: bool
    outputs: list[str]


def run_fx_passes(
    program: torch.export.ExportedProgram,
    steps: Sequence[Step],
    examples: Sequence[Example],
    *,
    ctx: Context,
    verify: bool = True,
    denied: Mapping[SiteKey, str] | None = None,
    limits: Mapping[str, int] | None = None,
    on_failure: OnFailure = "raise",
) -> FxRun:
    """Runs FX passes over a program.

    Args:
        program: Unchanged; the passes get copies of its parameters.
        steps: The passes.
        examples: Calls to compare outputs on.
        ctx: For the passes.
        verify: Whether outputs are compared.
        denied: Rewrites not to make.
        limits: At most this many sites per pass.
        on_failure: "undo" takes back what fails and goes on.

    Raises:
        PassFailed: If a pass raises and `on_failure` is "raise".
    """
    representation = FxRepresentation(program, examples)
    manager = PassManager(
        steps,
        verify=verify,
        denied=denied,
        limits=limits,
        on_failure=on_failure,
        insert_required=False,
        representation=representation,
    )
    result = manager.run(representation.start, ctx)  # type: ignore[arg-type]
    changed = bool(result.keys)
    rewritten = lift(result.model, program) if changed else program  # type: ignore[arg-type]
    return FxRun(rewritten, result.ledger, result.undone, changed, output_names(result.model))  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class _Interface:
    """Inputs and outputs of a graph module, by name."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def difference(self, other: _Interface, *, narrower: Collection[str] = ()) -> str | None:
        if self.inputs != other.inputs:
            return f"inputs were {', '.join(self.inputs)} and are {', '.join(other.inputs)}"
        if lost := [name for name in other.outputs if name not in self.outputs]:
            return f"there are new outputs: {', '.join(lost)}"
        return None


class FxRepresentation:
    """The graph of a traced program, as the pass manager sees it.

    Attributes:
        start: The graph, with copies of the parameters.
    """

    def __init__(self, program: torch.export.ExportedProgram, examples: Sequence[Example]) -> None:
        self._program = program
        self._feeds = [example.leaves() for example in examples]
        self.start = unlift(program, copy_parameters=True)
        self._pristine = unlift(program)

    def snapshot(self, model: fx.GraphModule) -> fx.GraphModule:
        """A copy that shares the parameters."""
        return copy_graph(model)

    def check(self, model: fx.GraphModule) -> None:
        """The graph is well formed, returns what its interface says, fits the program, and no parameter was written into."""
        self._refuse_written()
        try:
            model.graph.lint()
            model.recompile()
        except Exception as error:
            raise ModelError(f"the FX graph is broken: {' '.join(str(error).split())[:200]}") from error
        returned = output_node(model).args[0]
        count = len(returned) if isinstance(returned, tuple | list) else 1
        if not isinstance(returned, tuple | list) or count != len(output_names(model)):
            raise ModelError(
                f"the graph returns {count} outputs and has {len(output_names(model))}; use drop_outputs to drop one"
            )
        for node in model.graph.nodes:
            if node.op in ("call_module", "call_method"):
                raise ModelError(
                    f"node {node.name!r} calls {node.target!r}; a traced graph calls functions of torch.ops only"
                )
        lift(copy_graph(model), self._program)

    def _refuse_written(self) -> None:
        """Raises for parameters that a pass wrote into, which cannot be undone otherwise; their values are restored."""
        import torch

        originals = dict(self._pristine.state_dict(keep_vars=True))
        for name, mine in self.start.state_dict(keep_vars=True).items():
            original = originals[name]
            if not torch.equal(tensor_bytes(mine), tensor_bytes(original)):
                with torch.no_grad():
                    mine.data.copy_(original)
                raise ModelError(f"a pass wrote into {name!r}; make a new parameter instead (irc.trace.add_attribute)")

    def interface(self, model: fx.GraphModule) -> _Interface:
        """Names of inputs and outputs."""
        inputs = tuple(str(node.target) for node in model.graph.nodes if node.op == "placeholder")
        return _Interface(inputs, tuple(output_names(model)))

    def count_nodes(self, model: fx.GraphModule) -> int:
        """Operations, without inputs, parameters and the output."""
        return sum(node.op.startswith("call_") for node in model.graph.nodes)

    @contextlib.contextmanager
    def services(
        self, verify: bool | VerifierFactory, ctx: Context, model: fx.GraphModule
    ) -> Iterator[tuple[Context, VerifierFactory | None]]:
        """A verifier on the example inputs; passes over FX graphs need nothing else."""
        if isinstance(verify, bool):
            factory: Any = functools.partial(FxVerifier, feeds=self._feeds)
            yield ctx, factory if verify else None
        else:
            yield ctx, verify


class FxVerifier:
    """Compares rewritten graphs with the one they came from, on the example inputs.

    Attributes:
        runs: How many graphs were compared.
        reference_failed: Why there is no reference; None if there is one.
        notes: What a report should say.
    """

    def __init__(self, start: fx.GraphModule, feeds: Sequence[Sequence[Any]]) -> None:
        self.runs = 0
        self.notes: list[str] = []
        self.reference_failed: str | None = None
        self._names = output_names(start)
        self._feeds = list(feeds)
        if not feeds:
            self.reference_failed = "there are no example inputs"
            return
        self._reference = TensorReference([functools.partial(_outputs, start, feed) for feed in feeds])
        self.notes += self._reference.notes

    def check(self, model: fx.GraphModule, contract: Contract) -> Verdict:
        """Runs a graph on the examples; outputs that it dropped are not compared."""
        self.runs += 1
        places = [self._names.index(name) for name in output_names(model)]
        for number, feed in enumerate(self._feeds):
            try:
                found = _outputs(model, feed)
            except Exception as error:
                return Verdict(False, f"the rewritten graph does not run: {' '.join(str(error).split())[:200]}")
            message = self._reference.difference(
                number, dict(zip(places, found, strict=True)), exact=contract is Contract.EXACT
            )
            if message is not None:
                return Verdict(False, message)
        return Verdict(True)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What verification says of one graph.

    Attributes:
        ok: Whether the contract holds.
        message: What differs and by how much.
    """

    ok: bool
    message: str = ""


def _outputs(model: fx.GraphModule, feed: Sequence[Any]) -> list[Any]:
    import torch

    with torch.no_grad():
        return list(model(*feed))
