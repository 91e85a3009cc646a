"""SQLite's log: any byte that changed in it is found; a kill, at any byte, is no damage."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from braintorrent.errors import Broken
from braintorrent.records import Identity
from braintorrent.storage import Ledger, wal
from braintorrent.storage.wal import FRAME_BYTES, HEADER_BYTES, check_log, log_of

PAGE = 4096
FLIPS = 60


def write(path: Path, lives: int) -> None:
    """A log of a round after the first, as a kill leaves it; shorter than what the round before left behind it."""
    ledger = Ledger(path, identity=Identity.create())
    for life in range(lives):
        ledger.begin_incarnation(1000 + life)
    shutil.copyfile(path, path.with_name("killed.sqlite"))
    shutil.copyfile(log_of(path), log_of(path.with_name("killed.sqlite")))
    ledger.close()


@pytest.fixture
def killed(tmp_path):
    write(tmp_path / "ledger.sqlite", 6)
    return tmp_path / "killed.sqlite"


def test_any_byte_of_the_log_that_changed_is_found(killed, monkeypatch):
    monkeypatch.setattr(wal, "LOOK_AGAIN", 0.0)
    log, rng = log_of(killed), random.Random(0)
    data = log.read_bytes()
    assert "each with its checksum" in check_log(killed)
    last = len(data) - PAGE - FRAME_BYTES
    places = [*range(HEADER_BYTES), *range(last + 8, last + FRAME_BYTES), len(data) - 1]
    for at in [*places, *(rng.randrange(len(data)) for _ in range(FLIPS))]:
        spoilt = bytearray(data)
        spoilt[at] ^= rng.randrange(1, 256)
        log.write_bytes(spoilt)
        with pytest.raises(Broken, match="damaged after it was written"):
            check_log(killed)


def test_a_log_cut_at_any_byte_is_whole(killed):
    log, rng = log_of(killed), random.Random(1)
    data = log.read_bytes()
    for size in [0, 20, HEADER_BYTES, *(rng.randrange(len(data)) for _ in range(FLIPS))]:
        log.write_bytes(data[:size])
        check_log(killed)


def test_what_a_killed_transaction_left_behind_a_shorter_one_is_no_damage(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, identity=Identity.create()) as ledger:
        ledger.begin_incarnation(1)
    sql = sqlite3.connect(path, isolation_level=None)
    sql.execute("PRAGMA wal_autocheckpoint = 0")
    for size in (1, 20 * PAGE):
        sql.execute("INSERT INTO notice VALUES (?, zeroblob(?), 'own', 0)", (str(size), size))
    log = log_of(path)
    whole = log.read_bytes()
    frames = (len(whole) - HEADER_BYTES) // (FRAME_BYTES + PAGE)
    cut = whole[: -(PAGE + FRAME_BYTES) * 3 - 100]  # killed within the second transaction
    folder = tmp_path / "killed"
    folder.mkdir()
    copy = folder / path.name
    shutil.copyfile(path, copy)
    log_of(copy).write_bytes(cut)
    sql.close()
    later = sqlite3.connect(copy, isolation_level=None)
    later.execute("PRAGMA wal_autocheckpoint = 0")
    later.execute("INSERT INTO notice VALUES ('later', 'x', 'own', 0)")
    said = check_log(copy)
    assert 0 < int(said.split()[0]) < frames - 4
    assert log_of(copy).stat().st_size == len(cut)
    later.close()


def test_a_new_round_over_a_longer_old_one_is_whole_and_a_change_before_its_last_commit_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(wal, "LOOK_AGAIN", 0.0)
    path, rng = tmp_path / "ledger.sqlite", random.Random(2)
    ledger = Ledger(path, identity=Identity.create())
    for life in range(12):
        ledger.begin_incarnation(1000 + life)
    with sqlite3.connect(path, isolation_level=None) as sql:
        sql.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    sql.close()
    ledger.begin_incarnation(5000)
    ledger.begin_incarnation(5001)
    log = log_of(path)
    data, said = log.read_bytes(), check_log(path)
    count = int(said.split()[0])
    assert 0 < count * (PAGE + FRAME_BYTES) < len(data) - HEADER_BYTES - PAGE
    copy = tmp_path / "copy.sqlite"
    for _ in range(20):
        spoilt = bytearray(data)
        spoilt[rng.randrange(HEADER_BYTES, HEADER_BYTES + (count - 2) * (PAGE + FRAME_BYTES))] ^= 1
        log_of(copy).write_bytes(spoilt)
        with pytest.raises(Broken):
            check_log(copy)
    ledger.close()


def test_kills_of_a_writer_are_no_damage(tmp_path):
    me, rng = Identity.create(), random.Random(3)
    me.save(tmp_path / "key")
    path = tmp_path / "ledger.sqlite"
    code = (
        "import sys; from pathlib import Path; from braintorrent.records import Identity;"
        "from braintorrent.storage import Ledger; here = Path(sys.argv[1]);"
        "ledger = Ledger(here / 'ledger.sqlite', identity=Identity.load(here / 'key')); print('writing', flush=True)\n"
        "for n in range(10**9): ledger.record('roster', {'n': n, 'more': 'x' * (n % 7 * 4000)})"
    )
    found = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(3):
            check_log(path)  # beside the writer
            time.sleep(rng.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        check_log(path)
        with Ledger(path, read_only=True) as ledger:
            assert all(finding.whole for finding in ledger.proved(me.id))
            [(entries,)] = ledger._database.rows("SELECT count(*) FROM entry")
        assert entries > found
        found = entries
