"""What a format holds and what is lost: laws of rounding, and the reasons for constants that stay float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.passes.precision.number_format import BFLOAT16, FLOAT16, FORMATS, LAZY_BYTES

BITS = {"float16": 11, "bfloat16": 8}
formats = st.sampled_from(list(FORMATS.values()))
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(formats, st.lists(numbers, min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_rounding_is_to_nearest_and_idempotent(number, values):
    array = np.array(values, np.float32)
    narrow = number.rounded(array)
    assert narrow.dtype == number.dtype.numpy()
    wide = narrow.astype(np.float64)
    np.testing.assert_array_equal(number.rounded(narrow.astype(np.float32)), narrow)
    normal = np.isfinite(wide) & (np.abs(array) >= number.smallest_normal)
    error = np.abs(wide - array.astype(np.float64))
    assert (error[normal] <= 2.0 ** -BITS[number.name] * np.abs(array[normal].astype(np.float64))).all()
    assert (np.abs(array[np.isinf(wide)]) > number.largest).all()


@given(formats, st.lists(st.floats(2.0**-10, 2.0**13, width=32), min_size=1, max_size=50))
@settings(max_examples=100, deadline=None)
def test_constants_of_ordinary_size_are_stored(number, values):
    assert number.why_not(np.array(values, np.float32)) is None


@given(formats, st.lists(numbers, min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_masks_are_finite_and_leave_the_rest_alone(number, values):
    array = np.array([*values, -np.inf, np.float32(-3.4028235e38)], np.float32)
    masked = number.masked(array)
    narrow = number.rounded(masked).astype(np.float32)
    low = np.isfinite(array) & (array < -number.largest)
    np.testing.assert_array_equal(masked[~low], array[~low])
    assert np.isfinite(narrow[low]).all() and (3 * narrow[low] > -number.largest).all()
    assert np.isneginf(narrow[-2])


@pytest.mark.parametrize(
    ("number", "constant", "reason"),
    [
        (FLOAT16, [1e5], "reaches 1e+05; float16 holds 65504"),
        (FLOAT16, [-7e4, 1], "reaches 7e+04"),
        (FLOAT16, [65519.9], None),
        (FLOAT16, [np.inf, -np.inf, np.nan, 1], None),
        (FLOAT16, [1e-12], "loses 1 of itself"),
        (FLOAT16, [1e-6], None),
        (FLOAT16, [1e-7, 2e-7, 3e-7], "loses"),
        (FLOAT16, [1e-12, 1.0], None),
        (FLOAT16, [0.0, 0.0], None),
        (FLOAT16, [], None),
        (BFLOAT16, [1e-12], None),
        (BFLOAT16, [-3.4028235e38], "bfloat16 holds 3.3895e+38"),
    ],
)
def test_constants_that_do_not_fit_are_told_with_the_figure(number, constant, reason):
    found = number.why_not(np.array(constant, np.float32))
    assert (found is None) == (reason is None) and (reason is None or reason in found)


@pytest.mark.parametrize("number", FORMATS.values())
@pytest.mark.parametrize("size", [4, LAZY_BYTES // 4 + 1])
def test_large_tensors_are_converted_late_to_the_same_numbers(number, size):
    array = np.random.default_rng(0).normal(size=size).astype(np.float32)
    array[0] = -3.4028235e38
    tensor = number.converted(ir.tensor(array), masking=True)
    assert isinstance(tensor, ir.LazyTensor) == (size > 4)
    assert tensor.dtype == number.dtype and tuple(tensor.shape) == (size,)
    assert float(tensor.numpy()[0]) == number.mask
    np.testing.assert_array_equal(tensor.numpy()[1:], number.rounded(array[1:]))
    assert len(tensor.tobytes()) == 2 * size
