"""What tests of channel groups share: graphs from text, a runtime without optimizations, and both oracles at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from irc.analysis.channels import ChannelGroups, Mode, Propagation, propagate
from irc.channel_oracles import Proof, prove
from irc.ir import normalize

Array = np.ndarray[Any, Any]
MODES: tuple[Mode, ...] = ("rows", "columns")


def model_of(text: str, weights: Mapping[str, Array], *, opset: int = 20, ir_version: int = 10) -> ir.Model:
    """A model from the text of its graph (`onnx.parser`) and its initializers; missing floats among those named in the text are random."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
    proto = onnx.parser.parse_model(header + text)
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(proto)
    model = ir.from_proto(proto)
    normalize(model)
    return model


def random_weight(*shape: int, seed: int = 0) -> Array:
    """A weight of no two equal elements, scaled by its fan-in."""
    rng = np.random.default_rng([seed, *shape])
    scale = 1 / np.sqrt(max(1, int(np.prod(shape[1:])))) if len(shape) > 1 else 0.5
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def session(model: ir.Model) -> ort.InferenceSession:
    """The model in ONNX Runtime as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: ir.Model, feeds: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
    """Outputs for every feed."""
    opened = session(model)
    return [opened.run(None, dict(feed)) for feed in feeds]


def random_feeds(model: ir.Model, *sizes: Mapping[str, int], seed: int = 0) -> list[dict[str, Array]]:
    """One feed of random floats per mapping of symbols to sizes (one feed without symbols if none is given)."""
    rng = np.random.default_rng(seed)
    feeds = []
    for mapping in sizes or ({},):
        feed = {}
        for value in model.graph.inputs:
            dims = [d if isinstance(d, int) else mapping[str(d.value)] for d in value.shape or ()]
            dtype = (value.dtype or ir.DataType.FLOAT).numpy()
            feed[value.name or ""] = (
                rng.standard_normal(dims).astype(dtype) if dtype.kind == "f" else rng.integers(0, 3, dims).astype(dtype)
            )
        feeds.append(feed)
    return feeds


def assert_exact(
    model: ir.Model,
    feeds: Sequence[Mapping[str, Array]],
    *,
    modes: Sequence[Mode] = MODES,
    families: Mapping[str, int] | int | None = None,
    tolerance: float = 1e-5,
) -> dict[Mode, Proof]:
    """Proves a model by both oracles in all modes, and that the number of families is what is expected."""
    proofs: dict[Mode, Proof] = {}
    propagation = propagate(model)
    for mode in modes:
        proof = prove(ChannelGroups(propagation, mode), run, feeds)
        proofs[mode] = proof
        assert proof.holds(tolerance), f"{mode}: {proof}"
        if families is not None:
            wanted = families if isinstance(families, int) else families[mode]
            assert proof.families == wanted, f"{mode}: {describe(ChannelGroups(propagation, mode))}"
    return proofs


def different_modes(propagation: Propagation) -> list[ChannelGroups]:
    """Groups in both modes, or in one if both cut the same."""
    rows, columns = (ChannelGroups(propagation, mode) for mode in MODES)
    same = (rows.class_of == columns.class_of).all() and len(rows.families) == len(columns.families)
    if same and all(
        np.array_equal(one.atoms, other.atoms)
        and one.cell_count == other.cell_count
        and one.statistics == other.statistics
        for one, other in zip(rows.families, columns.families, strict=True)
    ):
        return [rows]
    return [rows, columns]


def describe(groups: ChannelGroups) -> str:
    """Families and pins in a few lines, for messages."""
    lines = [
        f"{family.name}: {len(family.atoms)} in {family.cell_count} cells on "
        + ", ".join(f"{axis.slot.name}.{axis.axis}x{axis.positions}" for axis in family.axes)
        + (f" ({family.statistics[0].text})" if family.statistics else "")
        for family in groups.families
    ]
    lines += [f"pinned {pin.slot.name} {pin.pinned}/{pin.size}: {pin.reason.text}" for pin in groups.pinned]
    return "\n".join(lines)


def families_by_weight(propagation: Propagation, mode: Mode) -> dict[str, int]:
    """Name of the first initializer and axis of every family, with the number of its atoms."""
    return {f"{f.axes[0].slot.name}.{f.axes[0].axis}": len(f.atoms) for f in ChannelGroups(propagation, mode).families}
