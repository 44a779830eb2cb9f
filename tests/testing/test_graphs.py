"""Random models hold what breaks rewrites, are valid, run, and are the same for the same seed."""

from __future__ import annotations

import collections
import functools
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, find, given, settings

from irc import registry
from irc.calibration import runnable_feeds
from irc.errors import IrcError
from irc.ir import check, is_graph_output, load, save
from irc.testing import assert_conforms, check_pass
from irc.testing.conformance import shared_runner
from irc.testing.graphs import Limits, models, random_model
from irc.testing.integrity import model_bytes

COUNT = 150
SIMPLIFICATIONS = sorted(
    name
    for name, entry in registry.installed_passes().items()
    if entry.target.startswith("irc.passes.simplification") and name != "simplify-with-onnxsim"  # seconds per model
)


@functools.cache
def sample() -> tuple[ir.Model, ...]:
    return tuple(random_model(seed) for seed in range(COUNT))


def _bodies(model: ir.Model) -> list[ir.Graph]:
    return list(model.graph.subgraphs())


def _captures(model: ir.Model) -> bool:
    return any(
        value is not None and value.graph is not None and value.graph is not node.graph
        for body in _bodies(model)
        for node in body
        for value in node.inputs
    )


def _dtypes(model: ir.Model) -> set[ir.DataType | None]:
    return {value.dtype for node in model.graph.all_nodes() for value in node.outputs}


FEATURES = {
    "If": lambda m: any(n.op_type == "If" for n in m.graph.all_nodes()),
    "Loop": lambda m: any(n.op_type == "Loop" for n in m.graph.all_nodes()),
    "Scan": lambda m: any(n.op_type == "Scan" for n in m.graph.all_nodes()),
    "nested bodies": lambda m: any(a.type == ir.AttributeType.GRAPH for g in _bodies(m) for n in g for a in n.attributes.values()),
    "capture": _captures,
    "weight in a body": lambda m: any(g.initializers for g in _bodies(m)),
    "shared weight": lambda m: any(len(v.uses()) > 1 for v in m.graph.initializers.values()),
    "overridable weight": lambda m: any(v.is_graph_input() for v in m.graph.initializers.values()),
    "external weight": lambda m: any(isinstance(v.const_value, ir.ExternalTensor) for v in m.graph.initializers.values()),
    "missing input": lambda m: any(v is None for n in m.graph.all_nodes() for v in n.inputs),
    "foreign operator": lambda m: any(n.domain == "com.microsoft" for n in m.graph.all_nodes()),
    "value used twice": lambda m: any(len(o.uses()) > 1 for n in m.graph for o in n.outputs),
    "output used inside": lambda m: any(is_graph_output(o) and o.uses() for n in m.graph for o in n.outputs),
    "dead end": lambda m: any(not o.uses() and not is_graph_output(o) for n in m.graph for o in n.outputs),
    "symbolic size": lambda m: any(not isinstance(d, int) for v in m.graph.inputs for d in v.shape),
    "float16": lambda m: ir.DataType.FLOAT16 in _dtypes(m),
    "double": lambda m: ir.DataType.DOUBLE in _dtypes(m),
    "int32": lambda m: ir.DataType.INT32 in _dtypes(m),
    "bool": lambda m: ir.DataType.BOOL in _dtypes(m),
    "no tensor": lambda m: any(n.op_type == "SequenceConstruct" for n in m.graph),
}  # fmt: skip


@pytest.mark.parametrize("feature", FEATURES)
def test_holds(feature: str) -> None:
    assert sum(bool(FEATURES[feature](model)) for model in sample()) >= 2


def test_every_opset_is_drawn_and_most_operators_appear() -> None:
    assert {model.opset_imports[""] for model in sample()} == set(range(13, 24))
    operators = collections.Counter(node.op_type for model in sample() for node in model.graph.all_nodes())
    assert len(operators) >= 45


def test_they_are_valid_and_nearly_all_run() -> None:
    refused = []
    for seed, model in enumerate(sample()):
        check(model)
        try:
            runnable_feeds(shared_runner(), model, count=1)
        except IrcError as error:
            refused.append((seed, str(error)))
    assert len(refused) <= COUNT // 50, refused


def test_outputs_are_numbers_not_overflow() -> None:
    """Nonsense would hide errors: NaN equals NaN."""
    bad = 0
    for model in sample()[:40]:
        with shared_runner().open(model) as opened:
            feed = next(iter(runnable_feeds(shared_runner(), model, count=1).samples())).feed
            arrays = opened.run(feed).values()
            bad += any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays)
    assert bad <= 2


def test_equal_seeds_give_equal_models_in_another_process() -> None:
    code = (
        "from irc.testing.graphs import random_model; from irc.testing.integrity import model_bytes; import hashlib; \
print(hashlib.sha256(b''.join(model_bytes(random_model(s, Limits)) for s in range(12))).hexdigest())"
    )
    code = code.replace("Limits", "__import__('irc.testing.graphs').testing.graphs.Limits(external_data=False)")
    import hashlib

    mine = hashlib.sha256(b"".join(model_bytes(random_model(s, Limits(external_data=False))) for s in range(12)))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == mine.hexdigest()


def test_limits_are_kept() -> None:
    plain = Limits(
        bodies=False, dtypes=("float32",), opsets=(17, 17), external_data=False, overridable=False, symbolic=False
    )
    for seed in range(30):
        model = random_model(seed, plain)
        assert model.opset_imports[""] == 17 and not _bodies(model)
        assert not any(
            FEATURES[f](model) for f in ("external weight", "overridable weight", "symbolic size", "float16")
        )
    unknown = [random_model(seed, Limits(unknown_operators=True)) for seed in range(60)]
    assert any(node.domain == "unknown" for model in unknown for node in model.graph.all_nodes())
    raw = [random_model(seed, Limits(raw=True)) for seed in range(30)]
    assert any(node.op_type == "Constant" for model in raw for node in model.graph)
    assert any(not node.name for model in raw for node in model.graph)


def test_the_strategy_shrinks_to_the_smallest_model() -> None:
    quick = settings(max_examples=200, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    smallest = find(models(), lambda m: any(n.op_type == "Loop" for n in m.graph), settings=quick)
    assert len(smallest.graph) <= 5


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(models())
def test_every_simplification_conforms(model: ir.Model) -> None:
    for name in SIMPLIFICATIONS:
        assert_conforms(registry.pass_class(name)(), model, sharing="skip")


def test_every_simplification_conforms_where_values_are_shared() -> None:
    for seed in range(6):
        model = random_model(seed, Limits(steps=5))
        for name in SIMPLIFICATIONS:
            assert_conforms(registry.pass_class(name)(), {f"seed {seed}": model})


def test_models_with_unknown_operators_are_simplified_too() -> None:
    for seed in range(20):
        model = random_model(seed, Limits(unknown_operators=True, steps=6))
        for name in SIMPLIFICATIONS:
            result = check_pass(registry.pass_class(name)(), {f"seed {seed}": model}, sharing="skip", feeds=())
            assert result.ok, result.violations


def test_models_survive_saving_and_loading(tmp_path) -> None:
    for seed in range(25):
        model = random_model(seed)
        save(model, tmp_path / f"{seed}.onnx")
        again = load(tmp_path / f"{seed}.onnx")
        names = [node.op_type for node in model.graph.all_nodes()]
        assert [node.op_type for node in again.graph.all_nodes()] == names
