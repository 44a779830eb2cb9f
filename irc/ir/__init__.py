"""What a model is: load, save, safe edits, shapes, validity, and models split from their weights.

The IR is `onnx_ir.Model`, used directly. This room closes the traps around it and wraps nothing else.
"""

from irc.ir.bodies import bodies
from irc.ir.constants import constant, constant_tensor, is_graph_input, is_graph_output, only_consumer
from irc.ir.copying import snapshot
from irc.ir.edit import add_initializer, bypass, can_replace, remove_dead, replace_node, replace_value
from irc.ir.exporter_metadata import MODULE_KEY, module_metadata
from irc.ir.names import unique_name
from irc.ir.normal_form import normalize
from irc.ir.origin import Provenance, provenance
from irc.ir.reading import load
from irc.ir.shapes import refresh_shapes
from irc.ir.splitting import Skeleton, skeleton
from irc.ir.validity import Interface, check, interface
from irc.ir.writing import save, size_on_disk, weight_bytes

__all__ = [
    "MODULE_KEY",
    "Interface",
    "Provenance",
    "Skeleton",
    "add_initializer",
    "bodies",
    "bypass",
    "can_replace",
    "check",
    "constant",
    "constant_tensor",
    "interface",
    "is_graph_input",
    "is_graph_output",
    "load",
    "module_metadata",
    "normalize",
    "only_consumer",
    "provenance",
    "refresh_shapes",
    "remove_dead",
    "replace_node",
    "replace_value",
    "save",
    "size_on_disk",
    "skeleton",
    "snapshot",
    "unique_name",
    "weight_bytes",
]
