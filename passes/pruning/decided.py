"""What becomes of a model's sites: decided of all at once, when the first is asked for, and remembered by "PASS/SITE/FINGERPRINT"."""

from __future__ import annotations

import abc
import functools
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import onnx_ir as ir

from irc.calibration.data import DataSource
from irc.decisions import Decision, Decisions
from irc.errors import UsageError
from irc.options import format_call
from irc.pass_base import Context, Pass
from irc.passes.pruning import history


class Named(Protocol):
    """What a site is about, such as a family of channels."""

    @property
    def id(self) -> str:
        """Of the site."""


def has_data(ctx: Context) -> bool:
    """Whether there are samples, and something that runs models on them."""
    return isinstance(ctx.data, DataSource) and ctx.runner is not None


class SiteDecisions(abc.ABC):
    """One model under one set of options.

    Args:
        model: The model to rewrite; unchanged.
        options: The pass.
        ctx: Target, data, decisions and selection.

    Attributes:
        model: The model to rewrite.
        options: The pass.
        text: The pass with its options.
        original: What the model was before it was pruned first; see `history`.
    """

    def __init__(self, model: ir.Model, options: Pass, ctx: Context) -> None:
        self.model, self.options, self._ctx = model, options, ctx
        self.text = format_call(options.name, options)
        self.original = history.original(model)

    @property
    @abc.abstractmethod
    def open(self) -> Sequence[Named]:
        """Where something may go."""

    @property
    @abc.abstractmethod
    def _facts(self) -> str:
        """What of the model decisions depend on."""

    @property
    @abc.abstractmethod
    def _decided(self) -> Mapping[str, Decision]:
        """The decisions by site."""

    @property
    def repeated(self) -> bool:
        """Whether the model was pruned by the same options before."""
        return history.is_repeated(self.original, self.text, self._sites)

    @property
    def _sites(self) -> list[str]:
        return [item.id for item in self.open]

    @functools.cached_property
    def _fingerprint(self) -> str:
        return f"{zlib.crc32(f'{self.text};{self._facts}'.encode()):08x}"

    def decision(self, item: Named) -> Decision:
        """What becomes of a site; "why", where nothing does."""
        key = f"{self.options.name}/{item.id}/{self._fingerprint}"
        return self._ctx.decisions.remember(key, lambda: self._decided[item.id])

    def _require_data(self, needy: Mapping[str, bool]) -> None:
        """Raises an error that names the first option that needs data, if there are none."""
        for text, needs in needy.items():
            if needs and not has_data(self._ctx) and not self._ctx.decisions.replaying:
                raise UsageError(f"{self.options.name}: {text} needs data; give --data")

    def record(self, *, macs: tuple[int, int], parameters: tuple[int, int], widths: Mapping[str, int]) -> str:
        """Keeps in the rewritten model what it was, and says what is left of it.

        Args:
            macs: Before and after.
            parameters: Likewise.
            widths: By site, before.
        """
        counts = {"macs": macs[0], "parameters": parameters[0]}
        history.remember(self.model, **counts, widths=dict(widths), text=self.text, sites=self._sites)
        return history.remaining(self.original, macs=macs, parameters=parameters)


def figures(decisions: Decisions, pass_name: str, sites: Collection[str], figure: str) -> dict[str, float]:
    """One figure of the decisions that a run asked for, by site.

    Args:
        decisions: Of the run.
        pass_name: Whose.
        sites: Which.
        figure: Its name in a decision.
    """
    found: dict[str, float] = {}
    for key in decisions.asked:
        name, _slash, rest = key.partition("/")
        site = rest.rpartition("/")[0]
        if name == pass_name and site in sites:
            found[site] = float(decisions.remember(key, dict)[figure])
    return found
