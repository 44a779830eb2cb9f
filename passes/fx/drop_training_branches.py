"""Drops what only training needs from the graph of a PyTorch module: dropout, and auxiliary heads by name.

    dropout(x, p, train=False)  ->  x
    (logits, aux_logits)        ->  (logits,)        aux_logits computed in a module named in `heads`

Networks such as Inception, GoogLeNet and many segmentation nets carry auxiliary classifiers that help training and cost
time afterwards. An output that a named module computed (it, or a module inside it) leaves the interface, with everything
that only it needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from irc.errors import UsageError
from irc.pass_base import Context, Contract, Site, Skip
from irc.trace import FxPass, FxSite, FxSkip, drop_outputs, module_of, output_names, output_node

if TYPE_CHECKING:
    from torch import fx

_DROPOUTS = ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")


@dataclasses.dataclass(frozen=True)
class FxDropTrainingBranches(FxPass):
    """Drops dropout, and the outputs of auxiliary heads by module name, from the graph of a PyTorch module.

    Attributes:
        heads: Paths of modules whose outputs are dropped, such as `aux1+aux2`; none by default.
    """

    heads: tuple[str, ...] = ()

    name = "fx-drop-training-branches"
    contract = Contract.EXACT

    def sites(self, model: fx.GraphModule, ctx: Context) -> Iterator[Site | Skip]:  # type: ignore[override]
        """Yields every dropout, and every output of a head.

        Raises:
            UsageError: If there is no module of a name, or it computes no output: a typo would be a silent no-op.
        """
        from torch import fx

        for node in list(model.graph.nodes):
            if _is_dropout(node):
                trains = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("train"))
                yield FxSkip(node, "it drops values at random, as in training") if trains else FxSite(node)
        for head in self.heads:
            if head in output_node(model).meta.get("irc.dropped_heads", ()):
                continue
            results = output_node(model).args[0]
            outputs = dict(zip(output_names(model), results, strict=True))  # type: ignore[arg-type]
            mine = {
                name: result
                for name, result in outputs.items()
                if isinstance(result, fx.Node) and _is_inside(module_of(result), head)
            }
            if not mine:
                modules = sorted({module_of(r) for r in outputs.values() if isinstance(r, fx.Node)} - {""})
                raise UsageError(
                    f"{self.name}: no output is computed in a module {head!r}; the outputs come from "
                    f"{', '.join(modules) or 'the outermost module'}"
                )
            if len(mine) == len(outputs):
                raise UsageError(f"{self.name}: module {head!r} computes every output; nothing would be left")
            yield FxSite(next(iter(mine.values())), (head, list(mine)))

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Replaces a dropout by its input, or takes the outputs of a head away."""
        node: fx.Node = site.fx_node  # type: ignore[attr-defined]
        graph_module = node.graph.owning_module
        assert graph_module is not None
        if site.match is None:
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            node.graph.erase_node(node)
            return None
        head, names = site.match
        drop_outputs(graph_module, names)
        meta = output_node(graph_module).meta
        meta["irc.dropped_heads"] = (*meta.get("irc.dropped_heads", ()), head)
        graph_module.graph.eliminate_dead_code()
        return None


def _is_dropout(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.name.removeprefix("aten::") in _DROPOUTS


def _is_inside(module: str, head: str) -> bool:
    return module == head or module.startswith(head + ".")
