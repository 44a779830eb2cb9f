"""Read-only facts about a model: shapes, multiply-accumulates, parameters, bytes, memory."""

from irc.analysis.activation_memory import PeakMemory, peak_memory
from irc.analysis.assumed_sizes import Sizes, assume_sizes, dynamic_axes, parse_sizes
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.analysis.description import describe, operator_counts
from irc.analysis.model_cost import ModelCost, NodeCost, cost
from irc.analysis.operation_macs import UnknownCost, multiply_accumulates
from irc.analysis.type_names import type_name
from irc.analysis.weights import StoredTensor, Weights, parameters

__all__ = [
    "ConcreteShapes",
    "ModelCost",
    "NodeCost",
    "PeakMemory",
    "Sizes",
    "StoredTensor",
    "UnknownCost",
    "Weights",
    "assume_sizes",
    "cost",
    "describe",
    "dynamic_axes",
    "multiply_accumulates",
    "operator_counts",
    "parameters",
    "parse_sizes",
    "peak_memory",
    "type_name",
]
