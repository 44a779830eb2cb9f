"""Activations with a few channels far larger than the rest, evened out against the weights that read them, so that int8 keeps the others.

    y = MatMul(LayerNormalization(x, scale, bias), W)   =>   y = MatMul(LayerNormalization(x, scale / s, bias / s), diag(s) W)
    y = MatMul(x, W)                                    =>   y = MatMul(Mul(x, 1 / s), diag(s) W)

The factors disappear into the constants of what makes the activation wherever everything that reads it can make up for them, all of
its readers being evened out together. Elsewhere a Mul divides in front of the products, and other readers keep the activation
as it was. Measured on ONNX Runtime with VNNI, that Mul takes 1 to 7 % of the time of the product behind it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.pass_base import Context, Contract, Pass, Remark, Site, Skip
from irc.passes.quantization import existing
from irc.passes.quantization.scale_search import Clipping
from irc.passes.quantization.scaling_decisions import Least, offered, rewritten
from irc.passes.quantization.scaling_sites import ScalingSite, scaling_sites


@dataclasses.dataclass(frozen=True)
class SmoothActivations(Pass):
    """Divides the channels of what MatMul and Gemm read, how far being searched for each activation by the error of int8 outputs.

    Convolutions are left to equalize-channels.

    Source: SmoothQuant, Xiao et al. 2022, arXiv:2211.10438; the search by output error as in AWQ, Lin et al. 2023, arXiv:2306.00978.

    Attributes:
        least_gain: Share of the output error on held-out samples that must go away where the factors disappear.
        least_gain_of_mul: The same where a Mul is inserted; 1 inserts none.
        least_error_for_mul: Relative output error that a Mul must take away to be worth its time, whatever share that is.
        clipping: How `quantize` will choose ranges: "mse" stands for all its calibrators but "min-max".
        rows: Rows of each activation to search on, and as many to judge by.
    """

    name: ClassVar[str] = "smooth-activations"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("batch-norm-folded", "opset-13", "shapes-known")
    invalidates: ClassVar[tuple[str, ...]] = ()
    prepares: ClassVar[bool] = True

    least_gain: float = 0.05
    least_gain_of_mul: float = 0.2
    least_error_for_mul: float = 0.0005
    clipping: Clipping = "mse"
    rows: int = 512

    def __post_init__(self) -> None:
        for name in ("least_gain", "least_gain_of_mul", "least_error_for_mul"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}; it must be at least 1")

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the activations of products whose int8 outputs gain, named after the first product."""
        if (reason := existing.why_left_alone(model)) is not None:
            yield Skip(None, reason)
            return
        found = scaling_sites(model, ctx, inserting=True)
        mine = [one for one in found if _is_product(one)]
        least = Least(self.least_gain, self.least_gain_of_mul, self.least_error_for_mul)
        yield from offered(self.name, model, mine, ctx, clipping=self.clipping, rows=self.rows, least=least)

    def rewrite(self, site: Site, ctx: Context) -> Skip | Remark | None:
        """Divides one activation and multiplies the weights that read it."""
        return rewritten(self.name, site)


def _is_product(found: ScalingSite | Skip) -> bool:
    if isinstance(found, Skip):
        return found.node is not None and found.node.op_type != "Conv"
    return not found.convolutional
