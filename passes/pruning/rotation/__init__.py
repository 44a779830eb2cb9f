"""Channels turned into principal directions where the graph is linear in them, so that cutting them loses less."""
