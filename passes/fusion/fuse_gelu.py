"""The Gaussian error linear unit written out, exactly or with tanh, back to one operator.

    x * 0.5 * (1 + Erf(x / sqrt(2)))                                     =>   Gelu(x)
    x * 0.5 * (1 + Tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))         =>   Gelu<approximate="tanh">(x)

in whatever order the products and sums are written.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import onnx_ir as ir

from irc.passes.fusion.activation import ends_in_arithmetic, inner_results
from irc.passes.fusion.composite import Composite, Fusion
from irc.passes.fusion.polynomial import Polynomial, Terms, leaves

SINCE = 20
_ROOT = math.sqrt(2 / math.pi)
_ARGUMENTS: dict[str, Terms] = {
    "Erf": {(1,): 1 / math.sqrt(2)},
    "Tanh": {(1,): _ROOT, (3,): _ROOT * 0.044715},
}
_HALF_OF_BOTH: Terms = {(1, 0): 0.5, (1, 1): 0.5}


@dataclasses.dataclass(frozen=True)
class FuseGelu(Fusion):
    """One kernel instead of five to nine passes over the data.

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """

    name: ClassVar[str] = "fuse-gelu"

    def composite(self, last: ir.Node, model: ir.Model) -> Composite | str | None:
        """A Gelu whose last product, quotient or sum is this node."""
        if not ends_in_arithmetic(last):
            return None
        for function in inner_results(last, "Erf", "Tanh"):
            argument = function.inputs[0]
            for x in leaves(argument):
                assert argument is not None
                inner = Polynomial(argument, [x])
                if x.dtype is None or not inner.equals(_ARGUMENTS[function.op_type], x.dtype):
                    continue
                outer = Polynomial(last.outputs[0], [x, function.outputs[0]])
                if outer.equals(_HALF_OF_BOTH, x.dtype):
                    mode = "tanh" if function.op_type == "Tanh" else ""
                    attributes = {"approximate": mode} if mode else {}
                    interior = (*(node for node in outer.nodes if node is not last), *inner.nodes, function)
                    return Composite("Gelu", SINCE, (x,), interior, x.dtype, attributes, mode)
        return None
