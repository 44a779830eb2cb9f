"""From the range of an activation to scale and zero point.

asymmetric uint8: scale = (high - low) / 255, zero_point = round(-low / scale), with 0 in [low, high]
symmetric int8:   scale = max(-low, high) / 127, zero_point = 0
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from irc.calibration import MinMax
from irc.target import QuantizationStyle

SMALLEST_SCALE = 1e-30
"""Below this a range counts as degenerate: it holds nothing but zero, and any scale is exact."""


@dataclasses.dataclass(frozen=True)
class ActivationScale:
    """Scale and zero point of one tensor.

    Attributes:
        scale: float32, positive and finite.
        zero_point: uint8 or int8.
    """

    scale: np.float32
    zero_point: np.uint8 | np.int8


def activation_scale(observed: MinMax, style: QuantizationStyle) -> ActivationScale:
    """Scale and zero point for an observed range in a target's style; zero is always representable exactly."""
    low, high = min(observed.low, 0.0), max(observed.high, 0.0)
    if style.activation == "int8":
        scale = np.float32(max(-low, high) / 127)
        return ActivationScale(scale if scale > SMALLEST_SCALE else np.float32(1.0), np.int8(0))
    width = min(high - low, float(np.finfo(np.float32).max))
    scale = np.float32(width / 255)
    if not scale > SMALLEST_SCALE:
        return ActivationScale(np.float32(1.0), np.uint8(0))
    # Rounded down: a Clip in front disappears only if the largest representable value stays within its bound.
    while float(scale) * 255 > width:
        scale = np.nextafter(scale, np.float32(0))
    zero = min(max(round(-low / float(scale)), 0), 255) if math.isfinite(low) else 0
    return ActivationScale(scale, np.uint8(zero))
