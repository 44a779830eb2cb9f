"""What a target is: the quantization style of a runtime, and named rules with two readings each.

A rule is asked by the pass that places things ("may this node be integer here?") and by lint on a finished file ("which nodes break it?").
Placement and lint read the same rules, so they cannot disagree. A pass asks the target; it never tests its name.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import onnx_ir as ir

if TYPE_CHECKING:
    from pathlib import Path

    from irc.coverage import Coverage
    from irc.ledger import Ledger
    from irc.runner import Runner


@dataclasses.dataclass(frozen=True)
class Finding:
    """A place in a file that breaks a rule.

    Attributes:
        rule: Name of the rule.
        node: Id of the node.
        message: What is wrong and what to do.
    """

    rule: str
    node: str
    message: str


class Rule(abc.ABC):
    """One thing a runtime can or cannot do.

    Attributes:
        name: With dashes.
        summary: One sentence for the documentation.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    def refuses(self, node: ir.Node) -> str | None:
        """Why a float node must not be made integer, or None: the constraint reading."""
        return None

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """Where a finished model breaks the rule: the lint reading."""
        return iter(())


@dataclasses.dataclass(frozen=True)
class QuantizationStyle:
    """How a runtime wants int8 models spelled.

    Attributes:
        activation: "uint8" (asymmetric) or "int8" (symmetric, zero point 0).
        weight_limit: Largest absolute int8 weight: 127, or 63 where products of two pairs saturate 16 bits.
        bias: How the bias of an integer Gemm is stored: "int32" behind DequantizeLinear, or "float".
        weighted: Operators with a constant weight that have integer kernels.
        weight_zero_points: Of these, operators fused only when the zero points of the weight are spelled out.
        needs_output: Of these, operators that are integer only when their output is quantized too.
        joining: Operators without weights that are integer when all inputs and the output are quantized.
        commuting: Operators that move int8 data unchanged when their output shares the scale of their input.
        fused: Activations that disappear into the quantization behind them.
        embeddings: Whether Gather reads int8 tables.
    """

    activation: Literal["uint8", "int8"]
    weight_limit: int = 127
    bias: Literal["int32", "float"] = "float"
    weighted: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    weight_zero_points: tuple[str, ...] = ()
    needs_output: tuple[str, ...] = ()
    joining: tuple[str, ...] = ()
    commuting: tuple[str, ...] = ()
    fused: tuple[str, ...] = ()
    embeddings: bool = True

    @property
    def quantized_range(self) -> tuple[int, int]:
        """Smallest and largest quantized activation."""
        return (0, 255) if self.activation == "uint8" else (-127, 127)


class Target(abc.ABC):
    """A runtime an artifact is made for; subclasses are frozen dataclasses whose fields are options.

    Attributes:
        name: The spelling on the command line.
        max_opset: The highest default opset the runtime is known to read.
    """

    name: ClassVar[str]
    max_opset: ClassVar[int]

    @property
    @abc.abstractmethod
    def quantization(self) -> QuantizationStyle:
        """How int8 is spelled for this runtime."""

    @property
    @abc.abstractmethod
    def rules(self) -> tuple[Rule, ...]:
        """The named rules, in the order lint reports them."""

    def refuses(self, node: ir.Node) -> str | None:
        """Why no rule lets this float node become integer, or None; the rule's name stands in front."""
        for rule in self.rules:
            reason = rule.refuses(node)
            if reason is not None:
                return f"{rule.name}: {reason}"
        return None

    def lint(self, model: ir.Model) -> list[Finding]:
        """Where a finished model breaks a rule, rule by rule."""
        return [finding for rule in self.rules for finding in rule.findings(model)]

    @abc.abstractmethod
    def coverage(self, runner: Runner, file: Path, float_nodes: Sequence[tuple[str, str]], ledger: Ledger) -> Coverage:
        """Which float nodes the artifact really executes as integer kernels.

        Args:
            runner: Where the runtime is.
            file: The artifact.
            float_nodes: (site id, operator type) of the quantizable nodes before quantization.
            ledger: The intent, and why sites were left out.
        """
