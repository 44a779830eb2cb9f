"""Lossless passes: a smaller graph that computes the same numbers."""

from irc.passes.simplification.eliminate_dead_code import EliminateDeadCode
from irc.passes.simplification.eliminate_double_negation import EliminateDoubleNegation
from irc.passes.simplification.eliminate_dropout import EliminateDropout
from irc.passes.simplification.eliminate_identity import EliminateIdentity
from irc.passes.simplification.eliminate_inverse_concat import EliminateInverseConcat
from irc.passes.simplification.eliminate_no_op_arithmetic import EliminateNoOpArithmetic
from irc.passes.simplification.eliminate_no_op_selection import EliminateNoOpSelection
from irc.passes.simplification.eliminate_no_op_shape import EliminateNoOpShape
from irc.passes.simplification.eliminate_unused_body_values import EliminateUnusedBodyValues
from irc.passes.simplification.fold_affine import FoldAffine
from irc.passes.simplification.fold_batch_norm import FoldBatchNorm
from irc.passes.simplification.fold_constants import FoldConstants
from irc.passes.simplification.fold_pad import FoldPad
from irc.passes.simplification.fold_reshape_shape import FoldReshapeShape
from irc.passes.simplification.infer_shapes import InferShapes
from irc.passes.simplification.merge_arithmetic import MergeArithmetic
from irc.passes.simplification.merge_casts import MergeCasts
from irc.passes.simplification.merge_clips import MergeClips
from irc.passes.simplification.merge_common_subexpressions import MergeCommonSubexpressions
from irc.passes.simplification.merge_concats import MergeConcats
from irc.passes.simplification.merge_duplicate_initializers import MergeDuplicateInitializers
from irc.passes.simplification.merge_pads import MergePads
from irc.passes.simplification.merge_reshaped_transposes import MergeReshapedTransposes
from irc.passes.simplification.merge_reshapes import MergeReshapes
from irc.passes.simplification.merge_slices import MergeSlices
from irc.passes.simplification.merge_transposes import MergeTransposes
from irc.passes.simplification.resolve_cast_like import ResolveCastLike
from irc.passes.simplification.rewrite_with_onnxscript import RewriteWithOnnxscript
from irc.passes.simplification.simplify_with_onnxsim import SimplifyWithOnnxsim
from irc.passes.simplification.unroll_loop import UnrollLoop

__all__ = [
    "EliminateDeadCode",
    "EliminateDoubleNegation",
    "EliminateDropout",
    "EliminateIdentity",
    "EliminateInverseConcat",
    "EliminateNoOpArithmetic",
    "EliminateNoOpSelection",
    "EliminateNoOpShape",
    "EliminateUnusedBodyValues",
    "FoldAffine",
    "FoldBatchNorm",
    "FoldConstants",
    "FoldPad",
    "FoldReshapeShape",
    "InferShapes",
    "MergeArithmetic",
    "MergeCasts",
    "MergeClips",
    "MergeCommonSubexpressions",
    "MergeConcats",
    "MergeDuplicateInitializers",
    "MergePads",
    "MergeReshapedTransposes",
    "MergeReshapes",
    "MergeSlices",
    "MergeTransposes",
    "ResolveCastLike",
    "RewriteWithOnnxscript",
    "SimplifyWithOnnxsim",
    "UnrollLoop",
]
