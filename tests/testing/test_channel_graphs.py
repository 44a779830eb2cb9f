"""Random networks are valid, run at any size, tell channels apart, and need every rule of channel propagation."""

from __future__ import annotations

import collections
import functools
import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings

from irc.ir import check
from irc.testing.channel_graphs import (
    BLOCKS,
    RULES,
    ChannelLimits,
    ChannelModel,
    channel_model,
    channel_models,
    channel_networks,
    occurrences,
)
from irc.testing.channel_steps import ChannelBuilder, broadcast
from irc.testing.choices import SeededChoices
from irc.testing.integrity import model_bytes

COUNT = 150
FULL = 1000
LEAST = 30
"""Of `FULL` networks: how many must need each rule."""


@functools.cache
def sample() -> tuple[ChannelModel, ...]:
    return tuple(channel_models(COUNT))


def _session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _symbols(network: ChannelModel) -> set[str]:
    return {str(size.value) for v in network.model.graph.inputs for size in v.shape if not isinstance(size, int)}


def test_networks_are_valid_and_their_shapes_are_those_that_were_tracked():
    for network in sample():
        check(network.model)
        onnx.checker.check_model(ir.to_proto(network.model), full_check=True)


def test_networks_run_at_both_sizes_and_their_outputs_vary():
    for number, network in enumerate(sample()):
        session = _session(network.model)
        for sizes in (0, 1):
            feeds = network.feeds(sizes)
            for value, output in zip(network.model.graph.outputs, session.run(None, feeds), strict=True):
                assert output.dtype == np.float32 and np.isfinite(output).all(), number
                assert output.std() > 1e-3 * np.abs(output).max() > 0, number
                known = [size for size in value.shape if isinstance(size, int)]
                assert known == [
                    made for made, size in zip(output.shape, value.shape, strict=True) if isinstance(size, int)
                ], number


def test_feeds_of_another_size_are_of_another_size():
    for network in sample():
        if _symbols(network):
            faces = [{name: array.shape for name, array in network.feeds(sizes).items()} for sizes in (0, 1)]
            assert faces[0] != faces[1]


def test_equal_seeds_give_equal_networks_and_feeds():
    for seed in range(20):
        one, other = channel_model(SeededChoices(seed)), channel_model(SeededChoices(seed))
        assert model_bytes(one.model) == model_bytes(other.model)
        assert one.steps == other.steps
        for name, array in one.feeds(1).items():
            assert np.array_equal(array, other.feeds(1)[name])


@pytest.mark.slow
def test_networks_are_the_same_in_another_process():
    program = (
        "import hashlib; from irc.testing.channel_graphs import channel_models; from irc.testing.integrity import model_bytes;"
        "print([hashlib.sha256(repr(model_bytes(n.model)).encode()).hexdigest() for n in channel_models(20)])"
    )
    runs = {subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1


def test_last_bits_of_the_inputs_decide_nothing_large():
    """What is rounded and compared stays clear of the edge, and no division is by next to nothing."""
    for number, network in enumerate(sample()):
        session, feeds = _session(network.model), network.feeds(0)
        nudged = {n: a * np.float32(1 + 2e-7) if a.dtype == np.float32 else a for n, a in feeds.items()}
        for output, other in zip(session.run(None, feeds), session.run(None, nudged), strict=True):
            assert np.abs(output - other).max() < 1e-5 * np.abs(output).max(), number


def test_no_weight_repeats_itself():
    """Two channels that had equal parameters could change places unnoticed; tables of ones and integers are arguments."""
    for network in sample():
        for name, value in network.model.graph.initializers.items():
            array = value.const_value.numpy()
            if name.startswith(("weight", "bias", "scale", "positive")):
                assert len(np.unique(array)) > 0.99 * array.size, name  # some of thousands of floats meet by chance


def test_limits_are_kept():
    limits = ChannelLimits(blocks=(1, 2), opsets=(17, 17), inputs=1, outputs=1, symbolic=False)
    for network in channel_models(20, limits=limits):
        assert network.model.graph.opset_imports[""] == 17
        assert len(network.model.graph.outputs) == len(network.model.graph.inputs) == 1
        assert not _symbols(network)


def test_batches_are_symbols_in_most_networks_and_not_in_all():
    symbolic = sum("N" in _symbols(network) for network in sample())
    assert COUNT / 2 < symbolic < COUNT * 5 / 6


def test_networks_share_weights_have_several_inputs_and_outputs_from_the_middle():
    found = collections.Counter()
    for network in sample():
        graph = network.model.graph
        found["inputs"] += len(graph.inputs) > 1
        found["outputs"] += len(graph.outputs) > 1
        found["read again"] += any(output.uses() for output in graph.outputs)
        found["shared"] += any(
            len({node for node, _ in value.uses()}) > 1 and value.shape.rank() > 0
            for value in graph.initializers.values()
        )
        found["no later opset"] += graph.opset_imports[""] < 18
    assert min(found.values()) > COUNT / 30 and len(found) == 5, found


def test_every_rule_occurs():
    """A rule that 30 of 1000 networks need is needed by at least one of 150 (chance to miss one by itself: 1 %)."""
    counts = collections.Counter(rule for network in sample() for rule in occurrences(network.model))
    missing = [rule for rule in RULES if not counts[rule]]
    assert len(missing) <= 2, missing
    assert sum(counts[rule] >= LEAST * COUNT / FULL for rule in RULES) >= 0.85 * len(RULES), counts


@pytest.mark.slow
def test_every_rule_occurs_in_thirty_of_a_thousand_networks_and_every_block_in_some():
    rules: collections.Counter[str] = collections.Counter()
    blocks: collections.Counter[str] = collections.Counter()
    for network in channel_models(FULL):
        rules.update(occurrences(network.model))
        blocks.update(set(network.steps))
    assert not {rule: rules[rule] for rule in RULES if rules[rule] < LEAST}
    assert not [name for pool in BLOCKS.values() for name, _ in pool if blocks[name] < 10]


def test_every_rule_occurs_only_where_its_operator_is():
    """A network of one convolution needs no rule of attention."""
    limits = ChannelLimits(blocks=(1, 1), inputs=1, outputs=1)
    for network in channel_models(30, limits=limits):
        operators = {node.op_type for node in network.model.graph}
        for rule in occurrences(network.model):
            operator = rule.split(":")[0]
            if operator in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Resize", "Split", "Concat", "Slice"):
                assert operator in operators, rule


def test_shapes_that_do_not_broadcast_are_an_error():
    assert broadcast(("N", 4, 1), (3,)) == ("N", 4, 3)
    with pytest.raises(AssertionError):
        broadcast(("N", 4), ("T", 4))


def test_weights_of_one_kind_are_shared_at_times():
    graph = ChannelBuilder(SeededChoices(0), ChannelLimits(), 20)
    names = {graph.weight((4,), "bias").name for _ in range(40)}
    assert 1 < len(names) < 40


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(channel_networks(ChannelLimits(blocks=(1, 4))))
def test_networks_drawn_by_hypothesis_run(network):
    assert all(np.isfinite(output).all() for output in _session(network.model).run(None, network.feeds(0)))
