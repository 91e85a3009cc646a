"""Checkpoints: a help when whole, ignored with a reason when not."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from braintorrent.errors import StorageFull
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.storage import Checkpoint, load_checkpoint, save_checkpoint
from braintorrent.weights import Role, Schema, TensorSpec, Weights

SCHEMA = Schema.of([TensorSpec("w", "F32", (5, 3)), TensorSpec("n", "I64", (), Role.COUNTER)])
DTYPES = st.sampled_from(["<f4", "<f8", "<f2", "<i8", "<i4", "<u2", "u1", "?", "<u8"]).map(np.dtype)
ARRAYS = DTYPES.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


@pytest.fixture
def weights():
    weights = Weights(SCHEMA)
    weights.buffer[:] = np.arange(SCHEMA.nbytes)
    return weights


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    state=st.dictionaries(st.text(max_size=10), ARRAYS, max_size=5),
    base=st.builds(Version, st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1)),
    pending=st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=3),
)
def test_a_checkpoint_comes_back_as_it_was(path, weights, state, base, pending):
    save_checkpoint(path, Checkpoint(base, weights, state, pending))
    found, reason = load_checkpoint(path, SCHEMA)
    assert reason == ""
    assert (found.base, found.pending) == (base, pending)
    assert found.weights.digest == weights.digest
    assert found.state.keys() == state.keys()
    for name, array in state.items():
        assert found.state[name].dtype == array.dtype
        assert found.state[name].shape == array.shape
        assert found.state[name].tobytes() == array.tobytes()


def test_arrays_in_any_memory_order(path, weights):
    array = np.arange(12.0).reshape(3, 4).T
    save_checkpoint(path, Checkpoint(NOTHING, weights, {"turned": array}))
    assert (load_checkpoint(path, SCHEMA)[0].state["turned"] == array).all()


def test_no_checkpoint_is_no_trouble(path):
    assert load_checkpoint(path, SCHEMA) == (None, "")


def test_every_damaged_byte_is_noticed(path, weights):
    save_checkpoint(path, Checkpoint(Version(3, 4), weights, {"x": np.ones(3)}, {"merge": None}))
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        found, reason = load_checkpoint(path, SCHEMA)
        if found is not None:  # a byte of padding or of the JSON's spelling, of no consequence
            assert (found.base, found.weights.digest, found.pending) == (Version(3, 4), weights.digest, {"merge": None})
            assert (found.state["x"] == 1).all()
        else:
            assert reason


@pytest.mark.parametrize("content", [b"", b"short", bytes(100), b"\xff" * 1000])
def test_a_foreign_file_is_ignored_with_a_reason(path, content):
    path.write_bytes(content)
    found, reason = load_checkpoint(path, SCHEMA)
    assert found is None
    assert "not a checkpoint" in reason


def test_a_truncated_one_and_one_of_another_network_are_ignored(path, weights):
    save_checkpoint(path, Checkpoint(NOTHING, weights))
    assert load_checkpoint(path, Schema.of([TensorSpec("w", "F32", (5, 4))]))[1].endswith("of another network")
    path.write_bytes(path.read_bytes()[:-1])
    assert load_checkpoint(path, SCHEMA)[0] is None


def test_a_full_disk_keeps_the_checkpoint_before(small_disk, weights):
    path = small_disk / "checkpoint"
    save_checkpoint(path, Checkpoint(Version(3, 4), weights))
    with pytest.raises(StorageFull):
        save_checkpoint(path, Checkpoint(Version(3, 5), weights, {"moments": np.ones(10**6)}))
    assert load_checkpoint(path, SCHEMA)[0].base == Version(3, 4)
