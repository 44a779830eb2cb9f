"""Where tracing stopped: the module, the line of the user's source, why, and what to try."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import traced_modules
from torch import nn
from traced_modules import Branching, WithoutOnnxForm

from irc.errors import ModelError
from irc.trace import trace


def marked_line(cls: type) -> str:
    """`file.py:line` of the line in a class that an error must name."""
    lines, start = inspect.getsourcelines(cls)
    offset = next(i for i, line in enumerate(lines) if "must name" in line)
    return f"{Path(traced_modules.__file__).name}:{start + offset}"


def stopped(module: nn.Module, *examples: Any, **options: Any) -> str:
    with pytest.raises(ModelError) as error:
        trace(module.eval(), list(examples), **options)
    text = str(error.value)
    assert "\n" not in text and "\x1b" not in text and str(Path(traced_modules.__file__).parent) not in text
    return text


def test_control_flow_that_depends_on_values(capfd: pytest.CaptureFixture[str]) -> None:
    text = stopped(Branching(), torch.ones(2, 4))
    assert text.startswith(
        f"module 'inner' cannot be traced at {marked_line(Branching.Inner)}: its control flow depends"
    )
    assert "torch.where or torch.cond, or try --exporter torchscript" in text
    printed = capfd.readouterr()
    assert "forward" not in printed.out + printed.err


def test_an_operation_without_an_onnx_form() -> None:
    text = stopped(WithoutOnnxForm(), torch.ones(4, 4))
    assert f"cannot be lowered to ONNX at {marked_line(WithoutOnnxForm)}" in text
    assert re.search(
        r"operation aten\._linalg_svd.* has no ONNX form in this exporter; .*--opset, or try --exporter", text
    )


def test_the_module_of_an_operation_without_an_onnx_form() -> None:
    text = stopped(nn.Sequential(nn.ReLU(), WithoutOnnxForm()), torch.ones(4, 4))
    assert text.startswith("module '1' cannot be lowered")


def test_torchscript_advises_the_other_exporter() -> None:
    text = stopped(WithoutOnnxForm(), torch.ones(4, 4), exporter="torchscript")
    assert re.search(r"operation aten\.linalg_svd has no ONNX form .* or try --exporter export", text)


def test_a_dimension_that_the_module_fixes() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 4) + 1

    text = stopped(Fixed(), torch.ones(2, 4), dynamic_shapes="x:0=batch")
    assert "leave it out of --dynamic" in text


def test_an_output_that_is_no_tensor() -> None:
    class Box:
        pass

    class Boxed(nn.Module):
        def forward(self, x: torch.Tensor) -> Box:
            return Box()

    text = stopped(Boxed(), torch.ones(2))
    assert "return tensors, tuples or dicts" in text
