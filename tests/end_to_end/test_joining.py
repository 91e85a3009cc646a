"""Join by one code, as two labs type it: real processes on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from braintorrent.errors import RemoteError
from braintorrent.network.joining import knock
from braintorrent.node.inviting import cancel, invite
from braintorrent.node.lab import make_identity
from braintorrent.node.roster import Roster
from braintorrent.records import Identity, Invite, decode_invite, encode_invite
from braintorrent.records.invite import new_secret
from braintorrent.storage import StatePaths
from braintorrent.workbench.joining import look

LOOPBACK = ("--listen", "127.0.0.1:0")


@pytest.fixture
def inviter(federate):
    """A federation whose lab-a runs."""
    labs = federate("lab-a", acquainted=False, listen="127.0.0.1:0")
    labs.start()
    labs.until(lambda: labs.status("lab-a"))
    return labs


def arguments(code: str, folder: Path, *more: str) -> list[str]:
    return ["join", code, str(folder), "--data", str(folder.parent), *LOOPBACK, *more]


def test_a_third_lab_joins_by_a_code_and_all_three_merge(federate, cli):
    labs = federate("lab-a", "lab-b", listen="127.0.0.1:0", introductions="accept")
    labs.start()
    labs.until(lambda: labs.has_merged("lab-a", "lab-b"))
    code = cli("invite", "lab-c", "-C", labs.folders["lab-a"]).stdout.strip()
    folder = labs.root / "elsewhere" / "lab-c"
    folder.parent.mkdir()
    said = cli(*arguments(code, folder, "--yes", "--json"))
    joined = json.loads(said.stdout)
    assert joined["trusts"] == ["lab-a", "lab-b"]
    assert "standin" in said.stderr, "what is trained is shown, in JSON mode too"
    assert (folder / "state/key").stat().st_mode & 0o777 == 0o600
    labs.folders["lab-c"] = folder
    labs.start("lab-c")
    for lab in ("lab-a", "lab-b"):
        labs.until(lambda lab=lab: labs.has_merged(lab, "lab-c") and labs.has_merged("lab-c", lab))
    (row,) = json.loads(cli("invite", "--list", "--json", "-C", labs.folders["lab-a"]).stdout)
    assert row["state"] == f"used by {joined['id'][:7]}"


def test_codes_that_are_worthless_say_so_and_write_nothing(inviter, cli):
    a, folder, now = inviter.folders["lab-a"], inviter.root / "c" / "lab-c", time.time()
    folder.parent.mkdir()
    good, cancelled, expired = (
        decode_invite(invite(a, name, hours, now)) for name, hours in (("lab-c", 1), ("x", 1), ("y", 2 / 3600))
    )
    cancel(StatePaths(a), "x", now)
    guessed, stranger = altered(good, secret=new_secret()), altered(good, peer=Identity.create().id)
    time.sleep(max(0.0, now + 2.1 - time.time()))
    for code, reason in ((expired, "expired"), (cancelled, "unknown"), (guessed, "unknown"), (stranger, "identity")):
        with pytest.raises(RemoteError) as caught:
            look(code, folder)
        assert caught.value.reason == reason
        assert not folder.exists()
    assert cli(*arguments(encode_invite(good), folder, "--yes")).returncode == 0
    again = cli(*arguments(encode_invite(good), folder.parent / "lab-d", "--yes"), check=False)
    assert again.returncode == 1
    assert again.stderr == "braintorrent: this code was used already, by another key; ask for a new one\n"
    assert not (folder.parent / "lab-d").exists()


def test_no_at_the_question_writes_nothing_and_a_code_need_not_stand_in_the_command(inviter, cli):
    a, folder = inviter.folders["lab-a"], inviter.root / "c" / "lab-c"
    folder.parent.mkdir()
    code = invite(a, "lab-c", 1.0, time.time())
    said, words = start("-", folder).communicate(f"{code}\nn\n".encode(), timeout=30)
    assert b"Join, and trust lab-a? [y/N]" in said
    assert words.decode().splitlines()[-1] == "braintorrent: nothing was written; the code is still good"
    assert not folder.exists()
    process = start("-", folder, "--yes")
    process.communicate(f"{code}\n".encode(), timeout=30)
    assert process.returncode == 0
    assert Roster(StatePaths(a).roster).names == "lab-c"
    assert "by code" in cli("roster", a).stdout
    assert "by code" in cli("roster", folder).stdout


def test_ctrl_c_at_the_question_writes_nothing(inviter):
    a, folder = inviter.folders["lab-a"], inviter.root / "c" / "lab-c"
    folder.parent.mkdir()
    process = start(invite(a, "lab-c", 1.0, time.time()), folder)
    read_until(process, b"[y/N]: ")
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=30)
    assert (process.returncode, words.splitlines()[-1]) == (130, b"braintorrent: stopped")
    assert b"Traceback" not in words
    assert not folder.exists()
    assert Roster(StatePaths(a).roster).ids == frozenset()


def test_a_join_killed_at_any_moment_can_be_repeated(inviter, cli):
    a, parent = inviter.folders["lab-a"], inviter.root / "c"
    parent.mkdir()
    for name, seen in (("lab-k", "state/key"), ("lab-l", "state/roster.json")):
        code, folder = invite(a, name, 1.0, time.time()), parent / name
        process = start(code, folder, "--yes", "--only-inviter")
        while not (folder / seen).exists() and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        if not (folder / "peer.toml").exists():
            cli(*arguments(code, folder, "--yes", "--only-inviter"))
        assert Roster(StatePaths(a).roster).named(name) == {Identity.load(folder / "state/key").id}
        assert Roster(StatePaths(folder).roster).names == "lab-a"


def test_a_lost_answer_is_given_again_to_the_key_that_joined(inviter, cli):
    code = invite(inviter.folders["lab-a"], "lab-c", 1.0, time.time())
    folder = inviter.root / "lab-c"
    identity = make_identity(StatePaths(folder))
    asyncio.run(knock(identity, decode_invite(code), "join", "lab-c", ()))  # and the machine loses power
    with pytest.raises(RemoteError, match="by another key"):
        look(decode_invite(code), inviter.root / "lab-d")
    joined = json.loads(cli(*arguments(code, folder, "--yes", "--json")).stdout)
    assert joined["id"] == identity.id


def start(code: str, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "braintorrent", *arguments(code, folder, *more)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, "NO_COLOR": "1"})


def read_until(process: subprocess.Popen[bytes], end: bytes) -> None:
    words = b""
    while not words.endswith(end):
        assert process.stdout is not None
        piece = process.stdout.read(1)
        assert piece, words
        words += piece


def altered(code: Invite, **fields: object) -> Invite:
    """A code that its inviter did not make so, its checksum as it should be."""
    return Invite(**{**{name: getattr(code, name) for name in Invite.__slots__}, **fields})
