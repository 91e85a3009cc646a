"""Means over blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from braintorrent.weights import narrow, weighted_mean, widen

FLOATS = st.sampled_from([np.float32, np.float64])


def finite(dtype):
    return st.floats(width=dtype().itemsize * 8, min_value=-(2.0**100), max_value=2.0**100)


@settings(deadline=None)
@given(st.data(), FLOATS, st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_equal_blocks_give_that_block_to_the_bit(data, dtype, samples):
    block = data.draw(hnp.arrays(dtype, st.integers(0, 40), elements=finite(dtype)))
    weights = [s / sum(samples) for s in samples]
    out = np.empty_like(block)
    weighted_mean([block.copy() for _ in weights], weights, out)
    assert out.tobytes() == block.tobytes()


@settings(deadline=None)
@given(st.data(), st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_the_mean_is_the_mean(data, samples):
    shape = (len(samples), 17)
    blocks = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32)))
    weights = [s / sum(samples) for s in samples]
    out = np.empty(17, np.float32)
    weighted_mean(list(blocks), weights, out)
    expected = np.average(blocks.astype(np.float64), axis=0, weights=samples)
    np.testing.assert_allclose(out, expected, atol=2e-3, rtol=1e-5)


def test_negative_zero_survives():
    block = np.array([-0.0, 0.0], np.float32)
    out = np.ones(2, np.float32)
    weighted_mean([block, block.copy(), block.copy()], [0.2, 0.3, 0.5], out)
    assert out.tobytes() == block.tobytes()


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing"):
        weighted_mean([], [], np.empty(3))


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("BF16", torch.bfloat16), ("F16", torch.float16)])
def test_every_half_value_widens_as_torch_does_and_narrows_back(dtype, torch_dtype):
    bits = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    values = torch.from_numpy(bits.copy()).view(torch_dtype)
    keep = torch.isfinite(values).numpy()
    half = bits if dtype == "BF16" else bits.view(np.float16)
    wide = np.empty(bits.size, np.float32)
    widen(dtype, half, wide)
    assert wide[keep].tobytes() == values.float().numpy()[keep].tobytes()
    back = np.empty_like(half[keep])
    narrow(dtype, wide[keep], back)
    assert back.tobytes() == half[keep].tobytes()


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("BF16", torch.bfloat16), ("F16", torch.float16)])
@given(hnp.arrays(np.float32, 64, elements=st.floats(-6e4, 6e4, width=32)))
@settings(deadline=None)
def test_narrowing_rounds_as_torch_does(dtype, torch_dtype, values):
    out = np.empty(values.shape, np.uint16 if dtype == "BF16" else np.float16)
    narrow(dtype, values, out)
    expected = torch.from_numpy(values).to(torch_dtype).view(torch.uint16).numpy()
    assert out.view(np.uint16).tobytes() == expected.tobytes()
