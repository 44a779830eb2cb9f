"""Scales, zero points and rounding: the arithmetic, by property."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.calibration import MinMax
from irc.passes.quantization.activations import activation_scale
from irc.passes.quantization.weights import (
    LAZY_BYTES,
    channel_scales,
    quantized_bias,
    quantized_tensor,
    relative_error,
    rounded,
)
from irc.target import QuantizationStyle

finite = st.floats(-(2.0**100), 2.0**100, allow_nan=False, width=32)
ASYMMETRIC, SYMMETRIC = QuantizationStyle("uint8"), QuantizationStyle("int8")


@given(finite, finite)
def test_zero_is_exact_and_the_range_is_covered(a, b):
    low, high = min(a, b), max(a, b)
    found = activation_scale(MinMax(low, high, 1), ASYMMETRIC)
    scale, zero = float(found.scale), int(found.zero_point)
    assert scale > 0 and np.isfinite(scale) and 0 <= zero <= 255
    if high - min(low, 0) > 1e-25 and max(high, 0) - min(low, 0) > 1e-25:
        assert (255 - zero) * scale >= high - scale * 0.51
        assert -zero * scale <= low + scale * 0.51


@given(st.floats(0, 2.0**100, width=32))
def test_a_range_that_starts_at_zero_has_zero_point_zero_and_never_exceeds_it(high):
    found = activation_scale(MinMax(0.0, high, 1), ASYMMETRIC)
    assert found.zero_point == 0 and found.zero_point.dtype == np.uint8
    if high > 1e-25:
        assert float(found.scale) * 255 <= high


@pytest.mark.parametrize("high", [1.0, 4.0, 6.0, 5.9999995, 0.1])
def test_in_float32_too_since_the_runtime_compares_it_with_the_bound_of_a_clip(high):
    found = activation_scale(MinMax(0.0, float(np.float32(high)), 1), ASYMMETRIC)
    assert np.float32(found.scale * np.float32(255)) <= np.float32(high)


@given(finite, finite)
def test_symmetric_has_zero_point_zero(a, b):
    found = activation_scale(MinMax(min(a, b), max(a, b), 1), SYMMETRIC)
    assert found.zero_point == 0 and found.zero_point.dtype == np.int8 and found.scale > 0


@given(st.integers(0, 2), st.sampled_from([63, 127]), st.integers(0, 99))
def test_rounding_error_is_at_most_half_a_step(axis, limit, seed):
    weight = np.random.default_rng(seed).normal(size=(3, 4, 5)).astype(np.float32)
    scale = channel_scales(weight, axis=axis, limit=limit)
    quantized = rounded(weight, scale, axis=axis, limit=limit)
    shape = [1, 1, 1]
    shape[axis] = -1
    step = scale.reshape(shape)
    assert quantized.dtype == np.int8 and np.abs(quantized).max() == limit
    assert np.all(np.abs(weight - quantized * step) <= step * 0.501)


def test_channel_of_zeros():
    weight = np.zeros((4, 3), np.float32)
    weight[1] = 2
    scale = channel_scales(weight, axis=0)
    assert np.all(scale > 0) and np.all(rounded(weight, scale, axis=0)[[0, 2, 3]] == 0)


def test_large_weights_are_lazy_and_equal():
    weight = np.random.default_rng(0).normal(size=(LAZY_BYTES // 512 + 1, 512)).astype(np.float32)
    lazy, scale = quantized_tensor(ir.tensor(weight), axis=1)
    assert isinstance(lazy, ir.LazyTensor) and lazy.dtype == ir.DataType.INT8
    assert np.array_equal(lazy.numpy(), rounded(weight, scale, axis=1))


def test_bias_that_does_not_fit():
    assert quantized_bias(np.array([1e10], np.float32), np.array([1e-3], np.float32)) is None
    assert quantized_bias(np.array([1.0], np.float32), np.array([0.5], np.float32)) == np.int32(2)


@pytest.mark.parametrize("axis", [0, 1])
def test_relative_error_in_blocks_equals_the_plain_sum(axis):
    weight = np.random.default_rng(1).normal(size=(3000, 2000)).astype(np.float32)
    scale = channel_scales(weight, axis=axis)
    back = rounded(weight, scale, axis=axis) * (scale[:, None] if axis == 0 else scale)
    assert relative_error(weight, axis=axis) == pytest.approx(
        np.sum((weight - back) ** 2) / np.sum(weight**2), rel=1e-3
    )
