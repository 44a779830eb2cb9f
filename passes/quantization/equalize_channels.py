"""Channels between convolutions brought to like ranges, so that one scale serves all of them.

    Conv(Relu(Conv(x, W1, b1)), W2)   =>   Conv(Relu(Conv(x, W1 / s, b1 / s)), s W2)

Whatever scales with its input may stand between the two, and several may make and read what is divided: depthwise convolutions,
pooling, the sums of a residual stream. With a scale per output channel the first weights are as exact as before, so the
factors are chosen for the activations in between. A Clip at a fixed number, as in ReLU6, does not scale: nothing is equalized across it.
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
class EqualizeChannels(Pass):
    """Divides the channels of what convolutions read, as smooth-activations does for products; it never adds an operator.

    Source: Nagel et al. 2019, arXiv:1906.04721, sec. 4.1; how far, by the error of int8 outputs as in arXiv:2306.00978.

    Attributes:
        least_gain: Share of the output error on held-out samples that must go away.
        clipping: How `quantize` will choose ranges: "mse" stands for all its calibrators but "min-max".
        rows: Rows of each activation to search on, and as many to judge by.
    """

    name: ClassVar[str] = "equalize-channels"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("batch-norm-folded", "opset-13", "shapes-known")
    invalidates: ClassVar[tuple[str, ...]] = ()
    prepares: ClassVar[bool] = True

    least_gain: float = 0.05
    clipping: Clipping = "mse"
    rows: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.least_gain <= 1:
            raise ValueError(f"least_gain is {self.least_gain}; it must be between 0 and 1")
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}; it must be at least 1")

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the activations read by convolutions whose int8 outputs gain, named after the first reader."""
        if (reason := existing.why_left_alone(model)) is not None:
            yield Skip(None, reason)
            return
        found = scaling_sites(model, ctx, inserting=False)
        mine = [one for one in found if _is_convolutional(one)]
        yield from offered(
            self.name, model, mine, ctx, clipping=self.clipping, rows=self.rows, least=Least(self.least_gain)
        )

    def rewrite(self, site: Site, ctx: Context) -> Skip | Remark | None:
        """Divides one activation, and all that scale with it, and multiplies the weights that read them."""
        return rewritten(self.name, site)


def _is_convolutional(found: ScalingSite | Skip) -> bool:
    if isinstance(found, Skip):
        return found.node is not None and found.node.op_type == "Conv"
    return found.convolutional
