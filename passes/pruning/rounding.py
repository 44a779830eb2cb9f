"""Widths at which the target is fast: multiples of what its kernels work on, counted in atoms of a family."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from irc.analysis.channels import ChannelGroups, Family
from irc.target import Target

RoundTo = Literal["target", "int8"] | int


def steps(
    groups: ChannelGroups, families: tuple[Family, ...], target: Target | Any, round_to: RoundTo
) -> dict[Family, int]:
    """Of what the atoms per cell of every family should be a multiple.

    An atom may be several channels of a product (a head), and all cells count: of 16 groups of a convolution, one member each
    is 16 channels.

    Args:
        groups: Solved groups.
        families: Those asked about.
        target: Asked for every product that runs over a family; None rounds nothing.
        round_to: "target", "int8" where the model is to be quantized yet, or one multiple for all products.
    """
    number = np.full(groups.propagation.constraints.count, -1, dtype=np.int64)
    for index, family in enumerate(families):
        number[family.atoms] = index
    found = [1] * len(families)
    for node, product in groups.propagation.products.items():
        for bundle in product.groups:
            hits = number[groups.class_of[bundle.labels]]
            for index, channels in zip(*np.unique(hits[hits >= 0], return_counts=True), strict=True):
                if isinstance(round_to, int):
                    multiple = round_to
                elif target is None:
                    multiple = 1
                else:
                    multiple = target.channel_multiple(node, int(channels), integers=round_to == "int8")
                per_width = int(channels) // families[index].width
                if multiple > 1 and per_width and int(channels) % families[index].width == 0:
                    found[index] = math.lcm(found[index], multiple // math.gcd(multiple, per_width))
    return dict(zip(families, found, strict=True))


def require_multiple(round_to: RoundTo) -> None:
    """Whether an option is one.

    Raises:
        ValueError: If not.
    """
    if isinstance(round_to, int) and round_to < 1:
        raise ValueError(f"round_to is {round_to}; it must be at least 1, or target, or int8")
