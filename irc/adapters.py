"""Passes written for other frameworks, run by our manager: `onnx_ir` passes whole, `onnxscript` rules site by site.

An `onnx_ir` pass is opaque: one site, verified, undone as a whole. A rewrite rule of `onnxscript` shows its matches, so
each is a site of its own: selected, counted, verified, and bisected like ours. Defects of the rules' own driver are
closed here: initializers and intermediate values get names that are free (onnxscript issue 2079), a rule that keeps its
matched nodes cannot match them again, a weight that callers may override is no constant, a rule that raises is a reason and no
failure, and a node is shown only to the rules that end in its operator.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx_ir as ir

from irc.errors import UsageError
from irc.ir import unique_name
from irc.pass_base import Context, Contract, ModelPass, Pass, Site, Skip, node_id


def adapt(item: object) -> Pass:
    """A foreign pass as one of ours.

    Args:
        item: An `onnx_ir` pass; a rewrite rule, rule set or `RewritePass` of `onnxscript`; a pass of `torch.fx`, or a
            function from GraphModule to GraphModule.

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
    from irc.trace.fx_pass import adapt_fx, is_foreign_fx_pass

    if is_foreign_fx_pass(item):
        return adapt_fx(item)
    raise UsageError(
        f"{item!r} is not a pass: give an irc Pass, a name, an onnx_ir pass, onnxscript rules, a torch.fx pass or a function "
        "from GraphModule to GraphModule"
    )


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
        rules = self._all()
        by_operator = _by_operator(rules)
        anywhere = by_operator.get(None, [])
        for rule in rules:
            if rule.graph_pre_visitor:
                rule.graph_pre_visitor()
        for graph in list(model.graphs()):
            _mark_constants(graph)
            for node in graph:
                tracer = _LastRefusal()
                for rule in by_operator.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type), anywhere):
                    try:
                        match = rule.match(
                            model, graph, node, check_nodes_are_removable=rule.remove_nodes, tracer=tracer
                        )
                    except Exception as error:
                        tracer.reason = _failure(rule, error)
                        continue
                    if not match:
                        continue
                    reason = _why_unsound(match)
                    if reason is None:
                        yield Site(node, match=(rule, model, graph))
                        tracer.reason = ""
                        break
                    tracer.reason = reason
                if tracer.reason:
                    yield Skip(node, tracer.reason)
        for rule in rules:
            if rule.graph_post_visitor:
                rule.graph_post_visitor()

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Replaces the match by what the rule builds, all new names made free."""
        rule, model, graph = site.match
        node = site.node
        assert node is not None
        if rule.as_function:
            return Skip(node, "rules that build functions are not supported; irc inlines functions")
        imports = [(scope, dict(scope.opset_imports)) for scope in dict.fromkeys((model.graph, graph))]
        try:
            delta = rule.try_rewrite(model, graph, node)
        except Exception as error:
            return Skip(node, _failure(rule, error))
        if delta is None:
            return Skip(node, "the rule built no replacement")
        outputs = {id(value) for value in delta.new_outputs}
        for initializer in delta.new_initializers:
            initializer.name = unique_name(model, initializer.name or f"{node_id(node)}.constant")
            if initializer.const_value is not None:
                initializer.const_value.name = initializer.name
        for new in delta.new_nodes:
            for value in new.outputs:
                if id(value) not in outputs:
                    value.name = unique_name(model, f"{node_id(node)}.{new.op_type}")
        reason = self.refuses(rule, delta, model)
        if reason is not None:
            for new in delta.new_nodes:
                new.resize_inputs(0)
            for scope, before in imports:
                scope.opset_imports.clear()
                scope.opset_imports.update(before)
            return Skip(node, reason)
        for initializer in delta.new_initializers:
            graph.register_initializer(initializer)
        _mark_constants(delta.new_nodes)
        matched = list(delta.match.nodes)
        inputs = [value for old in matched for value in old.inputs]
        ir.convenience.replace_nodes_and_values(
            graph, node, matched if rule.remove_nodes else [], delta.new_nodes, delta.match.outputs, delta.new_outputs
        )
        if not rule.remove_nodes:
            _remove_unused(graph, matched)
        self.tidy(delta.new_nodes, inputs)
        return None

    def refuses(self, rule: Any, delta: Any, model: ir.Model) -> str | None:
        """Why a replacement that a rule has built is not wanted, or None; for subclasses.

        Args:
            rule: The rule.
            delta: Its `ReplacementSubgraph`: new nodes, which use values of the graph but are not in it.
            model: As it was.
        """
        return None

    def tidy(self, new_nodes: Sequence[ir.Node], inputs: Sequence[ir.Value | None]) -> None:
        """Cleans up after a replacement; for subclasses.

        Args:
            new_nodes: What is new in the graph.
            inputs: What the nodes used that were matched.
        """


def _by_operator(rules: Sequence[Any]) -> dict[tuple[str, str] | None, list[Any]]:
    """The rules to try at a node, by its domain and operator, in order; None has those that fit any operator."""
    last = [_last_operator(rule) for rule in rules]
    return {
        key: [rule for rule, operator in zip(rules, last, strict=True) if operator in (None, key)]
        for key in (None, *dict.fromkeys(last))
    }


def _last_operator(rule: Any) -> tuple[str, str] | None:
    """Domain and operator of the node a rule is matched at; None if it has several, or fits several."""
    pattern = getattr(rule, "_target_pattern", None)
    if pattern is None or not pattern.has_single_output_node:
        return None
    identifier = pattern.output_node.op_identifier()
    return None if identifier is None else ("" if identifier[0] == "ai.onnx" else identifier[0], identifier[1])


def _failure(rule: Any, error: Exception) -> str:
    return f"{rule.name or 'the rule'} raised {type(error).__name__}: {' '.join(str(error).split())}"


def _mark_constants(nodes: Iterable[ir.Node]) -> None:
    """Lets rules read what Constant nodes hold, as they read initializers; types and shapes stay as they are."""
    for node in nodes:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.outputs[0].const_value is None:
            node.outputs[0].const_value = ir.convenience.get_const_tensor(node.outputs[0])


def _why_unsound(match: Any) -> str | None:
    """What rules overlook about a match, or None."""
    for node in match.nodes:
        for value in node.inputs:
            if value is not None and value.const_value is not None and value.is_graph_input():
                return f"{value.name!r} may be overridden by the caller"
    return None


class _LastRefusal:
    """Stands in for onnxscript's tracer and keeps why a rule whose pattern fits refused."""

    def __init__(self) -> None:
        self.reason = ""

    def log(self, rule: Any, container: Any, node: ir.Node, match: Any, status: Any) -> None:
        if status.name == "CONDITION_FAILED":
            self.reason = str(match.reason).rstrip(".") or f"{rule.name or 'the rule'}: its condition does not hold"


def _remove_unused(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    """Removes the matched nodes that nothing uses any more, last first."""
    remaining = list(nodes)
    while removable := [
        n for n in remaining if n.graph is graph and not any(o.uses() or o.is_graph_output() for o in n.outputs)
    ]:
        graph.remove(removable, safe=True)
        remaining = [n for n in remaining if n.graph is graph]
