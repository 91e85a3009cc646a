"""Notes: this lab's signed entries that concern another, for the two to compare what each says about the other.

The file is JSON: what, format, author, about, entries (each an entry's signed bytes, in base64, in order).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braintorrent.errors import BadMessage, ConfigError, FormatError, StorageFull
from braintorrent.network.wire import clean
from braintorrent.node.lab import check_folder
from braintorrent.node.roster import Roster
from braintorrent.protocol.version import Version
from braintorrent.records import Entry, Identity, is_peer_id, open_entry, short
from braintorrent.storage import Ledger, StatePaths, write_atomically

WHAT, FORMAT = "braintorrent notes", 1
MAX_NOTES_BYTES = 256 << 20  # a file that somebody sent


@dataclass(frozen=True)
class _Said:
    """What a lab's entries say of itself and of one other. whole: from its first entry on, without an earlier past."""

    published: dict[Version, str]  # own version -> content
    met: list[tuple[int, Version, str, str]]  # in merges: entry, the other's version, content, reason if skipped
    proofs: list[tuple[int, Version]]  # of two contents for one version of the other: entry, version
    whole: bool


@dataclass(frozen=True)
class _Notes:
    """A file of another lab's entries, each verified."""

    author: str
    about: str
    count: int
    said: _Said


def write_notes(folder: Path, peer: str, file: Path) -> str:
    """This lab's entries that concern `peer`, a name or an id, into `file`; what was written, in words.

    All that this lab published concerns everybody, who may have merged it.
    """
    check_folder(folder)
    state = StatePaths(folder)
    me, about = Identity.load(state.key).id, _called(Roster(state.roster), peer)
    with Ledger(state.ledger, read_only=True) as ledger:
        found = [entry for entry in ledger.chain() if entry.author == me and _concerns(entry, about)]
    content = {
        "what": WHAT, "format": FORMAT, "author": me, "about": about,
        "entries": [base64.b64encode(entry.raw).decode() for entry in found],
    }  # fmt: skip
    try:
        write_atomically(file, json.dumps(content, indent=1).encode(), mode=0o644)
    except (OSError, StorageFull) as error:
        raise ConfigError(f"{file}: cannot be written ({error})") from None
    return f"{file}: {len(found)} entries that concern {peer}, each signed"


def compare_notes(folder: Path, file: Path) -> tuple[str, list[str]]:
    """What was compared, and where the notes in `file` and this lab's ledger disagree, in words.

    FormatError if the file is no such notes, or a signature in it does not verify.
    """
    check_folder(folder)
    state, notes = StatePaths(folder), _read(file)
    me, roster = Identity.load(state.key).id, Roster(state.roster)
    if notes.about != me:
        raise ConfigError(f"{file}: notes about {short(notes.about)}, and this lab is {short(me)}")
    name = f"{roster.name(notes.author)} {short(notes.author)}"
    with Ledger(state.ledger, read_only=True) as ledger:
        published = {a.version: a.content for a in ledger.own()}
        mine = _understand(ledger.chain(), notes.author)
    found = [*_of_mine(name, notes.said, published), *_of_theirs(name, notes.said, mine)]
    whose = "on the roster" if notes.author in roster.ids else "not on the roster"
    told = f"{notes.count} entries of {name} ({whose}), each signed by it; disagreements: {len(found) or 'none'}"
    return told, found


def _of_mine(name: str, said: _Said, published: dict[Version, str]) -> Iterator[str]:
    """What they say of my versions."""
    for sequence, version, content, reason in said.met:
        did = f"they skipped ({reason})" if reason else "they merged"
        if (mine := published.get(version)) != content:
            yield (
                f"entry {sequence} of {name}: {did} {content[:16]} as my version {version}; "
                f"{f'I published that with {mine[:16]}' if mine else 'I published no such version'}"
            )
    for sequence, version in said.proofs:
        yield f"entry {sequence} of {name}: they hold a proof that I signed two contents for version {version}"


def _of_theirs(name: str, said: _Said, mine: _Said) -> Iterator[str]:
    """What I met as their versions, and they say they published."""
    for sequence, version, content, reason in mine.met:
        theirs = said.published.get(version)
        if theirs != content and (theirs or said.whole):
            did = f"I skipped ({reason})" if reason else "I merged"
            yield (
                f"my entry {sequence}: {did} {content[:16]} as version {version} of {name}; "
                f"{f'they published that with {theirs[:16]}' if theirs else 'they say they published no such version'}"
            )


def _understand(entries: Iterable[Entry], other: str) -> _Said:
    """BadMessage at an entry of another shape than this release writes."""
    published: dict[Version, str] = {}
    met: list[tuple[int, Version, str, str]] = []
    proofs, whole = [], False
    for e in entries:
        whole = whole or (e.sequence == 1 and e.kind != "anchor")
        match e.kind, e.body:
            case "published", {"version": [int(i), int(c)], "content": str(content)}:
                published[Version(i, c)] = content
            case "merged", {"parts": list(parts)}:
                met += [(e.sequence, *part) for author, *part in map(_part, parts) if author == other]
            case "equivocation", {"peer": str(peer), "version": [int(i), int(c)]}:
                proofs += [(e.sequence, Version(i, c))] if peer == other else []
            case "published" | "merged" | "equivocation", _:
                raise BadMessage(f"entry {e.sequence} has another shape")
    return _Said(published, met, proofs, whole)


def _part(row: Any) -> tuple[str, Version, str, str]:
    match row:
        case [str(author), int(i), int(c), str(content), *_, str(reason)]:
            return author, Version(i, c), clean(content, 64), clean(reason, 64)
    raise BadMessage("a merge with a part of another shape")


def _concerns(entry: Entry, peer: str) -> bool:
    if entry.sequence == 1 or entry.kind == "published":
        return True
    return entry.body.get("peer") == peer or any(part[0] == peer for part in entry.body.get("parts", ()))


def _called(roster: Roster, peer: str) -> str:
    if is_peer_id(peer):
        return peer
    found = roster.named(peer) or {roster.heir(p) for p, revoked in roster.revoked.items() if revoked.name == peer}
    if len(found) != 1:
        there = f"there are: {roster.names or 'none'}"
        raise ConfigError(f"{roster.path}: {'several are' if found else 'nobody is'} called {peer}; {there}")
    return next(iter(found))


def _read(file: Path) -> _Notes:
    try:
        if file.stat().st_size > MAX_NOTES_BYTES:
            raise FormatError(f"{file}: too large for notes")
        found: Any = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: not readable ({error.strerror})") from None
    except (ValueError, RecursionError):
        found = None
    match found:
        case {"what": str(what), "format": int(fmt), "author": str(author), "about": str(about), "entries": list(raws)}:
            pass
        case _:
            what, fmt, author, about, raws = "", 0, "", "", []
    if what != WHAT or not (is_peer_id(author) and is_peer_id(about)):
        raise FormatError(f"{file}: not notes made by braintorrent audit --notes")
    if fmt != FORMAT:
        raise FormatError(f"{file}: notes of format {fmt}; this release of braintorrent reads {FORMAT}")
    try:
        entries = [open_entry(base64.b64decode(raw, validate=True)) for raw in raws]
        for entry in entries:
            if entry.author != author:
                raise BadMessage(f"entry {entry.sequence} is signed by {short(entry.author)}, not by {short(author)}")
        return _Notes(author, about, len(entries), _understand(entries, about))
    except (BadMessage, ValueError, TypeError) as error:
        raise FormatError(f"{file}: damaged, or not signed by its author ({error})") from None
