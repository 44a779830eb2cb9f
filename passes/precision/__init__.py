"""Narrower floating point: weights and operators in float16 or bfloat16, guarded by ranges."""
