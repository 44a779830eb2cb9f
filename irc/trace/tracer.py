"""From a PyTorch module to an ONNX model in memory, with everything that was checked and said on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_ir as ir

from irc.application import SiteKey
from irc.errors import DataError, ModelError, UsageError
from irc.expansion import as_steps
from irc.ir.messages import some_of
from irc.ledger import Ledger
from irc.pass_base import Context
from irc.pass_manager import OnFailure
from irc.pipeline import Step
from irc.trace.capture import capture, leaf_names
from irc.trace.dynamic_dimensions import dynamic_shapes as settle_dimensions
from irc.trace.dynamic_dimensions import parse_dynamic, stretched
from irc.trace.example_inputs import Example, Feed, read_examples, run_module, to_numpy
from irc.trace.fx_pass import module_of
from irc.trace.inference_mode import inference_mode, set_program_to_inference, trains
from irc.trace.lowering import lower, lower_with_torchscript
from irc.trace.module_source import ModuleSource, open_source
from irc.trace.module_state import state_kept
from irc.trace.program_graph import keep_outputs
from irc.trace.tensor_difference import TensorReference
from irc.trace.traced import Traced

if TYPE_CHECKING:
    import torch

Exporter = Literal["export", "torchscript"]
EXPORTERS: tuple[Exporter, ...] = ("export", "torchscript")


def trace(
    model: Any,
    example_inputs: Any = None,
    *,
    dynamic_shapes: Any = None,
    exporter: str = "export",
    opset: int | None = None,
    passes: Iterable[object] = (),
    verify: bool = True,
    copy: bool = True,
    denied: Mapping[SiteKey, str] | None = None,
    limits: Mapping[str, int] | None = None,
    on_failure: OnFailure = "raise",
    context: Context | None = None,
) -> Traced:
    """Turns a PyTorch module into an ONNX model in memory; nothing is written to disk.

    Args:
        model: A module, an exported program, `package.module:factory`, `file.py:factory` or the path of a `.pt2`. A module is
            traced in inference mode and put back into the mode it was in.
        example_inputs: What it is called with: a tensor, a tuple of arguments, a dict of keyword arguments, `(args, kwargs)`, a
            function that returns one of them, `file.py:name`, or a list of several. Dimensions in which two of them differ
            are dynamic. A `.pt2` has its own.
        dynamic_shapes: Dynamic dimensions: `image:0=batch,ids:1`, or by input and axis, `{"image": {0: "batch"}}`, or what
            `torch.export.export` takes. By default those in which the examples differ.
        exporter: "export" is `torch.export` with torch's ONNX exporter; "torchscript" the older one, which runs the
            module once and keeps what it saw, for modules that the first does not take.
        opset: Version of the ONNX operators; by default the exporter's own.
        passes: FX passes to run before lowering: passes, names, pipeline texts, `torch.fx` passes or functions.
        verify: Whether FX passes are checked on the examples, and outputs of the module are kept to check the model with.
        copy: Whether the weights are copied; without, they are the memory of the module, and training it further changes the
            model.
        denied: Rewrites of FX passes not to make.
        limits: At most this many sites per FX pass.
        on_failure: Whether an FX pass that fails ends the trace or is taken back.
        context: For the FX passes.

    Raises:
        UsageError: If torch is missing, the request names something that does not exist, or a pass is none of FX graphs.
        ModelError: If the module cannot be traced or lowered: which module and line stopped it, and what to try.
        DataError: If the module does not run on the examples.
    """
    if exporter not in EXPORTERS:
        raise UsageError(f"--exporter {exporter!r}: it must be one of {', '.join(EXPORTERS)}")
    source = open_source(model)
    given = parse_dynamic(dynamic_shapes) if isinstance(dynamic_shapes, str) else dynamic_shapes
    import torch

    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        notes = stack.enter_context(inference_mode(source.module)) if source.module is not None else []
        examples = _examples(source, example_inputs)
        tracing = _Tracing(source, examples, given, exporter, opset, list(notes), verify)
        traced = tracing.run(
            fx_steps(passes, source.name),
            denied=denied or {},
            limits=limits or {},
            on_failure=on_failure,
            ctx=context or Context(),
        )
    return traced.detach() if copy else traced


def fx_steps(passes: Iterable[object], name: str) -> list[Step]:
    """Passes of every kind as steps.

    Raises:
        UsageError: If one does not rewrite FX graphs.
    """
    steps = as_steps(passes)
    for step in steps:
        if step.pass_.representation != "fx":
            raise UsageError(
                f"{step.pass_.name} rewrites ONNX models and cannot run while {name} is traced; run it after"
            )
    return steps


def _examples(source: ModuleSource, given: Any) -> list[Example]:
    if given is not None:
        return read_examples(given, source.module)
    if source.program is not None:
        own = source.program.example_inputs
        return [Example(tuple(own[0]), dict(own[1]))] if own is not None else []
    raise UsageError(
        f"{source.name} is a PyTorch module: give what it is called with, --inputs file.py:example_inputs "
        "(in Python: example_inputs=...)"
    )


@dataclasses.dataclass
class _Tracing:
    """One trace; the module is in inference mode while it runs."""

    source: ModuleSource
    examples: list[Example]
    dynamic: Any
    exporter: str
    opset: int | None
    notes: list[str]
    verify: bool

    def run(
        self,
        passes: Sequence[Step],
        *,
        denied: Mapping[SiteKey, str],
        limits: Mapping[str, int],
        on_failure: OnFailure,
        ctx: Context,
    ) -> Traced:
        import torch

        program = self.source.program
        if program is not None:
            program, changed = set_program_to_inference(program)
            self.notes += changed
        names, shapes = self._names(), None
        if self.source.module is not None:
            self._run_once(self.source.module)
            shapes = settle_dimensions(self.examples, names, self.dynamic, module=self.source.module)
            self._stretch(shapes)
        elif self.dynamic is not None:
            raise UsageError(
                "dynamic dimensions of a saved program are those it was exported with; export it again with dynamic_shapes"
            )
        reference = self._reference(self._function(program))
        ledger, undone, shares_memory = Ledger(), {}, True
        if self.exporter == "torchscript":
            model = self._by_torchscript(names, shapes, passes)
            kept = list(range(len(model.graph.outputs)))
        else:
            if program is None:
                assert self.source.module is not None
                with state_kept(self.source.module):
                    program = capture(self.source.module, self.examples[0], shapes)
                program, changed = set_program_to_inference(program, dropout_only=True)
                self.notes += changed
                self._note_training(program)
            program = self._without_constant_outputs(program)
            outputs = _tensor_outputs(program)
            left: list[str] | None = None
            if passes:
                from irc.trace.fx_manager import run_fx_passes

                ran = run_fx_passes(
                    program,
                    passes,
                    self.examples,
                    ctx=ctx,
                    verify=self.verify,
                    denied=denied,
                    limits=limits,
                    on_failure=on_failure,
                )
                program, ledger, undone = ran.program, ran.ledger, ran.undone
                shares_memory = not ran.changed
                left = ran.outputs if ran.changed else None
            kept = [place for place, name in enumerate(outputs) if left is None or name in left]
            # What a pass puts in the place of an operation gets another name, and the interface must not.
            keep = [outputs[place] for place in kept] if left is not None else None
            model = lower(program, shapes=shapes, opset=self.opset, module=self.source.module, outputs=keep)
            names = _input_names(program)
        label = {"export": "torch.export", "torchscript": "torchscript"}[self.exporter]
        opset = model.graph.opset_imports.get("", 0)
        self.notes.insert(0, f"traced with {label} of torch {torch.__version__}, opset {opset}")
        traced = Traced(
            model,
            self.source.name,
            self.exporter,
            self._feeds(model, names),
            reference,
            kept,
            ledger,
            undone,
            [*self.notes, *(reference.notes if reference is not None else [])],
            shares_memory,
        )
        if reference is not None:
            self._check_reference(reference)
            _open_outputs(model, reference, kept)
        return traced

    def _run_once(self, module: torch.nn.Module) -> None:
        """Says at once whether the examples fit, and what the module writes when it runs."""
        written: list[str] = []
        result = run_module(module, self.examples[0], f"the module {self.source.name}", written)
        if not result:
            raise ModelError(
                f"the module {self.source.name} returns no tensor that torch can see; return tensors, tuples or "
                "dicts (transformers: use_cache=False), or register the type with torch.utils.pytree"
            )
        if written:
            self.notes.append(
                f"the module writes state when it runs ({some_of(written)}), which an ONNX model does not keep"
            )

    def _stretch(self, shapes: Any) -> None:
        """With one example, makes another of other sizes, so that dynamic dimensions are compared with the module too."""
        if len(self.examples) > 1 or shapes is None or not self.verify:
            return
        assert self.source.module is not None
        other = stretched(self.examples[0], shapes)
        try:
            if other is None:
                raise DataError("no other size could be made")
            run_module(self.source.module, other, f"the module {self.source.name}")
        except DataError:
            self.notes.append(
                "compared with the module at the sizes of the example only; give two examples of different sizes"
            )
            return
        self.examples = [*self.examples, other]

    def _note_training(self, program: torch.export.ExportedProgram) -> None:
        """Says which normalizations take the statistics of the batch at inference too, asked for by name."""
        names = [module_of(node) or str(node.name) for node in program.graph.nodes if trains(node)]
        if names:
            shown = ", ".join(repr(name) for name in dict.fromkeys(names[:3]))
            self.notes.append(f"{shown} normalizes by the batch although the module is in inference mode; that is kept")

    def _without_constant_outputs(self, program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
        """The program without outputs that are plain values, which ONNX cannot return."""
        from torch.export.graph_signature import ConstantArgument

        constants = [
            i for i, s in enumerate(program.graph_signature.output_specs) if isinstance(s.arg, ConstantArgument)
        ]
        real = [i for i in constants if program.graph_signature.output_specs[i].arg.value is not None]
        if not real:
            return program
        self.notes.append(
            f"outputs {', '.join(map(str, real))} of the module are plain values and are not in the ONNX model"
        )
        return keep_outputs(
            program, [i for i in range(len(program.graph_signature.output_specs)) if i not in constants]
        )

    def _function(self, program: torch.export.ExportedProgram | None) -> Any:
        """What is called for the reference outputs."""
        if program is None:
            return self.source.module
        # Examples of other sizes than the traced one are for the ONNX model to refuse or take.
        return program.module(check_guards=False) if _takes_guards(program) else program.module()

    def _reference(self, function: Any) -> TensorReference | None:
        """Outputs of the module on all examples."""
        if not self.examples:
            self.notes.append("not compared with the module: there are no example inputs")
            return None
        where = f"the module {self.source.name}"
        if not self.verify:
            return None
        return TensorReference([functools.partial(run_module, function, example, where) for example in self.examples])

    def _check_reference(self, reference: TensorReference) -> None:
        for number, values in enumerate(reference.values, 1):
            for place, value in enumerate(values):
                if value is not None and value.dtype.kind == "f" and not np.isfinite(value).all():
                    self.notes.append(f"output {place} of the module is not finite on example {number}")

    def _names(self) -> list[str]:
        if self.source.module is None:
            return []
        return leaf_names(self.source.module, self.examples[0])

    def _by_torchscript(self, names: Sequence[str], shapes: Any, passes: Sequence[Step]) -> ir.Model:
        if self.source.module is None:
            raise UsageError(
                "--exporter torchscript takes a module; this is a saved program, which only torch.export reads"
            )
        if passes:
            raise UsageError(
                f"{passes[0].pass_.name} works on the graph of torch.export, which --exporter torchscript does not make"
            )
        self.notes.append("the TorchScript exporter keeps the control flow that the first example takes")
        return lower_with_torchscript(
            self.source.module, self.examples[0], names, shapes=shapes, opset=self.opset, notes=self.notes
        )

    def _feeds(self, model: ir.Model, names: Sequence[str]) -> list[Feed]:
        """The examples under the names of the graph's inputs."""
        import torch

        wanted = [value.name or "" for value in model.graph.inputs]
        feeds = []
        for example in self.examples:
            leaves = example.leaves()
            if len(names) != len(leaves):
                raise DataError(f"an example has {len(leaves)} inputs and the program {len(names)}")
            arrays = {n: to_numpy(x) for n, x in zip(names, leaves, strict=True) if isinstance(x, torch.Tensor)}
            if len(arrays) == len(wanted):
                # By position: exporters rename an input that is an output too.
                feed = dict(zip(wanted, arrays.values(), strict=True))
            else:
                feed = {name: array for name, array in arrays.items() if name in wanted}
            if missing := [name for name in wanted if name not in feed]:
                raise ModelError(f"the traced model has an input {missing[0]!r} that no example gives")
            feeds.append(feed)
        return feeds


def _open_outputs(model: ir.Model, reference: TensorReference, kept: Sequence[int]) -> None:
    """Takes back sizes of outputs that the exporter declares and an example contradicts, as it does behind loops."""
    if len(kept) != len(model.graph.outputs):
        return
    for value, place in zip(model.graph.outputs, kept, strict=True):
        shapes = [array.shape for outputs in reference.values if (array := outputs[place]) is not None]
        declared = value.shape
        if declared is None or any(len(shape) != len(declared) for shape in shapes):
            continue
        wrong = [
            axis
            for axis, size in enumerate(declared)
            if isinstance(size, int) and any(shape[axis] != size for shape in shapes)
        ]
        if wrong:
            value.shape = ir.Shape([None if axis in wrong else size for axis, size in enumerate(declared)])


def _takes_guards(program: torch.export.ExportedProgram) -> bool:
    import inspect

    return "check_guards" in inspect.signature(program.module).parameters


def _input_names(program: torch.export.ExportedProgram) -> list[str]:
    """Names of the leaves of a call, as the graph has them."""
    from torch.export.graph_signature import InputKind

    return [s.arg.name for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]


def _tensor_outputs(program: torch.export.ExportedProgram) -> list[str]:
    """Names of the outputs that are tensors."""
    from torch.export.graph_signature import OutputKind, TensorArgument

    return [
        s.arg.name
        for s in program.graph_signature.output_specs
        if s.kind is OutputKind.USER_OUTPUT and isinstance(s.arg, TensorArgument)
    ]
