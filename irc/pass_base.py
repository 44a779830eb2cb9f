"""What a pass is: two methods, a contract and fields that are its options.

A pass finds places (`sites`) and changes one of them (`rewrite`). Everything else is the pass manager's: the loop,
selection by name, the ledger, limits, verification, bisection, timing and progress. A pass keeps no state between runs;
what it needs from the world comes through the `Context`.

    @dataclasses.dataclass(frozen=True)
    class EliminateIdentity(Pass):
        name = "eliminate-identity"
        contract = Contract.EXACT

        def sites(self, model, ctx):
            for node in model.graph.all_nodes():
                if node.op_type == "Identity":
                    yield Site(node)

        def rewrite(self, site, ctx):
            bypass(site.node, site.node.inputs[0])
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import onnx_ir as ir

from irc.decisions import Decisions

if TYPE_CHECKING:
    from irc.calibration.collector import StatisticRequest, Statistics
    from irc.calibration.data import DataSource
    from irc.calibration.statistics import Observable, Observations
    from irc.runner import Runner
    from irc.target import Target

MODEL_SITE = "<model>"


class Contract(enum.Enum):
    """What a pass promises about the values a model computes."""

    EXACT = "exact"
    """Bit-identical outputs."""
    ROUNDING = "rounding"
    """Equal up to a small multiple of the model's own rounding noise."""
    APPROXIMATE = "approximate"
    """Different; judged by the accuracy guard, not by verification."""

    @property
    def lossless(self) -> bool:
        """Whether the pass manager verifies this pass against reference outputs."""
        return self is not Contract.APPROXIMATE


def node_id(node: ir.Node) -> str:
    """The stable id of a node: the name of its first named output, else its own name."""
    for output in node.outputs:
        if output.name:
            return output.name
    return node.name or f"<{node.op_type}>"


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """One place where a pass applies.

    Attributes:
        node: The anchor node; None for a whole-model pass.
        match: Whatever the pass wants to hand from `sites` to `rewrite`.
        id: Stable id: first output name of the anchor in the model the pass received.
    """

    node: ir.Node | None
    match: Any = None
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", node_id(self.node) if self.node is not None else MODEL_SITE)


@dataclasses.dataclass(frozen=True, eq=False)
class Skip:
    """One place where a pass looked and did not apply, with the reason in a user's words.

    Attributes:
        node: The anchor node, or None for the whole model.
        reason: Why not, without a full stop: "its input has other consumers".
    """

    node: ir.Node | None
    reason: str
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", node_id(self.node) if self.node is not None else MODEL_SITE)


@dataclasses.dataclass(frozen=True)
class Remark:
    """What a pass says of a site it rewrote, for the ledger.

    Attributes:
        text: In a user's words, with the figures, without a full stop: "output error 0.31 % -> 0.22 %". Of a site one line, of all
            together one for each thing there is to say.
    """

    text: str


@dataclasses.dataclass(kw_only=True)
class Context:
    """What the world gives a pass: target, data, statistics, seed and progress.

    Attributes:
        target: What the artifact must run on, or its text ("ort{cpu=avx2}"); None means any ONNX runtime.
        data: The user's samples, or what `irc.optimize` takes as data; None when there are none.
        collect: Runs statistics requests over the data against the model as it is now; the manager supplies it.
        observe: Gathers statistics of the model's values over the data, as they are; the manager supplies it.
        decisions: What was decided from data, by key: a memo, and what a plan replays.
        choices: The variant chosen for a site, by pass name and site id ("quantize/conv1"), where it is not the pass's own.
        runner: Where models are executed: a child process; the manager starts one where it is None.
        refuses: Why the user's selection excludes a site, from its node and id, or None: for a pass that shares something out
            among all its sites; the manager asks it of every site anyway, and supplies it.
        reserved: Keys of samples that nothing may be fitted to, because the result is to be accepted on them.
        fitted: Keys of samples that weights were fitted to; passes add to it, and accuracy is told of others.
        timed: Whether times taken here may decide anything that the user did not ask to be a time.
        prove: Whether a pass that rests on an analysis of the model is to prove it on this very model, at the cost of
            several runs (`--verify full`).
        seed: Seed of every random choice a pass makes.
        progress: `progress(fraction, what)`, fraction in [0, 1]; silent by default.
    """

    target: Target | Any = None
    data: DataSource | Any = None
    collect: Callable[[ir.Model, list[StatisticRequest]], Statistics] | None = None
    observe: Callable[[ir.Model, Sequence[Observable]], Observations] | None = None
    decisions: Decisions = dataclasses.field(default_factory=Decisions)
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    runner: Runner | None = None
    refuses: Callable[[ir.Node | None, str], str | None] = lambda node, site: None
    reserved: frozenset[str] = frozenset()
    fitted: set[str] = dataclasses.field(default_factory=set)
    timed: bool = True
    prove: bool = False
    seed: int = 0
    progress: Callable[[float, str], None] = lambda fraction, what: None


class Pass(abc.ABC):
    """A rewrite of a model; subclasses are frozen dataclasses whose fields are the options.

    Attributes:
        name: The spelling on the command line, with dashes.
        representation: What it rewrites: "onnx" models, or the "fx" graph of a traced PyTorch module.
        contract: What the pass promises about the outputs.
        requires: Names of facts that must hold before it runs; the manager inserts the pass that establishes them.
        establishes: Names of facts that hold after it ran.
        invalidates: Names of facts that may no longer hold after it ran.
        prepares: Whether it serves an approximate pass behind it only, and may add nodes for that.
        refines: Whether it works on what an earlier approximate pass rewrote, and is taken back with it.
        resizes: Whether it leaves values smaller than it found them. Sites of other passes are then compared with the model of these
            sizes, and its own have no time in float to compare with.
    """

    name: ClassVar[str]
    representation: ClassVar[str] = "onnx"
    contract: ClassVar[Contract]
    requires: ClassVar[tuple[str, ...]] = ()
    establishes: ClassVar[tuple[str, ...]] = ()
    invalidates: ClassVar[tuple[str, ...]] = ("shapes-known",)
    prepares: ClassVar[bool] = False
    refines: ClassVar[bool] = False
    resizes: ClassVar[bool] = False

    @abc.abstractmethod
    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the places where the pass applies, or why it does not, without touching the model.

        The manager rewrites a site as soon as it is yielded, so a generator sees the effect of earlier rewrites.
        """

    @abc.abstractmethod
    def rewrite(self, site: Site, ctx: Context) -> Skip | Remark | None:
        """Changes one place; returns a `Skip` (having changed nothing) when it finds that it cannot.

        A `Remark` says in the ledger what was done there.
        """

    def finish(self, sites: Sequence[Site], ctx: Context) -> Remark | None:
        """Called once behind the last site, with those that `rewrite` accepted, unless there are none.

        A pass whose rewrites are one edit of the model, however many sites take part in it, only accepts sites in `rewrite`
        and makes the edit here. A `Remark` says in the ledger what all of them did together.
        """
        return None

    @property
    def narrows(self) -> tuple[str, ...]:
        """Names of outputs of the model that it may leave with smaller dimensions, because its options say so."""
        return ()

    def variants(self, model: ir.Model, ctx: Context) -> Mapping[str, tuple[str, ...]]:
        """Other ways to rewrite a site than the one the options ask for, by site id; a search chooses among them.

        What was chosen for a site is in `Context.choices`.
        """
        return {}

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """How much each rewritten site distorts its own output; the guard reverts the worst sites first.

        Args:
            before: The model the pass received.
            after: The model with all the sites rewritten.
            sites: Ids of rewritten sites.
            ctx: Data and runner.

        Returns:
            Relative error energy per site, larger is worse, or None when the pass cannot tell (it is then reverted as a whole).
        """
        return None


class ModelPass(Pass):
    """A pass that treats the model as a whole: one site, `<model>`.

    Subclasses implement `apply`.
    """

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the model itself."""
        yield Site(None, match=model)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Applies the pass to the whole model."""
        return None if self.apply(site.match, ctx) else Skip(None, "nothing to do")

    @abc.abstractmethod
    def apply(self, model: ir.Model, ctx: Context) -> bool:
        """Changes the model in place; returns whether anything changed."""
