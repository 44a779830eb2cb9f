"""One rewrite, before and after, in ONNX text."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir

from irc.application import apply_pass
from irc.pass_base import Context, Pass
from irc.pipeline import Step
from irc.testing.conformance import assert_conforms
from irc.testing.model_text import parse_model, parse_proto
from irc.testing.structure import structural_difference


def assert_rewrites(
    pass_: Pass,
    before: str,
    after: str,
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 10,
    context: Context | None = None,
    **more: Any,
) -> None:
    """Asserts that a pass turns one graph into another, both in ONNX text, and conforms while it does.

        assert_rewrites(MyPass(), "g (float[2] x) => (float[2] y) { a = Relu(x)  y = Relu(a) }",
                                  "g (float[2] x) => (float[2] y) { y = Relu(x) }")

    Names of inner values and the order of nodes do not count. A name in `after` that nothing defines stands for any
    constant, which the pass may have computed.

    Args:
        pass_: The pass.
        before: The graph it receives.
        after: The graph it makes; the same text as `before` if it must leave it alone.
        weights: Initializers of both, by name: an array, or a shape, filled with numbers seeded by the name.
        opset: Version of the default domain, unless the text has a header.
        ir_version: IR version, unless the text has a header.
        context: What the pass may ask of the world.
        more: More weights, for names that are identifiers.

    Raises:
        AssertionError: With the first difference and both graphs as text; or with the broken promises.
        UsageError: If a text cannot be parsed.
    """
    given = {**(weights or {}), **more}
    model = parse_model(before, given, opset=opset, ir_version=ir_version)
    wanted = parse_proto(after, given, opset=opset, ir_version=ir_version)
    used = {name for node in wanted.graph.node for name in _names(node)} | {o.name for o in wanted.graph.output}
    kept = [tensor for tensor in wanted.graph.initializer if tensor.name in used or tensor.name not in given]
    del wanted.graph.initializer[:]
    wanted.graph.initializer.extend(kept)
    found = parse_model(before, given, opset=opset, ir_version=ir_version)
    record = apply_pass(Step(pass_), found, context or Context()).record
    difference = structural_difference(found, ir.from_proto(wanted))
    if difference is not None:
        skipped = "".join(f"\n  skipped {entry.site}: {entry.reason}" for entry in record.skipped)
        lines = difflib.unified_diff(_lines(wanted), _lines(ir.to_proto(found)), "expected", "found", lineterm="", n=99)
        raise AssertionError(f"{pass_.name}: {difference}{skipped}\n" + "\n".join(lines))
    assert_conforms(pass_, {"before": model}, context=context)


def _names(node: onnx.NodeProto) -> list[str]:
    inner = [name for a in node.attribute for g in (a.g, *a.graphs) for n in g.node for name in _names(n)]
    outputs = [value.name for a in node.attribute for g in (a.g, *a.graphs) for value in g.output]
    return [*node.input, *inner, *outputs]


def _lines(proto: onnx.ModelProto) -> list[str]:
    """The graph as text, without weights, shapes and names of nodes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.initializer[:]
    del copy.graph.value_info[:]
    for node in copy.graph.node:
        node.name = ""
        del node.metadata_props[:]
    return str(onnx.printer.to_text(copy.graph)).replace('[""] ', "").splitlines()
