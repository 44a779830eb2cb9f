"""Read back from ONNX Runtime's own optimized graph which nodes run as integer kernels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from irc.coverage import Coverage, Covered
from irc.ledger import Ledger
from irc.runner import Runner, RuntimeNode

INTEGER_OPERATORS = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger",
        "DynamicQuantizeMatMul", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearGlobalAveragePool",
        "QLinearAveragePool", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QAttention", "QMoE",
    }
)  # fmt: skip
_SUFFIX = re.compile(r"(_token_\d+|_nhwc|/duplicated|_out\d+)+\Z")


def coverage(runner: Runner, file: Path, float_nodes: Sequence[tuple[str, str]], ledger: Ledger) -> Coverage:
    """Intent from the ledger, fact from the runtime, for each quantizable node of the float model."""
    import onnxruntime

    import irc.ir

    names = {
        output.name: node.name
        for node in irc.ir.load(file).graph.all_nodes()
        for output in node.outputs
        if node.name
    }
    nodes = runner.runtime_graph(file)
    by_name: dict[str, list[RuntimeNode]] = {}
    producers: dict[str, RuntimeNode] = {}
    for node in nodes:
        by_name.setdefault(_SUFFIX.sub("", node.name), []).append(node)
        producers |= {_SUFFIX.sub("", name): node for name in node.outputs}
    intended = {
        entry.site for record in ledger if record.contract == "approximate" for entry in record.rewritten
    }
    reasons = {
        entry.site: entry.reason
        for record in ledger
        if record.contract == "approximate"
        for entry in (*record.skipped, *record.undone)
    }
    covered = []
    for site, op_type in float_nodes:
        meant = site in intended
        integer = meant and (op_type == "Gather" or _is_integer(site, names, by_name, producers))
        reason = reasons.get(site, "") if not meant else "" if integer else "quantized, but the runtime did not fuse it"
        if not meant and not reason:
            reason = "not a site of any pass of this pipeline"
        covered.append(Covered(site, op_type, meant, integer, "" if integer else reason))
    return Coverage(tuple(covered), f"read back from onnxruntime {onnxruntime.__version__}")


def _is_integer(
    site: str, names: dict[str | None, str | None], by_name: dict[str, list[RuntimeNode]], producers: dict[str, RuntimeNode]
) -> bool:
    """Whether the runtime node that carries the site's name, or makes its output, is an integer kernel."""
    candidates = list(by_name.get(names.get(site) or site, []))
    if site in producers:
        candidates.append(producers[site])
    return any(node.op_type in INTEGER_OPERATORS for node in candidates)
