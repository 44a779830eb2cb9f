"""Witnesses of elementwise operators."""

from __future__ import annotations

from collections.abc import Mapping

from channel_witnesses.network import MS, POSITIVE, Operator, Witness, sequence

from irc.analysis.channels.slots import BROADCASTING

NARROW = "t = Tanh(h) u = Mul(t, $real[0.9])"
INTEGERS = "t = Mul(h, $real[9]) u = Cast<to=6>(t)"
BOOLS = "t = Greater(h, $f32[8]) u = Less(h, $f32[8])"
_LATEST: Mapping[str, int] = {"Swish": 24}
_DOMAINS: Mapping[str, str] = {
    **dict.fromkeys(("Acos", "Asin", "Atanh"), NARROW),
    **dict.fromkeys(("Log", "Sqrt", "Reciprocal"), POSITIVE),
    "Acosh": "t = Exp(h) u = Add(t, $real[1.1])",
}
_UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Dropout", "Elu", "Erf"),
    *("Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal"),
    *("Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish"),
    *("Tan", "Tanh", "ThresholdedRelu"),
)


def elementwise() -> dict[Operator, list[Witness]]:
    found = {
        ("", name): [
            sequence(
                f"{_DOMAINS[name]} o = {name}(u)" if name in _DOMAINS else f"o = {name}(h)",
                opset=_LATEST.get(name, 20),
                reference=name in _LATEST,
            )
        ]
        for name in _UNARY
    }
    for name in ("IsInf", "IsNaN"):
        found["", name] = [sequence(f"t = {name}(h) u = Cast<to=1>(t) o = Add(u, $f32[8])")]
    found["", "Cast"] = [sequence("t = Cast<to=11>(h) o = Cast<to=1>(t)")]
    found["", "CastLike"] = [sequence(f"{INTEGERS} o = CastLike(u, h)")]
    found["", "Clip"] = [sequence("o = Clip(h, $real[-0.5], $real[0.7])")]
    found["", "Not"] = [sequence(f"{BOOLS} v = Not(u) o = Cast<to=1>(v)")]
    found["", "BitwiseNot"] = [sequence(f"{INTEGERS} v = BitwiseNot(u) o = Cast<to=1>(v)")]
    for name in ("Gelu", "QuickGelu", "FastGelu"):
        found[MS, name] = [sequence(f"o = {MS}.{name}(h)")]
    found[MS, "FastGelu"] += [sequence(f"o = {MS}.FastGelu(h, $f32[8])")]
    found[MS, "BiasGelu"] = [sequence(f"o = {MS}.BiasGelu(h, $f32[8])")]
    for name in ("BiasAdd", "BiasDropout"):
        found[MS, name] = [sequence(f"o = {MS}.{name}(h, $f32[8], h)", shapes="float[n,s,8] o", runs=False)]
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
    found: dict[Operator, list[Witness]] = {("", name): [sequence(body)] for name, body in bodies.items()}
    found["", "Add"] += [sequence("t = MatMul(x, $f32[6,8]) o = Add(t, h)")]
    return found
