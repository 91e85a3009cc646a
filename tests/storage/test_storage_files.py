"""Atomic writing and the locked state folder."""

import errno
import os
import subprocess
import sys

import pytest

from braintorrent.errors import BusyError, FormatError, StorageFull
from braintorrent.storage import StateFolder, write_atomically
from braintorrent.storage.files import telling_full, write_at


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"ne", memoryview(b"w"), b"", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_content(small_disk):
    path = small_disk / "file"
    write_atomically(path, b"old")
    with pytest.raises(StorageFull, match="make room"):
        write_atomically(path, bytes(5 << 20))
    assert path.read_bytes() == b"old"
    assert list(small_disk.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_told_as_such_and_other_troubles_are_not(tmp_path, code):
    with pytest.raises(StorageFull), telling_full(tmp_path):
        raise OSError(code, "x")
    with pytest.raises(PermissionError), telling_full(tmp_path):
        raise PermissionError(errno.EACCES, "x")


def test_long_writes_arrive_whole(tmp_path):
    data = os.urandom(10_012_345)
    descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    for start in range(0, len(data), 3_000_001):
        write_at(descriptor, data[start : start + 3_000_001], start)
    os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == data


def test_a_state_folder_is_private_and_invisible_to_git(tmp_path):
    with StateFolder(tmp_path / "lab") as state:
        assert state.path.stat().st_mode & 0o777 == 0o700
        assert (state.path / ".gitignore").read_text() == "*\n"
        assert all(folder.is_dir() for folder in (state.blobs, state.models, state.log))


def test_a_state_folder_made_lax_is_private_again(tmp_path):
    (tmp_path / "state").mkdir(mode=0o755)
    with StateFolder(tmp_path) as state:
        assert state.path.stat().st_mode & 0o777 == 0o700


def test_two_processes_cannot_share_a_state_folder(tmp_path):
    hold = "import sys; from pathlib import Path; from braintorrent.storage import StateFolder\n"
    hold += f"s = StateFolder(Path({str(tmp_path)!r})); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(BusyError, match=rf"{tmp_path.name}.*process {process.pid}"):
            StateFolder(tmp_path)
        process.kill()
    StateFolder(tmp_path).close()


def test_close_is_idempotent(tmp_path):
    state = StateFolder(tmp_path)
    state.close()
    state.close()
    StateFolder(tmp_path).close()


def test_another_release_s_folder_is_refused_and_stays_free(tmp_path):
    StateFolder(tmp_path).close()
    (tmp_path / "state" / "format").write_text("99\n")
    for _ in range(2):
        with pytest.raises(FormatError, match="format 99"):
            StateFolder(tmp_path)


def test_only_old_leftovers_are_swept(tmp_path):
    StateFolder(tmp_path).close()
    old, fresh = (tmp_path / "state" / f".roster.json.{name}.tmp" for name in ("old", "fresh"))
    for file in (old, fresh):
        file.write_bytes(b"")
    os.utime(old, (1, 1))
    StateFolder(tmp_path).close()
    assert fresh.exists()
    assert not old.exists()
