"""What a module is called with, in every form that users have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from irc.errors import DataError, UsageError
from irc.trace.dynamic_dimensions import dynamic_shapes, parse_dynamic
from irc.trace.example_inputs import Example, describe, read_examples, run_module, to_numpy


class Two(nn.Module):
    """Takes two tensors and a factor."""

    def forward(self, a: torch.Tensor, b: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        return a + b * factor


X = torch.ones(2, 3)


class TestReading:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (X, [((2, 3),)]),
            ((X, X), [((2, 3), (2, 3))]),
            ({"a": X}, [((2, 3),)]),
            (((X,), {"b": X}), [((2, 3), (2, 3))]),
            ([X, X], [((2, 3),), ((2, 3),)]),
            ([(X,), (X,)], [((2, 3),), ((2, 3),)]),
            (np.ones((4, 5), np.float32), [((4, 5),)]),
            (lambda: (X, X), [((2, 3), (2, 3))]),
        ],
        ids=["tensor", "tuple", "dict", "both", "tensors", "tuples", "array", "function"],
    )
    def test_forms(self, given: Any, expected: Any) -> None:
        found = [tuple(tuple(leaf.shape) for leaf in e.leaves()) for e in read_examples(given)]
        assert found == expected

    def test_keyword_arguments_come_in_the_order_of_forward(self) -> None:
        (example,) = read_examples({"b": X, "a": X * 2}, Two())
        assert list(example.kwargs) == ["a", "b"]

    def test_from_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "inputs.py"
        path.write_text("import torch\nvalue = torch.ones(2, 3)\ndef both(): return [(value,), (value,)]\n")
        assert len(read_examples(f"{path}:both")) == 2 and len(read_examples(f"{path}:value")) == 1

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ([], "is an empty list"),
            ("text:nothing", "there is no Python module 'text'"),
            (5, "holds int; irc expects a tensor, a tuple"),
            ((1, 2.0), "holds no tensor"),
            ({1: X}, "the keys of keyword arguments must be texts; there is 1"),
            (lambda: 1 / 0, "raised ZeroDivisionError: division by zero"),
        ],
    )
    def test_what_is_no_example(self, given: Any, said: str) -> None:
        with pytest.raises((DataError, UsageError), match=said):
            read_examples(given)

    def test_a_call_that_does_not_fit_is_described(self) -> None:
        with pytest.raises(DataError, match=r"it was called with float32\[2, 3\], b=a list, factor=2.0"):
            run_module(Two(), Example((X,), {"b": [X], "factor": 2.0}), "the module")

    def test_description(self) -> None:
        assert describe(Example((X, 3), {"mask": X.long()})) == "float32[2, 3], 3, mask=int64[2, 3]"

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.float64])
    def test_arrays_are_copies_of_every_type(self, dtype: torch.dtype) -> None:
        tensor = torch.tensor([[1, 0], [3, 4]]).to(dtype).T
        array = to_numpy(tensor)
        assert array.tolist() == tensor.tolist()
        array[0, 0] = 0
        assert tensor[0, 0] == 1


def names(count: int) -> list[str]:
    return ["image", "ids", "flag"][:count]


class TestDimensions:
    def shapes(self, *examples: Any, given: Any = None) -> Any:
        read = read_examples(list(examples))
        return dynamic_shapes(read, names(len(read[0].leaves())), given)

    def test_equal_examples_are_fixed(self) -> None:
        assert self.shapes((X,)) is None and self.shapes((X,), (X,)) is None

    def test_each_input_has_its_own(self) -> None:
        first, second = (
            (torch.ones(2, 3, 8, 8), torch.ones(2, 5, dtype=torch.int64)),
            (
                torch.ones(4, 3, 8, 9),
                torch.ones(4, 7, dtype=torch.int64),
            ),
        )
        assert self.shapes(first, second) == ({0: "batch", 3: "width"}, {0: "ids_batch", 1: "sequence"})

    def test_any_of_three_examples_may_differ(self) -> None:
        assert self.shapes((X,), (torch.ones(2, 4),), (torch.ones(5, 3),)) == ({0: "batch", 1: "image_dim_1"},)

    def test_plain_values_have_none(self) -> None:
        assert self.shapes((X, torch.ones(2), 3), (torch.ones(4, 3), torch.ones(2), 3)) == ({0: "batch"}, {}, None)

    @pytest.mark.parametrize(
        ("second", "said"),
        [
            ((X.long(),), r"input 'image' is float32\[2, 3\] in the first example and int64\[2, 3\] in example 2"),
            ((torch.ones(2),), r"and float32\[2\] in example 2; only sizes may differ"),
            ((X, X), "example 2 has other arguments"),
        ],
    )
    def test_examples_that_differ_in_more_than_sizes(self, second: Any, said: str) -> None:
        with pytest.raises(DataError, match=said):
            self.shapes((X,), second)

    def test_plain_values_that_differ(self) -> None:
        with pytest.raises(DataError, match="input 'ids' is 3 in the first example and 4 in example 2"):
            self.shapes((X, 3), (X, 4))

    def test_given_by_text(self) -> None:
        assert parse_dynamic("image:0=batch,ids:1") == {"image": {0: "batch"}, "ids": {1: ""}}
        assert self.shapes((X, X.long()), given=parse_dynamic("ids:1,image:0=rows")) == (
            {0: "rows"},
            {1: "sequence"},
        )

    def test_torchs_own_form_is_passed_on(self) -> None:
        own = ({0: torch.export.Dim("n")},)
        assert self.shapes((X,), given=own) is own

    @pytest.mark.parametrize("text", ["image", "image:x", "image:0=1x", "image:0=a=b", "", "image:-1"])
    def test_malformed_text(self, text: str) -> None:
        with pytest.raises(UsageError, match="malformed; write INPUT:AXIS"):
            parse_dynamic(text)

    @pytest.mark.parametrize(
        ("text", "said"),
        [("imge:0", "no such tensor input; it has image"), ("image:2", r"the example has shape \[2, 3\]")],
    )
    def test_given_dimensions_that_do_not_exist(self, text: str, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            self.shapes((X,), given=parse_dynamic(text))
