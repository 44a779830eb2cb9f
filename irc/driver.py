"""`irc.optimize`: the whole way from a model file to a published artifact.

Check the request, load, run the lossless passes (verified), let the guard choose among the approximate candidates, read
back and measure the artifact in the runtime that ships, publish it by renaming, report.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from irc import pipeline, targets
from irc import recipe as recipes
from irc.artifact import Stage, check_output, data_file, default_output, sha256, sidecar
from irc.build import Build
from irc.built import Built
from irc.errors import UsageError
from irc.module_input import ModuleInput, split_fx, traced_input
from irc.pipeline import Step
from irc.plan import Plan
from irc.recipe import Recipe
from irc.report.build_report import BuildReport, ModelFacts
from irc.requirement import Requirement
from irc.second_choice import with_second_choice
from irc.selection import Selection
from irc.sensitivity import thresholds
from irc.trace import EXPORTERS, is_module, is_module_spelling

Progress = Callable[[float, str], None]
Verify = bool | Literal["full"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Everything one build is asked for; see `optimize` for the meaning of each field."""

    data: Any = None
    label: str | None = None
    metric: Any = None
    output: Path | None = None
    level: str | None = None
    passes: str | Sequence[object] | None = None
    recipe: Path | None = None
    plan: Path | None = None
    target: str | None = None
    max_drop: str | None = None
    min_speedup: float | None = None
    target_size: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    limits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    verify: Verify = True
    measure: bool = True
    cache: bool = True
    early_stop: float | None = None
    search: bool = True
    workers: int = 1
    keep_float_above: float | None = None
    sensitivity: bool = False
    batch: int | None = None
    threads: int | None = None
    seed: int = 0
    dump_after: tuple[str, ...] = ()
    example_inputs: Any = None
    dynamic_shapes: Any = None
    exporter: str = "export"
    opset: int | None = None
    progress: Progress = lambda fraction, what: None


def optimize(
    model: str | Path | ir.Model | Any,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    exporter: str = "export",
    opset: int | None = None,
    data: Any = None,
    output: str | Path | None = None,
    level: str | None = None,
    passes: str | Sequence[object] | None = None,
    recipe: str | Path | None = None,
    plan: str | Path | None = None,
    target: str | None = None,
    max_drop: str | None = None,
    min_speedup: float | None = None,
    target_size: str | None = None,
    metric: Any = None,
    label: str | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    require: str | Iterable[str] = (),
    limits: Mapping[str, int] | None = None,
    verify: Verify = True,
    measure: bool = True,
    cache: bool = True,
    early_stop: float | None = None,
    search: bool = True,
    workers: int = 1,
    keep_float_above: float | None = None,
    sensitivity: bool = False,
    batch: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    dump_after: str | Iterable[str] = (),
    progress: Progress = lambda fraction, what: None,
) -> BuildReport:
    """Optimizes a model and writes the artifact, its manifest and its plan.

    Args:
        model: Path of an ONNX file, an `onnx_ir.Model`, an `onnx.ModelProto`, or PyTorch: a module, an exported program,
            `package.module:factory`, `file.py:factory`, path of a `.pt2`. Never modified.
        example_inputs: What a module is called with: a tensor, a tuple of arguments, a dict of keyword arguments, a list of
            several, a function that returns them, or `file.py:name`. Dimensions in which two examples differ are dynamic.
        dynamic_shapes: Dynamic dimensions of a module: "image:0=batch,ids:1", or as `torch.export.export` takes them.
        exporter: "export" (`torch.export`) or "torchscript", for modules that the first does not take.
        opset: Version of the operators that a module is exported to; default the exporter's own.
        data: Samples: a folder of `.npz`, an `.npz` (axis 0 indexes samples), `file.py:function`, "random", a list of
            feeds, or a function that returns an iterable of feeds.
        output: Path of the artifact; default `model.irc.onnx` beside the input.
        level: "O0", "O1", "O2" or "O3"; default "O2" with data, "O1" without.
        passes: Pipeline text or passes; replaces the level's pipeline, and its budget unless one is given.
        recipe: Path of a YAML recipe.
        plan: Path of a plan to replay byte for byte; needs no data.
        target: For example "ort" or "ort{cpu=avx2}"; default "ort".
        max_drop: Accuracy budget: "0.5%" (relative) or "0.5pt" (absolute).
        min_speedup: Speed budget: smallest ratio of original to artifact latency.
        target_size: Size budget, for example "5MB".
        metric: "accuracy", "f1", "cross-entropy", "spearman", "file.py:function" or a function `f(run) -> float`.
        label: Which array in the data is the label, if there are several candidates.
        include: Selectors of the sites approximate passes may touch.
        exclude: Selectors of sites they must not touch.
        require: Coverage clauses such as "int8:Conv>=90%".
        limits: At most this many sites per pass name.
        verify: Whether lossless passes are verified on real inputs; "full" also has passes that rest on an analysis of the
            model prove it on this model (`prune-channels`: both oracles of `irc.channel_oracles`).
        measure: Whether latency is measured.
        cache: Whether statistics are kept for the next build, and taken from an earlier one; see `irc.calibration.cache`.
        early_stop: Calibrate on fewer samples where more of them change nothing: stop at 32, 64, 128, ... samples if the
            second half of them widened no range by more than this share. Default: every sample counts.
        search: Whether a variant is searched for every site where the pipeline as it stands misses the accuracy budget;
            otherwise sites are only taken back.
        workers: Processes that evaluate candidates of the search side by side; any number gives the same artifact.
        keep_float_above: Leaves sites in float whose own output error is more than this many times the median of
            their pass.
        sensitivity: Whether to rank the sites by what they cost, in the report and as a picture beside the artifact.
        batch: Batch size of the latency measurement; default that of the data.
        threads: Threads of the runtime; default all cores.
        seed: Seed of random choices.
        dump_after: Names of passes (or "all") after which the model is written beside the output.
        progress: Called with a fraction in [0, 1] and what is being done; a fraction that falls starts a new stage.

    Returns:
        The report; `report.exit_code` is 0, 3 (budget missed) or 5 (`require` unmet).

    Raises:
        UsageError: If the request is contradictory or names something unknown.
        ModelError: If the model is damaged or unsupported.
        DataError: If the data does not fit the model.
    """
    if verify not in (True, False, "full"):
        raise UsageError(f"verify is {verify!r}; it must be True, False or 'full'")
    request = Request(
        data=data,
        label=label,
        metric=metric,
        output=Path(output) if output is not None else None,
        level=level.lstrip("-") if level is not None else None,
        passes=passes,
        recipe=Path(recipe) if recipe is not None else None,
        plan=Path(plan) if plan is not None else None,
        target=target,
        max_drop=max_drop,
        min_speedup=min_speedup,
        target_size=target_size,
        include=_texts(include),
        exclude=_texts(exclude),
        require=_texts(require),
        limits=dict(limits or {}),
        verify=verify,
        measure=measure,
        cache=cache,
        early_stop=early_stop,
        search=search,
        workers=workers,
        keep_float_above=keep_float_above,
        sensitivity=sensitivity,
        batch=batch,
        threads=threads,
        seed=seed,
        dump_after=_texts(dump_after),
        example_inputs=example_inputs,
        dynamic_shapes=dynamic_shapes,
        exporter=exporter,
        opset=opset,
        progress=progress,
    )
    return run(model, request)


def run(model: str | Path | ir.Model | Any, request: Request) -> BuildReport:
    """Carries out a request; `optimize` with its arguments in one object."""
    start = time.perf_counter()
    _check_request(request)
    plan = Plan.read(request.plan) if request.plan is not None else None
    if plan is not None:
        request = dataclasses.replace(request, seed=plan.seed)
    recipe = resolve(request, plan)
    job = _Job(request, plan, recipe, start)
    if is_module(model) or (isinstance(model, str | Path) and is_module_spelling(str(model))):
        with traced_input(model, request, recipe, plan, output=request.output) as found:
            return _run_file(found.path, job, published_name=found.name, module=found)
    _refuse_module_options(request)
    if isinstance(model, str | Path):
        return _run_file(Path(model), job, published_name=None)
    if request.output is None:
        raise UsageError("a model in memory needs an output path: optimize(model, output='model.irc.onnx')")
    from irc.ir import normalize, save

    with tempfile.TemporaryDirectory(prefix="irc-") as folder:
        path = Path(folder) / "model.onnx"
        save(normalize(model), path)
        return _run_file(path, job, published_name="model in memory")


@dataclasses.dataclass(frozen=True)
class _Job:
    """A request with what it comes down to."""

    request: Request
    plan: Plan | None
    recipe: Recipe
    start: float


def _run_file(path: Path, job: _Job, *, published_name: str | None, module: ModuleInput | None = None) -> BuildReport:
    from irc.ir import load

    request, plan = job.request, job.plan
    requirements = [Requirement.parse(text) for text in request.require]
    fx_steps, steps = split_fx(job.recipe.steps, traced=module is not None, name=path.name)
    recipe = dataclasses.replace(job.recipe, steps=tuple(steps))
    request = _without_fx_names(request, fx_steps)
    request.progress(0.0, "loading the model")
    model = load(path)
    sources = (path, *external_files(model))
    default = module.output if module is not None else default_output(path)
    output = request.output if request.output is not None else default
    check_output(output, sources)
    digest = input_digest(sources)
    if plan is not None:
        plan.check_input(digest, path.name)
    target = targets.parse(plan.target if plan is not None else request.target or recipe.target or "ort")
    selection = Selection.of(recipe.include + request.include, recipe.exclude + request.exclude)
    for selected in (selection, *(step.selection for step in recipe.steps if plan is None)):
        selected.require_matches(model)
    name = published_name or path.name
    source = ModelFacts(name, sum(p.stat().st_size for p in sources), *_counts(model))
    with Stage(output) as stage:

        def prepare(wanted: Recipe, label: str = "") -> Build:
            return Build(
                path=path,
                model=model,
                recipe=wanted,
                target=target,
                request=request,
                plan=plan.behind(len(fx_steps)) if plan is not None else None,
                selection=selection,
                stage=stage,
                examples=module.feeds if module is not None else (),
                notes=module.notes if module is not None else (),
                label=label,
            )

        build = prepare(recipe)
        build, built = with_second_choice(build, build.run(), lambda other: prepare(other, "second-"))
        if module is not None:
            built.put_before(module.ledger, module.undone, len(fx_steps))
        ran = [*fx_steps, *build.steps]
        built_plan = plan or Plan(
            input_name=name,
            input_sha256=digest,
            target=targets.render(target.pinned()),
            pipeline=pipeline.render(ran),
            recipe=recipe.name,
            seed=request.seed,
            denied=built.denied,
            statistics=built.statistics,
            samples=built.samples,
            decisions=build.made_decisions,
            choices=build.made_choices,
        )
        report = _report(source, output, recipe, targets.render(target), build, built, ran)
        report.unmet = [text for r in requirements if (text := r.unmet(report.ledger, report.coverage)) is not None]
        manifest, plan_file = sidecar(output, ".manifest.json"), sidecar(output, ".plan.yaml")
        stage.write_text(manifest.name, json.dumps(report.manifest(), indent=2, ensure_ascii=False) + "\n")
        stage.write_text(plan_file.name, built_plan.to_yaml())
        arrays = sidecar(output, ".plan.npz")
        staged = [manifest.name, plan_file.name]
        if request.sensitivity and report.sensitivity:
            picture = sidecar(output, ".sensitivity.svg")
            stage.write_text(picture.name, _picture(report, request))
            staged.append(picture.name)
        if stage.write_arrays(arrays.name, built_plan.decisions):
            staged.append(arrays.name)
        report.files = [*stage.publish(built.file, tuple(staged)), *build.dumps]
        if arrays.name not in staged:
            arrays.unlink(missing_ok=True)
    report.seconds = time.perf_counter() - job.start
    request.progress(1.0, "done")
    return report


def resolve(request: Request, plan: Plan | None = None) -> Recipe:
    """The recipe a request asks for: a plan's, a file's, a pipeline's, or a level's, with the request's budget on top."""
    given = {"max_drop": request.max_drop, "min_speedup": request.min_speedup, "target_size": request.target_size}
    budget: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    has_data = request.data is not None
    if plan is not None:
        steps = pipeline.parse(plan.pipeline) if plan.pipeline else []
        return Recipe(plan.recipe, tuple(steps))
    if request.recipe is not None:
        base = recipes.load(request.recipe, has_data=has_data)
    elif request.passes is not None and request.level is None:
        base = Recipe("passes", ())
    else:
        base = recipes.level(request.level or ("O2" if has_data else "O1"), has_data=has_data)
    if request.passes is not None:
        items = [request.passes] if isinstance(request.passes, str) else list(request.passes)
        steps, inside = recipes.steps_of(items, has_data=has_data)
        if inside is not None and (request.level is not None or request.recipe is not None):
            raise UsageError(
                f"{inside.name} in --passes is a level; leave out "
                + ("--recipe" if request.recipe else f"-{request.level}")
            )
        base = dataclasses.replace(inside or base, steps=tuple(steps), second_choice=(), never_worse=inside is not None)
    return recipes.with_budget(base, budget)


def _check_request(request: Request) -> None:
    if request.plan is not None:
        clashing = [
            name
            for name in ("data", "level", "passes", "recipe", "target", "max_drop", "min_speedup", "target_size")
            if getattr(request, name) is not None
        ] + [
            name
            for name in ("include", "exclude", "limits", "keep_float_above", "sensitivity")
            if getattr(request, name)
        ]
        if clashing:
            raise UsageError(
                f"--plan replays decisions already made; leave out {', '.join('--' + n.replace('_', '-') for n in clashing)}"
            )
    if request.early_stop is not None and not 0 <= request.early_stop < 1:
        raise UsageError(f"early_stop is {request.early_stop}; it must be a share from 0 to below 1, such as 0.01")
    if request.recipe is not None and request.level is not None:
        raise UsageError("give either a recipe or a level; a recipe can say 'extends: O2'")
    if request.metric is not None and request.data is None:
        raise UsageError("--metric needs --data: the artifact is judged on samples")
    if request.exporter not in EXPORTERS:
        raise UsageError(f"--exporter {request.exporter!r}: it must be one of {', '.join(EXPORTERS)}")
    if request.keep_float_above is not None and not request.keep_float_above > 0:
        raise UsageError(f"--keep-float-above is {request.keep_float_above}; it must be above 0, such as 5")
    for name in ("batch", "threads", "opset", "workers"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; it must be at least 1")
    if request.seed < 0:
        raise UsageError(f"--seed is {request.seed}; it must be at least 0")
    for name, count in request.limits.items():
        if count < 0:
            raise UsageError(f"--limit {name}={count}: it must be at least 0")


def _refuse_module_options(request: Request) -> None:
    """An option that only says how a PyTorch module is traced is a mistake for a model that is ONNX already."""
    given = {"--inputs": request.example_inputs, "--dynamic": request.dynamic_shapes, "--opset": request.opset}
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{name} says how a PyTorch module is traced, and the model is ONNX already; leave it out")


def _without_fx_names(request: Request, fx_steps: Sequence[Step]) -> Request:
    """The request for the ONNX part of a pipeline: limits of FX passes have done their work."""
    names = {step.pass_.name for step in fx_steps}
    for name in request.dump_after:
        if name in names:
            raise UsageError(f"--dump-after {name}: it works on the PyTorch graph, which cannot be written as ONNX yet")
    return dataclasses.replace(request, limits={k: v for k, v in request.limits.items() if k not in names})


def external_files(model: ir.Model) -> tuple[Path, ...]:
    """The data files a loaded model refers to, in order of name."""
    files: dict[Path, None] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                files[Path(tensor.path)] = None
    return tuple(sorted(files))


def input_digest(sources: Sequence[Path]) -> str:
    """One hash for a model: of its file alone, or of the hashes of file and data files."""
    digests = [sha256(path) for path in sources]
    if len(digests) == 1:
        return digests[0]
    import hashlib

    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _counts(model: ir.Model) -> tuple[int, int, int]:
    """Nodes, opset and multiply-accumulates."""
    from irc.analysis import cost
    from irc.application import count_nodes

    return count_nodes(model), model.graph.opset_imports.get("", 0), cost(model).macs


def _report(
    source: ModelFacts, output: Path, recipe: Recipe, target: str, build: Build, built: Built, ran: Sequence[Step]
) -> BuildReport:
    size = built.file.stat().st_size
    if (external := data_file(built.file)).exists():
        size += external.stat().st_size
    return BuildReport(
        recipe=recipe.name,
        target=target,
        pipeline=pipeline.render(ran),
        source=source,
        artifact=ModelFacts(output.name, size, *_counts(built.model)),
        sha256=sha256(built.file),
        ledger=built.ledger,
        data=built.data_name,
        accuracy=built.assessment,
        accuracy_lines=built.assessment.lines(build.budget) if built.assessment is not None else [],
        coverage=built.coverage,
        latency=built.latency,
        reverted=built.reverted,
        budget=build.budget_text,
        missed=built.missed,
        notes=built.notes,
        sensitivity=build.sensitivity,
    )


def _picture(report: BuildReport, request: Request) -> str:
    from irc.report.sensitivity_plot import sensitivity_plot

    factor = request.keep_float_above
    return sensitivity_plot(
        report.sensitivity,
        subtitle=f"{report.source.name}, {report.data}",
        left=report.left_in_float(),
        thresholds=thresholds(report.sensitivity, factor) if factor is not None else None,
        factor=factor,
    )


def _texts(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
