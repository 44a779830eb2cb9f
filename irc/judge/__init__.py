"""Is the candidate still the same model? One relative loss, with its bound, from the best evidence there is."""

from irc.judge.assessment import Assessment, Score
from irc.judge.budget import Budget
from irc.judge.halves import Half, split
from irc.judge.judge import Judge
from irc.judge.metric_function import MetricError

__all__ = ["Assessment", "Budget", "Half", "Judge", "MetricError", "Score", "split"]
