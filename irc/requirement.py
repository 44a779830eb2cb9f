"""`--require "int8:Conv>=90%"`: turns coverage into an exit code.

A clause is `WHAT[:OP]>=PERCENT` (`int8:90%` is short for `int8>=90%`). `WHAT` is `int8`, the share of the float model's nodes of type
`OP` that the runtime really executes as integer kernels, or the name of a pass, the share of its sites that it rewrote.
"""

from __future__ import annotations

import dataclasses
import re

from irc.coverage import Coverage
from irc.errors import UsageError
from irc.ledger import Ledger

_CLAUSE = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(?::\s*([A-Za-z0-9_*]+?))?\s*(?:>=|:)\s*([0-9.]+)\s*%\s*\Z")


@dataclasses.dataclass(frozen=True)
class Requirement:
    """One clause.

    Attributes:
        what: "int8" or the name of a pass.
        op_type: Operator type, or "*" for all.
        percent: Smallest share, in [0, 100].
    """

    what: str
    op_type: str
    percent: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Parses `int8:Conv>=90%`, `int8:90%`, `quantize>=50%`.

        Raises:
            UsageError: If the text has another form or the share is above 100 %.
        """
        match = _CLAUSE.match(text)
        if match is None or float(match[3]) > 100:
            raise UsageError(f"--require {text!r} is malformed; write int8:Conv>=90% or PASS>=50%")
        return cls(match[1], match[2] or "*", float(match[3]))

    def __str__(self) -> str:
        return f"{self.what}:{self.op_type}>={self.percent:g}%"

    def unmet(self, ledger: Ledger, coverage: Coverage | None) -> str | None:
        """Why the clause does not hold, with the figures, or None.

        Raises:
            UsageError: If `what` is neither `int8` nor a pass of the build.
        """
        if self.what == "int8":
            if coverage is None:
                return f"{self}: nothing was quantized, so no coverage was read back"
            done, total = coverage.count(self.op_type)
            reasons = coverage.reasons(self.op_type)
        else:
            try:
                record = ledger[self.what]
            except KeyError as error:
                raise UsageError(f"--require {self}: {error.args[0]}") from error
            wanted = [e for e in record.rewritten if self.op_type in ("*", e.op_type)]
            missed = [e for e in (*record.skipped, *record.undone) if self.op_type in ("*", e.op_type)]
            done, total = len(wanted), len(wanted) + len(missed)
            reasons = list(dict.fromkeys(e.reason for e in missed))
        if total == 0:
            return f"{self}: the model has no {self.op_type} node that {self.what} could apply to"
        if 100 * done >= self.percent * total:
            return None
        why = f" ({'; '.join(reasons[:3])})" if reasons else ""
        return f"{self}: {done} of {total} ({100 * done / total:.0f} %){why}"
