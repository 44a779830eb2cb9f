"""Progress with time left on the terminal; silent when it is none, or when asked to be."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[float, str], None]]:
    """A callback `(fraction, what)` that draws one line with elapsed and remaining time.

    A fraction that falls starts a new stage. On anything but a terminal nothing is printed.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda fraction, what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        last = 0.0

        def update(fraction: float, what: str) -> None:
            nonlocal last
            if fraction < last:
                bar.reset(task, total=1.0)
            last = fraction
            bar.update(task, completed=fraction, description=what)

        yield update
