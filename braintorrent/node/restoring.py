"""Come back: what this peer was, from ledger, blobs and checkpoint, under a new incarnation."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from functools import partial

from braintorrent.errors import ConfigError, FormatError
from braintorrent.node.auditing import started_with
from braintorrent.node.context import Pending, log
from braintorrent.node.going_on import GoneBack, gone_back
from braintorrent.node.lab import Lab
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.steps import Restored
from braintorrent.protocol.version import NOTHING
from braintorrent.storage import BlobStore, Checkpoint, Ledger, Merged, load_checkpoint, write_atomically
from braintorrent.weights import Weights


def restore(lab: Lab, ledger: Ledger, blobs: BlobStore) -> tuple[Restored, Pending]:
    """The state of the last life, if any; the learner holds its weights afterwards.

    FormatError if the ledger names an own version whose bytes are gone: then the state folder is damaged.
    """
    newest, pending = ledger.newest(), Pending()
    entries = ledger.entries(lab.me)
    for entry in entries.values():
        held = entry.held
        if held is not None and not (blobs.has(held.content) and blobs.has(held.record)):
            entry.held = None  # fetched again if anybody offers it
    held = [entry.held for author, entry in entries.items() if entry.held and author in lab.roster.ids]
    needed = [*held, *([newest] if newest else [])]
    _keep_only(needed, ledger, blobs)  # first of all: on a full disk it is what makes room for the rest
    blobs.with_room(lambda: ledger.hold_only(needed), records=True)  # a kill between two steps leaves no bytes behind
    best, since_best = ledger.best(lab.learner.score)
    begin = partial(ledger.begin_incarnation, int(time.time() * 1000), files=started_with(lab))
    restored = Restored(
        blobs.with_room(begin, records=True),
        newest,
        entries,
        best=best,
        since_best=since_best,
        elapsed=ledger.elapsed(),
    )
    start = lab.state.models / "start.safetensors"
    if newest is None and not start.exists():
        write_atomically(start, *lab.learner.weights().parts)  # where to go back to if a first merge must be undone
    if lab.state.method.exists():
        lab.method.restore(json.loads(lab.state.method.read_bytes()))
    checkpoint, reason = load_checkpoint(lab.state.checkpoint, lab.learner.schema)
    if reason:
        log.warning("the checkpoint is of no use (%s): training goes on from the last version", reason)
    gone = gone_back(ledger)
    if gone is not None and (checkpoint is None or not _begins_at(checkpoint, lab.me, gone)):
        raise ConfigError(
            f"{lab.state.path}: the last rollback was cut short; again: "
            f"braintorrent rollback --to {gone.to.counter} -C {lab.folder}"
        )
    if checkpoint is not None and checkpoint.base == (newest.version if newest else NOTHING):
        lab.learner.load(checkpoint.weights)
        if checkpoint.state:
            lab.learner.restore(checkpoint.state)
        else:  # a person went back to an older version (reverting.py)
            _go_on_after(lab, newest, None)
        restored.resume = bool(checkpoint.pending.get("inside"))
        if checkpoint.pending.get("merge"):
            pending.merge = Merged.from_plain(checkpoint.pending["merge"])
            for author, part in pending.merge.included.items():
                if author in entries:
                    entries[author].merged = max(entries[author].merged, part.version)
        where = f"from {gone}" if gone else "from its checkpoint"
        log.info("going on with version %d, %s", (newest.version.counter if newest else 0) + 1, where)
    elif newest is not None:
        load_version(lab, blobs, newest.content)
        _go_on_after(lab, newest, checkpoint)
        log.info("going on after version %d", newest.version.counter)
    return restored, pending


def _keep_only(needed: Iterable[Announcement], ledger: Ledger, blobs: BlobStore) -> None:
    """All other bytes may go."""
    unneeded = blobs.digests() - {digest for a in needed for digest in (a.content, a.record)}
    records = ledger.records()
    for digest in unneeded.difference(records):
        blobs.supersede(digest)
    for digest in records:
        if digest in unneeded:
            blobs.archive(digest)


def _begins_at(checkpoint: Checkpoint, me: str, gone: GoneBack) -> bool:
    """Whether it holds what is trained from the version gone back to, and not what was there before."""
    own = (checkpoint.pending.get("merge") or {}).get("included", {})
    return checkpoint.base == gone.newest and list(own) == [me] and tuple(own[me]["version"]) == gone.to


def _go_on_after(lab: Lab, newest: Announcement | None, outdated: Checkpoint | None) -> None:
    """Or it would train on its first batches again. An outdated checkpoint still has what never leaves this lab."""
    if newest is not None and hasattr(lab.learner, "after"):
        state = lab.learner.after(newest.version.counter)
        kept = outdated.state if outdated is not None else {}
        personal = {n for n in state if n.startswith("personal.") and n in kept and kept[n].shape == state[n].shape}
        lab.learner.restore(state | {name: kept[name] for name in personal})


def load_version(lab: Lab, blobs: BlobStore, content: str) -> None:
    """Put the weights of an own version into the learner."""
    schema = lab.learner.schema
    if not blobs.verify(content):
        raise FormatError(
            f"{lab.state.path}: the weights of this lab's own newest version are missing or damaged; restore the "
            "folder from a backup, or move everything but `key` and `roster.json` away to come back as a newcomer"
        )
    descriptor, size = blobs.open(content)
    with os.fdopen(descriptor, "rb") as file:  # buffered: one read(2) ends at 2 GiB
        weights = Weights(schema)
        file.seek(len(schema.header))
        if size != schema.size or file.readinto(weights.buffer.data) != schema.nbytes:
            raise FormatError(f"{lab.state.path}: holds another network's weights than the federation now agrees on")
    lab.learner.load(weights)
