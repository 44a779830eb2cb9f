"""Torch-Pruning 1.6 on an ONNX file without training: every criterion and scope worth trying, stopped at shares of MACs.

    for pruned in prune(onnx.load("model.onnx"), images, [0.67, 0.5]):
        pruned.model, pruned.reestimated   # two ONNX files: as Torch-Pruning leaves it, and with BatchNorm re-estimated

The peer is given what helps it: criteria and scopes with and without the layers that residual additions couple; weights at unit deviation
in front of an inserted BatchNorm, as `onnx_as_torch.py` does it (l2 on resnet20 at 1.5x, first 1000 images: .49 against .32 with the file's
folded weights); and pruning stops between two groups at whichever side of the budget is nearer. Weight criteria look at Conv and Linear
only, `l2-norms` at the norms too, as is Torch-Pruning's default, `bn-scale` at the norms alone. Taylor's labels are the model's own
decisions, since calibration data have none, and its gradients are taken anew whenever another tenth of the MACs is gone.

Left out: GroupHessian and OBDC, which need a gradient per sample whenever weights change; transformers, since Torch-Pruning works on
modules whose heads it is told by attributes patched per model, prunes nothing
of GPT-2's Conv1D and raises on wav2vec2's weight_norm (1.6.1).
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx

BATCH = 128
STEPS = 100
LARGEST_CUT = 0.9
REFRESH = 0.1
"""Share of the original's MACs that goes before gradients are taken anew."""
LOCAL, GLOBAL, ISOMORPHIC = "local", "global", "isomorphic"
ALL, UNCOUPLED = "all layers", "uncoupled layers"
CONFIGURATIONS = (
    ("l2", LOCAL, UNCOUPLED),
    ("l2-max", LOCAL, UNCOUPLED),
    ("taylor", LOCAL, UNCOUPLED),
    ("l2-norms", LOCAL, UNCOUPLED),
    ("l1", LOCAL, UNCOUPLED),
    ("fpgm", LOCAL, UNCOUPLED),
    ("bn-scale", LOCAL, UNCOUPLED),
    ("random", LOCAL, UNCOUPLED),
    ("l2", GLOBAL, UNCOUPLED),
    ("l2-max", GLOBAL, UNCOUPLED),
    ("taylor", GLOBAL, UNCOUPLED),
    ("lamp", GLOBAL, UNCOUPLED),  # within one layer it ranks as l2 does
    ("l2", LOCAL, ALL),
    ("taylor", LOCAL, ALL),
    ("random", LOCAL, ALL),
    ("l2", GLOBAL, ALL),
    ("taylor", GLOBAL, ALL),
    ("taylor", ISOMORPHIC, ALL),
)
"""Criterion, scope and layers; those that do well on the zoo's models come first."""
CRITERIA = tuple(dict.fromkeys(criterion for criterion, _scope, _layers in CONFIGURATIONS))


@dataclasses.dataclass
class Pruned:
    """One result.

    Attributes:
        label: Criterion, scope and layers: "l2 global, uncoupled".
        share: The share of MACs that was asked for.
        model: The pruned file.
        reestimated: The same after BatchNorm re-estimation.
        seconds: From the file to `model`.
        norm_seconds: What re-estimation took on top.
    """

    label: str
    share: float
    model: onnx.ModelProto
    reestimated: onnx.ModelProto
    seconds: float
    norm_seconds: float


def missing() -> str | None:
    """Why the peer cannot run here, or None."""
    absent = [name for name in ("torch", "torch_pruning") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed: pip install torch torch-pruning==1.6.1" if absent else None


def prune(
    model: onnx.ModelProto,
    images: np.ndarray[Any, Any],
    shares: Sequence[float],
    *,
    criteria: Sequence[str] = CRITERIA,
    seed: int = 0,
) -> Iterator[Pruned]:
    """Yields every configuration at every share of MACs, largest share first.

    Args:
        model: One input, one output, convolutional.
        images: Calibration images [N, C, H, W] without labels.
        shares: Of MACs that stay.
        criteria: Which of `CRITERIA`.
        seed: Of the random criterion.

    Raises:
        onnx_as_torch.Unsupported: If the file cannot be translated.
    """
    import torch
    from onnx_as_torch import OnnxModule

    batches = torch.tensor(images).split(BATCH)
    original = OnnxModule(model)
    original.insert_norms(batches)
    with torch.no_grad():
        labels = torch.cat([original(batch).argmax(-1) for batch in batches]).split(BATCH)
    coupled = _coupled(original, batches[0][:1])
    for criterion, scope, layers in CONFIGURATIONS:
        if criterion not in criteria:
            continue
        torch.manual_seed(seed)
        ignored = coupled if layers == UNCOUPLED else []
        run = _Trajectory(copy.deepcopy(original), criterion, scope, ignored, batches, labels)
        for share in sorted(shares, reverse=True):
            try:
                network, seconds = run.down_to(share)
            except _Exhausted:
                break
            plain = network.to_onnx()
            start = time.perf_counter()
            network.reestimate_norms(batches)
            again = time.perf_counter() - start
            yield Pruned(f"{criterion} {scope}, {layers}", share, plain, network.to_onnx(), seconds, again)


class _Exhausted(Exception):
    """There is nothing left that this configuration may prune."""


class _Trajectory:
    """One pruner on its way down; `down_to` may be called with ever smaller shares."""

    def __init__(
        self,
        network: Any,
        criterion: str,
        scope: str,
        ignored: list[str],
        batches: Sequence[Any],
        labels: Sequence[Any],
    ) -> None:
        import torch_pruning

        self._network, self._batches, self._labels = network, batches, labels
        self._gradients = criterion == "taylor"
        self._positions = _positions(network, batches[0][:1])
        self._whole = self._refreshed = self._macs()
        self._seconds = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._pruner = torch_pruning.pruner.BasePruner(
                network,
                batches[0][:1],
                importance=_importance(criterion),
                global_pruning=scope != LOCAL,
                isomorphic=scope == ISOMORPHIC,
                pruning_ratio=LARGEST_CUT,
                max_pruning_ratio=LARGEST_CUT,
                iterative_steps=STEPS,
                ignored_layers=[network.layers[key] for key in ignored] + [network.classifier],
                in_channel_groups={},
                out_channel_groups={},
                num_heads={},
            )
        self._groups = iter(())

    def _macs(self) -> int:
        return sum(self._network.layers[key].weight.numel() * n for key, n in self._positions.items())

    def down_to(self, share: float) -> tuple[Any, float]:
        """A copy of the network nearest to this share of the MACs, and the seconds from the start."""
        start, target = time.perf_counter(), share * self._whole
        before = copy.deepcopy(self._network)
        above = self._macs()
        for group in self._remaining():
            if (above := self._macs()) < target + 0.1 * self._whole:
                before = copy.deepcopy(self._network)
            group.prune()
            if self._macs() <= target:
                break
        else:
            raise _Exhausted
        self._seconds += time.perf_counter() - start
        nearer = before if above - target < target - self._macs() else copy.deepcopy(self._network)
        nearer.zero_grad()
        return nearer, self._seconds

    def _remaining(self) -> Iterator[Any]:
        """Groups to prune; each must be pruned before the next is taken."""
        while True:
            yield from self._groups
            if self._pruner.current_step >= STEPS:
                return
            if self._gradients and (
                self._pruner.current_step == 0 or self._macs() < self._refreshed - REFRESH * self._whole
            ):
                self._refreshed = self._macs()
                self._differentiate()
            self._groups = self._pruner.step(interactive=True)

    def _differentiate(self) -> None:
        import torch

        self._network.zero_grad()
        for batch, label in zip(self._batches, self._labels, strict=True):
            torch.nn.functional.cross_entropy(self._network(batch), label).backward()


def _importance(criterion: str) -> Any:
    from torch import nn
    from torch_pruning.pruner import importance

    weights = [nn.Conv2d, nn.Linear]
    made: dict[str, Callable[[], Any]] = {
        "l2": lambda: importance.GroupMagnitudeImportance(p=2, target_types=weights),
        "l2-max": lambda: importance.GroupMagnitudeImportance(p=2, group_reduction="max", target_types=weights),
        "l2-norms": lambda: importance.GroupMagnitudeImportance(p=2),
        "l1": lambda: importance.GroupMagnitudeImportance(p=1, target_types=weights),
        "lamp": lambda: _only(importance.LAMPImportance(), weights),
        "fpgm": lambda: _only(importance.FPGMImportance(), weights),
        "bn-scale": importance.BNScaleImportance,
        "taylor": lambda: importance.GroupTaylorImportance(target_types=weights),
        "random": importance.RandomImportance,
    }
    return made[criterion]()


def _only(importance: Any, types: list[Any]) -> Any:
    importance.target_types = types
    return importance


def _positions(network: Any, example: Any) -> dict[str, int]:
    """How often each layer's weight is applied: MACs are this times its elements, however many channels it loses."""
    import torch

    found: dict[str, int] = {}
    hooks = [
        layer.register_forward_hook(lambda _m, _x, y, key=key: found.update({key: y.numel() // y.shape[1]}))
        for key, layer in network.layers.items()
    ]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return found


def _coupled(network: Any, example: Any) -> list[str]:
    """Keys of layers whose output channels can only go together with another layer's, as a residual addition's do."""
    import torch_pruning

    network = copy.deepcopy(network)
    keys = {layer: key for key, layer in network.layers.items()}
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=example)
    found: dict[str, None] = {}
    for group in graph.get_all_groups(
        ignored_layers=[network.classifier], root_module_types=[*{type(m) for m in keys}]
    ):
        makers = {
            keys[dep.target.module]: None
            for dep, _ in group
            if dep.target.module in keys
            and graph.is_out_channel_pruning_fn(dep.handler)
            and getattr(dep.target.module, "groups", 1) == 1
        }
        if len(makers) > 1:
            found |= makers
    return list(found)
