"""Structured pruning: whole channels, heads and neurons leave the model, and it gets smaller and faster without sparse kernels.

What may be cut, and what belongs together, is `irc.analysis.channels`'s to say; how it is cut, `irc.channel_surgery`'s. Here is
decided what goes: criteria score the atoms of families, an allocation shares out among families how much goes, rounding keeps widths
at which the target is fast, and a budget search finds the share that meets a number of MACs or parameters.
"""
