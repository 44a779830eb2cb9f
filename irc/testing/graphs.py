"""Random valid models: as a hypothesis strategy, and by seed.

They hold what breaks rewrites: values used several times, graph outputs that are also used inside, weights shared by
nodes and by bodies, weights that callers may override, missing optional inputs, dead ends, bodies of If, Loop and Scan
that capture values, operators of foreign domains, weights in data files, symbolic sizes, five element types, and the
opsets 13 to 23.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from irc.errors import UsageError
from irc.ir import normalize, refresh_shapes
from irc.testing.choices import Choices, DrawnChoices, SeededChoices
from irc.testing.random_graph import Limits, build_model, move_weights_to_files

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["Limits", "models", "random_model"]


def models(limits: Limits | None = None) -> SearchStrategy[ir.Model]:
    """A hypothesis strategy of random models in the form passes receive them.

        @hypothesis.given(models())
        def test_my_pass(model):
            assert_conforms(MyPass(), model, sharing="skip")

    Args:
        limits: What the models may hold; ONNX Runtime runs them by default.

    Raises:
        UsageError: If hypothesis is not installed.
    """
    try:
        from hypothesis import strategies
    except ModuleNotFoundError as error:
        raise UsageError(
            "random models as a strategy need hypothesis; pip install hypothesis, or use random_model(seed)"
        ) from error

    @strategies.composite
    def drawn(draw: strategies.DrawFn) -> ir.Model:
        return _model(DrawnChoices(draw), limits or Limits())

    return drawn()


def random_model(seed: int, limits: Limits | None = None) -> ir.Model:
    """The random model of a seed, without hypothesis.

    Args:
        seed: Equal seeds give equal models.
        limits: What the model may hold.
    """
    return _model(SeededChoices(seed), limits or Limits())


def _model(choices: Choices, limits: Limits) -> ir.Model:
    model = build_model(choices, limits)
    if not limits.raw:
        model = normalize(model)
        refresh_shapes(model, strict=False)
    # Last, since normalization reads small weights into memory.
    if limits.external_data and choices.integer(0, 1):
        move_weights_to_files(choices, model)
    return model
