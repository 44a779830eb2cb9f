"""For authors of passes: does a pass keep its promises? On given models, on random ones, and in ONNX text.

from irc.testing import assert_conforms, assert_rewrites, parse_model
from irc.testing import pipeline_violations, shrink    # whole pipelines; the smallest model that shows a defect
from irc.testing.graphs import models    # a hypothesis strategy
"""

from irc.testing.conformance import Conformance, Violation, assert_conforms, check_pass
from irc.testing.model_text import parse_model
from irc.testing.pipelines import pipeline_violations
from irc.testing.rewriting import assert_rewrites
from irc.testing.shrinking import shrink

__all__ = [
    "Conformance",
    "Violation",
    "assert_conforms",
    "assert_rewrites",
    "check_pass",
    "parse_model",
    "pipeline_violations",
    "shrink",
]
