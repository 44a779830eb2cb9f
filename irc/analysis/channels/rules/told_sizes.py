"""Shape and Size: what tells sizes has no labels and pins none, since surgery keeps it telling the old sizes."""

from __future__ import annotations

from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.registration import rule


@rule("Shape", "Size")
def told(view: NodeView) -> None:
    """Y = sizes of X, whatever X holds."""
    view.write_bundles([])
