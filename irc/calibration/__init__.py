"""Samples and what they tell: data sources, generated inputs, streaming statistics."""

from irc.calibration.collector import StatisticRequest, collect, compare_values
from irc.calibration.data import DataSource, Feed, FeedList, Sample
from irc.calibration.generated import generate_feeds, runnable_feeds
from irc.calibration.input_signature import signature
from irc.calibration.observation_sweep import observe
from irc.calibration.observers import Observer, observer_for
from irc.calibration.sources import open_data, take
from irc.calibration.statistics import MinMax, Observable, Observations, Statistic, Statistics

__all__ = [
    "DataSource",
    "Feed",
    "FeedList",
    "MinMax",
    "Observable",
    "Observations",
    "Observer",
    "Sample",
    "Statistic",
    "StatisticRequest",
    "Statistics",
    "collect",
    "compare_values",
    "generate_feeds",
    "observe",
    "observer_for",
    "open_data",
    "runnable_feeds",
    "signature",
    "take",
]
