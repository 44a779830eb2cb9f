"""Zeros in weights: which, and how the rest makes up for them; shapes stay."""
