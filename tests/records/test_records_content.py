"""The digest of a blob: one rule for bytes in memory, in parts, on disk, and as a record lists them."""

import itertools
import os

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from braintorrent.errors import BadMessage
from braintorrent.records import Artifact, Record, decode_record, digest, encode_record
from braintorrent.records.content import CHUNK_BYTES, chunk_digests, content_digest
from braintorrent.storage import file_digest

DATA = os.urandom(2 * CHUNK_BYTES + 1000)
SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, len(DATA)]


def test_a_blob_of_one_piece_is_called_by_its_blake3():
    for size in SIZES[:4]:
        assert digest(DATA[:size]) == blake3(DATA[:size]).hexdigest()
    assert digest(DATA) != blake3(DATA).hexdigest()


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_called_as_its_bytes_are(tmp_path, size):
    path = tmp_path / "blob"
    path.write_bytes(DATA[:size])
    assert file_digest(path) == digest(DATA[:size])


@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=4))
def test_parts_make_no_difference(cuts):
    edges = [0, *sorted(cuts), len(DATA)]
    parts = [memoryview(DATA)[a:b] for a, b in itertools.pairwise(edges)]
    assert content_digest(chunk_digests(parts)) == digest(DATA)


def test_a_list_of_digests_does_not_pass_for_the_blob_it_lists():
    listed = bytes.fromhex("".join(chunk_digests([DATA])))
    assert digest(listed) != digest(DATA)


def test_a_record_whose_chunks_do_not_make_up_its_digest_is_none():
    chunks = tuple(chunk_digests([DATA]))
    artifact = Artifact(kind="weights", codec="safetensors", size=len(DATA), digest=digest(DATA), chunks=chunks)
    record = Record(parents=(), artifacts=(artifact,), metrics=())
    assert decode_record(encode_record(record)) == record
    for wrong in ({"digest": digest(b"other")}, {"chunks": chunks[::-1]}):
        other = record.model_copy(update={"artifacts": (artifact.model_copy(update=wrong),)})
        with pytest.raises(BadMessage, match="do not make up"):
            decode_record(encode_record(other))
