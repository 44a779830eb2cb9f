"""PyTorch in: a module is traced with `torch.export`, FX passes may rewrite it, and it becomes an ONNX model in memory.

torch is imported when something is traced, not before.
"""

from irc.trace.fx_pass import FxPass, FxSite, FxSkip, module_of
from irc.trace.module_source import is_module, is_module_spelling
from irc.trace.program_graph import add_attribute, attribute, drop_outputs, output_names, output_node
from irc.trace.traced import Traced
from irc.trace.tracer import EXPORTERS, trace

__all__ = [
    "EXPORTERS",
    "FxPass",
    "FxSite",
    "FxSkip",
    "Traced",
    "add_attribute",
    "attribute",
    "drop_outputs",
    "is_module",
    "is_module_spelling",
    "module_of",
    "output_names",
    "output_node",
    "trace",
]
