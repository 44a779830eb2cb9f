"""Operands that meet: elementwise operators, products, joins.

The axes of every operand get **letters**, as in Einsum: axes with the same letter run over the same index (after
broadcasting), contracted or not. Where letters meet, labels are equal, stand for each other, or meet a free axis and stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence, Set

from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.constraints import Constraints, Reason

Letter = Hashable


@dataclasses.dataclass(frozen=True)
class Operand:
    """An operand with a letter per axis; None for an axis that meets nothing and has no labels."""

    tensor: Labelled
    letters: tuple[Letter | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Labels that operands share on some letters; `bundle.axes` are positions in `letters`."""

    letters: tuple[Letter, ...]
    bundle: Bundle

    def on(self, letters: Sequence[Letter]) -> bool:
        """Whether all its letters are among these."""
        return set(self.letters) <= set(letters)


def align(constraints: Constraints, operands: Sequence[Operand], where: str) -> list[Group]:
    """Groups of labels that the operands share, after demanding what their meeting demands.

    Args:
        constraints: Where demands go.
        operands: What meets.
        where: The node, for reasons: "Add 'sum'".

    Returns:
        One group per connected set of letters, in the order of the first operand that has it.
    """
    found: list[Group] = []
    free: set[Letter] = set()
    unlike = _unlike(operands)
    for operand in operands:
        tensor = operand.tensor
        for axis, (size, letter) in enumerate(zip(tensor.dims, operand.letters, strict=True)):
            if letter is not None and size != 1 and tensor.on(axis) is None:
                free.add(letter)
        for bundle in tensor.bundles:
            letters = tuple(operand.letters[axis] for axis in bundle.axes)
            if None in letters or len(set(letters)) < len(letters):
                constraints.pin(bundle.labels, Reason("unpaired axis", f"{where} has no letter of its own for an axis"))
                free.update(letter for letter in letters if letter is not None)
                continue
            if unlike & set(letters):
                text = f"{where} pairs axes of unlike sizes, so that the model is not made for the sizes analysed"
                constraints.pin(bundle.labels, Reason("unlike sizes", text))
                free.update(letters)
                continue
            found.append(Group(letters, bundle.at(range(len(letters)))))
    groups = []
    for members in _connected(found):
        whole = _joined(constraints, members, where)
        if whole is None:
            continue
        for letter in whole.letters:
            if letter in free and whole is not None:
                whole = _freed(constraints, whole, letter, where)
                if whole is None:
                    break
        if whole is not None:
            groups.append(whole)
    return groups


def kept(constraints: Constraints, group: Group, letters: Sequence[Letter], where: str) -> Bundle | None:
    """The labels of a group that stay on a result with some letters: a bundle on the axes of the result.

    Where letters of a joint group are contracted, the rest gets labels that stand for what was contracted.
    """
    rest = [i for i, letter in enumerate(group.letters) if letter in letters]
    if not rest:
        return None
    bundle = group.bundle
    if len(rest) < len(group.letters):
        reason = Reason("other axis", f"{where} leaves an index that is not cut in this mode")
        bundle = constraints.representatives(bundle, rest, reason)
    return bundle.at([letters.index(group.letters[i]) for i in rest])


def _unlike(operands: Sequence[Operand]) -> set[Letter]:
    """Letters of axes whose sizes do not agree."""
    sizes: dict[Letter, int] = {}
    unlike: set[Letter] = set()
    for operand in operands:
        for size, letter in zip(operand.tensor.dims, operand.letters, strict=True):
            if letter is not None and size != 1 and sizes.setdefault(letter, size) != size:
                unlike.add(letter)
    return unlike


def _connected(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that share letters, directly or by way of others."""
    result: list[list[Group]] = []
    for group in groups:
        touching = [members for members in result if any(set(m.letters) & set(group.letters) for m in members)]
        merged = [m for members in touching for m in members] + [group]
        at = result.index(touching[0]) if touching else len(result)
        result = [members for members in result if members not in touching]
        result.insert(min(at, len(result)), merged)
    return result


def _joined(constraints: Constraints, members: Sequence[Group], where: str) -> Group | None:
    """The member with all letters, the others equal to it or standing for parts of it.

    Where none has all of them, as in the product of keys and values per head, `[head, key]` with `[head, value]`, only what they share is
    cut: whole heads. None if they share nothing.
    """
    letters = set().union(*(member.letters for member in members))
    whole = next((member for member in members if set(member.letters) == letters), None)
    if whole is None:
        shared = set(members[0].letters).intersection(*(member.letters for member in members))
        if not shared:
            for member in members:
                reason = Reason("crossed axes", f"{where} pairs axes of its operands crosswise")
                constraints.pin(member.bundle.labels, reason)
            return None
        members = [_shared_part(constraints, member, shared, where) for member in members]
        whole = members[0]
    for member in members:
        if member is whole:
            continue
        order = [whole.letters.index(letter) for letter in member.letters]
        part = member.bundle.at(order)
        if len(order) == len(whole.letters):
            for axis, factor in zip(part.axes, part.factors, strict=True):
                constraints.same_factor(factor, whole.bundle.factors[axis])
            _axes, labels, _factors = part.physical()
            constraints.equal(labels, whole.bundle.labels)
        else:
            reason = Reason("other axis", f"{where} meets an index that is not cut in this mode")
            constraints.subset(part, whole.bundle, reason)
    return whole


def _shared_part(constraints: Constraints, member: Group, shared: Set[Letter], where: str) -> Group:
    """Labels that stand for all of a member at each place of the letters it shares; the rest is cut with them or not at all."""
    reason = Reason("crossed axes", f"{where} pairs axes of its operands crosswise")
    rest = [i for i, letter in enumerate(member.letters) if letter in shared]
    letters = tuple(member.letters[i] for i in rest)
    if len(rest) == len(member.letters):
        return member
    part = constraints.representatives(member.bundle, rest, reason)
    bundle = member.bundle
    for i in reversed(range(len(member.letters))):
        if i not in rest:
            bundle = constraints.tie(bundle, i)
    return Group(letters, part.at(range(len(letters))))


def _freed(constraints: Constraints, group: Group, letter: Letter, where: str) -> Group | None:
    """The group without a letter that is free in some operand."""
    at = group.letters.index(letter)
    reason = Reason("free axis", f"{where} pairs it with an axis that is not channels")
    bundle = constraints.free(group.bundle, at, reason)
    if bundle is None:
        return None
    letters = group.letters[:at] + group.letters[at + 1 :]
    return Group(letters, bundle.at(range(len(letters))))
