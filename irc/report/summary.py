"""The report a person reads: a small table before and after, the ledger in a few lines, where the files are."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from irc.ledger import PassRecord
from irc.pass_base import MODEL_SITE
from irc.report.build_report import BuildReport
from irc.report.console import human_bytes, human_count
from irc.report.piped_console import PipedConsole
from irc.report.sensitivity_table import TOP, more_text, ranking_table

MAX_REASONS = 3
MAX_UNDONE = 6


def print_report(report: BuildReport, *, verbose: bool = False, console: Console | None = None) -> None:
    """Prints a build report.

    Args:
        report: What the build gave.
        verbose: List every site.
        console: Where to; by default standard output.
    """
    console = console or PipedConsole(highlight=False, soft_wrap=not sys.stdout.isatty())
    console.print(_headline(report))
    console.print(_table(report))
    for line in _accuracy_lines(report):
        console.print(f"  {line}", style="dim", markup=False)
    if report.coverage is not None and report.coverage.by_op_type():
        counts = ", ".join(f"{op} {done}/{total}" for op, (done, total) in report.coverage.by_op_type().items())
        console.print(f"  int8: {counts}  ({report.coverage.label})", markup=False)
    console.print()
    for record in report.ledger:
        for line in _record_lines(record, verbose):
            console.print(line, markup=False)
    if report.sensitivity:
        console.print()
        console.print(ranking_table(report.sensitivity, left=report.left_in_float()))
        if rest := more_text(report.sensitivity, TOP):
            console.print(f"  {rest}", style="dim", markup=False)
        console.print()
    for note in report.notes:
        console.print(f"  note: {note}", style="yellow", markup=False)
    for text in report.missed:
        console.print(f"  budget missed: {text}", style="bold red", markup=False)
    for text in report.unmet:
        console.print(f"  requirement unmet: {text}", style="bold red", markup=False)
    console.print()
    for path in report.files:
        console.print(Text(str(path)), style="bold" if path == report.output else "")


def _headline(report: BuildReport) -> Text:
    text = f"{report.source.name} -> {report.artifact.name}   {report.recipe}, target {report.target}"
    if report.data:
        text += f", {report.data}"
    return Text(text, style="bold")


def _table(report: BuildReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    table.add_column("change", justify="right")
    before, after = report.source, report.artifact
    table.add_row(
        "size",
        human_bytes(before.size_bytes),
        human_bytes(after.size_bytes),
        f"{after.size_bytes / before.size_bytes:.2f}x",
    )
    table.add_row("nodes", str(before.nodes), str(after.nodes), f"{after.nodes - before.nodes:+d}")
    if before.macs:
        table.add_row("MACs", human_count(before.macs), human_count(after.macs), f"{after.macs / before.macs:.2f}x")
    if report.latency is not None:
        fast = report.latency
        threads = f", {fast.threads} threads" if fast.threads else ""
        table.add_row(
            f"latency (batch {fast.batch}{threads})",
            f"{fast.original.median_ms:.3g} ms",
            f"{fast.artifact.median_ms:.3g} ms",
            _speed(fast.speedup),
        )
    if report.accuracy is not None:
        table.add_row(*accuracy_row(report))
    return table


def _speed(speedup: float) -> str:
    if f"{max(speedup, 1 / speedup):.2f}" == "1.00":
        return "as fast"
    return f"{speedup:.2f}x faster" if speedup > 1 else f"{1 / speedup:.2f}x slower"


def accuracy_row(report: BuildReport) -> tuple[str, str, str, str]:
    """Name, before, after and relative change of the judge's reported quality; below zero is worse.

    Where another quality decides (few labels), the lines below the table say so, and its loss.
    """
    found = report.accuracy
    assert found is not None
    change = -found.loss
    if found.criterion != found.name and found.reference:
        change = (found.value - found.reference) / abs(found.reference)
    text = f"{change:+.2%}" if abs(change) >= 5e-5 else "0.00%"
    return (found.name, f"{found.reference:.4f}", f"{found.value:.4f}", text)


def _accuracy_lines(report: BuildReport) -> Iterator[str]:
    yield from report.accuracy_lines
    if report.latency is not None:
        yield f"latency: {report.latency.original.runs} alternating runs each, speed-up {report.latency.describe()} at 95 %"


def _record_lines(record: PassRecord, verbose: bool) -> Iterator[str]:
    whole = bool(record.rewritten) and all(entry.site == MODEL_SITE for entry in record.rewritten)
    counts = ["applied" if whole else f"{len(record.rewritten)} rewritten"]
    real = [entry for entry in record.skipped if entry.site != MODEL_SITE]
    if record.skipped:
        counts.append(f"{len(record.skipped)} skipped")
    if record.undone:
        counts.append(f"{len(record.undone)} undone")
    if record.rewritten or real or record.undone or verbose:
        seconds = f", {record.seconds:.2f} s" if verbose else ""
        yield f"  {record.name:30s} {', '.join(counts)}{seconds}"
    yield from (f"      {line}" for line in record.summary.splitlines())
    if verbose:
        for kind, entries in (("rewritten", record.rewritten), ("skipped", record.skipped), ("undone", record.undone)):
            for entry in entries:
                yield f"      {kind} {entry.op_type} {entry.site}" + (f": {entry.reason}" if entry.reason else "")
        return
    for entry in record.undone[:MAX_UNDONE]:
        yield f"      undone {entry.op_type} {entry.site}: {entry.reason}"
    if (more := len(record.undone) - MAX_UNDONE) > 0:
        yield f"      and {more} more undone (-v lists every site)"
    if not real:
        return
    for reason, count in record.skip_reasons()[:MAX_REASONS]:
        yield f"      skipped {count}: {reason}"
    if (more := len(record.skip_reasons()) - MAX_REASONS) > 0:
        yield f"      and {more} other {'reason' if more == 1 else 'reasons'} (-v lists every site)"
