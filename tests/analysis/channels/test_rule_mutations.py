"""Mutations: a rule or a rewrite that is missing or wrong is seen, by the oracles or by what can be cut.

Witnesses (`channel_witnesses`) are small networks around one operator. Three things are broken, one at a time:

- a rule is deleted: its operator pins what it reads, and fewer channels can be cut of a witness;
- a rewrite is deleted: an oracle fails on a witness, or the cut raises;
- a rule is made wrong, in every way of `MUTATIONS` in which that changes anything: an oracle fails on a witness.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import MODES, describe, different_modes
from channel_witnesses import table as witnesses
from channel_witnesses.network import Operator, Witness

from irc.analysis.channels import Bundle, ChannelGroups, Labelled, NodeView, Propagation
from irc.analysis.channels.alignment import Group
from irc.analysis.channels.analysis_sizes import distinct_shapes
from irc.analysis.channels.propagation import Rule
from irc.analysis.channels.rules import all_rules
from irc.analysis.channels.rules.elementwise import broadcast
from irc.channel_oracles import prove, random_survivors
from irc.channel_surgery import cut
from irc.channel_surgery.rewrites import all_rewrites
from irc.ir import snapshot


def atoms(propagation: Propagation) -> int:
    """How many atoms can be cut in both modes."""
    return sum(len(family.atoms) for mode in MODES for family in ChannelGroups(propagation, mode).families)


def propagated(model: ir.Model, rules: dict[Operator, Rule]) -> Propagation:
    """Labels by other rules than those registered."""
    propagation = Propagation(model, distinct_shapes(model))
    propagation.run(rules)
    return propagation


def is_refuted(propagation: Propagation, witness: Witness) -> bool:
    """Whether an oracle finds fault with the labels, or what is cut by them does not run."""
    try:
        groups = different_modes(propagation)
        return not all(prove(one, witness.run, witness.feeds()).holds() for one in groups)
    except Exception:  # whatever a wrong shape leads to
        return True


@pytest.mark.parametrize("operator", sorted(all_rules()), ids="::".join)
def test_witnesses_are_cut_exactly(operator: Operator) -> None:
    """All rules as they are."""
    networks = witnesses.of(operator)
    assert networks, "the operator has no witness"
    for witness in networks:
        propagation = witness.propagation
        assert any((node.domain, node.op_type) == operator for node in propagation.model.graph)
        for groups in different_modes(propagation) if witness.runs else ():
            proof = prove(groups, witness.run, witness.feeds())
            assert proof.holds(), f"{groups.mode}: {proof}\n{describe(groups)}"


@pytest.mark.parametrize("operator", sorted(all_rules()), ids="::".join)
def test_every_rule_earns_its_place(operator: Operator) -> None:
    """Without it fewer channels can be cut of some witness."""
    rules = {key: rule for key, rule in all_rules().items() if key != operator}
    networks = [witness.propagation for witness in witnesses.of(operator)]
    assert any(atoms(propagated(network.model, rules)) < atoms(network) for network in networks)


UNCHECKED_REWRITES = {
    ("com.microsoft", "GroupNorm"): "groups",
    ("com.microsoft", "SkipGroupNorm"): "groups",
}
"""Rewrites of operators that ONNX Runtime's CPU provider cannot run, and the attribute they count anew."""


@pytest.mark.parametrize("operator", sorted(set(all_rewrites()) - set(UNCHECKED_REWRITES)), ids="::".join)
def test_every_rewrite_is_needed(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it some witness is cut wrongly, which the oracles see, or not at all."""
    monkeypatch.delitem(all_rewrites(), operator)
    assert any(is_refuted(witness.propagation, witness) for witness in witnesses.of(operator) if witness.runs)


@pytest.mark.parametrize("operator", sorted(UNCHECKED_REWRITES), ids="::".join)
def test_rewrites_that_nothing_runs_count_groups(operator: Operator) -> None:
    """Half of the groups survive, half are counted."""
    propagation = witnesses.of(operator)[0].propagation
    groups = ChannelGroups(propagation, "rows")
    small = snapshot(propagation.model)
    cut(small, propagation, groups.survivors(random_survivors(groups, groups.families)))
    before, after = (
        node.attributes.get_int(UNCHECKED_REWRITES[operator], 0)
        for model in (propagation.model, small)
        for node in model.graph
        if (node.domain, node.op_type) == operator
    )
    assert (before, after) == (4, 2)


Mutation = Callable[[NodeView, Rule], bool]
"""Does what a wrong rule would do instead of a rule; whether that is anything else."""


class Mutated(NodeView):
    """A node as a wrong rule sees it; `changed` tells whether that made any difference."""

    changed = False


class NotFreed(Mutated):
    """An axis that must stay as it is keeps its labels."""

    def freed(self, tensor: Labelled, axis: int, kind: str, text: str) -> Labelled:
        self.changed |= tensor.on(axis) is not None
        return tensor


class NoStatistic(Mutated):
    """Cutting changes no statistic."""

    def statistic(self, bundle: Any, text: str, axes: Sequence[int] | None = None) -> None:
        self.changed = True


class NotPinned(Mutated):
    """Sizes, indices and what is not supported may be cut."""

    def pin_inputs(self, kind: str, text: str, indices: Sequence[int] | None = None) -> None:
        for index in range(len(self.node.inputs)) if indices is None else indices:
            self.changed |= self.has(index) and bool(self.read(index).bundles)


class NoCosts(Mutated):
    """A product that is not known to be one: nothing is zeroed in front of it."""

    def costs(self, groups: Sequence[Group], **_options: Any) -> None:
        self.changed |= bool(groups)


class LastForgotten(Mutated):
    """The last operand that meets others is left out."""

    def align(self, *operands: Any) -> list[Group]:
        labelled = [i for i, (tensor, _letters) in enumerate(operands) if tensor.bundles]
        if len(labelled) > 1:
            self.changed = True
            operands = tuple(operand for i, operand in enumerate(operands) if i != labelled[-1])
        return super().align(*operands)


class FirstForgotten(Mutated):
    """The first operand that meets others is left out."""

    def align(self, *operands: Any) -> list[Group]:
        labelled = [i for i, (tensor, _letters) in enumerate(operands) if tensor.bundles]
        if len(labelled) > 1:
            self.changed = True
            operands = tuple(operand for i, operand in enumerate(operands) if i != labelled[0])
        return super().align(*operands)


class WritesNothing(Mutated):
    """What the node makes has no labels, and nothing is pinned for it."""

    def write(self, tensor: Labelled, index: int = 0) -> None:
        self.changed |= bool(tensor.bundles)


class Backwards(Mutated):
    """Labels of the first output are in the wrong order."""

    def write(self, tensor: Labelled, index: int = 0) -> None:
        self.changed |= bool(tensor.bundles)
        flipped = tuple(Bundle(b.axes, b.labels[..., ::-1], b.factors) for b in tensor.bundles)
        super().write(Labelled(tensor.dims, flipped), index)


def through(view: NodeView, rule: Rule) -> bool:
    """Labels of the first input pass, whatever the operator does."""
    tensor = view.read(0)
    if tensor.dims != view.dims_out():
        rule(view)
        return False
    view.write(tensor)
    return bool(tensor.bundles)


def elementwise(view: NodeView, rule: Rule) -> bool:
    """All inputs meet by broadcasting."""
    inputs = [index for index in range(len(view.node.inputs)) if view.has(index)]
    try:
        shape = np.broadcast_shapes(*(view.read(index).dims for index in inputs))
    except ValueError:
        shape = None
    if shape != view.dims_out():
        rule(view)
        return False
    broadcast(view)
    return True


def nothing(view: NodeView, rule: Rule) -> bool:
    """The operator does not count."""
    return any(view.read(index).bundles for index in range(len(view.node.inputs)) if view.has(index))


def by(view: type[Mutated]) -> Mutation:
    """The rule itself, on a node that shows it something wrong."""

    def mutated(original: NodeView, rule: Rule) -> bool:
        shown = view(original.node, original.propagation)
        rule(shown)
        return shown.changed

    return mutated


MUTATIONS: dict[str, Mutation] = {
    "ignored": nothing,
    "passed through": through,
    "elementwise": elementwise,
    "axis not freed": by(NotFreed),
    "no statistic": by(NoStatistic),
    "not pinned": by(NotPinned),
    "no costs": by(NoCosts),
    "first operand forgotten": by(FirstForgotten),
    "last operand forgotten": by(LastForgotten),
    "nothing written": by(WritesNothing),
    "written backwards": by(Backwards),
}


def functions() -> dict[str, list[Operator]]:
    """The functions that rules are, with the operators they hold for."""
    found: dict[str, list[Operator]] = defaultdict(list)
    for operator, rule in all_rules().items():
        found[f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}"].append(operator)
    return found


_ELEMENTWISE = "it is elementwise"
HARMLESS = {
    ("elementwise.unary", "elementwise"): _ELEMENTWISE,
    ("elementwise.broadcast", "elementwise"): _ELEMENTWISE,
    ("elementwise.like", "elementwise"): "labels that give a type only are tied for nothing",
    ("elementwise.like", "passed through"): _ELEMENTWISE,
    ("elementwise.with_scalars", "elementwise"): _ELEMENTWISE,
    ("elementwise.with_scalars", "passed through"): _ELEMENTWISE,
    ("runtime_operators.biased", "elementwise"): _ELEMENTWISE,
    ("quantized.scale", "elementwise"): "with one scale it is elementwise",
    ("quantized.quantized_pair", "elementwise"): _ELEMENTWISE,
    ("quantized.quantized_choice", "elementwise"): _ELEMENTWISE,
    ("quantized.quantized_activation", "elementwise"): _ELEMENTWISE,
    ("quantized.quantized_activation", "passed through"): _ELEMENTWISE,
    (
        "quantized.dynamic_matmul",
        "no statistic",
    ): "the zero oracle masks in front of its quantization, whose range holds 0",
    ("quantized.dynamic_matmul", "no costs"): "the zero oracle leaves alone what changes a statistic",
    ("quantized.packed_matmul", "no costs"): "what it sums over is packed and never cut, so that nothing needs a mask",
    ("reshapes.reshape", "passed through"): "to the same sizes it moves nothing",
    ("spatial.depth_to_space", "axis not freed"): "whatever reads places ties them again",
    ("spreading.constant_of_shape", "nothing written"): "what meets no labels is pinned",
    ("spreading.constant_of_shape", "written backwards"): "its labels are new ones, in any order",
    ("told_sizes.told", "ignored"): "it has no labels and demands nothing",
}
"""Wrong rules that are not refuted, and why."""
FEW = 4
"""Operators of one function that are tried; they share its code."""


@functools.cache
def is_caught(function: str, mutation: str) -> bool | None:
    """Whether a wrong rule is refuted by a witness of one of its operators; None if it is not wrong on any."""
    changed: list[bool] = []
    result: bool | None = None
    for operator in functions()[function][:FEW]:
        rule = all_rules()[operator]

        def mutated(view: NodeView, rule: Rule = rule) -> None:
            changed.append(MUTATIONS[mutation](view, rule))

        for witness in witnesses.of(operator):
            if not witness.runs:
                continue
            changed.clear()
            try:
                propagation = propagated(witness.propagation.model, {**all_rules(), operator: mutated})
            except AssertionError:  # the rule has lost track of shapes
                return True
            if any(changed):
                if is_refuted(propagation, witness):
                    return True
                result = False
    return result


@pytest.mark.parametrize("function", sorted(functions()))
def test_wrong_rules_are_refuted(function: str) -> None:
    wrong = [mutation for mutation in MUTATIONS if (function, mutation) not in HARMLESS]
    assert not [mutation for mutation in wrong if is_caught(function, mutation) is False]


NOT_RUN = {
    "normalization.runtime_group_norm",
    "quantized.quantized_mean",
    "reductions.bias_softmax",
    "runtime_operators.biased_dropout",
}
"""Rules of operators that nothing here runs, so that no oracle sees them; tests of their own compare their families."""


def test_every_rule_is_wrong_in_some_way() -> None:
    """Otherwise the witnesses of its operators show nothing."""
    shown = {
        function
        for function in functions()
        if any(is_caught(function, name) for name in ("ignored", "nothing written"))
    }
    assert set(functions()) - shown == {"told_sizes.told", "spreading.constant_of_shape"} - shown | NOT_RUN


@pytest.mark.slow
@pytest.mark.parametrize(("function", "mutation"), sorted(HARMLESS), ids=": ".join)
def test_harmless_mutations_are_that(function: str, mutation: str) -> None:
    assert is_caught(function, mutation) is False
