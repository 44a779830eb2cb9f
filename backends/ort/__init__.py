"""Stock ONNX Runtime on CPUs: placement rules, lint, and coverage read back from the runtime."""

from irc.backends.ort.target import OrtTarget

__all__ = ["OrtTarget"]
