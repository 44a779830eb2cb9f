"""int8: calibrated static quantization, weight-only storage, dynamic quantization, and what they share."""
