"""Recipes: a pipeline with its objective and budget, from a level (`-O2`), a YAML file or `--passes`.

    # recipe.yaml
    extends: O2                     # optional: start from a level
    pipeline: [fold-batch-norm, {quantize: {exclude: "op:Gemm"}}]     # or pipeline text; a level is an item too: O1
    objective: latency              # or bytes
    budget: {max_drop: 0.5%, min_speedup: 1.3, target_size: 5MB}
    target: ort
    include: ["module:encoder"]
    exclude: []

A level has a budget; an explicit pipeline has none unless one is given, and is then obeyed: checked and reported, never vetoed.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irc import pipeline
from irc.errors import UsageError
from irc.pipeline import Step

_ROUND = (
    "fold-constants",
    "fold-reshape-shape",
    "unroll-loop",
    "eliminate-unused-body-values",
    "eliminate-no-op-shape",
    "eliminate-no-op-arithmetic",
    "eliminate-no-op-selection",
    "eliminate-double-negation",
    "eliminate-inverse-concat",
    "merge-casts",
    "merge-slices",
    "merge-concats",
    "merge-pads",
    "merge-arithmetic",
    "merge-reshaped-transposes",
    "merge-reshapes",
    "merge-transposes",
    "merge-clips",
    "merge-duplicate-initializers",
    "merge-common-subexpressions",
)
"""What may open the way for one another."""
_ROUNDS = 4
_FUSIONS = (
    "fuse-layer-normalization",
    "fuse-rms-normalization",
    "fuse-gelu",
    "fuse-hard-swish",
    "fuse-mish",
    "fuse-attention",
)
"""Before `fold-affine`, which would take their constants away."""
LOSSLESS = ",".join(
    (
        "eliminate-identity",
        "eliminate-dropout",
        "resolve-cast-like",
        *_ROUNDS * _ROUND,
        *_FUSIONS,
        "fold-pad",
        "fold-batch-norm",
        "fold-affine",
        "fold-batch-norm",
        "fuse-matmul-add",
        "separate-residual-add",
        "merge-duplicate-initializers",
        "eliminate-dead-code",
    )
)
PRUNING = "prune-channels{{loss={:g},round_to=int8}}"
LOSS = 0.005
"""Half of the loss that `-O3` may cost by default; the other half is for what quantization adds."""
_LEVELS = {
    "O0": "load, check, save",
    "O1": "lossless",
    "O2": "lossless, then int8 for latency",
    "O3": "-O2 with channels cut and repaired before int8",
}
_LATER = {"Os": "weight sharing"}
_KEYS = ("extends", "pipeline", "objective", "budget", "target", "include", "exclude")
_BUDGET_KEYS = ("max_drop", "min_speedup", "target_size")
DEFAULT_MAX_DROP = "1%"
DEFAULT_MIN_SPEEDUP = 1.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to run and what the result must satisfy.

    Attributes:
        name: The level, the file name, or "passes".
        steps: The pipeline as written, nothing inserted yet.
        objective: What the search prefers among candidates within the budget.
        max_drop: Largest loss allowed, as written ("1%", "0.5pt"); None means no accuracy budget.
        min_speedup: Smallest original/artifact latency ratio; None means no speed budget.
        target_size: Largest artifact, as written ("5MB"); None means no size budget.
        target: Target as written; None where the recipe does not say.
        include: Selectors.
        exclude: Selectors.
        second_choice: Steps to try instead where most of what the first do has to be taken back.
        never_worse: Whether passes that make the model larger are left out, and an artifact that is slower than the
            original gives way to it.
    """

    name: str
    steps: tuple[Step, ...]
    objective: str = "latency"
    max_drop: str | None = None
    min_speedup: float | None = None
    target_size: str | None = None
    target: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    second_choice: tuple[Step, ...] = ()
    never_worse: bool = False

    @property
    def has_budget(self) -> bool:
        """Whether the guard may veto."""
        return any(value is not None for value in (self.max_drop, self.min_speedup, self.target_size))


def level(name: str, *, has_data: bool) -> Recipe:
    """The built-in recipe of a level.

    Args:
        name: "O0", "O1", "O2" or "O3".
        has_data: With data, `O2` is calibrated static int8; without, dynamic int8 of MatMul and Gemm and int8
            storage of other weights. `O3` needs data.

    Raises:
        UsageError: If the level is unknown or not in this version.
    """
    if name in _LATER:
        raise UsageError(f"-{name} ({_LATER[name]}) is not in this version of irc; use -O2")
    if name not in _LEVELS:
        raise UsageError(f"unknown level {name!r}; levels are {', '.join(f'-{k} ({v})' for k, v in _LEVELS.items())}")
    if name == "O0":
        return Recipe("-O0", ())
    if name == "O1":
        return Recipe("-O1", tuple(pipeline.parse(LOSSLESS)), never_worse=True)
    lossy = (
        "pool-spatial-mean,smooth-activations,quantize,correct-bias,quantize-weights{rest=true}"
        if has_data
        else "quantize-dynamic,quantize-weights"
    )
    second = f"{LOSSLESS},quantize-dynamic" if has_data else ""
    if name == "O3":
        if not has_data:
            raise UsageError("-O3 prunes and repairs by data; give --data, or use -O2")
        lossy, second = f"{PRUNING.format(LOSS)},{lossy}", f"{LOSSLESS},{lossy}"
    return Recipe(
        f"-{name}",
        tuple(pipeline.parse(f"{LOSSLESS},{lossy}")),
        max_drop=DEFAULT_MAX_DROP,
        min_speedup=DEFAULT_MIN_SPEEDUP,
        second_choice=tuple(pipeline.parse(second)) if second else (),
        never_worse=True,
    )


def with_budget(recipe: Recipe, budget: Mapping[str, Any]) -> Recipe:
    """A recipe with another budget: pruning of `-O3` may then spend half of the loss that it allows.

    Args:
        recipe: Any.
        budget: Fields of `Recipe` that change.
    """
    from irc.judge.budget import Budget

    changed = dataclasses.replace(recipe, **budget)
    if recipe.name != "-O3" or recipe.max_drop == changed.max_drop or changed.max_drop is None:
        return changed
    drop = Budget.parse(max_drop=changed.max_drop).max_drop
    assert drop is not None
    default = pipeline.parse(PRUNING.format(LOSS))[0]
    (wanted,) = pipeline.parse(PRUNING.format(min(max(drop / 2, 1e-6), 0.99)))
    steps = tuple(wanted if step.pass_ == default.pass_ else step for step in changed.steps)
    return dataclasses.replace(changed, steps=steps)


def steps_of(items: Sequence[object], *, has_data: bool) -> tuple[list[Step], Recipe | None]:
    """The steps of a pipeline in which a level may stand for its passes: `fx-drop-training-branches{heads=aux},O2`.

    Args:
        items: Pipeline texts, passes, steps.
        has_data: As `level` takes it.

    Returns:
        The steps, and the level among them, whose budget then holds; None without.

    Raises:
        UsageError: If there are several levels.
    """
    from irc.expansion import as_steps

    steps: list[Step] = []
    found: Recipe | None = None
    for item in items:
        for part in pipeline.split_calls(item, what="pipeline") if isinstance(item, str) else [item]:
            name = part.strip().lstrip("-") if isinstance(part, str) else ""
            if name in _LEVELS or name in _LATER:
                if found is not None:
                    raise UsageError(f"the pipeline has two levels, {found.name} and -{name}; each has all its passes")
                found = level(name, has_data=has_data)
                steps += found.steps
            else:
                steps += as_steps([part])
    if not steps and found is None and any(isinstance(item, str) for item in items):
        raise UsageError("the pipeline is empty; `irc passes` lists the passes")
    return steps, found


def load(path: Path, *, has_data: bool) -> Recipe:
    """Reads a YAML recipe.

    Raises:
        UsageError: If the file is missing, is not YAML, or has an unknown key; the message names file and key.
    """
    import yaml

    from irc.judge.budget import parse_speedup

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, Mapping):
        raise UsageError(f"recipe {path} must be a mapping with keys {', '.join(_KEYS)}")
    _check_keys(document, _KEYS, f"recipe {path}")
    base = (
        level(str(document["extends"]).lstrip("-"), has_data=has_data)
        if "extends" in document
        else Recipe(path.name, ())
    )
    changes: dict[str, Any] = {"name": path.name}
    if "pipeline" in document:
        steps, inside = steps_of(_items(document["pipeline"], path), has_data=has_data)
        if inside is not None and "extends" in document:
            raise UsageError(f"recipe {path}: 'extends' and {inside.name} in the pipeline; keep one of them")
        base = inside or base
        changes["steps"] = tuple(steps)
        changes["second_choice"] = ()
        changes["never_worse"] = inside is not None
    elif "extends" not in document:
        raise UsageError(f"recipe {path} has neither 'pipeline' nor 'extends'")
    budget = document.get("budget") or {}
    if not isinstance(budget, Mapping):
        raise UsageError(f"recipe {path}: budget must be a mapping with keys {', '.join(_BUDGET_KEYS)}")
    _check_keys(budget, _BUDGET_KEYS, f"recipe {path}: budget")
    for key, value in budget.items():
        changes[key] = None if value is None else parse_speedup(value) if key == "min_speedup" else str(value)
    if "objective" in document:
        if document["objective"] not in ("latency", "bytes"):
            raise UsageError(f"recipe {path}: objective is {document['objective']!r}; it must be latency or bytes")
        changes["objective"] = document["objective"]
    if document.get("target"):
        changes["target"] = str(document["target"])
    for key in ("include", "exclude"):
        value = document.get(key) or ()
        if not isinstance(value, str | list | tuple):
            raise UsageError(f"recipe {path}: {key} is {value!r}; write a selector or a list of selectors")
        changes[key] = (value,) if isinstance(value, str) else tuple(map(str, value))
    own = {key: changes.pop(key) for key in list(changes) if key in _BUDGET_KEYS}
    return dataclasses.replace(with_budget(base, own), **changes)


def _items(value: Any, path: Path) -> list[object]:
    """The items of a pipeline as YAML has it: texts, and passes with their options."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise UsageError(f"recipe {path}: pipeline must be text or a list of passes")
    items: list[object] = []
    for item in value:
        if isinstance(item, str):
            items.append(item)
        elif isinstance(item, Mapping) and len(item) == 1:
            ((name, given),) = item.items()
            if not isinstance(given or {}, Mapping):
                raise UsageError(f"recipe {path}: {name} has {given!r}; write its options as {{option: value}}")
            items.append(pipeline.step(str(name), dict(given or {})))
        else:
            raise UsageError(f"recipe {path}: {item!r} is not a pass; write its name or name: {{option: value}}")
    return items


def _check_keys(document: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in document:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            raise UsageError(
                f"{where}: unknown key {key!r}; "
                + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")
            )
