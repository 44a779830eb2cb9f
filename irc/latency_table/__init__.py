"""Latency of a model by what survives of it, from times measured on this machine.

table = LatencyTable.measured(runner, groups, feed)
table.milliseconds(alive) / table.milliseconds()
"""

from irc.latency_table.baseline import Baseline
from irc.latency_table.table import LatencyTable

__all__ = ["Baseline", "LatencyTable"]
