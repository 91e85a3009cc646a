"""Blobs: verified as they arrive, durable before they have a name, within a bound."""

import contextlib
import errno
import itertools
import os
import signal
import subprocess
import sys
import threading

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braintorrent.errors import BadMessage, StorageBusy, StorageFull
from braintorrent.records import Artifact
from braintorrent.records.content import CHUNK_BYTES, digest
from braintorrent.storage import BlobStore, blobs, incoming, write_atomically
from braintorrent.storage.incoming import FLUSH_BYTES

MIB = 1 << 20
DATA = os.urandom(3 * CHUNK_BYTES + 1000)


def describe(data, **changes):
    pieces = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    artifact = Artifact(
        kind="weights", codec="safetensors", size=len(data), digest=digest(data),
        chunks=tuple(blake3(p).hexdigest() for p in pieces),
    )  # fmt: skip
    return artifact.model_copy(update=changes)


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs", 100 * MIB)


def content(store, digest):
    descriptor, size = store.open(digest)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read()
    assert len(data) == size
    return data


def again(store):
    """The store as the next process finds it."""
    return BlobStore(store.path, store.limit_bytes)


def receive(store, data, artifact=None, step=CHUNK_BYTES // 3):
    incoming = store.receive(artifact or describe(data))
    for start in range(incoming.offset, len(data), step):
        incoming.write(memoryview(data)[start : start + step])
    incoming.commit()


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=5), size=st.integers(1, len(DATA)))
def test_put_describes_what_it_stores_however_it_comes(store, cuts, size):
    edges = [0, *sorted(min(c, size) for c in cuts), size]
    parts = [memoryview(DATA)[a:b] for a, b in itertools.pairwise(edges)]
    assert store.put(parts) == describe(DATA[:size])
    assert content(again(store), describe(DATA[:size]).digest) == DATA[:size]


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(50_000, 2 * CHUNK_BYTES), size=st.integers(1, len(DATA)))
def test_what_arrives_is_what_was_sent_whatever_the_pieces(store, step, size):
    receive(store, DATA[:size], step=step)
    assert content(store, describe(DATA[:size]).digest) == DATA[:size]
    assert store.verify(describe(DATA[:size]).digest)


def test_put_is_idempotent(store):
    first = store.put([DATA])
    assert store.put([DATA]) == first
    assert store.size() == len(DATA)
    assert [f.name for f in store.path.iterdir()] == [first.digest]


def test_small_blobs_are_read_whole_within_a_cap(store):
    digest = store.put_bytes(b"record")
    assert store.put_bytes(b"record") == digest
    assert store.read(digest, 6) == b"record"
    with pytest.raises(ValueError, match="more than 5"):
        store.read(digest, 5)
    with pytest.raises(KeyError):
        store.read(blake3(b"other").hexdigest(), 6)


def test_bytes_that_rotted_on_disk_are_noticed(store):
    digest = store.put_bytes(b"record")
    (store.path / digest).write_bytes(b"recors")
    assert not store.verify(digest)
    with pytest.raises(KeyError):
        store.read(digest, 6)
    assert not store.has(digest)


def test_a_blob_taken_away_by_hand_is_a_key_error(store):
    digest = store.put_bytes(b"record")
    (store.path / digest).unlink()
    with pytest.raises(KeyError):
        store.open(digest)
    assert not store.verify(digest)


def test_a_removed_blob_keeps_serving_whoever_has_it_open(store):
    digest = store.put_bytes(b"record")
    descriptor, size = store.open(digest)
    store.remove(digest)
    assert os.pread(descriptor, size, 0) == b"record"
    os.close(descriptor)
    assert not store.has(digest)
    assert store.size() == 0


# ------------------------------------------------------------- downloads


def test_a_damaged_chunk_is_refused_at_once_and_what_was_right_is_kept(store):
    incoming = store.receive(describe(DATA))
    incoming.write(memoryview(DATA)[: CHUNK_BYTES + 10])
    with pytest.raises(BadMessage, match="chunk 1") as caught:
        incoming.write(memoryview(bytes(CHUNK_BYTES)))
    assert caught.value.reason == "bad-bytes"
    assert incoming.offset == CHUNK_BYTES
    incoming.write(memoryview(DATA)[incoming.offset :])
    incoming.commit()
    assert content(store, describe(DATA).digest) == DATA


def test_another_source_does_not_answer_for_the_bytes_of_the_first(store):
    incoming = store.receive(describe(DATA))
    incoming.write(memoryview(DATA)[:CHUNK_BYTES])
    incoming.write(memoryview(bytes(500)))  # wrong, but its chunk never completes: the connection breaks
    assert incoming.rewind() == CHUNK_BYTES
    incoming.write(memoryview(DATA)[CHUNK_BYTES:])
    incoming.commit()
    assert content(store, describe(DATA).digest) == DATA


@pytest.mark.parametrize("kept", [0, 10, CHUNK_BYTES, CHUNK_BYTES + 10, 3 * CHUNK_BYTES, len(DATA)])
def test_an_interrupted_download_continues_in_the_next_process(store, kept):
    incoming = store.receive(describe(DATA))
    incoming.write(memoryview(DATA)[:kept])
    incoming.abort()
    incoming.abort()
    verified = kept if kept == len(DATA) else kept // CHUNK_BYTES * CHUNK_BYTES
    later = again(store)
    assert later.size() == verified
    assert later.receive(describe(DATA)).offset == verified
    receive(again(store), DATA)
    assert content(again(store), describe(DATA).digest) == DATA


def test_a_partial_file_damaged_meanwhile_is_used_as_far_as_it_is_right(store):
    incoming = store.receive(describe(DATA))
    incoming.write(memoryview(DATA)[: 3 * CHUNK_BYTES])
    incoming.abort()
    partial = next(store.path.iterdir())
    with partial.open("r+b") as file:
        file.seek(2 * CHUNK_BYTES + 5)
        file.write(b"rot")
    later = again(store)
    incoming = later.receive(describe(DATA))
    assert incoming.offset == 2 * CHUNK_BYTES
    incoming.write(memoryview(DATA)[2 * CHUNK_BYTES :])
    incoming.commit()
    assert later.verify(describe(DATA).digest)


def test_a_download_can_be_dropped(store):
    incoming = store.receive(describe(DATA))
    incoming.write(memoryview(DATA)[: 2 * CHUNK_BYTES])
    incoming.abort(keep=False)
    assert list(store.path.iterdir()) == []
    assert store.size() == 0
    with pytest.raises(ValueError, match="ended"):
        incoming.write(memoryview(DATA))


def test_too_many_bytes_and_too_few_are_refused(store):
    incoming = store.receive(describe(DATA))
    with pytest.raises(BadMessage) as caught:
        incoming.write(memoryview(DATA + b"x"))
    assert caught.value.reason == "too-large"
    incoming.write(memoryview(DATA)[:CHUNK_BYTES])
    with pytest.raises(BadMessage) as caught:
        incoming.commit()
    assert caught.value.reason == "too-short"


def test_the_same_content_may_come_from_two_sides_at_once(store):
    first, second = store.receive(describe(DATA)), store.receive(describe(DATA))
    for download in (first, second):
        download.write(memoryview(DATA)[: 2 * CHUNK_BYTES])
    second.write(memoryview(DATA)[2 * CHUNK_BYTES :])
    second.commit()
    first.abort()
    assert content(store, describe(DATA).digest) == DATA


# ------------------------------------------------------------- the bound


def test_what_is_superseded_goes_first_and_oldest_first(tmp_path):
    store = BlobStore(tmp_path, 3 * MIB)
    blobs = [store.put([bytes([i]) * MIB]).digest for i in range(3)]
    store.supersede(blobs[1])
    store.supersede(blobs[0])
    assert all(store.has(b) for b in blobs)  # until the room is needed
    store.put([b"x" * MIB])
    assert [store.has(b) for b in blobs] == [True, False, True]
    receive(store, b"y" * MIB)
    assert [store.has(b) for b in blobs] == [False, False, True]
    with pytest.raises(StorageFull, match="bound"):
        store.put([b"z" * MIB])
    with pytest.raises(StorageFull, match="bound"):
        store.receive(describe(b"z" * MIB))
    store.supersede(blobs[2])
    receive(store, b"z" * MIB)
    assert store.size() == 3 * MIB


def test_a_download_reserves_its_room_and_an_idle_one_gives_way(tmp_path):
    store = BlobStore(tmp_path, 4 * MIB)
    running = store.receive(describe(DATA[: 3 * MIB]))
    running.write(memoryview(DATA)[:MIB])
    with pytest.raises(StorageFull):
        store.put([bytes(2 * MIB)])
    running.abort()
    assert store.size() == MIB
    store.put([bytes(4 * MIB)])
    assert store.size() == 4 * MIB


@pytest.mark.parametrize("again", [
    lambda store, data: store.put([data]), lambda store, data: store.put_bytes(data), receive,
    lambda store, data: store.keep(describe(data).digest),
])  # fmt: skip
def test_what_is_wanted_again_is_no_longer_superseded(tmp_path, again):
    store = BlobStore(tmp_path, 3 * MIB)
    kept = store.put([bytes(MIB)]).digest
    store.supersede(kept)
    again(store, bytes(MIB))
    for filling in (b"x", b"y"):
        store.put([filling * MIB])
    with pytest.raises(StorageFull):
        store.put([b"z" * MIB])
    assert store.has(kept)


def test_more_than_the_bound_is_refused_without_giving_anything_up(tmp_path):
    store = BlobStore(tmp_path, 2 * MIB)
    kept = store.put([bytes(MIB)]).digest
    store.supersede(kept)
    with pytest.raises(StorageFull, match="disk_gib"):
        store.receive(describe(DATA))
    assert store.has(kept)


def test_a_full_disk_is_told_and_all_resumes_when_there_is_room(small_disk):
    store = BlobStore(small_disk / "blobs", 1 << 40)
    old = store.put([os.urandom(2 * MIB)]).digest
    with pytest.raises(StorageFull, match="make room"):
        store.put([DATA])
    incoming = store.receive(describe(DATA))
    with pytest.raises(StorageFull):
        incoming.write(memoryview(DATA))
    assert incoming.offset > 0
    assert store.verify(old)  # serving goes on
    store.supersede(old)  # room that may be taken is taken
    incoming.write(memoryview(DATA)[incoming.offset :])
    incoming.commit()
    assert store.verify(describe(DATA).digest)
    assert not store.has(old)


def test_other_files_find_room_where_something_may_be_given_up(small_disk, monkeypatch):
    monkeypatch.setattr(blobs, "RESERVE", 0)
    store = BlobStore(small_disk / "blobs", 1 << 40)
    kept, record, old = (store.put([os.urandom(size)]).digest for size in (MIB, 1000, MIB + MIB // 2))

    def write():
        write_atomically(small_disk / "other", bytes(2 * MIB))

    with pytest.raises(StorageFull):
        store.with_room(write)
    store.supersede(old)
    store.archive(record)
    with pytest.raises(StorageBusy):
        store.with_room(busy)
    assert store.has(old), "to give it up would not help"
    store.with_room(write)
    assert (small_disk / "other").stat().st_size == 2 * MIB
    assert store.digests() == {kept, record}


@pytest.mark.parametrize("look", [lambda store, name: store.verify(name), lambda store, name: store.open(name)])
def test_what_somebody_deleted_is_gone_from_what_may_go_too(tmp_path, look):
    store = BlobStore(tmp_path, 3 * MIB)
    old, record, newer = (store.put([bytes([number]) * MIB]).digest for number in range(3))
    store.supersede(old)
    store.limit_bytes *= 100  # records may take a part of it
    store.archive(record)
    store.limit_bytes //= 100
    for name in (old, record):
        (tmp_path / name).unlink()
        with contextlib.suppress(KeyError):
            assert not look(store, name)
    store.put([b"x" * 2 * MIB])
    store.archive(newer)
    assert not store.has(newer), "more than records may take"


def busy():
    raise StorageBusy("held")


def test_a_write_that_finds_no_room_all_the_same_is_begun_anew_only_once_for_each_as_much_that_went(store):
    for number in range(60):
        store.supersede(store.put([number.to_bytes(2) + bytes(1000)]).digest)
    record = store.put([b"record"]).digest
    store.archive(record)
    tried = []

    def fails():
        tried.append(store.size())
        raise StorageFull("no room")

    with pytest.raises(StorageFull):
        store.with_room(fails, 20_000)
    assert tried == [60 * 1002 + 6, 40 * 1002 + 6, 20 * 1002 + 6, 6]
    with pytest.raises(StorageFull):
        store.with_room(fails, records=True)
    assert store.size() == 0


def test_on_a_nearly_full_disk_nothing_superseded_is_kept_but_records_are(small_disk):
    store = BlobStore(small_disk / "blobs", 1 << 40)
    old, record = store.put([bytes(MIB)]).digest, store.put([b"record"]).digest
    unfinished = store.receive(describe(DATA[: MIB + 1]))
    unfinished.write(memoryview(DATA)[:MIB])
    unfinished.abort()
    store.supersede(old)
    store.archive(record)
    assert store.has(old)
    store.put([b"x"])  # of which there would be room
    assert (store.has(old), store.has(record)) == (False, True)
    assert store.receive(describe(DATA[: MIB + 1])).offset > 0


def test_the_disk_is_at_work_while_a_large_blob_arrives(store, monkeypatch):
    flushed = []

    def flush(descriptor):
        flushed.append(os.fstat(descriptor).st_size)
        os.fsync(descriptor)

    monkeypatch.setattr(incoming, "_fdatasync", flush)
    receive(store, DATA[: 2 * MIB])
    assert flushed == []
    large = os.urandom(2 * FLUSH_BYTES)
    receive(store, large)
    assert FLUSH_BYTES <= flushed[0] <= 2 * FLUSH_BYTES
    assert store.verify(digest(large))


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, StorageFull), (errno.EIO, OSError)])
def test_what_a_flush_lost_is_fetched_again(store, monkeypatch, code, error):
    """A later flush says nothing of it, and what the cache still has may never come to the disk."""
    large = os.urandom(2 * FLUSH_BYTES)

    def fail(descriptor):
        raise OSError(code, "x")

    def arrive(download):
        for start in range(0, len(large), MIB):
            download.write(memoryview(large)[start : start + MIB])
        download.commit()

    with monkeypatch.context() as patch:
        patch.setattr(incoming, "_fdatasync", fail)
        download = store.receive(describe(large))
        with pytest.raises(error):
            arrive(download)
        assert download.offset == 0
        download.abort()
    assert not store.has(digest(large))
    receive(store, large)
    assert store.verify(digest(large))


def test_what_the_flush_of_all_lost_is_fetched_again(store, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "x")

    download = store.receive(describe(DATA))
    download.write(memoryview(DATA))
    with monkeypatch.context() as patch:
        patch.setattr(incoming, "sync", fail)
        with pytest.raises(OSError, match="x"):
            download.commit()
    assert (store.size(), list(store.path.iterdir())) == (0, []), "nobody has to end it"
    download.abort()
    assert store.receive(describe(DATA)).offset == 0
    assert not store.has(digest(DATA))


def test_a_blob_whose_name_may_not_be_durable_is_none(store, monkeypatch):
    def fail(folder):
        raise OSError(errno.ENOSPC, "x")

    download = store.receive(describe(DATA))
    download.write(memoryview(DATA))
    with monkeypatch.context() as patch:
        patch.setattr(blobs, "sync_folder", fail)
        with pytest.raises(StorageFull):
            download.commit()
    assert (store.size(), store.has(digest(DATA)), list(store.path.iterdir())) == (0, False, [])
    receive(store, DATA)
    assert store.verify(digest(DATA))
    assert len(list(store.path.iterdir())) == 1


def test_what_a_flush_lost_meanwhile_is_not_kept(store, monkeypatch):
    monkeypatch.setattr(incoming, "_fdatasync", lambda descriptor: os.fsync(1 << 20))  # of no file
    large = os.urandom(2 * FLUSH_BYTES)
    download = store.receive(describe(large))
    download.write(memoryview(large)[:FLUSH_BYTES])
    download.abort()
    assert store.receive(describe(large)).offset == 0


def test_leftovers_of_a_crash_are_cleaned_away(store):
    store.put_bytes(b"record")
    (store.path / ".abc.tmp").write_bytes(b"x")
    (store.path / "stray").write_bytes(b"x")
    assert [f.name for f in again(store).path.iterdir()] == [blake3(b"record").hexdigest()]


KILLED = """
import sys
from pathlib import Path
from braintorrent.storage import BlobStore
store = BlobStore(Path(sys.argv[1]), 1 << 30)
for i in range(10**6):
    print(store.put([i.to_bytes(4, "little") * 300_000]).digest, flush=True)
"""


def test_kill_9_loses_no_blob_whose_digest_was_told(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    told = [process.stdout.readline().strip() for _ in range(8)]
    threading.Timer(0.05, process.send_signal, [signal.SIGKILL]).start()
    told += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    store = BlobStore(tmp_path, 1 << 30)
    assert all(store.verify(digest) for digest in {*told, *store.digests()})
    assert {f.name for f in tmp_path.iterdir()} == store.digests()


def test_a_linked_blob_outlives_the_store_and_is_not_written_twice(tmp_path):
    store = BlobStore(tmp_path / "blobs", 1 << 20)
    first, second = (store.put([text]).digest for text in (b"first", b"second"))
    name = tmp_path / "latest"
    for held in (first, first, second):  # the same again leaves nothing behind
        store.link(held, name)
        assert name.samefile(store.path / held)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blobs", "latest"]
    store.remove(second)
    assert name.read_bytes() == b"second"
    with pytest.raises(KeyError):
        store.link(second, name)
    assert name.read_bytes() == b"second"


def test_a_link_onto_another_file_system_is_a_copy_and_a_full_one_keeps_the_old(tmp_path, small_disk):
    store, name = BlobStore(tmp_path / "blobs", 1 << 23), small_disk / "latest"
    small, large = (store.put([bytes(size)]).digest for size in (1000, 5 << 20))
    store.link(small, name)
    assert name.read_bytes() == bytes(1000)
    assert name.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StorageFull, match="make room"):
        store.link(large, name)
    assert [path.name for path in small_disk.iterdir()] == ["latest"]
    assert name.read_bytes() == bytes(1000)
