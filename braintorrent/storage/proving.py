"""Whether a ledger is what was signed: its file, the chain, and every table against the chain.

Figures (metrics, bytes counted, times, what is held) have no entries: for those the seal stands.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from braintorrent.errors import BadMessage, Broken
from braintorrent.protocol.version import Version
from braintorrent.records import Entry, open_announcement, open_entry, short
from braintorrent.records.entry import FIRST
from braintorrent.storage import chain
from braintorrent.storage.history import paged, read_merges

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
    yield find("chain", lambda: _chain(rows, me))
    yield find("tables", lambda: _tables(rows))


def _file(rows: Rows) -> str:
    for (text,) in rows("PRAGMA integrity_check"):
        if text != "ok":
            raise Broken(text)
    return "SQLite finds nothing wrong"


def _announcements(rows: Rows) -> str:
    count = proofs = 0
    found = "SELECT author, incarnation, counter, content, raw FROM announcement ORDER BY rowid"
    for author, i, c, content, raw in paged(rows, found):
        where = f"announcement {short(author)} {i}.{c}"
        try:
            a = open_announcement(raw)
        except BadMessage as error:
            raise Broken(f"{where}: {error}") from None
        if (a.author, a.version, a.content) != (author, Version(i, c), content):
            raise Broken(f"{where} is filed under another name")
        count += 1
    for first, second in paged(rows, "SELECT first, second FROM equivocation ORDER BY rowid"):
        one, two = open_announcement(first), open_announcement(second)
        if (one.author, one.version) != (two.author, two.version) or one.content == two.content:
            raise Broken(f"the proof against {short(one.author)} {one.version} proves nothing")
        proofs += 1
    return f"{count}, each signed by its author; {proofs} proofs of two contents for one version"


def _chain(rows: Rows, me: str) -> str:
    previous, author, heir, sequence = FIRST, "", "", 0
    for sequence, kind, raw in chain.read(rows):
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
    if me and author and me not in (author, heir):
        raise Broken(f"it is signed by {short(author)}, and this lab is {short(me)}")
    return f"{sequence} entries, each signed and linked to the one before, the last {previous[:16] or 'none'}"


def _tables(rows: Rows) -> str:
    old = {"life": 0, "announcement": 0, "equivocation": 0, "merge": 0, "part": 0}
    since = 0.0
    for entry in _entries(rows, "anchor"):
        old, since = dict(entry.body["rows"]), entry.unix_ms / 1000
        if chain.old_digest(rows, entry.body["rows"]) != entry.body["digest"]:
            raise Broken("the history of an older release is not what the first entry says")
    lives = "SELECT incarnation FROM life ORDER BY incarnation"
    own = "SELECT raw FROM announcement WHERE own ORDER BY incarnation, counter"
    proofs = "SELECT first, second FROM equivocation ORDER BY rowid"
    told: dict[str, Iterator[dict[str, Any]]] = {
        "life": (chain.life(i) for (i,) in paged(rows, lives, old["life"])),
        "published": (chain.published(open_announcement(raw)) for (raw,) in paged(rows, own, old["announcement"])),
        "merged": (chain.merged(merged, into) for into, merged in read_merges(rows, old["merge"])),
        "equivocation": (
            chain.equivocation(*map(open_announcement, both)) for both in paged(rows, proofs, old["equivocation"])
        ),
    }
    counts = {kind: _same(kind, bodies, _entries(rows, kind)) for kind, bodies in told.items()}
    _quarantines(rows, old["equivocation"])
    _refusals(rows, since)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) + ": as signed"


def _entries(rows: Rows, *kinds: str) -> Iterator[Entry]:
    return (open_entry(raw) for *_, raw in chain.read(rows, *kinds))


def _same(kind: str, bodies: Iterator[dict[str, Any]], entries: Iterator[Entry]) -> int:
    """How many there are, as many and of the same content in both."""
    told = signed = 0
    for body, entry in zip_longest(bodies, entries):
        if body and entry and not body.items() <= entry.body.items():  # a life tells of its files too
            raise Broken(f"entry {entry.sequence} ({kind}) is not what the tables tell")
        told, signed = told + (body is not None), signed + (entry is not None)
    if told != signed:
        raise Broken(f"the chain has {signed} entries of kind {kind}, the tables tell of {told}")
    return told


def _quarantines(rows: Rows, skip: int) -> None:
    """Lifted as the chain has it."""
    last = {(e.body["peer"], e.body["incarnation"]): e.sequence for e in _entries(rows, "lifted")}
    lifted = paged(rows, "SELECT lifted FROM equivocation ORDER BY rowid", skip)
    for proof, (now,) in zip(_entries(rows, "equivocation"), lifted, strict=True):
        said = last.get((proof.body["peer"], proof.body["version"][0]), 0) > proof.sequence
        if said != bool(now):
            raise Broken(f"the quarantine of entry {proof.sequence} is {'' if now else 'not '}lifted without an entry")


def _refusals(rows: Rows, since: float) -> None:
    """Versions refused since a time, in Unix seconds, as the chain has it."""
    query = "SELECT author, incarnation, counter, reason FROM refusal WHERE unix >= ? ORDER BY 1, 2, 3"
    left, often = set(rows(query, since)), set()
    counts: Counter[str] = Counter()
    for entry in _entries(rows, "life", "refused"):
        if entry.kind == "life":
            counts.clear()
        else:
            peer = entry.body["peer"]
            left.discard((peer, *entry.body["version"], entry.body["reason"]))
            counts[peer] += 1
            if counts[peer] >= chain.MAX_REFUSALS:
                often.add(peer)  # more than the chain tells
    for author, i, c, _ in sorted(left):
        if author not in often:
            raise Broken(f"{short(author)} {i}.{c} is refused without an entry")
