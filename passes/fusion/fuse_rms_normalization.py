"""Root mean square normalization written out back to one operator.

    y = x / Sqrt(ReduceMean(x ** 2) + epsilon) * scale   =>   y = RMSNormalization<axis, epsilon>(x, scale)

over the last axis or several of them; the scale may be missing.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from irc.passes.fusion.normalization import NormalizationFusion, Normalized
from irc.passes.fusion.root_mean_square import centered, quotients, same_tensor


@dataclasses.dataclass(frozen=True)
class FuseRmsNormalization(NormalizationFusion):
    """One kernel instead of six or seven passes over the data.

    Half precision is normalized in float32, double in double. Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """

    name: ClassVar[str] = "fuse-rms-normalization"
    op_type: ClassVar[str] = "RMSNormalization"
    since: ClassVar[int] = 23
    has_bias: ClassVar[bool] = False

    def normalized(self, value: ir.Value, opset: int) -> Normalized | None:
        """What is normalized to a mean square of 1; what has no mean is left to layer normalization."""
        for quotient in quotients(value, opset):
            if same_tensor(quotient.numerator, quotient.squared) and centered(quotient.numerator, opset) is None:
                return Normalized(quotient.numerator, quotient.epsilon, quotient.axes, quotient.nodes)
        return None
