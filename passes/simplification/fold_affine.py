"""Move scaling and shifting by constants into the weights of the operator before or behind.

    Add(Mul(Conv(x, W, b), s), t)   =>   Conv(x, W * s, b * s + t)             s, t: scalars or one per output channel
    Conv(Div(x, s), W, b)           =>   Conv(x, W / s, b)                     s: scalar or one per input channel
    Gemm(Sub(x, t), W, b)           =>   Gemm(x, W, b - t @ W)                 also Conv, if it does not pad
    Mul(Add(MatMul(x, W), b), s)    =>   Add(MatMul(x, W * s), b * s)
    BatchNormalization(Mul(x, s))   =>   BatchNormalization(x)                 gamma * s, mean / s

The same for ConvTranspose, except for shifts before it, and for MatMul without bias as far as only scaling goes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.errors import PassOptionError
from irc.ir import add_initializer, constant_tensor, only_consumer
from irc.ir.redundancy import varint_bytes
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.affine import MIN_OPSET, Affine, affine_of
from irc.passes.simplification.affine_host import Host, Slot, host_of
from irc.passes.simplification.linear_operator import dims_of
from irc.passes.simplification.node_size import NAME_SUFFIX
from irc.passes.simplification.pass_through import pass_through
from irc.passes.simplification.unused import remove_unused
from irc.passes.simplification.written_out import ended_by


@dataclasses.dataclass(frozen=True, eq=False)
class _Fold:
    """One affine node beside the operator that takes it in.

    Attributes:
        host: What has weights.
        affine: The node that goes.
        behind: Whether it comes after the host.
    """

    host: Host
    affine: Affine
    behind: bool


@dataclasses.dataclass(frozen=True)
class FoldAffine(Pass):
    """Saves additions, subtractions, multiplications and divisions by constants around operators that have weights.

    New weights are computed in float32 (float64 where they are float64), those above 1 MiB when they are read; biases in
    float64. A weight that others use stays, and the new one is stored beside it, if the model does not grow by it. What ends
    a normalization or Gelu that the runtime fuses stays too: the fused kernel saves more.

    Attributes:
        max_bytes: How many bytes one fold may add to the model, at least 0. The default, 0, lets no fold make it larger.

    Raises:
        PassOptionError: If max_bytes is negative.
    """

    name: ClassVar[str] = "fold-affine"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    max_bytes: int = 0

    def __post_init__(self) -> None:
        if self.max_bytes < 0:
            raise PassOptionError(f"fold-affine: option max_bytes is {self.max_bytes}; it must be at least 0")

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every affine node behind or before an operator that can take it in, or why it cannot."""
        opset = model.graph.opset_imports.get("", 0)
        if opset < MIN_OPSET:
            return
        for node in model.graph.all_nodes():
            again = True
            while again:  # several may stand in a row
                again = False
                for fold in _neighbours(node):
                    tensors = self._constants(fold, opset)
                    if isinstance(tensors, str):
                        yield Skip(fold.affine.node, tensors)
                    else:
                        yield Site(fold.affine.node, match=(fold, tensors))
                    if fold.affine.node.graph is None:
                        again = True
                        break

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Gives the host new weights and takes the affine node out of the way."""
        fold: _Fold
        tensors: dict[Slot, ir.TensorProtocol]
        fold, tensors = site.match
        host, affine = fold.host, fold.affine
        graph = host.node.graph
        assert isinstance(graph, ir.Graph)
        released = [affine.constant]
        for (node, index), tensor in tensors.items():
            old = _input(node, index)
            value = add_initializer(graph, _hint(fold, old), tensor)
            if index >= len(node.inputs):
                node.resize_inputs(index + 1)
            node.replace_input_with(index, value)
            if old is not None:
                released.append(old)
        if (host.node, 2) in tensors:
            host.node.attributes.pop("beta", None)
        if fold.behind:
            pass_through(affine.node, host.last.outputs[0])
        else:
            host.node.replace_input_with(0, affine.source)
            graph.remove(affine.node, safe=True)
        remove_unused(released)
        return None

    def _constants(self, fold: _Fold, opset: int) -> dict[Slot, ir.TensorProtocol] | str:
        """The new constants of the host, or why the affine node must stay."""
        host, node = fold.host, fold.affine.node
        between, user = (host.last, node) if fold.behind else (node, host.node)
        if node.graph is not host.node.graph:
            return f"it is in another graph than the {host.node.op_type}"
        if not only_consumer(between.outputs[0], user):
            return f"the output of the {between.op_type} has other users"
        if (reason := host.why_not(fold.affine, behind=fold.behind, opset=opset)) is not None:
            return reason
        if (what := ended_by(fold.affine)) is not None:
            return f"it ends a {what} that is written out, which the runtime computes in one kernel"
        tensors = host.changed(fold.affine, behind=fold.behind)
        if isinstance(tensors, dict) and (growth := _growth(fold, tensors)) > self.max_bytes:
            return (
                f"the weights of its own that the {host.node.op_type} needs would make the model {growth} bytes larger"
            )
        return tensors


def _neighbours(node: ir.Node) -> Iterator[_Fold]:
    """The affine nodes behind and before a host; whether they fit is another question."""
    host = host_of(node)
    if host is None:
        return
    for use in list(host.last.outputs[0].uses()):
        behind = affine_of(use.node)
        if behind is not None and behind.source is host.last.outputs[0]:
            if host.node.op_type != "MatMul" or host.bias is not None or behind.scales:
                yield _Fold(host, behind, behind=True)
            break
    source = host.node.inputs[0]
    before = affine_of(source.producer() if source is not None else None)
    if before is not None:
        yield _Fold(host, before, behind=False)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _hint(fold: _Fold, old: ir.Value | None) -> str:
    """What a new constant is called: as the one it replaces, or as the constant that becomes a bias."""
    if old is not None:
        return old.name or "weight"
    constant = fold.affine.constant
    return constant.name if constant.name and only_consumer(constant, fold.affine.node) else "bias"


def _growth(fold: _Fold, tensors: dict[Slot, ir.TensorProtocol]) -> int:
    """Bytes by which the model grows, at most."""
    affine = fold.affine
    growth = 0
    for (node, index), tensor in tensors.items():
        old = _input(node, index)
        growth += _stored(_hint(fold, old), tensor) + 2 * NAME_SUFFIX
        if old is not None:
            growth -= _mentioned(old) + (_unstored(old) if only_consumer(old, node) else 0)
    if only_consumer(affine.constant, affine.node):
        growth -= _unstored(affine.constant)
    output, between = affine.node.outputs[0], fold.host.last.outputs[0]
    growth -= 4 + len(affine.node.op_type) + _mentioned(affine.constant)
    if not fold.behind:
        return growth - 2 * _mentioned(output)
    if output.is_graph_output():  # the host takes over its name
        return growth - 2 * _mentioned(between)
    users = len(output.uses())
    return growth - _mentioned(between) - _mentioned(output) + users * (_mentioned(between) - _mentioned(output))


def _mentioned(value: ir.Value) -> int:
    return 2 + len(value.name or "")


def _stored(name: str, tensor: ir.TensorProtocol) -> int:
    """Bytes of an initializer and of its mention in one node."""
    return 2 * (len(name) + 2) + 6 + tensor.nbytes + _dimension_bytes(tensor)


def _unstored(value: ir.Value) -> int:
    """Bytes of an initializer alone."""
    tensor = constant_tensor(value)
    assert tensor is not None
    return len(value.name or "") + 8 + tensor.nbytes + _dimension_bytes(tensor)


def _dimension_bytes(tensor: ir.TensorProtocol) -> int:
    return sum([1 + varint_bytes(d) for d in dims_of(tensor)])
