"""merge-casts: types that are no numbers, or not known."""

from __future__ import annotations

from pass_kit import assert_untouched, parse

from irc.passes.simplification import MergeCasts

PASS = MergeCasts()


def test_a_type_that_is_not_known_keeps_nothing() -> None:
    text = "g (float[n] x) => (float[n] y) { a = custom.F(x)  b = Cast<to=11>(a)  c = Cast<to=1>(b)  y = Neg(c) }"
    assert "may lose values" in assert_untouched(PASS, parse(text, raw=True))["c"]


def test_text_is_not_read_as_a_number_in_another_way() -> None:
    text = "g (string[n] x) => (float[n] y) { a = Cast<to=8>(x)  b = Cast<to=1>(a)  y = Neg(b) }"
    assert "directly" in assert_untouched(PASS, parse(text))["b"]


def test_a_cast_of_opset_5_names_its_type() -> None:
    text = 'g (float[n] x) => (float[n] y) { a = Cast<to="DOUBLE">(x)  b = Cast<to="FLOAT">(a)  y = Neg(b) }'
    assert assert_untouched(PASS, parse(text, raw=True, opset=5)) == {}


def test_leaves_other_domains() -> None:
    for nodes in ("a = custom.Cast<to=11>(x)  b = Cast<to=1>(a)", "a = Cast<to=11>(x)  b = custom.Cast<to=1>(a)"):
        assert (
            assert_untouched(PASS, parse(f"g (float[n] x) => (float[n] y) {{ {nodes}  y = Neg(b) }}", raw=True)) == {}
        )
