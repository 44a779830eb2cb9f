"""What the quantizing passes of a pipeline have offered to quantize, remembered with the model and its copies.

A pass that stores what is left over asks here, so that it does not take up what the accuracy guard or a selection left
in float on purpose. Nothing of it is written to a file.
"""

from __future__ import annotations

from collections.abc import Set

import onnx_ir as ir

_KEY = "irc.offered-to-quantize"


def offered(model: ir.Model) -> Set[str]:
    """Ids of the sites that a pass offered, rewritten or not."""
    found = model.meta.get(_KEY)
    return found if isinstance(found, set) else frozenset()


def offering(model: ir.Model) -> set[str]:
    """The ids again, to be added to by the pass that walks over the model now."""
    # A new set: copies of the model share the old one.
    model.meta[_KEY] = found = set(offered(model))
    return found
