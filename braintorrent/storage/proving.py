"""Whether a ledger is what was signed: its file, the chain, and every table against the chain.

Figures (metrics, bytes counted, times, what is held) have no entries: for those the seal stands.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from braintorrent.errors import BadMessage, Broken
from braintorrent.protocol.version import Version
from braintorrent.records import Entry, open_announcement, open_entry, short
from braintorrent.records.entry import FIRST
from braintorrent.storage import chain
from braintorrent.storage.history import read_merges

Rows = Callable[..., list[Any]]
ROTATED = "rotated"  # the action of a roster entry that hands over to the key it names


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. said: what was looked at, or the first break, in one line."""

    what: str
    said: str
    whole: bool = True


def find(what: str, check: Callable[[], str]) -> Finding:
    """Run a check, which says what it looked at, or raises."""
    try:
        return Finding(what, check())
    except (Broken, BadMessage, sqlite3.DatabaseError, OSError, ValueError, TypeError, KeyError) as error:
        return Finding(what, str(error) or type(error).__name__, False)


def prove(rows: Rows, chained: bool, me: str) -> Iterator[Finding]:
    """Each check of a ledger's tables in turn.

    rows: answers of one state of it; chained: False for an older release's; me: who must have signed last, "" unknown.
    """
    yield find("file", lambda: _file(rows))
    yield find("announcements", lambda: _announcements(rows))
    if not chained:
        yield Finding("chain", "none yet: an older release wrote this ledger; the next start begins one")
        return
    entries: dict[str, list[Entry]] = defaultdict(list)
    yield find("chain", lambda: _chain(rows, me, entries))
    yield find("tables", lambda: _tables(rows, entries))


def _file(rows: Rows) -> str:
    for (text,) in rows("PRAGMA integrity_check"):
        if text != "ok":
            raise Broken(text)
    return "SQLite finds nothing wrong"


def _announcements(rows: Rows) -> str:
    found = rows("SELECT author, incarnation, counter, content, raw FROM announcement")
    for author, i, c, content, raw in found:
        where = f"announcement {short(author)} {i}.{c}"
        try:
            a = open_announcement(raw)
        except BadMessage as error:
            raise Broken(f"{where}: {error}") from None
        if (a.author, a.version, a.content) != (author, Version(i, c), content):
            raise Broken(f"{where} is filed under another name")
    proofs = rows("SELECT first, second FROM equivocation")
    for first, second in proofs:
        one, two = open_announcement(first), open_announcement(second)
        if (one.author, one.version) != (two.author, two.version) or one.content == two.content:
            raise Broken(f"the proof against {short(one.author)} {one.version} proves nothing")
    return f"{len(found)}, each signed by its author; {len(proofs)} proofs of two contents for one version"


def _chain(rows: Rows, me: str, entries: dict[str, list[Entry]]) -> str:
    previous, author, heir, sequence = FIRST, "", "", 0
    for sequence, kind, raw in rows("SELECT sequence, kind, raw FROM entry ORDER BY sequence"):
        where = f"entry {sequence}"
        try:
            entry = open_entry(raw)
        except BadMessage as error:
            raise Broken(f"{where}: {error}") from None
        if (entry.sequence, entry.kind, entry.previous) != (sequence, kind, previous):
            raise Broken(f"{where} does not follow the entry before it")
        if author and entry.author not in (author, heir):
            raise Broken(f"{where} is signed by {short(entry.author)}, those before it by {short(author)}")
        handed = entry.kind == "roster" and entry.body.get("action") == ROTATED
        author, heir = entry.author, entry.body["peer"] if handed else ""
        previous = entry.digest
        entries[entry.kind].append(entry)
    if me and author and me not in (author, heir):
        raise Broken(f"it is signed by {short(author)}, and this lab is {short(me)}")
    return f"{sequence} entries, each signed and linked to the one before, the last {previous[:16] or 'none'}"


def _tables(rows: Rows, entries: dict[str, list[Entry]]) -> str:
    old = {"life": 0, "announcement": 0, "equivocation": 0, "merge": 0, "part": 0}
    for entry in entries["anchor"]:
        old = dict(entry.body["rows"])
        if chain.old_digest(rows, entry.body["rows"]) != entry.body["digest"]:
            raise Broken("the history of an older release is not what the first entry says")
    own = "SELECT raw FROM announcement WHERE own ORDER BY incarnation, counter"
    proofs = rows("SELECT first, second, lifted FROM equivocation ORDER BY rowid")[old["equivocation"] :]
    told = {
        "life": [chain.life(i) for (i,) in rows("SELECT incarnation FROM life ORDER BY incarnation")[old["life"] :]],
        "published": [chain.published(open_announcement(raw)) for (raw,) in rows(own)[old["announcement"] :]],
        "merged": [chain.merged(merged, into) for into, merged in read_merges(rows)[old["merge"] :]],
        "equivocation": [chain.equivocation(*map(open_announcement, both)) for *both, _ in proofs],
    }
    for kind, bodies in told.items():
        _same(kind, bodies, entries[kind])
    _standing(rows, [bool(lifted) for *_, lifted in proofs], entries)
    return ", ".join(f"{len(bodies)} {kind}" for kind, bodies in told.items()) + ": as signed"


def _same(kind: str, bodies: list[dict[str, Any]], entries: list[Entry]) -> None:
    for body, entry in zip(bodies, entries, strict=False):
        if not body.items() <= entry.body.items():  # a life tells of its files too
            raise Broken(f"entry {entry.sequence} ({kind}) is not what the tables tell")
    if len(bodies) != len(entries):
        raise Broken(f"the chain has {len(entries)} entries of kind {kind}, the tables tell of {len(bodies)}")


def _standing(rows: Rows, lifted: list[bool], entries: dict[str, list[Entry]]) -> None:
    """Quarantines lifted, and versions refused, as the chain has it."""
    proofs, lifts = entries["equivocation"], entries["lifted"]
    for proof, now in zip(proofs, lifted, strict=True):
        life = (proof.body["peer"], proof.body["version"][0])
        said = any(e.sequence > proof.sequence and (e.body["peer"], e.body["incarnation"]) == life for e in lifts)
        if said != now:
            raise Broken(f"the quarantine of entry {proof.sequence} is {'' if now else 'not '}lifted without an entry")
    refused = {(e.body["peer"], *e.body["version"], e.body["reason"]) for e in entries["refused"]}
    many = _refused_often(entries["life"], entries["refused"])
    since = entries["anchor"][0].unix_ms / 1000 if entries["anchor"] else 0.0
    for author, i, c, reason, unix in rows("SELECT author, incarnation, counter, reason, unix FROM refusal"):
        if unix >= since and author not in many and (author, i, c, reason) not in refused:
            raise Broken(f"{short(author)} {i}.{c} is refused without an entry")


def _refused_often(lives: list[Entry], refused: list[Entry]) -> set[str]:
    """Authors of whom one life refused so much that the chain does not tell all of it."""
    starts = [entry.sequence for entry in lives]
    counts = Counter((bisect(starts, entry.sequence), entry.body["peer"]) for entry in refused)
    return {peer for (_, peer), count in counts.items() if count >= chain.MAX_REFUSALS}
