"""From the range of an activation to scale and zero point.

    asymmetric uint8: scale = (high - low) / 255, zero_point = round(-low / scale), with 0 in [low, high]
    symmetric int8:   scale = max(-low, high) / 127, zero_point = 0
"""

from __future__ import annotations

import dataclasses

import numpy as np

from irc.calibration import MinMax
from irc.target import QuantizationStyle

SMALLEST_SCALE = np.float32(1e-30)


@dataclasses.dataclass(frozen=True)
class ActivationScale:
    """Scale and zero point of one tensor.

    Attributes:
        scale: float32, positive.
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
    scale = np.float32((high - low) / 255)
    if not scale > SMALLEST_SCALE:
        return ActivationScale(np.float32(1.0), np.uint8(0))
    # Rounded down, so that the largest representable value never exceeds the range: a Clip in front then disappears.
    if np.float32(scale * np.float32(255)) > np.float32(high - low):
        scale = np.nextafter(scale, np.float32(0))
    zero = int(np.clip(np.rint(-low / float(scale)), 0, 255))
    return ActivationScale(scale, np.uint8(zero))
