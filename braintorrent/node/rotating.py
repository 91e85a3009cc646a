"""A new key for a lab: the old one says who it goes on as, the new one agrees, and the others follow.

`state/key.next` is there from the first word to the last: what a crash cut short is done again by the next `run`.
Then `key` is the new one, and `key.old` the old one, for nothing but the record.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from braintorrent.config import federation_path, load_federation
from braintorrent.node.kept import read_notices
from braintorrent.protocol.notices import Introduction, Revocation, Rotation
from braintorrent.protocol.version import Version
from braintorrent.records import Identity, digest, sign_announcement
from braintorrent.records.notice import rotation, sign_notice
from braintorrent.storage import Ledger, StateFolder, StatePaths
from braintorrent.storage.files import sync_folder
from braintorrent.storage.proving import ROTATED


def rotate(folder: Path) -> tuple[str, str]:
    """Give the lab in a peer folder a new key. (old peer id, new peer id). BusyError while a node runs there."""
    federation = load_federation(federation_path(folder)).id
    with StateFolder(folder) as state:
        old = Identity.load(state.key)
        if not _next(state).exists():
            Identity.create().save(_next(state))
        return old.id, finish(state, federation)


def unfinished(state: StatePaths) -> bool:
    """Whether a rotation was cut short here."""
    return _next(state).exists()


def finish(state: StateFolder, federation: str) -> str:
    """Do what is left of a rotation, and return the new peer id. Each step may be repeated."""
    old, new = Identity.load(state.key), Identity.load(_next(state))
    if old.id != new.id:
        _hand_over(state, old, new, federation)
        _go_on(state, old, new)
        former = state.path / "key.old"
        former.unlink(missing_ok=True)
        os.link(state.key, former)
    os.replace(_next(state), state.key)
    sync_folder(state.path)
    return new.id


def _hand_over(state: StatePaths, old: Identity, new: Identity, federation: str) -> None:
    """The old key's last words."""
    with Ledger(state.ledger, identity=old) as ledger:
        if any(entry.author == new.id for entry in ledger.chain()):
            return
        said = [each.notice for each in read_notices(ledger)]
        if not any(isinstance(notice, Rotation) and notice.peer == new.id for notice in said):
            ledger.keep_notice(rotation(old, new, federation, int(time.time() * 1000)).raw, "own")
        roster = digest(state.roster.read_bytes() if state.roster.exists() else b"")
        body = {"action": ROTATED, "peer": new.id, "name": "", "why": "a new key of this lab", "roster": roster}
        ledger.record("roster", body)


def _go_on(state: StatePaths, old: Identity, new: Identity) -> None:
    """What the old key said and still counts, said by the new one: others soon believe the old one no more."""
    with Ledger(state.ledger, identity=new) as ledger:
        newest = ledger.newest()
        if newest is not None and newest.author == old.id:
            incarnation = ledger.begin_incarnation(int(time.time() * 1000))
            version = Version(incarnation, newest.version.counter)
            ledger.publish(sign_announcement(new, replace(newest, author=new.id, version=version)))
        for notice in (each.notice for each in read_notices(ledger)):
            if isinstance(notice, Introduction | Revocation) and notice.author == old.id:
                ledger.keep_notice(sign_notice(new, replace(notice, author=new.id)).raw, "own")


def _next(state: StatePaths) -> Path:
    return state.path / "key.next"
