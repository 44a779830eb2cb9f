"""Channels that do the same merged into one, and what reads them corrected."""
