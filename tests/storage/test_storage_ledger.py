"""The ledger: what is published stays published, and what was believed is believed again."""

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braintorrent.errors import FormatError, StorageFull
from braintorrent.protocol.entry import MAX_REFUSED
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.records import Identity
from braintorrent.storage import Ledger, Merged, Part, chain
from braintorrent.storage.chain import MAX_REFUSALS
from braintorrent.storage.database import Database

ME = Identity.create()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    with Ledger(path, identity=ME) as ledger:
        yield ledger


def merged_of(author, **changes):
    part = Part(Version(3, 4), author.announce(3, 4).content, 10, 0.25, 1.5)
    skipped = Part(Version(5, 6), "c" * 64, 7, reason="not-finite")
    return Merged(**{"unix": 12.5, "included": {author.id: part}, "skipped": {"someone": skipped}, **changes})


# ------------------------------------------------------------- lives and versions


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=5))
def test_incarnations_only_go_up_whatever_the_clock_says(ledger, starts):
    last = 0
    for unix_ms, heard in starts:
        incarnation = ledger.begin_incarnation(unix_ms, heard)
        assert incarnation > max(last, heard)
        assert incarnation >= unix_ms
        last = incarnation


def test_a_life_begins_above_own_versions_of_a_life_others_remembered(ledger, author):
    ledger.begin_incarnation(100)
    ledger.publish(author.announce(5000, 1))
    assert ledger.begin_incarnation(200) == 5001


def test_a_published_version_is_found_again_to_the_byte(path, author):
    with Ledger(path, identity=ME) as ledger:
        assert ledger.newest() is None
        for counter in (1, 2, 10):
            ledger.publish(author.announce(7, counter))
    with Ledger(path, identity=ME) as ledger:
        assert ledger.newest().raw == author.announce(7, 10).raw
        assert ledger.newest() == author.announce(7, 10)


def test_a_version_is_never_overwritten_and_never_goes_back(ledger, author):
    ledger.publish(author.announce(7, 2))
    ledger.publish(author.announce(7, 2))  # a restart may say it again
    for again in (author.announce(7, 2, "other"), author.announce(7, 1), author.announce(6, 9)):
        with pytest.raises(ValueError, match="not newer"):
            ledger.publish(again)
    assert ledger.newest() == author.announce(7, 2)


def test_the_merge_is_published_with_the_version_or_not_at_all(ledger, author, other):
    merged = merged_of(other, below_quorum=True)
    ledger.publish(author.announce(7, 1), merged)
    with pytest.raises(ValueError, match="not newer"):
        ledger.publish(author.announce(7, 1, "other"), merged)
    last = merged_of(other, last=True, unix=13.0)
    ledger.merge(last)
    assert ledger.merges() == [(Version(7, 1), merged), (None, last)]


def test_a_merge_survives_json(other):
    merged = merged_of(other, adopt=True)
    assert Merged.from_plain(json.loads(json.dumps(merged.to_plain()))) == merged
    with pytest.raises((TypeError, KeyError, ValueError)):
        Merged.from_plain({"unix": 1.0})


# ------------------------------------------------------------- others


def test_what_was_known_of_others_is_restored(path, author, other):
    with Ledger(path, identity=ME) as ledger:
        ledger.mark_held(other.announce(3, 4))
        ledger.mark_held(other.announce(3, 5))
        ledger.forget(other.announce(3, 4))
        ledger.refuse(other.id, Version(3, 6), "not-finite")
        ledger.publish(author.announce(7, 1), merged_of(other))
    with Ledger(path, identity=ME) as ledger:
        entries = ledger.entries(author.id)
    assert entries.keys() == {other.id}
    entry = entries[other.id]
    assert entry.held == other.announce(3, 5)
    assert entry.held.raw == other.announce(3, 5).raw
    assert entry.merged == Version(3, 4)
    assert entry.refused == {Version(3, 6): "not-finite"}
    assert entry.seen.keys() == {Version(3, 4), Version(3, 5)}
    assert not entry.quarantined


def test_who_has_much_refused_makes_the_chain_no_longer_than_agreed(ledger, author, other):
    for _ in range(2):
        ledger.begin_incarnation(1)
        for counter in range(1, MAX_REFUSALS + 5):
            ledger.refuse(other.id, Version(next_life(ledger), counter), "schema")
        ledger.refuse(author.id, Version(next_life(ledger), 1), "schema")
    entries = [entry.body["peer"] for entry in ledger.chain("refused")]
    assert (entries.count(other.id), entries.count(author.id)) == (2 * MAX_REFUSALS, 2)
    assert len(ledger.entries(ME.id)[other.id].refused) == MAX_REFUSED
    assert all(found.whole for found in ledger.proved(ME.id))


def next_life(ledger):
    """Another's life, a new one in each of mine."""
    return len(list(ledger.chain("life")))


def test_what_is_refused_is_not_held(ledger, author, other):
    ledger.mark_held(other.announce(3, 4))
    ledger.mark_held(other.announce(3, 5))
    ledger.refuse(other.id, Version(3, 5), "schema")
    assert ledger.entries(author.id)[other.id].held == other.announce(3, 4)


def test_equivocation_is_kept_as_proof_until_a_person_lifts_it(path, author, other):
    first, second = other.announce(3, 4), other.announce(3, 4, "another")
    with Ledger(path, identity=ME) as ledger:
        ledger.mark_held(first)
        ledger.equivocated(first, second)
    with Ledger(path, identity=ME) as ledger:
        entry = ledger.entries(author.id)[other.id]
        assert entry.quarantined == {3}
        assert entry.held is None
        ledger.lift(other.id, 3)
        entry = ledger.entries(author.id)[other.id]
        assert not entry.quarantined
        assert entry.held == first
    rows = sqlite3.connect(path).execute("SELECT first, second FROM equivocation").fetchall()
    assert rows == [(first.raw, second.raw)]


def test_the_second_content_of_a_version_does_not_replace_the_first(ledger, author, other):
    ledger.mark_held(other.announce(3, 4))
    ledger.forget(other.announce(3, 4))
    ledger.mark_held(other.announce(3, 4, "another"))
    entry = ledger.entries(author.id)[other.id]
    assert entry.held is None
    assert entry.seen[Version(3, 4)] == other.announce(3, 4)


# ------------------------------------------------------------- figures


def test_metrics_and_the_best_of_them(ledger):
    for counter, value in enumerate([0.5, 0.7, 0.6, float("nan"), 0.65], 1):
        ledger.measured(Version(7, counter), "own", {"dice": value, "loss": 1.0})
        ledger.measured(Version(7, counter), "merged", {"dice": 0.9})
    assert ledger.best("dice") == (0.7, 2)
    assert ledger.best("accuracy") == (None, 0)
    own = [m.value for m in ledger.metrics() if (m.stage, m.name) == ("own", "dice")]
    assert own == [0.5, 0.7, 0.6, None, 0.65]


def test_traffic_adds_up_over_lives(path):
    for _ in range(3):
        with Ledger(path, identity=ME) as ledger:
            ledger.count("peer", 10, 1)
            ledger.count("peer", 5, 0)
    with Ledger(path, read_only=True) as ledger:
        assert ledger.traffic() == {"peer": (45, 3)}


def test_any_thread_may_note_and_write(ledger, other):
    def work(thread):
        for i in range(20):
            ledger.count(f"peer{thread}", 1, 2)
            if i % 5 == 0:
                ledger.flush()

    threads = [threading.Thread(target=work, args=[i]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.traffic() == {f"peer{i}": (20, 40) for i in range(4)}


# ------------------------------------------------------------- wholeness


def problems(ledger):
    return [f"{found.what}: {found.said}" for found in ledger.proved() if not found.whole]


def test_a_whole_ledger_has_no_problems_and_a_spoilt_one_names_them(path, author, other):
    with Ledger(path, identity=ME) as ledger:
        ledger.publish(author.announce(7, 1))
        assert problems(ledger) == []
        forged = other.announce(3, 4)
        with ledger._database.transaction() as sql:
            sql.execute("UPDATE announcement SET raw = ?", (forged.raw,))
        assert "filed under another name" in problems(ledger)[0]
        with ledger._database.transaction() as sql:
            sql.execute("UPDATE announcement SET raw = ?", (forged.raw[:-1] + b"x",))
        assert "signature" in problems(ledger)[0]


def test_only_the_newest_own_blobs_are_needed(ledger, author):
    for counter in (1, 2):
        ledger.publish(author.announce(7, counter))
    newest = author.announce(7, 2)
    assert ledger.needed() == {newest.content, newest.record}


def test_a_transaction_that_fails_leaves_nothing_and_forgets_no_note(path):
    database = Database(path, lambda sql: None)
    database.note("INSERT INTO life VALUES (?, 0)", 1)

    class Trouble(Exception):
        pass

    def fail():
        with database.transaction() as sql:
            sql.execute("INSERT INTO life VALUES (2, 0)")
            raise Trouble

    with pytest.raises(Trouble):
        fail()
    assert database.rows("SELECT incarnation FROM life") == [(1,)]
    database.close()
    database.close()


def fill(file):
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as out:
        while out.write(bytes(4096)):
            pass


def test_a_full_disk_is_told_and_what_was_noted_is_written_when_there_is_room(small_disk, author):
    def publish_from(first):
        for counter in range(first, 1000):  # the log may have a little room left
            ledger.publish(author.announce(7, counter))

    with Ledger(small_disk / "ledger.sqlite", identity=ME) as ledger:
        ledger.publish(author.announce(7, 1))
        ledger.count("peer", 1, 1)
        fill(small_disk / "filler")
        with pytest.raises(StorageFull, match="make room"):
            publish_from(2)
        ledger.count("peer", 1, 1)
        reached = ledger.newest().version.counter  # reading goes on
        (small_disk / "filler").unlink()
        ledger.publish(author.announce(7, reached + 1))
        assert ledger.newest().version == Version(7, reached + 1)
        assert ledger.traffic() == {"peer": (2, 2)}
        assert problems(ledger) == []


def test_a_damaged_file_and_another_release_s_are_told(path):
    path.write_bytes(b"not a database, whatever its name says" * 100)
    with pytest.raises(FormatError, match="damaged"):
        Ledger(path, identity=ME)
    path.unlink()
    Ledger(path, identity=ME).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FormatError, match="format 99"):
        Ledger(path, identity=ME)


def test_reading_beside_a_running_node(path, author):
    with Ledger(path, identity=ME) as ledger:
        ledger.publish(author.announce(7, 1))
        with Ledger(path, read_only=True) as reader:
            assert reader.newest() == author.announce(7, 1)
            with pytest.raises(sqlite3.OperationalError):
                reader.begin_incarnation(1)


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import Version
from braintorrent.records import Identity, digest, sign_announcement
from braintorrent.storage import Ledger
folder = Path(sys.argv[1])
identity = Identity.load(folder / "key")
with Ledger(folder / "ledger.sqlite", identity=identity) as ledger:
    incarnation = ledger.begin_incarnation(0)
    newest = ledger.newest()
    counter = newest.version.counter if newest else 0
    while True:
        counter += 1
        content = digest(f"{incarnation}.{counter}".encode())
        announcement = sign_announcement(identity, Announcement(
            "test-federation", identity.id, Version(incarnation, counter), content, 10, 5, 1.0, content, content, 1,
            False,
        ))
        ledger.publish(announcement)
        print(incarnation, counter, announcement.raw.hex(), flush=True)
"""


def test_kill_9_loses_no_version_that_was_told(tmp_path, author):
    author.identity.save(tmp_path / "key")
    told = {}
    for life in range(4):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        lines = [process.stdout.readline() for _ in range(3)]
        threading.Timer(0.013 * life, process.send_signal, [signal.SIGKILL]).start()
        lines += process.stdout
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        previous = max(told, default=NOTHING)
        for line in lines:
            if line.endswith("\n"):
                incarnation, counter, raw = line.split()
                version = Version(int(incarnation), int(counter))
                assert version not in told
                assert version > previous
                previous, told[version] = version, raw
        with Ledger(tmp_path / "ledger.sqlite", identity=ME) as ledger:
            assert problems(ledger) == []
            assert ledger.newest().version >= previous
            rows = dict(ledger._database.rows("SELECT hex(raw), counter FROM announcement"))
        assert {raw.upper() for raw in told.values()} <= rows.keys()
    assert len({version.incarnation for version in told}) == 4


def test_refusals_of_one_author_are_bounded_and_the_newest_stay(tmp_path):
    with Ledger(tmp_path / "ledger", identity=ME) as ledger:
        for counter in range(1, 201):
            ledger.refuse("a" * 52, Version(1, counter), "schema")
        refused = ledger.entries("me")["a" * 52].refused
    assert len(refused) <= 64
    assert Version(1, 200) in refused
    assert Version(1, 1) not in refused


def test_proving_takes_the_memory_of_a_page_however_long_the_chain(tmp_path):
    me, size = Identity.create(), 4096
    with Ledger(tmp_path / "ledger.sqlite", identity=me) as ledger:
        with ledger._database.transaction() as sql:
            for n in range(3000):
                chain.append(sql, me, "roster", {"n": n, "more": "x" * size})
        tracemalloc.start()
        try:
            assert all(finding.whole for finding in ledger.proved(me.id))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 3000 * size / 3
