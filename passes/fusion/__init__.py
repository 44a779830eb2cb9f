"""Lossless passes: composite operators of the standard for what is written out, and kept apart what a runtime fuses badly."""

from irc.passes.fusion.composite import Composite, Fusion
from irc.passes.fusion.fuse_attention import FuseAttention
from irc.passes.fusion.fuse_gelu import FuseGelu
from irc.passes.fusion.fuse_hard_swish import FuseHardSwish
from irc.passes.fusion.fuse_layer_normalization import FuseLayerNormalization
from irc.passes.fusion.fuse_matmul_add import FuseMatMulAdd
from irc.passes.fusion.fuse_mish import FuseMish
from irc.passes.fusion.fuse_rms_normalization import FuseRmsNormalization
from irc.passes.fusion.separate_residual_add import SeparateResidualAdd

__all__ = [
    "Composite",
    "FuseAttention",
    "FuseGelu",
    "FuseHardSwish",
    "FuseLayerNormalization",
    "FuseMatMulAdd",
    "FuseMish",
    "FuseRmsNormalization",
    "Fusion",
    "SeparateResidualAdd",
]
