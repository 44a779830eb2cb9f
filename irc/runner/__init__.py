"""Every execution of a model happens in a child process: a crash of the runtime is not the end of the build."""

from irc.runner.difference import OutputDifference
from irc.runner.node_time import NodeTime, original_name
from irc.runner.runner import Feed, Opened, Runner, RuntimeNode, RuntimeValue

__all__ = ["Feed", "NodeTime", "Opened", "OutputDifference", "Runner", "RuntimeNode", "RuntimeValue", "original_name"]
