import io

import pytest

from irc.report.console import console, facts, human_bytes, human_count, human_ms, human_percent, table


@pytest.mark.parametrize(
    "count, text",
    [(0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "1.00 kB"), (1167430, "1.17 MB"), (999_499, "999 kB"),
     (999_500, "1.00 MB"), (91_025_000, "91.0 MB"), (2.5e9, "2.50 GB"), (12e18, "12000 PB")],
)  # fmt: skip
def test_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    "count, text", [(0, "0"), (640, "640"), (41_234, "41.2 k"), (253_255_680, "253 M"), (1.43e9, "1.43 G")]
)
def test_counts(count, text):
    assert human_count(count) == text


@pytest.mark.parametrize("ms, text", [(0.2144, "0.214 ms"), (12.345, "12.3 ms"), (999.4, "999 ms"), (1840, "1.84 s")])
def test_milliseconds(ms, text):
    assert human_ms(ms) == text


@pytest.mark.parametrize(
    "share, text", [(0, "0.0 %"), (1, "100.0 %"), (0.9999, "> 99.9 %"), (0.0001, "< 0.1 %"), (0.994, "99.4 %")]
)
def test_shares_are_not_rounded_to_all_or_nothing(share, text):
    assert human_percent(share) == text


def test_plain_where_there_is_no_terminal():
    out = io.StringIO()
    report = console(file=out)
    report.print("[bold]as it is[/bold] :smile:", style="bold red")
    report.print(table(["name", ("MACs", "right")], [["x" * 100, 7], ["y", None]]))
    text = out.getvalue()
    assert "\x1b" not in text
    assert "[bold]as it is[/bold] :smile:" in text
    assert "x" * 100 in text


def test_quiet_prints_nothing():
    out = io.StringIO()
    console(quiet=True, file=out).print("anything")
    assert out.getvalue() == ""


def test_facts_leave_out_what_is_not_there():
    out = io.StringIO()
    console(file=out).print(facts([("size", "1 MB"), ("data files", ""), ("quantized", None), ("zero", 0)]))
    assert out.getvalue().split() == ["size", "1", "MB", "zero", "0"]


def test_a_reader_that_left_is_an_error_and_not_an_exit():
    class Left(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        console(file=Left()).print("anything")
