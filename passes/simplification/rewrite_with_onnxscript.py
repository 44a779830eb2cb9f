"""Apply the rewrite rules of onnxscript that our own passes do not cover, each match a site of its own.

Reshape(MatMul(Reshape(a), Reshape(b)))       =>   MatMul(a, b)                where shapes allow
Add(Expand(x, shape), y)                      =>   Add(x, y)                   where y enlarges x as far
Cast<to=T>(ConstantOfShape(shape))            =>   ConstantOfShape<T>(shape)
Reshape(x, computed shape)                    =>   Reshape(x, known shape)     where that is smaller
Min(Min(x, a), b)                             =>   Min(x, min(a, b))
Conv(x, w, zeros)                             =>   Conv(x, w)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import onnx_ir as ir

from irc.adapters import RewriteRules
from irc.ir import constant_tensor
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.foreign_replacement import (
    lost_attribute,
    missing_in_opset,
    not_smaller,
    undefined_shape,
    unsure_shape,
    wrong_rank,
)
from irc.passes.simplification.pass_through import pass_through
from irc.passes.simplification.unused import remove_unused

TAKEN = (
    "two_reshapes_matmul_reshape_rule",
    "one_reshape_matmul_reshape_rule",
    "expand_before_binary_op_rules",
    "cast_constant_of_shape_rule",
    "cast_constant_of_shape_without_value_rule",
    "materialize_reshape_shape_rule",
    "min_min_rule",
    "max_max_rule",
    "no_op_dynamic_scatter_nd_rule",
    "no_op_static_scatter_nd_rule",
    "squeeze_reshape_1d_rule",
    "remove_optional_bias_from_conv_rule",
    "remove_optional_bias_from_conv_transpose_rule",
    "remove_optional_bias_from_qlinear_conv_rule",
    "remove_optional_bias_from_gemm_rule",
)
"""Names in `onnxscript.rewriter.rules.common`, in the order in which they are tried at a node."""

LEFT_OUT = {
    "slice_split_rule": "two outputs, for which the matcher tries every pair of nodes of the model",
    "mul_by_1_rule": "takes 1.00001 for 1; eliminate-no-op-arithmetic does not",
    "add_0_rule": "takes 1e-9 for 0; eliminate-no-op-arithmetic does not",
    "sub_0_rule": "takes 1e-9 for 0; eliminate-no-op-arithmetic does not",
    "div_by_1_rule": "takes 1.00001 for 1; eliminate-no-op-arithmetic does not",
    "fuse_hardswish_rules": "takes what is near 3 and 6 for 3 and 6",
    "dropout_inference_rule": "eliminate-dropout",
    "dropout_zero_rule": "eliminate-dropout",
    "collapse_slice_rule": "eliminate-no-op-shape",
    "collapse_slice2_rule": "believes the declared shape of a graph output; eliminate-no-op-shape does not",
    "no_op_expand_rule": "eliminate-no-op-shape",
    "no_op_transpose_rule": "eliminate-no-op-shape",
    "no_op_cast_rule": "eliminate-no-op-arithmetic",
    "cast_cast_rule": "merge-casts",
    "reshape_reshape_rule": "merge-reshapes",
    "unsqueeze_unsqueeze_rule": "merge-reshapes",
    "transpose_transpose_rule": "merge-transposes",
    "min_max_rule": "merge-clips",
    "max_min_rule": "merge-clips",
    "successive_clip_rule": "merge-clips",
    "successive_clip_relu_rule": "merge-clips",
    "successive_relu_clip_rule": "merge-clips",
    "successive_relu_rule": "merge-clips",
    "fuse_pad_into_conv_rule": "fold-pad",
    "fuse_pad_into_conv_integer_rule": "ConvInteger pads with its zero point, and comes from quantizers, which run later",
    "fuse_batchnorm_into_conv_rule": "computes weights in memory; fold-batch-norm does when they are saved",
    "fuse_batchnorm_into_conv_transpose_rule": "computes weights in memory; fold-batch-norm does when they are saved",
    "fuse_batchnorm_into_gemm_rule": "computes weights in memory; fold-batch-norm does when they are saved",
    "affine_conv_fusion_rule": "computes weights in memory",
    "conv_affine_fusion_rule": "computes weights in memory",
    "flatten_to_reshape_rule": "makes the model larger",
    "normalize_pad_format_conv_rule": "makes the model larger",
    "normalize_pad_format_conv_integer_rule": "makes the model larger",
    "gemm_to_matmul_add_rule": "makes the model larger",
    "matmul_add_to_gemm_rule": "is faster only on some targets",
    "transpose_a_matmul_add_to_gemm_rule": "is faster only on some targets",
    "transpose_b_matmul_add_to_gemm_rule": "is faster only on some targets",
    "transpose_ab_matmul_add_to_gemm_rule": "is faster only on some targets",
}
"""The other rules of `onnxscript.rewriter.rules.common`, and why they are not used."""

_NO_NEAR_MISS = (
    "Bias is not",
    "Shape input is already a constant",
    "The shape of 'data' and 'updates' are different",
)
"""Beginnings of the reasons that rules give wherever their operator occurs."""


@dataclasses.dataclass(frozen=True)
class RewriteWithOnnxscript(Pass):
    """Applies rules of onnxscript where the replacement is smaller.

    A rule may not add nodes or bytes, use an operator that the opset lacks, or rest on dimensions that only look equal.
    """

    name: ClassVar[str] = "rewrite-with-onnxscript"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every match of a rule, and where one fits but its condition does not hold."""
        if not is_installed():
            yield Skip(None, "onnxscript is not installed; pip install 'irc-compiler[rules]'")
            return
        for found in _Guarded(rules()).sites(model, ctx):
            if isinstance(found, Site) or not found.reason.startswith(_NO_NEAR_MISS):
                yield found

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Replaces one match."""
        return _Guarded([site.match[0]]).rewrite(site, ctx)


def is_installed() -> bool:
    """Whether there is an onnxscript; it is not imported."""
    import importlib.util

    return importlib.util.find_spec("onnxscript") is not None


def rules() -> list[Any]:
    """The rules that are used, in order."""
    from onnxscript.rewriter.rules import common

    found: list[Any] = []
    for name in TAKEN:
        rule = getattr(common, name)
        found += list(rule) if hasattr(rule, "__iter__") else [rule]
    return found


class _Guarded(RewriteRules):
    """Rules whose replacements are looked at before they take their place."""

    def refuses(self, rule: Any, delta: Any, model: ir.Model) -> str | None:
        """Why the replacement would not be smaller, or not be sure to compute the same."""
        opset = model.graph.opset_imports.get("", 0)
        reasons = (
            *(missing_in_opset(node, opset) for node in delta.new_nodes),
            lost_attribute(delta.match.nodes[0], delta.new_nodes),
            undefined_shape(delta.new_nodes),
            wrong_rank(delta.match.nodes),
            unsure_shape(delta.match.nodes, model),
            not_smaller(delta),
        )
        return next((reason for reason in reasons if reason is not None), None)

    def tidy(self, new_nodes: Sequence[ir.Node], inputs: Sequence[ir.Value | None]) -> None:
        """Removes Identity nodes, turns Constant nodes into initializers, and removes what was left without users."""
        for node in new_nodes:
            graph, output = node.graph, node.outputs[0]
            assert isinstance(graph, ir.Graph)
            tensor = constant_tensor(output) if node.op_type == "Constant" else None
            if node.op_type == "Identity" and node.inputs[0] is not None:
                pass_through(node, node.inputs[0])
            elif tensor is not None and not output.is_graph_output():
                # Under the name it has, which was counted when the replacement was weighed.
                tensor.name = output.name
                dims = ir.Shape([int(d) for d in tensor.shape])  # type: ignore[arg-type]
                value = ir.Value(name=output.name, shape=dims, type=ir.TensorType(tensor.dtype), const_value=tensor)
                output.replace_all_uses_with(value)
                graph.remove(node, safe=True)
                graph.register_initializer(value)
        remove_unused(inputs)
