"""What irc prints for people: numbers with units, facts and tables, plain text where there is no terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 140
"""Columns assumed where there is no terminal, so that tables are not cut to 80."""
Column = str | tuple[str, Literal["left", "right"]]


def console(*, quiet: bool = False, file: IO[str] | None = None) -> Console:
    """Where a report is printed: silent when quiet, without markup codes and colours when not a terminal.

    Args:
        quiet: Print nothing at all.
        file: Instead of standard output.
    """
    from irc.report.piped_console import PipedConsole

    target = file if file is not None else sys.stdout
    width = None if target.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return PipedConsole(file=target, quiet=quiet, width=width, highlight=False, emoji=False, markup=False)


def human_bytes(count: float) -> str:
    """Bytes with a decimal unit, three digits: "1.17 MB"; 1 MB is 1 000 000 bytes, as in `--target-size`."""
    return _scaled(count, ("B", "kB", "MB", "GB", "TB", "PB"))


def human_count(count: float) -> str:
    """A number with three digits: "51", "41.2 k", "253 M", "1.43 G"."""
    return _scaled(count, ("", "k", "M", "G", "T", "P"))


def human_ms(milliseconds: float) -> str:
    """A duration with three digits: "0.214 ms", "12.3 ms", "1.84 s"."""
    if milliseconds >= 1000:
        return f"{_three_digits(milliseconds / 1000)} s"
    return f"{_three_digits(milliseconds)} ms"


def human_percent(share: float) -> str:
    """A share as per cent: "99.4 %"; never rounded to 0 or 100 when it is not."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.95 <= percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %"


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> Table:
    """A table without a frame; cells are converted to text, None is left empty.

    Args:
        columns: Headers, right-aligned as ("MACs", "right"); the others are folded when the terminal is narrow.
        rows: One sequence of cells per row.
    """
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        header, justify = column if isinstance(column, tuple) else (column, "left")
        made.add_column(header, justify=justify, no_wrap=justify == "right", overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Two columns without headers: what and its value; rows whose value is None or empty are left out."""
    from rich.table import Table

    made = Table.grid(padding=(0, 3))
    made.add_column(no_wrap=True, style="dim")
    made.add_column(overflow="fold")
    for name, value in rows:
        if value is not None and value != "":
            made.add_row(name, str(value))
    return made


def _scaled(count: float, units: Sequence[str]) -> str:
    size, index = float(count), 0
    while abs(size) >= 999.5 and index < len(units) - 1:
        size, index = size / 1000, index + 1
    number = f"{size:.0f}" if index == 0 and size == int(size) else _three_digits(size)
    return f"{number} {units[index]}".strip()


def _three_digits(number: float) -> str:
    """Three significant digits without an exponent."""
    if number == 0:
        return "0"
    magnitude = abs(number)
    decimals = 0 if magnitude >= 99.95 else 1 if magnitude >= 9.995 else 2 if magnitude >= 0.9995 else 3
    if magnitude < 0.0005:
        return "< 0.001"
    return f"{number:.{decimals}f}"
