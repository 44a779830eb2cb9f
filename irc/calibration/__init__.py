"""Samples and what they tell: data sources, generated inputs, streaming statistics."""

from irc.calibration.collector import collect, compare_values
from irc.calibration.data import DataSource, Feed, FeedList, Sample
from irc.calibration.generated import generate_feeds, runnable_feeds
from irc.calibration.input_signature import signature
from irc.calibration.sources import open_data, take
from irc.calibration.statistics import MinMax, Statistic, StatisticRequest, Statistics

__all__ = [
    "DataSource",
    "Feed",
    "FeedList",
    "MinMax",
    "Sample",
    "Statistic",
    "StatisticRequest",
    "Statistics",
    "collect",
    "compare_values",
    "generate_feeds",
    "open_data",
    "runnable_feeds",
    "signature",
    "take",
]
