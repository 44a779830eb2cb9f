"""Layer normalization written out back to one operator.

    d = x - ReduceMean(x);   y = d / Sqrt(ReduceMean(d ** 2) + epsilon) * scale + bias
    =>   y = LayerNormalization<axis, epsilon>(x, scale, bias)

over the last axis or several of them; the bias may be missing, and the scale.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from irc.passes.fusion.normalization import NormalizationFusion, Normalized
from irc.passes.fusion.root_mean_square import centered, quotients, same_tensor


@dataclasses.dataclass(frozen=True)
class FuseLayerNormalization(NormalizationFusion):
    """One kernel instead of seven to nine passes over the data.

    Half precision is normalized in float32, double in double. Source: Ba et al. 2016, arXiv:1607.06450.
    """

    name: ClassVar[str] = "fuse-layer-normalization"
    op_type: ClassVar[str] = "LayerNormalization"
    since: ClassVar[int] = 17
    has_bias: ClassVar[bool] = True

    def normalized(self, value: ir.Value, opset: int) -> Normalized | None:
        """What is normalized to mean 0 and variance 1."""
        for quotient in quotients(value, opset):
            above, below = (centered(one, opset) for one in (quotient.numerator, quotient.squared))
            if above is None or below is None or not same_tensor(above[0], below[0]):
                continue
            if above[1] == below[1] == quotient.axes:
                return Normalized(above[0], quotient.epsilon, quotient.axes, (*quotient.nodes, *above[2], *below[2]))
        return None
