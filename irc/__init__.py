"""irc: a compiler that makes trained neural networks small and fast.

    import irc

    report = irc.optimize("model.onnx", data="calib/")
    print(report.latency, report.accuracy, report.output)

Names are imported when first used, so `import irc` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "optimize": "irc.driver",
    "BuildReport": "irc.report.build_report",
    "PassManager": "irc.pass_manager",
    "RunResult": "irc.pass_manager",
    "Pass": "irc.pass_base",
    "ModelPass": "irc.pass_base",
    "Site": "irc.pass_base",
    "Skip": "irc.pass_base",
    "Contract": "irc.pass_base",
    "Context": "irc.pass_base",
    "Ledger": "irc.ledger",
    "Plan": "irc.plan",
    "Recipe": "irc.recipe",
    "IrcError": "irc.errors",
    "load": "irc.ir",
    "save": "irc.ir",
    "register": "irc.registry",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from irc.driver import optimize as optimize
    from irc.errors import IrcError as IrcError
    from irc.ir import load as load
    from irc.ir import save as save
    from irc.ledger import Ledger as Ledger
    from irc.pass_base import Context as Context
    from irc.pass_base import Contract as Contract
    from irc.pass_base import ModelPass as ModelPass
    from irc.pass_base import Pass as Pass
    from irc.pass_base import Site as Site
    from irc.pass_base import Skip as Skip
    from irc.pass_manager import PassManager as PassManager
    from irc.pass_manager import RunResult as RunResult
    from irc.plan import Plan as Plan
    from irc.recipe import Recipe as Recipe
    from irc.registry import register as register
    from irc.report.build_report import BuildReport as BuildReport


def __getattr__(name: str) -> Any:
    """Imports a public name from its home."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'irc' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
