"""Folds batch normalization into the convolution before it, in the PyTorch graph.

    batch_norm(conv(x, w, b), gamma, beta, mean, var, eps)  ->  conv(x, w * s, (b - mean) * s + beta),  s = gamma / sqrt(var + eps)

`s` has one element per output channel: axis 0 of the weight `[C_out, C_in / groups, ...]` of a convolution, axis 1 within
each group of the weight `[C_in, C_out / groups, ...]` of a transposed one. Computed in double precision and rounded once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from irc.pass_base import Context, Contract, Site, Skip
from irc.trace import FxPass, FxSite, FxSkip, add_attribute, attribute

if TYPE_CHECKING:
    import torch
    from torch import fx

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


@dataclasses.dataclass(frozen=True)
class FxFoldBatchNorm(FxPass):
    """Folds batch normalization into the convolution before it, in the graph of a PyTorch module."""

    name = "fx-fold-batch-norm"
    contract = Contract.ROUNDING

    def sites(self, model: fx.GraphModule, ctx: Context) -> Iterator[Site | Skip]:  # type: ignore[override]
        """Yields every batch normalization of inference behind a convolution."""
        for node in list(model.graph.nodes):
            if _operation(node) != "batch_norm":
                continue
            found = _match(model, node)
            yield FxSkip(node, found) if isinstance(found, str) else FxSite(node, found)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Gives the convolution new parameters and removes the normalization."""
        node: fx.Node = site.fx_node  # type: ignore[attr-defined]
        match: _Match = site.match
        convolution = match.convolution
        graph_module = node.graph.owning_module
        assert graph_module is not None
        weight, bias = _folded(match)
        path = str(match.weight_node.target).rpartition(".")[0]
        with node.graph.inserting_before(convolution):
            made = []
            for hint, tensor in (("weight", weight), ("bias", bias)):
                target = add_attribute(graph_module, f"{path}.folded_{hint}" if path else f"folded_{hint}", tensor)
                made.append(node.graph.get_attr(target))
                made[-1].meta = dict(match.weight_node.meta)
        names = [argument.name for argument in convolution.target._schema.arguments]  # type: ignore[union-attr]
        values = {name: _argument(convolution, name) for name in names} | {"weight": made[0], "bias": made[1]}
        convolution.args, convolution.kwargs = tuple(values.values()), {}
        node.replace_all_uses_with(convolution)
        node.graph.erase_node(node)
        for unused in (match.weight_node, match.bias_node, *match.statistics_nodes):
            if unused is not None and not unused.users:
                node.graph.erase_node(unused)
        return None


@dataclasses.dataclass(frozen=True)
class _Match:
    """A convolution and the normalization behind it, with the tensors of both."""

    convolution: fx.Node
    weight_node: fx.Node
    bias_node: fx.Node | None
    statistics_nodes: tuple[fx.Node, ...]
    weight: torch.Tensor
    bias: torch.Tensor | None
    gamma: torch.Tensor | None
    beta: torch.Tensor | None
    mean: torch.Tensor
    variance: torch.Tensor
    epsilon: float
    groups: int


def _operation(node: fx.Node) -> str:
    """Name of an ATen operation; "" for anything else."""
    schema = getattr(node.target, "_schema", None)
    name = schema.name if node.op == "call_function" and schema is not None else ""
    return name.removeprefix("aten::") if name.startswith("aten::") else ""


def _argument(node: fx.Node, name: str) -> Any:
    """An argument of an operation by the name it has in the schema, or its default."""
    for place, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name == name:
            if place < len(node.args):
                return node.args[place]
            return node.kwargs.get(name, argument.default_value)
    return None


def _match(model: fx.GraphModule, node: fx.Node) -> _Match | str:
    """What there is to fold, or why not."""
    from torch import fx

    convolution = node.args[0]
    if not isinstance(convolution, fx.Node) or _operation(convolution) not in (*_CONVOLUTIONS, *_TRANSPOSED):
        return "it is not behind a convolution"
    if _argument(node, "training"):
        return "it normalizes by the batch, as in training"
    if len(convolution.users) > 1:
        return "the convolution has other consumers"
    if isinstance(_argument(convolution, "padding"), str):
        return "the convolution spells its padding as text"
    nodes = {name: _argument(convolution, name) for name in ("weight", "bias")}
    nodes |= {name: _argument(node, name) for name in ("running_mean", "running_var")}
    nodes |= {"gamma": _argument(node, "weight"), "beta": _argument(node, "bias")}
    tensors: dict[str, Any] = {}
    for name, found in nodes.items():
        if found is not None and (not isinstance(found, fx.Node) or found.op != "get_attr"):
            return f"its {name.replace('_', ' ')} is computed"
        tensors[name] = attribute(model, found) if found is not None else None
    if tensors["running_mean"] is None or tensors["running_var"] is None:
        return "it has no running statistics"
    weight_node = nodes["weight"]
    assert isinstance(weight_node, fx.Node)
    return _Match(
        convolution,
        weight_node,
        nodes["bias"],
        tuple(n for n in (nodes["gamma"], nodes["beta"], nodes["running_mean"], nodes["running_var"]) if n is not None),
        tensors["weight"],
        tensors["bias"],
        tensors["gamma"],
        tensors["beta"],
        tensors["running_mean"],
        tensors["running_var"],
        float(_argument(node, "eps")),
        int(_argument(convolution, "groups")),
    )


def _folded(match: _Match) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the convolution that also normalizes."""
    import torch

    with torch.no_grad():
        dtype = match.weight.dtype
        scale = 1 / torch.sqrt(match.variance.double() + match.epsilon)
        if match.gamma is not None:
            scale = scale * match.gamma.double()
        weight = match.weight.double()
        spatial = [1] * (weight.dim() - 2)
        if _operation(match.convolution) in _TRANSPOSED:
            inputs, outputs = weight.shape[0] // match.groups, weight.shape[1]
            grouped = weight.reshape(match.groups, inputs, *weight.shape[1:])
            weight = (grouped * scale.reshape(match.groups, 1, outputs, *spatial)).reshape(weight.shape)
        else:
            weight = weight * scale.reshape(-1, 1, *spatial)
        bias = match.bias.double() if match.bias is not None else torch.zeros_like(scale)
        bias = (bias - match.mean.double()) * scale
        if match.beta is not None:
            bias = bias + match.beta.double()
        return weight.to(dtype), bias.to(dtype)
