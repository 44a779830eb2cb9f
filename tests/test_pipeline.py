"""Pipeline text, options and selectors: what they accept, what they say when they do not, and that they round-trip."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc import options, pipeline, registry
from irc.errors import PassOptionError, UsageError
from irc.pass_base import Contract, ModelPass
from irc.selection import Selection, Selector


@dataclasses.dataclass(frozen=True)
class Everything(ModelPass):
    """A pass with an option of every kind."""

    name: ClassVar[str] = "test-everything"
    contract: ClassVar[Contract] = Contract.EXACT
    ratio: float = 0.5
    count: int = 3
    deep: bool = False
    method: Literal["mse", "max"] = "mse"
    layers: tuple[int, ...] = ()
    note: str | None = None

    def apply(self, model, ctx):
        return False


registry.register(Everything)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test-everything", Everything()),
        ("test-everything{ratio=0.25,count=7}", Everything(ratio=0.25, count=7)),
        (
            "test-everything{deep=true,method=max,layers=1+2+3,note=hi}",
            Everything(deep=True, method="max", layers=(1, 2, 3), note="hi"),
        ),
        ("test-everything{note=none}", Everything()),
    ],
)
def test_options_come_from_fields(text, expected):
    assert [step.pass_ for step in pipeline.parse(text)] == [expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test-everythin", "unknown pass 'test-everythin'; did you mean"),
        ("fold_batch_norm", "did you mean 'fold-batch-norm'"),
        ("test-everything{ratio=big}", "option ratio is 'big'; it must be a number"),
        ("test-everything{count=1.5}", "option count is '1.5'; it must be an integer"),
        ("test-everything{method=median}", "it must be one of mse, max"),
        ("test-everything{deep=maybe}", "it must be true or false"),
        ("test-everything{ratoi=1}", "has no option 'ratoi'; did you mean 'ratio'"),
        ("test-everything{ratio=1,ratio=2}", "given twice"),
        ("test-everything{ratio}", "is not option=value"),
        ("test-everything{ratio=1", "a brace is not closed"),
        ("test-everythingratio=1", "the shell split it"),
        ("", "the pipeline is empty"),
        ("missing/file.py:Thing", "there is no file"),
    ],
)
def test_bad_text_says_what_to_do(text, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        pipeline.parse(text)


@given(
    st.builds(
        Everything,
        ratio=st.floats(allow_nan=False, allow_infinity=False),
        count=st.integers(),
        deep=st.booleans(),
        method=st.sampled_from(["mse", "max"]),
        layers=st.lists(st.integers(), max_size=4).map(tuple),
        note=st.none() | st.text("abcdefgh.-_/", min_size=1, max_size=9).filter(lambda s: s != "none"),
    )
)
def test_text_round_trips(instance):
    text = pipeline.render([pipeline.Step(instance)])
    assert [step.pass_ for step in pipeline.parse(text)] == [instance]


def test_selectors_of_a_step_round_trip():
    text = "test-everything{ratio=0.1,include=op:Conv;re:^layer[12],exclude=name:stem*}"
    (step,) = pipeline.parse(text)
    assert step.selection == Selection.of(["op:Conv", "re:^layer[12]"], ["name:stem*"])
    assert pipeline.render([step]) == text


@pytest.mark.parametrize("selector", ["re:a,b|y", "re:a;b", "re:x{1,2}", "re:}", "re:{", "re:100%|%2C", "name:a;b"])
def test_selectors_with_the_characters_of_the_grammar_round_trip(selector):
    selection = Selection.of([selector], ["op:Conv", selector])
    step = dataclasses.replace(pipeline.parse("test-everything")[0], selection=selection)
    (again,) = pipeline.parse(pipeline.render([step]))
    assert again.selection == selection


def test_a_pass_in_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import dataclasses\nfrom irc import Contract, ModelPass\n"
        "@dataclasses.dataclass(frozen=True)\nclass Mine(ModelPass):\n"
        "    name = 'mine'\n    contract = Contract.EXACT\n    size: int = 1\n"
        "    def apply(self, model, ctx):\n        return False\n"
    )
    (step,) = pipeline.parse(f"{path}:Mine{{size=4}}")
    assert step.pass_.size == 4 and step.text == f"{path}:Mine{{size=4}}"
    with pytest.raises(UsageError, match="has no class 'Yours'; it has Mine"):
        pipeline.parse(f"{path}:Yours")


def test_two_passes_with_one_name_are_refused():
    class Other(ModelPass):
        name = "test-everything"
        contract = Contract.EXACT

        def apply(self, model, ctx):
            return False

    with pytest.raises(UsageError, match=r"already registered: .*Everything"):
        registry.register(Other)


def test_required_option_is_named():
    @dataclasses.dataclass(frozen=True)
    class Needs:
        size: int

    with pytest.raises(PassOptionError, match="needs option 'size'"):
        options.build(Needs, "needs", {})


MODEL = ir.from_onnx_text(
    """<ir_version: 10, opset_import: ["" : 20]>
    g (float[1,4] x) => (float[1,4] y) { stem = Relu(x)  layer1 = Neg(stem)  y = Abs(layer1) }"""
)


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("op:Neg", ["layer1"]),
        ("name:layer*", ["layer1"]),
        ("layer1", ["layer1"]),
        ("re:^(stem|y)$", ["stem", "y"]),
        ("module:encoder.0", ["y"]),
        ("module:encoder", ["y"]),
        ("module:enc", []),
    ],
)
def test_selectors_select(selector, selected):
    nodes = list(MODEL.graph)
    nodes[2].metadata_props["irc.module"] = "encoder.0"
    parsed = Selector.parse(selector)
    assert [node.outputs[0].name for node in nodes if parsed.matches(node)] == selected


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("op:Rellu", "matches none of the 3 nodes; did you mean 'Relu'"),
        ("name:layer2", "did you mean 'layer1'"),
        ("re:nothing", "matches none"),
    ],
)
def test_a_selector_that_matches_nothing_is_an_error(selector, message):
    with pytest.raises(UsageError, match=message):
        Selection.of([], [selector]).require_matches(MODEL)


@pytest.mark.parametrize("selector", ["re:[", "op:", ""])
def test_malformed_selectors(selector):
    with pytest.raises(UsageError):
        Selector.parse(selector)
