"""Rewrites of the graph of a PyTorch module, before it is lowered to ONNX."""
