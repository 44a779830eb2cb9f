"""Passes over the `torch.fx` graph of a traced module: ours, and those written for PyTorch.

An FX pass has the two methods of any pass; its model is the `GraphModule` of ATen operations that
`irc.trace.program_graph.unlift` gives, with parameters as attributes. It is checked as ONNX passes are: module against
module on the example inputs.

    @dataclasses.dataclass(frozen=True)
    class RemoveDropout(FxPass):
        name = "remove-dropout"
        contract = Contract.EXACT

        def sites(self, model, ctx):
            for node in model.graph.nodes:
                if node.target is torch.ops.aten.dropout.default:
                    yield FxSite(node)

        def rewrite(self, site, ctx):
            site.fx_node.replace_all_uses_with(site.fx_node.args[0])
            site.fx_node.graph.erase_node(site.fx_node)

A `torch.fx.passes.infra` pass, or a function from GraphModule to GraphModule, is one site: `adapt_fx`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from irc.errors import ModelError, UsageError
from irc.ir import MODULE_KEY
from irc.pass_base import MODEL_SITE, Context, Contract, Pass, Site, Skip

if TYPE_CHECKING:
    import torch
    from torch import fx


@dataclasses.dataclass(frozen=True, eq=False)
class NodeView:
    """A node of an FX graph as selectors and the ledger see it.

    Attributes:
        fx_node: The node.
    """

    fx_node: fx.Node

    @property
    def name(self) -> str:
        """Name of the node."""
        return str(self.fx_node.name)

    @property
    def _target(self) -> list[str]:
        target = self.fx_node.target
        return str(target).split(".") if self.fx_node.op == "call_function" else [str(target)]

    @property
    def op_type(self) -> str:
        """The operation without namespace and overload: "conv2d"."""
        parts = self._target
        return parts[1] if len(parts) > 1 and hasattr(self.fx_node.target, "_schema") else parts[0]

    @property
    def domain(self) -> str:
        """The namespace of the operation: "aten"."""
        return self._target[0] if hasattr(self.fx_node.target, "_schema") else ""

    @property
    def outputs(self) -> tuple[()]:
        """Values have no names of their own here."""
        return ()

    @property
    def metadata_props(self) -> dict[str, str]:
        """The module the node came from."""
        path = module_of(self.fx_node)
        return {MODULE_KEY: path} if path else {}


def module_of(node: fx.Node) -> str:
    """Path of the module a node was traced in; "" for the outermost."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


class FxSite(Site):
    """One place in an FX graph where a pass applies."""

    def __init__(self, node: fx.Node | None, match: Any = None) -> None:
        super().__init__(_view(node), match, str(node.name) if node is not None else MODEL_SITE)

    @property
    def fx_node(self) -> fx.Node:
        """The anchor node."""
        view: NodeView = self.node  # type: ignore[assignment]
        return view.fx_node


class FxSkip(Skip):
    """One place in an FX graph where a pass looked and did not apply."""

    def __init__(self, node: fx.Node | None, reason: str) -> None:
        super().__init__(_view(node), reason, str(node.name) if node is not None else MODEL_SITE)


def _view(node: fx.Node | None) -> Any:
    return NodeView(node) if node is not None else None


class FxPass(Pass):
    """A pass over the graph of a traced PyTorch module; runs before it is lowered to ONNX."""

    representation: ClassVar[str] = "fx"
    invalidates: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def sites(self, model: fx.GraphModule, ctx: Context) -> Iterator[Site | Skip]:  # type: ignore[override]
        """Yields `FxSite` where the pass applies and `FxSkip` where it does not, without touching the graph."""


class ForeignFxPass(FxPass):
    """A pass written for PyTorch, as one site; subclasses are made by `adapt_fx`."""

    make: ClassVar[Callable[..., Any]]
    is_function: ClassVar[bool]
    contract = Contract.ROUNDING

    def sites(self, model: fx.GraphModule, ctx: Context) -> Iterator[Site | Skip]:  # type: ignore[override]
        """Yields the graph itself."""
        yield FxSite(None, match=model)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Runs the pass and takes over what it returns."""
        from torch import fx

        model: fx.GraphModule = site.match
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        before = _fingerprint(model)
        make: Any = type(self).make
        try:
            result = make(model, **options) if type(self).is_function else make(**options)(model)
        except SystemExit as error:
            raise RuntimeError(f"it called sys.exit({error.code})") from error
        found = getattr(result, "graph_module", result)
        if found is not None and not isinstance(found, fx.GraphModule):
            raise TypeError(f"it returned {type(found).__name__}; irc expects a torch.fx.GraphModule")
        if found is not None and found is not model:
            try:
                _adopt(model, found)
            except ModelError as error:
                raise ValueError(f"what it returned is not whole: {error}") from error
        return None if _fingerprint(model) != before else FxSkip(None, "nothing to do")


def _fingerprint(model: fx.GraphModule) -> tuple[Any, ...]:
    """What a rewrite changes: the nodes with their arguments, which tensors they read, and what is in these."""
    import zlib

    nodes = [(n.op, str(n.target), str(n.args), str(n.kwargs), n.name) for n in model.graph.nodes]
    tensors = [
        (name, id(tensor), zlib.crc32(tensor_bytes(tensor).numpy().data))
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    ]
    return (nodes, tensors)


def tensor_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, in which NaN equals itself."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        return torch.tensor([id(tensor)]).view(
            torch.uint8
        )  # neither has bytes of its own; no pass of torch writes into one
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _adopt(model: fx.GraphModule, other: fx.GraphModule) -> None:
    """Makes `model` what another graph module is; the outputs keep their names."""
    from irc.trace.program_graph import attribute, output_node, set_attribute

    names = output_node(model).meta
    for node in other.graph.nodes:
        if node.op == "get_attr":
            set_attribute(model, str(node.target), attribute(other, node))
    model.graph = other.graph
    node = output_node(model)
    node.meta = {**names, **node.meta}


def is_foreign_fx_pass(item: Any) -> bool:
    """Whether an object is a pass of `torch.fx`, its class, or a function that takes a GraphModule; torch is not imported."""
    infra = sys.modules.get("torch.fx.passes.infra.pass_base")
    if infra is not None and (
        isinstance(item, infra.PassBase) or (inspect.isclass(item) and issubclass(item, infra.PassBase))
    ):
        return True
    return inspect.isfunction(item) or isinstance(item, functools.partial)


def fx_pass_class(item: Any, name: str) -> type[FxPass]:
    """The class of an irc pass that runs a foreign one.

    Its options are the keyword parameters with a default, of type bool, int, float or str.

    Args:
        item: A subclass of `torch.fx.passes.infra.pass_base.PassBase`, or a function whose first parameter is the GraphModule.
        name: What the pass is called.
    """
    is_function = not inspect.isclass(item)
    parameters = list(inspect.signature(item).parameters.values())
    if is_function and not parameters:
        raise UsageError(
            f"{name}: {item.__name__}() takes no GraphModule; an FX pass is a function from GraphModule to GraphModule"
        )
    fields = [
        (p.name, type(p.default), dataclasses.field(default=p.default))
        for p in parameters[1 if is_function else 0 :]
        if isinstance(p.default, bool | int | float | str) and not hasattr(ForeignFxPass, p.name) and p.name != "name"
    ]
    namespace = {
        "name": name,
        "make": staticmethod(item),
        "is_function": is_function,
        "__doc__": inspect.getdoc(item) or f"Runs {name}.",
    }
    contract = getattr(item, "contract", None)
    if contract is not None:
        namespace["contract"] = Contract(contract)
    made: type[FxPass] = dataclasses.make_dataclass(
        _camel(name), fields, bases=(ForeignFxPass,), frozen=True, namespace=namespace
    )
    made.__module__ = getattr(item, "__module__", made.__module__)
    return made


def adapt_fx(item: Any) -> FxPass:
    """A foreign pass, or an instance of one, as one of ours."""
    if inspect.isclass(item) or inspect.isfunction(item):
        return fx_pass_class(item, dashed(item.__name__))()
    target = item.func if isinstance(item, functools.partial) else item
    name = dashed(getattr(target, "__name__", type(target).__name__))
    return fx_pass_class(_calling(item), name)()


def _calling(item: Any) -> Callable[[Any], Any]:
    def call(graph_module: Any) -> Any:
        return item(graph_module)

    call.__doc__ = inspect.getdoc(item)
    if (contract := getattr(item, "contract", None)) is not None:
        call.contract = contract  # type: ignore[attr-defined]
    return call


def dashed(name: str) -> str:
    """`RemoveDropoutPass` and `remove_dropout` as `remove-dropout`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name.removesuffix("Pass"))
    return words.replace("_", "-").strip("-").lower()


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in re.split(r"\W+|_", name) if word)
