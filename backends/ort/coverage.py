"""Read back from ONNX Runtime's own optimized graph which nodes run as integer kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from irc.coverage import Coverage, Covered
from irc.ledger import Ledger
from irc.runner import Runner, RuntimeNode, original_name
from irc.target import has_quantized_operands, is_dequantized

INTEGER_OPERATORS = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger",
        "DynamicQuantizeMatMul", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearGlobalAveragePool",
        "QLinearAveragePool", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QAttention", "QMoE",
    }
)  # fmt: skip
STORED_ONLY = "its weight is stored as int8 and computed with in float"
STORED_IN_BLOCKS = "its weight stays packed, in the runtime's kernel for weights in blocks (MatMulNBits)"
NOT_FUSED = "quantized, but the runtime did not fuse it"
_PASSED = ("Add", "Mul", "Cast", "DequantizeLinear", "QuantizeLinear", "Relu", "Clip", "Unsqueeze")
_RECURRENT = ("LSTM", "GRU", "RNN")


def coverage(runner: Runner, file: Path, float_nodes: Sequence[tuple[str, str]], ledger: Ledger) -> Coverage:
    """Intent from the ledger and the artifact, fact from the runtime, for each quantizable node of the float model."""
    import onnxruntime

    import irc.ir

    # Loaded, each node has a name, which the runtime keeps: a file may do without.
    artifact = irc.ir.load(file)
    read = _ReadBack(artifact, runner.runtime_graph(artifact))
    approximate = [record for record in ledger if record.contract == "approximate"]
    rewritten = {entry.site for record in approximate for entry in record.rewritten}
    reasons = {e.site: e.reason for record in approximate for e in (*record.skipped, *record.undone)}
    covered = []
    for site, op_type in float_nodes:
        integer, reason, intended = False, reasons.get(site, "not a site of any pass of this pipeline"), False
        if site in rewritten:
            integer, reason = read.verdict(site, op_type)
            intended = reason not in (STORED_ONLY, STORED_IN_BLOCKS)
        covered.append(Covered(site, op_type, intended, integer, reason))
    return Coverage(tuple(covered), f"read back from onnxruntime {onnxruntime.__version__}")


class _ReadBack:
    """The artifact beside the runtime's graph of it."""

    def __init__(self, artifact: ir.Model, runtime: Sequence[RuntimeNode]) -> None:
        self._values = {
            output.name: output
            for node in artifact.graph.all_nodes()
            for output in node.outputs
            if output.name is not None
        }
        self._named: dict[str, list[RuntimeNode]] = {}
        self._makers: dict[str, RuntimeNode] = {}
        for node in runtime:
            self._named.setdefault(original_name(node.name), []).append(node)
            self._makers |= {original_name(name): node for name in node.outputs}

    def verdict(self, site: str, op_type: str) -> tuple[bool, str]:
        """Whether the runtime executes a rewritten site in integers, and why not."""
        value = self._values.get(site)
        if value is None:
            return False, NOT_FUSED
        path = _behind(value, op_type)
        node = path[-1]
        if op_type == "Gather":
            return self._reads_int8_table(node)
        if node.op_type == op_type and op_type in _RECURRENT:
            return False, STORED_ONLY
        candidates = list(self._named.get(node.name or "", []))
        for step in path:
            for output in step.outputs:
                if output.name in self._makers:
                    candidates.append(self._makers[output.name])
        if any(candidate.op_type == "MatMulNBits" for candidate in candidates):
            return False, STORED_IN_BLOCKS
        weighted = node.op_type == op_type and op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
        if weighted and not has_quantized_operands(node) and not _is_integer_product(node):
            return False, STORED_ONLY
        if any(candidate.op_type in INTEGER_OPERATORS for candidate in candidates):
            return True, ""
        return False, NOT_FUSED

    def _reads_int8_table(self, node: ir.Node) -> tuple[bool, str]:
        table = node.inputs[0] if node.op_type == "Gather" else None
        if table is None or table.dtype != ir.DataType.INT8:
            return False, NOT_FUSED
        reads = any(n.op_type == "Gather" and table.name in n.inputs for n in self._named.get(node.name or "", []))
        return (True, "") if reads else (False, "the runtime expanded its int8 table")


def _is_integer_product(node: ir.Node) -> bool:
    """Whether a MatMul multiplies two quantized activations, as attention does."""
    return node.op_type == "MatMul" and all(map(is_dequantized, node.inputs))


def _behind(value: ir.Value, op_type: str) -> list[ir.Node]:
    """The nodes from the maker of a value back to the operator it stands for, which is the last one."""
    path: list[ir.Node] = []
    current: ir.Value | None = value
    while current is not None and (node := current.producer()) is not None:
        path.append(node)
        if node.op_type in (op_type, "MatMulInteger") or node.op_type not in _PASSED or not node.inputs:
            break
        current = node.inputs[0]
    return path
