"""Where the runtime converts between plain and blocked tensors."""

from __future__ import annotations

from latency_table.clocked_tables import BLOCK, chain, feed_of

from irc.analysis.channels import channel_groups
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.calibration.memory_packing import sizes_of
from irc.latency_table.kernels import Convolution
from irc.latency_table.layouts import Layouts
from irc.latency_table.surviving_shapes import SurvivingShapes


def layouts(model):
    groups = channel_groups(model)
    shapes = SurvivingShapes(groups.propagation, ConcreteShapes(model, sizes_of(model, feed_of(model))))
    nodes = [node for node in model.graph if node.op_type == "Conv"]
    convolutions = {node: Convolution(node, shapes) for node in nodes}
    return groups, Layouts(shapes, convolutions, BLOCK)


def test_conversions_stand_where_an_operator_wants_another_layout():
    _groups, found = layouts(chain())
    # x and f (Erf wants plain) into blocks; e and y out of them.
    assert found.converted(None) == ((16 + 32) * 64, (32 + 16) * 64, 4)


def test_a_width_off_the_blocks_moves_the_conversions():
    groups, found = layouts(chain())
    (family,) = groups.families
    alive = groups.survivors({family: family.atoms[:30]})
    # a still makes blocks, which c, now plain, does not read; nothing behind it is in blocks.
    assert found.converted(alive) == (16 * 64, 30 * 64, 2)
    assert Layouts(found._shapes, found._convolutions, 1).converted(None) == (0, 0, 0)
