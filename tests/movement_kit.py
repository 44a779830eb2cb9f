"""What tests of operators that move data share: a graph around the operator, and its families spelled out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from channel_kit import MODES, Array, assert_exact, model_of, random_feeds, random_weight

from irc.analysis.channels import ChannelGroups, Mode, channel_groups, propagate

Families = list[str]


def ints(*numbers: int) -> Array:
    """A vector of indices."""
    return np.array(numbers, dtype=np.int64)


def scalar(number: int) -> Array:
    """One index."""
    return np.array(number, dtype=np.int64)


def flat(body: str, *, given: str = "float[N,4] x", made: str = "float[N,3] y") -> str:
    """A graph of operators between an input and an output."""
    return f"g ({given}) => ({made}) {{ {body} }}"


def tokens(body: str) -> str:
    """The same on [batch, tokens, channels]."""
    return flat(body, given="float[N,S,4] x", made="float[N,S,3] y")


def image(body: str) -> str:
    """The same on images."""
    return flat(body, given="float[N,4,height,width] x", made="float[N,3,height2,width2] y")


def weights(**given: Any) -> dict[str, Array]:
    """Initializers: tuples are shapes of random weights, arrays are themselves."""
    return {
        name: random_weight(*value, seed=seed) if isinstance(value, tuple) else value
        for seed, (name, value) in enumerate(given.items())
    }


def families(groups: ChannelGroups) -> Families:
    """Every family as "6 on w1.1x2 w2.0x1": atoms, and per axis how many coordinates an atom has there."""
    return sorted(
        f"{len(family.atoms)} on " + " ".join(f"{a.slot.name}.{a.axis}x{a.positions}" for a in family.axes)
        for family in groups.families
    )


def reasons(model: ir.Model, initializer: str, mode: Mode = "rows") -> set[str]:
    """The kinds of reasons why coordinates of an initializer are not cut."""
    return {pin.reason.kind for pin in channel_groups(model, mode=mode).pinned if pin.slot.name == initializer}


def check(
    text: str,
    initializers: Mapping[str, Array],
    rows: Families,
    columns: Families | None = None,
    *,
    opset: int = 20,
) -> ir.Model:
    """Both oracles at sizes other than those analysed, and the families expected in both modes."""
    model = model_of(text, initializers, opset=opset)
    sizes = [{"N": 3, "S": 5, "height": 8, "width": 4}, {"N": 1, "S": 9, "height": 4, "width": 12}]
    propagation = propagate(model)
    expected = {"rows": rows, "columns": rows if columns is None else columns}
    for mode in MODES:
        found = families(ChannelGroups(propagation, mode))
        assert found == sorted(expected[mode]), f"{mode}: {found}"
    proofs = assert_exact(model, random_feeds(model, *sizes))
    for mode, proof in proofs.items():
        several = any(int(family.split()[0]) > 1 and len(family.split()) > 3 for family in expected[mode])
        assert not several or (proof.cut and proof.effect > 1e-3), f"{mode}: {proof}"
    return model
