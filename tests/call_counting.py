"""Work counted in calls: what grows with a model is compared between two sizes without a clock."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType


def calls(action: Callable[[], object]) -> int:
    """Functions of Python and of C that were called while an action ran in this thread."""
    count = 0

    def counted(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()  # what it finalizes depends on what ran before
    sys.setprofile(counted)
    try:
        action()
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()
    return count


def assert_linear(work: Callable[[int], Callable[[], object]], small: int, large: int) -> None:
    """That the work on a model of the larger size takes no more calls per node than on one of the smaller, but for a twentieth.

    Args:
        work: Makes a model of a size, and gives what is to be done with it.
        small: A size.
        large: A larger one.
    """
    work(small)()  # what is made once, when first used
    few, many = calls(work(small)), calls(work(large))
    assert many <= 1.05 * few * large / small, f"{few} calls for {small}, {many} for {large}"
