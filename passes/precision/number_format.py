"""The narrow floating-point formats: what they hold, and what is lost when a constant is stored in one.

| format | largest | smallest normal | smallest | relative rounding error, at most |
|---|---|---|---|---|
| float16 | 65504 | 2^-14 | 2^-24 | 2^-11 |
| bfloat16 | 3.39e38 | 2^-126 | 2^-133 | 2^-8 |

Source: IEEE 754-2008 binary16; bfloat16 as in Kalamkar et al. 2019, arXiv:1905.12322.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]
LAZY_BYTES = 1 << 20
"""Larger constants are converted when they are written, one at a time, from the float tensor, which may be mapped."""
LARGEST_LOSS = 1e-4
"""Relative error energy above which a constant is not stored in a format; rounding alone stays below 4e-6."""
LARGEST_SCALAR_LOSS = 1e-3
"""The same for a single number: an epsilon of 1e-6, off by 1.3 % in float16, still does what it is there for."""
_BLOCK = 1 << 22


@dataclasses.dataclass(frozen=True)
class NumberFormat:
    """A narrow floating-point format.

    Attributes:
        name: As a pass option spells it.
        dtype: As ONNX has it.
        largest: Largest finite number.
        smallest_normal: Below it numbers lose precision, and in the end become 0.
        mask: What stands for "minus infinity" in masks of a Softmax: far below every score, and the sum of three is finite.
    """

    name: str
    dtype: ir.DataType
    largest: float
    smallest_normal: float
    mask: float

    def rounded(self, array: Array) -> Array:
        """The array in this format, rounded to nearest, ties to even; what is too large becomes infinite."""
        with np.errstate(over="ignore"):
            return np.asarray(array).astype(self.dtype.numpy())

    def converted(self, tensor: ir.TensorProtocol, *, masking: bool = False) -> ir.TensorProtocol:
        """A tensor in this format, lazy above 1 MiB.

        Args:
            tensor: Any float tensor; a large one is read when the result is written.
            masking: Whether finite numbers below the format are meant to mask a score.
        """

        def evaluate() -> ir.TensorProtocol:
            array = tensor.numpy()
            return ir.Tensor(self.rounded(self.masked(array) if masking else array), dtype=self.dtype)

        shape = ir.Shape([int(d) for d in tensor.shape])  # type: ignore[arg-type]
        if tensor.nbytes <= LAZY_BYTES:
            return evaluate()
        return ir.LazyTensor(evaluate, dtype=self.dtype, shape=shape)

    def masked(self, array: Array) -> Array:
        """The array with finite numbers that the format does not hold, if negative, in its own spelling of a mask."""
        return np.where(np.isfinite(array) & (array < -self.largest), np.asarray(self.mask, array.dtype), array)

    def why_not(self, array: Array, *, masking: bool = False) -> str | None:
        """Why a constant must not be stored in this format, or None; infinities and NaN stay what they are.

        Args:
            array: The constant.
            masking: As `converted` takes it.
        """
        flat = array.reshape(-1)
        energy = error = 0.0
        for start in range(0, flat.size, _BLOCK):
            part = flat[start : start + _BLOCK]
            if masking:
                part = self.masked(part)
            part = part[np.isfinite(part)].astype(np.float32)
            if not part.size:
                continue
            largest = float(np.abs(part).max())
            narrow = self.rounded(part).astype(np.float32)
            if not np.isfinite(narrow).all():
                return f"its constant reaches {largest:.4g}; {self.name} holds {self.largest:.5g}"
            # Scaled, so that squares of the smallest constants do not vanish.
            unit = largest or 1.0
            scaled = (part / unit).astype(np.float64)
            energy += float(np.dot(scaled, scaled)) * unit**2
            scaled -= narrow / unit
            error += float(np.dot(scaled, scaled)) * unit**2
        if error > (LARGEST_LOSS if flat.size > 1 else LARGEST_SCALAR_LOSS) * energy:
            largest = float(np.nanmax(np.abs(flat)))
            return f"its constant, at most {largest:.3g}, loses {(error / energy) ** 0.5:.2g} of itself in {self.name}"
        return None


FLOAT16 = NumberFormat("float16", ir.DataType.FLOAT16, 65504.0, 2.0**-14, -(2.0**14))
BFLOAT16 = NumberFormat("bfloat16", ir.DataType.BFLOAT16, (2 - 2.0**-7) * 2.0**127, 2.0**-126, -(2.0**120))
FORMATS = {known.name: known for known in (FLOAT16, BFLOAT16)}
