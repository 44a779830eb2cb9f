"""What tests of recurrent operators share: a network of one, with a layer in front and one behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from channel_kit import model_of, random_weight

Array = np.ndarray[Any, Any]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
KINDS = ("LSTM", "GRU", "GRU, linear_before_reset=1", "RNN")
WAYS = ("forward", "reverse", "bidirectional")
FEATURES, UNITS, STEPS = 5, 6, 7


def weights_of(kind: str, way: str = "forward", *, features: int = FEATURES, seed: int = 0) -> dict[str, Array]:
    """Of `recurrent`; the features that the operator reads span no more than three dimensions."""
    directions, gates = 2 if way == "bidirectional" else 1, GATES[kind.partition(",")[0]]
    return {
        "w1": random_weight(3, features, seed=seed),
        "W": random_weight(directions, gates * UNITS, features, seed=seed + 1) * 6,
        "R": random_weight(directions, gates * UNITS, UNITS, seed=seed + 2) * 6,
        "B": random_weight(directions, 2 * gates * UNITS, seed=seed + 3),
        "w2": random_weight(directions * UNITS, 4, seed=seed + 4),
        "join": np.array([0, 0, -1]),
    }


def recurrent(
    kind: str,
    way: str = "forward",
    *,
    weights: dict[str, Array] | None = None,
    call: str = "h, W, R, B",
    last: bool = False,
    dtype: str = "float",
) -> ir.Model:
    """y = f(x w1) w2 at every step, or at the last one.

    Args:
        kind: Operator, and attributes behind it.
        way: Direction.
        weights: Some other than those of `weights_of`.
        call: What the operator reads.
        last: Whether its last states are all that is read.
        dtype: Of everything.
    """
    operator, _comma, more = kind.partition(",")
    given = {**weights_of(kind, way), **(weights or {})}
    if dtype == "float16":
        given = {name: w.astype(np.float16) if w.dtype == np.float32 else w for name, w in given.items()}
    used = {name: array for name, array in given.items() if len(name) > 1 or name in call.replace(" ", "").split(",")}
    made, turned = (", Yh", "Transpose<perm=[1, 0, 2]>(Yh)") if last else ("Y", "Transpose<perm=[0, 2, 1, 3]>(Y)")
    if last:
        used["join"] = np.array([0, -1])
    sizes = "n, 4" if last else f"{STEPS}, n, 4"
    text = f"""g ({dtype}[{STEPS}, n, 3] x) => ({dtype}[{sizes}] y) {{
        h = MatMul(x, w1)
        {made} = {operator}<hidden_size={UNITS}, direction="{way}"{"," + more if more else ""}>({call})
        t = {turned}
        z = Reshape(t, join)
        y = MatMul(z, w2)
    }}"""
    return model_of(text, used)
