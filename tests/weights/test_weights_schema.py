"""The layout on the wire is the safetensors library's, to the byte."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize
from safetensors.torch import save

from braintorrent.weights import Role, Schema, TensorSpec, Weights, role_of_dtype
from braintorrent.weights.modules import TORCH_DTYPES
from braintorrent.weights.schema import DTYPES

NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__")
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
TENSORS = st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(DTYPES)), SHAPES), max_size=12)


def schema_of(tensors):
    return Schema.of(TensorSpec(n, d, s, role_of_dtype(d)) for n, (d, s) in tensors.items())


@settings(deadline=None)
@given(TENSORS, st.integers(0, 2**32))
def test_a_blob_is_what_the_safetensors_library_writes(tensors, seed):
    torch_dtypes = {name: dtype for dtype, name in TORCH_DTYPES.items()}
    schema = schema_of(tensors)
    weights = Weights(schema)
    weights.buffer[:] = np.random.default_rng(seed).integers(0, 2, schema.nbytes, np.uint8)
    state = {}
    for spec, values in weights:
        dtype = torch_dtypes[spec.dtype]
        empty = torch.empty(spec.shape, dtype=dtype)
        state[spec.name] = torch.frombuffer(values, dtype=dtype).reshape(spec.shape) if spec.nbytes else empty
    blob = b"".join(weights.parts)
    assert blob == save(state)
    assert len(blob) == schema.size
    assert {name for name, _ in deserialize(blob)} == set(tensors)


@given(TENSORS, st.randoms())
def test_the_schema_does_not_depend_on_the_order_of_its_tensors(tensors, random):
    shuffled = list(tensors.items())
    random.shuffle(shuffled)
    assert schema_of(tensors) == schema_of(dict(shuffled))


@given(TENSORS)
def test_runs_cover_the_data_once_in_order(tensors):
    schema = schema_of(tensors)
    position = 0
    for run in schema.runs:
        assert run.start == position
        assert run.stop > run.start
        assert run.start % DTYPES[run.dtype].itemsize == 0
        position = run.stop
    assert position == schema.nbytes


def test_what_differs_shows_in_the_digest():
    base = TensorSpec("w", "F32", (2, 3))
    digests = {Schema.of([s]).digest for s in (
        base, TensorSpec("v", "F32", (2, 3)), TensorSpec("w", "F64", (2, 3)), TensorSpec("w", "F32", (3, 2)),
    )}  # fmt: skip
    assert len(digests) == 4


def test_personal_tensors_are_not_in_the_schema():
    shared = TensorSpec("w", "F32", (2,))
    private = TensorSpec("age", "F32", (2,), Role.PERSONAL)
    assert Schema.of([shared, private]) == Schema.of([shared])
    assert b"age" not in Schema.of([shared, private]).header


@pytest.mark.parametrize(("name", "dtype", "role"), [
    ("w", "C64", Role.SHARED), ("w", "I64", Role.SHARED), ("w", "F32", Role.COUNTER),
    ("__metadata__", "F32", Role.SHARED),
])  # fmt: skip
def test_what_cannot_travel_is_refused(name, dtype, role):
    with pytest.raises(ValueError, match=name):
        TensorSpec(name, dtype, (1,), role)


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two tensors"):
        Schema.of([TensorSpec("w", "F32", (1,)), TensorSpec("w", "F32", (2,))])


def test_weights_refuse_memory_that_does_not_fit():
    schema = Schema.of([TensorSpec("w", "F32", (16,))])
    with pytest.raises(ValueError, match="64 contiguous bytes"):
        Weights(schema, np.zeros(60, np.uint8))
    with pytest.raises(ValueError, match="aligned"):
        Weights(schema, Weights(Schema.of([TensorSpec("w", "F32", (17,))])).buffer[4:])
    other = Weights(Schema.of([TensorSpec("v", "F32", (16,))]))
    with pytest.raises(ValueError, match="do not fit"):
        Weights(schema).copy_from(other)


def test_views_are_the_buffer():
    weights = Weights(Schema.of([TensorSpec("w", "F32", (2, 2)), TensorSpec("n", "I64", (), Role.COUNTER)]))
    weights.view("w")[:] = [[1, 2], [3, 4]]
    weights.view("n")[...] = 7
    assert weights.buffer.view(np.uint8)[8:].view(np.float32).tolist() == [1, 2, 3, 4]
    copy = weights.copy()
    assert copy.digest == weights.digest
    copy.view("n")[...] += 1
    assert weights.view("n") == 7
    assert copy.digest != weights.digest
    with pytest.raises(KeyError):
        weights.view("absent")


def test_the_header_is_plain_json():
    header = Schema.of([TensorSpec("w", "F32", (2,))]).header
    assert json.loads(header[8:]) == {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
