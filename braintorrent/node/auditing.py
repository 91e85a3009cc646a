"""Audit: whether what lies in a peer folder is what was signed. Beside a running node too; nothing is written.

The seal covers every byte of a stopped peer's ledger. The chain, the announcements, the proofs and the notices carry
signatures, the tables are held against the chain, blobs against their names, the roster against its last entry.
What an audit cannot see is a whole folder put back as it was: that shows in the notes of other labs (notes.py).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from braintorrent.config import federation_path, load_federation
from braintorrent.errors import Broken, ConfigError, FormatError, IdentityError
from braintorrent.node.control import holder
from braintorrent.node.lab import Lab, check_folder
from braintorrent.records import Identity, digest, short
from braintorrent.records.canonical import HEX_DIGEST
from braintorrent.records.notice import open_notice
from braintorrent.storage import Ledger, StatePaths, file_digest
from braintorrent.storage.proving import Finding, find
from braintorrent.storage.seal import sealed
from braintorrent.storage.wal import check_log

START, ALONE = "start", "alone"  # models that no JSON of a node tells of: where all began, and a baseline of `evaluate`
NOT_COVERED = "not covered: peer.toml, the key's own header, logs, the checkpoint, the baseline of evaluate --alone"


def audit(folder: Path) -> Iterator[Finding]:
    """Each check in turn, up to the first that finds a break. ConfigError unless `folder` is a peer folder."""
    check_folder(folder)
    for finding in _checks(folder, StatePaths(folder)):
        yield finding
        if not finding.whole:
            return


def find_roster(state: StatePaths, ledger: Ledger) -> None:
    """At a start: a roster of before there were entries gets one, durable on return."""
    if state.roster.exists() and next(ledger.chain("roster"), None) is None:
        body = {"action": "found", "peer": "", "name": "", "why": "", "roster": file_digest(state.roster)}
        ledger.record("roster", body)


def started_with(lab: Lab) -> dict[str, str]:
    """Name -> digest of what a life begins with, for its entry; "start" is of the weights that all labs begin from."""
    return {**_files(lab.federation_file, lab.state), START: lab.start}


def _files(federation: Path, state: StatePaths) -> dict[str, str]:
    return {file.name: file_digest(file) for file in (federation, state.split) if file.is_file()}


def _federation(folder: Path) -> Path:
    try:
        return federation_path(folder)
    except ConfigError:
        return folder / "federation.toml"


def _checks(folder: Path, state: StatePaths) -> Iterator[Finding]:
    if not state.ledger.exists():
        if any(any(place.glob("*")) for place in (state.blobs, state.models)):
            yield Finding("ledger", f"{state.ledger.name} is missing, though a node ran here", False)
            return
        raise ConfigError(f"{folder}: nothing was ever recorded here; braintorrent run {folder}")
    me = ""
    with contextlib.suppress(IdentityError):
        me = Identity.load(state.key).id
    author: list[str] = []
    yield find("seal", lambda: _seal(folder, state, author))
    yield find("log", lambda: check_log(state.ledger))
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
        yield find("roster", lambda: _roster(state.roster, ledger))
        began = [dict(e.body["files"]) for e in ledger.chain("life") if "files" in e.body]
        yield find("models", lambda: _models(state, ledger))
        yield find("start", lambda: _start(folder, state, {files[START] for files in began}))
        yield find("files", lambda: _changed(_files(_federation(folder), state), began))


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


def _roster(path: Path, ledger: Ledger) -> str:
    """The file may be what an entry written meanwhile leads to; after a crash or with a full disk, what one found."""
    count, may = 0, (digest(b""), digest(b""))
    for entry in ledger.chain("roster"):
        count, may = count + 1, (entry.body.get("over", may[1]), entry.body.get("roster"))
    content = path.read_bytes() if path.exists() else b""
    if not count:
        return "not in the ledger yet: the next start records it" if content else "nobody was ever trusted"
    since = itertools.islice(ledger.chain("roster"), count, None)
    if digest(content) not in {*may, *(entry.body.get("roster") for entry in since)}:
        how = "is not what its last entry in the ledger says: changed by hand, or damaged" if content else "is missing"
        raise Broken(f"{path.name} {how}")
    return f"as its last entry says, after {count} {'change' if count == 1 else 'changes'}"


def _models(state: StatePaths, ledger: Ledger) -> str:
    own, between = {a.content for a in ledger.own()}, state.control.exists()  # a node runs, or was killed
    names = {file.stem for kind in ("safetensors", "json") for file in state.models.glob(f"*.{kind}")}
    names -= {START, ALONE}
    for name in sorted(names):
        _model(state.models, name, own, between=between)
    return f"{', '.join(sorted(names)) or 'none kept'}{', as told beside them' if names else ''}"


def _model(models: Path, name: str, own: set[str], *, between: bool) -> None:
    """between: a kill may have come between the two files, each of which then is of a version of this lab."""
    said, file = _told(models, name), models / f"{name}.safetensors"
    if not file.exists():
        raise Broken(f"{file.name} is missing, though {name}.json tells of it")
    found = file_digest(file)
    if found == said or _told(models, name) != said:  # written meanwhile
        return
    if between and (found in own or (said is None and name == "merged")) and (said is None or said in own):
        return
    if said is None:
        raise Broken(f"{file.name} has no {name}.json, which says what made it: removed")
    raise Broken(f"{file.name} is not what {name}.json says: one of them was changed, or is damaged")


def _told(models: Path, name: str) -> str | None:
    """The digest of the model that NAME.json tells of; None without the file."""
    try:
        content = json.loads((models / f"{name}.json").read_bytes())["content"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        content = ""
    if not isinstance(content, str) or not HEX_DIGEST.fullmatch(content):
        raise Broken(f"{name}.json does not say what {name}.safetensors is: damaged, or changed by hand")
    return content


def _start(folder: Path, state: StatePaths, began: set[str]) -> str:
    """The shared start, to which a lab may go back. began: what lives of this lab began from."""
    file = state.models / f"{START}.safetensors"
    if not file.exists():
        return "not kept here"
    agreed = began
    if not began:
        with contextlib.suppress(ConfigError):
            agreed = {load_federation(_federation(folder)).start.digest} - {""}
    if agreed and file_digest(file) not in agreed:
        raise Broken(f"{file.name} is not what this lab began from: damaged, or replaced")
    return f"as the {'ledger' if began else 'federation.toml'} says" if agreed else "nobody wrote down what it was"


def _changed(now: dict[str, str], began: list[dict[str, str]]) -> str:
    """federation.toml may be edited for the next start; who trains and who tests is fixed at the first."""
    if not began:
        return f"no start told of them yet; {NOT_COVERED}"
    before = {name: said for name, said in began[-1].items() if name != START}
    changed = [f"{name} {'changed since' if name in now else 'is missing since'} the last start"
               for name, said in before.items() if now.get(name) != said]  # fmt: skip
    changed += [f"{name} came after the last start" for name in now.keys() - before.keys()]
    split = [text for text in changed if text.startswith("split.json")]
    if split:
        raise Broken(split[0])
    same = f"{' and '.join(sorted(before))} as at the last start"
    return f"{'; '.join(changed) or same}; {NOT_COVERED}"
