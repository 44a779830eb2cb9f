"""How far outputs of PyTorch may move: the module's own rounding noise, as `irc.runner.reference` has it for ONNX Runtime.

    |candidate - reference| <= MULTIPLE * noise + relative * max|reference|

`noise` is how far the outputs move when torch computes them with other kernels: without oneDNN, and with one thread. An
output that moves by more than rounding explains (random numbers) is not compared, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from irc.runner import difference
from irc.runner.tolerance import EPSILONS, INTEGER_AGREEMENT
from irc.trace.example_inputs import to_numpy
from irc.trace.silence import quiet

MULTIPLE = 8.0
# bfloat16 has no numpy name among EPSILONS; half types accumulate in float but round at every step.
_COARSE = {"bfloat16": 8 * 2.0**-7}


class TensorReference:
    """Outputs of a computation on several inputs, and the noise of each output.

    Args:
        runs: One function per input; each gives the outputs, tensors or plain values.

    Attributes:
        values: Outputs per input, as arrays; None for what is no tensor.
        notes: Outputs that are not compared.
    """

    def __init__(self, runs: Sequence[Callable[[], Sequence[Any]]]) -> None:
        self.notes: list[str] = []
        self.values: list[list[np.ndarray[Any, Any] | None]] = []
        self._noise: dict[int, float] = {}
        self._unstable: set[int] = set()
        for run in runs:
            reference = [_array(value) for value in run()]
            self._measure(reference, run)
            self.values.append(reference)
        for place in sorted(self._unstable):
            self.notes.append(f"output {place} of the module is not compared: it differs between two runs")

    def _measure(self, reference: Sequence[np.ndarray[Any, Any] | None], run: Callable[[], Sequence[Any]]) -> None:
        import torch

        again = [_array(value) for value in run()]
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            with quiet(), torch.backends.mkldnn.flags(enabled=False):
                other = [_array(value) for value in run()]
        finally:
            torch.set_num_threads(threads)
        for place, (first, second, third) in enumerate(zip(reference, again, other, strict=True)):
            if first is None or second is None or third is None:
                continue
            if not difference.same_form(first, second) or not _near(first, second):
                self._unstable.add(place)
            elif difference.same_form(first, third) and difference.is_float(first):
                moved = difference.largest_difference(first, third)
                self._noise[place] = max(moved, self._noise.get(place, 0.0))

    def difference(
        self, number: int, outputs: Mapping[int, Any], *, exact: bool = False, names: Sequence[str] = ()
    ) -> str | None:
        """What is wrong with other outputs for an input, or None.

        Args:
            number: Which input.
            outputs: Outputs by place: tensors, arrays or plain values.
            exact: Whether equal bits are asked for.
            names: What messages call the outputs; their places by default.
        """
        for place, value in outputs.items():
            reference = self.values[number][place]
            found = value if isinstance(value, np.ndarray) else _array(value)
            if reference is None or place in self._unstable:
                continue
            label = repr(names[place]) if place < len(names) else str(place)
            where = f"output {label} on example {number + 1}"
            if found is None or not difference.same_form(found, reference):
                form = "missing" if found is None else f"{found.dtype} {list(found.shape)}"
                return f"{where} was {reference.dtype} {list(reference.shape)} and is {form}"
            if not difference.is_float(reference):
                share = difference.disagreement(found, reference)
                if share > (0.0 if exact else 1 - INTEGER_AGREEMENT):
                    return f"{where}: {share:.2%} of the elements differ"
                continue
            if not difference.same_exceptions(found, reference):
                return f"{where} has NaN or infinity in other places"
            error = difference.largest_difference(found, reference)
            tolerance = (
                0.0
                if exact
                else MULTIPLE * self._noise.get(place, 0.0) + _relative(reference) * difference.scale(reference)
            )
            if error > tolerance:
                allowed = "the pass promises identical bits" if exact else f"rounding allows {tolerance:.3g}"
                return f"{where} is off by {error:.3g}; {allowed}"
        return None


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    import torch

    return to_numpy(value) if isinstance(value, torch.Tensor) else None


def _relative(array: np.ndarray[Any, Any]) -> float:
    name = array.dtype.name
    if name in _COARSE:
        return _COARSE[name]
    return EPSILONS.get(name, 64.0) * float(np.finfo(array.dtype).eps)


def _near(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Whether two runs of the same computation agree but for rounding."""
    if not difference.is_float(a):
        return bool(np.array_equal(a, b))
    return difference.same_exceptions(a, b) and difference.largest_difference(a, b) <= _relative(a) * difference.scale(
        a
    )
