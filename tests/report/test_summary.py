"""The console report: what a person must be able to read off it."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from irc.coverage import Coverage, Covered
from irc.judge import Assessment
from irc.latency import LatencyComparison, Timing
from irc.ledger import Entry, Ledger, PassRecord
from irc.report.build_report import BuildReport, ModelFacts
from irc.report.summary import accuracy_row, print_report


def assessment(**changes) -> Assessment:
    values = dict(
        kind="labels", name="accuracy", reference=0.9, value=0.89, criterion="accuracy", loss=0.0111, bound=0.02, n=100, trials=100,
        half="acceptance",
    )  # fmt: skip
    return Assessment(**{**values, **changes})


def report(**changes) -> BuildReport:
    record = PassRecord("quantize", "quantize", "approximate")
    record.rewritten = [Entry("a", "Conv"), Entry("b", "Conv")]
    record.skipped = [Entry("c", "Gemm", "its weight is not constant")]
    record.undone = [Entry("d", "Conv", "back to float: its output error 9.00% is among the 1 worst")]
    values = dict(
        recipe="-O2", target="ort", pipeline="quantize", source=ModelFacts("m.onnx", 4_000_000, 10, 20),
        artifact=ModelFacts("m.irc.onnx", 1_000_000, 20, 20), sha256="0" * 64, ledger=Ledger([record], ["a note"]), data="calib/ (8 samples)",
        accuracy=assessment(), accuracy_lines=["accuracy in words"],
        coverage=Coverage((Covered("a", "Conv", True, True), Covered("d", "Conv", False, False, "x")), "read back"),
        latency=LatencyComparison(Timing(2.0, 1.9, 2.1, 50), Timing(1.0, 0.9, 1.1, 50), 2.0, 1.8, 2.2, 1, None),
        notes=["a note"], files=[Path("/x/m.irc.onnx")],
    )  # fmt: skip
    return BuildReport(**{**values, **changes})


def printed(found: BuildReport, **options) -> str:
    stream = io.StringIO()
    print_report(found, console=Console(file=stream, width=120), **options)
    return stream.getvalue()


def test_it_says_what_changed_what_did_not_and_why():
    text = printed(report())
    for piece in (
        "m.onnx -> m.irc.onnx", "4.00 MB", "1.00 MB", "0.25x", "2 ms", "1 ms", "2.00x faster", "0.9000", "0.8900", "-1.11%", "Conv 1/2",
        "2 rewritten, 1 skipped, 1 undone", "skipped 1: its weight is not constant", "undone Conv d: back to float", "note: a note",
        "accuracy in words", "/x/m.irc.onnx",
    ):  # fmt: skip
        assert piece in text, piece


def test_slower_is_called_slower():
    slow = LatencyComparison(Timing(1.0, 1, 1, 50), Timing(2.0, 2, 2, 50), 0.5, 0.4, 0.6, 1, None)
    assert "2.00x slower" in printed(report(latency=slow))
    same = LatencyComparison(Timing(1.0, 1, 1, 50), Timing(1.0, 1, 1, 50), 0.998, 0.9, 1.1, 1, None)
    assert "as fast" in printed(report(latency=same))


def test_misses_are_loud():
    text = printed(report(missed=["too slow"], unmet=["int8:Conv>=90%: 1 of 2"]))
    assert "budget missed: too slow" in text and "requirement unmet: int8:Conv>=90%" in text


def test_verbose_lists_every_site():
    text = printed(report(), verbose=True)
    assert "rewritten Conv a" in text and "skipped Gemm c" in text


def test_the_change_is_of_the_quality_shown():
    other = assessment(criterion="expected accuracy", loss=0.0001)
    assert accuracy_row(report(accuracy=other))[3] == "-1.11%"
    assert accuracy_row(report(accuracy=assessment(loss=-0.0)))[3] == "0.00%"


def test_manifest_has_no_clock_and_no_path_and_json_has_both():
    found = report(seconds=1.5)
    manifest = json.dumps(found.manifest())
    assert "/x/" not in manifest and "seconds" not in manifest and "median_ms" not in manifest
    document = json.loads(json.dumps(found.to_dict()))
    assert document["latency"]["speedup"] == 2.0 and document["seconds"] == 1.5 and document["exit_code"] == 0
    assert document["files"] == ["/x/m.irc.onnx"]
