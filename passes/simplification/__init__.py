"""Lossless passes: a smaller graph that computes the same numbers."""

from irc.passes.simplification.eliminate_dead_code import EliminateDeadCode
from irc.passes.simplification.eliminate_dropout import EliminateDropout
from irc.passes.simplification.eliminate_identity import EliminateIdentity
from irc.passes.simplification.fold_batch_norm import FoldBatchNorm
from irc.passes.simplification.fold_constants import FoldConstants
from irc.passes.simplification.infer_shapes import InferShapes

__all__ = [
    "EliminateDeadCode",
    "EliminateDropout",
    "EliminateIdentity",
    "FoldBatchNorm",
    "FoldConstants",
    "InferShapes",
]
