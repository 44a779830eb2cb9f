"""Passes written for other frameworks, run by our manager: `onnx_ir` passes whole, `onnxscript` rules site by site.

An `onnx_ir` pass is opaque: one site, verified, undone as a whole. A rewrite rule of `onnxscript` shows its matches, so
each is a site of its own: selected, counted, verified, and bisected like ours. Two defects of the rules' own driver are
closed here: initializers and intermediate values get names that are free (onnxscript issue 2079), and a rule that keeps its matched
nodes cannot match them again.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from irc.errors import UsageError
from irc.ir import unique_name
from irc.pass_base import Context, Contract, ModelPass, Pass, Site, Skip, node_id


def adapt(item: object) -> Pass:
    """A foreign pass as one of ours.

    Args:
        item: An `onnx_ir` pass, or a rewrite rule, rule set or `RewritePass` of `onnxscript`.

    Raises:
        UsageError: If it is none of them.
    """
    if isinstance(item, Pass):
        return item
    if isinstance(rules := getattr(item, "rules", None), object) and _is_rule_set(rules):
        return RewriteRules(rules)
    if _is_rule_set(item):
        return RewriteRules(item)
    if isinstance(item, ir.passes.PassBase):
        return OnnxIrPass(item)
    raise UsageError(f"{item!r} is not a pass: give an irc Pass, a name, an onnx_ir pass or onnxscript rules")


def _is_rule_set(item: object) -> bool:
    return type(item).__module__.startswith("onnxscript.rewriter") and (
        type(item).__name__ in ("RewriteRuleSet", "RewriteRule") or hasattr(item, "try_rewrite")
    )


def _dashed(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name.removesuffix("Pass")).lower()


@dataclasses.dataclass(frozen=True)
class OnnxIrPass(ModelPass):
    """Runs a pass written for `onnx_ir` as one verified site.

    Attributes:
        wrapped: The pass.
    """

    wrapped: Any
    contract = Contract.ROUNDING

    @property
    def name(self) -> str:  # type: ignore[override]
        """The class name of the wrapped pass, with dashes."""
        return _dashed(type(self.wrapped).__name__)

    def apply(self, model: ir.Model, ctx: Context) -> bool:
        """Runs the pass; a pass that returns another model has its graph moved into this one."""
        result = self.wrapped(model)
        if result.model is not model:
            model.graph = result.model.graph
            model.functions.clear()
            model.functions.update(result.model.functions)
        return bool(result.modified)


@dataclasses.dataclass(frozen=True)
class RewriteRules(Pass):
    """Runs rewrite rules of `onnxscript` with every match as a site of its own.

    A rule whose pattern matches but whose `check` refuses is a near miss: the ledger has the reason the rule gave.

    Attributes:
        rules: A `RewriteRuleSet`, a `RewriteRule` or a sequence of rules.
        label: Name in the ledger and in selectors; by default the names of the rules.
    """

    rules: Any
    label: str = ""
    contract = Contract.ROUNDING

    @property
    def name(self) -> str:  # type: ignore[override]
        """The label, or the rules' names."""
        names = [_dashed(rule.name or "rule") for rule in self._all()]
        return self.label or ("+".join(names) if len(names) <= 3 else f"{names[0]}+{len(names) - 1}-rules")

    def _all(self) -> list[Any]:
        if hasattr(self.rules, "try_rewrite"):
            return [self.rules]
        return list(self.rules)

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every match, rule by rule at each node, subgraphs included."""
        from onnxscript.optimizer import basic_constant_propagation

        rules = self._all()
        for rule in rules:
            if rule.graph_pre_visitor:
                rule.graph_pre_visitor()
        for graph in list(model.graphs()):
            basic_constant_propagation(graph)
            for node in graph:
                tracer = _LastRefusal()
                for rule in rules:
                    if rule.match(model, graph, node, check_nodes_are_removable=rule.remove_nodes, tracer=tracer):
                        yield Site(node, match=(rule, model, graph))
                        break
                else:
                    if tracer.reason:
                        yield Skip(node, tracer.reason)
        for rule in rules:
            if rule.graph_post_visitor:
                rule.graph_post_visitor()

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Replaces the match by what the rule builds, all new names made free."""
        from onnxscript.optimizer import basic_constant_propagation

        rule, model, graph = site.match
        node = site.node
        assert node is not None
        delta = rule.try_rewrite(model, graph, node)
        if delta is None:
            return Skip(node, "the rule built no replacement")
        if rule.as_function:
            return Skip(node, "rules that build functions are not supported; irc inlines functions")
        for initializer in delta.new_initializers:
            initializer.name = unique_name(model, initializer.name or f"{node_id(node)}.constant")
            graph.register_initializer(initializer)
        outputs = {id(value) for value in delta.new_outputs}
        for new in delta.new_nodes:
            for value in new.outputs:
                if id(value) not in outputs:
                    value.name = unique_name(model, f"{node_id(node)}.{new.op_type}")
        basic_constant_propagation(delta.new_nodes)
        matched = list(delta.match.nodes)
        ir.convenience.replace_nodes_and_values(
            graph, node, matched if rule.remove_nodes else [], delta.new_nodes, delta.match.outputs, delta.new_outputs
        )
        if not rule.remove_nodes:
            _remove_unused(graph, matched)
        return None


class _LastRefusal:
    """Stands in for onnxscript's tracer and keeps why a rule whose pattern fits refused."""

    def __init__(self) -> None:
        self.reason = ""

    def log(self, rule: Any, container: Any, node: ir.Node, match: Any, status: Any) -> None:
        if status.name == "CONDITION_FAILED":
            self.reason = str(match.reason) or f"{rule.name or 'the rule'}: its condition does not hold"


def _remove_unused(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    """Removes the matched nodes that nothing uses any more, last first."""
    remaining = list(nodes)
    while removable := [
        n for n in remaining if n.graph is graph and not any(o.uses() or o.is_graph_output() for o in n.outputs)
    ]:
        graph.remove(removable, safe=True)
        remaining = [n for n in remaining if n.graph is graph]
