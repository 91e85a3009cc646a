"""Audit: whether what lies in a peer folder is what was signed. Beside a running node too; nothing is written.

The seal covers every byte of a stopped peer's ledger. The chain, the announcements, the proofs and the notices carry
signatures, the tables are held against the chain, blobs against their names, the roster against its last entry.
What an audit cannot see is a whole folder put back as it was: that shows in the notes of other labs (notes.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from braintorrent.errors import Broken, FormatError, IdentityError
from braintorrent.node.control import holder
from braintorrent.node.keeping import told
from braintorrent.node.lab import check_folder
from braintorrent.records import Identity, digest, short
from braintorrent.records.canonical import HEX_DIGEST
from braintorrent.records.notice import open_notice
from braintorrent.storage import Ledger, StatePaths, file_digest
from braintorrent.storage.proving import Finding, find
from braintorrent.storage.seal import sealed


def audit(folder: Path) -> Iterator[Finding]:
    """Each check in turn, up to the first that finds a break. ConfigError unless `folder` is a peer folder."""
    check_folder(folder)
    for finding in _checks(folder, StatePaths(folder)):
        yield finding
        if not finding.whole:
            return


def find_roster(state: StatePaths, ledger: Ledger) -> None:
    """At a start: a roster of before there were entries gets one, durable on return."""
    if state.roster.exists() and not _rosters(ledger):
        body = {"action": "found", "peer": "", "name": "", "why": "", "roster": file_digest(state.roster)}
        ledger.record("roster", body)


def _checks(folder: Path, state: StatePaths) -> Iterator[Finding]:
    roster = state.roster.read_bytes() if state.roster.exists() else None  # before the ledger, whose entry comes first
    if not state.ledger.exists():
        yield Finding("ledger", "none yet: nothing was ever recorded here")
        return
    me = ""
    with contextlib.suppress(IdentityError):
        me = Identity.load(state.key).id
    author: list[str] = []
    yield find("seal", lambda: _seal(folder, state, author))
    try:
        ledger = Ledger(state.ledger, read_only=True)
    except (FormatError, sqlite3.Error) as error:
        yield Finding("ledger", str(error), False)
        return
    with ledger:
        yield from ledger.proved(me)
        if author and author[0] != me:
            yield find("seal", lambda: _sealer(author[0], ledger))
        yield find("notices", lambda: _notices(ledger))
        yield find("blobs", lambda: _blobs(state, ledger))
        yield find("roster", lambda: _roster(roster, _rosters(ledger)))
        yield find("models", lambda: _models(state, ledger))


def _seal(folder: Path, state: StatePaths, author: list[str]) -> str:
    by = sealed(state.ledger)
    if by is not None:
        author.append(by)
        return f"whole, signed by {short(by)}: no byte of {state.ledger.name} changed since"
    process = holder(folder)
    if process:
        return f"process {process} runs here: the seal is checked when it is stopped"
    return "absent: the last process to write here did not end in peace; the other checks stand without it"


def _sealer(author: str, ledger: Ledger) -> str:
    """The key may have changed since."""
    if author not in {entry.author for entry in ledger.chain()}:
        raise Broken(f"signed by {short(author)}, who is not this lab")
    return f"signed by {short(author)}, this lab's key before"


def _notices(ledger: Ledger) -> str:
    found = ledger.notices()
    for raw, _ in found:
        open_notice(raw)
    return f"{len(found)}, each signed by its author"


def _blobs(state: StatePaths, ledger: Ledger) -> str:
    count, size = 0, 0
    for file in sorted(state.blobs.glob("*")):
        if HEX_DIGEST.fullmatch(file.name):
            with contextlib.suppress(FileNotFoundError):  # superseded meanwhile
                if file_digest(file) != file.name:
                    raise Broken(f"{file.name[:16]} is not what its name says: damaged")
                count, size = count + 1, size + file.stat().st_size
    for needed in sorted(ledger.needed()):
        if not (state.blobs / needed).exists() and needed in ledger.needed():
            raise Broken(f"{needed[:16]} is missing, though a version held here needs it")
    return f"{count} of {size / 2**20:.1f} MiB, each what its name says"


def _rosters(ledger: Ledger) -> list[str]:
    """The digests of the rosters that the entries tell of, in order."""
    return [str(entry.body.get("roster")) for entry in ledger.chain("roster")]


def _roster(content: bytes | None, told: list[str]) -> str:
    """A crash after the entry leaves the roster of the entry before."""
    if not told:
        return "not in the ledger yet: the next start records it" if content is not None else "nobody was ever trusted"
    if content is None and len(told) > 1 and digest(b"") not in told[-2:]:
        raise Broken("roster.json is missing")
    if content is not None and digest(content) not in told[-2:]:
        raise Broken("roster.json is not what its last entry in the ledger says: changed by hand, or damaged")
    return f"as its last entry says, after {len(told)} {'change' if len(told) == 1 else 'changes'}"


def _models(state: StatePaths, ledger: Ledger) -> str:
    own, names = {a.content for a in ledger.own()}, []
    for file in sorted(state.models.glob("*.safetensors")):
        said = told(state.models, file.stem).get("content")
        if said is not None:
            found = file_digest(file)
            if found != said and found not in own and told(state.models, file.stem).get("content") == said:
                raise Broken(f"{file.name} is neither what {file.stem}.json says nor any version of this lab: damaged")
            names.append(file.stem)
    return f"{', '.join(names) or 'none kept'}{', as told beside them' if names else ''}"
