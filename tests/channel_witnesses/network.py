"""What witnesses are written in: a product, the operator in question, and another product, so that channels lie between that may be cut.

In the text of a body `$kind[...]` stands for an initializer: `$f32[8]` is a float weight of that shape, `$int[3]` the number 3; see `_FILLS`.
The channels in front are `h`, those behind `o`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
from channel_kit import Array, random_feeds, random_weight, run

from irc.analysis.channels import Propagation, propagate
from irc.ir import normalize

Operator = tuple[str, str]
MS = "com.microsoft"
SEQUENCE = "g (float[n,s,6] x{more}) => (float[n,r,5] y) <{shapes}> {{ h = MatMul(x, $f32[6,8]) {body} y = MatMul(o, $f32[{width},5]) }}"
IMAGE = """g (float[n,3,8,6] x{more}) => (float[n,5,p,q] y) <{shapes}> {{
    h = Conv<kernel_shape=[1,1]>(x, $f32[8,3,1,1]) {body} y = Conv<kernel_shape=[1,1]>(o, $f32[5,{width},1,1]) }}"""
VECTOR = "g (float[n,6] x{more}) => (float[n,5] y) <{shapes}> {{ h = MatMul(x, $f32[6,8]) {body} y = MatMul(o, $f32[{width},5]) }}"
BARE = "g (float[n,s,6] x{more}) => (float[n,s,5] y) <{shapes}> {{ {body} }}"
SIZES = ({"n": 2, "s": 4}, {"n": 3, "s": 7})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Witness:
    """A network.

    Attributes:
        text: Of its graph, initializers written as `$kind[...]`.
        opset: Of the standard operators.
        runs: Whether anything runs it here; labels alone are compared otherwise.
        reference: Whether that is the reference evaluator of onnx, ONNX Runtime having no kernel for the CPU.
    """

    text: str
    opset: int = 20
    runs: bool = True
    reference: bool = False

    def model(self) -> ir.Model:
        """A new model, its weights the same each time."""
        weights: dict[str, Array] = {}

        def named(match: re.Match[str]) -> str:
            kind, arguments = match.groups()
            name = f"{kind}_{len(weights)}"
            numbers = [number for number in arguments.split(",") if number]
            weights[name] = _FILLS[kind](numbers, zlib.crc32(name.encode()))
            return name

        text = re.sub(r"\$(\w+)\[([^\]]*)\]", named, self.text).replace("<>", "")
        header = f'<ir_version: 10, opset_import: ["" : {self.opset}, "{MS}" : 1]>\n'
        proto = onnx.parser.parse_model(header + text)
        proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
        model = ir.from_proto(proto)
        normalize(model)
        return model

    @functools.cached_property
    def propagation(self) -> Propagation:
        """The labels of the model, not to be changed."""
        return propagate(self.model())

    def feeds(self) -> list[dict[str, Array]]:
        """Two runs at different sizes."""
        return random_feeds(self.propagation.model, *SIZES)

    def run(self, model: ir.Model, feeds: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
        """Outputs of the model, or one like it, for every feed."""
        assert self.runs, "nothing runs this network"
        if not self.reference:
            return run(model, feeds)
        evaluator = onnx.reference.ReferenceEvaluator(ir.to_proto(model))
        return [evaluator.run(None, dict(feed)) for feed in feeds]


def _shape(numbers: list[str]) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers)


def _integers(dtype: type, low: int, high: int) -> Callable[[list[str], int], Array]:
    return lambda n, seed: np.random.default_rng(seed).integers(low, high, _shape(n)).astype(dtype)


def _exactly(dtype: type, *, scalar: bool) -> Callable[[list[str], int], Array]:
    return lambda n, _seed: np.array(dtype(float(n[0])) if scalar else [float(one) for one in n]).astype(dtype)


_FILLS: dict[str, Callable[[list[str], int], Array]] = {
    "f32": lambda n, seed: random_weight(*_shape(n), seed=seed),
    "positive": lambda n, seed: np.random.default_rng(seed).uniform(0.5, 2, _shape(n)).astype(np.float32),
    "small": lambda n, seed: np.random.default_rng(seed).uniform(0.005, 0.015, _shape(n)).astype(np.float32),
    "i8": _integers(np.int8, -100, 100),
    "u8": _integers(np.uint8, 0, 200),
    "i32": _integers(np.int32, -900, 900),
    "u32": _integers(np.uint32, 1, 9),
    "ints": _exactly(np.int64, scalar=False),
    "int": _exactly(np.int64, scalar=True),
    "reals": _exactly(np.float32, scalar=False),
    "real": _exactly(np.float32, scalar=True),
    "zero8": lambda n, _seed: np.zeros(_shape(n), np.int8),
    "byte": _exactly(np.uint8, scalar=True),
    "sbyte": _exactly(np.int8, scalar=True),
}
"""How initializers are filled: by a shape (`f32` to `u32`, `zero8`), or with numbers, one (`int`) or several (`ints`)."""


def network(frame: str, body: str, *, width: int = 8, more: str = "", shapes: str = "", **options: Any) -> Witness:
    return Witness(text=frame.format(body=body, width=width, more=more, shapes=shapes), **options)


sequence = functools.partial(network, SEQUENCE)
image = functools.partial(network, IMAGE)
vector = functools.partial(network, VECTOR)
POSITIVE = "t = Abs(h) u = Add(t, $real[0.5])"
"""A body of positive numbers `u`."""
