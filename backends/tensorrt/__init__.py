"""NVIDIA TensorRT: declared rules and lint; nothing is executed in this version."""

from irc.backends.tensorrt.target import TensorRtTarget

__all__ = ["TensorRtTarget"]
