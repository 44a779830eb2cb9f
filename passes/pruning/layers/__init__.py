"""Residual branches and whole layers: where they are, which the outputs miss least, and a model without them."""
