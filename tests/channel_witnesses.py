"""Witnesses: for every operator with a rule, small networks that show what the rule is for.

    for witness in of(("", "Softmax")):
        model, feeds = witness.model(), witness.feeds()

A network is a product, the operator in question, and another product, so that channels lie between that may be cut. In the text of a body
`$kind[...]` stands for an initializer: `$f32[8]` is a float weight of that shape, `$int[3]` the number 3; see `_FILLS`.
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
from irc.analysis.channels.slots import BROADCASTING
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


def _network(frame: str, body: str, *, width: int = 8, more: str = "", shapes: str = "", **options: Any) -> Witness:
    return Witness(text=frame.format(body=body, width=width, more=more, shapes=shapes), **options)


_sequence = functools.partial(_network, SEQUENCE)
_image = functools.partial(_network, IMAGE)
_vector = functools.partial(_network, VECTOR)

Q = "$real[0.05], $byte[120]"
"""A scale and a zero point."""
NARROW = "t = Tanh(h) u = Mul(t, $real[0.9])"
POSITIVE = "t = Abs(h) u = Add(t, $real[0.5])"
INTEGERS = "t = Mul(h, $real[9]) u = Cast<to=6>(t)"
BOOLS = "t = Greater(h, $f32[8]) u = Less(h, $f32[8])"
_LATEST: Mapping[str, int] = {"Swish": 24}
_DOMAINS: Mapping[str, str] = {
    **dict.fromkeys(("Acos", "Asin", "Atanh"), NARROW),
    **dict.fromkeys(("Log", "Sqrt", "Reciprocal"), POSITIVE),
    "Acosh": "t = Exp(h) u = Add(t, $real[1.1])",
}
_UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp"),
    *("Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu"),
    *(
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tan",
        "Tanh",
    ),
    *("ThresholdedRelu", "Dropout"),
)


def _elementwise() -> dict[Operator, list[Witness]]:
    found = {
        ("", name): [
            _sequence(
                f"{_DOMAINS[name]} o = {name}(u)" if name in _DOMAINS else f"o = {name}(h)",
                opset=_LATEST.get(name, 20),
                reference=name in _LATEST,
            )
        ]
        for name in _UNARY
    }
    for name in ("IsInf", "IsNaN"):
        found["", name] = [_sequence(f"t = {name}(h) u = Cast<to=1>(t) o = Add(u, $f32[8])")]
    found["", "Cast"] = [_sequence("t = Cast<to=11>(h) o = Cast<to=1>(t)")]
    found["", "CastLike"] = [_sequence(f"{INTEGERS} o = CastLike(u, h)")]
    found["", "Clip"] = [_sequence("o = Clip(h, $real[-0.5], $real[0.7])")]
    found["", "Not"] = [_sequence(f"{BOOLS} v = Not(u) o = Cast<to=1>(v)")]
    found["", "BitwiseNot"] = [_sequence(f"{INTEGERS} v = BitwiseNot(u) o = Cast<to=1>(v)")]
    for name in ("Gelu", "QuickGelu", "FastGelu"):
        found[MS, name] = [_sequence(f"o = {MS}.{name}(h)")]
    found[MS, "FastGelu"] += [_sequence(f"o = {MS}.FastGelu(h, $f32[8])")]
    found[MS, "BiasGelu"] = [_sequence(f"o = {MS}.BiasGelu(h, $f32[8])")]
    for name in ("BiasAdd", "BiasDropout"):
        found[MS, name] = [_sequence(f"o = {MS}.{name}(h, $f32[8], h)", shapes="float[n,s,8] o", runs=False)]
    return found | _broadcasting()


def _broadcasting() -> dict[Operator, list[Witness]]:
    bodies = {name: f"o = {name}(h, $f32[8])" for name in BROADCASTING}
    bodies["Div"] = "o = Div(h, $positive[8])"
    bodies["Pow"] = f"{POSITIVE} o = Pow(u, $positive[8])"
    bodies["Mod"] = "o = Mod<fmod=1>(h, $positive[8])"
    bodies["Where"] = "t = Greater(h, $f32[8]) o = Where(t, h, $f32[8])"
    for name in ("And", "Or", "Xor"):
        bodies[name] = f"{BOOLS} v = {name}(t, u) o = Cast<to=1>(v)"
    for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        bodies[name] = f"v = {name}(h, $f32[8]) o = Cast<to=1>(v)"
    bodies["Equal"] = f"{INTEGERS} v = Equal(u, u) w = Cast<to=1>(v) o = Mul(w, $f32[8])"
    for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        bodies[name] = f"{INTEGERS} v = {name}(u, $i32[8]) o = Cast<to=1>(v)"
    bodies["BitShift"] = (
        'a = Abs(h) t = Mul(a, $real[9]) u = Cast<to=12>(t) v = BitShift<direction="LEFT">(u, $u32[8]) o = Cast<to=1>(v)'
    )
    found: dict[Operator, list[Witness]] = {("", name): [_sequence(body)] for name, body in bodies.items()}
    found["", "Add"] += [_sequence("t = MatMul(x, $f32[6,8]) o = Add(t, h)")]
    return found


def _reductions() -> dict[Operator, list[Witness]]:
    found: dict[Operator, list[Witness]] = {}
    for name in (
        *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum"),
        *("ReduceLogSumExp", "ReduceSumSquare"),
    ):
        found["", name] = [
            _sequence(f"{POSITIVE} o = {name}(u, $ints[1])"),
            _sequence(f"{POSITIVE} r = {name}(u, $ints[2]) o = Mul(h, r)"),
        ]
    for name in ("ArgMax", "ArgMin"):
        found["", name] = [
            _vector(
                f"t = Unsqueeze(h, $ints[2]) u = Mul(t, $f32[3]) v = {name}<axis=2,keepdims=0>(u) o = Cast<to=1>(v)"
            ),
            _sequence(f"v = {name}<axis=2>(h) r = Cast<to=1>(v) o = Mul(h, r)"),
        ]
    found["", "TopK"] = [
        _sequence("t = Transpose<perm=[0,2,1]>(h) k, i = TopK<axis=2>(t, $ints[2]) o = Transpose<perm=[0,2,1]>(k)"),
        _sequence("k, i = TopK(h, $ints[8]) o = Mul(k, $real[2])"),
    ]  # fmt: skip
    for name in ("Softmax", "LogSoftmax", "Hardmax"):
        found["", name] = [_sequence(f"o = {name}<axis=1>(h)"), _sequence(f"o = {name}<axis=2>(h)")]
    found[MS, "BiasSoftmax"] = [
        _network(
            "g (float[2,7,6] x) => (float[2,7,5] y) <float[2,8,7] v> {{ h = MatMul(x, $f32[6,8])"
            " t = Transpose<perm=[0,2,1]>(h) {body} o = Transpose<perm=[0,2,1]>(v) y = MatMul(o, $f32[{width},5]) }}",
            f"v = {MS}.BiasSoftmax<axis=2,is_inner_broadcast=0>(t, $f32[1,8,7])", runs=False,
        )
    ]  # fmt: skip
    for name in ("MaxPool", "AveragePool", "LpPool"):
        found["", name] = [_image(f"o = {name}<kernel_shape=[2,2]>(h)")]
    for name in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        found["", name] = [_image(f"o = {name}(h)")]
    grid = ", float[n,4,5,2] grid"
    found["", "GridSample"] = [_image("o = GridSample(h, grid)", more=grid)]
    found[MS, "GridSample"] = [
        _image(f"o = {MS}.GridSample(h, grid)", more=grid, shapes="float[n,8,4,5] o", runs=False)
    ]
    boxes = "$reals[0,0,0,5,4,0,1,1,3,3]"
    found["", "RoiAlign"] = [
        _image(
            "b = Reshape($reals[0,0,5,4,1,1,3,3], $ints[2,4]) o = RoiAlign<output_height=2,output_width=2>(h, b, $ints[0,1])"
        )
    ]
    found["", "MaxRoiPool"] = [_image(f"b = Reshape({boxes}, $ints[2,5]) o = MaxRoiPool<pooled_shape=[2,2]>(h, b)")]
    return found


def _normalizations() -> dict[Operator, list[Witness]]:
    vector = "$positive[8]"
    found: dict[Operator, list[Witness]] = {
        ("", "BatchNormalization"): [_image(f"o = BatchNormalization(h, $f32[8], $f32[8], $f32[8], {vector})")],
        ("", "InstanceNormalization"): [_image("o = InstanceNormalization(h, $f32[8], $f32[8])")],
        ("", "LayerNormalization"): [_sequence("o = LayerNormalization(h, $f32[8], $f32[8])")],
        ("", "RMSNormalization"): [_sequence("o = RMSNormalization(h, $f32[8])", opset=23)],
        ("", "SimplifiedLayerNormalization"): [_sequence("o = SimplifiedLayerNormalization(h, $f32[8])", shapes="float[n,s,8] o")],
        (MS, "SimplifiedLayerNormalization"): [
            _sequence(f"o = {MS}.SimplifiedLayerNormalization(h, $f32[8])", shapes="float[n,s,8] o", runs=False)
        ],
        (MS, "SkipLayerNormalization"): [_sequence(f"t = MatMul(x, $f32[6,8]) o = {MS}.SkipLayerNormalization(h, t, $f32[8], $f32[8], $f32[8])")],
        (MS, "SkipSimplifiedLayerNormalization"): [
            _sequence(f"t = MatMul(x, $f32[6,8]) o = {MS}.SkipSimplifiedLayerNormalization(h, t, $f32[8], $f32[8])")
        ],
        (MS, "EmbedLayerNormalization"): [
            Witness(
                text=f"g (int32[n,s] ids, int32[n,s] kinds) => (float[n,s,5] y) {{ o, i = {MS}.EmbedLayerNormalization(ids,"
                " kinds, $f32[11,8], $f32[20,8], $f32[3,8], $f32[8], $f32[8]) y = MatMul(o, $f32[8,5]) }"
            )
        ],
        ("", "LpNormalization"): [_sequence("o = LpNormalization<axis=2>(h)"), _sequence("o = LpNormalization<axis=1>(h)")],
        ("", "MeanVarianceNormalization"): [
            _image("o = MeanVarianceNormalization<axes=[2,3]>(h)"),
            _image("o = MeanVarianceNormalization<axes=[1,2,3]>(h)"),
        ],
        ("", "LRN"): [
            _image("t = Transpose<perm=[0,2,1,3]>(h) u = LRN<size=3>(t) o = Transpose<perm=[0,2,1,3]>(u)"),
            _image("o = LRN<size=3,alpha=0.5>(h)"),
        ],
        ("", "GroupNormalization"): [
            _image("o = GroupNormalization<num_groups=4>(h, $f32[8], $f32[8])", opset=21, reference=True)
        ],
    }  # fmt: skip
    last = "t = Transpose<perm=[0,2,3,1]>(h)", "o = Transpose<perm=[0,3,1,2]>(u)"
    for name, skip in (("GroupNorm", ""), ("SkipGroupNorm", ", t")):
        body = f"{last[0]} u = {MS}.{name}<groups=4,activation=0>(t, $f32[8], $f32[8]{skip}) {last[1]}"
        found[MS, name] = [_image(body, shapes="float[n,8,6,8] u", runs=False)]
    return found


def _products() -> dict[Operator, list[Witness]]:
    found: dict[Operator, list[Witness]] = {
        ("", "MatMul"): [_sequence("t = Relu(h) o = MatMul(t, $f32[8,8])"),
                         _sequence("t = Transpose<perm=[0,2,1]>(h) s1 = MatMul(h, t) p = Softmax(s1) o = MatMul(p, h)")],
        (MS, "FusedMatMul"): [_sequence(f"o = {MS}.FusedMatMul<transB=1>(h, $f32[8,8])")],
        (MS, "TransposeMatMul"): [_sequence(f"o = {MS}.TransposeMatMul<transB=1>(h, $f32[8,8])")],
        ("", "Gemm"): [_vector("o = Gemm<transB=1>(h, $f32[10,8], $f32[10])", width=10)],
        (MS, "FusedGemm"): [_vector(f'o = {MS}.FusedGemm<transB=1,activation="Relu">(h, $f32[10,8], $f32[10])', width=10)],
        ("", "Einsum"): [_sequence('o = Einsum<equation="nsc,cd->nsd">(h, $f32[8,9])', width=9)],
        ("", "Conv"): [
            _image("o = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(h, $f32[10,8,3,3], $f32[10])", width=10),
            _image("o = Conv<kernel_shape=[1,1],group=4>(h, $f32[12,2,1,1], $f32[12])", width=12),
            _image("o = Conv<kernel_shape=[3,3],group=8>(h, $f32[8,1,3,3])"),
        ],
        ("", "ConvTranspose"): [
            _image("o = ConvTranspose<kernel_shape=[2,2]>(h, $f32[8,10,2,2], $f32[10])", width=10),
            _image("o = ConvTranspose<kernel_shape=[2,2],group=4>(h, $f32[8,3,2,2], $f32[12])", width=12),
        ],
        (MS, "FusedConv"): [
            _image(f'o = {MS}.FusedConv<kernel_shape=[1,1],activation="Relu">(h, $f32[8,8,1,1], $f32[8], h)'),
            _image(f'o = {MS}.FusedConv<kernel_shape=[1,1],group=4,activation="Relu">(h, $f32[12,2,1,1], $f32[12])', width=12),
        ],
    }  # fmt: skip
    for name, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        weights = f"$f32[1,{gates * 9},8], $f32[1,{gates * 9},9], $f32[1,{gates * 18}]"
        both = f"$f32[2,{gates * 7},8], $f32[2,{gates * 7},7], $f32[2,{gates * 14}]"
        found["", name] = [
            _sequence(f"u, e = {name}<hidden_size=9>(h, {weights}) o = Squeeze(u, $ints[1])", width=9),
            _sequence(
                f'u, e = {name}<hidden_size=7,direction="bidirectional">(h, {both})'
                " v = Transpose<perm=[0,2,1,3]>(u) o = Reshape(v, $ints[0,0,-1])", width=14,
            ),
        ]  # fmt: skip
    return found


def _attention() -> dict[Operator, list[Witness]]:
    def network(operator: str, *, projections: str = "", opset: int = 23, more: str = "") -> Witness:
        body = "q = MatMul(x, $f32[6,16]) k = MatMul(x, $f32[6,8]) v = MatMul(x, $f32[6,12])" + projections
        return _network(BARE, f"{body} {operator} y = MatMul(o, $f32[24,5])", opset=opset, more=more)

    same = "q = MatMul(x, $f32[6,16]) k = MatMul(x, $f32[6,16]) v = MatMul(x, $f32[6,12])"
    places = ", int64[n,s] places"
    rotated = "{0} o = Attention<q_num_heads=4,kv_num_heads=4>(r, k, v) y = MatMul(o, $f32[12,5])"
    tables = "$f32[32,2], $f32[32,2]"
    return {
        ("", "Attention"): [
            network("o = Attention<q_num_heads=4,kv_num_heads=2>(q, k, v)"),
            _network(BARE, f"{same} t = ReduceMean(x, $ints[2]) r = Unsqueeze(t, $ints[1]) e = Transpose<perm=[0,1,3,2]>(r)"
                     " d = Add(r, e) u = Mul(d, $f32[1,4,1,1]) o = Attention<q_num_heads=4,kv_num_heads=4>(q, k, v, u)"
                     " y = MatMul(o, $f32[12,5])", opset=23),
        ],
        (MS, "MultiHeadAttention"): [
            _network(BARE, f"{same} o = {MS}.MultiHeadAttention<num_heads=4>(q, k, v, $f32[44]) y = MatMul(o, $f32[12,5])"),
        ],
        (MS, "Attention"): [
            _sequence(f"o = {MS}.Attention<num_heads=4>(h, $f32[8,36], $f32[36])", width=12),
            _sequence(f"o = {MS}.Attention<num_heads=4,qkv_hidden_sizes=[8,8,12]>(h, $f32[8,28], $f32[28])", width=12),
        ],
        ("", "RotaryEmbedding"): [
            _network(BARE, same + rotated.format(f" r = RotaryEmbedding<num_heads=4>(q, {tables}, places)"), opset=23, more=places)
        ],
        (MS, "RotaryEmbedding"): [
            _network(BARE, same + rotated.format(f" r = {MS}.RotaryEmbedding<num_heads=4>(q, places, {tables})"), opset=23,
                     more=places)
        ],
    }  # fmt: skip


def _quantized() -> dict[Operator, list[Witness]]:
    def image(body: str, shape: str = "", **options: Any) -> Witness:
        return _image(f"q = QuantizeLinear(h, {Q}) {body} o = DequantizeLinear(z, {Q})", shapes=shape, **options)

    def sequence(body: str, shape: str = "", **options: Any) -> Witness:
        return _sequence(f"q = QuantizeLinear(h, {Q}) {body} o = DequantizeLinear(z, {Q})", shapes=shape, **options)

    last = "t = Transpose<perm=[0,2,3,1]>(q)", "z = Transpose<perm=[0,3,1,2]>(u)"
    per_column = "DequantizeLinear<axis=1>($i8[8,8], $small[8])"
    found: dict[Operator, list[Witness]] = {
        ("", "QuantizeLinear"): [_image("q = QuantizeLinear<axis=1>(h, $small[8], $u8[8]) o = DequantizeLinear<axis=1>(q, $small[8])")],
        ("", "DequantizeLinear"): [_sequence(f"w = {per_column} t = MatMul(h, w) o = Relu(t)")],
        (MS, "QuantizeLinear"): [_image(f"q = {MS}.QuantizeLinear(h, {Q}) o = DequantizeLinear(q, {Q})", shapes="uint8[n,8,8,6] q")],
        (MS, "DequantizeLinear"): [
            _image(f"q = QuantizeLinear(h, {Q}) o = {MS}.DequantizeLinear(q, {Q})", shapes="float[n,8,8,6] o")
        ],
        ("", "DynamicQuantizeLinear"): [_sequence("t = Mul(h, $reals[1,2,3,4,5,6,7,9]) q, c, z = DynamicQuantizeLinear(t) o = DequantizeLinear(q, c, z)")],
        ("", "QLinearConv"): [
            image(f"z = QLinearConv<kernel_shape=[1,1]>(q, {Q}, $i8[10,8,1,1], $small[10], $zero8[10], {Q}, $i32[10])", width=10),
            image(f"z = QLinearConv<kernel_shape=[1,1],group=4>(q, {Q}, $i8[12,2,1,1], $small[12], $zero8[12], {Q}, $i32[12])", width=12),
        ],
        (MS, "QLinearConv"): [
            image(f"z = {MS}.QLinearConv<kernel_shape=[1,1]>(q, {Q}, $u8[10,8,1,1], $real[0.01], $byte[99], {Q})", "uint8[n,10,8,6] z", width=10),
            image(f"z = {MS}.QLinearConv<kernel_shape=[1,1],group=4>(q, {Q}, $u8[12,2,1,1], $real[0.02], $byte[99], {Q})", "uint8[n,12,8,6] z", width=12),
        ],
        ("", "ConvInteger"): [
            _image(f"q = QuantizeLinear(h, {Q}) z = ConvInteger<kernel_shape=[1,1]>(q, $u8[10,8,1,1], $byte[120], $byte[99]) o = Cast<to=1>(z)", width=10),
            _image(f"q = QuantizeLinear(h, {Q}) z = ConvInteger<kernel_shape=[1,1],group=4>(q, $u8[12,2,1,1], $byte[120]) o = Cast<to=1>(z)", width=12),
        ],
        ("", "QLinearMatMul"): [sequence(f"z = QLinearMatMul(q, {Q}, $i8[8,10], $small[10], $i8[10], {Q})", width=10)],
        ("", "MatMulInteger"): [
            _sequence(f"q = QuantizeLinear(h, {Q}) z = MatMulInteger(q, $i8[8,10], $byte[120], $i8[10]) o = Cast<to=1>(z)", width=10)
        ],
        (MS, "MatMulIntegerToFloat"): [
            _sequence(
                f"q = QuantizeLinear(h, {Q}) o = {MS}.MatMulIntegerToFloat(q, $i8[8,10], $real[0.05], $small[10], $byte[120], $i8[10], $f32[10])",
                width=10,
            )
        ],
        (MS, "DynamicQuantizeMatMul"): [
            _sequence(f"t = Mul(h, $reals[1,2,3,4,5,6,7,9]) o = {MS}.DynamicQuantizeMatMul(t, $i8[8,10], $small[10], $zero8[10], $f32[10])", width=10)
        ],
        (MS, "QGemm"): [
            _vector(
                f"q = QuantizeLinear(h, {Q}) o = {MS}.QGemm<transB=1>(q, {Q}, $i8[10,8], $small[10], $i8[10], $i32[10])", width=10
            )
        ],
        (MS, "MatMulNBits"): [
            _sequence(
                f"t = MatMul(h, $f32[8,32]) o = {MS}.MatMulNBits<K=32,N=10,bits=4,block_size=16>(t, $u8[10,2,8], $small[20], $u8[10])",
                width=10,
            )
        ],
        (MS, "QLinearAdd"): [sequence(f"p = MatMul(x, $f32[6,8]) r = QuantizeLinear(p, {Q}) z = {MS}.QLinearAdd(q, {Q}, r, {Q}, {Q})")],
        (MS, "QLinearMul"): [sequence(f"p = MatMul(x, $f32[6,8]) r = QuantizeLinear(p, {Q}) z = {MS}.QLinearMul(q, {Q}, r, {Q}, {Q})")],
        (MS, "QLinearWhere"): [
            image(f"p = Conv<kernel_shape=[1,1]>(x, $f32[8,3,1,1]) c = Greater(p, $f32[8,1,1]) z = {MS}.QLinearWhere(c, q, {Q}, $u8[8,1,1], {Q}, {Q})", "uint8[n,8,8,6] z")
        ],
        (MS, "QLinearSigmoid"): [sequence(f"z = {MS}.QLinearSigmoid(q, {Q}, {Q})")],
        (MS, "QLinearLeakyRelu"): [sequence(f"z = {MS}.QLinearLeakyRelu(q, {Q}, {Q})")],
        (MS, "QLinearSoftmax"): [
            sequence(f"z = {MS}.QLinearSoftmax<axis=1,opset=13>(q, {Q}, $real[0.004], $byte[0])", "uint8[n,s,8] z"),
            sequence(f"z = {MS}.QLinearSoftmax<axis=2,opset=13>(q, {Q}, $real[0.004], $byte[0])", "uint8[n,s,8] z"),
        ],
        (MS, "QLinearReduceMean"): [
            sequence(f"z = {MS}.QLinearReduceMean<axes=[1],keepdims=1>(q, {Q}, {Q})", "uint8[n,1,8] z", runs=False)
        ],
        (MS, "QLinearConcat"): [
            image(
                f"p = Conv<kernel_shape=[1,1]>(x, $f32[6,3,1,1]) r = QuantizeLinear(p, {Q}) z = {MS}.QLinearConcat<axis=1>({Q}, q, {Q}, r, {Q})",
                "uint8[n,14,8,6] z", width=14,
            )
        ],
        (MS, "QLinearAveragePool"): [
            image(f"z = {MS}.QLinearAveragePool<kernel_shape=[2,2]>(q, {Q}, {Q})", "uint8[n,8,7,5] z"),
            image(f"{last[0]} u = {MS}.QLinearAveragePool<kernel_shape=[2,2],channels_last=1>(t, {Q}, {Q}) {last[1]}", "uint8[n,7,5,8] u"),
        ],
        (MS, "QLinearGlobalAveragePool"): [
            image(f"z = {MS}.QLinearGlobalAveragePool(q, {Q}, {Q})", "uint8[n,8,1,1] z"),
            image(f"{last[0]} u = {MS}.QLinearGlobalAveragePool<channels_last=1>(t, {Q}, {Q}) {last[1]}", "uint8[n,1,1,8] u"),
        ],
        (MS, "NhwcMaxPool"): [image(f"{last[0]} u = {MS}.NhwcMaxPool<kernel_shape=[2,2]>(t) {last[1]}", "uint8[n,7,5,8] u")],
    }  # fmt: skip
    return found


def _movement() -> dict[Operator, list[Witness]]:
    heads = "$ints[0,0,2,4]"
    nearest = 'Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">'
    return {
        ("", "Reshape"): [
            _sequence(f"t = Reshape(h, {heads}) u = Softmax(t) o = Reshape(u, $ints[0,0,8])"),
            _sequence("t = Relu(h) o = Reshape(t, $ints[0,-1,8])"),
        ],
        ("", "Flatten"): [
            _network("g (float[n,3,4,4] x) => (float[n,5] y) <{shapes}> {{ h = Conv<kernel_shape=[2,2]>(x, $f32[8,3,2,2])"
                     " {body} y = MatMul(o, $f32[{width},5]) }}", "o = Flatten(h)", width=72)
        ],
        ("", "Squeeze"): [_vector("t = Unsqueeze(h, $ints[1]) u = Relu(t) o = Squeeze(u, $ints[1])")],
        ("", "Unsqueeze"): [_vector("t = Unsqueeze(h, $ints[1]) u = Relu(t) o = Squeeze(u, $ints[1])")],
        ("", "Transpose"): [_sequence("t = Transpose<perm=[0,2,1]>(h) u = Mul(t, $f32[8,1]) o = Transpose<perm=[0,2,1]>(u)")],
        ("", "Concat"): [_sequence("t = MatMul(x, $f32[6,6]) o = Concat<axis=2>(h, t)", width=14)],
        ("", "Split"): [
            _sequence("t = MatMul(h, $f32[8,14]) a, b = Split<axis=2>(t, $ints[8,6]) s1 = Sigmoid(a) s2 = MatMul(b, $f32[6,8])"
                      " o = Mul(s1, s2)"),
            _sequence("a, b = Split<axis=2,num_outputs=2>(h) s1 = Sigmoid(a) o = Mul(s1, b)", width=4),
        ],
        ("", "Slice"): [
            _sequence("a = Slice(h, $ints[0], $ints[3], $ints[2]) b = Slice(h, $ints[3], $ints[8], $ints[2])"
                      " t = MatMul(b, $f32[5,3]) o = Add(a, t)", width=3),
            _sequence("o = Slice(h, $ints[1], $ints[8], $ints[2], $ints[2])", width=4),
        ],
        ("", "Gather"): [
            _sequence("o = Gather<axis=2>(h, $ints[7,0,2,3,5,1])", width=6),
            Witness(text="g (int64[n,s] ids) => (float[n,s,5] y) { o = Gather($f32[11,8], ids) y = MatMul(o, $f32[8,5]) }"),
        ],
        ("", "CumSum"): [_sequence("o = CumSum(h, $int[1])"), _sequence("o = CumSum(h, $int[2])")],
        ("", "Trilu"): [
            _sequence("t = Unsqueeze(h, $ints[3]) u = Mul(t, $f32[1,4]) w = Transpose<perm=[2,0,1,3]>(u) v = Trilu(w)"
                      " m = ReduceSum<keepdims=0>(v, $ints[3]) o = Transpose<perm=[1,2,0]>(m)"),
            _sequence("o = Trilu(h)"),
        ],
        ("", "ReverseSequence"): [
            _sequence("o = ReverseSequence<batch_axis=0,time_axis=1>(h, lengths)", more=", int64[n] lengths"),
            _network("g (float[3,s,6] x) => (float[3,s,5] y) <{shapes}> {{ h = MatMul(x, $f32[6,8]) {body} y = MatMul(o, $f32[{width},5]) }}",
                     "t = Transpose<perm=[2,0,1]>(h) u = ReverseSequence<batch_axis=1,time_axis=0>(t, $ints[3,6,8]) o = Transpose<perm=[1,2,0]>(u)"),
        ],
        ("", "DepthToSpace"): [_image(f'o = DepthToSpace<blocksize=2,mode="{mode}">(h)', width=2) for mode in ("DCR", "CRD")]
        + [_vector(f't = Unsqueeze(h, $ints[2,3]) u = DepthToSpace<blocksize=2,mode="{mode}">(t) o = Flatten(u)') for mode in ("DCR", "CRD")],
        ("", "SpaceToDepth"): [_image("o = SpaceToDepth<blocksize=2>(h)", width=32)],
        ("", "Expand"): [
            _sequence("t = Expand($f32[1,1,8], $ints[1,4,1]) u = ReduceSum(t, $ints[1]) o = Mul(h, u)"),
            _sequence("m = ReduceMean(h, $ints[2]) t = Expand(m, $ints[1,1,8]) o = Sub(h, t)"),
        ],
        ("", "Tile"): [
            _sequence("o = Tile(h, $ints[1,1,2])", width=16),
            _sequence("m = ReduceMean(h, $ints[2]) t = Tile(m, $ints[1,1,8]) o = Sub(h, t)"),
        ],
        ("", "ConstantOfShape"): [_sequence("t = ConstantOfShape<value=float[1] {2.0}>($ints[8]) o = Mul(h, t)")],
        ("", "Pad"): [
            _sequence("o = Pad(h, $ints[0,0,1,0,0,2])", width=11),
            _sequence("o = Pad(h, $ints[0,0,-2,0,0,0])", width=6),
            _sequence('o = Pad<mode="reflect">(h, $ints[0,0,1,0,0,2])', width=11),
        ],
        ("", "Resize"): [
            _image(f"o = {nearest}(h, , $reals[1,1,2,2])"),
            _network("g (float[2,3,4,4] x) => (float[2,5,8,8] y) <{shapes}> {{ h = Conv<kernel_shape=[1,1]>(x, $f32[8,3,1,1])"
                     " {body} y = Conv<kernel_shape=[1,1]>(o, $f32[5,{width},1,1]) }}", f"o = {nearest}(h, , , $ints[2,8,8,8])"),
            _image(f"o = {nearest}(h, , $reals[1,2,1,1])", width=16),
        ],
        ("", "Upsample"): [_image('o = Upsample<mode="nearest">(h, $reals[1,1,2,2])', opset=9)],
        ("", "Shape"): [
            _sequence("d = Shape<start=2>(h) f = Cast<to=1>(d) r = Sqrt(f) o = Div(h, r)"),
        ],
        ("", "Size"): [
            _network("g (float[2,4,6] x) => (float[2,4,5] y) <{shapes}> {{ h = MatMul(x, $f32[6,8]) {body} y = MatMul(o, $f32[{width},5]) }}",
                     "d = Size(h) f = Cast<to=1>(d) r = Sqrt(f) o = Div(h, r)"),
        ],
    }  # fmt: skip


@functools.cache
def table() -> dict[Operator, list[Witness]]:
    """All witnesses by operator."""
    rooms = (_elementwise, _reductions, _normalizations, _products, _attention, _quantized, _movement)
    found: dict[Operator, list[Witness]] = {}
    for room in rooms:
        for operator, networks in room().items():
            assert operator not in found, operator
            found[operator] = networks
    return found


def of(operator: Operator) -> list[Witness]:
    """Those of one operator; none if it has none."""
    return table().get(operator, [])
