"""What a target is: the quantization style of a runtime, and named rules with two readings each.

A rule is asked by the pass that places things ("may this node be integer here?") and by lint on a finished file ("which
nodes break it?"). Both readings come from the same predicate, so placement and lint cannot disagree. A pass asks the
target; it never tests its name.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import onnx_ir as ir

from irc.pass_base import node_id

if TYPE_CHECKING:
    from pathlib import Path

    from irc.coverage import Coverage
    from irc.ledger import Ledger
    from irc.runner import Runner

Effect = Literal["refused", "wrong", "float", "slower"]
EFFECTS: dict[Effect, str] = {
    "refused": "the runtime does not take the model",
    "wrong": "the runtime takes it and computes something else",
    "float": "what is quantized is computed in float",
    "slower": "it costs time or accuracy for nothing",
}
"""What breaking a rule leads to, the worst first."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A place in a file that breaks a rule.

    Attributes:
        rule: Name of the rule.
        node: Id of the node.
        message: What is wrong and what to do.
        effect: What it leads to.
    """

    rule: str
    node: str
    message: str
    effect: Effect = "float"


class Rule(abc.ABC):
    """One thing a runtime can or cannot do.

    Attributes:
        name: With dashes.
        summary: One sentence for the documentation.
        effect: What breaking it leads to, unless a finding says otherwise.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    effect: ClassVar[Effect] = "float"

    def finding(self, node: ir.Node, message: str, effect: Effect | None = None) -> Finding:
        """A finding of this rule at a node."""
        return Finding(self.name, node_id(node), message, effect or self.effect)

    def refuses(self, node: ir.Node) -> str | None:
        """Why a float node must not be made integer, or None: the constraint reading."""
        return None

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """Where a finished model breaks the rule: the lint reading."""
        return iter(())


class OperatorRule(Rule):
    """A rule about what an operator is, which holds in float and in int8 alike: one predicate, read both ways."""

    @abc.abstractmethod
    def why_float(self, node: ir.Node) -> str | None:
        """Why the runtime computes this node in float whatever surrounds it, or None."""

    def refuses(self, node: ir.Node) -> str | None:
        """The predicate, asked of a float node."""
        return self.why_float(node)

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """The predicate, asked of every node whose data and weight come out of DequantizeLinear."""
        for node in model.graph.all_nodes():
            if has_quantized_operands(node) and (reason := self.why_float(node)) is not None:
                what = "does not pay" if self.effect == "slower" else "runs in float"
                yield self.finding(node, f"{node.op_type} is quantized but {what}: {reason}")


def is_dequantized(value: ir.Value | None) -> bool:
    """Whether a value comes out of a DequantizeLinear."""
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear" and producer.domain == ""


def has_quantized_operands(node: ir.Node) -> bool:
    """Whether a node is spelled as an integer one: a constant int8 weight and a quantized activation go in."""
    return (
        node.domain == ""
        and len(node.inputs) > 1
        and is_dequantized(node.inputs[0])
        and stored_weight(node) is not None
    )


def stored_weight(node: ir.Node) -> ir.Node | None:
    """The DequantizeLinear of a node's constant weight, seen through a Transpose, or None."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Transpose" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return None
    return producer if producer.inputs[0].producer() is None else None


def operand_shape(value: ir.Value | None) -> ir.Shape | None:
    """The shape of an operand in a float or a quantized graph alike: of what was quantized, if it was."""
    while value is not None and value.shape is None:
        producer = value.producer()
        if producer is None or not producer.inputs:
            return None
        if producer.op_type == "Transpose" and (shape := operand_shape(producer.inputs[0])) is not None:
            order = producer.attributes.get_ints("perm", list(range(len(shape)))[::-1])
            return ir.Shape([shape[axis] for axis in order])
        if producer.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return None
        value = producer.inputs[0]
    return value.shape if value is not None else None


@dataclasses.dataclass(frozen=True)
class QuantizationStyle:
    """How a runtime wants int8 models spelled.

    Attributes:
        activation: "uint8" (asymmetric) or "int8" (symmetric, zero point 0).
        weight_limit: Largest absolute int8 weight: 127, or 63 where products of two pairs saturate 16 bits.
        gemm_bias: How the bias of an integer Gemm is stored: "int32" behind DequantizeLinear, or "float".
        weighted: Operators with a constant weight that have integer kernels.
        needs_output: Of these, operators that are integer only when their output is quantized too.
        sums_become_bias: Whether the runtime makes a float Gemm of a quantized MatMul and a float sum behind it.
        requantized: Operators whose float weight the runtime quantizes, its own way, between DequantizeLinear with one
            scale and QuantizeLinear.
        weight_zero_points: Of these, operators that want an explicit zero point of zeros for their weight.
        joining: Operators without weights that are integer when all their inputs and their output are quantized.
        residual: Whether the skip branch of an Add behind an integer operator is quantized, the other branch not.
        commuting: Operators that move int8 data unchanged when their output shares the scale of their input.
        fused: Activations that disappear into the quantization behind them.
        embeddings: Whether Gather reads int8 tables.
        dynamic: Whether activations may be quantized by ranges taken at run time.
        weights_fold: Whether `Cast(int8) * scale` of constants is computed once, when the model is loaded.
    """

    activation: Literal["uint8", "int8"]
    weight_limit: int = 127
    gemm_bias: Literal["int32", "float"] = "float"
    weighted: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    needs_output: tuple[str, ...] = ()
    sums_become_bias: bool = False
    requantized: tuple[str, ...] = ()
    weight_zero_points: tuple[str, ...] = ()
    joining: tuple[str, ...] = ()
    residual: bool = False
    commuting: tuple[str, ...] = ()
    fused: tuple[str, ...] = ()
    embeddings: bool = True
    dynamic: bool = True
    weights_fold: bool = True

    @property
    def quantized_range(self) -> tuple[int, int]:
        """Smallest and largest quantized activation."""
        return (0, 255) if self.activation == "uint8" else (-127, 127)


class Target(abc.ABC):
    """A runtime an artifact is made for; subclasses are frozen dataclasses whose fields are options.

    Attributes:
        name: The spelling on the command line.
        max_opset: The highest default opset the runtime is known to read.
        max_ir_version: The highest IR version it is known to read.
        executed_here: Whether the runtime that irc measures with is this one.
    """

    name: ClassVar[str]
    max_opset: ClassVar[int]
    max_ir_version: ClassVar[int]
    executed_here: ClassVar[bool] = False

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

    def has_operator(self, op_type: str, opset: int, dtype: ir.DataType, *, mode: str = "") -> bool:
        """Whether an operator of the standard domain may take the place of the operators it stands for.

        That is: the runtime executes it for this type, and no slower than them. By default every operator may, up to the
        newest opset the runtime reads.

        Args:
            op_type: The operator.
            opset: Version of the default domain.
            dtype: Type of its data.
            mode: The value of the attribute that selects what it computes: "tanh" of a Gelu.
        """
        return opset <= self.max_opset

    def lacks_type(self, op_type: str, opset: int, dtype: ir.DataType) -> str | None:
        """Why the runtime does not run an operator on data of a floating-point type, or None where it does.

        Running it through conversions of its own counts. By default every type of the standard is run.

        Args:
            op_type: The operator; "" asks about the type as a whole.
            opset: Version of the default domain.
            dtype: Type of its data.
        """
        return None

    def channel_multiple(self, node: ir.Node, width: int, *, integers: bool = False) -> int:
        """Of what the number of channels should be a multiple that an axis of a product is cut to.

        Kernels pad channels to blocks: what is no multiple costs as much as the next one, or more. By default every
        number is as good as its neighbours.

        Args:
            node: A Conv, MatMul, Gemm or the like, which reads or makes the channels.
            width: How many channels there are before the cut.
            integers: Whether it is going to have int8 operands, where it has none yet.
        """
        return 1

    def fuses_slowly(self, node: ir.Node, reader: str, opset: int) -> bool:
        """Whether the runtime fuses a node with the one that alone reads its result, into a kernel slower than both.

        By default no fusion of a runtime loses time.

        Args:
            node: A float node.
            reader: Type of the operator that reads its result, as it is or written out.
            opset: Version of the default domain.
        """
        return False

    def pinned(self) -> Target:
        """The same target with every default that depends on this machine or its packages said outright, for a plan."""
        return self

    def lint(self, model: ir.Model) -> list[Finding]:
        """Where a finished model breaks a rule, versions first, then rule by rule, each in graph order."""
        found = [finding for rule in self.rules for finding in rule.findings(model)]
        opset = model.graph.opset_imports.get("", 0)
        if opset > self.max_opset:
            message = f"opset {opset} is newer than {self.max_opset}, the newest that {self.name} is known to read"
            found.insert(0, Finding("opset-is-known", "<model>", message, "refused"))
        if model.ir_version > self.max_ir_version:
            message = f"IR version {model.ir_version} is newer than {self.max_ir_version}, the newest {self.name} reads"
            found.insert(0, Finding("ir-version-is-known", "<model>", message, "refused"))
        return found

    @abc.abstractmethod
    def coverage(self, runner: Runner, file: Path, float_nodes: Sequence[tuple[str, str]], ledger: Ledger) -> Coverage:
        """Which float nodes the artifact really executes as integer kernels.

        Args:
            runner: Where the runtime is.
            file: The artifact.
            float_nodes: (site id, operator type) of the quantizable nodes before quantization.
            ledger: The intent, and why sites were left out.
        """
