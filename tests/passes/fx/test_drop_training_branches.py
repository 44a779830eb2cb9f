"""What only training needs leaves the graph: dropout, and auxiliary heads by name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from traced_modules import classifier, images, outputs

from irc.errors import UsageError
from irc.pass_base import Context
from irc.pipeline import parse
from irc.trace import Traced, trace
from irc.trace.example_inputs import Example
from irc.trace.fx_manager import run_fx_passes

EXAMPLES = images((2, 10), (2, 10))


def run(text: str, module: nn.Module | None = None, examples: Any = EXAMPLES) -> Traced:
    return trace(module or classifier(), examples, passes=[text])


def test_dropout_goes() -> None:
    record = run("fx-drop-training-branches").ledger["fx-drop-training-branches"]
    assert [(entry.op_type, entry.site) for entry in record.rewritten] == [("dropout", "dropout")]
    assert record.contract == "exact" and not record.undone


def test_heads_go_with_all_that_only_they_need() -> None:
    found = run("fx-drop-training-branches{heads=aux}")
    assert len(found.model.graph.outputs) == 1
    assert not any(name.startswith("aux") for name in found.model.graph.initializers)
    assert found.kept_outputs == [0] and found.ledger.verification_runs == 1
    expected = outputs(classifier(), EXAMPLES[0])[0].numpy()
    assert found.difference([[expected], [outputs(classifier(), EXAMPLES[1])[0].numpy()]]) is None


def test_the_first_output_may_be_the_one_that_goes() -> None:
    found = run("fx-drop-training-branches{heads=head}")
    assert found.kept_outputs == [1]
    values = [[outputs(classifier(), example)[1].numpy()] for example in EXAMPLES]
    assert found.difference(values) is None


class Heads(nn.Module):
    """Three heads in a nested result."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.main = nn.Linear(4, 4), nn.Linear(4, 2)
        self.side = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(4, 5)})

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = self.body(x)
        return {"side": [self.side["a"](y), self.side["b"](y)], "main": self.main(y)}


@pytest.mark.parametrize(
    ("heads", "left"), [("side.a", [5, 2]), ("side", [2]), ("side.a+side.b", [2]), ("main", [3, 5])]
)
def test_heads_in_a_nested_result(heads: str, left: list[int]) -> None:
    found = run(f"fx-drop-training-branches{{heads={heads}}}", Heads().eval(), [(torch.rand(2, 4),)])
    assert [value.shape[1] for value in found.model.graph.outputs if value.shape] == left


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ("axu", "no output is computed in a module 'axu'; the outputs come from aux.2, head"),
        ("au", "no output is computed in a module 'au'"),
        ("layers", "no output is computed in a module 'layers'"),
        ("aux+head", "computes every output; nothing would be left"),
    ],
)
def test_names_that_do_not_fit(heads: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        run(f"fx-drop-training-branches{{heads={heads}}}")


def test_dropout_that_trains_is_left() -> None:
    class Always(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(x, 0.5, training=True)

    inputs = (torch.rand(2, 4),)
    program = torch.export.export(Always().eval(), inputs)
    steps = parse("fx-drop-training-branches")
    found = run_fx_passes(program, steps, [Example(inputs, {})], ctx=Context())
    (record,) = found.ledger
    assert [entry.reason for entry in record.skipped] == ["it drops values at random, as in training"]


def test_idempotent() -> None:
    found = trace(classifier(), EXAMPLES, passes=["fx-drop-training-branches{heads=aux}"] * 2)
    first, *_ = list(found.ledger)
    assert len(first.rewritten) == 2 and len(found.model.graph.outputs) == 1
