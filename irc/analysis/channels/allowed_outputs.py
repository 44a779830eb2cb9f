"""Outputs of a model that a user lets get narrower: embedding models, feature extractors."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import onnx_ir as ir

from irc.errors import UsageError


def check_outputs(model: ir.Model, names: Sequence[str]) -> None:
    """Checks that a model has the outputs a user names.

    Raises:
        UsageError: If it has no output of that name; the message has the closest.
    """
    known = [value.name or "" for value in model.graph.outputs]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known) or 'none'}"
            raise UsageError(f"--allow-output {name}: the model has no such output; {advice}")
